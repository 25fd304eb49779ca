"""What a camera would see after one object was put elsewhere: the observed picture with that object's pixels redrawn.

Three steps, none of which needs a mesh or a renderer. The object is taken away: where it was, the table is shown as other cameras see it
there, and what no camera sees is painted in from around. What it hid is drawn from the points that other views have of it. Then its own
pixels of all views are moved and drawn, z-buffered; those of the view itself go first, because they have its light and its resolution.
Shadows stay where they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from pcm_ros.tasks.manipulation.scene import Points
from pcm_ros.tasks.manipulation.workcell import Array, View

if TYPE_CHECKING:
    from pcm_ros.tasks.manipulation.world_model import WorldModel

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

# A point is hidden only by what is clearly in front of it: depth noise, and the surface it stands on (metres).
DEPTH_TOLERANCE = 0.010
# Points that other views have of a surface give way to those of the view itself if they are nearer by less than this (metres).
OWN_VIEW_FIRST = 0.015
# A pixel that lies deeper than the surface around it by more than this is a crack in it (metres).
CRACK = 0.008
FAR = 1e3
# What is lower than this above an object's lowest point is its foot (metres).
FOOT = 0.012
# Pixels around an object's silhouette that hold some of its colour.
EDGE = 2


@dataclass(frozen=True)
class PredictedView:
    """A view as it would look.

    Attributes:
        rgb: (H, W, 3) uint8, red first.
        depth: (H, W) float32 metres along the optical axis.
        labels: (H, W) int64, number of the object seen at each pixel; -1: table, background or unknown.
    """

    rgb: Image
    depth: Points
    labels: Labels

    def region(self, number: int) -> Mask:
        """(H, W) bool, where object `number` would be seen."""
        return self.labels == number


def predict_view(world: WorldModel, name: str, category: int, motion: npt.ArrayLike) -> PredictedView:
    """The view `name` after object `category` has moved by `motion` (4,) = dx, dy, dz, dyaw (see WorldModel).

    Raises:
        KeyError: the observation has no such view.
    """
    view, empty = world.view(name), world.emptied_view(name, category)
    shift, yaw = np.asarray(motion, dtype=np.float64)[:3], float(np.asarray(motion)[3])
    center, cos, sin = world.centers[category].numpy(), np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    canvas = _Canvas(view, empty)
    for mine, (points, colors) in world.pixels_of(category, name):
        moved = (points.astype(np.float64) - center) @ turn.T + center + shift
        canvas.draw(moved, colors, OWN_VIEW_FIRST if mine else 0.0)
    return canvas.finished(category, _foot(world, view, category, turn[:2, :2], center + shift, float(shift[2])))


def _foot(world: WorldModel, view: View, category: int, turn: Array, center: Array, rise: float) -> Points:
    """(H, W) depth of the plane under the moved object's foot, inf beside it."""
    height, width = view.depth.shape
    footprint = world.footprints[category].numpy().astype(np.float64)
    corners = footprint[footprint[:, 2] < FOOT][:, :2] @ turn.T + center[:2]
    bottom = float(world.bottoms[category]) + rise
    uv, z = view.project(np.column_stack([corners, np.full(len(corners), bottom)]))
    inside = np.zeros((height, width), np.uint8)
    if len(corners) >= 3 and (z > 0.05).all():
        cv2.fillConvexPoly(inside, cv2.convexHull(np.rint(uv).astype(np.int32)), 1)
    plane = plane_depth(view, np.arange(height), np.arange(width), bottom)
    return np.where(inside.astype(bool), plane, np.inf).astype(np.float32)


