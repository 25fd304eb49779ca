"""Model-predictive path integral weighting."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import ScoreTable
from pcm_ros.consensus.strategies.sampling_state import CrossEntropyState, Refit, as_tuple


class Mppi:
    """Refit the sampling distribution to all feasible proposals, weighted by w_n ~ exp(-(E_n - min E) / temperature).

    Williams, Wagener, Goldfain, Drews, Rehg, Boots, Theodorou, "Information theoretic MPC for model-based reinforcement learning",
    ICRA 2017, equation 11 and algorithm 2. Unlike there, the standard deviations are refitted too, with the same weights.

    Args:
        temperature: in units of the total energy, > 0; 0.1-1 is usual for z-scores. Low: only the best count, and if that is
            one proposal the spread collapses at once (smoothing helps); high: all count alike.
        smoothing, minimum_std, exploration, periods: as for `CrossEntropy`.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        smoothing: float = 0.0,
        minimum_std: float | Sequence[float] = 1e-3,
        exploration: float = 0.05,
        periods: Sequence[float] = (),
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; allowed: finite and > 0")
        self.temperature = temperature
        self.refit = Refit(smoothing, as_tuple(minimum_std), exploration, as_tuple(periods))

    def weights(self, table: ScoreTable) -> torch.Tensor:
        """(N,) float64 weights that sum to 1; 0 for infeasible proposals; all 0 if none is feasible."""
        feasible = torch.isfinite(table.total)
        if not feasible.any():
            return torch.zeros_like(table.total)
        return torch.softmax(-(table.total - table.total[feasible].min()) / self.temperature, dim=0)

    def update(self, batch: Batch, table: ScoreTable, state: CrossEntropyState | None) -> CrossEntropyState | None:
        """The distribution to draw the next proposals from; the old one if no proposal is feasible."""
        weights = self.weights(table)
        if not (weights > 0).any():
            return state
        return self.refit(batch, weights, state)

    def __repr__(self) -> str:
        return f"Mppi(temperature={self.temperature}, {self.refit})"
