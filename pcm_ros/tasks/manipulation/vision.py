"""The vision-language models of manipulation, with what they say of an image computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pcm_ros.models.segmentation import ImageFeatures


class Segmenter(Protocol):
    """What manipulation needs of a text-conditioned segmenter (pcm_ros.models.segmentation.TextSegmenter is one)."""

    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures: ...

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> Tensor: ...


class Vision:
    """A segmenter whose features are kept for the newest images: perception and the scorers of one process share them.

    Args:
        segmenter: any Segmenter.
        kept: number of images whose features are kept.
    """

    def __init__(self, segmenter: Segmenter, kept: int = 16) -> None:
        self._segmenter, self._kept = segmenter, kept
        self._features: OrderedDict[bytes, ImageFeatures] = OrderedDict()

    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures:
        """Features of an (H, W, 3) uint8 image; images are told apart by their content, not by their stamp."""
        key = hashlib.blake2b(np.ascontiguousarray(rgb).data, digest_size=16).digest()
        found = self._features.get(key)
        if found is None:
            found = self._segmenter.features(rgb)
            self._features[key] = found
            while len(self._features) > self._kept:
                self._features.popitem(last=False)
        return found

    def logits(self, rgb: npt.NDArray[np.uint8], phrases: tuple[str, ...]) -> Tensor:
        """Mask logits (K, h, w) on the features' grid."""
        return self._segmenter.logits(self.features(rgb), phrases)
