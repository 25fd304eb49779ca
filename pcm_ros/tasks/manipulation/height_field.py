"""Height fields of every object of a scene, and of the scene without it, on one grid: what all geometric questions are asked of.

A height field is enough for a gripper that comes from above: whatever lies under a surface is taken for solid. Everything is made
from the scene alone (never from images), so that each process that holds the scene comes to the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pcm_ros.tasks.manipulation.scene import Points, Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Array

Grid = npt.NDArray[np.float32]

CELL = 0.004
# Room around the workspace for palms and for objects that stand at its edge.
MARGIN = 0.16
MOST_CELLS = 400
FOOTPRINT_SAMPLES = 128
# An object whose lowest seen point is this close to the table stands on it: its last millimetres are often not seen.
STANDS_WITHIN = 0.02


def point_spacing(points: Points) -> tuple[float, npt.NDArray[np.bool_]]:
    """Typical distance (metres) between neighbouring points, and (P,) which points are no stray ones (third neighbour not far off)."""
    if len(points) < 8:
        return CELL, np.ones(len(points), dtype=bool)
    distance = cKDTree(points).query(points, k=4)[0]
    typical = float(np.median(distance[:, 2]))
    return max(typical, 1e-3), distance[:, 3] < max(4.0 * typical, 0.012)


@dataclass(frozen=True)
class Footprint:
    """An object seen from below.

    Attributes:
        samples: (S, 3) float32 x, y relative to the object's centre and the underside's height above its lowest point, metres; S is
            FOOTPRINT_SAMPLES, evenly spread over the silhouette.
        bottom: world height of its lowest point, metres: what nothing is seen to carry stands on the table.
        seen_bottom: the same as far as it was seen, which may be higher.
        low_hull: (X, Y) bool, cells of the grid under which the object stands.
    """

    samples: Points
    bottom: float
    seen_bottom: float
    low_hull: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeightField:
    """Surfaces over one grid; cell (i, j) is at x = origin[0] + i * cell, y = origin[1] + j * cell.

    Attributes:
        own: (M, X, Y) float32, highest surface of object m alone, world metres; -inf where it is not.
        rest: (M + 1, X, Y) float32, highest surface of everything but object m (table included); the last one: of everything.
        footprints: one per object.
        spacing: (M,) metres between the neighbouring points of each object.
    """

    own: Tensor
    rest: Tensor
    footprints: tuple[Footprint, ...]
    spacing: Array
    origin: Array
    cell: float
    table_height: float

    def index(self, xy: Tensor) -> Tensor:
        """Row-major number (...) int64 of the cells at world x, y (..., 2), clamped to the grid (its border is table)."""
        _, rows, columns = self.rest.shape
        scaled = xy * (1 / self.cell) + torch.tensor([0.5 - value / self.cell for value in self.origin.tolist()], dtype=xy.dtype)
        i, j = scaled[..., 0].clamp(0, rows - 1).int(), scaled[..., 1].clamp(0, columns - 1).int()
        return (i * columns + j).long()

    def rest_at(self, without: Tensor, xy: Tensor) -> Tensor:
        """Height (N, S) of everything but object without[n] at world positions xy (N, S, 2); -1 leaves nothing out."""
        return self._sample(self.rest, torch.where(without < 0, self.rest.shape[0] - 1, without), xy)

    def own_at(self, which: Tensor, xy: Tensor) -> Tensor:
        """Height (N, S) of object which[n] alone at world positions xy (N, S, 2); -inf beside it."""
        return self._sample(self.own, which, xy)

    def _sample(self, field: Tensor, which: Tensor, xy: Tensor) -> Tensor:
        return field.reshape(-1)[self.index(xy) + (which * field[0].numel())[:, None]]


def build_height_field(scene: Scene, cell: float = CELL) -> HeightField:
    """Height fields of a scene. Thin points are joined: holes up to about twice the spacing of an object's points are closed.

    Args:
        scene: what perception saw.
        cell: grid step, metres; coarser if the workspace is larger than MOST_CELLS cells.
    """
    low = np.asarray(scene.limits.workspace_min[:2]) - MARGIN
    high = np.asarray(scene.limits.workspace_max[:2]) + MARGIN
    cell = max(cell, float((high - low).max()) / MOST_CELLS)
    shape = tuple(np.ceil((high - low) / cell).astype(int) + 1)
    count = len(scene.objects)
    own = np.full((count, *shape), -np.inf, dtype=np.float32)
    spacing = np.zeros(count)
    kept: list[Points] = []
    for number, thing in enumerate(scene.objects):
        spacing[number], good = point_spacing(thing.points)
        points = thing.points[good] if good.any() else thing.points
        kept.append(points)
        own[number] = _surface(points, spacing[number], low, cell, shape, scene.table_height)
    footprints = []
    for number, thing in enumerate(scene.objects):
        # What lies on it is not beneath it.
        others = np.delete(np.where(own < own[number] - 1e-3, own, -np.inf), number, axis=0).max(axis=0, initial=scene.table_height)
        footprints.append(_footprint(thing, kept[number], others, low, cell, scene.table_height))
    for number, footprint in enumerate(footprints):
        # Where it stands there is material even if it was not seen: a floor of at least a few millimetres.
        own[number] = np.where(footprint.low_hull, np.maximum(own[number], footprint.bottom + 0.004), own[number])
    rest = np.full((count + 1, *shape), scene.table_height, dtype=np.float32)
    for number in range(count):
        for without in range(count + 1):
            if without != number:
                np.maximum(rest[without], own[number], out=rest[without])
    return HeightField(torch.from_numpy(own), torch.from_numpy(rest), tuple(footprints), spacing, low, cell, scene.table_height)


def _surface(points: Points, spacing: float, low: Array, cell: float, shape: tuple[int, ...], table: float) -> Grid:
    grid = np.full(shape, -np.inf, dtype=np.float32)
    index = np.rint((points[:, :2] - low) / cell).astype(int)
    inside = ((index >= 0) & (index < np.asarray(shape))).all(axis=1)
    index = index[inside]
    if len(index) == 0:
        return grid
    reach = int(np.clip(np.ceil(2.2 * spacing / cell), 2, 6))
    kernel = np.ones((reach + 1, reach + 1), np.uint8)
    first = np.maximum(index.min(axis=0) - reach - 1, 0)
    last = np.minimum(index.max(axis=0) + reach + 2, shape)
    crop = np.full(tuple(last - first), table - 1.0, dtype=np.float32)
    np.maximum.at(crop, tuple((index - first).T), points[inside, 2])
    # An even kernel has no middle: what dilating shifts to one side, eroding must shift back (MORPH_CLOSE does not).
    back = reach - (reach + 1) // 2
    crop = cast(Grid, cv2.erode(cv2.dilate(crop, kernel), kernel, anchor=(back, back)))
    grid[first[0] : last[0], first[1] : last[1]] = np.where(crop > table - 0.5, crop, -np.inf)
    return grid


def _filled_hull(points: Points, low: Array, cell: float, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(X, Y) cells inside the convex hull of the points' positions in the ground plane."""
    mask = np.zeros(shape, np.uint8)
    index = np.rint((points[:, :2] - low) / cell).astype(np.int32)
    hull = cv2.convexHull(index[:, ::-1].copy())  # OpenCV: column first
    cv2.fillConvexPoly(mask, hull, 1)
    return mask.astype(bool)


