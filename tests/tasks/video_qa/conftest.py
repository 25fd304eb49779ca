"""A small language model of random weights, and a segmenter of random weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models.language import LanguageModel
from pcm_ros.models.segmentation import SegmentationNetwork, TextSegmenter
from tests.models.tiny_language import make_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(make_model("llama", tmp_path_factory.mktemp("tiny"), context=800), dtype=torch.float32)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> TextSegmenter:
    torch.manual_seed(3)
    path: Path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in SegmentationNetwork().state_dict().items()}, path)
    return TextSegmenter(path)
