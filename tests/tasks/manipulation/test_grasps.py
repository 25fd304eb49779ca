"""Grasps of analytic objects: what is between the fingers, and that the fingers are free."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_scenes import LIMITS, SUCTION, TABLE, Shape, box, cup, scene

from pcm_ros.tasks.manipulation.grasps import MOST_PER_OBJECT, Grasps, finger_cells, gripper_penetration, nearest_turn, plan_grasps
from pcm_ros.tasks.manipulation.scene import SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, WorkcellLimits
from pcm_ros.tasks.manipulation.world_model import WorldModel

GRIPPER = LIMITS.gripper


def grasps_of(*shapes: Shape, limits: WorkcellLimits = LIMITS, spacing: float = 0.004) -> tuple[WorldModel, Grasps]:
    world = WorldModel(scene(*shapes, limits=limits, spacing=spacing))
    return world, plan_grasps(world)


def fingers_touch(shape: Shape, pick: np.ndarray, slack: float = 0.0015) -> bool:
    """Whether a true surface point lies inside one of the finger boxes."""
    x, y, z, yaw, width = pick
    relative = shape.points[:, :2] - [x, y]
    along = np.abs(relative @ [math.cos(yaw), math.sin(yaw)])
    across = np.abs(relative @ [-math.sin(yaw), math.cos(yaw)])
    inside = (
        (along > width / 2 + slack)
        & (along < width / 2 + GRIPPER.finger_thickness - slack)
        & (across < GRIPPER.finger_width / 2 - slack)
        & (shape.points[:, 2] > z + slack)
    )
    return bool(inside.any())


def held_between(shape: Shape, pick: np.ndarray) -> bool:
    x, y, z, yaw, width = pick
    relative = shape.points[:, :2] - [x, y]
    along = np.abs(relative @ [math.cos(yaw), math.sin(yaw)])
    across = np.abs(relative @ [-math.sin(yaw), math.cos(yaw)])
    return bool(((along < width / 2) & (across < 0.005) & (shape.points[:, 2] > z + 0.008)).any())


OBJECTS = {
    "block": box(0.5, 0.1, (0.05, 0.05, 0.05), yaw=0.3),
    "bar": box(0.5, 0.1, (0.16, 0.04, 0.04), yaw=-0.7),
    "flat": box(0.5, 0.1, (0.06, 0.05, 0.025)),
    "mug": cup(0.5, 0.1, 0.042, 0.09, handle=0.9),
    "small mug": cup(0.5, 0.1, 0.035, 0.07, handle=2.5),
    "bowl": cup(0.5, 0.1, 0.08, 0.06, flare=0.5),
    "large bowl": cup(0.5, 0.1, 0.10, 0.07, flare=0.6),
}


@pytest.mark.parametrize("spacing", [0.004, 0.008])
@pytest.mark.parametrize("name", list(OBJECTS))
def test_grasps_hold_the_object_and_leave_the_fingers_free(name: str, spacing: float) -> None:
    shape = OBJECTS[name]
    _, grasps = grasps_of(shape, spacing=spacing)
    assert 2 <= len(grasps) <= MOST_PER_OBJECT
    assert grasps.quality[0] > 0.5
    pick = grasps.pick.numpy()
    touching = [fingers_touch(shape, row) for row in pick]
    assert sum(touching) <= (0 if spacing == 0.004 else len(pick) // 4), pick[touching]
    assert not touching[0]
    assert all(held_between(shape, row) for row in pick)
    assert (pick[:, 2] >= TABLE + 0.007).all() and (pick[:, 4] <= GRIPPER.max_opening).all()
    assert ((pick[:, 3] >= -math.pi / 2) & (pick[:, 3] < math.pi / 2)).all()


def test_a_block_is_taken_square_on() -> None:
    _, grasps = grasps_of(OBJECTS["block"])
    off = (grasps.pick[0, 3] - 0.3) % (math.pi / 2)
    assert min(off, math.pi / 2 - off) < 0.1
    assert grasps.pick[0, :2].tolist() == pytest.approx([0.5, 0.1], abs=0.015)


def test_a_wide_bowl_is_taken_by_its_rim_from_many_sides() -> None:
    _, grasps = grasps_of(OBJECTS["bowl"])
    away = grasps.pick[:, :2] - torch.tensor([0.5, 0.1], dtype=torch.float64)
    assert ((away.norm(dim=1) > 0.06) & (away.norm(dim=1) < 0.085)).all()
    azimuth = torch.atan2(away[:, 1], away[:, 0])
    assert len(azimuth) >= 6 and float(torch.cos(azimuth).std()) > 0.4


def test_no_grasp_of_a_mug_touches_its_handle() -> None:
    _, grasps = grasps_of(OBJECTS["mug"])
    away = grasps.pick[:, :2] - torch.tensor([0.5, 0.1], dtype=torch.float64)
    azimuth = torch.atan2(away[:, 1], away[:, 0])
    near_handle = (azimuth - 0.9).abs() < 0.15
    assert not (near_handle & (grasps.pick[:, 2] < TABLE + 0.06)).any()


def test_a_solid_thing_wider_than_the_opening_has_no_grasp() -> None:
    world, grasps = grasps_of(box(0.5, 0.0, (0.14, 0.14, 0.06)))
    assert len(grasps) == 0 and not grasps.graspable(world.count).any()


def test_a_neighbour_that_is_too_near_rules_out_the_side_it_stands_on() -> None:
    block, neighbour = box(0.5, 0.0, (0.05, 0.05, 0.05)), box(0.5, 0.058, (0.05, 0.05, 0.08))
    _, grasps = grasps_of(block, neighbour)
    pick = grasps.pick[grasps.object_index == 0].numpy()
    assert len(pick) > 0
    for row in pick:
        assert not fingers_touch(neighbour, row)


def test_out_of_reach_is_no_grasp() -> None:
    near = WorkcellLimits(LIMITS.workspace_min, LIMITS.workspace_max, base_position=(0.0, 0.0, TABLE), reach=(0.1, 0.45))
    _, grasps = grasps_of(box(0.75, 0.3, (0.05, 0.05, 0.05)), limits=near)
    assert len(grasps) == 0


def test_suction_takes_flat_tops_only() -> None:
    world, grasps = grasps_of(box(0.45, -0.2, (0.07, 0.07, 0.05)), cup(0.6, 0.2, 0.03, 0.08), limits=SUCTION)
    assert grasps.graspable(world.count).tolist() == [True, False]
    assert grasps.pick[0].tolist() == pytest.approx([0.45, -0.2, TABLE + 0.05, 0.0, 0.0], abs=0.012)


@pytest.mark.parametrize("diameter", [0.004, 0.0075, 0.03])
def test_a_suction_cup_of_any_size_is_sampled_evenly_around_its_middle(diameter: float) -> None:
    limits = replace(SUCTION, gripper=Gripper(kind="suction", max_opening=diameter))
    cells = finger_cells(limits.gripper, torch.zeros(1))[0]
    assert cells.amax(dim=0).tolist() == pytest.approx((-cells.amin(dim=0)).tolist())
    assert (cells == 0).all(dim=1).any()
    assert len(grasps_of(box(0.45, -0.2, (0.07, 0.07, 0.05)), limits=limits)[1])


def test_what_goes_on_beyond_what_is_looked_at_is_not_taken() -> None:
    """A block 20 cm tall under a workspace 15 cm high: what is cut off may be as wide as it likes."""
    tall = scene(box(0.5, 0.1, (0.05, 0.05, 0.20)), limits=replace(LIMITS, workspace_max=(0.8, 0.4, TABLE + 0.15)))
    thing = tall.objects[0]
    seen = thing.points[:, 2] < TABLE + 0.15
    cut = replace(tall, objects=(SceneObject(thing.points[seen], thing.colors[seen]),))
    assert len(plan_grasps(WorldModel(cut))) == 0
    assert len(plan_grasps(WorldModel(replace(cut, limits=LIMITS)))) > 0


def test_penetration_says_how_deep() -> None:
    world, _ = grasps_of(box(0.5, 0.0, (0.05, 0.05, 0.05)))
    tool = torch.tensor([[0.5, 0.0, TABLE + 0.02, 0.0], [0.5, 0.2, TABLE + 0.02, 0.0]], dtype=torch.float64)
    fingers, palm = gripper_penetration(world.heights, GRIPPER, torch.tensor([-1, -1]), tool, torch.tensor([0.02, 0.02]))
    assert fingers.tolist() == pytest.approx([0.03, -0.02], abs=0.004)
    assert palm.tolist() == pytest.approx([0.05 - 0.02 - GRIPPER.finger_length, -0.02 - GRIPPER.finger_length], abs=0.004)
    fingers, _ = gripper_penetration(world.heights, GRIPPER, torch.tensor([0, 0]), tool, torch.tensor([0.02, 0.02]))
    assert fingers.tolist() == pytest.approx([-0.02, -0.02], abs=1e-4)


@settings(max_examples=50)
@given(pick=st.floats(-math.pi / 2, math.pi / 2 - 1e-6), turn=st.floats(-math.pi, math.pi))
def test_nearest_turn_keeps_the_closing_axis_and_the_turn(pick: float, turn: float) -> None:
    start, end = nearest_turn(torch.tensor([pick], dtype=torch.float64), torch.tensor([turn], dtype=torch.float64))
    assert float(end - start) == pytest.approx(turn)
    assert abs(math.sin(float(start) - pick)) < 1e-6
    assert max(abs(float(start)), abs(float(end))) <= math.pi + 1e-6


def test_padding_by_object() -> None:
    world, grasps = grasps_of(OBJECTS["block"], cup(0.6, -0.2, 0.08, 0.06, flare=0.5))
    pick, quality = grasps.padded(world.count)
    assert pick.shape == (2, MOST_PER_OBJECT, 5)
    assert int((quality > 0).sum()) == len(grasps)
