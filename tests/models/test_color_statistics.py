"""The expert on colours: its statistics, and that shape means nothing to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcm_ros.models.color_statistics import STATISTICS, ColorStatistics, jittered

IMAGE = np.zeros((40, 60, 3), dtype=np.uint8)
IMAGE[:, :30] = (200, 30, 30)
IMAGE[:, 30:] = (30, 60, 200)


def region(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(IMAGE.shape[:2], dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_one_colour_has_the_same_statistics_in_any_shape() -> None:
    rows = ColorStatistics().of_regions(IMAGE, [region(0, 0, 40, 10), region(5, 5, 3, 20), region(0, 29, 1, 1), region(0, 35, 9, 9)])
    assert rows.shape == (4, STATISTICS)
    assert rows.dtype == torch.float32
    assert torch.allclose(rows[0], rows[1], atol=1e-5)
    assert torch.allclose(rows[0], rows[2], atol=1e-5)
    assert (rows[0] - rows[3]).abs().max() > 1
    assert rows.abs().max() < 5


def test_order_of_pixels_and_company_do_not_matter() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = region(3, 4, 20, 30)
    alone = ColorStatistics().of_regions(noisy, [mask])
    assert torch.equal(ColorStatistics().of_regions(noisy, [region(0, 0, 2, 2), mask])[1:], alone)
    assert torch.allclose(ColorStatistics().of_regions(noisy[:, ::-1].copy(), [mask[:, ::-1].copy()]), alone, atol=1e-5)


@pytest.mark.parametrize("mask", [np.zeros((40, 60), dtype=bool), np.ones((20, 60), dtype=bool)])
def test_regions_of_nothing_or_of_another_image(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask must be bool \(40, 60\)"):
        ColorStatistics().of_regions(IMAGE, [mask])


def test_no_regions() -> None:
    assert ColorStatistics().of_regions(IMAGE, []).shape == (0, STATISTICS)


def test_jitter_moves_all_colours_of_a_region_alike() -> None:
    torch.manual_seed(0)
    rows = ColorStatistics().of_regions(IMAGE, [region(0, 20, 10, 20)] * 2)
    shift = jittered(rows, 2.0) - rows
    assert torch.allclose(shift[:, 0], shift[:, 3], atol=1e-5)
    assert torch.allclose(shift[:, :3], shift[:, 8:11], atol=1e-5)
    assert (shift[0] - shift[1]).abs().max() > 1e-3
    assert torch.equal(jittered(rows, 0.0), rows)
