"""CLIPs of two frozen towers: something that describes regions, and MiniLM (sentences). Only two small projections into a common space were
trained, on rendered regions and captions (`training/tower_clip.py`).

With EfficientNet-Lite0 (ImageNet) it sees a region with its surroundings where other CLIPs see it on plain grey; with the statistics of
colours it sees nothing else, and with those of shapes no picture at all. All understand words by their neighbours in MiniLM's space, so
their mistakes are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pcm_ros.models import sentence
from pcm_ros.models.loading import ModelUnavailable, load_safetensors
from pcm_ros.models.shape_statistics import ShapeStatistics, shape_statistics

WIDTH = 512
DIMENSIONS = 128


class Projected(Protocol):
    """Something that describes things by F numbers."""

    def projection(self, width: int) -> nn.Module:
        """A network, not trained, from F to `width` numbers."""
        ...


class RegionFeatures(Projected, Protocol):
    """A frozen image tower."""

    def of_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, F) float32 of R regions, masks (H, W) bool, not empty, of one (H, W, 3) uint8 image."""
        ...


class Projections(nn.Module):
    """What was trained: features (N, F) and sentence vectors (K, 384) -> vectors (., 128); scale and bias of the logits."""

    def __init__(self, tower: Projected) -> None:
        super().__init__()
        self.image = tower.projection(DIMENSIONS)
        self.text = nn.Sequential(nn.Linear(sentence.DIMENSIONS, WIDTH), nn.GELU(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, DIMENSIONS))
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.bias = nn.Parameter(torch.tensor(-4.0))

    def logits(self, features: Tensor, sentences: Tensor) -> Tensor:
        """(N, K) of features (N, F) and sentence vectors (K, 384)."""
        return self.compare(self.image(features), self.text(sentences))

    def compare(self, images: Tensor, texts: Tensor) -> Tensor:
        """(N, K) of projected images (N, 128) and texts (K, 128)."""
        return functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T * self.scale.exp() + self.bias


class PhraseComparison:
    """Compares projected features with phrases.

    Args:
        name: in the registry.
        projections: .safetensors of `Projections`.
        tower: what makes the features.

    Raises:
        ModelUnavailable: the file is missing, corrupt or of another architecture, or MiniLM's package is not installed.
    """

    def __init__(self, name: str, projections: Path, tower: Projected) -> None:
        self.name = name
        self._projections = Projections(tower)
        try:
            self._projections.load_state_dict(load_safetensors(projections))
        except RuntimeError as error:
            if isinstance(error, ModelUnavailable):
                raise
            raise ModelUnavailable(f"'{projections}' does not hold the projections of '{name}': {str(error).splitlines()[0]}") from error
        self._projections.eval()
        self._sentences = sentence.sentence_encoder()
        self._texts: dict[str, Tensor] = {}

    def compare_features(self, features: Tensor, phrases: Sequence[str]) -> Tensor:
        """(N, K) log-odds of the tower's features (N, F); gradients flow where they are enabled."""
        texts = self._projected(phrases).clone()  # what was made in inference mode cannot take part in gradients
        return self._projections.compare(self._projections.image(features), texts)

    @torch.inference_mode()
    def logits(self, regions: Tensor, phrases: Sequence[str]) -> Tensor:
        """(R, K): sigmoid of them is the probability that the phrase describes the region. Texts are cached."""
        return self._projections.compare(regions, self._projected(phrases))

    @torch.inference_mode()
    def _projected(self, phrases: Sequence[str]) -> Tensor:
        for phrase in phrases:
            if phrase not in self._texts:
                self._texts[phrase] = self._projections.text(self._sentences.encode([phrase]))[0]
        return torch.stack([self._texts[phrase] for phrase in phrases])


class TowerClip(PhraseComparison):
    """Image regions and phrases -> log-odds that the phrase describes the region. Arguments and errors: see `PhraseComparison`."""

    def __init__(self, name: str, projections: Path, tower: RegionFeatures) -> None:
        super().__init__(name, projections, tower)
        self._tower = tower

    @torch.inference_mode()
    def embed_regions(self, rgb: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]]) -> Tensor:
        """(R, 128) vectors of R regions of one (H, W, 3) uint8 image."""
        return torch.as_tensor(self._projections.image(self._tower.of_regions(rgb, masks)))


class ShapeClip(PhraseComparison):
    """Points of objects and phrases -> log-odds that the phrase describes the object. Arguments and errors: see `PhraseComparison`."""

    def __init__(self, name: str, projections: Path) -> None:
        super().__init__(name, projections, ShapeStatistics())

    @torch.inference_mode()
    def embed_objects(self, clouds: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """(M, 128) vectors of M >= 1 objects, each (P, 3) world points of its seen surface, metres, z up."""
        statistics = torch.from_numpy(np.stack([shape_statistics(points) for points in clouds]))
        return torch.as_tensor(self._projections.image(statistics))
