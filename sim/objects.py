"""The things on the table: mugs, bowls, blocks, cans, bottles, plates made from parameters, ducks and toys of pybullet_data.

Mugs and bowls are really hollow: a lathe-turned mesh for the eye, a ring of wall pieces for contacts, so that a rim can be grasped
and things can lie inside.
"""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pybullet

from pcm_ros.sim.appearance import Shade, sample_shade

KINDS = ("mug", "bowl", "block", "can", "bottle", "plate", "duck", "toy")
WALL = 0.005
_SEGMENTS = 40  # of a visual lathe mesh
_WALL_PIECES = 20  # of a collision ring


@dataclass(frozen=True)
class ObjectSpec:
    """One thing: what it is, its colour and dimensions (metres).

    Attributes:
        kind: one of KINDS.
        shade: its colour.
        dimensions: by kind. mug: radius, height, taper (bottom/top radius). bowl: radius, height, foot (foot/rim radius).
            block: x, y, z sides. can: radius, height. bottle: radius, height, neck radius. plate: radius, height.
            duck, toy: greatest extent; toys also have a number.
    """

    kind: str
    shade: Shade
    dimensions: tuple[float, ...]
    number: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is '{self.kind}'; allowed: {', '.join(KINDS)}")

    @property
    def phrase(self) -> str:
        """What a person would call it."""
        return f"{self.shade.name} {self.kind}"

    @property
    def height(self) -> float:
        """Metres above its underside when it stands upright."""
        if self.kind == "block":
            return self.dimensions[2]
        return self.dimensions[0] * 0.9 if self.kind in ("duck", "toy") else self.dimensions[1]

    @property
    def radius(self) -> float:
        """Radius of the circle around its footprint, handle included."""
        if self.kind == "block":
            return float(np.hypot(self.dimensions[0], self.dimensions[1]) / 2)
        if self.kind in ("duck", "toy"):
            return self.dimensions[0] * 0.6
        return self.dimensions[0] + (0.028 if self.kind == "mug" else 0.0)

    @property
    def inner_radius(self) -> float:
        """Radius of the free space inside at mid-height; 0 for what is not a container."""
        if self.kind == "mug":
            return self.dimensions[0] - WALL
        if self.kind == "bowl":
            return self.dimensions[0] * (1 + self.dimensions[2]) / 2 - WALL
        return 0.0

    @property
    def flat_top(self) -> bool:
        """Whether something can stand on it."""
        return self.kind in ("block", "can", "plate")


def sample_object(rng: np.random.Generator, kind: str | None = None, shade: Shade | None = None, split: str = "train") -> ObjectSpec:
    """A random object; `kind` and `shade` fix what is asked for. `split` chooses the pool of shades ("train", "test")."""
    kind = kind or KINDS[rng.choice(len(KINDS), p=(0.2, 0.2, 0.2, 0.1, 0.1, 0.08, 0.05, 0.07))]
    shade = shade or sample_shade(rng, split)
    low, high = {
        "mug": ((0.032, 0.070, 0.80), (0.042, 0.100, 1.0)),
        "bowl": ((0.055, 0.040, 0.45), (0.085, 0.062, 0.62)),
        "block": ((0.034, 0.034, 0.034), (0.052, 0.052, 0.058)),
        "can": ((0.023, 0.060), (0.033, 0.110)),
        "bottle": ((0.024, 0.120, 0.010), (0.033, 0.175, 0.014)),
        "plate": ((0.065, 0.015), (0.090, 0.020)),
        "duck": ((0.060,), (0.085,)),
        "toy": ((0.060,), (0.095,)),
    }[kind]
    dimensions = tuple(float(x) for x in rng.uniform(low, high))
    if kind == "block" and rng.random() < 0.6:
        dimensions = (dimensions[0],) * 3
    return ObjectSpec(kind, shade, dimensions, int(rng.integers(1000)) if kind == "toy" else 0)


# ---------------------------------------------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True)
class _Mesh:
    vertices: npt.NDArray[np.float64]
    faces: npt.NDArray[np.int64]


def _lathe(profile: npt.ArrayLike) -> _Mesh:
    """Turn a profile of (radius, z) points, listed from the outer bottom centre over the rim to the inner bottom centre, about z."""
    points = np.asarray(profile, dtype=np.float64)
    angles = np.linspace(0, 2 * np.pi, _SEGMENTS, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.concatenate([np.column_stack([ring * r, np.full(_SEGMENTS, z)]) for r, z in points])
    faces = []
    for level in range(len(points) - 1):
        a, b = level * _SEGMENTS, (level + 1) * _SEGMENTS
        for i in range(_SEGMENTS):
            j = (i + 1) % _SEGMENTS
            faces += [(a + i, a + j, b + j), (a + i, b + j, b + i)]
    return _Mesh(vertices, np.asarray(faces))


def _tube(path: npt.NDArray[np.float64], radius: float, sides: int = 10) -> _Mesh:
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
    return _Mesh(rings.reshape(-1, 3), np.asarray(faces))


def _join(*meshes: _Mesh) -> _Mesh:
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return _Mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=False)]))


