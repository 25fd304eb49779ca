"""A problem whose answer is known: the best category is `target_category`, the best parameters are `target`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcm_ros.consensus import Batch, CrossEntropyState


class UniformThenGaussian:
    """Uniform in [-2, 2]^D over all categories at first, then from the state."""

    def __init__(self, count: int = 128, dimensions: int = 2, categories: int = 3) -> None:
        self.count, self.dimensions, self.categories = count, dimensions, categories

    def propose(self, context: Any, state: CrossEntropyState | None, rng: torch.Generator) -> Batch:
        shape = (self.count, self.dimensions)
        if state is None:
            category = torch.randint(0, self.categories, (self.count,), generator=rng)
            return Batch(torch.rand(shape, generator=rng, dtype=torch.float64) * 4 - 2, category)
        category = torch.multinomial(state.category_probability, self.count, replacement=True, generator=rng)
        noise = torch.randn(shape, generator=rng, dtype=torch.float64)
        return Batch(state.mean[category] + state.std[category] * noise, category)


class Bowl:
    """scale * |x - target|^2 + offset, and `penalty` in any other than the best category."""

    differentiable = True

    def __init__(
        self, name: str, target: list[float], category: int = 1, scale: float = 1.0, penalty: float = 0.5, cost: float = 1.0
    ) -> None:
        self.name, self.cost = name, cost
        self.target, self.category = torch.tensor(target, dtype=torch.float64), category
        self.scale, self.penalty = scale, penalty
        self.batch_sizes: list[int] = []

    def energy(self, batch: Batch, context: Any) -> Tensor:
        self.batch_sizes.append(len(batch))
        return self.scale * (batch.parameters - self.target).square().sum(dim=1) + self.penalty * (batch.category != self.category)


class Says:
    """A scorer whose answer is any function of the batch; it may raise or wait."""

    cost = 1.0
    differentiable = False

    def __init__(self, name: str, answer: Callable[[Batch], Any]) -> None:
        self.name, self.answer = name, answer
        self.calls = 0

    def energy(self, batch: Batch, context: Any) -> Any:
        self.calls += 1
        return self.answer(batch)


class Gate:
    """Blocks until opened: a hung scorer that a test can release."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, batch: Batch) -> Tensor:
        self.event.wait()
        return batch.parameters[:, 0]


def batch_of(columns: Tensor) -> Batch:
    """A batch whose parameters are these (N, D) numbers, category 0."""
    return Batch(columns.to(torch.float64), torch.zeros(len(columns), dtype=torch.int64))


def reads_column(name: str, column: int) -> Says:
    """A scorer whose energy is parameter number `column`."""
    return Says(name, lambda batch: batch.parameters[:, column])
