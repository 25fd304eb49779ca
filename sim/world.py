"""The physical world: floor, table, objects, the arm, lights and camera poses, all drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pybullet

from pcm_ros.sim.appearance import Light, load_texture, sample_light, texture_image
from pcm_ros.sim.cameras import CameraSpec
from pcm_ros.sim.motion import PANDA_GRIPPER, MotionConfig
from pcm_ros.sim.objects import ObjectSpec, spawn
from pcm_ros.sim.robot import TIME_STEP, Panda
from pcm_ros.tasks.manipulation.workcell import Array, WorkcellLimits

# Metres. For Bullet this is one number for all simulations of a process; the physics twin of the planner sets it too.
CONTACT_BREAKING = 0.005
PANDA_LIMITS = WorkcellLimits(
    workspace_min=(0.30, -0.35, -0.06),
    workspace_max=(0.70, 0.35, 0.40),
    base_position=(0.0, 0.0, 0.0),
    reach=(0.28, 0.77),
    gripper=PANDA_GRIPPER,
)
"""The Panda's cell: the base stands on the world's origin, the table's surface lies within a few centimetres of its foot."""

CAMERAS: tuple[CameraSpec, ...] = (
    CameraSpec("front", (1.14, 0.0, 0.56), (0.56, 0.0, 0.02)),
    CameraSpec("left", (0.48, 0.66, 0.47), (0.50, 0.06, 0.02)),
    CameraSpec("right", (0.48, -0.66, 0.47), (0.50, -0.06, 0.02)),
    CameraSpec("back", (0.05, 0.50, 0.53), (0.47, 0.06, 0.02)),
    CameraSpec("top", (0.48, 0.0, 0.86), (0.48, 0.0, 0.02)),
    CameraSpec("front_left", (0.91, 0.53, 0.50), (0.51, 0.06, 0.02)),
    CameraSpec("front_right", (0.91, -0.53, 0.50), (0.51, -0.06, 0.02)),
    CameraSpec("back_right", (0.03, -0.51, 0.54), (0.47, -0.06, 0.02)),
)
"""Cameras by where they stand, seen from the robot's base ("front" faces the robot). The first five are the default."""


def cameras(count: int = 5, width: int = 320, height: int = 240) -> tuple[CameraSpec, ...]:
    """The first `count` of CAMERAS at an image size in pixels.

    Raises:
        ValueError: `count` is not 1..8.
    """
    if not 1 <= count <= len(CAMERAS):
        raise ValueError(f"count is {count}; allowed: 1 to {len(CAMERAS)} cameras")
    return tuple(replace(camera, width=width, height=height) for camera in CAMERAS[:count])


@dataclass(frozen=True)
class Placement:
    """An object standing upright: its centre (x, y) in world metres, its rotation about z in radians, and its underside's height above the
    table in metres."""

    spec: ObjectSpec
    xy: tuple[float, float]
    yaw: float = 0.0
    above: float = 0.0


@dataclass(frozen=True)
class WorldConfig:
    """What the world consists of and how much of it varies with the seed.

    Attributes:
        cameras: nominal cameras. camera_jitter: metres that eyes and targets move at most. fov_jitter: degrees.
        table_height: least and greatest height of the table's surface, world metres.
        vary_appearance: textures, lights and the table's size follow the seed; otherwise a plain grey table under the default light.
        settle_steps: bound on the simulation steps that objects may take to come to rest.
    """

    cameras: tuple[CameraSpec, ...] = field(default_factory=cameras)
    camera_jitter: float = 0.03
    fov_jitter: float = 1.5
    table_height: tuple[float, float] = (-0.02, 0.03)
    vary_appearance: bool = True
    settle_steps: int = 960
    limits: WorkcellLimits = PANDA_LIMITS
    motion: MotionConfig = field(default_factory=MotionConfig)

    def __post_init__(self) -> None:
        low, high = self.table_height
        if not self.limits.workspace_min[2] < low <= high < self.limits.workspace_max[2]:
            raise ValueError(
                f"table_height is {self.table_height}; it must lie between workspace_min z {self.limits.workspace_min[2]} and "
                f"workspace_max z {self.limits.workspace_max[2]}, lower one first"
            )
        if not self.cameras:
            raise ValueError("cameras is empty; at least one camera is needed")


