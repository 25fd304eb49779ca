"""The arm holds things by friction, tells what went wrong, and stops when asked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pcm_ros.sim.appearance import Shade
from pcm_ros.sim.objects import WALL, ObjectSpec
from pcm_ros.sim.world import Placement, World, WorldConfig, cameras
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, PickPlace

RED = Shade("red", "red", (0.8, 0.1, 0.1))
SPECS = {
    "block": ObjectSpec("block", RED, (0.04, 0.045, 0.04)),
    "can": ObjectSpec("can", RED, (0.03, 0.09)),
    "mug": ObjectSpec("mug", RED, (0.037, 0.085, 0.9)),
    "bowl": ObjectSpec("bowl", RED, (0.07, 0.05, 0.55)),
}
FROM, TO = np.array([0.45, -0.12]), np.array([0.55, 0.15])


@pytest.fixture
def world() -> Iterator[World]:
    made = World(WorldConfig(cameras=cameras(1), vary_appearance=False))
    yield made
    made.close()


def action(world: World, kind: str, to: np.ndarray = TO, turn: float = 0.0) -> PickPlace:
    """A good grasp of a thing at FROM: across it, or at the rim opposite to a mug's handle."""
    spec, low = SPECS[kind], world.table_height
    depth = {"block": 0.022, "can": 0.038, "mug": 0.025, "bowl": 0.016}[kind]
    radius = {"mug": -(spec.dimensions[0] - WALL / 2), "bowl": -(spec.dimensions[0] - WALL / 2 - 0.004)}.get(kind, 0.0)
    height = low + spec.height - depth
    turned = radius * np.array([np.cos(turn), np.sin(turn)])
    return PickPlace(
        np.array([FROM[0] + radius, FROM[1], height]),
        0.0,
        0.045 if radius else 2 * spec.dimensions[0] + 0.014 if kind == "can" else spec.dimensions[0] + 0.014,
        np.array([*(to + turned), height + 0.003]),
        turn,
    )


def put(world: World, kind: str) -> None:
    world.reset([Placement(SPECS[kind], (float(FROM[0]), float(FROM[1])))], seed=3)


@pytest.mark.parametrize("kind", list(SPECS))
def test_lifts_and_places(world: World, kind: str) -> None:
    put(world, kind)
    before = world.robot.steps
    heights = []
    world.robot.on_step = lambda: heights.append(world.bodies()[0].position[2])
    result = world.robot.execute(action(world, kind, turn=0.8))
    assert result.code == ExecutionCode.OK, result
    assert world.robot.steps - before <= 2500
    assert max(heights) > world.table_height + 0.1, "it was carried, not pushed"
    world.settle()
    body = world.bodies()[0]
    assert np.linalg.norm(body.position[:2] - TO) < 0.015
    assert body.up[2] > 0.98
    assert world.robot.at_home


@pytest.mark.parametrize("radius", [0.055, 0.057, 0.060])
def test_a_narrow_bowl_is_not_lifted_by_the_fingers_that_opened_in_it(world: World, radius: float) -> None:
    block, bowl = ObjectSpec("block", RED, (0.034, 0.034, 0.034)), ObjectSpec("bowl", RED, (radius, radius, 0.56))
    world.reset([Placement(block, (float(FROM[0]), float(FROM[1]))), Placement(bowl, (float(TO[0]), float(TO[1])))], seed=3)
    tip = world.table_height + 0.010
    result = world.robot.execute(PickPlace(np.array([*FROM, tip]), 0.0, 0.054, np.array([*TO, tip + 0.012]), 0.0))
    assert result.code == ExecutionCode.OK, result
    world.settle()
    put_in, container = world.bodies()
    assert container.low[2] < world.table_height + 0.005, "it stands on the table"
    assert np.linalg.norm(container.position[:2] - TO) < 0.01
    assert np.linalg.norm(put_in.position[:2] - TO) < 0.02
    assert world.robot.width > 0.075, "open again"


def test_nothing_grasped(world: World) -> None:
    put(world, "block")
    missed = action(world, "block")
    result = world.robot.execute(PickPlace(missed.pick_position + np.array([0.1, 0.1, 0.0]), 0.0, 0.05, missed.place_position, 0.0))
    assert result.code == ExecutionCode.GRASP_FAILED
    assert world.robot.at_home


@pytest.mark.parametrize(
    ("pick", "place", "width", "says"),
    [
        ((0.45, 0.0, 0.05), (0.95, 0.0, 0.05), 0.05, "carry"),
        ((0.95, 0.0, 0.05), (0.45, 0.0, 0.05), 0.05, "pick"),
        ((0.45, 0.0, 0.05), (0.45, 0.1, 0.05), 0.2, "pick_width"),
        ((0.45, 0.0, 0.05), (0.45, 0.1, -0.9), 0.05, "place"),
    ],
)
def test_unreachable_before_it_moves(world: World, pick: tuple[float, ...], place: tuple[float, ...], width: float, says: str) -> None:
    put(world, "block")
    before = world.robot.steps
    result = world.robot.execute(PickPlace(np.array(pick), 0.0, width, np.array(place), 0.0))
    assert result.code == ExecutionCode.UNREACHABLE
    assert says in result.message
    assert world.robot.steps == before


def test_obstacle_on_the_way_down(world: World) -> None:
    put(world, "block")
    good = action(world, "block")
    result = world.robot.execute(PickPlace(good.pick_position - [0.0, 0.1, 0.08], 0.0, 0.05, good.place_position, 0.0))
    assert result.code == ExecutionCode.COLLISION
    assert world.robot.at_home


@pytest.mark.parametrize("polls", [5, 20, 45, 60])
def test_stops_when_asked(world: World, polls: int) -> None:
    put(world, "mug")
    left = iter(range(polls))
    result = world.robot.execute(action(world, "mug"), lambda: next(left, None) is None)
    assert result.code == ExecutionCode.CANCELED
    assert world.robot.tool_position[2] > world.table_height + 0.12, "the arm is lifted"
    world.robot.clear()
    world.settle()
    body = world.bodies()[0]
    assert world.robot.at_home
    assert body.up[2] > 0.98, "what it held was put down, not dropped"
    assert (
        world.robot.execute(PickPlace(np.array([0.5, 0.3, 0.1]), 0.0, 0.05, np.array([0.5, 0.2, 0.1]), 0.0)).code
        == ExecutionCode.GRASP_FAILED
    )


def test_records_every_few_steps(world: World) -> None:
    put(world, "block")
    seen: list[int] = []
    world.robot.on_step = lambda: seen.append(world.robot.steps)
    world.robot.on_step_interval = 50
    world.robot.execute(action(world, "block"))
    assert len(seen) > 10
    assert set(np.diff(seen)) == {50}
