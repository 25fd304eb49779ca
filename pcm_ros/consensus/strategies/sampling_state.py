"""The distribution that cross-entropy and MPPI refit: a category, then a Gaussian with independent components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus.batch import Batch


@dataclass(frozen=True, eq=False)
class CrossEntropyState:
    """p(k, x) = category_probability[k] * prod_d Normal(x_d; mean[k, d], std[k, d]).

    Attributes:
        category_probability: (K,) float64, >= 0, sums to 1. Exactly 0 only for categories that no generator has ever proposed.
        mean: (K, D) float64. std: (K, D) float64, >= 0.
    """

    category_probability: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Refit:
    """How the distribution is fitted to weighted proposals: maximum likelihood, then smoothing, floors and a share for exploration.

    p_k = sum of weights in k; mean and std are weighted moments within k. Then new = (1 - smoothing) * fitted + smoothing * old, the rule
    of de Boer et al. 2005 with alpha = 1 - smoothing. A category without weight keeps its mean and std: nothing was learnt about them.
    At the first call the old distribution is the batch's own, which is the generator's prior.

    Attributes:
        smoothing: 0 <= smoothing < 1.
        minimum_std: floors of the standard deviation, >= 0: one for all, or one for each of the D parameters.
        exploration: 0 <= exploration < 1, share of the probability that is spread evenly over all categories ever proposed; none dies.
        periods: D numbers, > 0 = the parameter is periodic (2 pi for an angle), 0 = it is not; empty = none is. Periodic ones have the
            circular mean, so that angles about +pi and -pi do not average to 0; it is kept within half a period of 0.

    Raises:
        ValueError: an attribute out of its range.
    """

    smoothing: float
    minimum_std: tuple[float, ...]
    exploration: float
    periods: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("smoothing", "exploration"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 0 <= {name} < 1")
        for name in ("minimum_std", "periods"):
            if not all(0 <= value < float("inf") for value in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: finite numbers >= 0")
        if not self.minimum_std:
            raise ValueError("minimum_std is empty; allowed: one number, or one for each parameter")

    def __call__(self, batch: Batch, weights: Tensor, state: CrossEntropyState | None) -> CrossEntropyState:
        """The new distribution.

        Args:
            batch: N proposals. weights: (N,) float64, >= 0, sum 1. state: the old distribution or None. K grows when the batch
                holds a new category.

        Raises:
            ValueError: minimum_std or periods do not fit the number of parameters.
        """
        dimensions = batch.parameters.shape[1]
        if len(self.minimum_std) not in (1, dimensions) or len(self.periods) not in (0, dimensions):
            given = f"minimum_std {self.minimum_std} and periods {self.periods}"
            raise ValueError(f"{given} must have one number for each of {dimensions} parameters")
        seen = int(batch.category.max()) + 1
        proposed = torch.bincount(batch.category, minlength=seen) > 0
        uniform = torch.full_like(weights, 1 / len(batch))
        prior = self._fit(batch, uniform, _spread(batch, seen))
        if state is None:
            old = prior
        elif (missing := seen - len(state.category_probability)) > 0:
            new = slice(seen - missing, None)
            old = CrossEntropyState(
                torch.cat([state.category_probability, torch.zeros(missing, dtype=torch.float64)]),
                torch.cat([state.mean, prior.mean[new]]),
                torch.cat([state.std, prior.std[new]]),
            )
        else:
            old = state
        fitted = self._fit(batch, weights, old)
        probability = (1 - self.smoothing) * fitted.category_probability + self.smoothing * old.category_probability
        alive = old.category_probability > 0
        alive[:seen] |= proposed
        probability = (1 - self.exploration) * probability / probability.sum() + self.exploration * alive / alive.sum()
        mean = fitted.mean + self.smoothing * self._wrapped(old.mean - fitted.mean)
        std = (1 - self.smoothing) * fitted.std + self.smoothing * old.std
        floor = torch.tensor(self.minimum_std, dtype=torch.float64)
        return CrossEntropyState(probability / probability.sum(), self._wrapped(mean), std.clamp_min(floor))

    def _fit(self, batch: Batch, weights: Tensor, fallback: CrossEntropyState) -> CrossEntropyState:
        """Weighted maximum likelihood per category; mean and std of the fallback where a category has no weight."""
        mean, std = fallback.mean.clone(), fallback.std.clone()
        probability = torch.zeros(len(mean), dtype=torch.float64)
        for k in torch.unique(batch.category[weights > 0]).tolist():
            rows = batch.category == k
            x, w = batch.parameters[rows], weights[rows]
            probability[k] = w.sum()
            w = (w / w.sum())[:, None]
            around = self._circular_mean(x, w)
            x = around + self._wrapped(x - around)
            mean[k] = (w * x).sum(dim=0)
            std[k] = (w * (x - mean[k]).square()).sum(dim=0).sqrt()
        return CrossEntropyState(probability, mean, std)

    def _circular_mean(self, x: Tensor, w: Tensor) -> Tensor:
        """(D,) direction of the weighted sum of unit vectors for periodic parameters, 0 for the others."""
        center = torch.zeros_like(x[0])
        for d, period in enumerate(self.periods):
            if period > 0:
                angle = x[:, d] * (2 * math.pi / period)
                center[d] = torch.atan2((w[:, 0] * angle.sin()).sum(), (w[:, 0] * angle.cos()).sum()) * (period / (2 * math.pi))
        return center

    def _wrapped(self, x: Tensor) -> Tensor:
        """(..., D) with periodic parameters moved by whole periods into [-period / 2, period / 2)."""
        x = x.clone()
        for d, period in enumerate(self.periods):
            if period > 0:
                x[..., d] = torch.remainder(x[..., d] + period / 2, period) - period / 2
        return x


def _spread(batch: Batch, categories: int) -> CrossEntropyState:
    """The moments of the whole batch for each category: what stands in for one that was never proposed."""
    mean = batch.parameters.mean(dim=0)
    std = (batch.parameters - mean).square().mean(dim=0).sqrt()
    probability = torch.zeros(categories, dtype=torch.float64)
    return CrossEntropyState(probability, mean.repeat(categories, 1), std.repeat(categories, 1))


def as_tuple(values: float | Sequence[float]) -> tuple[float, ...]:
    """One number or several, as floats."""
    return (float(values),) if isinstance(values, (int, float)) else tuple(float(value) for value in values)