@dataclass(frozen=True)
class Body:
    """Truth about one object, for the judge, training and tests only.

    Attributes:
        number: PyBullet body id.
        position: (3,) world metres of the centre of mass (on the axis of round objects). orientation: (4,) quaternion x, y, z, w.
        low / high: (3,) corners of the axis-aligned bounding box, metres.
        speed: metres per second. turning: radians per second.
    """

    number: int
    spec: ObjectSpec
    position: Array
    orientation: Array
    low: Array
    high: Array
    speed: float
    turning: float

    @property
    def up(self) -> Array:
        """(3,) the object's own upward axis in the world."""
        matrix = np.array(pybullet.getMatrixFromQuaternion(self.orientation)).reshape(3, 3)
        return np.asarray(matrix[:, 1 if self.spec.kind == "duck" else 2])


class World:
    """A PyBullet world without a display. Every `reset` starts a fresh physics client, so that nothing of the last scene remains.

    Args:
        config: see WorldConfig.
    """

    def __init__(self, config: WorldConfig | None = None) -> None:
        self.config = config or WorldConfig()
        self.client = -1
        self.light = Light()
        self.cameras: tuple[CameraSpec, ...] = self.config.cameras
        self.table_height = 0.0
        self._specs: dict[int, ObjectSpec] = {}
        self._robot: Panda | None = None
        self.table = -1

    @property
    def robot(self) -> Panda:
        """The arm. Raises RuntimeError before the first reset."""
        if self._robot is None:
            raise RuntimeError("the world is empty: call reset() first")
        return self._robot

    def reset(self, placements: Sequence[Placement], seed: int) -> None:
        """Build the world and let the objects come to rest.

        Args:
            placements: objects, standing apart from each other.
            seed: of everything else: table, textures, lights, camera poses. The same arguments give the same world bit for bit.
        """
        self.close()
        # One stream per part, so that another number of cameras or objects leaves the other parts as they are.
        table_rng, light_rng, camera_rng = (np.random.default_rng([seed, part]) for part in (1, 2, 3))
        self.client = pybullet.connect(pybullet.DIRECT)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP,
            numSolverIterations=60,
            deterministicOverlappingPairs=1,
            enableConeFriction=1,
            contactBreakingThreshold=CONTACT_BREAKING,
            physicsClientId=self.client,
        )
        pybullet.setGravity(0, 0, -9.81, physicsClientId=self.client)
        self.table_height = float(table_rng.uniform(*self.config.table_height))
        self._build_room(table_rng)
        self._robot = Panda(self.client, self.config.motion)
        self.light = sample_light(light_rng) if self.config.vary_appearance else Light()
        self.cameras = tuple(self._jittered(camera, camera_rng) for camera in self.config.cameras)
        self._specs = {spawn(self.client, p.spec, p.xy, self.table_height + p.above, p.yaw): p.spec for p in placements}
        self.settle()

    def _build_room(self, rng: np.random.Generator) -> None:
        """Floor, the robot's pedestal, and the table."""
        vary = self.config.vary_appearance
        front, back, side = (0.17, rng.uniform(0.85, 1.2), rng.uniform(0.5, 0.8)) if vary else (0.17, 1.0, 0.6)
        floor = self._box((1.6, 1.6, 0.02), (0.4, 0.0, -0.72), (0.55, 0.53, 0.5))
        self._box((0.11, 0.11, 0.35), (-0.03, 0.0, -0.35), (0.25, 0.25, 0.27))
        self.table = self._box(((back - front) / 2, side, 0.02), ((back + front) / 2, 0.0, self.table_height - 0.02), (0.72, 0.70, 0.67))
        pybullet.changeDynamics(self.table, -1, lateralFriction=0.8, restitution=0.0, physicsClientId=self.client)
        if vary:
            for body in (self.table, floor):
                texture = load_texture(self.client, texture_image(rng))
                pybullet.changeVisualShape(body, -1, rgbaColor=(1, 1, 1, 1), textureUniqueId=texture, physicsClientId=self.client)

    def _box(self, half: tuple[float, float, float], centre: tuple[float, float, float], rgb: tuple[float, float, float]) -> int:
        shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=self.client)
        visual = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=(*rgb, 1.0), physicsClientId=self.client)
        return int(pybullet.createMultiBody(0.0, shape, visual, centre, physicsClientId=self.client))

    def _jittered(self, camera: CameraSpec, rng: np.random.Generator) -> CameraSpec:
        shift = rng.uniform(-1, 1, (2, 3)) * self.config.camera_jitter
        shift[1] *= 0.5
        eye, target = np.asarray(camera.eye) + shift[0], np.asarray(camera.target) + shift[1]
        target[2] += self.table_height
        fov_y = float(camera.fov_y + rng.uniform(-1, 1) * self.config.fov_jitter)
        return replace(camera, eye=tuple(eye.tolist()), target=tuple(target.tolist()), fov_y=fov_y)

    def settle(self) -> bool:
        """Step until everything has been at rest for a tenth of a second. Returns whether it came to rest within `settle_steps`."""
        quiet = 0
        for _ in range(self.config.settle_steps):
            self.robot.step()
            quiet = quiet + 1 if all(self._still(number) for number in self._specs) else 0
            if quiet >= 24:
                return True
        return False

    def _still(self, number: int) -> bool:
        linear, angular = pybullet.getBaseVelocity(number, physicsClientId=self.client)
        return bool(np.abs(linear).max() < 0.003 and np.abs(angular).max() < 0.08)

    def bodies(self) -> tuple[Body, ...]:
        """Truth about all objects, in the order in which they were placed."""
        found = []
        for number, spec in self._specs.items():
            position, orientation = pybullet.getBasePositionAndOrientation(number, physicsClientId=self.client)
            linear, angular = pybullet.getBaseVelocity(number, physicsClientId=self.client)
            low, high = pybullet.getAABB(number, physicsClientId=self.client)
            found.append(
                Body(
                    number,
                    spec,
                    np.array(position),
                    np.array(orientation),
                    np.array(low),
                    np.array(high),
                    float(np.linalg.norm(linear)),
                    float(np.linalg.norm(angular)),
                )
            )
        return tuple(found)

    def carried_share(self, subject: int, support: int) -> float:
        """Share of a body's weight that another body carries by their contacts (0: none or no contact; 1: all of it)."""
        upward = 0.0
        for point in pybullet.getContactPoints(subject, support, physicsClientId=self.client):
            normal_force, normal = point[9], point[7]
            upward += normal_force * normal[2] + point[10] * point[11][2] + point[12] * point[13][2]
        mass = pybullet.getDynamicsInfo(subject, -1, physicsClientId=self.client)[0]
        return upward / (mass * 9.81)

    def touches_arm(self, number: int) -> bool:
        """Whether a body touches the arm or its gripper (Bullet's contacts, CONTACT_BREAKING metres at most)."""
        return bool(pybullet.getContactPoints(self.robot.body, number, physicsClientId=self.client))

    def close(self) -> None:
        """Free the physics client; harmless when there is none."""
        if self.client >= 0 and pybullet.isConnected(self.client):
            for caching in (0, 1):  # forget the mesh files that were read: PyBullet keeps each for as long as the process lives
                pybullet.setPhysicsEngineParameter(enableFileCaching=caching, physicsClientId=self.client)
            pybullet.disconnect(self.client)
        self.client, self._robot, self._specs = -1, None, {}


