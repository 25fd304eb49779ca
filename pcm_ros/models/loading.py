"""Safe loading of weights: safetensors only, never pickle, never remote code; threads and precision are set here and nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch


class ModelUnavailable(RuntimeError):
    """Weights are missing, corrupt or of a forbidden format. The message names the file and the remedy."""


def load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file as float32 (integers stay).

    Raises:
        ModelUnavailable: missing, another format, truncated or corrupt.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelUnavailable(f"'{path}': only .safetensors weights are loaded (pickle formats can run code); remedy: convert the file")
    if not path.is_file():
        raise ModelUnavailable(f"'{path}' does not exist; remedy: reinstall pcm_ros, or run `pcm models` to see what is missing")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelUnavailable(
            f"'{path}' is corrupt ({error}); remedy: reinstall pcm_ros, or restore the file and check it with `pcm models`"
        ) from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def set_threads(threads: int | None = None) -> int:
    """Set torch's intra-op threads (default: environment variable PCM_THREADS, else 1) and return the number.

    One thread is the default on purpose: each node is a process of its own, results do not depend on the number of cores, and on a
    busy small machine a second thread is often slower.

    Raises:
        ValueError: not a number of 1..256.
    """
    text = os.environ.get("PCM_THREADS", "1") if threads is None else str(threads)
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise ValueError(f"threads (PCM_THREADS) is '{text}'; allowed: 1..256")
    torch.set_num_threads(int(text))
    return int(text)


def fast_precision() -> torch.dtype:
    """What large matrices and convolutions are best computed in: bfloat16 where the processor does more of it a second (AMX; AMD's AVX-512
    BF16); elsewhere float32. Without those instructions bfloat16 is emulated; on an Intel processor that has AVX-512 BF16 but no AMX, or
    shows none to a virtual machine, the segmenter and large matrices were slower in it than in float32."""
    able = torch.cpu.get_capabilities()
    intel = "intel" in str(able.get("cpu_name", "")).lower()
    return torch.bfloat16 if able.get("amx_bf16") or (able.get("avx512_bf16") and not intel) else torch.float32


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """transformers shows a bar for every load, on terminals and in logs alike."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
