"""The things in a clip: regions that the segmenter holds to be objects, followed from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pcm_ros.models.segmentation import ImageFeatures, TextSegmenter
from pcm_ros.sight.frames import Clip

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
OBJECT = 0.5  # objectness from which a cell is taken for an object's
ALIKE = 0.80  # cosine of neighbouring cells of one object
VOTES_APART = 0.05  # metres between the centres for which neighbouring cells of one object vote
LEAST_CELLS = 5
FARTHEST = 0.30  # of the picture's width, that a thing may move from one frame to the next
SAME = 0.9  # cosine of the mean looks of one thing that was lost and found again
SEEN_SHARE = 0.35  # of the frames in which a thing must be seen to be one
MOST_THINGS = 12
MOVED = 0.020  # of the picture's width, that a thing's middle moves when it is as likely as not that it has moved
SPREAD = 0.005


@dataclass(frozen=True, eq=False)
class Region:
    """Cells (h, w) bool of one object in one frame, middle (2,) and extent (4,) left, top, right, bottom as shares of the width and the
    height, and the mean embedding (D,) of unit length."""

    cells: Mask
    middle: Floats
    box: Floats
    embedding: Floats


@dataclass(frozen=True, eq=False)
class Thing:
    """One object: its regions, frame -> region."""

    regions: dict[int, Region]

    @property
    def last(self) -> Region:
        return self.regions[max(self.regions)]


@dataclass(frozen=True, eq=False)
class Sight:
    """What was made of a clip.

    Attributes:
        clip: the clip. features: of each frame. things: M things, the longest seen first.
        middles: (T, M, 2) shares of width and height, NaN where a thing is not seen.
        moves: (M,) how likely it is that a thing moves; NaN where it is seen in one frame only. onset: (M,) the frame in which it begins
            to; T where it never does, or is not seen twice.
        part: "" or what of the things this is, see `halves`.
    """

    clip: Clip
    features: tuple[ImageFeatures, ...]
    things: tuple[Thing, ...]
    middles: Floats
    moves: Floats
    onset: npt.NDArray[np.int64]
    part: str = ""

    @property
    def key(self) -> str:
        """What models made of these things of these frames is kept under it."""
        return self.clip.key + self.part

    def mask(self, thing: int, frame: int) -> Mask:
        """(H, W) bool of a thing in a frame where it is seen."""
        height, width = self.clip.frames.shape[1:3]
        cells = self.things[thing].regions[frame].cells
        rows = np.arange(height) * cells.shape[0] // height
        columns = np.arange(width) * cells.shape[1] // width
        return np.asarray(cells[rows[:, None], columns[None]])

    def looks(self, thing: int, most: int) -> list[int]:
        """At most `most` frames that show the thing, spread over the clip, rather those in which it is large."""
        frames = sorted(self.things[thing].regions)
        parts = [part for part in np.array_split(frames, most) if len(part)]
        return [int(max(part, key=lambda frame: int(self.things[thing].regions[int(frame)].cells.sum()))) for part in parts]


def regions_of(features: ImageFeatures) -> list[Region]:
    """Objects in one image: neighbouring cells that look alike and vote for the same centre, largest first."""
    there = features.objectness.numpy() > OBJECT
    if there.sum() < LEAST_CELLS:
        return []
    embedding = features.embedding.permute(1, 2, 0)
    vote = features.vote.permute(1, 2, 0)
    h, w = there.shape
    number = np.arange(h * w).reshape(h, w)
    pairs = []
    for one, other in (((slice(None), slice(None, -1)), (slice(None), slice(1, None))), ((slice(None, -1),), (slice(1, None),))):
        alike = (embedding[one] * embedding[other]).sum(-1).numpy() > ALIKE
        together = (vote[one] - vote[other])[..., :2].norm(dim=-1).numpy() < VOTES_APART
        linked = there[one] & there[other] & alike & together
        pairs.append(np.stack([number[one][linked], number[other][linked]]))
    links = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(links.shape[1], dtype=np.int8), (links[0], links[1])), shape=(h * w, h * w))
    _, label = connected_components(graph, directed=False)
    label = np.where(there, label.reshape(h, w), -1)
    names, counts = np.unique(label[label >= 0], return_counts=True)
    found = []
    for name in names[np.argsort(-counts, kind="stable")][:MOST_THINGS]:
        cells = label == name
        size = int(cells.sum())
        if size < LEAST_CELLS or size > 0.4 * h * w:
            continue
        mean = embedding[torch.from_numpy(cells)].mean(dim=0)
        found.append(_region(cells, (mean / mean.norm().clamp_min(1e-6)).double().numpy()))
    return found


def _region(cells: Mask, embedding: Floats) -> Region:
    """Of cells (h, w), at least one of them."""
    h, w = cells.shape
    rows, columns = np.nonzero(cells)
    middle = np.array([(columns.mean() + 0.5) / w, (rows.mean() + 0.5) / h])
    box = np.array([columns.min() / w, rows.min() / h, (columns.max() + 1) / w, (rows.max() + 1) / h])
    return Region(cells, middle, box, embedding)


def halves(sight: Sight) -> Sight:
    """The upper halves of all things, then the lower ones, as 2 M things: where one stands on another, the segmenter often takes both for
    one. A thing of a single row of cells is both of its halves."""
    parts: list[list[Thing]] = [[], []]
    for thing in sight.things:
        cut: list[dict[int, Region]] = [{}, {}]
        for frame, region in thing.regions.items():
            rows = np.nonzero(region.cells)[0]
            middle = float(np.median(rows))
            above = np.arange(len(region.cells))[:, None] < middle
            for half, inside in enumerate((above, ~above)):
                cells = region.cells & inside if (region.cells & inside).any() else region.cells
                cut[half][frame] = _region(cells, region.embedding)
        for half in (0, 1):
            parts[half].append(Thing(cut[half]))
    things = (*parts[0], *parts[1])
    middles = np.full((len(sight.clip.frames), len(things), 2), np.nan)
    for m, thing in enumerate(things):
        for t, region in thing.regions.items():
            middles[t, m] = region.middle
    return Sight(sight.clip, sight.features, things, middles, np.tile(sight.moves, 2), np.tile(sight.onset, 2), "/halves")


def nothing(clip: Clip) -> Sight:
    """What is made of a clip that was not looked at."""
    return Sight(clip, (), (), np.zeros((len(clip.frames), 0, 2)), np.zeros(0), np.zeros(0, dtype=np.int64))


def look(clip: Clip, segmenter: TextSegmenter, halt: Callable[[], bool] = lambda: False) -> Sight | None:
    """Find the things of a clip and follow them; None where `halt`, asked before each frame, said so."""
    features: tuple[ImageFeatures, ...] = ()
    regions: list[list[Region]] = []
    for frame in clip.frames:
        if halt():
            return None
        features += (segmenter.features(frame),)
        regions.append(regions_of(features[-1]))
    things = followed(regions)
    frames = len(clip.frames)
    middles = np.full((frames, len(things), 2), np.nan)
    for m, thing in enumerate(things):
        for t, region in thing.regions.items():
            middles[t, m] = region.middle
    moves, onset = motion_of(middles, clip.frames.shape[2] / clip.frames.shape[1])
    return Sight(clip, features, tuple(things), middles, moves, onset)


def followed(frames: Sequence[Sequence[Region]]) -> list[Thing]:
    """Regions of T frames put together to things: each frame's are assigned to the things so far by place and look."""
    things: list[Thing] = []
    for t, regions in enumerate(frames):
        if not regions:
            continue
        cost = np.array([[_cost(thing, region, t) for thing in things] for region in regions]).reshape(len(regions), len(things))
        rows, columns = linear_sum_assignment(np.minimum(cost, 10.0)) if things else (np.zeros(0, int), np.zeros(0, int))
        taken = set()
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if cost[row, column] < 1.0:
                things[column].regions[t] = regions[row]
                taken.add(row)
        things += [Thing({t: region}) for row, region in enumerate(regions) if row not in taken]
    least = max(1, round(SEEN_SHARE * len(frames)))
    lasting = [thing for thing in _joined(things) if len(thing.regions) >= least]
    return sorted(lasting, key=lambda thing: -len(thing.regions))[:MOST_THINGS]


