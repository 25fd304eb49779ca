"""What is known from before, on analytic shapes and views rendered from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from synthetic_scenes import BLUE, GREEN, LIMITS, RED, TABLE, Shape, box, cup, observation, scene, scene_object

from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.memory import NEW, ObjectMemory, expected_scene, reconcile, seen_through
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Observation

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


def test_log_odds_do_not_go_to_another_object_at_the_same_place() -> None:
    """Somebody has put a green block where the red one was."""
    memory = ObjectMemory()
    memory.recall(scene(BLOCK), RELATION, torch.tensor([[3.0, -6.0]], dtype=torch.float64))
    new = torch.tensor([[-4.0, -5.0]], dtype=torch.float64)
    assert torch.equal(memory.recall(scene(box(0.45, -0.2, (0.04, 0.04, 0.04), GREEN)), RELATION, new), new)


def test_a_motion_that_did_not_happen() -> None:
    memory = ObjectMemory()
    memory.recall(scene(BLOCK), RELATION, torch.tensor([[3.0, -6.0]], dtype=torch.float64))
    memory.move(0, (0.1, 0.2, 0.0, 0.0))
    memory.forget_move()
    poor = torch.tensor([[-1.0, -6.0]], dtype=torch.float64)
    assert memory.recall(scene(BLOCK), RELATION, poor)[0, 0] == pytest.approx(NEW * -1.0 + (1 - NEW) * 3.0)


def test_texts_are_remembered_whatever_else_a_phrase_says() -> None:
    memory = ObjectMemory()
    memory.recall(scene(BLOCK, BOWL), RELATION, torch.tensor([[3.0, -6.0], [-5.0, 4.0]], dtype=torch.float64))
    again = Relation(RelationKind.BEHIND, "largest red block", ("other blue bowl",))
    poor = torch.tensor([[-1.0, -6.0], [-5.0, 0.0]], dtype=torch.float64)
    result = memory.recall(scene(BLOCK, BOWL), again, poor)
    assert result[0, 0] == pytest.approx(NEW * -1.0 + (1 - NEW) * 3.0)
    assert result[1, 1] == pytest.approx((1 - NEW) * 4.0)


# --- properties over many scenes ---

# Places on a grid so wide that no two objects touch.
CELLS = [(x, y) for x in (0.4, 0.52, 0.64) for y in (-0.28, -0.14, 0.0, 0.14, 0.28)]
ANGLES = st.floats(-np.pi, np.pi)


def thing_at(x: float, y: float, kind: str) -> Shape:
    if kind == "block":
        return box(x, y, (0.04, 0.04, 0.04), RED)
    if kind == "bar":
        return box(x, y, (0.08, 0.02, 0.03), GREEN)
    if kind == "plate":
        return cup(x, y, 0.05, 0.015, GREEN, flare=0.7, wall=0.004)
    return cup(x, y, 0.04, 0.05, BLUE, flare=0.7)


KINDS = st.sampled_from(["block", "bar", "plate", "cup"])
TABLES = st.lists(st.tuples(st.sampled_from(CELLS), KINDS), min_size=1, max_size=4, unique_by=lambda placed: placed[0])


def shapes_of(table: Sequence[tuple[tuple[float, float], str]]) -> list[Shape]:
    return [thing_at(x, y, kind) for (x, y), kind in table]


def sorted_scene(*shapes: Shape) -> Scene:
    made = scene(*shapes)
    return replace(made, objects=tuple(sorted(made.objects, key=lambda thing: tuple(np.round(thing.center, 3)))))


def rows(*objects: SceneObject) -> list[tuple[float, ...]]:
    """All points and colours, in an order of their own: equal if nothing was lost, doubled or coloured anew."""
    return sorted((*map(float, p), *map(float, c)) for thing in objects for p, c in zip(thing.points, thing.colors, strict=True))


def same(one: Scene, other: Scene) -> bool:
    return len(one.objects) == len(other.objects) and all(
        np.array_equal(a.points, b.points)
        and np.array_equal(a.colors, b.colors)
        and (a.label, a.label_confidence) == (b.label, b.label_confidence)
        for a, b in zip(one.objects, other.objects, strict=True)
    )


def images(*shapes: Shape) -> Observation:
    return observation(*shapes, width=240)


@settings(max_examples=25, deadline=None)
@given(table=TABLES)
def test_property_an_unchanged_scene_stays_bit_for_bit(table: list[tuple[tuple[float, float], str]]) -> None:
    shapes = shapes_of(table)
    seen = sorted_scene(*shapes)
    once = reconcile(seen, seen, images(*shapes))
    assert same(once, seen)
    assert once.stamp_ns == seen.stamp_ns
    assert same(reconcile(once, once, images(*shapes)), once)


@settings(max_examples=25, deadline=None)
@given(before=TABLES, now=TABLES, joined=st.booleans())
def test_property_whatever_was_expected_no_seen_point_is_lost(
    before: list[tuple[tuple[float, float], str]], now: list[tuple[tuple[float, float], str]], joined: bool
) -> None:
    """Old news, right or wrong, over a scene that is in pieces or in one: all that is seen stays, sorted, and what is gone is gone."""
    shapes = shapes_of(now)
    seen = sorted_scene(*shapes)
    seen = merged(*seen.objects) if joined else seen
    result = reconcile(seen, scene(*shapes_of(before)), images(*shapes))
    found, wanted = rows(*result.objects), rows(*seen.objects)
    # Nothing is hidden wholly on these tables, so nothing is added; what is cut off as too small for an object is a crumb.
    assert set(found) <= set(wanted)
    assert len(found) >= len(wanted) - 12 * (len(before) + len(now))
    keys = [tuple(np.round(thing.center, 3)) for thing in result.objects]
    assert keys == sorted(keys)


@settings(max_examples=25, deadline=None)
@given(table=TABLES, cell=st.sampled_from(CELLS), turn=ANGLES, data=st.data())
def test_property_an_action_that_did_nothing_changes_nothing(
    table: list[tuple[tuple[float, float], str]], cell: tuple[float, float], turn: float, data: st.DataObject
) -> None:
    """The hand says that it moved the object, flat or high, but all stands where it stood."""
    assume(cell not in [place for place, _ in table])
    shapes = shapes_of(table)
    number = data.draw(st.integers(0, len(table) - 1))
    seen = scene(*shapes)
    (x, y), _ = table[number]
    expected = expected_scene(seen, number, (cell[0] - x, cell[1] - y, 0.0, turn))
    assert same(reconcile(sorted_scene(*shapes), expected, images(*shapes)), sorted_scene(*shapes))


@settings(max_examples=50, deadline=None)
@given(
    dx=st.floats(-0.3, 0.3),
    dy=st.floats(-0.3, 0.3),
    dz=st.floats(-0.1, 0.3),
    turn=ANGLES,
    number=st.integers(0, 1),
)
def test_property_expected_scene_is_a_rigid_motion_and_can_be_undone(dx: float, dy: float, dz: float, turn: float, number: int) -> None:
    before = scene(BLOCK, BOWL)
    after = expected_scene(before, number, (dx, dy, dz, turn))
    thing, moved = before.objects[number], after.objects[number]
    assert moved.points.dtype == np.float32
    assert np.array_equal(moved.colors, thing.colors)
    assert after.objects[1 - number] is before.objects[1 - number]
    picked = slice(None, None, 37)
    assert np.linalg.norm(np.diff(moved.points[picked], axis=0), axis=1) == pytest.approx(
        np.linalg.norm(np.diff(thing.points[picked], axis=0), axis=1), abs=1e-5
    )
    assert np.array_equal(np.argsort(moved.points[:5, 2]), np.argsort(thing.points[:5, 2]))  # it stays upright
    # Shift only, then turn only, is the same thing.
    turned = expected_scene(before, number, (0.0, 0.0, 0.0, turn)).objects[number].points
    assert moved.points == pytest.approx(turned + np.array([dx, dy, dz]), abs=1e-5)
    quarter = expected_scene(before, number, (0.0, 0.0, 0.0, np.pi / 2)).objects[number]
    assert quarter.size[:2] == pytest.approx(thing.size[1::-1], abs=1e-5)
    assert quarter.center == pytest.approx(thing.center, abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(20)), far=st.floats(-5, 5), count=st.integers(1, 20))
def test_property_seen_through_is_a_share(order: list[int], far: float, count: int) -> None:
    """Of any points, also behind the cameras or beside their images: 0..1, and the same in any order."""
    points = (np.random.default_rng(count).normal(0, 1, (20, 3)) * far).astype(np.float32)
    share = seen_through(points, OF_A_BLOCK)
    assert 0 <= share <= 1
    assert seen_through(points[order], OF_A_BLOCK) == pytest.approx(share)


OF_A_BLOCK = images(BLOCK)


# --- examples ---


def test_under_the_table_and_out_of_sight_nothing_is_seen_through() -> None:
    assert seen_through(np.array([[0.5, 0.0, TABLE - 0.05]], np.float32), OF_A_BLOCK) == 0.0
    assert seen_through(np.array([[0.5, 50.0, 0.1]], np.float32), OF_A_BLOCK) == 0.0
    assert seen_through(np.array([[0.5, 0.0, TABLE + 0.1]], np.float32), OF_A_BLOCK) == 1.0


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf])
def test_a_camera_without_depth_sees_through_nothing(value: float) -> None:
    blind = Observation(tuple(replace(view, depth=np.full_like(view.depth, value)) for view in OF_A_BLOCK.views))
    assert seen_through(np.array([[0.5, 0.0, TABLE + 0.1]], np.float32), blind) == 0.0


@pytest.mark.parametrize("height", [0.008, 0.015, 0.03])
def test_a_flat_object_that_is_gone_is_not_kept(height: float) -> None:
    """The table is so near behind a plate that no camera looks far past it."""
    there, here = (cup(0.5, y, 0.06, height, GREEN, flare=0.7, wall=0.004) for y in (-0.1, 0.2))
    result = reconcile(scene(here), scene(there), images(here))
    assert same(result, scene(here))


@pytest.mark.parametrize("radius", [0.06, 0.09])
def test_a_plate_under_a_bowl_is_kept(radius: float) -> None:
    plate = cup(0.6, 0.15, radius, 0.015, GREEN, flare=0.7)
    bowl = cup(0.6, 0.15, 0.075, 0.05, BLUE, flare=0.6, bottom=TABLE + 0.008)
    known = replace(scene_object(plate, seed=3), label="green plate", label_confidence=0.8)
    expected = Scene((known, scene_object(bowl, seed=4)), TABLE, LIMITS)
    result = reconcile(scene(bowl), expected, images(plate, bowl))
    assert sorted(thing.label for thing in result.objects) == ["green plate", "object"]
    kept = next(thing for thing in result.objects if thing.label == "green plate")
    assert kept.label_confidence == 0.8
    assert kept.center == pytest.approx(known.center, abs=0.005)
    assert kept.size[:2] == pytest.approx(known.size[:2], abs=0.012)


def test_a_block_that_was_to_go_into_a_bowl_but_did_not() -> None:
    """Some points of the bowl are near the expected block; they remain the bowl's."""
    expected = expected_scene(scene(BLOCK, BOWL), 0, INTO_THE_BOWL)
    seen = scene(BLOCK, BOWL)
    assert same(reconcile(seen, expected, images(BLOCK, BOWL)), sorted_scene(BLOCK, BOWL))


