"""What the points of an object say of its shape, and nothing of its colour: the geometric side of the expert on shapes.

Fifty-odd numbers, independent of where the object stands and of how it is turned about the vertical: how large and slender it is, whether
it is hollow, flares or tapers, has corners or a handle. An expert that sees so little knows a bowl from a block whatever is printed on it.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from torch import nn

Points = npt.NDArray[np.float32]

USUAL = 0.08  # metres, a usual size
RINGS = (0.25, 0.5, 0.7, 0.85, 1.0)
"""Outer borders of rings about the vertical axis, in shares of the half width; one more ring is what lies beyond (corners)."""
LAYERS = 5
DIRECTIONS = 12
STATISTICS = 5 + (len(RINGS) + 1) * LAYERS + 2 * (len(RINGS) + 1) + LAYERS + 1 + 2
LEAST_POINTS = 8
HIDDEN = 128


def shape_statistics(points: Points) -> npt.NDArray[np.float32]:
    """(STATISTICS,) of an object's seen surface, (P, 3) world points in metres, z up, P >= 1, about evenly spread.

    They lie around zero and are about one wide. Sizes and their ratios; how the surface is shared between rings about the axis and layers
    of height; how high it reaches and how low it goes in each ring (hollow things are low in the middle); how far out it goes in each layer
    (bowls flare, bottles have necks); corners; and how unevenly far it goes by direction (handles). Lengths across are in shares of the
    half width, along each side of the smallest rectangle around it; heights in shares of the height.

    Raises:
        ValueError: no points, or another shape.
    """
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ValueError(f"points must be (P, 3) with P >= 1, got {points.shape}")
    if len(points) < LEAST_POINTS:
        points = np.repeat(points, LEAST_POINTS, axis=0)
    (x, y), (wide, deep), turn = cv2.minAreaRect(np.ascontiguousarray(points[:, :2], dtype=np.float32))
    long, short = max(wide, deep, 1e-3), max(min(wide, deep), 1e-3)
    bottom, top = np.percentile(points[:, 2], (1, 99))
    height = max(float(top - bottom), 1e-3)
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    across = points[:, :2] - (x, y)
    u, v = across @ (cosine, sine) / max(wide / 2, 1e-3), across @ (-sine, cosine) / max(deep / 2, 1e-3)
    out, up = np.hypot(u, v), np.clip((points[:, 2] - bottom) / height, 0, 1)
    ring = np.searchsorted(RINGS, out)
    layer = np.minimum((up * LAYERS).astype(int), LAYERS - 1)
    rings = len(RINGS) + 1
    shares = np.bincount(ring * LAYERS + layer, minlength=rings * LAYERS) / len(points)
    reach = np.zeros((rings, 2))
    for number in range(rings):
        if (here := up[ring == number]).size >= 3:
            reach[number] = np.percentile(here, (90, 10))
    far = np.array([np.percentile(out[layer == number], 90) if np.count_nonzero(layer == number) >= 3 else 0.0 for number in range(LAYERS)])
    middle = (up > 0.15) & (up < 0.85)
    direction = ((np.arctan2(v, u) / (2 * np.pi) % 1) * DIRECTIONS).astype(int) % DIRECTIONS
    edge = [out[middle & (direction == number)].max(initial=0.0) for number in range(DIRECTIONS)]
    usual = max(float(np.median(edge)), 1e-3)
    numbers = [
        *np.log(np.array([height, short, long]) / USUAL),
        np.log(height / long),
        2 * short / long - 1,
        *(5 * shares),
        *reach.ravel(),
        *far,
        5 * np.mean(out > 1.1),
        max(edge) / usual - 1,
        1 - min(edge) / usual,
    ]
    return np.clip(np.array(numbers), -4, 4).astype(np.float32)


class ShapeStatistics:
    """Where `shape_statistics` lead, for `Projections`."""

    @staticmethod
    def projection(width: int) -> nn.Module:
        """A network, not trained, from the statistics to `width` numbers."""
        return nn.Sequential(
            nn.Linear(STATISTICS, HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width)
        )
