"""Which cells of a reduced view show the moved object, and what it hides: for N proposals at a time.

A view is drawn as points with a depth test against the view with the object taken away; one cell is a few pixels wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pcm_ros.tasks.manipulation.predicted_view import DEPTH_TOLERANCE, plane_depth
from pcm_ros.tasks.manipulation.workcell import View

if TYPE_CHECKING:
    from pcm_ros.tasks.manipulation.world_model import WorldModel

# Cells around a reduced view that catch what is drawn outside of it.
BORDER = 4


@dataclass(frozen=True)
class StaticView:
    """A reduced view with each object taken away in turn.

    Attributes:
        stride: pixels of the image per cell of the reduced view.
        depth: (M, h, w) float32 metres, depth of what stays when object m is taken away (inf: nothing there).
        masks: (M, M, h, w) bool, masks[m, j] = what is seen of object j when object m is taken away (j == m: what is seen now).
        pixel: (h * w, 2) float32, image pixel (u, v) in the middle of each cell.
        shown: (M,) float64 0..1, share of each object's silhouette that is seen now (the rest is hidden by something else).
    """

    stride: int
    depth: Tensor
    masks: Tensor
    pixel: Tensor
    shown: Tensor

    @cached_property
    def behind(self) -> Tensor:
        """(M, (h + 2 BORDER) * (w + 2 BORDER)) float32 depth up to which a point is visible, with a border where nothing is."""
        padded = torch.nn.functional.pad(self.depth + DEPTH_TOLERANCE, (BORDER, BORDER, BORDER, BORDER), value=-torch.inf)
        return padded.flatten(1)

    @cached_property
    def owner(self) -> Tensor:
        """(M, h * w) int64, whose cell it is when object m is taken away: j, or M for table and background."""
        objects = len(self.masks)
        others = self.masks & ~torch.eye(objects, dtype=torch.bool)[:, :, None, None]
        number = torch.arange(objects, dtype=torch.int16)[None, :, None, None]
        free = torch.full_like(number, objects)
        return torch.where(others, number, free).amin(dim=1).flatten(1).long() if objects else others.flatten(1).long()

    @cached_property
    def totals(self) -> Tensor:
        """(M, M, 3) float64: cells of each mask, and the sums of their pixel coordinates u and v."""
        flat = self.masks.flatten(2).double()
        return torch.cat([flat.sum(-1, keepdim=True), flat @ self.pixel.double()], dim=-1)


@dataclass(frozen=True)
class PredictedMasks:
    """The moved object in one reduced view, for N proposals.

    Attributes:
        moved: (N, h, w) bool, its visible part.
        visibility: (N,) float64 0..1, share of its points that are inside the image and not hidden by something else.
        area: (N,) float64, visible cells.
        centroid: (N, 2) float64, image pixels (u, v) of the visible part's middle; NaN where nothing is visible.
        category: (N,) int64, which object was moved.
        static: the rest of the view.
        cells: (2, C) int64, proposal and cell of every visible cell of a moved object.
    """

    moved: Tensor
    visibility: Tensor
    area: Tensor
    centroid: Tensor
    category: Tensor
    static: StaticView
    cells: Tensor

    @cached_property
    def _others(self) -> Tensor:
        """(N, M, 3) cells and sums of pixel coordinates of what is left of each other object."""
        count, objects = len(self.moved), len(self.static.masks)
        proposal, cell = self.cells
        group = proposal * (objects + 1) + self.static.owner[self.category[proposal], cell]
        pixel = self.static.pixel.double()
        hidden = _grouped(group, torch.cat([torch.ones(len(pixel), 1, dtype=torch.float64), pixel], dim=1)[cell], count * (objects + 1))
        return self.static.totals[self.category] - hidden.view(count, objects + 1, 3)[:, :objects]

    def other_areas(self) -> Tensor:
        """(N, M) float64, visible cells of each other object, what the moved one hides taken off (the moved one's entry: meaningless)."""
        return self._others[..., 0]

    def other_centroids(self) -> Tensor:
        """(N, M, 2) float64 image pixels, the middle of the visible part of each other object; NaN where nothing is visible."""
        left = self._others
        return left[..., 1:] / left[..., :1]

    def other_hidden(self) -> Tensor:
        """(N, M) float64 0..1, share of each other object's visible part that the moved one would hide (1 where nothing is visible)."""
        before = self.static.totals[self.category][..., 0]
        return torch.where(before > 0, 1 - self.other_areas() / before.clamp(min=1), torch.ones_like(before))


def _grouped(group: Tensor, values: Tensor, groups: int) -> Tensor:
    """Sums (groups, C) of the rows of values (K, C) by group (K,), in the order of the rows: the same on every run."""
    return torch.stack([torch.bincount(group, weights=column, minlength=groups) for column in values.T], dim=1)


def make_static(world: WorldModel, view: View, stride: int) -> StaticView:
    """See WorldModel.static_view."""
    middle = (stride - 1) // 2
    rows, columns = np.arange(middle, view.depth.shape[0], stride), np.arange(middle, view.depth.shape[1], stride)
    table = plane_depth(view, rows, columns, world.scene.table_height)
    depth = view.depth[np.ix_(rows, columns)]
    known = np.isfinite(depth) & (depth > 0)
    depth = np.where(known, depth, table)
    labels = world.labels(view.name)[np.ix_(rows, columns)]
    shape = depth.shape
    layers = np.full((world.count, *shape), np.inf, dtype=np.float32)
    reach, steps = _splat(world, view, stride)
    in_picture = np.zeros(world.count)
    for number in range(world.count):
        points = world.cloud[0][number].numpy() + world.centers[number].numpy()
        u, v, z = (value[0].numpy() for value in _reduced_pixels(view, stride, torch.from_numpy(points.astype(np.float32))[None]))
        in_picture[number] = ((u >= 0) & (u <= shape[1] - 1) & (v >= 0) & (v <= shape[0] - 1) & (z > 0.01)).mean()
        for du, dv in steps:
            column, row = np.floor(u).astype(np.int64) + du, np.floor(v).astype(np.int64) + dv
            good = (column >= 0) & (column < shape[1]) & (row >= 0) & (row < shape[0]) & (z > 0.01)
            good &= (np.abs(column - u) <= float(reach[number])) & (np.abs(row - v) <= float(reach[number]))
            np.minimum.at(layers[number], (row[good], column[good]), z[good])
    depths = np.empty((world.count, *shape), dtype=np.float32)
    masks = np.empty((world.count, world.count, *shape), dtype=bool)
    for taken in range(world.count):
        hole = labels == taken
        behind = layers.copy()
        behind[taken] = np.inf
        nearest = behind.argmin(axis=0)
        shown = np.minimum(behind.min(axis=0), table)
        depths[taken] = np.where(hole, shown, depth)
        filled = np.where(hole, np.where(np.isfinite(behind.min(axis=0)), nearest, -1), labels)
        masks[taken] = filled == np.arange(world.count)[:, None, None]
        masks[taken, taken] = hole
    vv, uu = np.meshgrid(rows, columns, indexing="ij")
    pixel = torch.from_numpy(np.stack([uu, vv], axis=-1).reshape(-1, 2).astype(np.float32))
    whole = np.isfinite(layers).sum(axis=(1, 2))
    seen = np.array([np.count_nonzero((labels == number) & np.isfinite(layers[number])) for number in range(world.count)])
    shown = torch.from_numpy((in_picture * np.minimum(seen / np.maximum(whole, 1), 1.0)).astype(np.float64).reshape(-1))
    return StaticView(stride, torch.from_numpy(depths), torch.from_numpy(masks), pixel, shown)


def _splat(world: WorldModel, view: View, stride: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """How far a point's square reaches in cells (M,): at least the nearest cell, else enough to join the points of a surface; and
    the cells to be tried, as steps from the cell at the lower left of a point."""
    distance = np.maximum(((world.centers.numpy() - view.position) @ view.rotation)[:, 2], 0.05)
    apart = world.cloud[1] * view.intrinsics[0, 0] / distance / stride
    reach = np.clip(0.5 * apart, 0.5, BORDER / 2)
    more = int(np.ceil(float(reach.max(initial=0.5)) - 1.0 - 1e-9))
    cells = range(-max(more, 0), 2 + max(more, 0))
    return torch.from_numpy(reach.astype(np.float32)), [(du, dv) for du in cells for dv in cells]


def predict_masks(world: WorldModel, name: str, category: Tensor, motion: Tensor, stride: int | None) -> PredictedMasks:
    """See WorldModel.predict_masks."""
    view, static = world.view(name), world.static_view(name, stride)
    count = len(category)
    height, width = static.depth.shape[1:]
    padded_width, padded_area = width + 2 * BORDER, (height + 2 * BORDER) * (width + 2 * BORDER)
    u, v, z = _reduced_pixels(view, static.stride, world.moved_points(category, motion))
    reach, steps = _splat(world, view, static.stride)
    reaches = reach[category][:, None]
    # What is outside of the image or behind the camera goes to the border, where nothing is visible: no bounds to check below.
    # (A little more than the widest reach away on the low side, a little less on the high one, where cells are counted from below.)
    outside, slack = -BORDER / 2 - 0.01, 0.01
    u = u.masked_fill(z <= 0.01, outside).clamp(outside, width + BORDER / 2 - slack)
    v = v.clamp(outside, height + BORDER / 2 - slack)
    column, row = u.floor(), v.floor()
    across, down = u - column, v - row
    base = ((row + BORDER) * padded_width + (column + BORDER)).long()
    lookup = base + (category * padded_area)[:, None]
    target = base + (torch.arange(count) * padded_area)[:, None]
    nowhere = count * padded_area  # one cell more takes what is hidden: no branch, no selection of ragged size
    drawn = torch.zeros(nowhere + 1, dtype=torch.uint8)
    behind = static.behind.reshape(-1)
    seen = torch.zeros_like(base, dtype=torch.bool)
    covers = {du: (across - du).abs() <= reaches for du, _ in steps}
    below = {dv: (down - dv).abs() <= reaches for _, dv in steps}
    for du, dv in steps:
        step = dv * padded_width + du
        shown = covers[du] & below[dv] & (z < behind[lookup + step])
        drawn.scatter_(0, (target + step).masked_fill_(~shown, nowhere).view(-1), 1)
        seen |= shown
    moved = drawn[:-1].view(torch.bool).view(count, height + 2 * BORDER, padded_width)[:, BORDER:-BORDER, BORDER:-BORDER].contiguous()
    filled = torch.from_numpy(np.flatnonzero(moved.numpy()))
    cells = torch.stack([filled // (height * width), filled % (height * width)])
    area = torch.bincount(cells[0], minlength=count).double()
    sums = _grouped(cells[0], static.pixel.double()[cells[1]], count)
    return PredictedMasks(moved, seen.double().mean(dim=1), area, sums / area[:, None], category, static, cells)


def _reduced_pixels(view: View, stride: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cell coordinates u, v (N, P) and depth z (N, P) of world points (N, P, 3) in the reduced view (cell centres are integers)."""
    k, middle = view.intrinsics, (stride - 1) // 2
    scale = np.array([[k[0, 0] / stride, 0, (k[0, 2] - middle) / stride], [0, k[1, 1] / stride, (k[1, 2] - middle) / stride], [0, 0, 1]])
    matrix = scale @ view.rotation.T
    shift = torch.from_numpy(-(matrix @ view.position)).float()
    projected = torch.addmm(shift, points.reshape(-1, 3), torch.from_numpy(matrix.T.copy()).float()).view(points.shape)
    z = projected[..., 2]
    inverse = 1 / z.clamp(min=0.01)
    return projected[..., 0] * inverse, projected[..., 1] * inverse, z
