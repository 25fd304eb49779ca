"""Regions and phrases: how the experts' answers are taken from their maps and put together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pcm_ros.models.segmentation import ImageFeatures
from pcm_ros.tasks.manipulation.grounding import Region, SegmenterGrounder, regions_of
from pcm_ros.tasks.manipulation.vision import Vision

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


class ColumnSegmenter:
    """Mask logit of phrase number k in column x of the grid: 10 k + x."""

    def __init__(self) -> None:
        self.looked = 0

    def features(self, rgb: np.ndarray) -> ImageFeatures:
        self.looked += 1
        return ImageFeatures(torch.zeros(4, 10, 15), torch.ones(10, 15), torch.zeros(3, 10, 15), rgb.shape[:2])

    def logits(self, features: ImageFeatures, phrases: tuple[str, ...]) -> Tensor:
        return torch.stack([torch.arange(15.0).expand(10, 15) + 10 * float(phrase) for phrase in phrases])


def test_regions_of_a_label_image() -> None:
    labels = np.full((40, 60), -1)
    labels[2:6, 3:9] = 4
    labels[10:30, 10:30] = 1
    labels[0, :5] = 2  # five pixels are none
    regions = regions_of(labels)
    assert [region.number for region in regions] == [1, 4]
    assert regions[1].mask.sum() == 24
    assert regions_of(np.full((4, 4), -1)) == []


def test_the_segmenter_answers_with_the_mean_over_the_region() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:20, 8:16] = True  # grid columns 2 and 3, evenly
    grounder = SegmenterGrounder(Vision(ColumnSegmenter()))
    logits = grounder.logits(RGB, [Region(0, mask), Region(1, ~mask)], ("0", "2"))
    assert logits.shape == (2, 2)
    assert logits[0].tolist() == [2.5, 22.5]
    assert grounder.logits(RGB, [], ("0", "2")).shape == (0, 2)


def test_each_image_is_looked_at_once() -> None:
    segmenter = ColumnSegmenter()
    vision = Vision(segmenter, kept=2)
    other, third = RGB.copy(), RGB.copy()
    other[0, 0], third[0, 0] = 1, 2
    for rgb in (RGB, RGB.copy(), other, RGB):
        vision.features(rgb)
    assert segmenter.looked == 2
    vision.features(third)
    vision.features(third[:, ::1])
    assert segmenter.looked == 3
