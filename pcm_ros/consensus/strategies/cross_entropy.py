"""The cross-entropy method."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import ScoreTable
from pcm_ros.consensus.strategies.sampling_state import CrossEntropyState, Refit, as_tuple


class CrossEntropy:
    """Refit the sampling distribution to the elites, the proposals of least total energy.

    Rubinstein, "The cross-entropy method for combinatorial and continuous optimization", 1999; de Boer, Kroese, Mannor, Rubinstein,
    "A tutorial on the cross-entropy method", 2005 (section 3 for the smoothing).

    Args:
        elite_fraction: share of the batch that is elite, in (0, 1]; 0.05-0.2 is usual. Infeasible proposals (total +inf) are never elite.
            If all are infeasible, nothing is learnt: the state stays (None stays None).
        smoothing: share of the old distribution that is kept, 0 <= smoothing < 1; 0.1-0.6 is usual.
        minimum_std: floor of the standard deviations, in the parameters' units: one number, or one per parameter. Keeps the search alive.
        exploration: share of the category probability that is spread evenly, 0 <= exploration < 1.
        periods: one number per parameter, its period (2 pi for an angle) or 0; empty = none is periodic. See `Refit`.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        elite_fraction: float = 0.1,
        smoothing: float = 0.2,
        minimum_std: float | Sequence[float] = 1e-3,
        exploration: float = 0.05,
        periods: Sequence[float] = (),
    ) -> None:
        if not 0 < elite_fraction <= 1:
            raise ValueError(f"elite_fraction is {elite_fraction}; allowed: 0 < elite_fraction <= 1")
        self.elite_fraction = elite_fraction
        self.refit = Refit(smoothing, as_tuple(minimum_std), exploration, as_tuple(periods))

    def elites(self, table: ScoreTable) -> torch.Tensor:
        """(M,) int64 rows of the elites, best first: ceil(elite_fraction * N) of them, fewer if fewer are feasible, possibly none."""
        count = math.ceil(self.elite_fraction * len(table.total) - 1e-9)
        order = table.total.argsort(stable=True)[:count]
        return order[torch.isfinite(table.total[order])]

    def update(self, batch: Batch, table: ScoreTable, state: CrossEntropyState | None) -> CrossEntropyState | None:
        """The distribution to draw the next proposals from."""
        elites = self.elites(table)
        if len(elites) == 0:
            return state
        weights = torch.zeros(len(batch), dtype=torch.float64)
        weights[elites] = 1 / len(elites)
        return self.refit(batch, weights, state)

    def __repr__(self) -> str:
        return f"CrossEntropy(elite_fraction={self.elite_fraction}, {self.refit})"
