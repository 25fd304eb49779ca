"""A segmenter and a grounder that know the truth: for tests of everything but the models. The product has nothing of the kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcm_ros.models.segmentation import ImageFeatures
from pcm_ros.sim.cameras import render
from pcm_ros.sim.judge import fits
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_consensus, build_generator
from pcm_ros.tasks.manipulation.grounding import Region
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.relation_scorer import RelationScorer
from pcm_ros.tasks.manipulation.vision import Vision
from pcm_ros.tasks.manipulation.workcell import ExecutionResult, Observation, PickPlace, Workcell, WorkcellLimits

FITS, FITS_NOT = 4.0, -6.0  # log-odds


@dataclass(frozen=True)
class Truth:
    """What is to be known of a world.

    Attributes:
        labels: rgb (H, W, 3) -> (H, W) which thing each pixel shows, -1: none.
        described: (number of the thing, phrase) -> whether the phrase describes it.
        centers: () -> (M, 3) middles of the things' bounding boxes, world metres.
    """

    labels: Callable[[np.ndarray], np.ndarray]
    described: Callable[[int, str], bool]
    centers: Callable[[], np.ndarray]


def truth_of(cell: SimWorkcell) -> Truth:
    """Of the project's simulator."""
    seen: dict[bytes, np.ndarray] = {}
    lock = threading.Lock()  # views are looked at side by side

    def labels(rgb: np.ndarray) -> np.ndarray:
        with lock:
            if rgb.tobytes() not in seen:
                seen.clear()
                numbers = {body.number: index for index, body in enumerate(cell.world.bodies())}
                for camera in cell.world.cameras:
                    view, bodies = render(cell.world.client, camera, cell.world.light)
                    seen[view.rgb.tobytes()] = np.vectorize(lambda number: numbers.get(number, -1))(bodies)
            return seen[rgb.tobytes()]

    return Truth(
        labels,
        lambda number, phrase: fits(cell.world.bodies()[number].spec, phrase),
        lambda: np.array([(body.low + body.high) / 2 for body in cell.world.bodies()]),
    )


class Watched:
    """A workcell whose newest observation can be looked up."""

    def __init__(self, workcell: Workcell) -> None:
        self.workcell = workcell
        self.newest: Observation | None = None

    @property
    def limits(self) -> WorkcellLimits:
        return self.workcell.limits

    def observe(self) -> Observation:
        self.newest = self.workcell.observe()
        return self.newest

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        return self.workcell.execute(action, should_stop)


class TruthSegmenter:
    """Embeddings that differ between things and are the same on one thing, votes for its centre; no opinion on phrases."""

    def __init__(self, truth: Truth, watched: Watched) -> None:
        self._truth, self._watched = truth, watched

    def features(self, rgb: np.ndarray) -> ImageFeatures:
        assert self._watched.newest is not None
        view = next(view for view in self._watched.newest.views if view.rgb is rgb)
        labels = self._truth.labels(rgb)[2::4, 2::4]
        embedding = np.eye(64, dtype=np.float32)[labels].transpose(2, 0, 1)
        way = (self._truth.centers()[labels] - view.points()[2::4, 2::4]) @ view.rotation  # in the optical frame
        vote = np.where(labels[..., None] >= 0, np.nan_to_num(way), 0).transpose(2, 0, 1).astype(np.float32)
        objectness = (labels >= 0).astype(np.float32)
        return ImageFeatures(torch.from_numpy(embedding.copy()), torch.from_numpy(objectness), torch.from_numpy(vote.copy()), rgb.shape[:2])

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> Tensor:
        return torch.zeros((len(phrases), *features.objectness.shape))


class TruthGrounder:
    """The thing that a region shows most of fits the phrase, or does not."""

    name = "truth"

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def logits(self, rgb: np.ndarray, regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        labels = self._truth.labels(rgb)
        rows = []
        for region in regions:
            values, counts = np.unique(labels[region.mask], return_counts=True)
            number = int(values[counts.argmax()])
            rows.append([FITS if number >= 0 and self._truth.described(number, phrase) else FITS_NOT for phrase in phrases])
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(phrases))


def truth_policy(workcell: Workcell, truth: Truth, views: Sequence[str], config: ManipulationConfig | None = None) -> ManipulationPolicy:
    """The policy of `assembly.build_policy` with the truth in the place of the models."""
    config = config or ManipulationConfig()
    watched = Watched(workcell)
    vision, grounder = Vision(TruthSegmenter(truth, watched)), TruthGrounder(truth)
    scorers = [RelationScorer(view, grounder) for view in views]
    perception = Perception(vision, workcell.limits, grounder=grounder)
    return ManipulationPolicy(watched, perception, build_consensus(config, build_generator(config), scorers), scorers, config.policy)
