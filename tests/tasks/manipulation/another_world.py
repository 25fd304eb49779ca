"""A PyBullet world that knows nothing of pcm_ros: a gantry with a two-finger gripper hangs over a small table, four cameras look on.

It stands for what other people have. Written on purpose in another way than the project's own simulator: other gripper, table height,
origin, axes, cameras (OpenGL matrices), light, meshes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet as p
import pybullet_data

TABLE = np.array([-1.2, 2.0, 0.4])  # middle of the table's surface
HALF = (0.40, 0.34)  # of the table
RED, BLUE, GREEN, YELLOW, PURPLE = (0.80, 0.08, 0.08), (0.07, 0.16, 0.75), (0.08, 0.55, 0.12), (0.90, 0.78, 0.05), (0.45, 0.1, 0.6)
COLORS = {"red": RED, "blue": BLUE, "green": GREEN, "yellow": YELLOW, "purple": PURPLE}
# name: eye and target relative to the table's middle, width, height, vertical field of view (degrees)
CAMERAS = {
    "north": ((0.05, 0.72, 0.62), (0.0, 0.02, 0.0), 400, 300, 46.0),
    "south_east": ((0.60, -0.52, 0.55), (0.0, -0.02, 0.0), 400, 300, 48.0),
    "west": ((-0.74, -0.10, 0.52), (-0.02, 0.0, 0.0), 320, 256, 50.0),
    "over": ((0.02, -0.12, 0.95), (0.0, 0.0, 0.0), 400, 300, 38.0),
}
OPEN, FORCE, SPEED = 0.05, 18.0, 0.6  # metres of each finger, newtons, metres per second
PARK = np.array([0.0, 0.0, 0.75])  # of the tool, above the table's middle: over the cameras
NEAR, FAR = 0.1, 4.0
RATE, SECTORS = 240, 12  # simulation steps a second; convex pieces around a bowl's wall
AWAY = {"left": (1.0, 0.0), "right": (-1.0, 0.0), "behind": (0.0, -1.0), "in front": (0.0, 1.0)}  # the speaker looks along -y


@dataclass(frozen=True)
class Thing:
    """An object: its body, what it is called, and its radius and height in metres."""

    body: int
    name: str
    radius: float
    height: float


@dataclass(frozen=True)
class Job:
    """What is asked: `subject` goes `where` of `reference`."""

    instruction: str
    subject: str
    where: str
    reference: str


def write_bowl(looks: Path, solid: Path, radius: float, height: float, wall: float = 0.005) -> None:
    """A turned bowl as .obj, and its body as an .obj of convex pieces: a floor, and two storeys of wall by sectors."""
    outer = [(radius * (0.55 + 0.45 * np.sin(t * np.pi / 2)), height * t) for t in np.linspace(0, 1, 9)]
    inner = [(r - wall, z) for r, z in outer if z > wall]
    rings = [(0.0, 0.0), *outer, *inner[::-1], (inner[0][0], wall), (0.0, wall)]
    sides = 40
    lines = [f"v {r * np.cos(a)} {r * np.sin(a)} {z}" for r, z in rings for a in np.arange(sides) * 2 * np.pi / sides]
    for ring in range(len(rings) - 1):
        for side in range(sides):
            a, b = ring * sides + side + 1, ring * sides + (side + 1) % sides + 1
            lines += [f"f {a} {b} {b + sides}", f"f {a} {b + sides} {a + sides}"]
    looks.write_text("\n".join(lines))
    foot, middle, rim = outer[0], outer[4], outer[8]
    walls = [(low, high, (high[0] - wall, high[1]), (low[0] - wall, low[1])) for low, high in ((foot, middle), (middle, rim))]
    corners = [(np.arange(SECTORS) * 2 * np.pi / SECTORS, ((foot[0], 0.0), (foot[0], wall)))]
    corners += [((number + np.array([0, 1])) * 2 * np.pi / SECTORS, section) for section in walls for number in range(SECTORS)]
    lines, first = [], 1
    for number, (angles, section) in enumerate(corners):
        vertices = [f"v {r * np.cos(a)} {r * np.sin(a)} {z}" for a in angles for r, z in section]
        lines += [f"o piece{number}", *vertices]
        lines += [f"f {first} {first + n} {first + n + 1}" for n in range(1, len(vertices) - 1)]
        first += len(vertices)
    solid.write_text("\n".join(lines))


class AnotherWorld:
    """The scene, the gantry and its cameras. Every motion is bounded in simulation steps."""

    def __init__(self) -> None:
        self.client = -1
        self.things: list[Thing] = []
        self.steps = 0
        self.job = Job("", "", "", "")
        self.shots: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # camera: newest picture, and the bodies in it

    def reset(self, seed: int, where: str = "") -> Job:
        """A new scene and a job in it, by its word for the place where the subject goes; "" = any."""
        self.close()
        rng = np.random.default_rng([77, seed])
        self.client = p.connect(p.DIRECT)
        p.setTimeStep(1 / RATE, physicsClientId=self.client)
        p.setPhysicsEngineParameter(numSolverIterations=60, deterministicOverlappingPairs=1, physicsClientId=self.client)
        p.setGravity(0, 0, -9.81, physicsClientId=self.client)
        p.setAdditionalSearchPath(pybullet_data.getDataPath(), physicsClientId=self.client)
        p.loadURDF("plane.urdf", (TABLE[0], TABLE[1], 0), physicsClientId=self.client)
        self._solid(p.GEOM_BOX, 0, (*HALF, 0.2), (*TABLE[:2], 0.2), (0.42, 0.28, 0.17))
        self._light = (rng.uniform(-1, 1), rng.uniform(0.2, 1), rng.uniform(1.2, 2))
        self._gantry()
        self.things = []
        self.job = self._populate(rng, where)
        for thing in self.things:
            p.changeDynamics(thing.body, -1, activationState=p.ACTIVATION_STATE_ENABLE_SLEEPING, physicsClientId=self.client)
        self._run(240)
        return self.job

    # Things

    def _solid(self, kind: int, mass: float, size: tuple[float, ...], at: tuple[float, ...], rgb: tuple[float, ...], yaw: float = 0) -> int:
        if kind == p.GEOM_BOX:
            shape, look = {"halfExtents": size}, {"halfExtents": size}
        else:
            shape, look = {"radius": size[0], "height": size[1]}, {"radius": size[0], "length": size[1]}
        body = p.createMultiBody(
            mass,
            p.createCollisionShape(kind, **shape, physicsClientId=self.client),
            p.createVisualShape(kind, **look, rgbaColor=(*rgb, 1), physicsClientId=self.client),
            at,
            p.getQuaternionFromEuler((0, 0, yaw)),
            physicsClientId=self.client,
        )
        p.changeDynamics(body, -1, lateralFriction=0.9, spinningFriction=0.002, rollingFriction=0.0005, physicsClientId=self.client)
        return int(body)

    def _bowl(self, radius: float, height: float, at: tuple[float, float], rgb: tuple[float, ...]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            looks, solid = Path(folder) / "bowl.obj", Path(folder) / "pieces.obj"
            write_bowl(looks, solid, radius, height)
            visual = p.createVisualShape(p.GEOM_MESH, fileName=os.fspath(looks), rgbaColor=(*rgb, 1), physicsClientId=self.client)
            shape = p.createCollisionShape(p.GEOM_MESH, fileName=os.fspath(solid), physicsClientId=self.client)
        body = p.createMultiBody(
            0.15, shape, visual, (*at, TABLE[2] + 0.001), baseInertialFramePosition=(0, 0, height * 0.35), physicsClientId=self.client
        )
        p.changeDynamics(body, -1, lateralFriction=0.8, physicsClientId=self.client)
        return int(body)

    def _file(self, name: str, scale: float, at: tuple[float, float], rgb: tuple[float, ...], yaw: float, tilt: float = 0.0) -> int:
        body = p.loadURDF(name, (0, 0, 2), p.getQuaternionFromEuler((tilt, 0, yaw)), globalScaling=scale, physicsClientId=self.client)
        p.changeVisualShape(body, -1, rgbaColor=(*rgb, 1), physicsClientId=self.client)
        p.changeDynamics(body, -1, mass=0.12, lateralFriction=0.9, localInertiaDiagonal=(1.5e-4,) * 3, physicsClientId=self.client)
        low, high = p.getAABB(body, physicsClientId=self.client)
        position, turn = p.getBasePositionAndOrientation(body, physicsClientId=self.client)
        shift = np.array([*at, TABLE[2] + 0.002]) - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
        p.resetBasePositionAndOrientation(body, np.add(position, shift), turn, physicsClientId=self.client)
        return int(body)

    def _populate(self, rng: np.random.Generator, where: str) -> Job:
        """Two blocks, two bowls, and one or two of mug, duck and can, so that neither colour nor kind alone tells which is meant."""
        first, second, third = rng.permutation(list(COLORS))[:3]
        wanted = [(first, "block"), (second, "bowl"), (second, "block"), (third, "bowl")]
        wanted += [(str(rng.choice([first, third])), str(kind)) for kind in rng.permutation(["mug", "duck", "can"])[: rng.integers(1, 3)]]
        radii = {"block": 0.036, "bowl": 0.076, "mug": 0.062, "duck": 0.05, "can": 0.03}
        while True:
            places: list[np.ndarray] = []
            for _, kind in wanted:
                for _ in range(200):
                    spot = rng.uniform((-0.27, -0.21), (0.27, 0.21))
                    gaps = (np.hypot(*(spot - q)) - radii[kind] - radii[k] for q, (_, k) in zip(places, wanted, strict=False))
                    if all(gap > 0.028 for gap in gaps):
                        places.append(spot)
                        break
            if len(places) == len(wanted):
                break
        for (color, kind), spot in zip(wanted, places, strict=True):
            x, y = spot + TABLE[:2]
            rgb, yaw = np.clip(np.array(COLORS[color]) + rng.uniform(-0.05, 0.05, 3), 0, 1), rng.uniform(-np.pi, np.pi)
            if kind == "block":
                half = (0.022, rng.uniform(0.019, 0.026), 0.022)
                body, height = self._solid(p.GEOM_BOX, 0.07, half, (x, y, TABLE[2] + half[2] + 0.001), tuple(rgb), yaw), 2 * half[2]
            elif kind == "can":
                height = 0.085
                body = self._solid(p.GEOM_CYLINDER, 0.1, (0.028, height), (x, y, TABLE[2] + height / 2 + 0.001), tuple(rgb))
            elif kind == "bowl":
                height = float(rng.uniform(0.045, 0.055))
                body = self._bowl(radii[kind], height, (x, y), tuple(rgb))
            else:
                name, scale, tilt = ("objects/mug.urdf", 0.8, 0.0) if kind == "mug" else ("duck_vhacd.urdf", 1.0, np.pi / 2)
                body, height = self._file(name, scale, (x, y), tuple(rgb), yaw, tilt), 0.08
            self.things.append(Thing(body, f"{color} {kind}", radii[kind], height))
        subject = f"{first} block"
        where = where or str(rng.choice(["in", "left", "right", "behind", "in front"]))
        reference = f"{second} bowl" if where == "in" else str(rng.choice([t.name for t in self.things[1:]]))
        words = {"in": "in", "left": "to the left of", "right": "to the right of", "behind": "behind", "in front": "in front of"}[where]
        return Job(f"put the {subject} {words} the {reference}", subject, where, reference)

    # The gantry: x, y, z slides, a turning hand, two fingers

    def _gantry(self) -> None:
        box = lambda *half: p.createCollisionShape(p.GEOM_BOX, halfExtents=half, physicsClientId=self.client)  # noqa: E731
        look = lambda rgb, *half: p.createVisualShape(p.GEOM_BOX, halfExtents=half, rgbaColor=(*rgb, 1), physicsClientId=self.client)  # noqa: E731
        dark, steel = (0.1, 0.1, 0.12), (0.75, 0.75, 0.78)
        palm, finger = (0.07, 0.025, 0.02), (0.006, 0.012, 0.035)
        self.robot = p.createMultiBody(
            baseMass=0,
            basePosition=TABLE,
            linkMasses=[2, 2, 2, 1, 0.1, 0.1],
            linkCollisionShapeIndices=[-1, -1, -1, box(*palm), box(*finger), box(*finger)],
            linkVisualShapeIndices=[-1, -1, -1, look(dark, *palm), look(steel, *finger), look(steel, *finger)],
            linkPositions=[(0, 0, 0)] * 3 + [(0, 0, 0.085), (0.006, 0, -0.055), (-0.006, 0, -0.055)],
            linkOrientations=[(0, 0, 0, 1)] * 6,
            linkInertialFramePositions=[(0, 0, 0)] * 6,
            linkInertialFrameOrientations=[(0, 0, 0, 1)] * 6,
            linkParentIndices=[0, 1, 2, 3, 4, 4],
            linkJointTypes=[p.JOINT_PRISMATIC] * 3 + [p.JOINT_REVOLUTE] + [p.JOINT_PRISMATIC] * 2,
            linkJointAxis=[(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1), (1, 0, 0), (-1, 0, 0)],
            physicsClientId=self.client,
        )
        for link in (4, 5):
            p.changeDynamics(self.robot, link, lateralFriction=1.2, spinningFriction=0.003, physicsClientId=self.client)
        for joint, value in enumerate([*PARK, 0.0, OPEN, OPEN]):
            p.resetJointState(self.robot, joint, value, physicsClientId=self.client)
        gear = p.createConstraint(self.robot, 4, self.robot, 5, p.JOINT_GEAR, (1, 0, 0), (0, 0, 0), (0, 0, 0), physicsClientId=self.client)
        p.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=40, physicsClientId=self.client)
        self._target = np.array([*PARK, 0.0])
        self._fingers = OPEN

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            p.setJointMotorControlArray(
                self.robot, range(4), p.POSITION_CONTROL, self._target, forces=[400, 400, 600, 40], physicsClientId=self.client
            )
            for finger in (4, 5):
                p.setJointMotorControl2(
                    self.robot, finger, p.POSITION_CONTROL, self._fingers, force=FORCE, maxVelocity=0.1, physicsClientId=self.client
                )
            p.stepSimulation(physicsClientId=self.client)
            self.steps += 1

    def gap(self) -> float:
        """Metres between the fingers."""
        return float(sum(p.getJointState(self.robot, finger, physicsClientId=self.client)[0] for finger in (4, 5)))

    def pose(self) -> np.ndarray:
        """(4,) world x, y, z of the tool point and its yaw."""
        joints = np.array([p.getJointState(self.robot, joint, physicsClientId=self.client)[0] for joint in range(4)])
        return np.add(joints, (*TABLE, 0))

    def fingers(self, each: float) -> None:
        """Open or close; each finger's distance from the middle, metres."""
        self._fingers = float(np.clip(each, 0, OPEN))
        self._run(110)

    def go(self, x: float, y: float, z: float, yaw: float, stop: Callable[[], bool] = lambda: False, speed: float = SPEED) -> bool:
        """Straight to a tool pose (world). Returns False when it was stopped or has not come within 8 mm in the steps it has."""
        goal, start = np.array([x, y, z, yaw]) - [*TABLE, 0], self._target.copy()
        steps = int(max(np.linalg.norm(goal[:3] - start[:3]) / speed, abs(goal[3] - start[3]) / 2.5) * RATE) + 1
        for step in range(steps):
            if step % 24 == 0 and stop():
                return False
            share = (step + 1) / steps
            self._target = start + (goal - start) * (3 - 2 * share) * share**2
            self._run(1)
        self._run(24)
        return bool(np.abs(self.pose()[:3] - [x, y, z]).max() < 0.008)

    # Cameras and truth

    def picture(self, name: str) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
        """RGB (H, W, 3), depth buffer (H, W) 0..1, and the view matrix (16 numbers, column by column, as OpenGL has them)."""
        eye, target, width, height, fov = CAMERAS[name]
        up = (0, 1, 0) if name == "over" else (0, 0, 1)
        view = p.computeViewMatrix(np.add(eye, TABLE), np.add(target, TABLE), up)
        _, _, rgba, depth, bodies = p.getCameraImage(
            width,
            height,
            view,
            p.computeProjectionMatrixFOV(fov, width / height, NEAR, FAR),
            shadow=1,
            lightDirection=self._light,
            lightColor=(1.0, 0.97, 0.90),
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.1,
            renderer=p.ER_TINY_RENDERER,
            physicsClientId=self.client,
        )
        rgb = np.reshape(rgba, (height, width, 4))[..., :3].astype(np.uint8)
        self.shots[name] = rgb, np.reshape(bodies, (height, width))
        return rgb, np.reshape(depth, (height, width)), view

    def box(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Corners of an object's bounding box, world metres."""
        low, high = p.getAABB(next(t.body for t in self.things if t.name == name), physicsClientId=self.client)
        return np.array(low), np.array(high)

    def done(self) -> bool:
        """Whether the job is done, from the positions of the bodies; the subject must rest where it was put."""
        self._run(120)
        (low, high), (rlow, rhigh) = self.box(self.job.subject), self.box(self.job.reference)
        offset = ((low + high) / 2 - (rlow + rhigh) / 2)[:2]
        if self.job.where == "in":
            return bool(np.hypot(*offset) < 0.05 and low[2] < rhigh[2] - 0.015)
        axis = np.array(AWAY[self.job.where])
        along, across = offset @ axis, abs(offset @ axis[::-1])
        return bool(along > 0.03 and across <= along and low[2] < TABLE[2] + 0.02)

    def close(self) -> None:
        if self.client >= 0:
            p.disconnect(self.client)
            self.client = -1
