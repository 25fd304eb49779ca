"""N proposals at once, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """N proposals: each is one of K categories with D continuous parameters. What they mean is the task's business.

    Generators make batches; scorers and strategies read them and must not write into the tensors, which are shared between threads.

    Attributes:
        parameters: (N, D) float64, finite. If they require a gradient, the ensemble asks differentiable scorers for it (`Gradient`).
        category: (N,) int64, >= 0. All zero where a task has no discrete choice.
        extras: name -> (N, ...) tensors that the generator derived from the parameters and scorers need.

    Raises:
        ValueError: a wrong dtype, shape or value, or N = 0.
    """

    parameters: Tensor
    category: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        p, c = self.parameters, self.category
        if p.ndim != 2 or p.dtype != torch.float64 or len(p) == 0:
            raise ValueError(f"parameters must be float64 (N, D) with N >= 1, got {p.dtype} {tuple(p.shape)}")
        if not torch.isfinite(p).all():
            raise ValueError(f"parameters must be finite; {int((~torch.isfinite(p)).any(dim=1).sum())} of {len(p)} proposals are not")
        if c.shape != p.shape[:1] or c.dtype != torch.int64:
            raise ValueError(f"category must be int64 ({len(p)},) like the parameters, got {c.dtype} {tuple(c.shape)}")
        if int(c.min()) < 0:
            raise ValueError(f"category must be >= 0, got {int(c.min())}")
        for name, value in self.extras.items():
            if value.ndim == 0 or len(value) != len(p):
                raise ValueError(f"extras['{name}'] must have {len(p)} rows like the parameters, got {tuple(value.shape)}")

    def __len__(self) -> int:
        return len(self.parameters)

    def select(self, indices: Tensor | Sequence[int]) -> Batch:
        """The proposals at these rows, in this order: (M,) int64 or a list of ints, M >= 1."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.parameters.device)
        return Batch(self.parameters[rows], self.category[rows], {name: value[rows] for name, value in self.extras.items()})

    def detached(self) -> Batch:
        """The same proposals without what gradients need."""
        return Batch(self.parameters.detach(), self.category, {name: value.detach() for name, value in self.extras.items()})

    def joined(self, other: Batch) -> Batch:
        """This batch's rows, then the other's. Raises ValueError unless both have the same extras."""
        if self.extras.keys() != other.extras.keys():
            raise ValueError(f"batches to be joined have different extras: {sorted(self.extras)} and {sorted(other.extras)}")
        extras = {name: torch.cat([value, other.extras[name]]) for name, value in self.extras.items()}
        return Batch(torch.cat([self.parameters, other.parameters]), torch.cat([self.category, other.category]), extras)