TALL = box(0.45, -0.2, (0.035, 0.035, 0.08), RED)
FALLEN = box(0.6, 0.15, (0.08, 0.035, 0.035), RED, bottom=TABLE + 0.006)


def test_what_fell_over_in_its_bowl_is_parted_from_it() -> None:
    """Expected upright, seen lying, in one piece with the bowl: what is new in the bowl is what was put there."""
    expected = expected_scene(scene(TALL, BOWL), 0, INTO_THE_BOWL)
    seen = merged(scene_object(FALLEN, seed=7), scene_object(BOWL, seed=8))
    result = reconcile(seen, expected, images(FALLEN, BOWL))
    assert len(result.objects) == 2
    small = min(result.objects, key=lambda thing: thing.size[:2].max())
    assert small.size == pytest.approx([0.08, 0.035, 0.035], abs=0.015)
    assert small.label == expected.objects[0].label
    assert sum(len(thing.points) for thing in result.objects) == len(seen.objects[0].points)


@pytest.mark.parametrize("pushed", [0.0, 0.01, 0.015, 0.02, 0.03])
def test_a_bowl_of_its_colour_that_was_pushed_holds_nothing(pushed: float) -> None:
    """The can missed its bowl, fell over beside it and pushed it: the rim that stands out where it was not expected is no can."""
    bowl, away = cup(0.6, 0.15, 0.075, 0.05, RED, flare=0.6), cup(0.6, 0.15 + pushed, 0.075, 0.05, RED, flare=0.6)
    beside = box(0.6, 0.02, (0.08, 0.035, 0.035), RED)
    expected = expected_scene(scene(TALL, bowl), 0, INTO_THE_BOWL)
    result = reconcile(scene(beside, away), expected, images(beside, away))
    assert len(result.objects) == 2


