"""What is kept of images, and views side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pcm_ros.tasks.manipulation.vision import RegionEmbeddings, SideBySide


class MeanColor:
    """Embeds a region as its mean colour, and counts how often it is asked."""

    name = "mean-color"

    def __init__(self) -> None:
        self.asked = 0

    def embed_regions(self, rgb: np.ndarray, masks: Sequence[np.ndarray]) -> torch.Tensor:
        self.asked += 1
        return torch.from_numpy(np.stack([rgb[mask].mean(axis=0) for mask in masks]))

    def logits(self, regions: torch.Tensor, phrases: Sequence[str]) -> torch.Tensor:
        raise NotImplementedError


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (24, 32, 3)).astype(np.uint8)


def mask(row: int) -> np.ndarray:
    found = np.zeros((24, 32), bool)
    found[row : row + 4, 3:9] = True
    return found


def test_the_same_regions_of_the_same_image_are_embedded_once() -> None:
    model = MeanColor()
    embeddings = RegionEmbeddings(model)
    first = embeddings.of(picture(0), [mask(2), mask(10)])
    assert embeddings.of(picture(0), [mask(2), mask(10)]) is first and model.asked == 1
    assert torch.equal(first, model.embed_regions(picture(0), [mask(2), mask(10)]))


@pytest.mark.parametrize(("image", "rows"), [(1, (2, 10)), (0, (2, 11)), (0, (2,)), (0, (10, 2))])
def test_another_image_or_other_regions_are_embedded_anew(image: int, rows: tuple[int, ...]) -> None:
    model = MeanColor()
    embeddings = RegionEmbeddings(model)
    embeddings.of(picture(0), [mask(2), mask(10)])
    found = embeddings.of(picture(image), [mask(row) for row in rows])
    assert model.asked == 2
    assert torch.equal(found, MeanColor().embed_regions(picture(image), [mask(row) for row in rows]))


def test_only_the_newest_images_are_kept() -> None:
    model = MeanColor()
    embeddings = RegionEmbeddings(model, kept=2)
    for seed in (0, 1, 2, 0):
        embeddings.of(picture(seed), [mask(2)])
    assert model.asked == 4


def test_side_by_side_keeps_the_order_and_really_is() -> None:
    together = threading.Barrier(2, timeout=30)

    def square(x: int) -> int:
        together.wait()  # passes only if two are at it at the same time
        return x * x

    assert SideBySide(2).map(square, [4, 3, 2, 1]) == [16, 9, 4, 1]
    assert SideBySide(1).map(lambda x: x + 1, [1, 2]) == [2, 3]


def test_what_one_of_them_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        SideBySide(2).map(lambda x: 1 // x, [1, 0])


@pytest.mark.parametrize("threads", [0, 17])
def test_threads_out_of_range(threads: int) -> None:
    with pytest.raises(ValueError, match=r"allowed: 1\.\.16"):
        SideBySide(threads)
