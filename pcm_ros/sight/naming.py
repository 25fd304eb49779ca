"""What image-text models call the things of a clip: each alone, and several together as a product of experts.

As manipulation's grounding does, "red mug" is asked as "red object" and as "mug", both must be true, and kinds are judged in pictures with
exchanged channels too: see `models/weights/calibration.json` for the weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pcm_ros.models.clip import RegionTextModel
from pcm_ros.models.registry import Calibration, calibration
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.sight.things import Sight
from pcm_ros.sight.words import both, colour_and_kind, colour_question, strangeness

LOOKS = 4
"""Frames in which a CLIP looks at each thing."""
KEPT_CLIPS = 4
_EXCHANGED = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


class Expert(Protocol):
    """An image-text model that is asked about the things of a clip."""

    name: str

    def logits(self, sight: Sight, texts: Sequence[str], kinds: bool) -> Tensor:
        """(T, M, K) float32 log-odds that text k describes thing m in frame t, NaN in frames in which this model did not look at it.

        Args:
            kinds: whether the texts name kinds and no colours.
        """
        ...


@dataclass
class _Kept:
    """Answers for the newest clips; several threads may ask, the first one makes them."""

    most: int = KEPT_CLIPS
    found: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str, make: Any) -> Any:
        with self.lock:
            if key not in self.found:
                self.found[key] = make()
                while len(self.found) > self.most:
                    self.found.popitem(last=False)
            self.found.move_to_end(key)
            return self.found[key]


class ClipExpert:
    """A CLIP over regions of frames. All regions of a clip are encoded once, in one go for each frame, and kept for the newest clips."""

    def __init__(self, model: RegionTextModel, kept: int = KEPT_CLIPS) -> None:
        self.name, self._model, self._kept = model.name, model, _Kept(kept)

    def _encoded(self, sight: Sight) -> list[tuple[int, list[int], tuple[Tensor, ...]]]:
        """Frame, its things, and their embeddings in each exchange of channels."""
        by_frame: dict[int, list[int]] = {}
        for m in range(len(sight.things)):
            for t in sight.looks(m, LOOKS):
                by_frame.setdefault(t, []).append(m)
        found = []
        for t, things in sorted(by_frame.items()):
            masks = [sight.mask(m, t) for m in things]
            frame = sight.clip.frames[t]
            pictures = [np.ascontiguousarray(frame[..., list(order)]) for order in _EXCHANGED]
            found.append((t, things, tuple(self._model.embed_regions(picture, masks) for picture in pictures)))
        return found

    def logits(self, sight: Sight, texts: Sequence[str], kinds: bool) -> Tensor:
        """See Expert."""
        result = torch.full((len(sight.clip.frames), len(sight.things), len(texts)), torch.nan)
        for t, things, embeddings in self._kept.get(sight.key, lambda: self._encoded(sight)):
            asked = embeddings if kinds else embeddings[:1]
            result[t, things] = torch.stack([self._model.logits(one, texts) for one in asked]).mean(dim=0)
        return result


class SegmenterExpert:
    """The text-conditioned segmenter: the mean of its mask's log-odds over the cells of a thing, in every frame."""

    name = "segmenter"

    def __init__(self, segmenter: TextSegmenter) -> None:
        self._segmenter = segmenter

    def logits(self, sight: Sight, texts: Sequence[str], kinds: bool) -> Tensor:
        """See Expert."""
        result = torch.full((len(sight.clip.frames), len(sight.things), len(texts)), torch.nan)
        for t, features in enumerate(sight.features):
            maps = self._segmenter.logits(features, texts)
            for m, thing in enumerate(sight.things):
                if t in thing.regions:
                    result[t, m] = maps[:, torch.from_numpy(thing.regions[t].cells)].mean(dim=1)
        return result


class Namer:
    """One or several image-text models that say what a thing is called.

    Args:
        experts: at least one. weights: what brings them to one scale; default: as calibrated.
    """

    def __init__(self, experts: Sequence[Expert], weights: Calibration | None = None) -> None:
        self.experts = tuple(experts)
        self.weights = weights or calibration([expert.name for expert in experts])

    def log_odds(self, sight: Sight, phrases: Sequence[str], by_frame: bool = False) -> Tensor:
        """(M, K), or (T, M, K), log-odds that phrase k is right for thing m. NaN where no expert looked at it."""
        parts = [colour_and_kind(phrase) for phrase in phrases]
        colours = self._sum(sight, [colour_question(colour) for colour, _ in parts if colour], self.weights.color, False, by_frame)
        kinds = self._sum(
            sight, [kind or phrase for (_, kind), phrase in zip(parts, phrases, strict=True)], self.weights.thing, True, by_frame
        )
        columns = []
        for (colour, kind), phrase in zip(parts, phrases, strict=True):
            if colour and kind:
                one, other = colours[colour_question(colour)] + self.weights.color_bias, kinds[kind] + self.weights.thing_bias
                columns.append(both(one, other))
            elif colour:
                columns.append(colours[colour_question(colour)] + self.weights.color_bias)
            else:
                columns.append(kinds[kind or phrase] + self.weights.whole_bias)
        strange = torch.tensor([strangeness(kind or phrase) for (_, kind), phrase in zip(parts, phrases, strict=True)])
        return self.weights.scale * torch.stack(columns, dim=-1) + self.weights.bias - STRANGE * strange

    def nats(self, sight: Sight, phrases: Sequence[str]) -> Tensor:
        """(M, K) float64, -log P(phrase k is right for thing m), >= 0. NaN where no expert looked at it."""
        return softplus(-self.log_odds(sight, phrases).double())

    def _sum(self, sight: Sight, texts: Sequence[str], weights: Mapping[str, float], kinds: bool, by_frame: bool) -> dict[str, Tensor]:
        texts = list(dict.fromkeys(texts))
        if not texts:
            return {}
        total: Tensor | None = None
        for expert in self.experts:
            found = expert.logits(sight, texts, kinds)
            part = weights.get(expert.name, 0.0) * (found if by_frame else torch.nanmean(found, dim=0))
            total = part if total is None else total + part
        assert total is not None
        return dict(zip(texts, total.unbind(dim=-1), strict=True))


STRANGE = 8.0
"""Nats by which a word that is like none of the models' training is less likely: what they say of it is a guess."""
