"""Several texts behind one beginning as one sequence: the beginning is read once, and no text sees another.

A tree of tokens: the trunk, and branches that each see the trunk and themselves, by an attention mask and positions of their own. What
comes out is what reading each text alone would give, but for rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pcm_ros.tasks.mathematics.notation import prompt
from training.maths_labels import Sampled, ranking_loss, shares_right, stopped
from training.maths_samples import right

Encoded = Callable[[str], Sequence[int]]
"""The tokens of a prompt or of a line."""


@dataclass(frozen=True)
class Branch:
    """Token ids of a text, and a target for each token, 0..1; the last one's is that of the text."""

    ids: tuple[int, ...]
    targets: tuple[float, ...]


@dataclass(frozen=True)
class Tree:
    """Token ids of the trunk, and the branches."""

    trunk: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens, in their order in the sequence."""
        return (*self.trunk, *itertools.chain(*(branch.ids for branch in self.branches)))


def trees(trunk: Sequence[int], branches: Sequence[Branch], most: int) -> list[Tree]:
    """The branches on as few trunks as hold them in sequences of at most `most` tokens; a longer branch is alone."""
    found: list[list[Branch]] = []
    room = 0
    for branch in branches:
        if not found or len(branch.ids) > room:
            found.append([])
            room = most - len(trunk)
        found[-1].append(branch)
        room -= len(branch.ids)
    return [Tree(tuple(trunk), tuple(part)) for part in found]


def sample_branches(problem: Sampled, encoded: Encoded) -> list[Branch]:
    """The samples of a problem, solutions or next steps, in their order; the target of each line is its share in `shares_right`."""
    shares = shares_right(problem)
    found = []
    for text, _, _ in problem.samples:
        ids: list[int] = []
        targets: list[float] = []
        so_far = problem.before
        for line in text.splitlines(keepends=True):
            so_far += line
            piece = encoded(line)
            ids += piece
            targets += [shares[so_far][0]] * len(piece)
        found.append(Branch(tuple(ids), tuple(targets)))
    return found


def early_ends(problem: Sampled, encoded: Encoded, share: float, rng: np.random.Generator) -> list[Branch]:
    """A share of the samples cut after a step, with the result there as the answer: the target is whether that is right."""
    found = []
    for text, _, _ in problem.samples:
        lines = text.splitlines(keepends=True)
        if len(lines) <= 2 or rng.random() >= share:
            continue
        kept = int(rng.integers(1, len(lines) - 1))
        before = "".join(lines[:kept])
        if (cut := stopped(before)) is not None:
            shown = tuple(itertools.chain(*(encoded(line) for line in lines[:kept])))
            last = tuple(encoded(cut[len(before) :]))
            targets = (float("nan"),) * len(shown) + (float(right(cut, problem.answer)),) * len(last)
            found.append(Branch((*shown, *last), targets))
    return found


def trunk_of(problem: Sampled, encoded: Encoded) -> list[int]:
    """The tokens of the question and of what is written already."""
    return [*encoded(prompt(problem.question)), *itertools.chain(*(encoded(line) for line in problem.before.splitlines(keepends=True)))]


@dataclass(frozen=True)
class Padded:
    """B trees as one batch, T tokens each.

    Attributes:
        ids, positions: (B, T) int64. mask: (B, 1, T, T) float32, added to the logits of attention.
        places: (N,) which of the B * T states are judged. targets: (N,) float32.
        ends: (M,) the last states of the branches. worth: (M,) their targets. tree: (M,) which tree each belongs to.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor
    ends: Tensor
    worth: Tensor
    tree: Tensor

    def to(self, device: torch.device) -> Padded:
        """The same on a device."""
        return Padded(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))


def padded(parts: Sequence[Tree]) -> Padded:
    """Trees as a batch, on the processor."""
    longest = max(len(part.ids) for part in parts)
    ids, positions = (np.zeros((len(parts), longest), dtype=np.int64) for _ in range(2))
    branch = np.full((len(parts), longest), -1)
    targets = np.full((len(parts), longest), np.nan, dtype=np.float32)
    ends, tree = [], []
    for row, part in enumerate(parts):
        column = len(part.trunk)
        ids[row, :column], positions[row, :column], branch[row, :column] = part.trunk, np.arange(column), 0
        for number, own in enumerate(part.branches):
            until = column + len(own.ids)
            ids[row, column:until], branch[row, column:until], targets[row, column:until] = own.ids, number + 1, own.targets
            positions[row, column:until] = len(part.trunk) + np.arange(len(own.ids))
            column = until
            ends.append(row * longest + until - 1)
            tree.append(row)
    seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
    seen &= np.tri(longest, dtype=bool)
    mask = np.where(seen, np.float32(0), np.finfo(np.float32).min)
    flat = targets.reshape(-1)
    places = np.flatnonzero(~np.isnan(flat))
    return Padded(*map(torch.from_numpy, (ids, positions, mask[:, None], places, flat[places], np.array(ends), flat[ends], np.array(tree))))


def verifier_loss(odds: Tensor, batch: Padded) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of all judged states, and summed `ranking_loss` of the ends. odds: (B * T,) log-odds of all states."""
    plain = functional.binary_cross_entropy_with_logits(odds[batch.places], batch.targets, reduction="sum")
    return plain, ranking_loss(odds[batch.ends], batch.worth, batch.tree)
