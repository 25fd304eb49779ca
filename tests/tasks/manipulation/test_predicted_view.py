"""Redrawn views of analytic scenes against views of the scenes as they would be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, GREEN, RED, TABLE, Shape, box, cup, observation, scene, view

from pcm_ros.tasks.manipulation.predicted_view import predict_view, without_object
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import WorldModel

BLOCK = box(0.45, -0.2, (0.05, 0.05, 0.05), RED)
SLAB = box(0.60, -0.2, (0.10, 0.10, 0.04), GREEN)
BOWL = cup(0.55, 0.15, 0.08, 0.06, BLUE, flare=0.5)
SHAPES = (BLOCK, SLAB, BOWL)
VIEWS = ("front", "left", "right", "top", "robot")


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return WorldModel(scene(*SHAPES), observation(*SHAPES))


def motion_to(world: WorldModel, category: int, x: float, y: float, yaw: float = 0.0) -> np.ndarray:
    parameters = torch.tensor([[x, y, yaw]], dtype=torch.float64)
    return np.asarray(world.motions(torch.tensor([category]), parameters)[0].numpy())


def seen_from(world: WorldModel, name: str, *shapes: Shape) -> WorldModel:
    """A world of these shapes with the camera of that name only."""
    place = tuple(float(value) for value in world.view(name).position)
    return WorldModel(scene(*shapes), Observation((view(name, place, *shapes),)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(("x", "y"), [(0.42, 0.0), (0.70, -0.05), (0.60, -0.2)])
def test_a_moved_block_looks_as_if_it_had_always_been_there(world: WorldModel, name: str, x: float, y: float) -> None:
    motion = motion_to(world, 0, x, y)
    predicted = predict_view(world, name, 0, motion)
    after = seen_from(world, name, box(x, y, (0.05, 0.05, 0.05), RED, bottom=TABLE + (0.04 if (x, y) == (0.60, -0.2) else 0.0)), SLAB, BOWL)
    mine, true = predicted.region(0), (np.abs(after.view(name).rgb.astype(int) - RED).max(axis=-1) < 30)
    assert (mine & true).sum() / (mine | true).sum() > 0.75
    difference = np.abs(predicted.rgb.astype(int) - after.view(name).rgb.astype(int)).max(axis=-1) > 30
    assert difference.mean() < 0.006


@pytest.mark.parametrize("name", VIEWS)
def test_nothing_is_left_of_what_is_taken_away(world: WorldModel, name: str) -> None:
    empty = without_object(world, name, 0)
    after = seen_from(world, name, SLAB, BOWL)
    red = (empty.rgb[..., 0] > 130) & (empty.rgb[..., 2] < 90)
    assert not red.any()
    assert not empty.region(0).any()
    assert (np.abs(empty.rgb.astype(int) - after.view(name).rgb.astype(int)).max(axis=-1) > 30).mean() < 0.004


def test_nothing_is_left_of_what_returned_no_depth() -> None:
    """A glossy patch in the middle of the block's side."""
    whole = observation(BLOCK, SLAB)
    front = whole.views[0]
    uv, _ = front.project(np.array([[0.475, -0.2, TABLE + 0.025]]))
    u, v = np.rint(uv[0]).astype(int)
    depth = front.depth.copy()
    depth[v - 4 : v + 5, u - 4 : u + 5] = np.nan
    holed = WorldModel(scene(BLOCK, SLAB), Observation((replace(front, depth=depth), *whole.views[1:])))
    assert np.count_nonzero(holed.labels(front.name)[v - 4 : v + 5, u - 4 : u + 5] < 0) > 40
    empty = without_object(holed, front.name, 0)
    assert not ((empty.rgb[..., 0] > 130) & (empty.rgb[..., 2] < 90)).any()


def test_the_table_under_an_object_is_shown_as_other_cameras_see_it() -> None:
    """A stripe that runs under the block in the front view, half hidden there, is seen by the camera above."""
    observed = observation(BLOCK)
    views = []
    for view_ in observed.views:
        points, rgb = view_.points(), view_.rgb.copy()
        stripe = (np.abs(points[..., 0] - 0.41) < 0.012) & (points[..., 2] < TABLE + 0.002)
        rgb[stripe] = (20, 20, 20)
        views.append(type(view_)(view_.name, rgb, view_.depth, view_.intrinsics, view_.position, view_.orientation))
    striped = WorldModel(scene(BLOCK), Observation(tuple(views)))
    empty = without_object(striped, "front", 0)
    uv, _ = striped.view("front").project([0.41, -0.2, TABLE])
    column, row = np.rint(uv).astype(int)
    assert striped.labels("front")[row, column] == 0  # hidden by the block from here
    assert empty.rgb[row, column].max() < 60


def test_what_the_object_hid_is_drawn_from_other_views() -> None:
    front, hidden = box(0.70, 0.0, (0.03, 0.10, 0.10), RED), box(0.63, 0.0, (0.05, 0.05, 0.05), BLUE)
    world = WorldModel(scene(front, hidden), observation(front, hidden))
    name = "front"
    uncovered = without_object(world, name, 0)
    assert uncovered.region(1).sum() > (world.labels(name) == 1).sum() + 100
    blue = uncovered.rgb[uncovered.region(1)]
    assert np.abs(blue.astype(int) - BLUE).max(axis=-1).mean() < 30


def test_what_stands_in_front_stays_in_front(world: WorldModel) -> None:
    """Behind the bowl, as the camera on the left sees it."""
    predicted = predict_view(world, "left", 0, motion_to(world, 0, 0.55, 0.0))
    bowl = world.labels("left") == 2
    assert (predicted.region(2) & bowl).sum() > 0.9 * bowl.sum()
    assert predicted.region(0).any()


def test_a_cup_keeps_its_floor_though_no_camera_saw_all_of_it() -> None:
    """From one camera alone, the wall hides part of the floor; turned by half, that part would be seen."""
    mug = cup(0.55, 0.1, 0.04, 0.06, BLUE)
    world = WorldModel(scene(mug), Observation((view("front", (1.0, 0.1, 0.75), mug),)))
    predicted = predict_view(world, "front", 0, motion_to(world, 0, 0.55, -0.05, np.pi))
    rows, columns = np.nonzero(predicted.region(0))
    middle = predicted.region(0)[rows.min() + 4 : rows.max() - 3, (columns.min() + columns.max()) // 2]
    assert middle.all()


def test_nothing_changes_where_nothing_moved(world: WorldModel) -> None:
    for name in VIEWS:
        predicted = predict_view(world, name, 0, motion_to(world, 0, 0.42, 0.0))
        labels = world.labels(name)
        far = ~((labels == 0) | predicted.region(0))
        changed = np.abs(predicted.rgb.astype(int) - world.view(name).rgb.astype(int)).max(axis=-1) > 0
        assert (changed & far).mean() < 0.004


def test_the_same_bits_every_time(world: WorldModel) -> None:
    motion = motion_to(world, 2, 0.42, -0.02, 0.7)
    again = WorldModel(world.scene, world.observation)
    first, second = predict_view(world, "top", 2, motion), predict_view(again, "top", 2, motion)
    assert np.array_equal(first.rgb, second.rgb) and np.array_equal(first.labels, second.labels)


def test_unknown_view_names_those_that_there_are(world: WorldModel) -> None:
    with pytest.raises(KeyError, match="front"):
        predict_view(world, "nowhere", 0, np.zeros(4))