def test_what_is_new_in_a_bowl_and_of_another_colour_is_not_what_was_put_there() -> None:
    expected = expected_scene(scene(TALL, BOWL), 0, INTO_THE_BOWL)
    other = replace(FALLEN, color=GREEN)
    seen = merged(scene_object(other, seed=7), scene_object(BOWL, seed=8))
    assert len(reconcile(seen, expected, images(other, BOWL)).objects) == 1


@pytest.mark.parametrize("strays", [20, 60])
def test_points_mixed_at_a_seam_go_home(strays: int) -> None:
    """Two blocks side by side; perception gave a strip of one to the other."""
    left, right = box(0.5, 0.0, (0.04, 0.04, 0.04), RED), box(0.5, 0.044, (0.04, 0.04, 0.04), BLUE)
    a, b = scene_object(left, noise=0.0003), scene_object(right, noise=0.0003, seed=1)
    strip = np.argsort(b.points[:, 1])[:strays]
    rest = np.setdiff1d(np.arange(len(b.points)), strip)
    mixed = SceneObject(np.concatenate([a.points, b.points[strip]]), np.concatenate([a.colors, b.colors[strip]]), "red block", 0.9)
    seen = Scene((mixed, SceneObject(b.points[rest], b.colors[rest], "blue block", 0.7)), TABLE, LIMITS)
    result = reconcile(seen, Scene((a, b), TABLE, LIMITS), images(left, right))
    assert [thing.label for thing in result.objects] == ["red block", "blue block"]
    assert [thing.label_confidence for thing in result.objects] == [0.9, 0.7]
    assert [len(np.unique(thing.colors, axis=0)) for thing in result.objects] == [1, 1]
    assert rows(*result.objects) == rows(a, b)


