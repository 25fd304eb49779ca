"""Somebody interferes: the objects really move or fall, once, at the time that was drawn, and the goal stays possible."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from pcm_ros.sim.appearance import sample_shade
from pcm_ros.sim.benchmark_tasks import DisturbedTask, get_task
from pcm_ros.sim.disturbance import DisturbedWorkcell
from pcm_ros.sim.episodes import Disturbance, Episode
from pcm_ros.sim.judge import fits
from pcm_ros.sim.objects import sample_object
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import PANDA_LIMITS, Body, Placement, WorldConfig, cameras
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, PickPlace, Workcell, WorkcellLimits

CONFIG = WorldConfig(cameras=cameras(1, 64, 48), vary_appearance=False)


class OneMove:
    """A red block that is to go left of a blue one, and a green one; what happens is given."""

    name = "one move"

    def __init__(self, disturbance: Disturbance | None) -> None:
        self._disturbance = disturbance

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        specs = [sample_object(rng, "block", sample_shade(rng, "test", color), "test") for color in ("red", "blue", "green")]
        placements = tuple(Placement(spec, xy) for spec, xy in zip(specs, ((0.5, -0.15), (0.5, 0.0), (0.62, -0.2)), strict=True))
        relation = Relation(RelationKind.LEFT_OF, "red block", ("blue block",))
        return Episode(self.name, placements, "put the red block left of the blue block", (relation,), disturbance=self._disturbance)


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimWorkcell]:
    made = SimWorkcell(config=CONFIG)
    yield made
    made.world.close()


def body(simulator: SimWorkcell, phrase: str) -> Body:
    return next(b for b in simulator.world.bodies() if fits(b.spec, phrase))


def grasp(simulator: SimWorkcell, phrase: str, to: tuple[float, float]) -> PickPlace:
    """A block taken by two of its sides and put down elsewhere."""
    thing = body(simulator, phrase)
    forward = np.array(pybullet.getMatrixFromQuaternion(thing.orientation)).reshape(3, 3)[:, 0]
    yaw = float(np.arctan2(forward[1], forward[0]))
    pick = np.array([*thing.position[:2], max(thing.high[2] - 0.03, thing.low[2] + 0.012)])
    return PickPlace(pick, yaw, 0.08, np.array([*to, pick[2] + 0.002]), yaw)


def start(simulator: SimWorkcell, disturbance: Disturbance | None) -> DisturbedWorkcell:
    cell = DisturbedWorkcell(simulator)
    simulator.reset(5, OneMove(disturbance))
    return cell


def test_without_a_disturbance_nothing_changes(simulator: SimWorkcell) -> None:
    cell = start(simulator, None)
    assert isinstance(cell, Workcell)
    assert cell.execute(grasp(simulator, "red block", (0.5, 0.15))).ok
    assert cell.happened == ""
    assert simulator.judge_all()
    through = [b.position.tobytes() for b in simulator.world.bodies()]
    simulator.reset(5, OneMove(None))
    simulator.execute(grasp(simulator, "red block", (0.5, 0.15)))
    simulator.judge_all()
    assert through == [b.position.tobytes() for b in simulator.world.bodies()]


@pytest.mark.parametrize(("role", "phrase"), [("placed", "red block"), ("reference", "blue block")])
def test_somebody_moves_an_object_once(simulator: SimWorkcell, role: str, phrase: str) -> None:
    cell = start(simulator, Disturbance("moved", 1, role, phrase, 3))
    before = {b.spec.phrase: b.position for b in simulator.world.bodies()}
    assert cell.happened == ""
    assert cell.execute(grasp(simulator, "red block", (0.5, 0.15))).ok
    assert phrase in cell.happened
    assert cell.disturbed == phrase
    assert not simulator.judge_all(), "it spoils the goal"
    there = body(simulator, phrase).position
    expected = (0.5, 0.15) if role == "placed" else before[phrase][:2]
    assert np.linalg.norm(there[:2] - expected) > 0.06
    assert body(simulator, phrase).low[2] == pytest.approx(simulator.world.table_height, abs=0.003)
    unmoved = "green block"
    assert np.linalg.norm(body(simulator, unmoved).position - before[unmoved]) < 0.005
    # another action: nothing more happens
    resting = body(simulator, "blue block").position
    assert cell.execute(grasp(simulator, "green block", (0.64, 0.2))).ok
    assert np.linalg.norm(body(simulator, "blue block").position - resting) < 0.01
    assert cell.observe().views


def test_a_failed_action_is_waited_out(simulator: SimWorkcell) -> None:
    cell = start(simulator, Disturbance("moved", 1, "placed", "red block", 3))
    nowhere = np.array([0.4, 0.25, 0.1])
    assert cell.execute(PickPlace(nowhere, 0.0, 0.08, nowhere + np.array([0.1, 0, 0]), 0.0)).code == ExecutionCode.GRASP_FAILED
    assert cell.happened == ""
    cell.execute(grasp(simulator, "red block", (0.5, 0.15)))
    assert cell.happened


@pytest.mark.parametrize("seed", range(3))
def test_a_slip_is_a_failed_grasp_that_the_robot_notices(simulator: SimWorkcell, seed: int) -> None:
    cell = start(simulator, Disturbance("slip", 1, "held", seed=seed))
    before = body(simulator, "red block").position
    result = cell.execute(grasp(simulator, "red block", (0.5, 0.15)))
    assert result.code == ExecutionCode.GRASP_FAILED
    assert cell.happened == "red block slipped in action 1"
    assert np.linalg.norm(body(simulator, "red block").position - before) < 0.02
    assert body(simulator, "red block").up[2] > 0.99
    assert cell.execute(grasp(simulator, "red block", (0.5, 0.15))).ok, "the next grasp holds"
    assert simulator.judge_all()


def test_disturbances_of_the_suite_happen() -> None:
    """Wherever the subject has been put as asked, the object that is drawn finds another free place."""
    simulator = SimWorkcell(config=CONFIG)
    cell = DisturbedWorkcell(simulator)
    task = DisturbedTask()
    happened = []
    for seed in range(30):
        episode = simulator.reset(seed, task)
        planned = episode.disturbance
        assert planned is not None
        if planned.kind == "moved":
            happened.append(bool(cell._move(planned)))
            for thing in simulator.world.bodies():
                assert thing.low[2] > simulator.world.table_height - 0.01
                assert simulator.limits.workspace_min[0] < thing.position[0] < simulator.limits.workspace_max[0]
    simulator.close()
    assert len(happened) > 10
    assert np.mean(happened) > 0.95
    assert get_task("disturbed") == task
