"""Where surfaces and undersides of objects lie, on analytic scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_scenes import BLUE, LIMITS, TABLE, Shape, box, scene, scene_object

from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.world_model import WorldModel


def seen_above(shape: Shape, height: float) -> SceneObject:
    """What is seen of a shape whose lower part is hidden up to this height above the table."""
    whole = scene_object(shape)
    seen = whole.points[:, 2] > TABLE + height
    return SceneObject(whole.points[seen], whole.colors[seen])


@pytest.mark.parametrize("spacing", [0.003, 0.004, 0.005, 0.006, 0.007, 0.008])
def test_a_surface_lies_where_the_points_are(spacing: float) -> None:
    heights = WorldModel(scene(box(0.5, 0.1, (0.06, 0.06, 0.05)), spacing=spacing)).heights
    cells = np.argwhere(heights.own[0].numpy() > TABLE + 0.03)
    assert heights.origin + cells.mean(axis=0) * heights.cell == pytest.approx([0.5, 0.1], abs=0.0015)


def test_what_lies_on_a_flat_thing_is_not_beneath_it() -> None:
    lower, upper = box(0.5, 0, (0.20, 0.15, 0.012)), box(0.5, 0, (0.10, 0.08, 0.010), BLUE, bottom=TABLE + 0.012)
    world = WorldModel(Scene((seen_above(lower, 0.006), seen_above(upper, 0.006)), TABLE, LIMITS))
    assert world.bottoms.tolist() == pytest.approx([TABLE, TABLE + 0.012], abs=0.004)
    motion = world.motions(torch.tensor([0]), torch.tensor([[0.5, 0.25, 0.0]], dtype=torch.float64))
    assert float(motion[0, 2]) == pytest.approx(0.0, abs=0.004)


def test_what_nothing_carries_stands_on_the_table_however_little_of_it_is_seen() -> None:
    world = WorldModel(Scene((seen_above(box(0.5, 0, (0.05, 0.05, 0.10)), 0.05),), TABLE, LIMITS))
    (footprint,) = world.heights.footprints
    assert footprint.bottom == pytest.approx(TABLE)
    assert footprint.seen_bottom == pytest.approx(TABLE + 0.05, abs=0.005)
    motion = world.motions(torch.tensor([0]), torch.tensor([[0.6, 0.2, 0.0]], dtype=torch.float64))
    assert float(motion[0, 2]) == pytest.approx(0.0, abs=0.002)
