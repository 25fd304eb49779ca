"""The CLIP of two frozen towers: crops with surroundings, features, projections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pcm_ros.models import registry
from pcm_ros.models.image_tower import FEATURES, SIZE, ImageTower, context_crop, region_crops
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.tower_clip import Projections, TowerClip

TOWER = registry.WEIGHTS / "efficientnet-lite0.safetensors"


@pytest.fixture(scope="module")
def tower() -> ImageTower:
    return ImageTower(TOWER)


@pytest.fixture(scope="module")
def projections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("towers") / "random.safetensors"
    save_file({name: tensor.clone() for name, tensor in Projections(ImageTower).state_dict().items()}, path)
    return path


def region(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((120, 160), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


@pytest.mark.parametrize("mask", [region(20, 30, 40, 25), region(0, 0, 120, 160), region(119, 159, 1, 1), region(60, 0, 60, 2)])
def test_a_crop_shows_the_region_in_its_middle(mask: np.ndarray) -> None:
    crop, inside = context_crop(IMAGE, mask)
    assert crop.shape == (SIZE, SIZE, 3)
    assert crop.dtype == np.uint8
    assert inside.shape == (SIZE, SIZE)
    assert 0 <= inside.min() <= inside.max() <= 1
    rows, columns = np.nonzero(inside > 0.3)
    assert abs(rows.mean() - SIZE / 2) < SIZE / 6
    assert abs(columns.mean() - SIZE / 2) < SIZE / 6


@pytest.mark.parametrize("mask", [np.zeros((120, 160), dtype=bool), np.ones((60, 160), dtype=bool)])
def test_a_crop_of_nothing_or_of_another_image(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask must be bool \(120, 160\)"):
        context_crop(IMAGE, mask)


def test_features_see_colour_and_are_the_same_in_any_company(tower: ImageTower) -> None:
    crops, insides = region_crops(IMAGE, [region(5, 5, 30, 30), region(60, 80, 50, 20), region(0, 150, 120, 8)])
    together = tower.features(crops, insides)
    assert together.shape == (3, FEATURES)
    assert torch.isfinite(together).all()
    assert torch.equal(tower.features(crops, insides), together)
    for number in range(3):
        assert torch.allclose(tower.features(crops[number][None], insides[number][None])[0], together[number], atol=2e-3)


def test_regions_and_phrases_are_compared(tower: ImageTower, projections: Path) -> None:
    clip = TowerClip("random", projections, tower)
    regions = clip.embed_regions(IMAGE, [region(5, 5, 30, 30), region(60, 80, 50, 20)])
    logits = clip.logits(regions, ["red mug", "blue bowl", "red mug"])
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits[:, 0], logits[:, 2])


def test_other_weights_are_refused(tower: ImageTower, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="does not exist"):
        TowerClip("none", tmp_path / "none.safetensors", tower)
    with pytest.raises(ModelUnavailable, match="does not hold the projections"):
        TowerClip("other", TOWER, tower)
    broken = {name: tensor for name, tensor in load_file(TOWER).items() if not name.startswith("conv_stem")}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(ModelUnavailable, match="does not hold timm's"):
        ImageTower(tmp_path / "broken.safetensors")
