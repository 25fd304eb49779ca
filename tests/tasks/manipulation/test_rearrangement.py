"""Arrangements of several objects: all relations hold, nothing overlaps, no more is moved than must be."""

from __future__ import annotations

import pytest
import synthetic_scenes
import torch
from synthetic_scenes import BLUE, GREEN, RED, box

from pcm_ros.tasks.manipulation.goal import RelationKind
from pcm_ros.tasks.manipulation.rearrangement import LEAST_ROOM, Placed, Rearrangement, rearrange
from pcm_ros.tasks.manipulation.relations import footprint_gap, relation_margin
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.world_model import WorldModel

LEFT_OF, BEHIND, IN_FRONT_OF, ON = RelationKind.LEFT_OF, RelationKind.BEHIND, RelationKind.IN_FRONT_OF, RelationKind.ON
CUBE = (0.05, 0.05, 0.05)


def scene(*places: tuple[float, float]) -> Scene:
    return synthetic_scenes.scene(*[box(x, y, CUBE, color) for (x, y), color in zip(places, (RED, BLUE, GREEN, RED), strict=False)])


def nothing_rests(count: int) -> torch.Tensor:
    return torch.zeros(count, count, dtype=torch.bool)


def after(before: Scene, plan: Rearrangement) -> tuple[torch.Tensor, torch.Tensor]:
    """Places (M, 2) and sizes (M, 3) once all is done."""
    still = WorldModel(before).predict_scene(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.float64))
    ground = still.ground[0].clone()
    for number, place in plan.targets.items():
        ground[number] = torch.tensor(place, dtype=torch.float64)
    return ground, still.size[0]


def check(before: Scene, relations: list[Placed], plan: Rearrangement) -> None:
    ground, size = after(before, plan)
    for relation in relations:
        i, j, *rest = relation.objects
        other = (ground[i] - ground[rest[0]], size[rest[0]]) if rest else ()
        assert relation_margin(relation.kind, ground[i] - ground[j], torch.zeros(()).double(), size[i], size[j], *other) > 0, relation
    for i in range(len(ground)):
        for j in range(i):
            assert footprint_gap(ground[i] - ground[j], size[i], size[j])[0] >= LEAST_ROOM - 1e-6
    assert plan.first in plan.targets


def test_a_reference_at_the_edge_makes_two_objects_move() -> None:
    """Nothing fits behind what stands at the back edge, and what is to stand behind it has no place in front of it to give."""
    before = scene((0.34, 0.1), (0.775, 0.0))
    relations = [Placed(BEHIND, (0, 1))]
    plan = rearrange(before, relations, [0, 1], nothing_rests(2), seed=1)
    assert plan is not None
    check(before, relations, plan)


def test_room_is_made_between_two_that_stand_side_by_side() -> None:
    before = scene((0.5, -0.25), (0.55, 0.0), (0.55, 0.07))
    relations = [Placed(RelationKind.BETWEEN, (0, 1, 2))]
    plan = rearrange(before, relations, [0, 1, 2], nothing_rests(3), seed=3)
    assert plan is not None
    assert len(plan.targets) == 1
    check(before, relations, plan)


def test_no_more_is_moved_than_must_be() -> None:
    before = scene((0.45, -0.2), (0.55, 0.0), (0.6, 0.25))
    relations = [Placed(LEFT_OF, (0, 1)), Placed(IN_FRONT_OF, (0, 2))]
    plan = rearrange(before, relations, [0, 1, 2], nothing_rests(3), seed=2)
    assert plan is not None
    assert len(plan.targets) == 1
    check(before, relations, plan)


def test_the_same_seed_gives_the_same_arrangement() -> None:
    before = scene((0.34, 0.1), (0.775, 0.0), (0.5, -0.3))
    relations = [Placed(BEHIND, (0, 1)), Placed(LEFT_OF, (0, 2))]
    plans = [rearrange(before, relations, [0, 1, 2], nothing_rests(3), seed=5) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0] is not None


def test_what_cannot_be_moved_stays() -> None:
    before = scene((0.34, 0.1), (0.775, 0.0))
    plan = rearrange(before, [Placed(BEHIND, (0, 1))], [0], nothing_rests(2), seed=1)
    assert plan is None


@pytest.mark.parametrize("relations", [[], [Placed(LEFT_OF, (0, 1))], [Placed(ON, (0, 1))]])
def test_nothing_to_rearrange(relations: list[Placed]) -> None:
    """What holds, and what is a matter of putting one thing on another."""
    before = scene((0.5, 0.2), (0.5, -0.1))
    assert rearrange(before, relations, [0, 1], nothing_rests(2), seed=1) is None


def test_contradictions_have_no_arrangement() -> None:
    before = scene((0.5, 0.2), (0.5, -0.1))
    assert rearrange(before, [Placed(LEFT_OF, (0, 1)), Placed(LEFT_OF, (1, 0))], [0, 1], nothing_rests(2), seed=1) is None


def test_what_will_be_carried_goes_with_its_carrier() -> None:
    """Green is to stand on blue and behind red, which stands at the back edge: red must move, or blue; green by itself need not."""
    before = scene((0.775, 0.0), (0.5, 0.2), (0.4, -0.2))
    relations = [Placed(ON, (2, 1)), Placed(BEHIND, (2, 0))]
    plan = rearrange(before, relations, [0, 1, 2], nothing_rests(3), seed=3)
    assert plan is not None
    assert 2 not in plan.targets
    ground, size = after(before, plan)
    assert relation_margin(BEHIND, ground[1] - ground[0], torch.zeros(()).double(), size[1], size[0]) > 0
