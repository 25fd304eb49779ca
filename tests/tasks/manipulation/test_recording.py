"""The video of an episode can be played, whatever happened in it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from synthetic_scenes import RED, box, observation, scene
from truth import truth_of, truth_policy

from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import WorldConfig, cameras
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig
from pcm_ros.tasks.manipulation.policy_events import Finished, Observed, Outcome
from pcm_ros.tasks.manipulation.recording import EpisodeRecorder, annotate, draw_action
from pcm_ros.tasks.manipulation.workcell import PickPlace
from pcm_ros.tasks.manipulation.world_model import WorldModel

BLOCK = box(0.5, 0.0, (0.06, 0.06, 0.05), RED)
ACTION = PickPlace(np.array([0.5, 0.0, 0.13]), 0.3, 0.07, np.array([0.6, 0.1, 0.13]), 0.3)


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_an_episode(tmp_path: Path) -> None:
    cell = SimWorkcell("relations-1", WorldConfig(cameras=cameras(3)), seed=1000)
    policy = truth_policy(cell, truth_of(cell), ["front", "left", "right"], ManipulationConfig(proposals=64, iterations=2, finalists=4))
    with EpisodeRecorder(tmp_path / "new" / "episode.mp4", cell.episode.instruction) as recorder:
        for event in policy.run(cell.episode.instruction, 0):
            recorder.record(event)
            recorder.picture(np.full((240, 320, 3), 90, np.uint8))
    pictures = frames(tmp_path / "new" / "episode.mp4")
    assert len(pictures) > 24
    assert len({picture.shape for picture in pictures}) == 1
    assert len({picture.tobytes() for picture in pictures}) > 5
    cell.close()


def test_without_any_picture_there_is_no_file(tmp_path: Path) -> None:
    with EpisodeRecorder(tmp_path / "none.mp4", "sing a song") as recorder:
        recorder.record(Finished(Outcome.INVALID_INSTRUCTION, "no", 0, ()))
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("width", [320, 317, 64])
def test_any_size_and_any_letters(tmp_path: Path, width: int) -> None:
    with EpisodeRecorder(tmp_path / "odd.mp4", "stell die grüne Tasse 左 " * 20) as recorder:
        recorder.record(Observed(observation(BLOCK, width=width), scene(BLOCK)))
    assert len(frames(tmp_path / "odd.mp4")) > 1


def test_annotations_leave_the_picture_alone() -> None:
    seen = observation(BLOCK)
    before = seen.views[0].rgb.copy()
    world = WorldModel(scene(BLOCK), seen)
    plain, drawn = annotate(seen.views[0], world), annotate(seen.views[0], world, ACTION)
    assert (seen.views[0].rgb == before).all()
    assert (plain != before).any()
    assert (plain != drawn).any()


def test_an_action_behind_the_camera_is_not_drawn() -> None:
    view = observation(BLOCK).views[0]
    image = view.rgb.copy()
    draw_action(image, view, PickPlace(np.array([5.0, 0.0, 3.0]), 0.0, 0.05, np.array([0.6, 0.1, 0.1]), 0.0))
    assert (image == view.rgb).all()
