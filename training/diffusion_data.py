"""The shards that training/diffusion_scenes.py wrote, and what the training of autoencoder and denoiser shares."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file


def shards(folder: Path, split: str) -> list[Path]:
    """The whole shards of a split, in order. Raises FileNotFoundError if there is none."""
    found = sorted(path for path in folder.glob(f"{split}-*.safetensors") if path.with_suffix(".json").exists())
    if not found:
        raise FileNotFoundError(f"no shard '{split}-*' in '{folder}'; remedy: python -m training.diffusion_scenes --split {split}")
    return found


def pictures(path: Path) -> npt.NDArray[np.uint8]:
    """(N, 64, 64, 3) uint8 of one shard."""
    return np.asarray(load_file(path)["rgb"], dtype=np.uint8)


def captions(path: Path) -> list[list[str]]:
    """The captions of each picture of a shard."""
    return [[str(text) for text in texts] for texts in json.loads(path.with_suffix(".json").read_text())]


def as_input(rgb: npt.NDArray[np.uint8]) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in -1..1, channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float() / 127.5 - 1


def average_into(average: torch.nn.Module, network: torch.nn.Module, step: int, longest: float = 0.999) -> None:
    """Exponential moving average of the weights whose memory grows with the steps: a short run must not be averaged with its start."""
    decay = min(longest, (1 + step) / (20 + step))
    with torch.no_grad():
        for old, new in zip(average.parameters(), network.parameters(), strict=True):
            old.lerp_(new, 1 - decay)


class Progress:
    """Minutes of processor time over all runs, divided by the threads (what an idle machine would take), and log.jsonl in the work folder.

    Args:
        work: folder of the log. minutes: granted. seconds: worked in earlier runs.
    """

    def __init__(self, work: Path, minutes: float, seconds: float = 0.0) -> None:
        self._file, self._limit, self._before, self._start = work / "log.jsonl", minutes * 60, seconds, time.process_time()

    @property
    def seconds(self) -> float:
        """Worked so far, earlier runs included."""
        return self._before + (time.process_time() - self._start) / torch.get_num_threads()

    @property
    def share(self) -> float:
        """0..1 of the time that was granted."""
        return min(1.0, self.seconds / self._limit)

    def log(self, **values: Any) -> None:
        line = json.dumps({"minutes": round(self.seconds / 60, 2), **values})
        with self._file.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def rate(share: float, step: int, highest: float, warm_up: int = 200) -> float:
    """Learning rate: linear warm-up, then half a cosine down to a fiftieth."""
    return highest * min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * share))))


def shuffled(rng: np.random.Generator, count: int, batch: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of batches for ever, each epoch in another order."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that a kill leaves the old or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)
