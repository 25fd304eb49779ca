"""A text-conditioned segmenter that knows nothing: shows how much of a success is the model's doing."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pcm_ros.models.segmentation import ImageFeatures
from pcm_ros.tasks.manipulation.vision import Segmenter

COARSE = 10  # cells of the noise across the image's height: blobs about as large as objects
SPREAD = 3.0  # standard deviation of the logits, about that of the real segmenter over objects


class NoiseSegmenter:
    """The given segmenter with its mask logits replaced by smooth noise that depends on image, phrase and seed only.

    What is not conditioned on text (objectness, votes, embeddings for splitting what touches) stays, so that scenes have the same objects
    and only the answer to "which of them is meant" is lost.
    """

    def __init__(self, segmenter: Segmenter, seed: int = 0) -> None:
        self._segmenter, self._seed = segmenter, seed

    def features(self, rgb: npt.NDArray[np.uint8]) -> ImageFeatures:
        return self._segmenter.features(rgb)

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> Tensor:
        """(K, h, w) noise."""
        h, w = features.objectness.shape
        image = hashlib.blake2b(features.objectness.numpy().tobytes(), digest_size=8).digest()
        maps = []
        for phrase in phrases:
            digest = hashlib.blake2b(image + phrase.encode() + self._seed.to_bytes(8, "little"), digest_size=8).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "little"))
            noise = torch.from_numpy(rng.normal(0, SPREAD, (1, 1, COARSE, round(COARSE * w / h)))).float()
            maps.append(interpolate(noise, size=(h, w), mode="bicubic", align_corners=False)[0, 0])
        return torch.stack(maps)
