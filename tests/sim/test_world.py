"""Arrangements, settling, cameras and reproducibility of the world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.sim.cameras import render
from pcm_ros.sim.objects import KINDS, sample_object
from pcm_ros.sim.world import CAMERAS, PANDA_LIMITS, NoRoom, World, WorldConfig, arrange, cameras, within_reach


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5))
def test_arrangements_leave_gaps_and_are_within_reach(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    placements = arrange(rng, [sample_object(rng) for _ in range(count)], gap=0.03)
    for i, placement in enumerate(placements):
        assert within_reach(np.array(placement.xy), PANDA_LIMITS)
        assert (np.abs(np.subtract(placement.xy, (0.5, 0.0))) <= np.array([0.2, 0.35])).all()
        for other in placements[:i]:
            assert np.hypot(*np.subtract(placement.xy, other.xy)) >= placement.spec.radius + other.spec.radius + 0.03 - 1e-9


def test_no_room_says_what_to_do() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(NoRoom, match="smaller gap"):
        arrange(rng, [sample_object(rng, "bowl") for _ in range(30)], attempts=3)


def test_every_kind_stands_still_on_the_table() -> None:
    world = World(WorldConfig(cameras=cameras(1)))
    for seed in range(2):
        rng = np.random.default_rng(seed)
        for kinds in (KINDS[:4], KINDS[4:]):
            placements = arrange(rng, [sample_object(rng, kind) for kind in kinds])
            world.reset(placements, seed)
            for body, placement in zip(world.bodies(), placements, strict=True):
                assert body.speed < 0.01
                assert body.position[2] > world.table_height + 0.004, body.spec.phrase
                if body.spec.kind != "toy":  # toys come as they are in the files, and may topple
                    assert abs(body.low[2] - world.table_height) < 0.006, body.spec.phrase
                    assert np.hypot(*(body.position[:2] - placement.xy)) < 0.01, body.spec.phrase
                    assert body.up[2] > 0.97, body.spec.phrase
    world.close()


@pytest.mark.parametrize("seed", [0, 5])
def test_all_cameras_see_the_workspace_and_not_the_arm_before_it(seed: int) -> None:
    world = World(WorldConfig(cameras=cameras(8, 160, 120)))
    rng = np.random.default_rng(seed)
    world.reset(arrange(rng, [sample_object(rng, kind) for kind in ("mug", "bowl", "block")]), seed)
    corners = np.array([[x, y, world.table_height] for x in (0.36, 0.64) for y in (-0.29, 0.29)])
    for camera in world.cameras:
        view, segmentation = render(world.client, camera, world.light)
        uv, depth = view.project(corners)
        assert (depth > 0).all()
        assert (uv >= 0).all() and (uv <= [camera.width - 1, camera.height - 1]).all(), camera.name
        points = view.points()[segmentation == world.robot.body]
        inside = (points[:, 0] > 0.3) & (points[:, 2] < 0.4) & (np.abs(points[:, 1]) < 0.35)
        assert not inside.any(), f"{camera.name} sees the arm over the table"
        for body in world.bodies():
            assert (segmentation == body.number).sum() > 20, f"{camera.name} sees too little of the {body.spec.phrase}"
    world.close()


def test_depth_agrees_with_the_table() -> None:
    world = World(WorldConfig(cameras=cameras(5, 160, 120)))
    world.reset([], 4)
    for camera in world.cameras:
        view, segmentation = render(world.client, camera, world.light)
        table = view.points()[segmentation == world.table]
        assert len(table) > 1000
        top = table[(table[:, 0] > 0.3) & (table[:, 0] < 0.7)]
        np.testing.assert_allclose(top[:, 2], world.table_height, atol=0.006)
    world.close()


def test_more_cameras_leave_the_scene_as_it_is() -> None:
    rng = np.random.default_rng(2)
    placements = arrange(rng, [sample_object(rng, "mug"), sample_object(rng, "bowl")])
    worlds = [World(WorldConfig(cameras=cameras(count, 80, 60))) for count in (1, 8)]
    for world in worlds:
        world.reset(placements, 9)
    first, second = worlds
    assert first.light == second.light and first.table_height == second.table_height and first.cameras[0] == second.cameras[0]
    for a, b in zip(first.bodies(), second.bodies(), strict=True):
        np.testing.assert_array_equal(a.position, b.position)
    for world in worlds:
        world.close()


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="allowed: 1 to 8"):
        cameras(9)
    assert [camera.name for camera in cameras()] == [camera.name for camera in CAMERAS[:5]]
    with pytest.raises(ValueError, match="table_height"):
        WorldConfig(table_height=(0.5, 0.6))
    with pytest.raises(ValueError, match="at least one camera"):
        WorldConfig(cameras=())
    with pytest.raises(RuntimeError, match="reset"):
        _ = World().robot
