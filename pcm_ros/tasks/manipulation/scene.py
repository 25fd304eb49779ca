"""The object-level scene that perception makes and the world model, the generator and the scorers read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from pcm_ros.tasks.manipulation.goal import Measure
from pcm_ros.tasks.manipulation.workcell import Array, WorkcellLimits

Points = npt.NDArray[np.float32]


SEEN_AROUND = 0.03
"""Perception looks so far beyond the sides of the workspace, metres; what has its middle outside is none of its objects."""


def inside(points: Points, low: npt.ArrayLike, high: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(P,) which of the points (P, 3) lie in a box, (3,) low < point < high; NaN does not. By column: far quicker than by row."""
    found = np.ones(len(points), dtype=bool)
    with np.errstate(invalid="ignore"):
        for column, least, most in zip(points.T, np.asarray(low), np.asarray(high), strict=True):
            found &= (column > least) & (column < most)
    return found


@dataclass(frozen=True)
class SceneObject:
    """One segmented object.

    Attributes:
        points: (P, 3) float32 world metres, seen surface, fused over views, P >= 1, thinned to a few thousand.
        colors: (P, 3) uint8 red, green, blue of the points.
        label: what perception would call it ("red mug"); for people only: phrases are grounded by the scorers.
        label_confidence: 0..1.
    """

    points: Points
    colors: npt.NDArray[np.uint8]
    label: str = "object"
    label_confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3 or len(self.points) == 0:
            raise ValueError(f"points of '{self.label}' must be (P, 3) with P >= 1, got {self.points.shape}")
        if self.colors.shape != self.points.shape:
            raise ValueError(f"colors of '{self.label}' must have the shape of its points {self.points.shape}, got {self.colors.shape}")

    @cached_property
    def low(self) -> Array:
        """(3,) lower corner of the axis-aligned bounding box, metres."""
        return self.points.min(axis=0).astype(np.float64)

    @cached_property
    def high(self) -> Array:
        """(3,) upper corner of the axis-aligned bounding box, metres."""
        return self.points.max(axis=0).astype(np.float64)

    @property
    def center(self) -> Array:
        """(3,) middle of the bounding box, metres: the position that relations speak of."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> Array:
        """(3,) extent of the bounding box, metres."""
        return self.high - self.low

    @cached_property
    def extents(self) -> tuple[float, float, float]:
        """Shorter and longer side of the least upright rectangle around it, and height; metres, however it is turned."""
        _, sides, _ = cv2.minAreaRect(self.points[:, :2] * np.float32(1000))  # it knows nothing below a unit
        low, high = np.percentile(self.points[:, 2], [0.5, 99.5])
        return min(sides) / 1000, max(sides) / 1000, float(high - low)

    def measure(self, measure: Measure) -> float:
        """What size words compare, metres."""
        short, long, height = self.extents
        return {Measure.SIZE: float(np.cbrt(short * long * height)), Measure.HEIGHT: height, Measure.LENGTH: long}[measure]


@dataclass(frozen=True)
class Scene:
    """Objects on a table.

    Attributes:
        objects: M objects, in a stable order (sorted by x, then y), M may be 0.
        table_height: metres, world z of the table's surface.
        limits: of the workcell that was observed.
        stamp_ns: of the observation.
    """

    objects: tuple[SceneObject, ...]
    table_height: float
    limits: WorkcellLimits
    stamp_ns: int = 0

    def with_object_moved(self, number: int, points: Points) -> Scene:
        """The scene with object `number` at new points (P, 3); order and colours stay."""
        objects = list(self.objects)
        objects[number] = replace(objects[number], points=points)
        return Scene(tuple(objects), self.table_height, self.limits, self.stamp_ns)
