"""Scorers as other people may write them, each bad in its own way."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.tasks.manipulation.context import Context

RELEASE = threading.Event()
"""Lets hanging scorers go on, so that none outlives its test."""


class _Unruly:
    cost = 1e-4
    differentiable = False

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


class Raising(_Unruly):
    def energy(self, batch: Batch, context: Context) -> Tensor:
        raise ZeroDivisionError("the model fell over")


class Nan(_Unruly):
    def energy(self, batch: Batch, context: Context) -> Tensor:
        return torch.full((len(batch),), torch.nan)


class Misshapen(_Unruly):
    def energy(self, batch: Batch, context: Context) -> Tensor:
        return torch.zeros(len(batch), 2)


class Hanging(_Unruly):
    def energy(self, batch: Batch, context: Context) -> Tensor:
        RELEASE.wait(60)
        return torch.zeros(len(batch))


class Forbidding(_Unruly):
    """Works well, and finds everything impossible."""

    def energy(self, batch: Batch, context: Context) -> Tensor:
        return torch.full((len(batch),), torch.inf)