def _joined(things: Sequence[Thing]) -> list[Thing]:
    """Things that were never seen together and look alike are one that was lost for a while; the longest seen takes in others first."""
    found: list[Thing] = []
    for thing in sorted(things, key=lambda thing: -len(thing.regions)):
        mean = sum(region.embedding for region in thing.regions.values())
        for other in found:
            own = sum(region.embedding for region in other.regions.values())
            alike = float(mean @ own) / float(np.linalg.norm(mean) * np.linalg.norm(own))  # type: ignore[operator]
            if not thing.regions.keys() & other.regions.keys() and alike > SAME:
                other.regions.update(thing.regions)
                break
        else:
            found.append(Thing(dict(thing.regions)))
    return found


def _cost(thing: Thing, region: Region, frame: int) -> float:
    """Below 1: they may be the same."""
    before = thing.last
    gap = min(frame - max(thing.regions), 3)
    far = float(np.hypot(*(region.middle - before.middle))) / (FARTHEST * gap)
    unlike = (1 - float(region.embedding @ before.embedding)) / 0.5
    size = abs(float(np.log(region.cells.sum() / before.cells.sum()))) / 2.5
    return 0.5 * far + 0.5 * unlike + 0.2 * size if far < 1 and unlike < 1 else 10.0


def motion_of(middles: Floats, aspect: float = 4 / 3) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Which things move, and from when on.

    Args:
        middles: (T, M, 2) as in `Sight`. aspect: width / height.

    Returns:
        (M,) probabilities, a logistic function of how far the middle gets from where it was in the first frames, NaN of what is not seen
        twice, and (M,) the first frame from which it is farther than a quarter of the farthest.
    """
    frames, count = middles.shape[:2]
    moves, onset = np.full(count, np.nan), np.full(count, frames, dtype=np.int64)
    for m in range(count):
        seen = np.flatnonzero(np.isfinite(middles[:, m, 0]))
        places = middles[seen, m] * np.array([1.0, 1 / aspect])
        if len(seen) < 2:
            continue
        smooth = np.stack(
            [np.median(places[max(0, i - 1) : i + 2], axis=0) if 0 < i < len(seen) - 1 else places[i] for i in range(len(seen))]
        )
        way = np.hypot(*(smooth - smooth[0]).T)
        farthest = float(way.max())
        moves[m] = 1 / (1 + np.exp(-(farthest - MOVED) / SPREAD))
        onset[m] = seen[int((way > max(farthest / 4, MOVED / 2)).argmax())] if farthest > MOVED / 2 else frames
    return moves, onset
