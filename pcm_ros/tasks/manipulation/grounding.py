"""Which region does a phrase mean? Several vision-language models answer; their answers are summed as log-odds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcm_ros.models import registry
from pcm_ros.models.clip import RegionTextModel
from pcm_ros.tasks.manipulation.vision import RegionEmbeddings, Vision


@dataclass(frozen=True)
class Region:
    """The visible pixels of scene object `number` in one image: mask (H, W) bool, not empty."""

    number: int
    mask: npt.NDArray[np.bool_]


def regions_of(labels: npt.NDArray[np.int64], least_pixels: int = 12) -> list[Region]:
    """The regions of a label image (H, W) (object number, -1: none); those of fewer than `least_pixels` pixels are left out."""
    counts = np.bincount(labels[labels >= 0].ravel()) if (labels >= 0).any() else np.zeros(0, dtype=int)
    return [Region(int(number), labels == number) for number in np.flatnonzero(counts >= least_pixels)]


class Grounder(Protocol):
    """An expert that compares regions of an image with phrases."""

    name: str

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        """(R, K) log-odds that phrase k describes region r."""
        ...


class SegmenterGrounder:
    """Mean mask logit of the text-conditioned segmenter over the region's pixels, its stride-4 cells counted by the pixels they hold.

    Range: about -12..6. Wrong when the region covers only a few cells, or mixes two objects.
    """

    name = "segmenter"

    def __init__(self, vision: Vision) -> None:
        self._vision = vision

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        features = self._vision.features(rgb)
        maps = self._vision.logits(rgb, tuple(phrases)).flatten(1)
        rows = []
        for region in regions:
            v, u = np.nonzero(region.mask)
            rows.append(maps[:, features.sample(np.stack([u, v], axis=1))].mean(dim=1))
        return torch.stack(rows) if rows else maps.new_zeros((0, len(phrases)))


class ClipGrounder:
    """Sigmoid logit of a CLIP between the region, cut out along its mask, and the phrase.

    Range: about -15..8. Wrong for regions of a few pixels and for what is mostly hidden.
    """

    def __init__(self, clip: RegionTextModel) -> None:
        self._clip, self._embeddings = clip, RegionEmbeddings(clip)
        self.name = clip.name

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        if not regions:
            return torch.zeros((0, len(phrases)))
        return self._clip.logits(self._embeddings.of(rgb, [region.mask for region in regions]), phrases)


class Compositional:
    """What an expert says of "black bowl", from that, from "black object" and from "bowl": what was never seen together is known apart.

    A phrase that begins with a colour and goes on gets the mean of its own log-odds and of the lesser of its parts' log-odds; other
    phrases stay as they are.

    Args:
        colors: single words.
    """

    def __init__(self, expert: Grounder, colors: Sequence[str]) -> None:
        self.name, self._expert, self._colors = expert.name, expert, frozenset(colors)

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        asked = list(dict.fromkeys(part for phrase in phrases for part in (phrase, *self._parts(phrase))))
        found = dict(zip(asked, self._expert.logits(rgb, regions, asked).unbind(dim=1), strict=True))
        columns = []
        for phrase in phrases:
            parts = self._parts(phrase)
            columns.append((found[phrase] + torch.minimum(*(found[part] for part in parts))) / 2 if parts else found[phrase])
        return torch.stack(columns, dim=1) if columns else torch.zeros((len(regions), 0))

    def _parts(self, phrase: str) -> tuple[str, ...]:
        color, _, thing = phrase.partition(" ")
        return (f"{color} object", thing) if thing and color in self._colors else ()


class Calibrated:
    """An expert's log-odds, scaled and shifted so that they are what they say: sigmoid of them is a probability.

    Args:
        scale, bias: calibrated = scale * logit + bias. Raises ValueError unless scale > 0 and both are finite.
    """

    def __init__(self, expert: Grounder, scale: float, bias: float) -> None:
        if not (math.isfinite(scale) and math.isfinite(bias) and scale > 0):
            raise ValueError(f"calibration of '{expert.name}' is scale {scale}, bias {bias}; both must be finite, the scale greater than 0")
        self.name, self._expert, self._scale, self._bias = expert.name, expert, scale, bias

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        return self._scale * self._expert.logits(rgb, regions, phrases) + self._bias


class GrounderEnsemble:
    """Weighted mean of the experts' log-odds: a product of experts, tempered so that agreeing experts are not counted twice."""

    name = "ensemble"

    def __init__(self, experts: Sequence[Grounder], weights: Sequence[float] | None = None) -> None:
        if not experts:
            raise ValueError("at least one grounding expert is needed")
        self._experts = tuple(experts)
        self._weights = tuple(weights) if weights is not None else (1.0,) * len(self._experts)
        if len(self._weights) != len(self._experts) or min(self._weights) < 0 or sum(self._weights) <= 0:
            raise ValueError(f"weights {self._weights} must be {len(self._experts)} numbers >= 0, not all 0")

    def logits(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region], phrases: Sequence[str]) -> Tensor:
        parts = [weight * expert.logits(rgb, regions, phrases) for expert, weight in zip(self._experts, self._weights, strict=True)]
        return torch.stack(parts).sum(dim=0) / sum(self._weights)


def unfamiliar_words(phrase: str) -> list[str]:
    """Words of a phrase that no expert met in training: what they say of it is a guess from similar words."""
    return [word for word in re.findall(r"[^\W\d_]+", phrase.lower()) if word not in registry.known_words()]
