"""The text-conditioned segmenter: shapes, determinism, independence, and refusal of weights that are not its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pcm_ros.models import registry
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.segmentation import ImageFeatures, SegmentationNetwork, TextSegmenter, normalise_image

PHRASES = ("red mug", "blue bowl", "green block")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [
        (240, 320, (64, 80)),  # 240 is no multiple of 32: 256 rows
        (480, 640, (64, 80)),  # scaled down to 320 columns
        (300, 400, (64, 80)),
        (256, 320, (64, 80)),
        (1080, 1920, (48, 80)),
        (97, 131, (24, 32)),
        (33, 31, (8, 8)),
        (1, 1, (8, 8)),
        (500, 100, (128, 24)),
    ],
)
def test_any_image_size(segmenter: TextSegmenter, height: int, width: int, grid: tuple[int, int]) -> None:
    features = segmenter.features(picture(height, width))
    assert features.embedding.shape == (64, *grid)
    assert features.objectness.shape == grid
    assert features.vote.shape == (3, *grid)
    assert features.size == (height, width)
    assert torch.allclose(features.embedding.norm(dim=0), torch.ones(grid), atol=1e-4)
    assert 0 <= float(features.objectness.min()) <= float(features.objectness.max()) <= 1
    assert segmenter.logits(features, PHRASES).shape == (3, *grid)
    masks = segmenter.segment(picture(height, width), PHRASES)
    assert masks.shape == (3, height, width)
    assert bool(torch.isfinite(masks).all())


def test_the_same_bits_every_time_and_from_another_instance(segmenter: TextSegmenter, segmenter_file: Path) -> None:
    image = picture(240, 320)
    once, again = segmenter.segment(image, PHRASES), segmenter.segment(image, PHRASES)
    other = TextSegmenter(segmenter_file).segment(image, PHRASES)
    assert torch.equal(once, again)
    assert torch.equal(once, other)


def test_an_image_that_is_not_contiguous(segmenter: TextSegmenter) -> None:
    image = picture(240, 320)
    flipped = image[:, ::-1]
    assert torch.equal(segmenter.features(flipped).embedding, segmenter.features(flipped.copy()).embedding)


def test_a_phrase_means_the_same_in_any_company(segmenter: TextSegmenter, segmenter_file: Path) -> None:
    features = segmenter.features(picture(128, 160))
    together = TextSegmenter(segmenter_file).logits(features, PHRASES)
    for number, phrase in enumerate(PHRASES):
        alone = TextSegmenter(segmenter_file).logits(features, (phrase,))[0]
        assert torch.allclose(together[number], alone, atol=1e-5)
    assert torch.equal(segmenter.logits(features, PHRASES)[[2, 0]], segmenter.logits(features, (PHRASES[2], PHRASES[0])))


def test_the_network_treats_each_image_of_a_batch_by_itself() -> None:
    torch.manual_seed(0)
    network = SegmentationNetwork().eval()
    images = normalise_image(torch.from_numpy(np.stack([picture(64, 96, seed) for seed in range(3)])))
    with torch.inference_mode():
        together = network(images)
        for number in range(3):
            alone = network(images[number : number + 1])
            assert torch.allclose(together.embedding[number], alone.embedding[0], atol=1e-4)
            assert torch.allclose(together.vote[number], alone.vote[0], atol=1e-5)


def test_texts_are_encoded_once(segmenter_file: Path) -> None:
    class Counting:
        calls = 0

        def encode(self, texts: list[str]) -> torch.Tensor:
            self.calls += len(texts)
            return torch.nn.functional.normalize(torch.arange(384.0)[None] + len(texts[0]), dim=-1)

    encoder = Counting()
    segmenter = TextSegmenter(segmenter_file, encoder=encoder)  # type: ignore[arg-type]
    for _ in range(3):
        segmenter.embed(PHRASES)
    segmenter.embed((PHRASES[1], "a new one"))
    assert encoder.calls == 4


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 900), st.integers(1, 60), st.integers(1, 90))
def test_look_up_of_pixels(height: int, width: int, h: int, w: int) -> None:
    features = ImageFeatures(torch.zeros(2, h, w), torch.zeros(h, w), torch.zeros(3, h, w), (height, width))
    assert features.cell.shape == (height, width)
    rows, columns = features.cell // w, features.cell % w
    assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
    for along, cells, pixels in ((rows[:, 0], h, height), (columns[0], w, width)):
        assert (np.diff(along) >= 0).all()
        assert along.min() >= 0 and along.max() < cells
        if cells <= pixels:
            assert (np.unique(along) == np.arange(cells)).all()


def test_shares_of_a_mask() -> None:
    features = ImageFeatures(torch.zeros(2, 2, 2), torch.zeros(2, 2), torch.zeros(3, 2, 2), (4, 8))
    mask = np.zeros((4, 8), dtype=bool)
    mask[:3, :4] = True
    assert features.shares(mask).tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0])


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ModelUnavailable, match=r"other\.safetensors' does not fit the embedded segmenter"):
        TextSegmenter(path)


def test_weights_of_another_size(segmenter_file: Path, tmp_path: Path) -> None:
    state = load_file(segmenter_file)
    state["head.weight"] = state["head.weight"][:-1].contiguous()
    save_file(state, tmp_path / "narrow.safetensors")
    with pytest.raises(ModelUnavailable, match="does not fit"):
        TextSegmenter(tmp_path / "narrow.safetensors")


def test_damaged_weights(segmenter_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(segmenter_file.read_bytes()[: segmenter_file.stat().st_size // 2])
    with pytest.raises(ModelUnavailable, match="is corrupt"):
        TextSegmenter(path)


def test_half_the_precision_says_the_same() -> None:
    """On a real picture and not on noise, where nothing is said."""
    rgb = np.full((96, 128, 3), 150, dtype=np.uint8)
    rgb[30:70, 40:80] = (200, 30, 30)
    weights = registry.WEIGHTS / "segmenter.safetensors"
    single, half = (TextSegmenter(weights, precision=kind).features(rgb) for kind in (torch.float32, torch.bfloat16))
    assert float((single.embedding * half.embedding).sum(dim=0).min()) > 0.995
    assert torch.allclose(single.vote, half.vote, atol=0.002), "metres"
    assert torch.allclose(single.objectness, half.objectness, atol=0.05)
