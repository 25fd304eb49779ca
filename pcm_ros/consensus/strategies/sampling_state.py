"""The distribution that cross-entropy and MPPI refit: a category, then a Gaussian with independent components."""

from __future__ import annotations

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


def refitted(
    batch: Batch, weights: Tensor, state: CrossEntropyState | None, smoothing: float, minimum_std: Sequence[float], exploration: float
) -> CrossEntropyState:
    """Fit the distribution to weighted proposals by maximum likelihood, and smooth.

    p_k = sum of weights in k; mean and std are weighted moments within k. Then new = (1 - smoothing) * fitted + smoothing * old, the rule
    of de Boer et al. 2005 with alpha = 1 - smoothing. A category without weight keeps its mean and std: nothing was learnt about them.
    At the first call the old distribution is the batch's own, which is the generator's prior.

    Args:
        batch: N proposals. weights: (N,) float64, >= 0, sum 1.
        state: old distribution or None. K grows when the batch holds a new category.
        minimum_std: D floors of the standard deviation, or one for all.
        exploration: 0..1, share of the probability that is spread evenly over all categories ever proposed, so that none dies.
    """
    seen = int(batch.category.max()) + 1
    proposed = torch.bincount(batch.category, minlength=seen).to(torch.float64)
    prior = _fit(batch, torch.full_like(weights, 1 / len(batch)), _spread(batch, seen))
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
    fitted = _fit(batch, weights, old)
    probability = (1 - smoothing) * fitted.category_probability + smoothing * old.category_probability
    alive = old.category_probability > 0
    alive[:seen] |= proposed > 0
    probability = (1 - exploration) * probability / probability.sum() + exploration * alive / alive.sum()
    mean = (1 - smoothing) * fitted.mean + smoothing * old.mean
    std = (1 - smoothing) * fitted.std + smoothing * old.std
    return CrossEntropyState(probability / probability.sum(), mean, std.clamp_min(torch.as_tensor(minimum_std, dtype=torch.float64)))


def _spread(batch: Batch, categories: int) -> CrossEntropyState:
    """The moments of the whole batch for each category: what stands in for one that was never proposed."""
    mean = batch.parameters.mean(dim=0)
    std = (batch.parameters - mean).square().mean(dim=0).sqrt()
    probability = torch.zeros(categories, dtype=torch.float64)
    return CrossEntropyState(probability, mean.repeat(categories, 1), std.repeat(categories, 1))


def _fit(batch: Batch, weights: Tensor, fallback: CrossEntropyState) -> CrossEntropyState:
    """Weighted maximum likelihood per category; mean and std of the fallback where a category has no weight."""
    mean, std = fallback.mean.clone(), fallback.std.clone()
    probability = torch.zeros(len(mean), dtype=torch.float64)
    for k in torch.unique(batch.category[weights > 0]).tolist():
        rows = batch.category == k
        x, w = batch.parameters[rows], weights[rows]
        probability[k] = w.sum()
        w = (w / w.sum())[:, None]
        mean[k] = (w * x).sum(dim=0)
        std[k] = (w * (x - mean[k]).square()).sum(dim=0).sqrt()
    return CrossEntropyState(probability, mean, std)


def checked_floor(minimum_std: float | Sequence[float]) -> tuple[float, ...]:
    """`minimum_std` as a tuple; ValueError unless all are finite and >= 0."""
    floor = (float(minimum_std),) if isinstance(minimum_std, (int, float)) else tuple(float(value) for value in minimum_std)
    if not floor or not all(0 <= value < float("inf") for value in floor):
        raise ValueError(f"minimum_std is {minimum_std}; allowed: one finite number >= 0, or one for each parameter")
    return floor


def check_share(name: str, value: float) -> None:
    """ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; allowed: 0 <= {name} < 1")
