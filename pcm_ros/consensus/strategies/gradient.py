"""Following the gradient of the total energy."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import ScoreTable


@dataclass(frozen=True, eq=False)
class GradientState:
    """Where a step of gradient descent led.

    Attributes:
        parameters: (N, D) float64, the proposals moved downhill, in the order of the batch.
        batch: the proposals from which it was gone, with the extras that the generator needs to go on.
        total: (N,) float64, their total energies.
        step: (N,) float64, the step sizes that were used.
        moved: scorer -> (N,) float64, how far it moved each proposal (norm of its clipped and weighted part of the step).
    """

    parameters: Tensor
    batch: Batch
    total: Tensor
    step: Tensor
    moved: Mapping[str, Tensor]


class Gradient:
    """x <- x - step * sum_n w_n clip(grad E_n(x)): each proposal goes down the summed energy of the experts.

    The paper's strategy for images (Li et al., arXiv 2210.11522, section 3) and the guidance of Bansal et al., arXiv 2302.07121,
    equation 6, where x is a diffusion's predicted clean sample. The generator must propose parameters that require a gradient, and go on
    from `GradientState.parameters`; run it with `Consensus(..., keep_leader=False)`.

    The raw energies of the differentiable scorers count, with their weights: normalisation and robust aggregates have no part in the
    gradient. A scorer that gave no energies or a gradient with NaN is left out of that step by the ensemble and named there.

    Args:
        step: > 0, times the gradient.
        clip: > 0, longest gradient of an expert, before its weight: one for all, or by name (none for those that are not named).
        to_zero: names of experts whose energy is 0 where they are content. Their gradient is scaled so that a step of 1 would bring the
            energy to 0 if it were linear (Polyak, "Introduction to Optimization", 1987), then clipped: experts whose gradients differ by
            orders of magnitude are worth the same, and one that is content does not push. A clip for them is needed.
        adapt: halve a proposal's step (down to `least_step`) when its total energy has risen since the last round, else lengthen it by a
            tenth up to `step`. Only where energies of successive rounds can be compared, with normalise "none".
        least_step: > 0.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        step: float = 1.0,
        clip: float | Mapping[str, float] = math.inf,
        to_zero: Collection[str] = (),
        adapt: bool = False,
        least_step: float = 1e-6,
    ) -> None:
        clips = clip.values() if isinstance(clip, Mapping) else (clip,)
        for name, value in (("step", step), ("least_step", least_step), *(("clip", value) for value in clips)):
            if not value > 0 or (name != "clip" and not math.isfinite(value)):
                raise ValueError(f"{name} is {value}; allowed: {'> 0' if name == 'clip' else 'finite and > 0'}")
        self.step, self.clip, self.adapt, self.least_step = step, clip, adapt, least_step
        self.to_zero = frozenset(to_zero)
        if unlimited := sorted(name for name in self.to_zero if math.isinf(self._longest(name))):
            raise ValueError(f"to_zero names {unlimited}, which have no clip; allowed: experts with a finite one")

    def update(self, batch: Batch, table: ScoreTable, state: GradientState | None) -> GradientState:
        """The proposals moved downhill. Where no counted scorer gave a gradient they stay where they are."""
        step = torch.full((len(batch),), self.step, dtype=torch.float64)
        if self.adapt and state is not None and len(state.step) == len(batch):
            risen = table.total > state.total
            step = torch.where(risen, state.step / 2, state.step * 1.1).clamp(min(self.least_step, self.step), self.step)
        parameters, moved = batch.parameters.detach().clone(), {}
        for column in table.counted:
            name = table.names[column]
            if (gradient := table.gradients.get(name)) is None:
                continue
            part = table.weights[column] * step[:, None] * self._clipped(name, gradient, table.energies[:, column])
            parameters -= part
            moved[name] = part.norm(dim=1)
        return GradientState(parameters, batch, table.total, step, moved)

    def _longest(self, name: str) -> float:
        return self.clip.get(name, math.inf) if isinstance(self.clip, Mapping) else self.clip

    def _clipped(self, name: str, gradient: Tensor, energies: Tensor) -> Tensor:
        longest = self._longest(name)
        if math.isinf(longest):
            return gradient
        scale = gradient.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)  # so that squares do not overflow
        direction = gradient / scale
        length = direction.norm(dim=1, keepdim=True).clamp_min(1e-300)
        wanted = scale * length
        if name in self.to_zero:  # E / |g|: how far it is to 0
            wanted = (energies.clamp_min(0)[:, None] / wanted.clamp_min(1e-300)) * (scale > 1e-300)
        return direction / length * wanted.clamp_max(longest)

    def __repr__(self) -> str:
        return f"Gradient(step={self.step:g}, clip={self.clip}, adapt={self.adapt})"