def test_a_crumb_goes_to_its_object_and_not_the_object_to_its_crumb() -> None:
    """More of a mug is seen than before, and perception parted a flake from its foot: the mug keeps its name and stays one object."""
    expected, whole = (scene_object(cup(0.5, 0.0, 0.035, height)) for height in (0.06, 0.09))
    flake = (whole.points[:, 0] > 0.525) & (whole.points[:, 2] < TABLE + 0.03)
    assert flake.sum() > 20
    body = SceneObject(whole.points[~flake], whole.colors[~flake], "red mug", 0.9)
    crumb = SceneObject(whole.points[flake], whole.colors[flake], "stick", 0.1)
    result = reconcile(Scene((body, crumb), TABLE, LIMITS), Scene((expected,), TABLE, LIMITS), images(cup(0.5, 0.0, 0.035, 0.09)))
    assert [thing.label for thing in result.objects] == ["red mug"]
    assert rows(*result.objects) == rows(whole)


def test_a_small_thing_that_perception_believes_in_is_left_alone() -> None:
    tiny = SceneObject(np.array([[0.7, -0.3, TABLE + 0.01 * k] for k in range(1, 4)], np.float32), np.full((3, 3), 9, np.uint8), "peg", 0.5)
    seen = Scene((scene_object(BLOCK), tiny), TABLE, LIMITS)
    result = reconcile(seen, scene(BLOCK), images(BLOCK))
    assert [thing.label for thing in result.objects] == ["object", "peg"]


