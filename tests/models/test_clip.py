"""CLIPs in open_clip's format, and the pictures of regions that they see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pcm_ros.models.clip import GROUND, Clip, region_crop
from pcm_ros.models.loading import ModelUnavailable


@pytest.fixture(scope="module")
def clip(clip_files: tuple[Path, Path]) -> Clip:
    return Clip(*clip_files)


def region(top: int, left: int, height: int, width: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


RED = np.zeros((120, 160, 3), dtype=np.uint8) + np.array([200, 10, 10], dtype=np.uint8)


@pytest.mark.parametrize(
    "mask", [region(20, 30, 40, 25), region(0, 0, 120, 160), region(119, 159, 1, 1), region(0, 100, 1, 60), region(60, 0, 60, 2)]
)
def test_a_crop_shows_the_region_and_nothing_else(mask: np.ndarray) -> None:
    crop = region_crop(RED, mask, 64)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    surroundings = RED.copy()
    surroundings[~mask] = (7, 250, 99)
    assert (region_crop(surroundings, mask, 64) == crop).all()
    assert tuple(crop[0, 0]) == (GROUND,) * 3 or mask.all()


@pytest.mark.parametrize("mask", [np.zeros((120, 160), dtype=bool), region(0, 0, 5, 5, (60, 160))])
def test_a_crop_of_nothing_or_of_another_image(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask must be bool \(120, 160\)"):
        region_crop(RED, mask, 64)


def test_a_region_means_the_same_in_any_company(clip: Clip) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    masks = [region(5, 5, 30, 30), region(60, 80, 50, 20), region(0, 150, 120, 8)]
    together = clip.embed_regions(image, masks)
    assert together.shape == (3, 32)
    assert torch.allclose(together.norm(dim=-1), torch.ones(3), atol=1e-4)
    for number, mask in enumerate(masks):
        assert torch.allclose(clip.embed_regions(image, [mask])[0], together[number], atol=1e-5)
    assert torch.equal(clip.embed_regions(image, masks), together)


def test_a_phrase_means_the_same_in_any_company(clip: Clip, clip_files: tuple[Path, Path]) -> None:
    phrases = ("red mug", "the blue bowl", "ein grüner Würfel", "", "mug " * 200)
    vectors = Clip(*clip_files).embed_texts(phrases)
    assert vectors.shape == (5, 32)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(5), atol=1e-4)
    for number, phrase in enumerate(phrases):
        assert torch.equal(clip.embed_texts([phrase])[0], vectors[number])


def test_logits(clip: Clip, clip_files: tuple[Path, Path]) -> None:
    regions = clip.embed_regions(RED, [region(5, 5, 30, 30), region(60, 80, 50, 20)])
    logits = clip.logits(regions, ("red mug", "blue bowl", "can"))
    assert logits.shape == (2, 3)
    state = load_file(clip_files[1])
    expected = regions @ clip.embed_texts(("red mug", "blue bowl", "can")).T * state["logit_scale"].exp() + state["logit_bias"]
    assert torch.allclose(logits, expected, atol=1e-4)


def test_missing_configuration(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"nowhere\.json' does not exist"):
        Clip(tmp_path / "nowhere.json", clip_files[1])


def test_missing_weights(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"nowhere\.safetensors' does not exist"):
        Clip(clip_files[0], tmp_path / "nowhere.safetensors")


def test_damaged_weights(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(clip_files[1].read_bytes()[:100_000])
    with pytest.raises(ModelUnavailable, match="is corrupt"):
        Clip(clip_files[0], path)


def test_weights_that_do_not_fit_the_configuration(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    wider = json.loads(clip_files[0].read_text())
    wider["embed_dim"] = 48
    config = tmp_path / "pcm-clip-wider.json"
    config.write_text(json.dumps(wider))
    with pytest.raises(ModelUnavailable, match=r"does not fit .*pcm-clip-wider\.json"):
        Clip(config, clip_files[1])


def test_weights_of_something_else(clip_files: tuple[Path, Path], tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "else.safetensors")
    with pytest.raises(ModelUnavailable, match="does not fit"):
        Clip(clip_files[0], tmp_path / "else.safetensors")
