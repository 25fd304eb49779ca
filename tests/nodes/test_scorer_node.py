"""A scorer's node that is deactivated or cleaned up while its scorer works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from scorers_for_tests import Waits

from pcm_ros import msg, srv
from pcm_ros.consensus import Batch
from pcm_ros.nodes import conversions, lifecycle
from pcm_ros.nodes.scorer_node import ScorerNode
from pcm_ros.nodes.views import view_topic
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, View, WorkcellLimits
from tests.nodes.spinning import domain, spinning

PATIENCE, STAMP = 20.0, 42_000_000_001
LIMITS = WorkcellLimits(
    (0.2, -0.4, -0.1), (0.8, 0.4, 0.5), (0.0, 0.0, 0.0), (0.25, 0.75), (0.0, 1.0), (-1.0, 0.0), Gripper("suction", 0.03)
)


@dataclass
class Spun:
    """An active scorer's node that has the image, a client of its service, and the thread that spins both."""

    node: ScorerNode
    client: Any
    thread: threading.Thread

    def ask(self) -> Any:
        """Ask for energies, and return when the scorer is at work."""
        things = (SceneObject(np.zeros((9, 3), dtype=np.float32), np.zeros((9, 3), dtype=np.uint8), "red mug", 0.5),)
        numbers = {name: torch.zeros(2, width, dtype=torch.float64) for name, width in conversions.EXTRAS.items()}
        batch = Batch(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), numbers)
        request = srv.ScoreProposals.Request(
            proposals=conversions.proposals_message(batch, conversions.scene_message(Scene(things, 0.0, LIMITS, STAMP))),
            relation=conversions.relation_message(Relation(RelationKind.NEXT_TO, "red mug", ("blue bowl",))),
            stamp=conversions.time_message(STAMP),
        )
        answer = self.client.call_async(request)
        assert Waits.begun.wait(PATIENCE)
        return answer


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def spun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spun]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    Waits.begun.clear()
    Waits.let.clear()
    words = ["--ros-args", "-p", "scorer:=scorers_for_tests:Waits", "-p", "view:=front"]
    rclpy.init(args=words, domain_id=domain(96), signal_handler_options=SignalHandlerOptions.NO)
    node, asking = ScorerNode(), rclpy.create_node("asking", use_global_arguments=False)
    with spinning(node, asking) as thread:
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        camera = asking.create_publisher(msg.View, view_topic("front"), qos_profile_sensor_data)
        depth, turn = np.ones((2, 3), dtype=np.float32), np.array([0.0, 0.0, 0.0, 1.0])
        view = View("front", np.zeros((2, 3, 3), dtype=np.uint8), depth, np.diag([5.0, 5.0, 1.0]), np.zeros(3), turn, STAMP)

        def seen() -> bool:
            camera.publish(conversions.view_message(view))
            return node._views is not None and node._views.newest_stamp("front") == STAMP

        until(seen)
        client = asking.create_client(srv.ScoreProposals, "/scorer/score")
        assert client.wait_for_service(PATIENCE)
        yield Spun(node, client, thread)
        Waits.let.set()


def test_a_deactivation_waits_for_the_call_under_way(spun: Spun) -> None:
    spun.ask()
    became: list[TransitionCallbackReturn] = []
    deactivating = threading.Thread(target=lambda: became.append(spun.node.trigger_deactivate()))
    deactivating.start()
    deactivating.join(0.5)
    assert deactivating.is_alive(), "the scorer is still at work"
    Waits.let.set()
    deactivating.join(PATIENCE)
    assert became == [TransitionCallbackReturn.SUCCESS]
    assert spun.node._calls == 1


def test_a_scorer_that_hangs_makes_the_deactivation_fail_in_time_and_say_so(spun: Spun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_CALL_END", 0.3)
    spun.ask()
    assert spun.node.trigger_deactivate() == TransitionCallbackReturn.FAILURE
    assert "the call that was under way did not end within 0.3 s" in spun.node.status().message
    Waits.let.set()
    until(lambda: spun.node._calls == 1)
    assert spun.node.trigger_deactivate() == spun.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    Waits.begun.clear()
    assert spun.client.wait_for_service(PATIENCE)
    answer = spun.ask()
    until(answer.done)
    assert list(answer.result().score.energies) == [0.0, 0.0]


def test_a_node_that_is_cleaned_up_during_a_call_goes_on(spun: Spun) -> None:
    spun.ask()
    spun.node.stopping.set()  # the process ends: nothing is waited for
    spun.node.cleanup()
    Waits.let.set()
    until(lambda: spun.node._calls == 1)
    time.sleep(0.3)
    assert spun.thread.is_alive(), "an error in a callback ends the executor"