def without_object(world: WorldModel, name: str, category: int) -> PredictedView:
    """The view `name` if object `category` were not there."""
    view, labels = world.view(name), world.labels(name)
    kernel = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    own = labels == category
    # Where its surface returned no depth (gloss, black print) its pixels belong to nothing, and yet they are its own.
    own |= _enclosed(own) & (labels < 0) & ~view.valid_depth
    hole = cv2.dilate(own.astype(np.uint8), kernel).astype(bool) & ((labels < 0) | own)
    rows, columns = np.arange(view.depth.shape[0]), np.arange(view.depth.shape[1])
    table = plane_depth(view, rows, columns, world.scene.table_height)
    rgb, unknown = _table_from_others(world, name, hole, table)
    if unknown.any():
        rgb = _painted(rgb, unknown, hole | (labels >= 0))
    depth = np.where(view.valid_depth & ~hole, view.depth, table).astype(np.float32)
    canvas = _Canvas(view, PredictedView(rgb, depth, np.where(hole, -1, labels)), where=hole)
    for number in range(world.count):
        if number != category:
            for mine, (points, colors) in world.pixels_of(number, name):
                if not mine:  # what the view itself saw of it is in the picture
                    canvas.draw(points, colors, 0.0)
            canvas = _Canvas(view, canvas.finished(number), where=hole)
    return canvas.finished(-1)


def pixels_of(world: WorldModel, number: int, name: str) -> list[tuple[bool, tuple[Points, Image]]]:
    """The pixels of an object in each view, those of view `name` last and marked: points (P, 3), colours (P, 3).

    If no view shows it, the scene's own points.
    """
    assert world.observation is not None
    found: list[tuple[bool, tuple[Points, Image]]] = []
    for view in sorted(world.observation.views, key=lambda view: view.name == name):
        mine = world.labels(view.name) == number
        if mine.any():
            found.append((view.name == name, (view.points()[mine], view.rgb[mine])))
    thing = world.scene.objects[number]
    return found or [(False, (thing.points, thing.colors))]


class _Canvas:
    """A picture that points are drawn into where they are nearer than what it shows."""

    def __init__(self, view: View, shown: PredictedView, where: Mask | None = None) -> None:
        self._view, self._shown, self._where = view, shown, where
        self._nearest: Array = np.full(shown.rgb.shape[:2], np.inf)
        self._rgb = shown.rgb.copy()

    def draw(self, points: npt.ArrayLike, colors: Image, first: float) -> None:
        """Draw points (P, 3), a pixel each; they win over what was drawn before if it is less than `first` metres nearer."""
        uv, z = self._view.project(points)
        height, width = self._shown.rgb.shape[:2]
        pixel = np.rint(uv).astype(np.int64)
        x, y = pixel[:, 0], pixel[:, 1]
        order = np.argsort(-z, kind="stable")  # far ones first: the nearest is written last
        good = order[((x >= 0) & (x < width) & (y >= 0) & (y < height) & (z > 0.01))[order]]
        source = np.full(height * width, -1, dtype=np.int64)
        source[y[good] * width + x[good]] = good
        layer = np.where(source >= 0, z[source], np.inf).reshape(height, width)
        source = source.reshape(height, width)
        shown = (layer < self._shown.depth + DEPTH_TOLERANCE) & (layer < self._nearest + first)
        if self._where is not None:
            shown &= self._where
        self._rgb[shown] = colors[source[shown]]
        self._nearest[shown] = layer[shown]

    def finished(self, number: int, foot: Points | None = None) -> PredictedView:
        """What was drawn, as pixels of object `number`. Cracks are filled from around: pixels between drawn ones, or of the far side of the
        object seen through the near one, where a surface is seen closer than before.

        Args:
            foot: (H, W) depth of the plane that the object stands on, inf beside its foot: the floor of a cup that no camera saw.
        """
        drawn = np.isfinite(self._nearest)
        depth = np.where(drawn, self._nearest, self._shown.depth).astype(np.float32)
        if not drawn.any():
            return PredictedView(self._rgb, depth, self._shown.labels)
        nearness = np.where(drawn, -self._nearest, -FAR).astype(np.float32)
        surface = -cv2.morphologyEx(nearness, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        # A surface hides a drawn far side only if that is clearly behind it; what it stands on, in any case.
        cracks = (surface < FAR / 2) & (surface < depth + np.where(drawn, -CRACK, DEPTH_TOLERANCE)) & (~drawn | (surface < depth))
        if foot is not None:
            surface = np.where((surface > FAR / 2) & np.isfinite(foot), foot, surface)
            cracks |= _enclosed(drawn) & (foot < self._shown.depth + DEPTH_TOLERANCE)
        if self._where is not None:
            cracks &= self._where
        rgb = _painted(self._rgb, cracks, ~drawn) if cracks.any() else self._rgb
        depth = np.where(cracks, surface, depth).astype(np.float32)
        return PredictedView(rgb, depth, np.where(drawn | cracks, number, self._shown.labels))


def _enclosed(mask: Mask) -> Mask:
    """(H, W) the holes of a mask: what cannot be reached from the border without crossing it."""
    _, number = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([number[0], number[-1], number[:, 0], number[:, -1]]))
    return np.asarray(~mask & ~np.isin(number, border))


