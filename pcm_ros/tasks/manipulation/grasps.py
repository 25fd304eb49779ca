"""Top-down grasps of perceived objects, from their points and the scene's height field.

A parallel gripper is two finger boxes that hang from a palm box; a grasp is good if both fingers reach below the material between
them without touching anything, across opposite surfaces that the closing axis meets squarely. That one test covers blocks taken across
their body and mugs and bowls taken by the rim, one finger inside. A suction gripper is a disc that needs a flat patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pcm_ros.tasks.manipulation.height_field import HeightField
from pcm_ros.tasks.manipulation.scene import SEEN_AROUND, Points
from pcm_ros.tasks.manipulation.workcell import Array, Gripper
from pcm_ros.tasks.manipulation.world_model import WorldModel, thin, turned

MOST_PER_OBJECT = 12
DEPTHS = (0.035, 0.027, 0.020, 0.014)
# Fingertips stay this far above what lies under them: table, or the floor of a bowl.
TIP_CLEARANCE = 0.008
# Room between an open finger and the object, either side; the least is what depth noise and the hand's accuracy need.
CLEARANCES = (0.009, 0.006)
LEAST_CLEARANCE = 0.004
# Fingers need this much room outwards to let go: those that cannot open take the object up again.
RELEASE_ROOM = 0.006
# Cells under a finger that may be higher than its tip: noise.
STRAY_CELLS = 1
# A point so close to where perception stops looking, metres, says that the object goes on there.
CUT_WITHIN = 0.006
SAMPLE_STEP = 0.004
PALM_STEP = 0.012
# A closing axis off by this angle (radians) has lost about two thirds of its worth: the object would turn in the hand.
SQUARE_WITHIN = 0.18
# Points of an object that are enough to judge surfaces by.
ENOUGH_POINTS = 1200
# Of an object's grasps, so many are looked at closely.
MOST_EXAMINED = 64
# The lip of a suction cup gives way by this much.
LIP = 0.004


@dataclass(frozen=True)
class Grasps:
    """G grasps of all objects of a scene.

    Attributes:
        object_index: (G,) int64.
        pick: (G, 5) float64 tool x, y, z (world metres), yaw (radians, in [-pi/2, pi/2)), width (metres between the fingers; 0: suction).
        quality: (G,) float64 in (0, 1], a product of: squareness of the closing axis to the surfaces, depth of engagement, nearness to the
            object's middle, room to the neighbours.
    """

    object_index: Tensor
    pick: Tensor
    quality: Tensor

    def __len__(self) -> int:
        return len(self.object_index)

    def graspable(self, count: int) -> Tensor:
        """(M,) bool, which of `count` objects have a grasp."""
        return torch.bincount(self.object_index, minlength=count) > 0

    def padded(self, count: int) -> tuple[Tensor, Tensor]:
        """pick (M, MOST_PER_OBJECT, 5) and quality (M, MOST_PER_OBJECT) by object, quality 0 where there is no grasp."""
        pick = torch.zeros(count, MOST_PER_OBJECT, 5, dtype=torch.float64)
        quality = torch.zeros(count, MOST_PER_OBJECT, dtype=torch.float64)
        for number in range(count):
            rows = (self.object_index == number).nonzero()[:MOST_PER_OBJECT, 0]
            pick[number, : len(rows)] = self.pick[rows]
            quality[number, : len(rows)] = self.quality[rows]
        return pick, quality


def finger_cells(gripper: Gripper, width: Tensor, grow: float = 0.0, step: float = SAMPLE_STEP) -> Tensor:
    """(N, F, 2) float32 sample positions under both fingers (along, across the closing axis), relative to the tool point, metres.

    Args:
        width: (N,) metres between the fingers. grow: metres added to each outer side.
    """
    if gripper.kind == "suction":
        radius = gripper.max_opening / 2 + grow
        axis = torch.linspace(-radius, radius, 2 * max(1, round(radius / step)) + 1)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
        return grid[grid.norm(dim=1) <= radius + 1e-6].expand(len(width), -1, -1)
    along = _spread(0.0, gripper.finger_thickness + grow, step)
    across = _spread(-gripper.finger_width / 2 - grow, gripper.finger_width / 2 + grow, step)
    grid = torch.stack(torch.meshgrid(along, across, indexing="ij"), dim=-1).reshape(-1, 2)
    half = width.float()[:, None] / 2
    right = torch.stack([grid[:, 0] + half, grid[:, 1].expand(len(width), -1)], dim=-1)
    return torch.cat([right, right * torch.tensor([-1.0, 1.0])], dim=1)


def palm_cells(gripper: Gripper, step: float = PALM_STEP) -> Tensor:
    """(P, 2) float32 sample positions under the palm (along, across the closing axis), relative to the tool point, metres."""
    half = [size / 2 for size in gripper.palm_size]
    return torch.stack(torch.meshgrid(_spread(-half[0], half[0], step), _spread(-half[1], half[1], step), indexing="ij"), dim=-1).reshape(
        -1, 2
    )


def _spread(low: float, high: float, step: float) -> Tensor:
    return torch.linspace(low, high, max(2, round((high - low) / step) + 1))


def gripper_penetration(
    heights: HeightField, gripper: Gripper, without: Tensor, tool: Tensor, width: Tensor, grow: float = 0.0, coarse: bool = False
) -> tuple[Tensor, Tensor]:
    """How deep the gripper is in the scene's material.

    Args:
        without: (N,) int64 object that is not there (the carried one), -1: all are there.
        tool: (N, 4) x, y, z, yaw of the tool point. width: (N,) metres between the fingers.
        grow: metres by which the fingers are thickened, to ask for room.
        coarse: sample at twice the step, for choices that are checked again.

    Returns:
        fingers (N,), palm (N,) float32 metres: how far the scene reaches above the fingertips and above the palm's lower side; negative:
        free by so much. Single stray cells are left out.
    """
    tip = tool[:, 2].float()
    place = tool[:, None, :2].float()
    scale = 2 if coarse else 1
    under = heights.rest_at(without, turned(finger_cells(gripper, width, grow, scale * SAMPLE_STEP), tool[:, 3]) + place)
    fingers = under.topk(STRAY_CELLS + 1, dim=1).values[:, -1] - tip
    if gripper.kind == "suction":
        fingers = fingers - LIP
    cells = palm_cells(gripper, scale * PALM_STEP).expand(len(tool), -1, -1)
    palm = heights.rest_at(without, turned(cells, tool[:, 3]) + place).topk(STRAY_CELLS + 1, dim=1).values[:, -1]
    return fingers, palm - tip - gripper.finger_length


@lru_cache(maxsize=4)
def plan_grasps(world: WorldModel) -> Grasps:
    """Grasps of every object, up to MOST_PER_OBJECT each, the best first, spread over directions. Kept for the last few worlds."""
    gripper = world.scene.limits.gripper
    found = []
    for number in range(world.count):
        if _cut(world, number):
            pick, quality = np.zeros((0, 5)), np.zeros(0)
        elif gripper.kind == "suction":
            pick, quality = _suction_grasps(world, number)
        else:
            pick, quality = _finger_grasps(world, number)
        quality = quality * _reachable(world, pick)
        pick, quality = _diverse(pick[quality > 0.02], quality[quality > 0.02])
        found.append((np.full(len(pick), number), pick, quality))
    if not found:
        return Grasps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    index, picks, qualities = (np.concatenate(part) for part in zip(*found, strict=True))
    return Grasps(torch.from_numpy(index.astype(np.int64)), torch.from_numpy(picks), torch.from_numpy(qualities))


def _reachable(world: WorldModel, pick: Array) -> Array:
    limits = world.scene.limits
    distance = np.hypot(pick[:, 0] - limits.base_position[0], pick[:, 1] - limits.base_position[1])
    return ((distance >= limits.reach[0]) & (distance <= limits.reach[1])).astype(np.float64)


def _cut(world: WorldModel, number: int) -> bool:
    """Whether the object goes on beyond what perception looks at: nobody knows how large it is, or what the fingers would meet."""
    points, limits = world.scene.objects[number].points, world.scene.limits
    low = np.subtract(limits.workspace_min, (SEEN_AROUND, SEEN_AROUND, np.inf)) + CUT_WITHIN
    high = np.add(limits.workspace_max, (SEEN_AROUND, SEEN_AROUND, 0.0)) - CUT_WITHIN
    return int(((points < low) | (points > high)).any(axis=1).sum()) > STRAY_CELLS


def _finger_grasps(world: WorldModel, number: int) -> tuple[Array, Array]:
    """Candidates (C, 5) and quality (C,), 0 for those that fail."""
    thing, gripper, heights = world.scene.objects[number], world.scene.limits.gripper, world.heights
    floor = heights.footprints[number].bottom + TIP_CLEARANCE
    points, _ = thin(thing.points, ENOUGH_POINTS)
    rim = points[points[:, 2] > float(world.tops[number]) - 0.01]
    axis = (rim[:, :2].min(axis=0) + rim[:, :2].max(axis=0)) / 2 if len(rim) >= 3 else thing.center[:2]
    body = _across_body(points, gripper, floor, float(world.tops[number]))
    rims, plain = _over_rim(world, number, axis.astype(np.float64), floor)
    candidates, plain = np.concatenate([body, rims]), np.concatenate([np.ones(len(body)), plain])
    if len(candidates) == 0:
        return candidates, np.zeros(0)
    pick = torch.from_numpy(candidates)
    everything = torch.full((len(pick),), -1)
    tool, width = pick[:, :4], pick[:, 4]
    fingers, palm = gripper_penetration(heights, gripper, everything, tool, width)
    free = (fingers < -0.003) & (palm < -0.002)
    between = torch.linspace(-0.5, 0.5, 25)[None, :, None] * width.float()[:, None, None]
    inside = torch.cat([between, torch.zeros_like(between)], dim=-1)
    material = heights.own_at(torch.full((len(pick),), number), turned(inside, pick[:, 3]) + pick[:, None, :2].float())
    engaged = material.amax(dim=1).double() - pick[:, 2]
    free &= engaged > 0.010
    kept = free.nonzero()[:, 0]
    if len(kept) == 0:
        return candidates[:0], np.zeros(0)
    pick, engaged, plain = pick[kept], engaged[kept], plain[kept.numpy()]
    roomy, _ = gripper_penetration(heights, gripper, everything[kept], pick[:, :4], pick[:, 4], grow=0.008)
    room = np.where(roomy.numpy() < 0, 1.0, 0.75)
    away = np.hypot(pick[:, 0].numpy() - axis[0], pick[:, 1].numpy() - axis[1])
    quality = plain * np.clip(engaged.numpy() / 0.025, 0.2, 1.0) * (0.6 + 0.4 * np.exp(-((away / 0.06) ** 2))) * room
    promising = np.argsort(-quality, kind="stable")[:MOST_EXAMINED]
    picks = pick.numpy()[promising]
    return picks, quality[promising] * _squareness(points, picks, gripper)


def _across_body(points: Points, gripper: Gripper, floor: float, top: float) -> Array:
    """(C, 5) grasps with the whole body between the fingers, where it is narrow enough."""
    rectangle = cv2.minAreaRect(points[:, :2].astype(np.float32))
    square_on = np.radians(rectangle[2])
    yaws = np.concatenate([square_on + np.array([0.0, np.pi / 2]), np.arange(8) * np.pi / 8])
    rows = []
    for yaw in yaws:
        along = points[:, 0] * np.cos(yaw) + points[:, 1] * np.sin(yaw)
        across = points[:, 1] * np.cos(yaw) - points[:, 0] * np.sin(yaw)
        low, high = _quantiles(across, 0.01, 0.99)
        for share in (0.5, 0.3, 0.7):
            middle = low + share * (high - low)
            band = np.abs(across - middle) < gripper.finger_width / 2 + 0.003
            if not band.any():
                continue
            local_top = _quantiles(points[band, 2], 0.98)[0]
            for depth in DEPTHS:
                tip = max(local_top - depth, top - gripper.finger_length + 0.004, floor)
                held = along[band & (points[:, 2] > tip - 0.004)]
                if len(held) < 3:
                    continue
                first, last = _quantiles(held, 0.005, 0.995)
                clearance = min(CLEARANCES[0], (gripper.max_opening - (last - first)) / 2 - 0.001)
                if clearance >= LEAST_CLEARANCE:
                    a = (first + last) / 2
                    x, y = a * np.cos(yaw) - middle * np.sin(yaw), a * np.sin(yaw) + middle * np.cos(yaw)
                    rows.append((x, y, tip, _half_turn(yaw), last - first + 2 * clearance))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _quantiles(values: npt.NDArray[np.floating], *shares: float) -> tuple[float, ...]:
    """Quantiles without interpolation: np.percentile costs more than all else here."""
    ordered = np.sort(values)
    return tuple(float(ordered[round(share * (len(ordered) - 1))]) for share in shares)


def _over_rim(world: WorldModel, number: int, axis: Array, floor: float) -> tuple[Array, Array]:
    """Grasps of a wall, one finger inside: along rays from the middle, at the highest place of each.

    Returns:
        (C, 5) grasps; (C,) 0..1 whether the wall is as thin there as elsewhere: where it is not, there is a handle behind it.
    """
    heights, gripper = world.heights, world.scene.limits.gripper
    step = heights.cell / 2
    radius = np.arange(0.0, float(np.hypot(*world.scene.objects[number].size[:2])) / 2 + 0.03, step)
    rows, walls = [], []
    angles = np.arange(24) * 2 * np.pi / 24
    ray = axis + radius[None, :, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, None, :]
    profiles = heights.own_at(torch.full((len(angles),), number), torch.from_numpy(ray.astype(np.float32))).numpy()
    for angle, profile in zip(angles, profiles, strict=True):
        peak = float(profile.max())
        if not np.isfinite(peak):
            continue
        crest = int(np.flatnonzero(profile > peak - 0.004).mean().round())
        for depth in DEPTHS:
            tip = max(peak - depth, floor)
            below = np.flatnonzero(profile <= tip)
            inner, outer = below[below < crest], below[below > crest]
            if peak - tip < 0.010 or len(inner) == 0 or len(outer) == 0:
                continue
            first, last = radius[inner[-1]] + step / 2, radius[outer[0]] - step / 2
            for clearance in CLEARANCES:
                width = last - first + 2 * clearance
                if width <= gripper.max_opening:
                    x, y = axis + (first + last) / 2 * np.array([np.cos(angle), np.sin(angle)])
                    rows.append((x, y, tip, _half_turn(angle), width))
                    walls.append((depth, last - first))
    if not rows:
        return np.zeros((0, 5)), np.zeros(0)
    depths, thickness = np.array(walls).T
    tried, which = np.unique(depths, return_inverse=True)
    usual = np.array([np.median(thickness[depths == depth]) for depth in tried])[which]
    return np.array(rows, dtype=np.float64), np.exp(-((np.maximum(thickness - usual - heights.cell, 0) / 0.006) ** 2))


def _squareness(points: Points, pick: Array, gripper: Gripper) -> Array:
    """(C,) 0..1 how squarely the closing axis meets the surfaces that the fingers would touch: by their mean direction and its spread."""
    if len(points) < 40:
        return np.full(len(pick), 0.7)
    x, y, z = points.astype(np.float64).T
    cos, sin = np.cos(pick[:, 3]), np.sin(pick[:, 3])
    right, up = x - pick[:, :1], y - pick[:, 1:2]
    along, across = right * cos[:, None] + up * sin[:, None], up * cos[:, None] - right * sin[:, None]
    held = (np.abs(across) < gripper.finger_width / 2) & (np.abs(along) < pick[:, 4:] / 2) & (z > pick[:, 2:3]) & (z < pick[:, 2:3] + 0.02)
    grasp, point = np.nonzero(held)  # pairs of a grasp and a point between its fingers
    along = along[grasp, point]
    count = np.bincount(grasp, minlength=len(pick))
    enough = count >= 4
    ordered, start = along[np.lexsort((along, grasp))], (np.cumsum(count) - count)[enough]
    first, last = np.full(len(pick), np.nan), np.full(len(pick), np.nan)
    first[enough] = ordered[start + np.rint(0.02 * (count[enough] - 1)).astype(np.int64)]
    last[enough] = ordered[start + np.rint(0.98 * (count[enough] - 1)).astype(np.int64)]
    touched, which = np.unique(point, return_inverse=True)
    normals = _normals(points, touched)[which]
    turned_x = normals[:, 0] * cos[grasp] + normals[:, 1] * sin[grasp]
    turned_y = normals[:, 1] * cos[grasp] - normals[:, 0] * sin[grasp]
    sides = (along < first[grasp] + 0.004, along > last[grasp] - 0.004)
    worst = np.minimum(*(_square_on(turned_x[side], turned_y[side], grasp[side], len(pick)) for side in sides))
    return np.where(enough, worst, 0.5)


def _square_on(x: Array, y: Array, grasp: npt.NDArray[np.int64], grasps: int) -> Array:
    """(grasps,) 0.05..1 for the normals (P,) of one side of each, along and across its closing axis. Doubled angles make a normal and its
    opposite one direction; points of an upper edge have normals that point up, so only what is left of them in the plane counts."""
    weight, angle = np.hypot(x, y), 2 * np.arctan2(y, x)
    total, real, imaginary = (np.bincount(grasp, part * weight, grasps) for part in (np.ones_like(angle), np.cos(angle), np.sin(angle)))
    mean = (real + 1j * imaginary) / np.maximum(total, 1e-6)
    return np.asarray(np.maximum(0.05, np.exp(-((np.angle(mean) / 2 / SQUARE_WITHIN) ** 2)) * np.minimum(1.0, np.abs(mean) / 0.7)))


def _normals(points: Points, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(A, 3) unit surface normals (of either sign) at points[at], from the nearest neighbours."""
    neighbours = points[cKDTree(points).query(points[at], k=min(14, len(points)))[1]].astype(np.float64)
    centred = neighbours - neighbours.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.eigh(centred.transpose(0, 2, 1) @ centred)[1][..., 0])


