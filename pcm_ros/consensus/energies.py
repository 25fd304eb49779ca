"""From the energies of many scorers to one total per proposal: pure functions, and the table that keeps both.

Three values have a meaning besides finite numbers (lower is better):

- NaN: this scorer has not judged this proposal (it was dropped, or a cascade did not show it the proposal). Never counted.
- +inf: this scorer holds the proposal to be infeasible. That is a veto: the total is +inf under every aggregate, also under those
  that outvote outliers, since "the arm collides" is no matter of opinion. A scorer that is not sure returns a large finite energy.
  Infeasible proposals take no part in normalisation, so they do not stretch the scale of the others.
- -inf: not allowed; a scorer that returns it is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

Normalise = Literal["none", "zscore", "rank"]
Aggregate = Literal["sum", "median", "trimmed_mean"]
NORMALISATIONS: tuple[str, ...] = get_args(Normalise)
AGGREGATES: tuple[str, ...] = get_args(Aggregate)


def normalised(energies: Tensor, how: Normalise) -> Tensor:
    """Bring one scorer's energies to a common scale.

    - "none": as they are. Right when scorers speak the same unit (negative log-likelihoods).
    - "zscore": (E - mean) / std over the finite ones (population std); zeros if they are all alike. Invariant under a E + b with a > 0.
    - "rank": average rank of the finite ones, scaled to 0 (lowest) .. 1 (highest); ties share. Invariant under increasing functions.

    Args:
        energies: (N,) float64, finite, +inf or NaN.

    Returns:
        (N,) float64; +inf and NaN stay where they are.
    """
    if how == "none":
        return energies.clone()
    finite = torch.isfinite(energies)
    values, result = energies[finite], energies.clone()
    if len(values) == 0:
        return result
    if how == "zscore":
        scale = values.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
        values = values / scale  # so that squares neither overflow nor vanish
        centred = values - values.mean()
        std = centred.square().mean().sqrt()
        result[finite] = centred / std if std > 1e-12 else torch.zeros_like(values)  # below: rounding noise of equal numbers
    elif how == "rank":
        _, which, counts = torch.unique(values, return_inverse=True, return_counts=True)
        middle = counts.cumsum(0) - (counts + 1) / 2
        result[finite] = middle.to(torch.float64)[which] / max(len(values) - 1, 1)
    else:
        raise ValueError(f"normalise is '{how}'; allowed: {', '.join(NORMALISATIONS)}")
    return result


def aggregated(energies: Tensor, weights: Tensor, how: Aggregate, trim: float = 0.25) -> Tensor:
    """One total per proposal from the energies of S scorers.

    - "sum": sum_n w_n E_n(x), the product of experts of Li et al., arXiv 2210.11522, equation 1.
    - "median": weighted median (the ordinary one for equal weights): a minority of the weight cannot move it beyond the others.
    - "trimmed_mean": weighted mean without the share `trim` of the weight at either end; a scorer on the border counts in part.

    Args:
        energies: (N, S) float64, finite, +inf or NaN.
        weights: (S,) float64 >= 0. Scorers of weight 0 are ignored: their energies are for people to look at.
        trim: 0 <= trim < 0.5.

    Returns:
        (N,) float64, +inf where any counted scorer says +inf or none has judged.
    """
    counted = (weights > 0) & ~torch.isnan(energies).all(dim=0)
    if not counted.any():
        return torch.full(energies.shape[:1], torch.inf, dtype=torch.float64)
    energies, weights = energies[:, counted], weights[counted]
    judged = ~torch.isnan(energies)
    infeasible = torch.isposinf(energies).any(dim=1) | ~judged.any(dim=1)
    values = torch.where(torch.isfinite(energies), energies, torch.zeros_like(energies))
    mass = weights * judged
    if how == "sum":
        total = (mass * values).sum(dim=1)
    elif how in ("median", "trimmed_mean"):
        order = torch.where(judged, values, torch.inf).argsort(dim=1, stable=True)  # unjudged last, with mass 0
        values, mass = values.gather(1, order), mass.gather(1, order)
        above = mass.cumsum(dim=1) / mass.sum(dim=1, keepdim=True).clamp_min(1e-300)
        if how == "median":
            lower = (above >= 0.5 - 1e-12).to(torch.uint8).argmax(dim=1, keepdim=True)
            upper = (above > 0.5 + 1e-12).to(torch.uint8).argmax(dim=1, keepdim=True)
            total = (values.gather(1, lower) / 2 + values.gather(1, upper) / 2).squeeze(1)
        else:
            below = torch.cat([torch.zeros_like(above[:, :1]), above[:, :-1]], dim=1)
            share = (above.clamp(trim, 1 - trim) - below.clamp(trim, 1 - trim)) / (1 - 2 * trim)
            total = (share * values).sum(dim=1)
    else:
        raise ValueError(f"aggregate is '{how}'; allowed: {', '.join(AGGREGATES)}")
    return torch.where(infeasible, torch.inf, total)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Who said what about each proposal, who was left out, and what follows.

    Attributes:
        names: S scorers.
        energies: (N, S) float64, raw, as the scorers gave them; NaN = not judged, +inf = infeasible.
        weights: (S,) float64 as configured.
        total: (N,) float64, lower is better, +inf = infeasible or not seen by every stage of a cascade. Totals of two tables may be
            compared only if normalise was "none" and the same scorers took part in both.
        dropped: scorer -> why it was left out this time.
        seconds: scorer -> wall-clock seconds of its call.
        gradients: scorer -> (N, D) float64, finite, of its raw energy with respect to the parameters; of the differentiable scorers that
            were not dropped, if the batch's parameters require a gradient. Cascades give none.
    """

    names: tuple[str, ...]
    energies: Tensor
    weights: Tensor
    total: Tensor
    dropped: Mapping[str, str]
    seconds: Mapping[str, float]
    gradients: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def counted(self) -> tuple[int, ...]:
        """Columns of the scorers that make up the total: weight above 0 and not dropped."""
        return tuple(n for n, name in enumerate(self.names) if self.weights[n] > 0 and name not in self.dropped)

    @property
    def best(self) -> int:
        """Row of the least total (the first of equals)."""
        return int(self.total.argmin())

    def energies_of(self, row: int) -> dict[str, float]:
        """Scorer -> raw energy of this proposal, without those that have not judged it."""
        return {name: float(e) for name, e in zip(self.names, self.energies[row], strict=True) if not torch.isnan(e)}

    def agreement(self, row: int) -> float:
        """How far the scorers agree that this proposal is best, 0..1.

        The mean over counted scorers of the share of proposals (among those it judged) whose energy is >= this one's. Ties count:
        1.0 means that each scorer holds it to be (tied) best. 0.0 if the proposal is infeasible.
        """
        if not torch.isfinite(self.total[row]):
            return 0.0
        shares = []
        for column in self.counted:
            energies = self.energies[:, column]
            energies = energies[~torch.isnan(energies)]
            if not torch.isnan(self.energies[row, column]):
                shares.append(float((energies >= self.energies[row, column]).to(torch.float64).mean()))
        return sum(shares) / len(shares) if shares else 0.0