def test_several_in_one_piece_come_out_sorted() -> None:
    shapes = [box(x, 0.0, (0.04, 0.04, 0.04), color) for x, color in ((0.6, RED), (0.5, GREEN), (0.55, BLUE))]
    expected = scene(*shapes)
    result = reconcile(merged(*expected.objects), expected, images(*shapes))
    assert len(result.objects) == 3
    assert [round(float(thing.center[0]), 2) for thing in result.objects] == [0.5, 0.55, 0.6]


# --- memory ---

LOGIT = st.floats(-20, 20)


def table_of(values: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(first=st.lists(LOGIT, min_size=4, max_size=4), second=st.lists(LOGIT, min_size=4, max_size=4), turn=ANGLES, moved=st.booleans())
def test_property_memory_weighs_what_is_new(first: list[float], second: list[float], turn: float, moved: bool) -> None:
    memory = ObjectMemory()
    scene_now = BEFORE
    old, new = table_of([first[:2], first[2:]]), table_of([second[:2], second[2:]])
    given_first = old.clone()
    assert torch.equal(memory.recall(scene_now, RELATION, old), old)
    assert torch.equal(old, given_first)
    if moved:
        motion = (0.2, -0.1, 0.0, turn)
        memory.move(0, motion)
        scene_now = expected_scene(scene_now, 0, motion)
    else:
        scene_now = replace(scene_now, stamp_ns=1)
    result = memory.recall(scene_now, RELATION, new)
    assert result.numpy() == pytest.approx((NEW * new + (1 - NEW) * old).numpy())
    # Asked again of the same scene, the same look does not count twice.
    assert torch.equal(memory.recall(scene_now, RELATION, new), result)
    low, high = torch.minimum(old, new) - 1e-9, torch.maximum(old, new) + 1e-9
    assert bool(((result >= low) & (result <= high)).all())


BEFORE = scene(BLOCK, BOWL)


def test_a_new_object_gets_what_is_seen() -> None:
    memory = ObjectMemory()
    memory.recall(scene(BLOCK), RELATION, table_of([[3.0, -6.0]]))
    new = table_of([[-1.0, -2.0], [0.5, 4.0]])
    result = memory.recall(scene(BLOCK, BOWL), RELATION, new)
    assert torch.equal(result[1], new[1])
    assert result[0, 0] == pytest.approx(NEW * -1.0 + (1 - NEW) * 3.0)


def test_a_phrase_that_was_never_asked_for_gets_what_is_seen() -> None:
    memory = ObjectMemory()
    memory.recall(BEFORE, RELATION, table_of([[3.0, -6.0], [-5.0, 4.0]]))
    other = Relation(RelationKind.LEFT_OF, "green can", ("blue bowl",))
    result = memory.recall(replace(BEFORE, stamp_ns=1), other, table_of([[1.0, 0.0], [1.0, 0.0]]))
    assert result[:, 0].tolist() == [1.0, 1.0]
    assert result[:, 1].tolist() == pytest.approx([0.75 * -6.0, 0.75 * 4.0])


def test_a_phrase_is_remembered_through_a_scene_in_which_nobody_asks_for_it() -> None:
    memory = ObjectMemory()
    memory.recall(scene(BLOCK), RELATION, table_of([[3.0, -6.0]]))
    memory.recall(scene(BLOCK), Relation(RelationKind.LEFT_OF, "green can", ("mug",)), table_of([[0.0, 0.0]]))
    result = memory.recall(scene(BLOCK), RELATION, table_of([[-1.0, -6.0]]))
    assert result[0, 0] == pytest.approx(NEW * -1.0 + (1 - NEW) * 3.0)


def test_at_the_place_that_the_object_left_another_is_not_taken_for_it() -> None:
    memory = ObjectMemory()
    memory.recall(scene(BLOCK), RELATION, table_of([[3.0, -6.0]]))
    memory.move(0, (0.2, 0.0, 0.0, 0.0))
    new = table_of([[-1.0, -2.0]])
    assert torch.equal(memory.recall(scene(BLOCK), RELATION, new), new)


@pytest.mark.parametrize("shift", [-0.008, -0.004, 0.004, 0.008])
def test_a_bowl_and_what_lies_in_it_are_not_confused(shift: float) -> None:
    """Their centres are the same, and a small error of the hand must not swap what is known of them."""
    memory = ObjectMemory()
    known = table_of([[6.0, -6.0], [-6.0, 6.0]])
    memory.recall(BEFORE, RELATION, known)
    memory.move(0, INTO_THE_BOWL)
    block = scene_object(box(0.6, 0.15, (0.04, 0.04, 0.04), RED, bottom=TABLE + 0.006 + shift), seed=7)
    bowl = scene_object(cup(0.6 + shift, 0.15, 0.075, 0.05, BLUE, flare=0.6), seed=8)
    result = memory.recall(Scene((block, bowl), TABLE, LIMITS), RELATION, torch.zeros(2, 2, dtype=torch.float64))
    assert result.numpy() == pytest.approx(((1 - NEW) * known).numpy())


def test_memory_of_an_empty_scene() -> None:
    memory = ObjectMemory()
    empty = Scene((), TABLE, LIMITS)
    none = torch.zeros(0, 2, dtype=torch.float64)
    assert memory.recall(empty, RELATION, none).shape == (0, 2)
    memory.move(0, INTO_THE_BOWL)  # nothing to move
    new = table_of([[3.0, -6.0]])
    assert torch.equal(memory.recall(scene(BLOCK), RELATION, new), new)


def test_what_is_seen_of_the_bottom_of_the_bowl_does_not_shrink_the_plate_under_it() -> None:
    """A crescent of a dozen points near the hidden plate is no plate."""
    plate = scene_object(cup(0.6, 0.15, 0.06, 0.015, GREEN, flare=0.7), seed=3)
    bowl = cup(0.6, 0.15, 0.075, 0.05, BLUE, flare=0.9, bottom=TABLE + 0.008)
    seen = scene_object(bowl)
    seen = SceneObject(*(values[(seen.points[:, 2] > TABLE + 0.03) | (seen.points[:, 0] > 0.65)] for values in (seen.points, seen.colors)))
    expected = Scene((plate, scene_object(bowl, seed=4)), TABLE, LIMITS)
    result = reconcile(Scene((seen,), TABLE, LIMITS), expected, images(bowl))
    assert len(result.objects) == 2
    green = max(result.objects, key=lambda thing: (thing.colors == GREEN).all(axis=1).sum())
    assert green.size[:2] == pytest.approx(plate.size[:2], abs=0.02)
