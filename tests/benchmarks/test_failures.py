"""The class of a failure is what truth shows: every branch from a course that is written down here, and a real run in the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pcm_ros.benchmarks.failures import CLASSES, Course, Step, Witness, classify, matched
from pcm_ros.sim.episodes import Episode
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import PANDA_LIMITS, WorldConfig, cameras
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.policy_events import Finished, Observed, Outcome
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import ExecutionCode

LEFT = Relation(RelationKind.LEFT_OF, "red mug", ("blue bowl",))
EPISODE = Episode("relations-1", (), "put the red mug left of the blue bowl", (LEFT,))
BOWL = np.array([0.5, 0.0])
GOOD = Step(0, "red mug", np.array([0.5, 0.12]), np.array([0.5, 0.12]), BOWL, ExecutionCode.OK, frozenset())
SEEN: tuple[frozenset[str], ...] = (frozenset(),)


def course(outcome: str, *steps: Step, missing: tuple[frozenset[str], ...] = SEEN, disturbed: str = "") -> Course:
    return Course(missing, steps, outcome, (0,), disturbed)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ("language", course("INVALID_INSTRUCTION")),
        ("perception", course("NOT_REACHED", GOOD, missing=(frozenset({"blue bowl"}), frozenset()))),
        ("perception", course("OBJECT_NOT_FOUND", GOOD, missing=(frozenset(), frozenset({"red mug"})))),
        ("perception", course("NOT_REACHED", replace(GOOD, moved=""))),
        ("grounding", course("OBJECT_NOT_FOUND", missing=(frozenset({"green can"}),))),
        ("grounding", course("SUCCESS", replace(GOOD, moved="red bowl"))),
        ("grounding", course("SUCCESS", replace(GOOD, predicted=np.array([0.4, -0.1]), landed=np.array([0.4, -0.1])))),
        ("optimiser", course("IMPOSSIBLE")),
        ("optimiser", course("IMPOSSIBLE", replace(GOOD, held=frozenset({0})), disturbed="red mug")),
        ("execution", course("IMPOSSIBLE", replace(GOOD, landed=np.array([0.6, 0.1])))),
        ("execution", course("NOT_REACHED", replace(GOOD, code=ExecutionCode.GRASP_FAILED))),
        ("execution", course("NOT_REACHED", replace(GOOD, landed=np.array([0.5, -0.1])))),
        ("execution", course("SUCCESS", replace(GOOD, held=frozenset({0})))),
        ("world_model", course("NOT_REACHED", GOOD)),
        ("judge", course("SUCCESS", GOOD)),
        ("judge", course("SUCCESS")),
        ("disturbance", course("SUCCESS", replace(GOOD, held=frozenset({0})), disturbed="red mug")),
        ("other", course("NOT_REACHED")),
    ],
)
def test_classes(wanted: str, what: Course) -> None:
    assert classify(EPISODE, what, PANDA_LIMITS) == wanted
    assert wanted in CLASSES


@pytest.mark.parametrize(
    ("refusal", "outcome", "wanted"),
    [
        ("OBJECT_NOT_FOUND", "SUCCESS", "grounding"),
        ("IMPOSSIBLE", "OBJECT_NOT_FOUND", "grounding"),
        ("IMPOSSIBLE", "NOT_REACHED", "world_model"),
        ("IMPOSSIBLE", "SUCCESS", "judge"),
        ("INVALID_INSTRUCTION", "IMPOSSIBLE", "language"),
        ("IMPOSSIBLE", "INVALID_INSTRUCTION", "language"),
    ],
)
def test_wrong_refusals(refusal: str, outcome: str, wanted: str) -> None:
    assert classify(replace(EPISODE, refusal=refusal), course(outcome, GOOD), PANDA_LIMITS) == wanted


def test_the_last_step_of_an_unmet_relation_counts() -> None:
    other = Relation(RelationKind.BEHIND, "green can", ("blue bowl",))
    episode = replace(EPISODE, relations=(LEFT, other))
    failed = replace(GOOD, code=ExecutionCode.GRASP_FAILED)
    second = replace(GOOD, relation=1, moved="yellow block")
    assert classify(episode, Course(SEEN, (failed, GOOD, second), "NOT_REACHED", (0,)), PANDA_LIMITS) == "world_model"
    assert classify(episode, Course(SEEN, (failed, GOOD, second), "NOT_REACHED", (1,)), PANDA_LIMITS) == "grounding"


@pytest.fixture(scope="module")
def cell() -> Iterator[SimWorkcell]:
    made = SimWorkcell("relations-1", WorldConfig(cameras=cameras(1, 64, 48), vary_appearance=False), seed=4)
    yield made
    made.close()


def perceived(cell: SimWorkcell, leave_out: int | None = None) -> Scene:
    """A scene of boxes where the true objects are, seen from above: their undersides are hidden."""
    things = []
    for number, body in enumerate(cell.world.bodies()):
        if number != leave_out:
            low, high = body.low.astype(np.float32), body.high.astype(np.float32)
            low[2] += 0.3 * (high[2] - low[2])
            things.append(SceneObject(np.stack([low, high]), np.zeros((2, 3), dtype=np.uint8)))
    return Scene(tuple(things), cell.world.table_height, cell.limits)


def test_perceived_objects_find_their_true_ones(cell: SimWorkcell) -> None:
    bodies = cell.world.bodies()
    found = matched(perceived(cell), bodies)
    assert [found[i].number for i in range(len(bodies))] == [body.number for body in bodies]
    without = matched(perceived(cell, leave_out=1), bodies)
    assert {body.number for body in without.values()} == {body.number for body in bodies} - {bodies[1].number}
    assert matched(Scene((), 0.0, cell.limits), bodies) == {}


def test_a_witness_notes_what_was_missing_and_leaves_the_world_alone(cell: SimWorkcell) -> None:
    before = [body.position.tobytes() for body in cell.world.bodies()]
    steps = cell.world.robot.steps
    witness = Witness(cell)
    subject = cell.episode.relations[0].subject
    number = next(i for i, body in enumerate(cell.world.bodies()) if body.spec.phrase == subject)
    witness.see(Observed(cell.observe(), perceived(cell, leave_out=number)))
    witness.see(Finished(Outcome.OBJECT_NOT_FOUND, "", 0, ()))
    seen = witness.course()
    assert seen.missing == (frozenset({subject}),)
    assert (seen.outcome, seen.unmet, seen.steps) == ("OBJECT_NOT_FOUND", (0,), ())
    assert classify(cell.episode, seen, cell.limits) == "perception"
    assert witness.displaced() == 0
    assert [body.position.tobytes() for body in cell.world.bodies()] == before
    assert cell.world.robot.steps == steps
