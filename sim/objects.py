"""The things on the table: mugs, bowls, blocks, cans, bottles, plates made from parameters, ducks and toys of pybullet_data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet

from pcm_ros.sim import shapes, variants
from pcm_ros.sim.appearance import Shade, sample_shade
from pcm_ros.sim.shapes import WALL, Mesh
from pcm_ros.sim.visual_mesh import visual_mesh

KINDS = ("mug", "bowl", "block", "can", "bottle", "plate", "duck", "toy")
HELD_OUT_PAIRS = (
    ("orange", "mug"),
    ("purple", "bowl"),
    ("cyan", "block"),
    ("pink", "mug"),
    ("brown", "bowl"),
    ("green", "can"),
    ("white", "block"),
    ("black", "bowl"),
    ("yellow", "bottle"),
)
"""Colours and kinds that training leaves out together, in pictures and captions: they measure whether the two were learnt apart."""


@dataclass(frozen=True)
class ObjectSpec:
    """One thing: what it is, its colour and dimensions (metres).

    Attributes:
        kind: one of KINDS.
        shade: its colour.
        dimensions: by kind. mug: radius, height, taper (bottom/top radius). bowl: radius, height, foot (foot/rim radius).
            block: x, y, z sides. can: radius, height. bottle: radius, height, neck radius. plate: radius, height.
            duck, toy: greatest extent; toys also have a number.
        variant: another shape of the kind, one of variants.NAMES[kind]; "" is the common one. It stays inside the same dimensions.
    """

    kind: str
    shade: Shade
    dimensions: tuple[float, ...]
    number: int = 0
    variant: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is '{self.kind}'; allowed: {', '.join(KINDS)}")
        known = variants.NAMES.get(self.kind, ())
        if self.variant and self.variant not in known:
            raise ValueError(f"variant of a {self.kind} is '{self.variant}'; allowed: '' {', '.join(known)}")

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
    def narrowness(self) -> float:
        """Of a polygonal outline: radius of the circle inside it by that of the circle around it; 1 for a round one."""
        sides = variants.SIDES.get(self.variant, 0)
        return float(np.cos(np.pi / sides)) if sides and self.kind != "block" else 1.0

    @property
    def inner_radius(self) -> float:
        """Radius of the free space inside at mid-height; 0 for what is not a container."""
        rim = self.dimensions[0] * self.narrowness
        if self.kind == "mug":
            return rim - WALL
        if self.kind == "bowl":
            return rim * (1 + self.dimensions[2]) / 2 - WALL
        return 0.0

    @property
    def flat_top(self) -> bool:
        """Whether something can stand on it."""
        return self.kind in ("block", "can", "plate") and self.variant != "tapered"


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


_VESSELS = {"mug": shapes.mug, "bowl": shapes.bowl, "bottle": shapes.bottle, "plate": shapes.plate}
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
        above = 1.0 - pybullet.getAABB(body, physicsClientId=client)[0][2]
    else:
        visual, collision = _shapes(client, spec, colour)
        body = pybullet.createMultiBody(MASSES[spec.kind], collision, visual, physicsClientId=client)
        above = origin_height(spec)
    pybullet.resetBasePositionAndOrientation(body, [*xy, bottom_z + above + 0.0005], turn, physicsClientId=client)
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


def origin_height(spec: ObjectSpec) -> float:
    """Height of the body's origin, which is its centre of mass, above its underside."""
    return spec.height * {"mug": 0.45, "bowl": 0.35, "bottle": 0.38, "plate": 0.4}.get(spec.kind, 0.5)


def _shapes(client: int, spec: ObjectSpec, colour: list[float]) -> tuple[int, int]:
    glossy = [0.25, 0.25, 0.25]
    if spec.kind == "block" and not spec.variant:
        half = [d / 2 for d in spec.dimensions]
        visual = pybullet.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=half, rgbaColor=colour, specularColor=glossy, physicsClientId=client
        )
        return visual, pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    if spec.kind == "can" and not spec.variant:
        radius, height = spec.dimensions
        visual = pybullet.createVisualShape(
            pybullet.GEOM_CYLINDER, radius=radius, length=height, rgbaColor=colour, specularColor=glossy, physicsClientId=client
        )
        return visual, pybullet.createCollisionShape(pybullet.GEOM_CYLINDER, radius=radius, height=height, physicsClientId=client)
    mesh, compound = variants.build(spec.kind, spec.variant, spec.dimensions) if spec.variant else _VESSELS[spec.kind](spec.dimensions)
    origin = np.array([0.0, 0.0, origin_height(spec)])
    vertices, normals = _flat_shaded(Mesh(mesh.vertices - origin, mesh.faces))
    return visual_mesh(client, vertices, normals, colour, glossy), compound.create(client, origin)


def _flat_shaded(mesh: Mesh) -> tuple[list[list[float]], list[list[float]]]:
    """Vertices repeated per face, and their outward normals."""
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    keep = length[:, 0] > 1e-12
    corners, normals = corners[keep], (normals / np.maximum(length, 1e-12))[keep]
    return corners.reshape(-1, 3).tolist(), np.repeat(normals, 3, axis=0).tolist()


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
