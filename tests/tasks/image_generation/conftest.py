from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests share tiny_pipelines.py, and importlib mode adds no folder
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tiny_pipelines import make_pipeline


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latent pipeline with the embedded text encoder, v-prediction and a cosine schedule, as the embedded model has them."""
    return make_pipeline(tmp_path_factory.mktemp("tiny"), "AutoencoderTiny", "v_prediction", "SentenceTokens")
