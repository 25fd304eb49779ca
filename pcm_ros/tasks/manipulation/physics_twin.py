"""A PyBullet world built from perceived shapes alone, to try out whether a placed object stays."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pybullet
from scipy.spatial import cKDTree

from pcm_ros.tasks.manipulation.workcell import Array
from pcm_ros.tasks.manipulation.world_model import WorldModel

# Columns of the twin's shapes are this many cells of the height field wide, and their heights are rounded to a layer: fewer boxes.
COLUMN_CELLS = 2
LAYER = 0.003
GAP = 0.002
MASS = 0.2
TIME_STEP = 1 / 120
# Steps that every drop is given; what topples moves by then.
SETTLING = 12
SOLVER_ITERATIONS = 20
FRICTION = 0.6
# Metres. For Bullet this is one number for all simulations of a process, so another world's would count here.
CONTACT_BREAKING = 0.005
_CORNERS = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], dtype=np.float64)
_FACES = [
    (1, 2, 4),
    (1, 4, 3),
    (5, 7, 8),
    (5, 8, 6),
    (1, 5, 6),
    (1, 6, 2),
    (3, 4, 8),
    (3, 8, 7),
    (1, 3, 7),
    (1, 7, 5),
    (2, 6, 8),
    (2, 8, 4),
]


def columns(world: WorldModel, number: int) -> tuple[Array, Array]:
    """An object as boxes: centres (B, 3) relative to its centre and half extents (B, 3), metres.

    Each run of columns of equal top and underside along y is one box; the hollow of a cup stays hollow, its floor is a thin box.
    """
    heights, footprint = world.heights, world.heights.footprints[number]
    own = heights.own[number].numpy()
    cell = heights.cell * COLUMN_CELLS
    rows, cols = (size // COLUMN_CELLS for size in own.shape)
    blocks = own[: rows * COLUMN_CELLS, : cols * COLUMN_CELLS].reshape(rows, COLUMN_CELLS, cols, COLUMN_CELLS).transpose(0, 2, 1, 3)
    flat = blocks.reshape(rows, cols, -1)
    known = np.isfinite(flat)
    top = np.where(known.sum(axis=2) * 2 >= flat.shape[2], np.where(known, flat, 0).sum(axis=2) / np.maximum(known.sum(axis=2), 1), -np.inf)
    i, j = np.nonzero(np.isfinite(top))
    center = world.centers[number].numpy()
    middle = heights.origin + (np.stack([i, j], axis=1) * COLUMN_CELLS + (COLUMN_CELLS - 1) / 2) * heights.cell - center[:2]
    if len(i) == 0:
        return np.zeros((1, 3)), np.full((1, 3), cell / 2)
    underside = footprint.samples[cKDTree(footprint.samples[:, :2]).query(middle)[1], 2]
    high = np.round((top[i, j] - footprint.bottom) / LAYER) * LAYER
    low = np.minimum(np.round(underside / LAYER) * LAYER, high - LAYER)
    start = np.ones(len(i), dtype=bool)  # nonzero() lists row by row: runs are consecutive
    start[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1] + 1) | (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.flatnonzero(start)
    last = np.append(first[1:], len(i)) - 1
    base = footprint.bottom - center[2]
    centers = np.stack(
        [middle[first, 0], (middle[first, 1] + middle[last, 1]) / 2, base + (high[first] + low[first]) / 2],
        axis=1,
    )
    halves = np.stack(
        [np.full(len(first), cell / 2), (middle[last, 1] - middle[first, 1] + cell) / 2, (high[first] - low[first]) / 2], axis=1
    )
    return centers, halves


@dataclass(frozen=True)
class _Arrangement:
    """A simulation in which one object is free and the others stand still: its client, the free body, and the state before any drop."""

    client: int
    moved: int
    fresh: int


class PhysicsTwin:
    """Simulations of its own (no window), one for each object that is dropped, kept until it is closed.

    What is predicted does not depend on other simulations of the process. Of those one thing changes: the distance at which contacts
    break, which Bullet has once a process, is CONTACT_BREAKING from then on, as it is in `sim`.

    Use it as a context manager, or close it.
    """

    def __init__(self, world: WorldModel) -> None:
        self._world = world
        self._arranged: dict[int, _Arrangement] = {}

    def __enter__(self) -> PhysicsTwin:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the simulations."""
        while self._arranged:
            client = self._arranged.popitem()[1].client
            for caching in (0, 1):  # forget the mesh files that were read: PyBullet keeps each for as long as the process lives
                pybullet.setPhysicsEngineParameter(enableFileCaching=caching, physicsClientId=client)
            pybullet.disconnect(client)

    def _arrange(self, number: int) -> _Arrangement:
        if number in self._arranged:
            return self._arranged[number]
        client = pybullet.connect(pybullet.DIRECT)
        if client < 0:
            raise RuntimeError("PyBullet refused another simulation in this process; close some of those that are open")
        pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
        pybullet.setPhysicsEngineParameter(numSolverIterations=SOLVER_ITERATIONS, physicsClientId=client)
        pybullet.setTimeStep(TIME_STEP, physicsClientId=client)
        table = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=[2.0, 2.0, 0.05], physicsClientId=client)
        height = self._world.scene.table_height
        bodies = [pybullet.createMultiBody(0, table, basePosition=[0, 0, height - 0.05], physicsClientId=client)]
        bodies += [self._body(client, other, 0.0) for other in range(self._world.count) if other != number]
        moved = self._body(client, number, MASS)
        for body in (*bodies, moved):
            pybullet.changeDynamics(
                body, -1, lateralFriction=FRICTION, rollingFriction=0.0005, spinningFriction=0.0005, physicsClientId=client
            )
        self._arranged[number] = _Arrangement(client, moved, pybullet.saveState(physicsClientId=client))
        return self._arranged[number]

    def drop(self, number: int, motions: Array, steps: int) -> tuple[Array, Array]:
        """Let object `number` go at each motion (K, 4) in turn, the others standing still as they are.

        Returns:
            slip (K,) metres and tilt (K,) radians from the predicted pose after at most `steps` steps; less once it is at rest.
        """
        arrangement = self._arrange(number)
        client, moved = arrangement.client, arrangement.moved
        center = self._world.centers[number].numpy()
        slip, tilt = np.zeros(len(motions)), np.zeros(len(motions))
        pybullet.setPhysicsEngineParameter(contactBreakingThreshold=CONTACT_BREAKING, physicsClientId=client)
        for row, (dx, dy, dz, yaw) in enumerate(np.asarray(motions, dtype=np.float64)):
            pybullet.restoreState(arrangement.fresh, physicsClientId=client)  # contacts of the one before must not warm-start this one
            target = center + np.array([dx, dy, dz + GAP])
            turn = [0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))]
            pybullet.resetBasePositionAndOrientation(moved, target.tolist(), turn, physicsClientId=client)
            pybullet.resetBaseVelocity(moved, [0, 0, 0], [0, 0, 0], physicsClientId=client)
            for step in range(steps):
                pybullet.stepSimulation(physicsClientId=client)
                if step >= SETTLING and step % 4 == 0 and _at_rest(client, moved):
                    break
            position, orientation = pybullet.getBasePositionAndOrientation(moved, physicsClientId=client)
            slip[row] = float(np.linalg.norm(np.asarray(position) - target + np.array([0, 0, GAP])))
            x, y, _, _ = orientation
            tilt[row] = float(np.arccos(np.clip(1 - 2 * (x * x + y * y), -1, 1)))
        return slip, tilt

    def _body(self, client: int, number: int, mass: float) -> int:
        centers, halves = columns(self._world, number)
        shape = _compound(client, centers, halves)
        center = self._world.centers[number].tolist()
        return int(pybullet.createMultiBody(mass, shape, basePosition=center, physicsClientId=client))


def _at_rest(client: int, body: int) -> bool:
    linear, angular = pybullet.getBaseVelocity(body, physicsClientId=client)
    return bool(np.linalg.norm(linear) < 0.004 and np.linalg.norm(angular) < 0.04)


def _compound(client: int, centers: npt.NDArray[np.float64], halves: npt.NDArray[np.float64]) -> int:
    """One shape of many boxes. PyBullet's arrays of primitives hold 16; a mesh file with one group per box has no such limit."""
    lines: list[str] = []
    for box, (center, half) in enumerate(zip(centers, halves, strict=True)):
        lines.append(f"o box{box}")
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in center + _CORNERS * half]
        lines += [f"f {a + 8 * box} {b + 8 * box} {c + 8 * box}" for a, b, c in _FACES]
    with tempfile.TemporaryDirectory() as folder:  # a name of its own each time: PyBullet keeps files by name
        path = Path(folder) / "boxes.obj"
        path.write_text("\n".join(lines) + "\n")
        return int(pybullet.createCollisionShape(pybullet.GEOM_MESH, fileName=str(path), physicsClientId=client))
