"""Predictions against what analytic scenes look like after the motion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_scenes import BLUE, GREEN, RED, TABLE, box, cup, observation, scene, view

from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import WorldModel, thin

BLOCK = box(0.45, -0.2, (0.05, 0.05, 0.05), RED)
SLAB = box(0.60, -0.2, (0.10, 0.10, 0.04), GREEN)
BOWL = cup(0.55, 0.15, 0.08, 0.06, BLUE, flare=0.5)
MUG = cup(0.70, 0.0, 0.04, 0.09, RED, handle=0.7)
SHAPES = (BLOCK, SLAB, BOWL, MUG)


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return WorldModel(scene(*SHAPES), observation(*SHAPES))


def one(category: int, *parameters: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([category]), torch.tensor([parameters], dtype=torch.float64)


def height(world: WorldModel, category: int, x: float, y: float, yaw: float = 0.0) -> float:
    return float(
        world.support_height(
            torch.tensor([category]), torch.tensor([[x, y]], dtype=torch.float64), torch.tensor([yaw], dtype=torch.float64)
        )
    )


@pytest.mark.parametrize(
    ("category", "x", "y", "expected"),
    [
        (0, 0.40, 0.05, 0.0),  # the table
        (0, 0.60, -0.2, 0.04),  # on the slab
        (0, 0.55, 0.15, 0.005),  # in the bowl
        (3, 0.60, -0.2, 0.04),  # mug on the slab
        (2, 0.60, -0.2, 0.04),  # bowl on the slab
        (1, 0.70, 0.0, 0.09),  # slab on the mug's rim
        (2, 0.70, 0.0, 0.09),  # bowl on the mug's rim
        (0, 0.45, -0.2, 0.0),  # where it is: it does not stand on itself
    ],
)
def test_support_height(world: WorldModel, category: int, x: float, y: float, expected: float) -> None:
    # A flared bowl sinks a little over a rim, a curved floor lifts a block a little.
    assert height(world, category, x, y) - TABLE == pytest.approx(expected, abs=0.009)


def test_support_height_with_a_few_hundred_points_only() -> None:
    sparse = WorldModel(scene(*SHAPES, spacing=0.009))
    assert max(len(thing.points) for thing in sparse.scene.objects) < 900
    assert height(sparse, 0, 0.60, -0.2) - TABLE == pytest.approx(0.04, abs=0.006)
    assert height(sparse, 0, 0.55, 0.15) - TABLE == pytest.approx(0.005, abs=0.012)


def test_a_single_stray_point_does_not_lift_what_is_put_on_it() -> None:
    clean = scene(BLOCK, SLAB)
    slab = clean.objects[1].points.copy()
    slab[np.argmax(slab[:, 2])] += [0, 0, 0.03]
    noisy = Scene((clean.objects[0], clean.with_object_moved(1, slab).objects[1]), TABLE, clean.limits)
    assert height(WorldModel(noisy), 0, 0.60, -0.2) - TABLE == pytest.approx(0.04, abs=0.006)


def test_an_object_that_stands_on_another_is_known_to_be_up_there() -> None:
    stacked = WorldModel(scene(SLAB, box(0.60, -0.2, (0.05, 0.05, 0.05), RED, bottom=TABLE + 0.04)))
    assert stacked.bottoms.tolist() == pytest.approx([TABLE, TABLE + 0.04], abs=0.006)
    assert float(stacked.motions(*one(1, 0.4, 0.2, 0.0))[0, 2]) == pytest.approx(-0.04, abs=0.006)


@settings(max_examples=25, deadline=None)
@given(x=st.floats(0.35, 0.75), y=st.floats(-0.35, 0.35), yaw=st.floats(-3, 3))
def test_moved_points_keep_their_shape_and_stand_on_the_support(world: WorldModel, x: float, y: float, yaw: float) -> None:
    category, parameters = one(3, x, y, yaw)
    motion = world.motions(category, parameters)
    before = world.moved_points(category, torch.zeros(1, 4, dtype=torch.float64))[0]
    after = world.moved_points(category, motion)[0]
    assert torch.cdist(before, before).sub(torch.cdist(after, after)).abs().max() < 1e-3
    low = float(world.support_height(category, parameters[:, :2], parameters[:, 2]))
    assert float(after[:, 2].min()) == pytest.approx(low, abs=0.008)


def test_yaw_turns_about_the_centre(world: WorldModel) -> None:
    center = world.centers[3]
    quarter = world.moved_points(*one(3, 0.0, 0.0, 0.0, math.pi / 2))[0].double() - center
    still = world.moved_points(*one(3, 0.0, 0.0, 0.0, 0.0))[0].double() - center
    assert torch.allclose(quarter[:, 0], -still[:, 1], atol=1e-5) and torch.allclose(quarter[:, 1], still[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", ["front", "left", "right", "top", "robot"])
@pytest.mark.parametrize(("x", "y"), [(0.42, 0.1), (0.7, -0.25), (0.5, -0.02)])
def test_predicted_mask_is_what_a_camera_sees_afterwards(world: WorldModel, name: str, x: float, y: float) -> None:
    category, parameters = one(0, x, y, 0.0)
    predicted = world.predict_masks(name, category, world.motions(category, parameters), stride=2)
    moved = (box(x, y, (0.05, 0.05, 0.05), RED), *SHAPES[1:])
    place = tuple(float(value) for value in world.view(name).position)
    after = view(name, place, *moved)  # type: ignore[arg-type]
    truth = WorldModel(scene(*moved), Observation((after,))).labels(name) == 0
    reduced = truth[::2, ::2]
    mask = predicted.moved[0].numpy()
    assert (mask & reduced).sum() / (mask | reduced).sum() > 0.6
    rows, columns = np.nonzero(truth)
    assert predicted.centroid[0].tolist() == pytest.approx([columns.mean(), rows.mean()], abs=4.0)


def test_what_stands_in_front_hides_what_is_put_behind() -> None:
    wall = box(0.60, 0.0, (0.03, 0.3, 0.2), GREEN)
    shapes = (BLOCK, wall)
    world = WorldModel(scene(*shapes), Observation((view("front", (1.4, 0.0, 0.3), *shapes),)))
    category = torch.tensor([0, 0])
    motion = world.motions(category, torch.tensor([[0.45, 0.0, 0.0], [0.72, 0.0, 0.0]], dtype=torch.float64))
    predicted = world.predict_masks("front", category, motion)
    assert predicted.visibility[0] < 0.15 and predicted.visibility[1] > 0.95
    assert torch.isnan(predicted.centroid[0]).all() == (predicted.area[0] == 0)
    assert predicted.other_hidden()[0, 1] < 0.01 < predicted.other_hidden()[1, 1]
    assert predicted.other_areas()[1, 1] < predicted.other_areas()[0, 1]


def test_taking_an_object_away_reveals_what_it_hid() -> None:
    front = box(0.70, 0.0, (0.03, 0.10, 0.10), RED)
    hidden = box(0.55, 0.0, (0.05, 0.05, 0.08), BLUE)
    world = WorldModel(scene(front, hidden), Observation((view("front", (1.4, 0.0, 0.25), front, hidden),)))
    static = world.static_view("front")
    assert static.masks[1, 0].sum() > 20
    assert static.masks[0, 1].sum() > static.masks[1, 1].sum() + 10  # more of the hidden one is seen without the front one


@given(dx=st.floats(-3, 3), dy=st.floats(-3, 3), dz=st.floats(-1, 3))
def test_what_leaves_the_image_is_not_seen_and_does_no_harm(world: WorldModel, dx: float, dy: float, dz: float) -> None:
    """At any distance beyond any border, also behind the camera."""
    motion = torch.tensor([[dx, dy, dz, 0.3]], dtype=torch.float64)
    category = torch.zeros(1, dtype=torch.int64)
    for camera in world.observation.views if world.observation else ():
        masks = world.predict_masks(camera.name, category, motion)
        uv, depth = camera.project(world.moved_points(category, motion)[0].numpy())
        far = (uv < -12).any(-1) | (uv[:, 0] > camera.depth.shape[1] + 12) | (uv[:, 1] > camera.depth.shape[0] + 12) | (depth < 0)
        if far.all():
            assert not masks.moved.any()
            assert masks.visibility[0] == 0


def test_masks_do_not_depend_on_other_views_or_other_proposals(world: WorldModel) -> None:
    rng = torch.Generator().manual_seed(0)
    category = torch.randint(0, 4, (32,), generator=rng)
    parameters = torch.rand(32, 3, generator=rng, dtype=torch.float64) * torch.tensor([0.4, 0.6, 1.0]) + torch.tensor([0.35, -0.3, 0.0])
    motion = world.motions(category, parameters)
    alone = WorldModel(world.scene, Observation((world.view("left"),)))
    assert torch.equal(alone.motions(category, parameters), motion)
    whole = world.predict_masks("left", category, motion)
    assert torch.equal(alone.predict_masks("left", category, motion).moved, whole.moved)
    assert torch.equal(world.predict_masks("left", category[5:9], motion[5:9]).moved, whole.moved[5:9])


def test_what_the_picture_cuts_off_is_not_seen() -> None:
    """A bowl that a camera sees half of, the other half being outside of its picture."""
    bowl = cup(0.5, 0.0, 0.09, 0.06, BLUE)
    shown = []
    for y in (0.0, 0.40):
        camera = view("front", (1.1, y, 0.6), bowl, target=(0.5, y, TABLE))
        shown.append(float(WorldModel(scene(bowl), Observation((camera,))).static_view("front").shown[0]))
    assert shown[1] < 0.7 * shown[0]


def test_unknown_view_names_those_that_there_are(world: WorldModel) -> None:
    with pytest.raises(KeyError, match="front"):
        world.predict_masks("nowhere", *one(0, 0.0, 0.0, 0.0, 0.0))


def test_predicted_scene_moves_one_object_only(world: WorldModel) -> None:
    category, parameters = one(0, 0.60, -0.2, 0.0)
    after = world.predict_scene(category, world.motions(category, parameters))
    assert after.center[0, 0].tolist() == pytest.approx([0.60, -0.2, TABLE + 0.04 + 0.025], abs=0.006)
    assert torch.equal(after.center[0, 1:], world.centers[1:])
    assert float(after.bottom[0, 0]) == pytest.approx(TABLE + 0.04, abs=0.006)
    assert after.size[0, 2].tolist() == pytest.approx([0.16, 0.16, 0.06], abs=0.01)


def test_predicted_image_shows_the_object_at_its_new_place_and_table_at_the_old(world: WorldModel) -> None:
    category, parameters = one(0, 0.42, 0.05, 0.3)
    motion = world.motions(category, parameters)
    for name in ("front", "top"):
        image = world.predict_image(name, 0, motion[0].numpy())
        red = (image[..., 0] > 150) & (image[..., 2] < 80)
        new, _ = world.view(name).project([0.42, 0.05, TABLE + 0.05])
        old, _ = world.view(name).project(world.scene.objects[0].center)
        assert red[int(new[1]), int(new[0])]
        assert not red[int(old[1]), int(old[0])]
        unmoved = np.abs(image.astype(int) - world.view(name).rgb.astype(int)).max(-1) > 0
        assert unmoved.mean() < 0.1


def test_scene_without_objects_is_an_empty_world() -> None:
    empty = WorldModel(Scene((), TABLE, scene().limits))
    assert empty.count == 0 and empty.heights.rest.shape[0] == 1
    assert empty.centers.shape == (0, 3)


def test_thinning_keeps_to_the_bound_and_is_repeatable() -> None:
    points = np.random.default_rng(0).uniform(0, 0.1, (3000, 3)).astype(np.float32)
    kept, _ = thin(points, 200)
    assert 80 < len(kept) <= 200
    assert np.array_equal(kept, thin(points, 200)[0])
