"""Unseen shapes: what is seen is what is touched; they stand, hold and can be held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from pcm_ros.sim.objects import MASSES, ObjectSpec, origin_height
from pcm_ros.sim.shapes import WALL
from pcm_ros.sim.suites import UNSEEN_SIZES, sample_unseen
from pcm_ros.sim.variants import NAMES, SIDES, build
from pcm_ros.sim.world import Body, Placement, World, WorldConfig, cameras
from pcm_ros.tasks.manipulation.workcell import PickPlace

ALL = [(kind, variant) for kind, names in NAMES.items() for variant in names]


def unseen(kind: str, variant: str, seed: int = 0) -> ObjectSpec:
    rng = np.random.default_rng(seed)
    while (spec := sample_unseen(rng, kind, "red")).variant != variant:
        pass
    return spec


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World(WorldConfig(cameras=cameras(1), vary_appearance=False))
    yield made
    made.close()


def test_every_variant_has_sizes() -> None:
    assert set(UNSEEN_SIZES) == set(ALL)


@pytest.mark.parametrize(("kind", "variant"), ALL)
def test_what_is_seen_is_what_is_touched(kind: str, variant: str) -> None:
    """Mesh and contact pieces fill the same box, inside the dimensions."""
    spec = unseen(kind, variant)
    mesh, collision = build(kind, variant, spec.dimensions)
    corners = np.concatenate(collision.pieces)
    assert np.abs(mesh.vertices.max(axis=0) - corners.max(axis=0)).max() < 0.004
    assert np.abs(mesh.vertices.min(axis=0) - corners.min(axis=0)).max() < 0.004
    assert mesh.vertices[:, 2].max() == pytest.approx(spec.height, abs=1e-3)
    assert np.hypot(mesh.vertices[:, 0], mesh.vertices[:, 1]).max() <= spec.radius + 1e-6
    normals = np.cross(
        mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]], mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]]
    )
    volume = float((mesh.vertices[mesh.faces[:, 0]] * normals).sum()) / 6
    assert volume > 0, "faces point outwards"


@pytest.mark.parametrize(("kind", "variant"), ALL)
def test_stands_upright(world: World, kind: str, variant: str) -> None:
    spec = unseen(kind, variant, seed=2)
    world.reset([Placement(spec, (0.5, 0.0), 0.4)], seed=1)
    (body,) = world.bodies()
    assert body.up[2] > 0.999
    assert np.linalg.norm(body.position[:2] - (0.5, 0.0)) < 0.002
    assert body.low[2] == pytest.approx(world.table_height, abs=0.004)
    assert pybullet.getDynamicsInfo(body.number, -1, physicsClientId=world.client)[0] == pytest.approx(MASSES[kind])


@pytest.mark.parametrize(("kind", "variant"), [pair for pair in ALL if pair[0] in ("mug", "bowl")])
def test_vessels_are_hollow(world: World, kind: str, variant: str) -> None:
    """A small block let go above the middle comes to rest inside."""
    spec = unseen(kind, variant, seed=3)
    small = ObjectSpec("block", spec.shade, (0.02, 0.02, 0.02))
    world.reset([Placement(spec, (0.5, 0.0)), Placement(small, (0.35, 0.2))], seed=1)
    vessel, block = world.bodies()
    start = [0.5, 0.0, world.table_height + spec.height + 0.02 + origin_height(small)]
    pybullet.resetBasePositionAndOrientation(block.number, start, [0, 0, 0, 1], physicsClientId=world.client)
    assert world.settle()
    vessel, block = world.bodies()
    assert block.low[2] < world.table_height + 0.02
    assert np.linalg.norm(block.position[:2] - vessel.position[:2]) < spec.inner_radius
    assert vessel.up[2] > 0.99


def grasp(body: Body) -> tuple[np.ndarray, float]:
    """Tool point and direction of the fingers: blocks across their narrower side, cans across, vessels by the middle of a side's rim."""
    spec, top = body.spec, float(body.high[2])
    if spec.kind == "block":
        turn = 0.0 if spec.dimensions[0] <= spec.dimensions[1] else np.pi / 2
        return np.array([*body.position[:2], max(top - 0.03, body.low[2] + 0.012)]), turn
    if spec.kind == "can":
        return np.array([*body.position[:2], max(top - 0.035, (top + body.low[2]) / 2)]), 0.0
    sides = SIDES.get(spec.variant)
    turn = np.pi - np.pi / sides if sides else np.pi
    depth = 0.022 if spec.kind == "mug" else 0.014
    radius = spec.dimensions[0] * spec.narrowness - WALL / 2 - (0.0 if spec.kind == "mug" else 0.003)
    return np.array([body.position[0] + radius * np.cos(turn), body.position[1] + radius * np.sin(turn), top - depth]), turn


@pytest.mark.parametrize(("kind", "variant"), [pair for pair in ALL if pair[0] in ("mug", "bowl", "block", "can")])
def test_the_arm_takes_and_places_it(world: World, kind: str, variant: str) -> None:
    """Grasped from truth, carried 12 cm, put down upright near where it should be."""
    world.reset([Placement(unseen(kind, variant, seed=7), (0.5, -0.06))], seed=1)
    tool, turn = grasp(world.bodies()[0])
    result = world.robot.execute(
        PickPlace(tool, turn, 0.08 if kind in ("block", "can") else 0.045, tool + np.array([0.0, 0.12, 0.003]), turn)
    )
    assert result.ok, result
    assert world.settle()
    (body,) = world.bodies()
    assert body.up[2] > 0.98
    assert np.linalg.norm(body.position[:2] - (0.5, 0.06)) < 0.03
