"""From calibrated RGB-D views to an object-level scene.

Depth gives the table (most frequent height) and what stands above it; the points of all views are fused in voxels; the segmenter's votes
(way to the object's centre) and pixel embeddings split what touches; regions that the segmenter calls background (an arm) are left out.
Nothing but images, depth and calibration is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.scene import SEEN_AROUND, Scene, SceneObject, inside
from pcm_ros.tasks.manipulation.vision import SideBySide, Vision
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation, View, WorkcellLimits
from pcm_ros.tasks.manipulation.world_model import WorldModel, keep

# Depth points that are enough to find the table.
ENOUGH_HEIGHTS = 20000


@dataclass(frozen=True)
class PerceptionConfig:
    """Parameters of perception; lengths in metres.

    Attributes:
        voxel: edge of a fusion voxel. clearance: points lower than this above the table are the table.
        neighbour: voxels nearer than this, or than two pixels, touch.
        vote_scale / embedding_scale: differences of voted centre and of embedding (1 - cosine) that count as one unit.
        split: parts further apart than so many units (average linkage) may be different objects, and are if the gap between them is
            `separation` times their spread or their embeddings differ by `unlike` units.
        majority: voxels around one that say to which of two touching objects it belongs.
        least_voxels: smaller regions are noise. least_objectness: regions below are background.
        most_objects / most_points: bounds on work.
    """

    voxel: float = 0.005
    clearance: float = 0.006
    neighbour: float = 0.0095
    vote_scale: float = 0.03
    embedding_scale: float = 0.35
    split: float = 1.0
    separation: float = 3.5
    unlike: float = 1.15
    majority: int = 24
    least_voxels: int = 14
    least_objectness: float = 0.35
    most_objects: int = 16
    most_points: int = 3000


@dataclass(frozen=True)
class _Voxels:
    """Fused voxels: points (P, 3), colours (P, 3), embeddings (P, D) unit, voted centres (P, 3), objectness (P,), and the size (P,) of the
    pixels that saw them, metres."""

    points: npt.NDArray[np.float32]
    colors: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    center: npt.NDArray[np.float32]
    objectness: npt.NDArray[np.float32]
    pitch: npt.NDArray[np.float32]

    def take(self, index: npt.NDArray[np.int64]) -> _Voxels:
        return _Voxels(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


class Perception:
    """Observation -> Scene.

    Args:
        vision: the segmenter with its per-image cache.
        limits: of the workcell.
        grounder: names the objects for people (labels); None leaves "object".
        vocabulary: the phrases that labels are chosen from.
    """

    def __init__(
        self,
        vision: Vision,
        limits: WorkcellLimits,
        config: PerceptionConfig = PerceptionConfig(),
        grounder: Grounder | None = None,
        vocabulary: Sequence[str] = (),
    ) -> None:
        self._vision, self._limits, self._config = vision, limits, config
        self._grounder, self._vocabulary = grounder, tuple(vocabulary)
        self._views = SideBySide()

    def perceive(self, observation: Observation) -> Scene:
        """The scene of an observation.

        Raises:
            InvalidObservation: no view has depth inside the workspace.
        """
        looked_at = self._views.begin(lambda view: self._vision.features(view.rgb), observation.views)
        table = table_height(observation, self._limits)
        looked_at()
        voxels = self._fuse(observation, table)
        groups = [] if voxels is None else self._split(voxels)
        objects = []
        for group in groups:
            assert voxels is not None
            part = voxels.take(group)
            within = inside(part.points.mean(axis=0)[None, :2], self._limits.workspace_min[:2], self._limits.workspace_max[:2])[0]
            if within and float(part.objectness.mean()) >= self._config.least_objectness:
                chosen = _thin(len(part.points), self._config.most_points)
                objects.append(SceneObject(part.points[chosen], np.clip(part.colors[chosen], 0, 255).astype(np.uint8)))
        objects.sort(key=lambda thing: -len(thing.points))
        objects = sorted(objects[: self._config.most_objects], key=lambda thing: tuple(np.round(thing.center, 3)))
        scene = Scene(tuple(objects), table, self._limits, observation.stamp_ns)
        return self._labelled(scene, observation)

    def _fuse(self, observation: Observation, table: float) -> _Voxels | None:
        low, high = np.asarray(self._limits.workspace_min, dtype=np.float64), np.asarray(self._limits.workspace_max, dtype=np.float64)
        low[2] = table + self._config.clearance
        low[:2] -= SEEN_AROUND  # what stands at the border is seen whole
        high[:2] += SEEN_AROUND

        def look(view: View) -> npt.NDArray[np.float32] | None:
            points = view.points()
            rows, cols = np.divmod(np.flatnonzero(inside(points.reshape(-1, 3), low, high)), points.shape[1])
            if not len(rows):
                return None
            features = self._vision.features(view.rgb)
            cell = features.cell[rows, cols]
            flat = points[rows, cols]
            vote = features.vote.flatten(1).numpy()[:, cell].T @ view.rotation.T.astype(np.float32)
            return np.concatenate(
                [
                    flat,
                    view.rgb[rows, cols].astype(np.float32),
                    flat + vote.astype(np.float32),
                    features.objectness.flatten().numpy()[cell][:, None],
                    (view.depth[rows, cols] / view.intrinsics[0, 0])[:, None],
                    features.embedding.flatten(1).numpy()[:, cell].T,
                ],
                axis=1,
                dtype=np.float32,
            )

        columns = [column for column in self._views.map(look, observation.views) if column is not None]
        if not columns:
            return None
        stacked = np.concatenate(columns)
        keys = np.floor((stacked[:, :3] - low) / self._config.voxel).astype(np.int64)
        span = keys.max(axis=0) + 1
        _, inverse, counts = np.unique((keys[:, 0] * span[1] + keys[:, 1]) * span[2] + keys[:, 2], return_inverse=True, return_counts=True)
        sums = (
            coo_matrix(
                (np.ones(len(stacked), dtype=np.float32), (inverse, np.arange(len(stacked)))), shape=(len(counts), len(stacked))
            ).tocsr()
            @ stacked
        )
        mean: npt.NDArray[np.float32] = (np.asarray(sums) / counts[:, None]).astype(np.float32)
        embedding = mean[:, 11:]
        embedding = (embedding / np.maximum(np.linalg.norm(embedding, axis=1, keepdims=True), 1e-6)).astype(np.float32)
        return _Voxels(mean[:, :3], mean[:, 3:6], embedding, mean[:, 6:9], mean[:, 9], mean[:, 10])

    def _split(self, voxels: _Voxels) -> list[npt.NDArray[np.int64]]:
        """Index groups, one an object: touching voxels first, then parts of differing votes and embeddings."""
        tree = cKDTree(voxels.points)
        # A coarse or distant camera sees points that lie farther apart.
        neighbour = max(self._config.neighbour, 2 * float(np.median(voxels.pitch)))
        pairs = tree.query_pairs(neighbour, output_type="ndarray")
        graph = coo_matrix((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(voxels.points),) * 2)
        count, label = connected_components(graph, directed=False)
        groups: list[npt.NDArray[np.int64]] = []
        for number in range(count):
            members = np.flatnonzero(label == number)
            if len(members) >= self._config.least_voxels:
                groups += self._split_touching(voxels, members)
        return groups

    def _split_touching(self, voxels: _Voxels, members: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        config, part = self._config, voxels.take(members)
        features = np.concatenate(
            [part.center / config.vote_scale, part.embedding * np.float32(np.sqrt(0.5) / config.embedding_scale)], axis=1
        )  # |difference of unit vectors|^2 / 2 = 1 - cosine
        sample = _thin(len(members), 240)
        if len(sample) < 2:
            return [members]
        clusters = fcluster(linkage(features[sample], method="average"), config.split, criterion="distance")
        sizes = np.bincount(clusters)
        large = [c for c in range(1, len(sizes)) if sizes[c] >= max(4, 0.06 * len(sample))]
        if len(large) <= 1:
            return [members]
        parts = _separate([features[sample][clusters == c] for c in large], config.separation, config.unlike)
        if len(parts) == 1:
            return [members]
        centers = np.stack([part.mean(axis=0) for part in parts])
        while True:
            found = ((features[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
            nearest = _by_majority(part.points, found, config.majority, len(centers))
            # What its surroundings outvote is no object but a seam, where the coarse features mix an object with what is behind it.
            before, after = (np.bincount(index, minlength=len(centers)) for index in (found, nearest))
            solid = (after >= 0.6 * before) & (after >= config.least_voxels)
            if solid.all() or not solid.any():
                break
            centers = centers[solid]
        if not solid.any():
            return [members]
        return [members[nearest == c] for c in range(len(centers)) if (nearest == c).sum() >= config.least_voxels]

    def _labelled(self, scene: Scene, observation: Observation) -> Scene:
        if self._grounder is None or not self._vocabulary or not scene.objects:
            return scene
        grounder, world = self._grounder, WorldModel(scene, observation)
        _ = world.heights  # once, not in each of the threads

        def look(view: View) -> tuple[list[int], npt.NDArray[np.float32]]:
            regions = regions_of(world.labels(view.name), scene.objects)
            return [region.number for region in regions], grounder.logits(view.rgb, regions, self._vocabulary).numpy()

        total = np.zeros((len(scene.objects), len(self._vocabulary)))
        seen = np.zeros((len(scene.objects), 1))
        for numbers, logits in self._views.map(look, observation.views):
            total[numbers] += logits
            seen[numbers] += 1
        mean = total / np.maximum(seen, 1)
        best = mean.argmax(axis=1)
        confidence = 1 / (1 + np.exp(-mean.max(axis=1)))
        names = [(self._vocabulary[best[i]], float(confidence[i])) if seen[i] else ("object", 0.0) for i in range(len(scene.objects))]
        world = world.renamed(names)
        keep(world)
        return world.scene


def table_height(observation: Observation, limits: WorkcellLimits) -> float:
    """World z of the table: the most frequent height inside the workspace, refined by the median around it.

    Raises:
        InvalidObservation: less than 200 depth points inside the workspace.
    """
    heights = []
    for view in observation.views:
        points = view.points().reshape(-1, 3)
        heights.append(points[inside(points, limits.workspace_min, limits.workspace_max), 2])
    z = np.concatenate(heights)
    if len(z) < 200:
        raise InvalidObservation(
            f"only {len(z)} depth points lie inside the workspace {limits.workspace_min}..{limits.workspace_max}; at least 200 are needed: "
            "check depth (metres, not millimetres), camera poses (optical frame) and the workspace's height range"
        )
    counts, edges = np.histogram(z[:: max(1, len(z) // ENOUGH_HEIGHTS)], bins=max(1, int(np.ceil(np.ptp(z) / 0.004))))
    peak = edges[counts.argmax()] + (edges[1] - edges[0]) / 2
    return float(np.median(z[np.abs(z - peak) < 0.006]))


def _separate(parts: list[npt.NDArray[np.float32]], separation: float, unlike: float) -> list[npt.NDArray[np.float32]]:
    """Join parts (P, 3 + D) = (voted centres, embeddings; units of one) that are pieces of one object rather than objects.

    Votes that fall short of the middle of a large object are spread evenly, and cutting an even spread in two gives pieces 1.7 times as far
    apart as the sum of their standard deviations: only a gap in between makes two objects, or looks that differ.

    Args:
        separation: distance of two parts' means, in sums of their standard deviations along the line between them, that is a gap.
        unlike: distance of mean embeddings from which parts are different objects in any case.
    """
    parts = list(parts)
    while len(parts) > 1:
        nearest, pair = separation, (0, 0)
        for i in range(len(parts)):
            for j in range(i + 1, len(parts)):
                way = parts[i].mean(axis=0) - parts[j].mean(axis=0)
                spread = float((parts[i] @ way).std() + (parts[j] @ way).std())
                gap = float(way @ way) / max(spread, 1e-9)
                if gap < nearest and float(np.linalg.norm(way[3:])) < unlike:
                    nearest, pair = gap, (i, j)
        if pair == (0, 0):
            break
        joined = np.concatenate([parts[pair[0]], parts[pair[1]]])
        parts = [part for number, part in enumerate(parts) if number not in pair] + [joined]
    return parts


def _by_majority(points: npt.NDArray[np.float32], part: npt.NDArray[np.int64], neighbours: int, parts: int) -> npt.NDArray[np.int64]:
    """Parts (P,) of points (P, 3) as most of their neighbours have them: at silhouettes, where one object ends before another in an image,
    the coarse features give a rim's points to what is behind it; in space they lie among their own."""
    around = cKDTree(points).query(points, k=min(neighbours, len(points)))[1]
    for _ in range(3):
        part = np.eye(parts, dtype=np.int32)[part[around]].sum(axis=1).argmax(axis=1)
    return part


def _thin(count: int, most: int) -> npt.NDArray[np.int64]:
    """Evenly spread indices 0..count-1, at most `most` of them."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)
