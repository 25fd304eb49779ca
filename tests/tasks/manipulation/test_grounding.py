"""Regions and phrases: how the experts' answers are taken from their maps and put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from synthetic_scenes import box, scene_object
from torch import Tensor

from pcm_ros.models.segmentation import ImageFeatures
from pcm_ros.tasks.manipulation.grounding import Region, SegmenterGrounder, ShapeGrounder, regions_of
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
    objects = [scene_object(box(0.5, 0.1 * number, (0.05, 0.05, 0.05))) for number in range(5)]
    regions = regions_of(labels, objects)
    assert [region.number for region in regions] == [1, 4]
    assert regions[1].mask.sum() == 24
    assert regions[1].points is objects[4].points
    assert regions_of(np.full((4, 4), -1), objects) == []


class Heights:
    """What the expert on shapes is asked, and a row of numbers for each object: how high it is."""

    name = "pcm-shapes"

    def __init__(self) -> None:
        self.asked = 0

    def embed_objects(self, clouds: Sequence[np.ndarray]) -> Tensor:
        self.asked += len(clouds)
        return torch.tensor([[float(np.ptp(points[:, 2]))] for points in clouds])

    def logits(self, vectors: Tensor, phrases: Sequence[str]) -> Tensor:
        return vectors * torch.arange(1.0, len(phrases) + 1)


def test_the_expert_on_shapes_looks_at_points_once_and_has_no_opinion_without() -> None:
    mask = np.ones((40, 60), dtype=bool)
    low, high = (scene_object(box(0.5, 0.1, (0.05, 0.05, height))).points for height in (0.03, 0.06))
    model = Heights()
    grounder = ShapeGrounder(model)  # type: ignore[arg-type]
    regions = [Region(3, mask, high), Region(0, mask), Region(1, mask, low)]
    logits = grounder.logits(RGB, regions, ("bowl", "plate"))
    assert logits[0].tolist() == pytest.approx([0.06, 0.12], rel=0.2)
    assert logits[1].tolist() == [0, 0]
    assert logits[2].tolist() == pytest.approx([0.03, 0.06], rel=0.3)
    assert torch.equal(grounder.logits(RGB, regions[::-1], ("bowl", "plate")), logits.flip(0))
    assert model.asked == 2
    assert grounder.logits(RGB, [], ("bowl",)).shape == (0, 1)


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
