"""Object-level world model: what the scene, and every camera's view of it, would be after an object was put elsewhere.

No mesh and no renderer: an object is its seen points, a motion moves them, and a view is the observed image with them redrawn.
Everything is batched over N proposals. Each prediction depends on the scene and on the one view it is about, never on other
views, so that a process that holds a single view predicts exactly what one with all of them predicts; the one exception are pictures,
which take pixels from all views that are there. How a view is predicted: `predicted_masks` (cells) and `predicted_view` (pictures).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock, RLock
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pcm_ros.tasks.manipulation.height_field import HeightField, build_height_field
from pcm_ros.tasks.manipulation.predicted_masks import PredictedMasks, StaticView, make_static, predict_masks
from pcm_ros.tasks.manipulation.predicted_view import Image, PredictedView, pixels_of, predict_view, without_object
from pcm_ros.tasks.manipulation.relations import ground_offset
from pcm_ros.tasks.manipulation.scene import Points, Scene, inside
from pcm_ros.tasks.manipulation.workcell import Array, Observation, View

MOST_POINTS = 200
# Of FOOTPRINT_SAMPLES cells, how many may lie higher than what the object rests on: noise, or a grazed edge.
STRAY_CELLS = 4
# Reduced views have about this many columns: 320 pixels become 80 at a stride of 4.
REDUCED_WIDTH = 80


class PlanningContext(Protocol):
    """What generator and geometric scorers read of a context."""

    @property
    def scene(self) -> Scene: ...

    @property
    def observation(self) -> Observation: ...

    @property
    def failed(self) -> Sequence[tuple[float, float, float, float]]: ...


@dataclass(frozen=True)
class PredictedScene:
    """Where every object is after each proposal, in world axes and in the speaker's.

    Attributes:
        center: (N, M, 3) float64 world metres, middle of the bounding box.
        bottom: (N, M) float64 world metres, lowest point.
        size: (N, M, 3) float64 extents along (left, forward, up), metres.
        ground: (N, M, 2) float64 centre along (left, forward), metres.
    """

    center: Tensor
    bottom: Tensor
    size: Tensor
    ground: Tensor


def thin(points: Points, most: int) -> tuple[Points, float]:
    """Evenly spread subset of at most `most` points (P, 3), one per voxel, and the voxel's edge in metres. Deterministic."""
    if len(points) <= most:
        return points, max(float(np.sqrt(_surface_area(points) / max(len(points), 1))), 0.002)
    low, size = points.min(axis=0), 0.004
    while True:
        cells = np.floor((points - low) / size).astype(np.int64)
        key = (cells[:, 0] << 40) + (cells[:, 1] << 20) + cells[:, 2]
        first = np.unique(key, return_index=True)[1]
        if len(first) <= most:
            return points[np.sort(first)], size
        size *= 1.12


def _surface_area(points: Points) -> float:
    """Rough seen area of a point set, square metres: top and two sides of its box."""
    x, y, z = np.maximum(points.max(axis=0) - points.min(axis=0), 0.004)
    return float(x * y + (x + y) * z)