@dataclass
class _Collision:
    """Convex pieces, each an array of corner points (K, 3). PyBullet's own arrays of primitive shapes end silently after 16, so the
    pieces go through a mesh file, which has no such limit."""

    pieces: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def cylinder(self, radius: float, low: float, high: float) -> None:
        """An upright 24-sided prism between two heights."""
        self.cone(radius, radius, low, high)

    def cone(self, lower: float, upper: float, low: float, high: float) -> None:
        """A 24-sided frustum between two heights."""
        turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        self.pieces.append(np.concatenate([np.column_stack([ring * r, np.full(24, z)]) for r, z in ((lower, low), (upper, high))]))

    def box(self, half: float, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]) -> None:
        """A square bar between two points of the x-z plane."""
        along = (end - start) / np.linalg.norm(end - start)
        side = np.cross(along, [0.0, 1.0, 0.0])
        corners = [i * side + np.array([0.0, j, 0.0]) for i in (-1.0, 1.0) for j in (-1.0, 1.0)]
        self.pieces.append(np.array([end_point + half * corner for end_point in (start, end) for corner in corners]))

    def wall(self, profile: npt.ArrayLike) -> None:
        """A ring of wedges along each piece of the outer profile [(radius, z), ...]; the wall grows inwards by WALL."""
        points = np.asarray(profile, dtype=np.float64)
        turn = np.linspace(0, 2 * np.pi, _WALL_PIECES + 1)
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        for (r0, z0), (r1, z1) in pairwise(points):
            length = float(np.hypot(r1 - r0, z1 - z0))
            inward = np.array([-(z1 - z0), r1 - r0]) / length * WALL  # in the plane of radius and z
            corners = [(r0, z0), (r1, z1), (r0 + inward[0], z0 + inward[1]), (r1 + inward[0], z1 + inward[1])]
            for k in range(_WALL_PIECES):
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


def _bowl_profile(radius: float, height: float, foot: float) -> list[tuple[float, float]]:
    """Outer wall of a bowl: (radius, z) from foot to rim along a quarter ellipse."""
    turns = np.linspace(0, np.pi / 2, 5)
    start = radius * foot
    return [(start + (radius - start) * float(np.sin(t)), 0.004 + (height - 0.004) * (1 - float(np.cos(t)))) for t in turns]


def _hollow(outer: list[tuple[float, float]], floor: float) -> list[tuple[float, float]]:
    """Closed lathe profile of a vessel with the given outer wall: underside, outside, rim, inside, inner floor at height `floor`."""
    inside = [(max(r - WALL, 0.002), max(z, floor)) for r, z in reversed(outer)]
    return [(0.0, outer[0][1]), *outer, *inside, (0.0, floor)]


def _mug(spec: ObjectSpec) -> tuple[_Mesh, _Collision]:
    radius, height, taper = spec.dimensions
    outer = [(radius * taper, 0.0), (radius, height)]
    arc = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 12)
    reach, span = 0.026, height * 0.28
    path = np.stack([radius * (1 + taper) / 2 - 0.004 + reach * np.cos(arc), np.zeros(12), height * 0.52 + span * np.sin(arc)], axis=1)
    mesh = _join(_lathe(_hollow(outer, 0.006)), _tube(path, 0.005))
    collision = _Collision()
    collision.cylinder(radius * taper, 0.0, 0.006)
    collision.wall(outer)
    for a, b in zip(path[:-1:3], path[3::3], strict=False):
        collision.box(0.0045, a, b)
    return mesh, collision


def _bowl(spec: ObjectSpec) -> tuple[_Mesh, _Collision]:
    radius, height, foot = spec.dimensions
    outer = [(radius * foot, 0.0), *_bowl_profile(radius, height, foot)]
    collision = _Collision()
    collision.cylinder(radius * foot, 0.0, 0.008)
    collision.wall(outer[1:])
    return _lathe(_hollow(outer, 0.008)), collision


def _bottle(spec: ObjectSpec) -> tuple[_Mesh, _Collision]:
    radius, height, neck = spec.dimensions
    shoulder = height * 0.62
    collision = _Collision()
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
    return _lathe(profile), collision


def _plate(spec: ObjectSpec) -> tuple[_Mesh, _Collision]:
    radius, height = spec.dimensions
    collision = _Collision()
    collision.cylinder(radius * 0.7, 0.0, 0.008)
    collision.wall([(radius * 0.7, 0.004), (radius, height)])
    return _lathe([(0, 0), (radius * 0.7, 0), (radius, height - 0.004), (radius, height), (radius * 0.68, 0.008), (0, 0.008)]), collision


_VESSELS = {"mug": _mug, "bowl": _bowl, "bottle": _bottle, "plate": _plate}
MASSES = {"mug": 0.16, "bowl": 0.18, "block": 0.08, "can": 0.12, "bottle": 0.16, "plate": 0.20, "duck": 0.08, "toy": 0.08}


@functools.cache
def data_path() -> Path:
    """The folder of pybullet_data."""
    import pybullet_data

    return Path(pybullet_data.getDataPath())


