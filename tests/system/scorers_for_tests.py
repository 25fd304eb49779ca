"""Experts that misbehave, named by "module:Class" in parameter files like any user's own."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.models.loading import load_safetensors


class Indifferent:
    """Gives each proposal the same energy."""

    name, cost, differentiable = "indifferent", 1e-6, False

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return torch.zeros(len(batch), dtype=torch.float64)


class SaysNan(Indifferent):
    """Has no number to give."""

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return torch.full((len(batch),), torch.nan, dtype=torch.float64)


class Raises(Indifferent):
    """Has a defect."""

    def energy(self, batch: Batch, context: Any) -> Tensor:
        raise ZeroDivisionError("division by zero in this expert")


class HangsAtFirst(Indifferent):
    """Its first answer takes longer than anybody waits."""

    def __init__(self) -> None:
        self.calls = 0

    def energy(self, batch: Batch, context: Any) -> Tensor:
        self.calls += 1
        time.sleep(25.0 if self.calls == 1 else 0.0)
        return super().energy(batch, context)


class Waits(Indifferent):
    """Answers when it is let."""

    begun, let = threading.Event(), threading.Event()

    def energy(self, batch: Batch, context: Any) -> Tensor:
        self.begun.set()
        self.let.wait(60.0)
        return super().energy(batch, context)


class CountsWrong(Indifferent):
    """Gives one energy too many."""

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return torch.zeros(len(batch) + 1, dtype=torch.float64)


class WithWeights(Indifferent):
    """Needs a file of weights."""

    def __init__(self, path: str) -> None:
        load_safetensors(Path(path))


class NoScorer:
    """Lacks all that a scorer has."""
