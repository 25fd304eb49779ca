"""What goes wrong with the video of a goal costs the goal nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from pcm_ros.client import ManipulationClient
from pcm_ros.nodes.consensus_node import ConsensusNode, Video
from pcm_ros.tasks.manipulation.policy_events import Finished, Observed, Outcome
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, Observation, View, WorkcellLimits
from tests.nodes.spinning import domain, spinning

DOMAIN = domain(91)
LIMITS = WorkcellLimits(
    (0.2, -0.4, -0.1), (0.8, 0.4, 0.5), (0.0, 0.0, 0.0), (0.25, 0.75), (0.0, 1.0), (-1.0, 0.0), Gripper("suction", 0.03)
)
DONE = Finished(Outcome.SUCCESS, "the goal holds", 0, ())


def observed() -> Observed:
    depth, turn = np.ones((48, 64), dtype=np.float32), np.array([0.0, 0.0, 0.0, 1.0])
    view = View("front", np.zeros((48, 64, 3), dtype=np.uint8), depth, np.diag([50.0, 50.0, 1.0]), np.zeros(3), turn, 1)
    points = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    things = (SceneObject(points, np.zeros((9, 3), dtype=np.uint8), "red mug", 0.5),)
    return Observed(Observation((view,)), Scene(things, 0.0, LIMITS, 1))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ConsensusNode]:
    """An active node whose folder for videos is a file."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    (tmp_path / "videos").write_text("in the way")
    words = ["--ros-args", "-p", f"output:={tmp_path / 'videos'}", "-p", "startup_timeout:=0.0"]
    rclpy.init(args=words, domain_id=DOMAIN, signal_handler_options=SignalHandlerOptions.NO)
    made = ConsensusNode()
    with spinning(made):
        assert made.trigger_configure() == made.trigger_activate() == TransitionCallbackReturn.SUCCESS
        yield made
        made.stopping.set()


def test_a_goal_ends_as_it_does_though_no_video_can_be_made(node: ConsensusNode) -> None:
    with ManipulationClient(domain_id=DOMAIN) as client:
        outcome = client.manipulate("juggle", timeout=60.0)
    assert (outcome.error, outcome.video) == ("INVALID_INSTRUCTION", "")


def test_a_video_is_made(tmp_path: Path) -> None:
    told: list[str] = []
    video = Video(str(tmp_path), told.append)
    video.begin("stack them")
    for event in (observed(), DONE):
        video.record(event)
    path = video.end()
    assert Path(path).stat().st_size > 0 and path.endswith("-stack-them.mp4") and not told


def test_a_video_that_cannot_be_written_is_told_of_once(tmp_path: Path) -> None:
    told: list[str] = []
    video = Video(str(tmp_path / "videos"), told.append)
    video.begin("stack them")
    (tmp_path / "videos").rmdir()
    (tmp_path / "videos").write_text("in the way")
    for event in (observed(), observed(), DONE):
        video.record(event)
    assert video.end() == ""
    assert len(told) == 1 and told[0].startswith(f"no video is made in '{tmp_path / 'videos'}': ")


def test_no_folder_no_video() -> None:
    told: list[str] = []
    video = Video("", told.append)
    video.begin("stack them")
    video.record(observed())
    assert video.end() == "" and not told
