"""What objects are made of: lathe-turned meshes for the eye, convex pieces for contacts. Metres, z up, the underside at z = 0.

Mugs and bowls are really hollow: a ring of wall pieces, so that a rim can be grasped and things can lie inside.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet

WALL = 0.005
_SEGMENTS = 40  # of a visual lathe mesh
_WALL_PIECES = 20  # of a collision ring


@dataclass(frozen=True)
class Mesh:
    vertices: npt.NDArray[np.float64]
    faces: npt.NDArray[np.int64]


def lathe(profile: npt.ArrayLike, sides: int = _SEGMENTS) -> Mesh:
    """Turn a profile of (radius, z) points, listed from the outer bottom centre over the rim to the inner bottom centre, about z.

    With few `sides` the outline is a regular polygon whose corners lie at the profile's radii.
    """
    points = np.asarray(profile, dtype=np.float64)
    angles = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.concatenate([np.column_stack([ring * r, np.full(sides, z)]) for r, z in points])
    faces = []
    for level in range(len(points) - 1):
        a, b = level * sides, (level + 1) * sides
        for i in range(sides):
            j = (i + 1) % sides
            faces += [(a + i, a + j, b + j), (a + i, b + j, b + i)]
    return Mesh(vertices, np.asarray(faces))


def tube(path: npt.NDArray[np.float64], radius: float, sides: int = 10) -> Mesh:
    """A round tube along a path (K, 3) that lies in the x-z plane."""
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    normal = np.cross(tangents, [0.0, 1.0, 0.0])
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    rings = path[:, None] + radius * (
        np.cos(turn)[None, :, None] * normal[:, None] + np.sin(turn)[None, :, None] * np.array([0.0, 1.0, 0.0])
    )
    faces = []
    for level in range(len(path) - 1):
        for i in range(sides):
            a, b, j = level * sides, (level + 1) * sides, (i + 1) % sides
            faces += [(a + i, b + j, a + j), (a + i, b + i, b + j)]
    return Mesh(rings.reshape(-1, 3), np.asarray(faces))


def join(*meshes: Mesh) -> Mesh:
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=False)]))


@dataclass
class Collision:
    """Convex pieces, each an array of corner points (K, 3). PyBullet's own arrays of primitive shapes end silently after 16, so the
    pieces go through a mesh file, which has no such limit."""

    pieces: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def cylinder(self, radius: float, low: float, high: float, sides: int = 24) -> None:
        """An upright prism between two heights."""
        self.cone(radius, radius, low, high, sides)

    def cone(self, lower: float, upper: float, low: float, high: float, sides: int = 24) -> None:
        """A frustum between two heights."""
        turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        self.pieces.append(np.concatenate([np.column_stack([ring * r, np.full(sides, z)]) for r, z in ((lower, low), (upper, high))]))

    def box(self, half: float, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> None:
        """A square bar between two points of the x-z plane."""
        along = (end - start) / np.linalg.norm(end - start)
        side = np.cross(along, [0.0, 1.0, 0.0])
        corners = [i * side + np.array([0.0, j, 0.0]) for i in (-1.0, 1.0) for j in (-1.0, 1.0)]
        self.pieces.append(np.array([end_point + half * corner for end_point in (start, end) for corner in corners]))

    def wall(self, profile: npt.ArrayLike) -> None:
        """A ring of wedges along each piece of the outer profile [(radius, z), ...]; the wall grows inwards by WALL."""
        points = np.asarray(profile, dtype=np.float64)
        for (r0, z0), (r1, z1) in pairwise(points):
            length = float(np.hypot(r1 - r0, z1 - z0))
            inward = np.array([-(z1 - z0), r1 - r0]) / length * WALL  # in the plane of radius and z
            self.ring([(r0, z0), (r1, z1), (r0 + inward[0], z0 + inward[1]), (r1 + inward[0], z1 + inward[1])])

    def ring(self, corners: Sequence[tuple[float, float]], sides: int = _WALL_PIECES) -> None:
        """A convex section, given by its corners (radius, z), turned about z in as many wedges as there are sides."""
        turn = np.linspace(0, 2 * np.pi, sides + 1)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        for k in range(sides):
            self.pieces.append(np.array([[*(ring[side] * max(r, 0.001)), z] for side in (k, k + 1) for r, z in corners]))

    def create(self, client: int, origin: npt.NDArray[np.float64]) -> int:
        """Hand the pieces, moved by -origin, to PyBullet; returns the shape's id."""
        from scipy.spatial import ConvexHull

        lines: list[str] = []
        count = 1
        for number, piece in enumerate(self.pieces):
            lines.append(f"o piece{number}")
            lines += [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in piece - origin]
            lines += [f"f {a + count} {b + count} {c + count}" for a, b, c in ConvexHull(piece).simplices]
            count += len(piece)
        with tempfile.TemporaryDirectory() as folder:  # a name of its own each time: PyBullet keeps files by name
            path = Path(folder) / "pieces.obj"
            path.write_text("\n".join(lines) + "\n")
            return int(pybullet.createCollisionShape(pybullet.GEOM_MESH, fileName=str(path), physicsClientId=client))