class NoRoom(RuntimeError):
    """The objects do not fit into the workspace with the gaps asked for."""


Accept = Callable[[tuple[Placement, ...]], bool]


def arrange(
    rng: np.random.Generator,
    specs: Sequence[ObjectSpec],
    limits: WorkcellLimits = PANDA_LIMITS,
    gap: float = 0.03,
    accept: Accept = lambda placements: True,
    attempts: int = 400,
) -> tuple[Placement, ...]:
    """Random places on the table, apart from each other and within the arm's reach.

    Args:
        rng: source of all randomness.
        specs: what to place, in the order of the answer.
        gap: least metres between the circles around two footprints.
        accept: further condition on the whole arrangement.
        attempts: arrangements tried before giving up.

    Raises:
        NoRoom: none was found.
    """
    for _ in range(attempts):
        placements: list[Placement] = []
        for spec in specs:
            for _ in range(60):
                xy = rng.uniform(np.add(limits.workspace_min[:2], spec.radius), np.subtract(limits.workspace_max[:2], spec.radius))
                if within_reach(xy, limits, spec.radius * 0.5) and clear_of(xy, spec.radius + gap, placements):
                    placements.append(Placement(spec, (float(xy[0]), float(xy[1])), float(rng.uniform(-np.pi, np.pi))))
                    break
            else:
                break
        if len(placements) == len(specs) and accept(tuple(placements)):
            return tuple(placements)
    raise NoRoom(f"no arrangement of {len(specs)} objects with gaps of {gap} m in {attempts} attempts; use fewer objects or a smaller gap")


def within_reach(xy: Array, limits: WorkcellLimits, margin: float = 0.0) -> bool:
    """Whether the arm reaches a point (2,) with `margin` metres to spare."""
    distance = float(np.hypot(*(np.asarray(xy) - limits.base_position[:2])))
    return limits.reach[0] + margin <= distance <= limits.reach[1] - margin


def clear_of(xy: Array, radius: float, placements: Sequence[Placement]) -> bool:
    """Whether a circle at `xy` (2,) touches no footprint circle of the placements."""
    return all(np.hypot(xy[0] - p.xy[0], xy[1] - p.xy[1]) >= radius + p.spec.radius for p in placements)