def spawn(client: int, spec: ObjectSpec, xy: tuple[float, float], bottom_z: float, yaw: float = 0.0) -> int:
    """Put an object into the world, standing upright with its underside at `bottom_z`. Returns its PyBullet body id."""
    colour = [*spec.shade.rgb, 1.0]
    turn = pybullet.getQuaternionFromEuler([0, 0, yaw])
    if spec.kind in ("toy", "duck"):  # meshes from files: their underside is found from the bounding box
        body = _spawn_toy(client, spec, colour) if spec.kind == "toy" else _spawn_duck(client, spec, colour)
        if spec.kind == "duck":
            turn = pybullet.multiplyTransforms([0, 0, 0], turn, [0, 0, 0], pybullet.getQuaternionFromEuler([np.pi / 2, 0, 0]))[1]
        pybullet.resetBasePositionAndOrientation(body, [*xy, 1.0], turn, physicsClientId=client)
        origin_height = 1.0 - pybullet.getAABB(body, physicsClientId=client)[0][2]
    else:
        visual, collision = _shapes(client, spec, colour)
        body = pybullet.createMultiBody(MASSES[spec.kind], collision, visual, physicsClientId=client)
        origin_height = _origin_height(spec)
    pybullet.resetBasePositionAndOrientation(body, [*xy, bottom_z + origin_height + 0.0005], turn, physicsClientId=client)
    pybullet.changeDynamics(
        body,
        -1,
        lateralFriction=0.9,
        spinningFriction=0.004,
        rollingFriction=0.0005,
        restitution=0.0,
        linearDamping=0.05,
        angularDamping=0.08,
        physicsClientId=client,
    )
    return int(body)


def _origin_height(spec: ObjectSpec) -> float:
    """Height of the body's origin, which is its centre of mass, above its underside."""
    return spec.height * {"mug": 0.45, "bowl": 0.35, "bottle": 0.38, "plate": 0.4}.get(spec.kind, 0.5)


def _shapes(client: int, spec: ObjectSpec, colour: list[float]) -> tuple[int, int]:
    glossy = [0.25, 0.25, 0.25]
    if spec.kind == "block":
        half = [d / 2 for d in spec.dimensions]
        visual = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour, specularColor=glossy, physicsClientId=client
        )
        return visual, pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    if spec.kind == "can":
        radius, height = spec.dimensions
        visual = pybullet.createVisualShape(
            pybullet.GEOM_CYLINDER, radius=radius, length=height, rgbaColor=colour, specularColor=glossy, physicsClientId=client
        )
        return visual, pybullet.createCollisionShape(pybullet.GEOM_CYLINDER, radius=radius, height=height, physicsClientId=client)
    mesh, compound = _VESSELS[spec.kind](spec)
    origin = np.array([0.0, 0.0, _origin_height(spec)])
    vertices, faces, normals = _flat_shaded(_Mesh(mesh.vertices - origin, mesh.faces))
    visual = pybullet.createVisualShape(
        pybullet.GEOM_MESH,
        vertices=vertices,
        indices=faces,
        normals=normals,
        uvs=[[0.0, 0.0]] * len(vertices),
        rgbaColor=colour,
        specularColor=glossy,
        physicsClientId=client,
    )
    return visual, compound.create(client, origin)


def _flat_shaded(mesh: _Mesh) -> tuple[list[list[float]], list[int], list[list[float]]]:
    """Vertices repeated per face with outward normals, as PyBullet wants them."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    keep = length[:, 0] > 1e-12
    corners, normals = corners[keep], (normals / np.maximum(length, 1e-12))[keep]
    return corners.reshape(-1, 3).tolist(), list(range(3 * len(corners))), np.repeat(normals, 3, axis=0).tolist()


def _spawn_duck(client: int, spec: ObjectSpec, colour: list[float]) -> int:
    scale = [spec.dimensions[0] / 1.8] * 3  # the mesh is about 1.8 units long
    path = str(data_path() / "duck_vhacd.obj")
    visual = pybullet.createVisualShape(pybullet.GEOM_MESH, fileName=path, meshScale=scale, rgbaColor=colour, physicsClientId=client)
    collision = pybullet.createCollisionShape(pybullet.GEOM_MESH, fileName=path, meshScale=scale, physicsClientId=client)
    centre = [scale[0] * middle for middle in (-0.14, 0.7, 0.035)]  # of mass: on the duck's axis, a little below its middle; y is up
    return pybullet.createMultiBody(MASSES["duck"], collision, visual, baseInertialFramePosition=centre, physicsClientId=client)


def _spawn_toy(client: int, spec: ObjectSpec, colour: list[float]) -> int:
    path = data_path() / "random_urdfs" / f"{spec.number:03d}" / f"{spec.number:03d}.urdf"
    body = pybullet.loadURDF(str(path), globalScaling=spec.dimensions[0] / 0.075, physicsClientId=client)
    pybullet.changeVisualShape(body, -1, rgbaColor=colour, physicsClientId=client)
    pybullet.changeDynamics(body, -1, mass=MASSES["toy"], physicsClientId=client)
    return body
