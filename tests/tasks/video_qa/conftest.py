"""Videos made on the spot, a small language model of random weights, and a segmenter of random weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pcm_ros.models.language import LanguageModel
from pcm_ros.models.segmentation import SegmentationNetwork, TextSegmenter
from tests.models.tiny_language import make_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
MakeVideo = Callable[..., Path]


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> MakeVideo:
    """A video in which a red bar goes from left to right; in its first half it stands still if `late`."""
    import av

    folder = tmp_path_factory.mktemp("videos")

    def make(
        name: str, count: int = 30, width: int = 64, height: int = 48, rate: int = 10, codec: str = "mpeg4", late: bool = False
    ) -> Path:
        path = folder / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for number in range(count):
                share = max(0.0, 2 * number / count - 1) if late else number / count
                picture = np.full((height, width, 3), 60, dtype=np.uint8)
                left = int(share * (width - width // 8))
                picture[:, left : left + width // 8] = (220, 20, 20)
                for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return path

    return make


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return LanguageModel(make_model("llama", tmp_path_factory.mktemp("tiny"), context=800), dtype=torch.float32)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> TextSegmenter:
    torch.manual_seed(3)
    path: Path = tmp_path_factory.mktemp("segmenter") / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in SegmentationNetwork().state_dict().items()}, path)
    return TextSegmenter(path)
