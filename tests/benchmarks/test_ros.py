"""The bench of the ROS system: what it reads out of feedback and records. tests/system runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pcm_ros import msg
from pcm_ros.benchmarks.ros import CLIENT, WARM, Feedback, bench, memory_of, summarise

STATE = msg.ConsensusState


def told(*states: tuple[str, dict[str, Any]]) -> Feedback:
    feedback = Feedback(started=0.0)
    for phase, fields in states:
        feedback.receive(STATE(phase=phase, **fields))
    return feedback


def planning(iteration: int) -> tuple[str, dict[str, Any]]:
    return STATE.PLANNING, {"iteration": iteration}


WHOLE = [(STATE.OBSERVED, {}), (STATE.CHECKED, {}), planning(0), planning(1), (STATE.CHOSEN, {}), (STATE.EXECUTED, {})]


def test_feedback_without_gaps() -> None:
    feedback = told(*WHOLE, *WHOLE, (STATE.OBSERVED, {}), (STATE.CHECKED, {}))
    assert (feedback.gaps, feedback.iterations, feedback.executed, len(feedback.plan_seconds)) == (0, 4, 2, 2)
    assert not feedback.degraded


@pytest.mark.parametrize("missing", [2, 3, 5])
def test_a_lost_feedback_message_is_a_gap(missing: int) -> None:
    """Iterations count up from 0, and a motion follows a choice. (That the last iteration is missing cannot be told.)"""
    sent = [*WHOLE[:3], planning(1), planning(2), *WHOLE[4:]]
    assert told(*sent).gaps == 0
    assert told(*sent[:missing], *sent[missing + 1 :]).gaps == 1


def test_who_was_left_out_is_kept_with_the_first_reason() -> None:
    dropped = {"dropped": ["relation:top"], "dropped_reasons": ["gave no answer within 8 s"]}
    again = {"dropped": ["relation:top"], "dropped_reasons": ["still busy"]}
    feedback = told(
        (STATE.OBSERVED, {"message": "3 views show red mug; camera 'left' is missing"}),
        (STATE.CHECKED, dropped),
        (STATE.PLANNING, again),
    )
    assert feedback.degraded == {"camera left": "is missing", "relation:top": "gave no answer within 8 s"}


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "success": True,
        "lost": [],
        "feedback_gaps": 0,
        "images_sent_again": 0,
        "plan_seconds": [2.0],
        "alive": 3,
        "ended": {},
        "megabytes": {"sim": 400.0 + max(0, 10 - number) + 0.5 * number, CLIENT: 300.0},
        **fields,
    }


def test_results() -> None:
    records = [record(number) for number in range(30)]
    records[0] |= {"same": [True, False], "plan_seconds": [3.0, 9.0], "alone_plan_seconds": [2.0, 1.0]}
    records[1] |= {"same": [True], "plan_seconds": [3.0], "alone_plan_seconds": [2.0]}
    records[5] |= {"lost": ["relation:top"]}
    records[6] |= {"feedback_gaps": 1}
    records[29] |= {"ended": {"scorer_top": -9}, "alive": 2}
    results = summarise(records)
    assert results["same_plan"].value == pytest.approx(2 / 3)
    assert results["overhead"].value == pytest.approx(1.5)  # of the steps whose plans are the same
    assert results["lost_messages"].value == pytest.approx(2 / 30)
    assert (results["died"].value, results["died"].n) == (1, 3)
    assert results[f"memory.sim.at_{WARM}"].value == records[WARM - 1]["megabytes"]["sim"]
    assert results["memory.sim.last"].value == records[-1]["megabytes"]["sim"]
    assert results["memory.sim.slope"].value == pytest.approx(50, rel=0.01)
    assert results[f"memory.{CLIENT}.slope"].value == 0


def test_a_system_that_did_not_answer_counts_as_lost() -> None:
    gone = {"success": False, "outcome": "NotAvailable", "lost": ["the system"], "images_sent_again": 0, "alive": 2, "ended": {"sim": -9}}
    results = summarise([record(0), {**gone, "megabytes": {CLIENT: 300.0}}])
    assert results["success"].value == 0.5
    assert results["lost_messages"].value == 0.5
    assert results["died"].value == 1
    assert "memory.sim.last" not in results


def test_memory_of_processes() -> None:
    found = memory_of({"here": os.getpid(), "gone": 2**22 + 1})
    assert set(found) == {"here"}
    resident, private = found["here"]
    assert 0 < private < resident < 100_000


@pytest.mark.parametrize(("suite", "why"), [("image-goal", "whose goals are pictures"), ("impossible", "whose goals cannot be reached")])
def test_suites_that_it_does_not_judge_are_refused(suite: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"'{suite}', {why}"):
        bench(1, 0, tmp_path / "ros.json", suite=suite)
    assert not list(tmp_path.iterdir())
