"""Each scorer against situations whose answer is plain."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import dataclass, replace

import pybullet
import pytest
import torch
from synthetic_scenes import BLUE, LIMITS, TABLE, Shape, box, cup, observation, scene

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.sim.world import CONTACT_BREAKING as SIMULATOR_CONTACT_BREAKING
from pcm_ros.tasks.manipulation.feasibility import (
    CollisionScorer,
    GraspScorer,
    ReachScorer,
    StabilityScorer,
    TwinStabilityScorer,
    WorkspaceScorer,
)
from pcm_ros.tasks.manipulation.generator import PickPlaceGenerator
from pcm_ros.tasks.manipulation.physics_twin import CONTACT_BREAKING, columns
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import world_model


@dataclass(frozen=True)
class Situation:
    scene: Scene
    observation: Observation
    failed: tuple[tuple[float, float, float, float], ...] = ()


BLOCK = box(0.45, -0.2, (0.05, 0.05, 0.05))
SLAB = box(0.62, -0.2, (0.10, 0.10, 0.04))
BOWL = cup(0.55, 0.15, 0.08, 0.06, BLUE, flare=0.5)
MUG = cup(0.70, 0.02, 0.036, 0.08, handle=0.7)
VIEW = observation(BLOCK, width=80)
ALL = (ReachScorer(), WorkspaceScorer(), GraspScorer(), CollisionScorer(), StabilityScorer(), TwinStabilityScorer(steps=60))


def situation(*shapes: Shape) -> Situation:
    return Situation(scene(*shapes), VIEW)


@pytest.fixture(scope="module")
def table() -> Situation:
    return situation(BLOCK, SLAB, BOWL, MUG)


def actions(where: Situation, category: int, *targets: tuple[float, float, float]) -> Batch:
    parameters = torch.tensor(targets, dtype=torch.float64)
    categories = torch.full((len(targets),), category)
    return PickPlaceGenerator().complete(world_model(where), categories, parameters, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
def test_contract(table: Situation, scorer: Scorer) -> None:
    assert isinstance(scorer, Scorer)
    batch = actions(table, 0, (0.45, 0.0, 0.0), (0.62, -0.2, 0.3), (0.55, 0.15, 1.0))
    energy = scorer.energy(batch, table)
    assert energy.shape == (3,) and energy.dtype == torch.float64
    assert (energy >= 0).all() and torch.isfinite(energy).all()
    assert torch.equal(energy, scorer.energy(batch, table))
    one = scorer.energy(batch.select([1]), table)
    assert float(one[0]) == pytest.approx(float(energy[1]), abs=1e-6)


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
def test_a_plain_action_meets_no_objection(table: Situation, scorer: Scorer) -> None:
    assert float(scorer.energy(actions(table, 0, (0.45, 0.0, 0.0)), table)[0]) < 0.8


def test_reach_is_soft_inside_and_a_veto_outside(table: Situation) -> None:
    batch = actions(table, 0, (0.5, 0.0, 0.0))
    place = batch.extras["place"].repeat(3, 1)
    place[:, :2] = torch.tensor([[0.5, 0.0], [0.84, 0.0], [0.87, 0.0]])
    moved = Batch(batch.parameters.repeat(3, 1), batch.category.repeat(3), {"pick": batch.extras["pick"].repeat(3, 1), "place": place})
    energy = ReachScorer().energy(moved, table)
    assert energy[0] < 0.1 < 1 < energy[1] < 5
    assert torch.isposinf(energy[2])


def test_workspace_holds_the_whole_silhouette(table: Situation) -> None:
    edge = LIMITS.workspace_max[1]
    energy = WorkspaceScorer().energy(
        actions(table, 2, (0.55, edge - 0.12, 0.0), (0.55, edge - 0.082, 0.0), (0.55, edge - 0.04, 0.0)), table
    )
    assert energy[0] == 0 and 0 < energy[1] < 1.5 and torch.isposinf(energy[2])


def test_a_grasp_that_failed_comes_after_others(table: Situation) -> None:
    batch = actions(table, 0, (0.45, 0.0, 0.0))
    x, y, z, yaw, _ = batch.extras["pick"][0].tolist()
    plain = GraspScorer().energy(batch, table)
    for turn in (0.0, math.pi, -math.pi):  # fingers are alike
        assert GraspScorer().energy(batch, replace(table, failed=((x, y, z, yaw + turn),)))[0] == pytest.approx(float(plain[0]) + 6)
    for other in ((x + 0.06, y, z, yaw), (x, y, z, yaw + math.pi / 2)):
        assert GraspScorer().energy(batch, replace(table, failed=(other,)))[0] == pytest.approx(float(plain[0]), abs=0.01)


def test_grasp_energy_follows_quality(table: Situation) -> None:
    batch = actions(table, 0, (0.45, 0.0, 0.0))
    elsewhere = batch.extras["pick"].clone()
    elsewhere[:, 0] += 0.02
    unknown = Batch(batch.parameters, batch.category, {**batch.extras, "pick": elsewhere})
    assert GraspScorer().energy(batch, table)[0] < GraspScorer().energy(unknown, table)[0] == 3


def test_fingers_in_a_neighbour_are_a_collision(table: Situation) -> None:
    wall = box(0.55, 0.10, (0.03, 0.25, 0.15))
    where = situation(BLOCK, wall)
    batch = actions(where, 0, (0.40, 0.1, 0.0))
    place = batch.extras["place"].clone()
    place[:, 0] = 0.55
    through = Batch(batch.parameters, batch.category, {**batch.extras, "place": place})
    assert CollisionScorer().energy(batch, where)[0] < 0.5
    assert CollisionScorer().energy(through, where)[0] > 5


def test_taking_away_what_carries_something_is_doubtful() -> None:
    block = box(0.62, -0.2, (0.05, 0.05, 0.05))
    load = box(0.62, -0.2, (0.04, 0.04, 0.04), bottom=TABLE + 0.05)
    free, loaded = situation(block), situation(block, load)
    target = torch.tensor([[0.45, 0.1, 0.0]], dtype=torch.float64)
    motion = world_model(free).motions(torch.tensor([0]), target)
    extras = {
        "pick": torch.tensor([[0.62, -0.2, TABLE + 0.02, 0.0, 0.07]]).double(),
        "place": torch.tensor([[0.45, 0.1, TABLE + 0.02, 0.0]]).double(),
    }
    batch = Batch(target, torch.tensor([0]), {**extras, "motion": motion})
    assert CollisionScorer().energy(batch, free)[0] < 0.5
    assert CollisionScorer().energy(batch, loaded)[0] > 3


# x, y of a target of the block, and whether it stays: table, middle of the slab, over its edge by less and by more than half, bowl, its
# rim
STAYS = [
    ((0.45, 0.0), True),
    ((0.62, -0.2), True),
    ((0.64, -0.2), True),
    ((0.683, -0.2), False),
    ((0.55, 0.15), True),
    ((0.55, 0.233), False),
]


@pytest.mark.parametrize(("target", "stays"), STAYS)
def test_stability_of_a_block(table: Situation, target: tuple[float, float], stays: bool) -> None:
    energy = float(StabilityScorer(stacked=0.0).energy(actions(table, 0, (*target, 0.0)), table)[0])
    assert energy < 1.0 if stays else energy > 2.0


@pytest.mark.parametrize(("target", "stays"), STAYS)
def test_the_physics_twin_agrees(table: Situation, target: tuple[float, float], stays: bool) -> None:
    energy = float(TwinStabilityScorer(steps=120).energy(actions(table, 0, (*target, 0.0)), table)[0])
    assert energy < 1.0 if stays else energy > 2.0


@pytest.mark.parametrize("scorer", [StabilityScorer(stacked=0.0), TwinStabilityScorer()], ids=lambda scorer: scorer.name)
def test_mug_on_slab_and_bowl_on_mug_stay(table: Situation, scorer: Scorer) -> None:
    assert float(scorer.energy(actions(table, 3, (0.62, -0.2, 0.0)), table)[0]) < 1.0
    assert float(scorer.energy(actions(table, 2, (0.70, 0.02, 0.0)), table)[0]) < 2.0


def test_a_top_narrower_than_the_error_of_placing_is_no_place(table: Situation) -> None:
    post = situation(BLOCK, box(0.62, -0.2, (0.02, 0.02, 0.10)))
    scorer = StabilityScorer(stacked=0.0)
    assert float(scorer.energy(actions(post, 0, (0.62, -0.2, 0.0)), post)[0]) > 1.2
    assert float(StabilityScorer(stacked=0.0, error=0.004).energy(actions(post, 0, (0.62, -0.2, 0.0)), post)[0]) < 1.0


def test_the_table_is_better_than_the_top_of_something(table: Situation) -> None:
    energy = StabilityScorer().energy(actions(table, 0, (0.45, 0.0, 0.0), (0.62, -0.2, 0.0), (0.55, 0.15, 0.0)), table)
    assert energy[0] == 0 and (energy[1:] >= 1.5).all()


def test_twin_energy_does_not_depend_on_what_was_tried_before(table: Situation) -> None:
    batch = actions(table, 0, (0.683, -0.2, 0.0), (0.62, -0.2, 0.0), (0.55, 0.233, 0.5))
    scorer = TwinStabilityScorer(steps=60)
    whole = scorer.energy(batch, table)
    assert [float(scorer.energy(batch.select([row]), table)[0]) for row in range(3)] == whole.tolist()


def test_twin_energy_does_not_depend_on_other_simulations_of_the_process(table: Situation) -> None:
    """Bullet has one distance at which contacts break for all of them, so that of the simulator must be the twin's."""
    assert CONTACT_BREAKING == SIMULATOR_CONTACT_BREAKING
    batch = actions(table, 0, (0.683, -0.2, 0.0), (0.62, -0.2, 0.0), (0.55, 0.233, 0.5), (0.67, -0.2, 0.7))
    found = []
    other = pybullet.connect(pybullet.DIRECT)
    try:
        for distance in (0.02, 0.001):
            pybullet.setPhysicsEngineParameter(contactBreakingThreshold=distance, physicsClientId=other)
            found.append(TwinStabilityScorer(steps=60).energy(batch, table).tolist())
    finally:
        pybullet.disconnect(other)
    assert found[0] == found[1]


