"""One clean system of five processes, asked for one thing after the other."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from system_bench import INSTRUCTION, RELATION_SCORER, Bench, MotionFeedback, running_system, write_parameters

from pcm_ros import msg
from pcm_ros.nodes.conversions import numbers_of

SCENE = 0
pytestmark = pytest.mark.timeout(600)  # a busy machine is no failure
# DDS notices a process that was killed or stopped only when its lease ends: until then it looks like one that hangs.
LEFT_OUT = re.compile("no answer within|is gone|is not there|still busy")


def reasons_of(states: list[msg.ConsensusState], scorer: str) -> list[str]:
    """Why this scorer was left out, each time."""
    pairs = (zip(state.dropped, state.dropped_reasons, strict=True) for state in states)
    return [reason for pair in pairs for name, reason in pair if name == scorer]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("clean")
    scorers = {f"scorer_{view}": {**RELATION_SCORER, "view": view} for view in ("front", "left", "top")}
    with running_system(folder, write_parameters(folder / "parameters.yaml", scorers), scene=str(SCENE)) as running:
        yield running


@pytest.fixture(autouse=True)
def new_scene(bench: Bench) -> None:
    bench.client.reset(SCENE)


def cancel_at(bench: Bench, phase: str) -> tuple[str, str, list[msg.ConsensusState]]:
    """Send the goal and cancel it when it reports this phase."""
    reached, states = threading.Event(), list[msg.ConsensusState]()

    def watch(state: msg.ConsensusState) -> None:
        states.append(state)
        if state.phase == phase:
            reached.set()

    goal = bench.client.start(INSTRUCTION, 0, watch)
    assert reached.wait(180)
    goal.cancel()
    outcome = goal.result(180)
    return outcome.error, outcome.message, states


def test_a_sentence_moves_the_robot_and_one_process_takes_the_same_actions(bench: Bench) -> None:
    """Identical in all bits: seeds, images and proposals travel as they are."""
    outcome, states = bench.manipulate(seed=3)
    phases = [state.phase for state in states]
    assert phases[:3] == ["observed", "checked", "planning"] and "chosen" in phases and "executed" in phases
    planning = next(state for state in states if state.phase == "planning")
    assert {"relation:front", "relation:left", "relation:top"} <= set(planning.scorers)
    assert not planning.dropped
    assert outcome.actions
    plan = bench.parameter_file.with_name("plan.json")
    command = [sys.executable, "-m", "pcm_ros.cli", "run", INSTRUCTION, "--scene", str(SCENE), "--seed", "3", "--views", "front,left,top"]
    command += ["--config", str(bench.parameter_file), "--no-video", "--actions", str(plan)]
    alone = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert plan.is_file(), alone.stdout + alone.stderr
    assert json.loads(plan.read_text())["actions"] == [numbers_of(action) for action in outcome.actions]
    assert alone.returncode == (0 if outcome.success else 1)
    if outcome.success:
        assert os.path.getsize(outcome.video) > 1000


def test_cancel_while_planning(bench: Bench) -> None:
    error, message, states = cancel_at(bench, "observed")
    assert error == "CANCELED" and "cancel" in message
    assert "executed" not in [state.phase for state in states]


def test_cancel_while_moving(bench: Bench) -> None:
    states: list[msg.ConsensusState] = []
    with MotionFeedback(bench.client.node) as motion:
        goal = bench.client.start(INSTRUCTION, 0, states.append)
        assert motion.begun.wait(180)
        goal.cancel()
        assert goal.result(180).error == "CANCELED"
        ended = motion.count
        time.sleep(1.0)
        assert motion.count == ended
    assert all("OK" not in state.message for state in states if state.phase == "executed")
    assert bench.client.reset(SCENE) == INSTRUCTION


def test_second_goal_is_told_that_one_is_running(bench: Bench) -> None:
    first = bench.client.start(INSTRUCTION)
    second = bench.client.start("put the blue bowl behind the red mug").result(180)
    assert second.error == "BUSY" and INSTRUCTION in second.message and "cancel it" in second.message
    first.cancel()
    assert first.result(180).error == "CANCELED"


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("juggle the red mug", "Possible relations"),
        ("put the red mug under the blue bowl", "under"),
        ("put the red mug " * 625, "10000 characters; at most"),
        ("положи красную кружку слева от синей миски", "English only"),
        ("put the 🍵 left of", "not understood"),
    ],
)
def test_instruction_outside_the_grammar(bench: Bench, instruction: str, text: str) -> None:
    outcome, states = bench.manipulate(instruction)
    assert outcome.error == "INVALID_INSTRUCTION"
    assert text in outcome.message
    assert not outcome.actions and not states


def test_absent_object(bench: Bench) -> None:
    outcome, _ = bench.manipulate("put the pink duck to the left of the orange bottle")
    assert outcome.error in ("OBJECT_NOT_FOUND", "NOT_REACHED")
    assert outcome.message


def test_hanging_scorer_is_left_out_and_named(bench: Bench) -> None:
    process = bench.running.nodes["scorer_top"].process
    process.send_signal(signal.SIGSTOP)
    try:
        outcome, states = bench.manipulate()
    finally:
        process.send_signal(signal.SIGCONT)
    assert any(LEFT_OUT.search(reason) for reason in reasons_of(states, "relation:top"))
    assert outcome.error not in ("ERROR", "QUORUM")


def test_scorer_killed_in_mid_iteration_is_left_out_and_named(bench: Bench) -> None:
    """The last but one test of the module: the system stays without it."""
    states: list[msg.ConsensusState] = []

    def kill(state: msg.ConsensusState) -> None:
        states.append(state)
        if state.phase == "planning" and state.iteration == 0:
            bench.running.nodes["scorer_left"].process.kill()

    outcome = bench.client.manipulate(INSTRUCTION, 0, kill, timeout=400)
    planning = [state for state in states if state.phase == "planning" and state.iteration > 0]
    assert any("relation:left" in state.dropped for state in planning)
    assert any(LEFT_OUT.search(reason) for reason in reasons_of(planning, "relation:left"))
    assert outcome.error not in ("ERROR", "QUORUM")


def test_all_others_end_with_code_0(bench: Bench) -> None:
    """The last test of the module: a goal is running when SIGINT comes."""
    bench.client.start(INSTRUCTION)
    codes = bench.running.stop()
    assert codes.pop("scorer_left") == -signal.SIGKILL
    assert codes == dict.fromkeys(codes, 0) and len(codes) == 5
