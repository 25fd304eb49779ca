"""Experts that read a finished picture: which things are in it, region by region, and whether they are those of the prompt.

They find regions with the segmenter and name them as the questions about clips do (`video_qa`): colour and kind apart, both must be true,
so that a pair that was never seen together is known. Regions are discrete, so these experts do not guide; they choose among pictures.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.sight.frames import clip_of
from pcm_ros.sight.things import Sight, halves, look
from pcm_ros.tasks.image_generation.prompt import Prompt, Relation

MISSING, UNASKED = 6.0, 3.0  # nats for a thing that is not there, and for a region that nobody asked for
APART, LEVEL, ABOVE = 0.10, 0.08, 0.05  # shares of the picture's side
FORESHORTENED = 1.4  # distances on the table by those in the picture, from the front to the back: of a camera 45 degrees above it
SOFT = 0.03
AS_ONE = 1.0  # nats for two things that are seen as one: less is known of them
LEAST_SIDE = 256  # pixels: what is smaller is enlarged before the models look at it
KEPT = 64


class Regions:
    """What the segmenter finds in pictures, kept for the newest ones: all readers look at the same regions. Threads may share it."""

    def __init__(self, segmenter: TextSegmenter) -> None:
        self._segmenter, self._lock = segmenter, threading.Lock()
        self._kept: OrderedDict[bytes, Sight] = OrderedDict()
        self._halves: OrderedDict[str, Sight] = OrderedDict()

    def of(self, picture: npt.NDArray[np.uint8]) -> Sight:
        """Of (H, W, 3) uint8, as a clip of one frame."""
        key = picture.tobytes()
        with self._lock:
            if key not in self._kept:
                longest = max(picture.shape[:2])
                if longest < LEAST_SIDE:
                    scale = LEAST_SIDE / longest
                    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
                sight = look(clip_of([picture], count=1), self._segmenter)
                assert sight is not None  # nothing halts it
                self._kept[key] = sight
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def halves_of(self, sight: Sight) -> Sight:
        """See `halves`; of a picture that was looked at here."""
        with self._lock:
            if sight.key not in self._halves:
                self._halves[sight.key] = halves(sight)
                while len(self._halves) > KEPT:
                    self._halves.popitem(last=False)
            return self._halves[sight.key]


class RegionReader(Protocol):
    """Who says how likely a phrase names a thing."""

    def nats(self, sight: Sight, phrases: Sequence[str]) -> Tensor:
        """(M, K) -log P(phrase k is right for thing m), >= 0. NaN: it was not looked at."""
        ...


class ReadingExpert:
    """Reads the regions of a picture by what one or several image-text models say of them.

    E in nats, >= 0: the things of the prompt, each as often as it is asked for, are assigned to regions so that the sum of their nats
    (`RegionReader`) is least; MISSING at most for each, UNASKED for each region that is left, and for each relation softplus of how far the
    middles of the two regions are from it, in units of SOFT of the picture's side (MISSING where one of them is not there); of several
    alike things the one that is farthest from it counts. Two things of which one is on or in the other may be one region too, whose halves
    are then read apart.

    Wrong where regions are: things that touch are at times one region to the segmenter, and a thing in two parts is two.

    Args:
        name: of the expert. reader: who names regions. regions: shared by the readers of a painter.
    """

    cost, differentiable = 0.2, False

    def __init__(self, name: str, reader: RegionReader, regions: Regions, prompt: Prompt) -> None:
        self.name, self._reader, self._regions, self._prompt = name, reader, regions, prompt
        self._slots = [number for number, count in enumerate(prompt.counts) for _ in range(count)]

    def energy(self, batch: Batch, context: object) -> Tensor:
        """(N,) float64."""
        images = batch.extras["image"].detach().clamp(-1, 1)
        pictures = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return torch.tensor([self._read(self._regions.of(picture)) for picture in pictures], dtype=torch.float64)

    def _read(self, sight: Sight) -> float:
        if not sight.things:
            return MISSING * (len(self._slots) + len(self._prompt.relations))
        costs = self._costs(sight, self._slots)
        energy, place = self._assigned(costs)
        middles: dict[int, list[npt.NDArray[np.float64]]] = {}
        for slot, region in place.items():
            middles.setdefault(self._slots[slot], []).append(sight.middles[0, region])
        least = energy + sum(self._misplaced(relation, middles) for relation in self._prompt.relations)
        for relation in self._prompt.relations:
            if relation.word in ("on", "in"):
                least = min(least, self._as_one(sight, costs, relation))
        return least

    def _costs(self, sight: Sight, things: Sequence[int]) -> npt.NDArray[np.float64]:
        """(len(things), M) nats for each of these things of the prompt to be each thing that is seen."""
        nats = self._reader.nats(sight, self._prompt.things).double().nan_to_num(MISSING).numpy()
        return np.asarray(np.minimum(nats[:, list(things)].T, MISSING))

    @staticmethod
    def _assigned(costs: npt.NDArray[np.float64]) -> tuple[float, dict[int, int]]:
        """Nats of the cheapest assignment of slots to regions, and slot -> region."""
        slots, regions = linear_sum_assignment(costs)
        missing, unasked = costs.shape[0] - len(slots), costs.shape[1] - len(regions)
        energy = float(costs[slots, regions].sum()) + MISSING * missing + UNASKED * unasked
        return energy, dict(zip(slots.tolist(), regions.tolist(), strict=True))

    def _as_one(self, sight: Sight, costs: npt.NDArray[np.float64], relation: Relation) -> float:
        """The energy if the two things of a relation are one region, what is on or in the other one its upper half."""
        count = len(sight.things)
        parts = self._costs(self._regions.halves_of(sight), (relation.subject, relation.object))
        both = parts[0, :count] + parts[1, count:] + AS_ONE
        gone = {self._slots.index(thing) for thing in (relation.subject, relation.object)}
        others = [slot for slot in range(len(self._slots)) if slot not in gone]
        energy, place = self._assigned(np.vstack([both, costs[others]]))
        middles: dict[int, list[npt.NDArray[np.float64]]] = {}
        for slot, region in place.items():
            for thing in (self._slots[others[slot - 1]],) if slot else (relation.subject, relation.object):
                middles.setdefault(thing, []).append(sight.middles[0, region])
        energy += sum(self._misplaced(other, middles) for other in self._prompt.relations if other is not relation)
        alike = self._prompt.counts[relation.subject] - 1  # those beside the one region have their places too
        rest = [sight.middles[0, region] for slot, region in place.items() if slot and self._slots[others[slot - 1]] == relation.subject]
        cost = most_misplaced(relation, {**middles, relation.subject: rest}) if alike else 0.0
        return energy + max(cost, MISSING if len(rest) < alike else 0.0)

    def _misplaced(self, relation: Relation, middles: Mapping[int, Sequence[npt.NDArray[np.float64]]]) -> float:
        """`most_misplaced`, and at least MISSING where one of the alike things is not there."""
        lacking = any(len(middles.get(thing, ())) < self._prompt.counts[thing] for thing in (relation.subject, relation.object))
        return max(most_misplaced(relation, middles), MISSING if lacking else 0.0)


def most_misplaced(relation: Relation, middles: Mapping[int, Sequence[npt.NDArray[np.float64]]]) -> float:
    """Nats >= 0 that a relation costs where things may be there several times: of the alike thing that is farthest from it. Each has to be
    left, right, in front of or behind all of the others, but on or in one of them only.

    Args:
        middles: of things by number, see `misplaced`; MISSING where one has none.
    """
    choose = min if relation.word in ("on", "in") else max
    costs = [
        choose(
            (misplaced(relation, {relation.subject: one, relation.object: other}) for other in middles.get(relation.object, ())),
            default=MISSING,
        )
        for one in middles.get(relation.subject, ())
    ]
    return max(costs, default=MISSING)


def misplaced(relation: Relation, middles: dict[int, npt.NDArray[np.float64]]) -> float:
    """Nats that a relation costs: middles (2,) of things by number, shares of width and height, seen from the front and from above.

    A direction is where the thing mainly is: farther that way than across, as far as a picture tells."""
    if relation.subject not in middles or relation.object not in middles:
        return MISSING
    right, below = middles[relation.subject] - middles[relation.object]
    across, along = abs(right), FORESHORTENED * abs(below)
    missing = {
        "left": max(right + APART, along - across),
        "right": max(APART - right, along - across),
        "front": max(LEVEL - below, across - along),
        "behind": max(below + LEVEL, across - along),
        "on": max(below + ABOVE, abs(right) - LEVEL),
        "in": max(abs(below) - APART, abs(right) - LEVEL),
    }[relation.word]
    return float(np.logaddexp(0, missing / SOFT))
