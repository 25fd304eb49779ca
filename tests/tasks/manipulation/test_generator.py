"""What proposals are, that they are repeatable, and that they follow the strategy's state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_scenes import BLUE, LIMITS, TABLE, box, cup, observation, scene

from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.tasks.manipulation.generator import RELEASE_HEIGHT, GeneratorConfig, NothingToGrasp, PickPlaceGenerator, systematic
from pcm_ros.tasks.manipulation.grasps import plan_grasps
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import world_model


@dataclass(frozen=True)
class Situation:
    scene: Scene
    observation: Observation
    failed: tuple[tuple[float, float, float, float], ...] = ()


BLOCK = box(0.45, -0.2, (0.05, 0.05, 0.05))
SLAB = box(0.62, -0.2, (0.14, 0.14, 0.04))
BOWL = cup(0.55, 0.15, 0.07, 0.06, BLUE, flare=0.5)
MUG = cup(0.70, 0.02, 0.036, 0.08, handle=0.7)


@pytest.fixture(scope="module")
def situation() -> Situation:
    return Situation(scene(BLOCK, SLAB, BOWL, MUG), observation(BLOCK, width=80))


def proposals(situation: Situation, seed: int = 0, state: CrossEntropyState | None = None, count: int = 256) -> Batch:
    return PickPlaceGenerator(GeneratorConfig(count=count)).propose(situation, state, torch.Generator().manual_seed(seed))


def test_shapes_types_and_bounds(situation: Situation) -> None:
    batch = proposals(situation)
    assert batch.parameters.shape == (256, 3)
    assert {name: tuple(value.shape) for name, value in batch.extras.items()} == {"pick": (256, 5), "place": (256, 4), "motion": (256, 4)}
    assert all(value.dtype == torch.float64 and torch.isfinite(value).all() for value in batch.extras.values())
    low, high = torch.tensor(LIMITS.workspace_min[:2]), torch.tensor(LIMITS.workspace_max[:2])
    assert (batch.parameters[:, :2] >= low).all() and (batch.parameters[:, :2] <= high).all()
    assert (batch.parameters[:, 2].abs() <= math.pi).all()
    assert (batch.extras["pick"][:, 3].abs() <= math.pi).all() and (batch.extras["place"][:, 3].abs() <= math.pi + 1e-9).all()


def test_same_rng_same_proposals_other_rng_others(situation: Situation) -> None:
    one, same, other = proposals(situation, 3), proposals(situation, 3), proposals(situation, 4)
    assert torch.equal(one.parameters, same.parameters) and torch.equal(one.extras["place"], same.extras["place"])
    assert not torch.equal(one.parameters, other.parameters)


def test_prior_knows_each_object_that_can_be_grasped_and_no_other(situation: Situation) -> None:
    share = torch.bincount(proposals(situation, count=2000).category, minlength=4) / 2000
    assert share[1] == 0  # wider than the gripper opens
    assert (share[[0, 2, 3]] - 1 / 3).abs().max() < 0.06


def test_prior_reaches_beside_on_and_in_every_other_object(situation: Situation) -> None:
    batch = proposals(situation, count=2000)
    world = world_model(situation)
    for subject in (0, 3):
        for other in range(4):
            if other != subject:
                mine = batch.category == subject
                offset = batch.parameters[mine, :2] - world.centers[other, :2]
                assert (offset.norm(dim=1) < 0.025).sum() >= 5
                for axis in (0, 1):
                    for sign in (-1, 1):
                        if not LIMITS.workspace_min[axis] + 0.15 < world.centers[other, axis] < LIMITS.workspace_max[axis] - 0.15:
                            continue  # no room on that side
                        beside = (sign * offset[:, axis] > 0.06) & (offset[:, 1 - axis].abs() < 0.05) & (sign * offset[:, axis] < 0.3)
                        assert beside.sum() >= 3
    lifted = batch.extras["motion"][:, 2]
    assert ((lifted - 0.04).abs() < 0.008).any()  # on the slab


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda s: sum(s) > 0.1),
    count=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_systematic_draws_keep_their_shares(shares: list[float], count: int, seed: int) -> None:
    probability = torch.tensor(shares, dtype=torch.float64)
    drawn = torch.bincount(systematic(probability, count, torch.Generator().manual_seed(seed)), minlength=len(shares))
    wanted = count * probability / probability.sum()
    assert drawn.sum() == count and not drawn[probability == 0].any()
    assert (drawn >= (wanted - 1e-6).floor()).all() and (drawn <= (wanted + 1e-6).ceil()).all()


def test_few_proposals_hold_every_object_on_every_other(situation: Situation) -> None:
    objects, modes = [0, 2, 3], GeneratorConfig().modes
    count = round(len(objects) * 3 * sum(modes) / modes[2])  # room for one proposal each
    world = world_model(situation)
    for seed in range(20):
        batch = proposals(situation, seed, count=count)
        apart = (batch.parameters[:, None, :2] - world.centers[None, :, :2]).norm(dim=2)
        for subject in objects:
            near = apart[batch.category == subject].min(dim=0).values
            assert (near[[other for other in range(4) if other != subject]] < 0.06).all()


def test_half_of_what_is_explored_concerns_the_object_that_was_learnt(situation: Situation) -> None:
    probability = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    far = torch.tensor([[0.55, 0.0, 0.5]], dtype=torch.float64).expand(4, 3)
    state = CrossEntropyState(probability, far, torch.full((4, 3), 0.001, dtype=torch.float64))
    batch = proposals(situation, 0, state, count=240)
    explored = (batch.parameters - far[0]).abs().amax(dim=1) > 0.02
    assert explored.sum() == pytest.approx(240 * GeneratorConfig().explore, abs=4)
    share = torch.bincount(batch.category[explored], minlength=4) / explored.sum()
    assert share.tolist() == pytest.approx([1 / 6, 0, 1 / 2 + 1 / 6, 1 / 6], abs=0.03)


def test_the_action_does_what_the_motion_says(situation: Situation) -> None:
    batch = proposals(situation)
    pick, place, motion = batch.extras["pick"], batch.extras["place"], batch.extras["motion"]
    world = world_model(situation)
    center = world.centers[batch.category]
    turn = place[:, 3] - pick[:, 3]
    assert torch.allclose(turn, motion[:, 3])
    arm = pick[:, :2] - center[:, :2]
    cos, sin = torch.cos(turn), torch.sin(turn)
    carried = torch.stack([cos * arm[:, 0] - sin * arm[:, 1], sin * arm[:, 0] + cos * arm[:, 1]], dim=1)
    assert torch.allclose(place[:, :2] - carried, batch.parameters[:, :2])
    assert torch.allclose(place[:, 2] - pick[:, 2], motion[:, 2] + RELEASE_HEIGHT)
    planned = plan_grasps(world)
    for row in range(0, 256, 17):
        same = (planned.object_index == batch.category[row]) & ((planned.pick[:, :3] - pick[row, :3]).abs().amax(dim=1) < 1e-9)
        assert same.any()


@settings(max_examples=10, deadline=None)
@given(x=st.floats(0.4, 0.7), y=st.floats(-0.3, 0.3), which=st.sampled_from([0, 2, 3]))
def test_follows_the_state(situation: Situation, x: float, y: float, which: int) -> None:
    mean = torch.zeros(4, 3, dtype=torch.float64)
    mean[which] = torch.tensor([x, y, 0.2])
    probability = torch.full((4,), 0.02, dtype=torch.float64)
    probability[which] = 0.94
    batch = proposals(situation, 1, CrossEntropyState(probability, mean, torch.full((4, 3), 0.01, dtype=torch.float64)))
    assert batch.category[0] == which and batch.parameters[0].tolist() == pytest.approx([x, y, 0.2])
    near = (batch.category == which) & ((batch.parameters[:, :2] - mean[which, :2]).norm(dim=1) < 0.04)
    assert near.double().mean() > 0.9 * 0.94 * (1 - GeneratorConfig().explore)
    assert not near.all()


def test_a_state_that_knows_fewer_objects_is_followed(situation: Situation) -> None:
    state = CrossEntropyState(
        torch.ones(1, dtype=torch.float64), torch.tensor([[0.5, 0.0, 0.0]], dtype=torch.float64), torch.zeros(1, 3).double()
    )
    batch = proposals(situation, 0, state)
    assert (batch.category == 0).double().mean() > 0.95 * (1 - GeneratorConfig().explore)


def test_hand_has_room_where_it_lets_go() -> None:
    tall = box(0.55, 0.10, (0.05, 0.20, 0.15))
    situation = Situation(scene(BLOCK, tall), observation(BLOCK, width=80))
    world = world_model(situation)
    category = torch.zeros(64, dtype=torch.int64)
    # Close in front of a wall: only a hand whose fingers lie along the wall fits between.
    parameters = torch.tensor([[0.487, 0.10, 0.0]], dtype=torch.float64).expand(64, -1).clone()
    batch = PickPlaceGenerator().complete(world, category, parameters, torch.Generator().manual_seed(0))
    along_wall = torch.sin(batch.extras["place"][:, 3]).abs() > 0.9
    assert along_wall.double().mean() > 0.8


def test_nothing_to_grasp_says_so() -> None:
    for shapes in ((), (SLAB,)):
        with pytest.raises(NothingToGrasp, match=f"none of the {len(shapes)} objects"):
            proposals(Situation(scene(*shapes), observation(BLOCK, width=80)))


def test_one_object_alone_is_put_anywhere() -> None:
    batch = proposals(Situation(scene(MUG), observation(BLOCK, width=80)))
    assert batch.parameters[:, :2].std(dim=0).min() > 0.08
    assert batch.extras["motion"][:, 2].abs().max() < 0.01
    assert batch.extras["pick"][:, 2].min() > TABLE


@pytest.mark.parametrize("wrong", [{"count": 0}, {"explore": 1.5}, {"modes": (0.0, 0.0, 0.0, 0.0)}, {"temperature": 0.0}])
def test_configuration_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GeneratorConfig(**wrong)  # type: ignore[arg-type]
