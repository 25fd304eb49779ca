"""Scenes of analytic surfaces and views rendered from them, for tests of the geometry that need no simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, Observation, View, WorkcellLimits

TABLE = 0.1
LIMITS = WorkcellLimits((0.3, -0.4, 0.0), (0.8, 0.4, 0.6), base_position=(0.0, 0.0, TABLE), reach=(0.25, 0.85))
SUCTION = WorkcellLimits(
    (0.3, -0.4, 0.0),
    (0.8, 0.4, 0.6),
    base_position=(0.0, 0.0, TABLE),
    reach=(0.25, 0.85),
    gripper=Gripper(kind="suction", max_opening=0.03),
)
RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 160, 30)


@dataclass(frozen=True)
class Shape:
    points: np.ndarray  # (P, 3), dense
    color: tuple[int, int, int]


def box(
    x: float, y: float, size: tuple[float, float, float], color: tuple[int, int, int] = RED, yaw: float = 0.0, bottom: float = TABLE
) -> Shape:
    """Top and sides of a box."""
    step = 0.002
    a, b, c = (np.arange(-length / 2, length / 2 + step / 2, step) for length in size)
    faces = [np.stack(np.meshgrid(a, b, [size[2] / 2], indexing="ij"), -1).reshape(-1, 3)]
    for sign in (-1, 1):
        faces.append(np.stack(np.meshgrid([sign * size[0] / 2], b, c, indexing="ij"), -1).reshape(-1, 3))
        faces.append(np.stack(np.meshgrid(a, [sign * size[1] / 2], c, indexing="ij"), -1).reshape(-1, 3))
    points = np.concatenate(faces)
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    points[:, :2] = points[:, :2] @ rotation.T + [x, y]
    points[:, 2] += bottom + size[2] / 2
    return Shape(points, color)


def cup(
    x: float,
    y: float,
    radius: float,
    height: float,
    color: tuple[int, int, int] = RED,
    wall: float = 0.005,
    flare: float = 1.0,
    handle: float | None = None,
    bottom: float = TABLE,
) -> Shape:
    """A hollow vessel: outer and inner wall, rim and floor. flare: foot radius / rim radius. handle: azimuth of a mug's handle."""
    angle = np.arange(0, 2 * np.pi, 0.002 / radius)
    z = np.arange(0, height, 0.002)
    grow = flare + (1 - flare) * np.sqrt(z / height)
    outer = [
        np.stack([radius * g * np.cos(angle), radius * g * np.sin(angle), np.full_like(angle, h)], -1) for g, h in zip(grow, z, strict=True)
    ]
    inner = [
        np.stack([(radius * g - wall) * np.cos(angle), (radius * g - wall) * np.sin(angle), np.full_like(angle, h)], -1)
        for g, h in zip(grow, z, strict=True)
        if h > wall
    ]
    rim = [np.stack([r * np.cos(angle), r * np.sin(angle), np.full_like(angle, height)], -1) for r in np.linspace(radius - wall, radius, 4)]
    grid = np.stack(np.meshgrid(np.arange(-radius, radius, 0.002), np.arange(-radius, radius, 0.002)), -1).reshape(-1, 2)
    grid = grid[np.hypot(*grid.T) < radius * grow[int(wall / 0.002) + 1] - wall]
    floor = [np.concatenate([grid, np.full((len(grid), 1), wall)], axis=1)]
    parts = [*outer, *inner, *rim, *floor]
    if handle is not None:
        arc = np.linspace(-np.pi / 2, np.pi / 2, 60)
        for side in np.linspace(-0.005, 0.005, 5):
            out = radius + 0.025 * np.cos(arc)
            parts.append(
                np.stack(
                    [
                        out * np.cos(handle) - side * np.sin(handle),
                        out * np.sin(handle) + side * np.cos(handle),
                        height / 2 + 0.3 * height * np.sin(arc),
                    ],
                    -1,
                )
            )
    return Shape(np.concatenate(parts) + np.array([x, y, bottom]), color)


def scene_object(shape: Shape, spacing: float = 0.004, noise: float = 0.001, seed: int = 0) -> SceneObject:
    """What perception would keep of a shape: one noisy point per voxel."""
    rng = np.random.default_rng(seed)
    cells = np.floor(shape.points / spacing).astype(int)
    first = np.sort(np.unique(cells, axis=0, return_index=True)[1])
    points = (shape.points[first] + rng.normal(0, noise, (len(first), 3))).astype(np.float32)
    return SceneObject(points, np.tile(np.array(shape.color, np.uint8), (len(points), 1)))


def scene(*shapes: Shape, limits: WorkcellLimits = LIMITS, spacing: float = 0.004) -> Scene:
    return Scene(tuple(scene_object(shape, spacing, seed=number) for number, shape in enumerate(shapes)), TABLE, limits)


def view(
    name: str,
    position: tuple[float, float, float],
    *shapes: Shape,
    target: tuple[float, float, float] = (0.55, 0.0, TABLE),
    width: int = 320,
) -> View:
    """A view of the shapes on a grey table, drawn point by point."""
    eye = np.array(position)
    forward = np.array(target) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0]) if abs(forward[2]) < 0.99 else np.array([0, -1.0, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    height = width * 3 // 4
    k = np.array([[width * 0.9, 0, (width - 1) / 2], [0, width * 0.9, (height - 1) / 2], [0, 0, 1]])
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1) @ rotation.T
    depth = (TABLE - eye[2]) / np.minimum(rays[..., 2], -1e-6)
    depth = np.where(depth < 5, depth, np.inf)
    rgb = np.full((height, width, 3), 150, np.uint8)
    for shape in shapes:
        optical = (shape.points - eye) @ rotation
        column = optical[:, 0] / optical[:, 2] * k[0, 0] + k[0, 2]
        row = optical[:, 1] / optical[:, 2] * k[1, 1] + k[1, 2]
        for du in (0, 1):
            for dv in (0, 1):
                i, j = np.floor(row).astype(int) + dv, np.floor(column).astype(int) + du
                good = (i >= 0) & (i < height) & (j >= 0) & (j < width)
                before = depth.copy()
                np.minimum.at(depth, (i[good], j[good]), optical[good, 2])
                rgb[depth < before] = shape.color
    return View(name, rgb, depth.astype(np.float32), k, eye, quaternion(rotation))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_quat()


def observation(*shapes: Shape, width: int = 320) -> Observation:
    """Five views from around and above."""
    places = {
        "front": (1.3, 0.0, 0.7),
        "left": (0.55, 0.8, 0.7),
        "right": (0.55, -0.8, 0.7),
        "top": (0.55, 0.0, 1.2),
        "robot": (-0.1, 0.1, 0.9),
    }
    return Observation(tuple(view(name, place, *shapes, width=width) for name, place in places.items()))