class WorldModel:
    """Predicts the outcome of motions of single objects, batched.

    A motion is (dx, dy, dz, dyaw): rotation by dyaw about the vertical through the object's centre, then the translation; metres, radians.

    Args:
        scene: what perception saw.
        observation: the views to predict; may hold fewer views than perception saw. None: no view can be predicted.
    """

    def __init__(self, scene: Scene, observation: Observation | None = None) -> None:
        self.scene = scene
        self.observation = observation
        self._static: dict[tuple[str, int], StaticView] = {}
        self._emptied: dict[tuple[str, int], PredictedView] = {}
        self._pixels: dict[tuple[str, int], list[tuple[bool, tuple[Points, Image]]]] = {}
        self._labels: dict[str, npt.NDArray[np.int64]] = {}
        self._lock = RLock()
        self._moved: tuple[Tensor, Tensor, Tensor] | None = None
        self._predicted: tuple[Tensor, Tensor, PredictedScene] | None = None

    def renamed(self, labels: Sequence[tuple[str, float]]) -> WorldModel:
        """The same with other names of the objects: (label, confidence) of each. All else that was worked out stays."""
        named = replace(
            self.scene,
            objects=tuple(
                replace(thing, label=label, label_confidence=confidence)
                for thing, (label, confidence) in zip(self.scene.objects, labels, strict=True)
            ),
        )
        model = WorldModel(named, self.observation)
        with self._lock:
            geometry = {name: value for name, value in self.__dict__.items() if name not in model.__dict__}  # cached properties
            model.__dict__.update(geometry, _static=dict(self._static), _emptied=dict(self._emptied), _labels=dict(self._labels))
        return model

    @property
    def count(self) -> int:
        """Number of objects M."""
        return len(self.scene.objects)

    @cached_property
    def heights(self) -> HeightField:
        """Height fields of the scene, made at first use."""
        return build_height_field(self.scene)

    @cached_property
    def centers(self) -> Tensor:
        """(M, 3) float64 object centres, world metres."""
        return torch.from_numpy(np.array([thing.center for thing in self.scene.objects]).reshape(-1, 3))

    @cached_property
    def bottoms(self) -> Tensor:
        """(M,) float64 world height of each object's lowest point, metres."""
        return torch.tensor([footprint.bottom for footprint in self.heights.footprints], dtype=torch.float64)

    @cached_property
    def tops(self) -> Tensor:
        """(M,) float64 world height of each object's highest point, metres."""
        return torch.tensor([float(np.percentile(thing.points[:, 2], 99.5)) for thing in self.scene.objects], dtype=torch.float64)

    @cached_property
    def radii(self) -> Tensor:
        """(M,) float64 metres from each object's centre to the outermost point of its silhouette from above."""
        if self.count == 0:
            return torch.zeros(0, dtype=torch.float64)
        return self.footprints[..., :2].norm(dim=-1).amax(dim=1).double()

    @cached_property
    def footprints(self) -> Tensor:
        """(M, S, 3) float32 undersides, see Footprint.samples."""
        if self.count == 0:
            return torch.zeros(0, 1, 3)
        return torch.from_numpy(np.stack([footprint.samples for footprint in self.heights.footprints]))

    @cached_property
    def cloud(self) -> tuple[Tensor, Array]:
        """(M, P, 3) float32 points relative to the centre, thinned, padded by repetition; (M,) their spacing, metres."""
        clouds, spacing = [], []
        for thing in self.scene.objects:
            points, step = thin(thing.points, MOST_POINTS)
            clouds.append(points - thing.center.astype(np.float32))
            spacing.append(step)
        most = max((len(cloud) for cloud in clouds), default=1)
        padded = [cloud[np.arange(most) % len(cloud)] for cloud in clouds]
        return torch.from_numpy(np.array(padded, dtype=np.float32).reshape(-1, most, 3)), np.array(spacing)

    # What happens

    def support_height(self, category: Tensor, xy: Tensor, yaw: Tensor) -> Tensor:
        """Where an object's lowest point comes to rest when it is let down at a place.

        The highest of (surface below - underside) over its footprint, a few stray cells left out: the table, the top of a block, the
        floor of a bowl if it fits in, the bowl's rim if not.

        Args:
            category: (N,) int64 which object. xy: (N, 2) world metres, its centre. yaw: (N,) radians it is turned by.

        Returns:
            (N,) float64 world metres.
        """
        footprint = self.footprints[category]
        surface = self.heights.rest_at(category, turned(footprint[..., :2], yaw) + xy.float()[:, None])
        rests = surface - footprint[..., 2]
        return rests.topk(STRAY_CELLS + 1, dim=1).values[:, -1].double()

    def motions(self, category: Tensor, parameters: Tensor) -> Tensor:
        """(N, 4) float64 predicted motions for targets parameters (N, 3) = x, y, yaw (world metres, radians) of objects category (N,)."""
        height = self.support_height(category, parameters[:, :2], parameters[:, 2])
        shift = parameters[:, :2] - self.centers[category, :2]
        return torch.cat([shift, (height - self.bottoms[category])[:, None], parameters[:, 2:3]], dim=1)

    def moved_points(self, category: Tensor, motion: Tensor) -> Tensor:
        """(N, P, 3) float32 world points of object category[n] after motion[n]; P <= MOST_POINTS, points may repeat.

        The last result is kept: the scorers of all views ask for the same one. Do not write into it.
        """
        with self._lock:
            if self._moved is None or self._moved[0] is not category or self._moved[1] is not motion:
                self._moved = (category, motion, self._move(category, motion))
            return self._moved[2]

    def _move(self, category: Tensor, motion: Tensor) -> Tensor:
        cloud = self.cloud[0][category]
        center = (self.centers[category] + motion[:, :3]).float()
        return torch.cat([turned(cloud[..., :2], motion[:, 3]), cloud[..., 2:]], dim=-1) + center[:, None]

    def predict_scene(self, category: Tensor, motion: Tensor) -> PredictedScene:
        """Centres and extents of all objects after each motion (N, 4) of object category (N,). The last result is kept: read only."""
        with self._lock:
            if self._predicted is None or self._predicted[0] is not category or self._predicted[1] is not motion:
                self._predicted = (category, motion, self._predict_scene(category, motion))
            return self._predicted[2]

    def _predict_scene(self, category: Tensor, motion: Tensor) -> PredictedScene:
        limits, rows = self.scene.limits, torch.arange(len(category))
        center = self.centers.expand(len(category), -1, -1).clone()
        bottom = self.bottoms.expand(len(category), -1).clone()
        size = self._sizes.expand(len(category), -1, -1).clone()
        moved = self.moved_points(category, motion)
        low, high = moved.amin(1), moved.amax(1)
        xy = (low + high)[:, :2].double() / 2
        center[rows, category] = torch.cat([xy, (self.centers[category, 2] + motion[:, 2])[:, None]], dim=1)
        bottom[rows, category] += motion[:, 2]
        flat = ground_offset(limits, moved[..., :2].double())
        size[rows, category, :2] = flat.amax(1) - flat.amin(1)
        return PredictedScene(center, bottom, size, ground_offset(limits, center[..., :2]))

    @cached_property
    def _sizes(self) -> Tensor:
        """(M, 3) extents of the objects as they are, along (left, forward, up)."""
        sizes = torch.zeros(self.count, 3, dtype=torch.float64)
        for number, thing in enumerate(self.scene.objects):
            flat = ground_offset(self.scene.limits, torch.from_numpy(thing.points[:, :2]).double())
            sizes[number, :2] = flat.amax(0) - flat.amin(0)
            sizes[number, 2] = self.tops[number] - self.bottoms[number]
        return sizes

    # What is seen

    def view(self, name: str) -> View:
        """The observed view of that name. Raises KeyError with the names there are."""
        views = () if self.observation is None else self.observation.views
        for view in views:
            if view.name == name:
                return view
        raise KeyError(f"the observation has no view '{name}'; it has {[view.name for view in views]}")

    def labels(self, name: str) -> npt.NDArray[np.int64]:
        """(H, W) int64 number of the object seen at each pixel of a view; -1: table, background or unknown."""
        if name not in self._labels:
            self._labels[name] = self._label(self.view(name).points())
        return self._labels[name]

    def _label(self, points: Points) -> npt.NDArray[np.int64]:
        """Number of the object (...) nearest to each point (..., 3), -1 where none is near."""
        flat = points.reshape(-1, 3)
        labels = np.full(len(flat), -1, dtype=np.int64)
        if self.count:
            low = np.min([thing.low for thing in self.scene.objects], axis=0) - 0.02
            high = np.max([thing.high for thing in self.scene.objects], axis=0) + 0.02
            low[2] = max(low[2], self.scene.table_height + 0.003)
            near = np.flatnonzero(inside(flat, low, high))
            tree, owner, reach = self._search
            distance, neighbour = tree.query(flat[near], distance_upper_bound=float(reach.max()))
            found = np.isfinite(distance)
            who = owner[neighbour[found]]
            close = distance[found] < reach[who]
            labels[near[found][close]] = who[close]
        return labels.reshape(points.shape[:-1])

    @cached_property
    def _search(self) -> tuple[cKDTree, npt.NDArray[np.int64], Array]:
        owner = np.concatenate([np.full(len(thing.points), number, dtype=np.int64) for number, thing in enumerate(self.scene.objects)])
        reach = np.maximum(0.012, 1.5 * self.heights.spacing)
        return cKDTree(np.concatenate([thing.points for thing in self.scene.objects])), owner, reach

    def static_view(self, name: str, stride: int | None = None) -> StaticView:
        """The reduced view with each object taken away in turn; made at first use and kept.

        Where the taken object was, the reduced view shows the other objects' points, and behind them the table's plane.
        """
        view = self.view(name)
        stride = stride or max(1, round(view.depth.shape[1] / REDUCED_WIDTH))
        if (name, stride) not in self._static:
            self._static[name, stride] = make_static(self, view, stride)
        return self._static[name, stride]

    def predict_masks(self, name: str, category: Tensor, motion: Tensor, stride: int | None = None) -> PredictedMasks:
        """What would be seen of the moved object in one view, for N proposals.

        Args:
            name: the view's name.
            category: (N,) int64, which object moves. motion: (N, 4) float64, how.
            stride: pixels per cell of the reduced view; None: about REDUCED_WIDTH columns.

        Returns:
            Masks and figures at the reduced size. Self-occlusion plays no role for a silhouette; occlusion by all else does.

        Raises:
            KeyError: the observation has no such view.
        """
        return predict_masks(self, name, category, motion, stride)

    def predict_image(self, name: str, category: int, motion: npt.ArrayLike) -> Image:
        """The observed image as it would look after one motion; for vision-language scorers and for people.

        The object's old place is filled from its surroundings, other objects' points are drawn where it hid them, and its own pixels
        of all views are drawn at the new place, z-buffered.

        Args:
            name: the view's name. category: which object moves. motion: (4,) dx, dy, dz, dyaw.

        Returns:
            (H, W, 3) uint8, red first.
        """
        return predict_view(self, name, category, motion).rgb

    def pixels_of(self, category: int, name: str) -> list[tuple[bool, tuple[Points, Image]]]:
        """See predicted_view.pixels_of; gathered at first use and kept."""
        key = (name, category)
        with self._lock:
            if key not in self._pixels:
                self._pixels[key] = pixels_of(self, category, name)
            return self._pixels[key]

    def emptied_view(self, name: str, category: int) -> PredictedView:
        """The view if object `category` were not there; made at first use and kept."""
        key = (name, category)
        with self._lock:
            found = self._emptied.get(key)
        if found is None:
            found = without_object(self, name, category)
            with self._lock:
                self._emptied[key] = found
        return found


_recent: deque[WorldModel] = deque(maxlen=4)
_making = Lock()


def world_model(context: PlanningContext) -> WorldModel:
    """The world model of a context's scene and observation; the last few are kept, so that scorers of one process share one."""
    with _making:  # scorers run in threads
        for model in _recent:
            if model.scene is context.scene and model.observation is context.observation:
                return model
        model = WorldModel(context.scene, context.observation)
        _ = model.footprints, model.bottoms, model.tops, model.cloud, model._sizes
        _recent.append(model)
        return model


def keep(model: WorldModel) -> None:
    """Let `world_model` find this one for its scene and observation: what perception had to work out is not worked out again."""
    _ = model.footprints, model.bottoms, model.tops, model.cloud, model._sizes
    with _making:
        _recent.append(model)


def turned(xy: Tensor, yaw: Tensor) -> Tensor:
    """Positions (N, S, 2) float32 turned by yaw (N,) about the origin."""
    cos, sin = torch.cos(yaw).float()[:, None], torch.sin(yaw).float()[:, None]
    x, y = xy[..., 0], xy[..., 1]
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
