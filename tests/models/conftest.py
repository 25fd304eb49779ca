"""Small models of random weights on disk, made and loaded by the code that makes and loads the real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models.clip import build
from pcm_ros.models.segmentation import SegmentationNetwork, TextSegmenter

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TINY_CLIP = {
    "embed_dim": 32,
    "init_logit_scale": 2.5,
    "init_logit_bias": -4.0,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def segmenter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of random weights; half precision, as the packaged ones are."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    state = SegmentationNetwork().state_dict()
    save_file({name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def segmenter(segmenter_file: Path) -> TextSegmenter:
    return TextSegmenter(segmenter_file)


@pytest.fixture(scope="session")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Configuration and weights of a tiny CLIP in open_clip's format."""
    torch.manual_seed(8)
    config = tmp_path_factory.mktemp("clip") / "pcm-clip-tiny.json"
    config.write_text(json.dumps(TINY_CLIP))
    weights = config.with_suffix(".safetensors")
    save_file({name: tensor.clone().contiguous() for name, tensor in build(config).state_dict().items()}, weights)
    return config, weights
