"""The ROS system is shown a picture of another scene, and reproduces its relations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from system_bench import RELATION_SCORER, Bench, running_system, write_parameters

from pcm_ros import msg

pytestmark = pytest.mark.timeout(600)  # a busy machine is no failure
TASK, SCENE = "image-goal", 126
VIEWS = ("front", "left", "top")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("picture")
    scorers = {f"scorer_{view}": {**RELATION_SCORER, "view": view} for view in VIEWS}
    parameters = write_parameters(folder / "parameters.yaml", scorers)
    with running_system(folder, parameters, scene=str(SCENE), task=TASK) as running:
        yield running


def test_what_the_picture_shows_is_true_in_the_end(bench: Bench) -> None:
    """The simulator's truth says so; the feedback says what was read."""
    goal = bench.client.reset_scene(SCENE, TASK)
    assert not goal.instruction and goal.picture is not None and goal.correspondence
    assert not bench.client.judge()
    bench.client.reset_scene(SCENE, TASK)
    states: list[msg.ConsensusState] = []
    outcome = bench.client.manipulate("", 0, states.append, 400.0, goal.picture, goal.correspondence)
    assert outcome.success, outcome
    assert bench.client.judge()
    assert [state.phase for state in states][:2] == ["read", "observed"]
    assert all(name in states[0].message for name in goal.correspondence.values())


@pytest.mark.parametrize(
    ("instruction", "shown", "correspondence", "text"),
    [
        ("put the red mug behind the blue can", True, {}, "instruction and goal_picture are both given"),
        ("", False, {}, "instruction is empty, and there is no goal_picture either"),
        ("", True, {"pink duck": "red toy"}, "'pink duck', which is not in the picture"),
        ("", True, {"red mug": "all mugs"}, "means several objects"),
        ("put the red mug behind the blue can", False, {"red mug": "can"}, "there is no goal_picture"),
    ],
)
def test_what_is_no_goal(bench: Bench, instruction: str, shown: bool, correspondence: dict[str, str], text: str) -> None:
    picture = bench.client.reset_scene(SCENE, TASK).picture if shown else None
    outcome = bench.client.manipulate(instruction, 0, None, 200.0, picture, correspondence)
    assert outcome.error == "INVALID_INSTRUCTION" and text in outcome.message and not outcome.actions


def test_pictures_without_depth_where_the_table_is(bench: Bench) -> None:
    picture = bench.client.reset_scene(SCENE, TASK).picture
    assert picture is not None
    nothing = replace(picture, depth=np.full_like(picture.depth, np.nan))
    outcome = bench.client.manipulate(picture=nothing, timeout=200.0)
    assert outcome.error == "INVALID_INSTRUCTION" and "goal_picture: " in outcome.message and "no return at all" in outcome.message
    elsewhere = replace(picture, position=picture.position + 10)
    outcome = bench.client.manipulate(picture=elsewhere, timeout=200.0)
    assert outcome.error == "INVALID_INSTRUCTION" and "the picture cannot be used" in outcome.message


def test_cancel_at_once(bench: Bench) -> None:
    goal = bench.client.reset_scene(SCENE, TASK)
    running = bench.client.start("", 0, picture=goal.picture, correspondence=goal.correspondence)
    running.cancel()
    outcome = running.result(180)
    assert outcome.error == "CANCELED" and not outcome.actions
