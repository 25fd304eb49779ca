"""The segmenter that knows nothing: everything but the answer to a phrase stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcm_ros.benchmarks.segmenter_noise import SPREAD, NoiseSegmenter
from pcm_ros.models.segmentation import TextSegmenter

PHRASES = ("red mug", "blue bowl", "mug")
RGB = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


@pytest.fixture
def noise(random_segmenter: TextSegmenter) -> NoiseSegmenter:
    return NoiseSegmenter(random_segmenter)


def test_the_features_stay(noise: NoiseSegmenter, random_segmenter: TextSegmenter) -> None:
    ours, theirs = noise.features(RGB), random_segmenter.features(RGB)
    assert torch.equal(ours.embedding, theirs.embedding)
    assert torch.equal(ours.vote, theirs.vote)


def test_the_same_noise_for_the_same_image_phrase_and_seed(noise: NoiseSegmenter, random_segmenter: TextSegmenter) -> None:
    features = noise.features(RGB)
    logits = noise.logits(features, PHRASES)
    assert logits.shape == (3, *features.objectness.shape)
    assert torch.equal(logits, noise.logits(features, PHRASES))
    assert torch.equal(logits[1:2], noise.logits(features, PHRASES[1:2]))
    other_image = noise.logits(noise.features(255 - RGB), PHRASES)
    other_seed = NoiseSegmenter(random_segmenter, seed=1).logits(features, PHRASES)
    for other in (other_image, other_seed, logits.roll(1, dims=0)):
        assert np.corrcoef(logits.flatten(), other.flatten())[0, 1] < 0.3


def test_the_noise_knows_nothing_and_is_as_loud_as_the_real_one(noise: NoiseSegmenter) -> None:
    features = noise.features(RGB)
    maps = noise.logits(features, tuple(f"phrase {number}" for number in range(60)))
    assert abs(float(maps.mean())) < 0.2
    assert 0.6 * SPREAD < float(maps.std()) < 1.2 * SPREAD
    blobs = maps - maps.mean(dim=(1, 2), keepdim=True)
    assert float((blobs[:, :, 1:] * blobs[:, :, :-1]).mean() / blobs.square().mean()) > 0.8  # smooth from cell to cell
