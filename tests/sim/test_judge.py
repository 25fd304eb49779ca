"""What the judge calls left, on, in: from physics truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.sim.appearance import Shade
from pcm_ros.sim.judge import Judge, fits, in_direction
from pcm_ros.sim.objects import ObjectSpec
from pcm_ros.sim.world import Placement, World, WorldConfig, cameras
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, PickPlace

RED, BLUE, GREEN = (
    Shade(name, name, rgb) for name, rgb in (("red", (0.8, 0.1, 0.1)), ("blue", (0.1, 0.2, 0.8)), ("green", (0.1, 0.6, 0.2)))
)
RED_BLOCK = ObjectSpec("block", RED, (0.04, 0.04, 0.04))
BLUE_BLOCK = ObjectSpec("block", BLUE, (0.05, 0.05, 0.05))
GREEN_BLOCK = ObjectSpec("block", GREEN, (0.04, 0.04, 0.04))
BLUE_BOWL = ObjectSpec("bowl", BLUE, (0.08, 0.05, 0.6))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(WorldConfig(cameras=cameras(1), vary_appearance=False))
    yield made
    made.close()


def judge(world: World, kind: RelationKind, subject: str, *references: str) -> bool:
    return bool(Judge(world).relation(Relation(kind, subject, references)))


def lift_to(world: World, number: int, position: tuple[float, float, float]) -> None:
    """Set an object down from a given place and let it come to rest."""
    body = world.bodies()[number]
    pybullet.resetBasePositionAndOrientation(body.number, position, body.orientation, physicsClientId=world.client)
    world.settle()


DIRECTIONS = {
    RelationKind.LEFT_OF: (0.0, 0.1),
    RelationKind.RIGHT_OF: (0.0, -0.1),
    RelationKind.BEHIND: (0.1, 0.0),
    RelationKind.IN_FRONT_OF: (-0.1, 0.0),
}


@pytest.mark.parametrize("kind", list(DIRECTIONS))
def test_directions(world: World, kind: RelationKind) -> None:
    dx, dy = DIRECTIONS[kind]
    world.reset([Placement(RED_BLOCK, (0.5 + dx, dy)), Placement(BLUE_BLOCK, (0.5, 0.0))], seed=0)
    assert [other for other in DIRECTIONS if judge(world, other, "red block", "blue block")] == [kind]
    assert not judge(world, RelationKind.ON, "red block", "blue block")
    assert not judge(world, RelationKind.IN, "red block", "blue block")


@given(st.floats(0, 2 * np.pi), st.floats(0.0, 0.5))
def test_direction_cones_do_not_overlap(turn: float, distance: float) -> None:
    offset = distance * np.array([np.cos(turn), np.sin(turn)])
    inside = [in_direction(offset, np.array(axis)) for axis in ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))]
    on_a_border = abs(abs(offset[0]) - abs(offset[1])) < 1e-9
    assert sum(inside) <= 1 or on_a_border
    assert any(inside) or distance < 0.03 * np.sqrt(2) + 1e-9


def test_on(world: World) -> None:
    world.reset([Placement(RED_BLOCK, (0.4, 0.0)), Placement(BLUE_BLOCK, (0.5, 0.0))], seed=0)
    lift_to(world, 0, (0.505, 0.005, world.table_height + 0.0725))
    assert judge(world, RelationKind.ON, "red block", "blue block")
    assert not judge(world, RelationKind.ON, "blue block", "red block")
    assert not judge(world, RelationKind.NEXT_TO, "red block", "blue block")
    assert not any(judge(world, kind, "red block", "blue block") for kind in DIRECTIONS)


def test_leaning_is_not_on(world: World) -> None:
    tall = ObjectSpec("block", RED, (0.02, 0.02, 0.12))
    world.reset([Placement(tall, (0.4, 0.0)), Placement(BLUE_BLOCK, (0.5, 0.0))], seed=0)
    body = world.bodies()[0]
    # foot on the table, head against the other block's upper edge
    pybullet.changeDynamics(body.number, -1, lateralFriction=3.0, physicsClientId=world.client)
    turn = pybullet.getQuaternionFromEuler([0, 0.5, 0])
    pybullet.resetBasePositionAndOrientation(body.number, [0.450, 0.0, world.table_height + 0.062], turn, physicsClientId=world.client)
    world.settle()
    assert pybullet.getContactPoints(body.number, world.bodies()[1].number, physicsClientId=world.client)
    assert not judge(world, RelationKind.ON, "red block", "blue block")


def test_in_a_bowl(world: World) -> None:
    world.reset([Placement(RED_BLOCK, (0.4, 0.0)), Placement(BLUE_BOWL, (0.55, 0.0))], seed=0)
    assert not judge(world, RelationKind.IN, "red block", "blue bowl")
    lift_to(world, 0, (0.55, 0.0, world.table_height + 0.04))
    assert judge(world, RelationKind.IN, "red block", "blue bowl")
    assert not judge(world, RelationKind.ON, "red block", "blue bowl")
    assert not judge(world, RelationKind.IN, "blue bowl", "red block")


def test_next_to_and_between(world: World) -> None:
    world.reset(
        [Placement(RED_BLOCK, (0.45, 0.0)), Placement(BLUE_BLOCK, (0.45, 0.10)), Placement(GREEN_BLOCK, (0.45, -0.20))],
        seed=0,
    )
    assert judge(world, RelationKind.NEXT_TO, "red block", "blue block")
    assert not judge(world, RelationKind.NEXT_TO, "red block", "green block")
    assert judge(world, RelationKind.BETWEEN, "red block", "blue block", "green block")
    assert not judge(world, RelationKind.BETWEEN, "blue block", "red block", "green block")


def test_phrases_that_fit_several_objects(world: World) -> None:
    world.reset(
        [Placement(RED_BLOCK, (0.45, 0.0)), Placement(BLUE_BLOCK, (0.45, 0.15)), Placement(GREEN_BLOCK, (0.45, -0.15))],
        seed=0,
    )
    assert judge(world, RelationKind.LEFT_OF, "block", "red thing"), "some block is"
    assert judge(world, RelationKind.LEFT_OF, "red block", "other block"), "of some other block"
    assert not judge(world, RelationKind.LEFT_OF, "green block", "block")
    verdict = Judge(world).relation(Relation(RelationKind.LEFT_OF, "red mug", ("block",)))
    assert not verdict
    assert "no red mug" in verdict.reason


def test_what_fell_off_the_table_fails_everything(world: World) -> None:
    world.reset([Placement(RED_BLOCK, (0.45, 0.15)), Placement(BLUE_BLOCK, (0.45, 0.0)), Placement(GREEN_BLOCK, (0.6, 0.0))], seed=0)
    assert judge(world, RelationKind.LEFT_OF, "red block", "blue block")
    lift_to(world, 2, (0.5, 1.2, -0.5))
    verdict = Judge(world).relation(Relation(RelationKind.LEFT_OF, "red block", ("blue block",)))
    assert "fallen" in verdict.reason


def test_what_the_arm_holds_is_nowhere(world: World) -> None:
    world.reset([Placement(RED_BLOCK, (0.45, 0.15)), Placement(BLUE_BLOCK, (0.45, 0.0))], seed=0)
    tip = world.table_height + 0.018
    there = np.array([0.45, 0.2, tip])
    lifted = world.robot.execute(
        PickPlace(np.array([0.45, 0.15, tip]), 0.0, 0.054, there, 0.0), lambda: world.bodies()[0].position[2] > world.table_height + 0.08
    )
    assert lifted.code == ExecutionCode.CANCELED
    asked = Relation(RelationKind.LEFT_OF, "red block", ("blue block",))
    assert Judge(world).relation(asked).reason == "hanging on the arm: red block"
    world.robot.clear()
    world.settle()
    assert Judge(world).relation(asked)


def test_unknown_words() -> None:
    assert fits(RED_BLOCK, "the crimson cube")
    assert not fits(RED_BLOCK, "red mug")
    with pytest.raises(ValueError, match="knows no word"):
        fits(RED_BLOCK, "whatsit")