def _suction_grasps(world: WorldModel, number: int) -> tuple[Array, Array]:
    """Candidates (C, 5) with width 0 and quality (C,) on flat patches."""
    heights, gripper = world.heights, world.scene.limits.gripper
    i, j = (heights.own[number] > -torch.inf).nonzero(as_tuple=True)
    xy = torch.stack([i, j], dim=-1).double() * heights.cell + torch.from_numpy(heights.origin)
    xy = xy[((i % 2) == 0) & ((j % 2) == 0)]
    if len(xy) == 0:
        return np.zeros((0, 5)), np.zeros(0)
    cells = finger_cells(gripper, torch.zeros(len(xy)), grow=0.002)
    surface = heights.own_at(torch.full((len(xy),), number), cells + xy.float()[:, None]).double()
    middle = surface.median(dim=1).values
    uneven = (surface - middle[:, None]).abs().amax(dim=1)
    tool = torch.cat([xy, middle[:, None], torch.zeros(len(xy), 1)], dim=1)
    fingers, palm = gripper_penetration(heights, gripper, torch.full((len(xy),), -1), tool, torch.zeros(len(xy)))
    free = (uneven < LIP) & (fingers < 0) & (palm < -0.002)
    away = (xy - world.centers[number, :2]).norm(dim=1)
    quality = torch.exp(-((away / 0.04) ** 2)) * torch.exp(-uneven / LIP / 2) * free
    pick = torch.cat([tool, torch.zeros(len(xy), 1, dtype=torch.float64)], dim=1)
    good = quality > 0
    return pick[good].numpy(), quality[good].numpy()


