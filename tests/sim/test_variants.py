"""Unseen shapes: what is seen is what is touched; they stand, hold and can be held."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from pcm_ros.sim.objects import MASSES, ObjectSpec, origin_height
from pcm_ros.sim.suites import UNSEEN_SIZES, sample_unseen
from pcm_ros.sim.variants import NAMES, build
from pcm_ros.sim.world import Placement, World, WorldConfig, cameras

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
