from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, LIMITS, RED, TABLE, box, cup, observation, scene, scene_object

from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.memory import NEW, ObjectMemory, expected_scene, reconcile, seen_through
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject

BLOCK = box(0.45, -0.2, (0.04, 0.04, 0.04), RED)
BOWL = cup(0.6, 0.15, 0.075, 0.05, BLUE, flare=0.6)
INSIDE = box(0.6, 0.15, (0.04, 0.04, 0.04), RED, bottom=TABLE + 0.006)
INTO_THE_BOWL = (0.15, 0.35, 0.006, 0.0)
RELATION = Relation(RelationKind.IN, "red block", ("blue bowl",))


def merged(*objects: SceneObject) -> Scene:
    """A scene in which perception has put the objects into one piece."""
    points, colors = np.concatenate([o.points for o in objects]), np.concatenate([o.colors for o in objects])
    return Scene((SceneObject(points, colors),), TABLE, LIMITS)


def test_expected_scene_moves_the_object_and_nothing_else() -> None:
    before = scene(BLOCK, BOWL)
    after = expected_scene(before, 0, (0.1, 0.05, 0.02, np.pi / 2))
    assert after.objects[0].center == pytest.approx(np.add(before.objects[0].center, (0.1, 0.05, 0.02)), abs=0.003)
    assert after.objects[1] is before.objects[1]


def test_what_is_expected_in_a_container_is_parted_from_it_again() -> None:
    expected = expected_scene(scene(BLOCK, BOWL), 0, INTO_THE_BOWL)
    seen = merged(scene_object(INSIDE, seed=7), scene_object(BOWL, seed=8))
    result = reconcile(seen, expected, observation(INSIDE, BOWL))
    assert len(result.objects) == 2
    small = min(result.objects, key=lambda thing: thing.size[:2].max())
    assert small.size[:2].max() < 0.06
    assert small.center[:2] == pytest.approx([0.6, 0.15], abs=0.01)
    assert sum(len(thing.points) for thing in result.objects) == len(seen.objects[0].points)


def test_what_is_wholly_hidden_is_kept() -> None:
    coin = box(0.6, 0.15, (0.03, 0.03, 0.008), RED)
    lid = cup(0.6, 0.15, 0.075, 0.05, BLUE, flare=1.0)
    upside_down = scene(lid)  # only the lid was perceived
    expected = scene(lid, coin)
    roof = box(0.6, 0.15, (0.14, 0.14, 0.06), BLUE)  # a closed thing over it, as the cameras see it
    result = reconcile(upside_down, expected, observation(roof))
    assert len(result.objects) == 2


def test_what_the_cameras_see_through_is_not_kept() -> None:
    """A grasp that failed unnoticed: the block still stands where it was, and the expected place is empty."""
    before = scene(BLOCK, BOWL)
    expected = expected_scene(before, 0, (0.0, -0.12, 0.0, 0.0))
    seen = scene(BLOCK, BOWL)
    result = reconcile(seen, expected, observation(BLOCK, BOWL))
    assert len(result.objects) == 2
    assert min(float(np.linalg.norm(thing.center[:2] - [0.45, -0.2])) for thing in result.objects) < 0.01


def test_an_unchanged_scene_stays_as_it_is() -> None:
    seen = scene(BLOCK, BOWL)
    result = reconcile(seen, seen, observation(BLOCK, BOWL))
    assert [len(thing.points) for thing in result.objects] == [len(thing.points) for thing in seen.objects]
    again = reconcile(result, seen, observation(BLOCK, BOWL))
    assert all(np.array_equal(a.points, b.points) for a, b in zip(again.objects, result.objects, strict=True))


def test_empty_scenes() -> None:
    empty = Scene((), TABLE, LIMITS)
    full = scene(BLOCK)
    assert reconcile(empty, full, observation(BLOCK)) is empty
    assert reconcile(full, empty, observation(BLOCK)) is full


def test_seen_through() -> None:
    images = observation(BLOCK)
    assert seen_through(scene_object(BLOCK).points, images) < 0.1
    assert seen_through(scene_object(box(0.6, 0.2, (0.04, 0.04, 0.04))).points, images) > 0.5


def test_log_odds_go_with_the_moved_object() -> None:
    memory = ObjectMemory()
    before = scene(BLOCK, BOWL)
    first = torch.tensor([[3.0, -6.0], [-5.0, 4.0]], dtype=torch.float64)
    assert torch.equal(memory.recall(before, RELATION, first), first)
    memory.move(0, INTO_THE_BOWL)
    after = expected_scene(before, 0, INTO_THE_BOWL)
    poor = torch.tensor([[-1.0, -2.0], [-5.0, 4.0]], dtype=torch.float64)
    result = memory.recall(after, RELATION, poor)
    assert result[0, 0] == pytest.approx(NEW * -1.0 + (1 - NEW) * 3.0)
    assert result[1, 1] == pytest.approx(4.0)


def test_log_odds_do_not_go_to_another_place() -> None:
    memory = ObjectMemory()
    memory.recall(
        scene(BLOCK), Relation(RelationKind.LEFT_OF, "red block", ("blue bowl",)), torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    )
    elsewhere = scene(box(0.7, 0.3, (0.04, 0.04, 0.04), RED))
    new = torch.tensor([[-2.0, 0.5]], dtype=torch.float64)
    assert torch.equal(memory.recall(elsewhere, RELATION, new), new)