def _diverse(pick: Array, quality: Array) -> tuple[Array, Array]:
    """The best few that are unlike each other: greedy, each next one by quality times distance from those that were taken."""
    feature = np.concatenate(
        [pick[:, :3] / [0.03, 0.03, 0.015], 0.8 * np.stack([np.cos(2 * pick[:, 3]), np.sin(2 * pick[:, 3])], axis=1)], axis=1
    )
    taken: list[int] = []
    fresh = np.ones(len(pick))
    while len(taken) < min(MOST_PER_OBJECT, len(pick)):
        best = int(np.argmax(quality * fresh))
        if quality[best] * fresh[best] <= 1e-3:
            break
        taken.append(best)
        fresh = np.minimum(fresh, 1 - np.exp(-((feature - feature[best]) ** 2).sum(axis=1)))
    order = sorted(taken, key=lambda row: -quality[row])
    return pick[order], quality[order]


def _half_turn(yaw: float) -> float:
    """The same closing axis with yaw in [-pi/2, pi/2): the fingers are alike."""
    return float((yaw + np.pi / 2) % np.pi - np.pi / 2)


def nearest_turn(pick_yaw: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Pick and place yaw (N,) for a turn of the object (N,) such that neither is far from zero: fingers are alike, so either may start.

    Args:
        pick_yaw: (N,) in [-pi/2, pi/2). turn: (N,) in [-pi, pi].
    """
    choices: Sequence[Tensor] = (pick_yaw, pick_yaw + torch.pi, pick_yaw - torch.pi)
    worst = torch.stack([torch.maximum(choice.abs(), (choice + turn).abs()) for choice in choices])
    # The first of equals: the one that needs no half turn.
    start = torch.stack(list(choices)).gather(0, worst.argmin(dim=0, keepdim=True))[0]
    return start, start + turn
