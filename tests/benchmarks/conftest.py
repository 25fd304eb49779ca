"""A segmenter of random weights in the place of the embedded one: what a bench writes does not depend on what a model knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models.segmentation import SegmentationNetwork, TextSegmenter


@pytest.fixture(scope="session")
def random_segmenter(tmp_path_factory: pytest.TempPathFactory) -> TextSegmenter:
    torch.manual_seed(3)
    path: Path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in SegmentationNetwork().state_dict().items()}, path)
    return TextSegmenter(path)