def test_the_twin_does_not_keep_the_scenes_that_it_has_seen() -> None:
    """A node plans on thousands of scenes, and each holds its images. (A few world models are kept, whoever asks for them.)"""
    scorer = TwinStabilityScorer(steps=10)
    seen = []
    for _ in range(8):
        where = situation(BLOCK, SLAB)
        scorer.energy(actions(where, 0, (0.62, -0.2, 0.0)), where)
        seen.append(weakref.ref(where.scene))
    gc.collect()
    assert seen[0]() is None and seen[1]() is None


def test_a_cup_is_hollow_in_the_twin() -> None:
    where = situation(cup(0.55, 0.0, 0.04, 0.08))
    centers, halves = columns(world_model(where), 0)
    inner = (abs(centers[:, 0]) < 0.015) & (abs(centers[:, 1]) < 0.01)
    assert inner.any() and (2 * halves[inner, 2] < 0.02).all()
    assert (2 * halves[:, 2]).max() == pytest.approx(0.08, abs=0.008)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReachScorer(0),
        lambda: WorkspaceScorer(-1),
        lambda: CollisionScorer(-1),
        lambda: StabilityScorer(0),
        lambda: TwinStabilityScorer(0),
    ],
)
def test_parameters_out_of_range_are_refused(make: type) -> None:
    with pytest.raises(ValueError, match="allowed"):
        make()
