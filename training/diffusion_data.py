"""The shards that training/diffusion_scenes.py wrote, and what the trainings on them share: captions, mirror images, pace."""

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

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, Placed
from training.diffusion_captions import caption


def shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split, in order. Raises FileNotFoundError if there is none."""
    found = sorted(folder.glob(f"{split}-*.safetensors"))
    if not found:
        raise FileNotFoundError(f"no shard '{split}-*' in '{folder}'; remedy: python -m training.diffusion_scenes --split {split}")
    return found


def pictures(path: Path) -> npt.NDArray[np.uint8]:
    """(N, 64, 64, 3) uint8 of one shard."""
    return np.asarray(load_file(path)["rgb"], dtype=np.uint8)


def truths(path: Path) -> npt.NDArray[np.float32]:
    """(N, 3, 5) of one shard: kind, colour, x, y, host; see training/diffusion_scenes.py."""
    return np.asarray(load_file(path)["truth"], dtype=np.float32)


def placed(truth: npt.NDArray[np.float32], mirrored: bool = False) -> list[Placed]:
    """The things of one picture (3, 5), or of its mirror image."""
    return [
        Placed(COLORS[int(color)], KINDS[int(kind)], -float(x) if mirrored else float(x), float(y), int(host))
        for kind, color, x, y, host in truth
        if kind >= 0
    ]


def captions(truth: npt.NDArray[np.float32], count: int, rng: np.random.Generator, mirrored: bool = False) -> list[list[str]]:
    """`count` captions for each of N pictures (N, 3, 5), or for their mirror images."""
    return [[caption(rng, placed(row, mirrored)) for _ in range(count)] for row in truth]


def as_input(rgb: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in -1..1, channels last in memory, on the device of a tensor."""
    pictures = rgb if isinstance(rgb, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(rgb))
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def average_into(average: torch.nn.Module, network: torch.nn.Module, step: int, longest: float = 0.998) -> None:
    """Exponential moving average of the weights whose memory grows with the steps: a short run must not be averaged with its start."""
    decay = min(longest, (1 + step) / (20 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


class Progress:
    """Seconds since the start over all runs, and log.jsonl in the work folder.

    Args:
        work: folder of the log. granted: seconds. before: seconds of earlier runs.
    """

    def __init__(self, work: Path, granted: float, before: float = 0.0) -> None:
        self._file, self._limit, self._before, self._start = work / "log.jsonl", granted, before, time.monotonic()

    @property
    def seconds(self) -> float:
        """So far, earlier runs included."""
        return self._before + time.monotonic() - self._start

    @property
    def share(self) -> float:
        """0..1 of the time that was granted."""
        return min(1.0, self.seconds / self._limit)

    def log(self, **values: Any) -> None:
        line = json.dumps({"seconds": round(self.seconds, 1), **values})
        with self._file.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def shuffled(generator: torch.Generator, count: int, batch: int) -> Iterator[torch.Tensor]:
    """Rows (batch,) of batches for ever, on the generator's device, each epoch in another order."""
    while True:
        order = torch.randperm(count, generator=generator, device=generator.device)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def keep(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that a kill leaves the old or the new one."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)