def _footprint(thing: SceneObject, points: Points, others: Grid, low: Array, cell: float, table: float) -> Footprint:
    """The underside as a stack of hulls: a cell belongs to the lowest slice whose hull covers it, so a bowl widens upwards."""
    bottom = float(np.percentile(points[:, 2], 1))
    top = float(points[:, 2].max())
    stack = points[points[:, 2] < bottom + max(0.012, 0.15 * (top - bottom))]
    under = others[_filled_hull(stack, low, cell, others.shape)]
    beneath = float(np.percentile(under, 90)) if len(under) else table
    if beneath > table + 0.01 and abs(bottom - beneath) < STANDS_WITHIN:
        seen_bottom = bottom = beneath
    elif bottom < table + STANDS_WITHIN:
        seen_bottom = bottom = table
    else:
        seen_bottom, bottom = bottom, bottom if beneath > table + 0.01 else table
    underside = np.full(others.shape, np.inf, dtype=np.float32)
    levels = [0.010, 0.015, 0.020, 0.030, 0.040, 0.060, 0.080, 0.120, 10.0]
    low_hull = np.zeros(others.shape, dtype=bool)
    lowest_slice = True
    previous = 0.0
    for level in levels:
        slice_points = points[points[:, 2] <= bottom + level]
        if len(slice_points) < 6 and level < 10.0:
            continue
        hull = _filled_hull(slice_points, low, cell, others.shape)
        offset = 0.0 if lowest_slice else previous
        underside = np.where(hull & np.isinf(underside), np.float32(offset), underside)
        if lowest_slice:
            low_hull = hull
        lowest_slice = False
        previous = level
        if bottom + level > top:
            break
    i, j = np.nonzero(np.isfinite(underside))
    if len(i) == 0:  # outside of the grid: a small disc keeps everything defined; the workspace scorer rejects it
        i, j = np.array([0]), np.array([0])
    chosen = np.linspace(0, len(i) - 1, FOOTPRINT_SAMPLES).round().astype(int)
    i, j = i[chosen], j[chosen]
    offsets = np.where(np.isfinite(underside[i, j]), underside[i, j], 0)
    samples = np.stack([low[0] + i * cell - thing.center[0], low[1] + j * cell - thing.center[1], offsets], axis=1)
    return Footprint(samples.astype(np.float32), bottom, seen_bottom, low_hull)
