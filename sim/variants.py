"""Shapes of the known kinds that no training picture shows, though a person calls them by the same name.

Each variant stays inside the cylinder (or, for blocks, the box) that the kind's dimensions describe, so that what is known of the kind
(footprint, height, what fits inside) holds for it too. Polygonal outlines have their corners on the circle of the given radius.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from pcm_ros.sim.shapes import WALL, Collision, Mesh, bowl_profile, hollow, join, lathe, tube

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mug": ("faceted", "conical", "squat"),
        "bowl": ("square", "octagonal", "flared"),
        "block": ("hexagonal", "tapered", "bar"),
        "can": ("ribbed", "necked"),
        "bottle": ("square", "stepped"),
        "plate": ("square", "octagonal"),
    }
)
"""Kind -> its variants."""
SIDES: Mapping[str, int] = MappingProxyType({"hexagonal": 6, "octagonal": 8, "square": 4, "faceted": 8})
"""Variant -> corners of its outline, for those that are not round."""
_TAPER = 0.72  # top by bottom side of a tapered block

Profile = list[tuple[float, float]]
Parts = tuple[Mesh, Collision]


def build(kind: str, variant: str, dimensions: Sequence[float]) -> Parts:
    """What is seen and what is touched.

    Args:
        kind: of the object. variant: one of NAMES[kind].
        dimensions: metres, as in ObjectSpec.
    """
    return _BUILDERS[kind](variant, dimensions)


def _mug(variant: str, dimensions: Sequence[float]) -> Parts:
    """faceted: eight sides, angular handle. conical: much narrower below, long handle. squat: low, bulging, round handle."""
    radius, height, taper = dimensions
    sides = SIDES.get(variant)
    wall = float(WALL / np.cos(np.pi / sides)) if sides else WALL
    outer: Profile = [(radius * taper, 0.0), (radius, height)]
    if variant == "squat":
        outer = [(radius * taper, 0.0), (radius, height * 0.4), (radius, height * 0.6), (radius * 0.94, height)]
    arc = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13)
    bend = 0.35 if variant == "faceted" else 0.8
    reach, span, middle = {"faceted": (0.024, 0.26, 0.5), "conical": (0.026, 0.34, 0.56), "squat": (0.025, 0.30, 0.5)}[variant]
    across, up = np.cos(arc).clip(0) ** bend * reach, np.sign(np.sin(arc)) * np.abs(np.sin(arc)) ** bend * span * height
    heights = height * middle + up
    foot = np.interp(heights, [z for _, z in outer], [r for r, _ in outer]) * (np.cos(np.pi / sides) if sides else 1.0) - 0.003
    # both ends start in the wall; in between the handle stands off from the wall's middle
    path = np.stack([np.minimum(foot, foot[len(foot) // 2]) + across, np.zeros(len(arc)), heights], axis=1)
    path[[0, -1], 0] = foot[[0, -1]]
    mesh = join(lathe(hollow(outer, 0.006, wall), **_lathed(sides)), tube(path, 0.005))
    collision = Collision()
    collision.cylinder(radius * taper, 0.0, 0.006, **_lathed(sides))
    _add_wall(collision, outer, wall, sides)
    for a, b in zip(path[:-1:3], path[3::3], strict=False):
        collision.box(0.0045, a, b)
    return mesh, collision


def _bowl(variant: str, dimensions: Sequence[float]) -> Parts:
    """square, octagonal: straight sides and corners. flared: a cone that ends in an upright rim."""
    radius, height, foot = dimensions
    sides = SIDES.get(variant)
    wall = float(WALL / np.cos(np.pi / sides)) if sides else WALL
    rising: Profile = bowl_profile(radius, height, foot)
    if variant != "octagonal":
        rising = [(radius * foot, 0.004), (radius * 0.96, height * 0.5), (radius, height)]
    collision = Collision()
    collision.cylinder(radius * foot, 0.0, 0.008, **_lathed(sides))
    _add_wall(collision, rising, wall, sides)
    return lathe(hollow([(radius * foot, 0.0), *rising], 0.008, wall), **_lathed(sides)), collision


def _block(variant: str, dimensions: Sequence[float]) -> Parts:
    """hexagonal: an upright prism, corners along x. tapered: a cut pyramid. bar: a long box."""
    x, y, z = dimensions
    if variant == "hexagonal":
        turn = np.arange(6) * np.pi / 3
        lower = np.stack([np.cos(turn) * x / 2, np.sin(turn) * y / np.sqrt(3)], axis=1)
    else:
        lower = np.array([(x, y), (-x, y), (-x, -y), (x, -y)]) / 2
    upper = lower * (_TAPER if variant == "tapered" else 1.0)
    return _prism(lower, upper, z)


def _prism(lower: npt.NDArray[np.float64], upper: npt.NDArray[np.float64], height: float) -> Parts:
    """Between two convex outlines (N, 2), both counter-clockwise, at z = 0 and z = height."""
    count = len(lower)
    rings = np.concatenate([np.column_stack([lower, np.zeros(count)]), np.column_stack([upper, np.full(count, height)])])
    vertices = np.concatenate([rings, [[0.0, 0.0, 0.0], [0.0, 0.0, height]]])
    faces = []
    for i in range(count):
        j = (i + 1) % count
        faces += [(i, j, count + j), (i, count + j, count + i), (2 * count, j, i), (2 * count + 1, count + i, count + j)]
    collision = Collision()
    collision.pieces.append(rings)
    return Mesh(vertices, np.asarray(faces)), collision


def _can(variant: str, dimensions: Sequence[float]) -> Parts:
    """ribbed: rings around it. necked: narrower at both ends."""
    radius, height = dimensions
    if variant == "ribbed":
        steps = np.linspace(0.0, height, 9)
        outer = [(radius if i % 2 == 0 else radius * 0.93, float(z)) for i, z in enumerate(steps)]
    else:
        outer = [(radius * 0.82, 0.0), (radius, height * 0.09), (radius, height * 0.88), (radius * 0.80, height)]
    collision = Collision()
    for (r0, z0), (r1, z1) in pairwise(outer):
        collision.cone(r0, r1, z0, z1)
    return lathe([(0.0, 0.0), *outer, (0.0, height)]), collision


def _bottle(variant: str, dimensions: Sequence[float]) -> Parts:
    """square: a four-sided body. stepped: a wide foot, a narrower chest."""
    radius, height, neck = dimensions
    collision = Collision()
    if variant == "square":
        shoulder = height * 0.60
        collision.cylinder(radius, 0.0, shoulder, sides=4)
        collision.cone(radius, neck, shoulder, height * 0.68, sides=4)
        collision.cylinder(neck, height * 0.68, height, sides=4)
        return lathe([(0, 0), (radius, 0), (radius, shoulder), (neck, height * 0.68), (neck, height), (0, height)], 4), collision
    outer = [(radius, 0.0), (radius, height * 0.35), (radius * 0.7, height * 0.42), (radius * 0.7, height * 0.7), (neck, height * 0.8)]
    outer.append((neck, height))
    for (r0, z0), (r1, z1) in pairwise(outer):
        collision.cone(r0, r1, z0, z1)
    return lathe([(0.0, 0.0), *outer, (0.0, height)]), collision


def _plate(variant: str, dimensions: Sequence[float]) -> Parts:
    """square, octagonal: flat, with a rim."""
    radius, height = dimensions
    sides = SIDES[variant]
    collision = Collision()
    collision.cylinder(radius * 0.7, 0.0, 0.008, sides)
    collision.ring([(radius * 0.7, 0.0), (radius, height - 0.004), (radius, height), (radius * 0.68, 0.008)], sides)
    profile = [(0, 0), (radius * 0.7, 0), (radius, height - 0.004), (radius, height), (radius * 0.68, 0.008), (0, 0.008)]
    return lathe(profile, sides), collision


def _add_wall(collision: Collision, outer: Profile, wall: float, sides: int | None) -> None:
    """The wall that `hollow` shows: `wall` metres wide, measured towards the axis."""
    for (r0, z0), (r1, z1) in pairwise(outer):
        collision.ring([(r0, z0), (r1, z1), (r0 - wall, z0), (r1 - wall, z1)], **_lathed(sides))


def _lathed(sides: int | None) -> dict[str, int]:
    return {} if sides is None else {"sides": sides}


_BUILDERS: Mapping[str, Callable[[str, Sequence[float]], Parts]] = MappingProxyType(
    {"mug": _mug, "bowl": _bowl, "block": _block, "can": _can, "bottle": _bottle, "plate": _plate}
)