def _table_from_others(world: WorldModel, name: str, hole: Mask, table: Points) -> tuple[Image, Mask]:
    """The view's picture (H, W, 3) with the hole showing the table as other cameras see it there; and (H, W) where none does."""
    assert world.observation is not None
    view = world.view(name)
    rgb, unknown = view.rgb.copy(), hole.copy()
    v, u = np.nonzero(hole & np.isfinite(table))
    k = view.intrinsics
    optical = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(len(u))], axis=-1) * table[v, u][:, None]
    points = optical @ view.rotation.T + view.position
    total, votes = np.zeros((len(u), 3)), np.zeros(len(u))
    for other in world.observation.views:
        if other.name == name or not len(u):
            continue
        uv, z = other.project(points)
        height, width = other.depth.shape
        pixel = np.rint(uv).astype(np.int64)
        x, y = pixel[:, 0], pixel[:, 1]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (z > 0.01)
        x, y = x.clip(0, width - 1), y.clip(0, height - 1)
        free = ~cv2.dilate((world.labels(other.name) >= 0).astype(np.uint8), np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)).astype(bool)
        with np.errstate(invalid="ignore"):
            good = inside & free[y, x] & (np.abs(other.depth[y, x] - z) < DEPTH_TOLERANCE)
        total[good] += other.rgb[y[good], x[good]]
        votes[good] += 1
    seen = votes > 0
    rgb[v[seen], u[seen]] = np.clip(np.rint(total[seen] / votes[seen][:, None]), 0, 255).astype(np.uint8)
    unknown[v[seen], u[seen]] = False
    return rgb, unknown


def _painted(rgb: Image, unknown: Mask, foreign: Mask) -> Image:
    """The picture with unknown pixels painted in from around (Telea 2004); foreign ones (H, W) are no source of colour."""
    rows, columns = np.flatnonzero(unknown.any(axis=1)), np.flatnonzero(unknown.any(axis=0))
    margin = 12
    part = np.s_[max(0, rows[0] - margin) : rows[-1] + margin + 1, max(0, columns[0] - margin) : columns[-1] + margin + 1]
    wanted = unknown[part].astype(np.uint8)
    near = cv2.dilate(wanted, np.ones((9, 9), np.uint8))  # what lies further off is no source of colour anyway
    painted = cv2.inpaint(np.ascontiguousarray(rgb[part]), wanted | (near & foreign[part]), 3, cv2.INPAINT_TELEA)
    result = rgb.copy()
    result[part][unknown[part]] = painted[unknown[part]]
    return result


def rays(view: View, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Array:
    """(h, w, 3) world directions of pixels, one metre deep along the optical axis."""
    k = view.intrinsics
    u = (columns - k[0, 2]) / k[0, 0]
    v = (rows - k[1, 2]) / k[1, 1]
    optical = np.stack(np.broadcast_arrays(u[None, :], v[:, None], 1.0), axis=-1)
    return cast(Array, optical @ view.rotation.T)


def plane_depth(view: View, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], height: float) -> Points:
    """(h, w) float32 depth at which pixels see the horizontal plane at `height`; inf where they look away from it."""
    fall = rays(view, rows, columns)[..., 2]
    with np.errstate(divide="ignore"):
        depth = (height - view.position[2]) / fall
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.inf).astype(np.float32)