def bowl_profile(radius: float, height: float, foot: float) -> list[tuple[float, float]]:
    """Outer wall of a bowl: (radius, z) from foot to rim along a quarter ellipse."""
    turns = np.linspace(0, np.pi / 2, 5)
    start = radius * foot
    return [(start + (radius - start) * float(np.sin(t)), 0.004 + (height - 0.004) * (1 - float(np.cos(t)))) for t in turns]


def hollow(outer: list[tuple[float, float]], floor: float, wall: float = WALL) -> list[tuple[float, float]]:
    """Closed lathe profile of a vessel with the given outer wall: underside, outside, rim, inside, inner floor at height `floor`."""
    inside = [(max(r - wall, 0.002), max(z, floor)) for r, z in reversed(outer)]
    return [(0.0, outer[0][1]), *outer, *inside, (0.0, floor)]


def mug(dimensions: Sequence[float]) -> tuple[Mesh, Collision]:
    radius, height, taper = dimensions
    outer = [(radius * taper, 0.0), (radius, height)]
    arc = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 12)
    reach, span = 0.026, height * 0.28
    path = np.stack([radius * (1 + taper) / 2 - 0.004 + reach * np.cos(arc), np.zeros(12), height * 0.52 + span * np.sin(arc)], axis=1)
    mesh = join(lathe(hollow(outer, 0.006)), tube(path, 0.005))
    collision = Collision()
    collision.cylinder(radius * taper, 0.0, 0.006)
    collision.wall(outer)
    for a, b in zip(path[:-1:3], path[3::3], strict=False):
        collision.box(0.0045, a, b)
    return mesh, collision


def bowl(dimensions: Sequence[float]) -> tuple[Mesh, Collision]:
    radius, height, foot = dimensions
    outer = [(radius * foot, 0.0), *bowl_profile(radius, height, foot)]
    collision = Collision()
    collision.cylinder(radius * foot, 0.0, 0.008)
    collision.wall(outer[1:])
    return lathe(hollow(outer, 0.008)), collision


def bottle(dimensions: Sequence[float]) -> tuple[Mesh, Collision]:
    radius, height, neck = dimensions
    shoulder = height * 0.62
    collision = Collision()
    collision.cylinder(radius, 0.0, shoulder * 0.92)
    collision.cone(radius, neck, shoulder * 0.92, shoulder * 1.12)
    collision.cylinder(neck, shoulder * 1.12, height)
    profile = [
        (0, 0),
        (radius, 0),
        (radius, shoulder * 0.92),
        (radius * 0.75, shoulder),
        (neck, shoulder * 1.12),
        (neck, height),
        (0, height),
    ]
    return lathe(profile), collision


def plate(dimensions: Sequence[float]) -> tuple[Mesh, Collision]:
    radius, height = dimensions
    collision = Collision()
    collision.cylinder(radius * 0.7, 0.0, 0.008)
    collision.wall([(radius * 0.7, 0.004), (radius, height)])
    return lathe([(0, 0), (radius * 0.7, 0), (radius, height - 0.004), (radius, height), (radius * 0.68, 0.008), (0, 0.008)]), collision
