"""A beam over partial sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import ScoreTable


@dataclass(frozen=True, eq=False)
class BeamState:
    """The partial sequences from which the generator goes on.

    Attributes:
        beams: 1..width proposals, best first.
        energy: (M,) float64, their totals when they were chosen.
        complete: (M,) bool, those to which nothing is to be added. A generator proposes them again as they are, so that they stay in the
            competition, and goes on from the others.
        continued: keys of the sequences from which the generator went on in earlier rounds.
    """

    beams: Batch
    energy: Tensor
    complete: Tensor
    continued: frozenset[bytes] = frozenset()


class Beam:
    """Keep the proposals of least total energy, each of which the generator continues in several ways.

    Beam search (Lowerre, "The HARPY speech recognition system", 1976) with the ensemble's energy in place of a likelihood, as Li et al.,
    arXiv 2210.11522, section 3 use it for solutions of word problems. With width 1 and a generator of one proposal it is greedy search
    (a round in which nothing can be compared does not end by agreement).

    A proposal that is not complete and from which the generator went on before is not kept again. (With `keep_leader` the engine shows
    the leader of all rounds once more, and it may be such a one; it may be no complete sequence: read the result from the state.)

    Args:
        width: beams to keep, >= 1.
        sequence: name of the extra (N, ...) by which proposals are told apart.
        complete: name of the extra (N,) bool that marks complete ones.
        distinct: keep one of equal proposals (the one of least energy) instead of all; False is right where equal ones are votes.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, width: int = 5, sequence: str = "sequence", complete: str = "complete", distinct: bool = True) -> None:
        if width < 1:
            raise ValueError(f"width is {width}; allowed: >= 1")
        self.width, self.sequence, self.complete, self.distinct = width, sequence, complete, distinct

    def update(self, batch: Batch, table: ScoreTable, state: BeamState | None) -> BeamState | None:
        """The new beams; the old state if no proposal can be kept. Raises KeyError if the batch has no such extras."""
        sequences, complete = batch.extras[self.sequence], batch.extras[self.complete]
        continued: frozenset[bytes] = frozenset()
        if state is not None:
            continued = state.continued.union(_key(row) for row in state.beams.extras[self.sequence][~state.complete])
        order = table.total.argsort(stable=True)
        kept: list[int] = []
        met: set[bytes] = set()
        for row in order[torch.isfinite(table.total[order])].tolist():
            key = _key(sequences[row])
            if (key in continued and not complete[row]) or (self.distinct and key in met):
                continue
            met.add(key)
            kept.append(row)
            if len(kept) == self.width:
                break
        if not kept:
            return state
        return BeamState(batch.select(kept), table.total[kept], complete[kept].clone(), continued)

    def __repr__(self) -> str:
        return f"Beam(width={self.width}, distinct={self.distinct})"


def _key(row: Tensor) -> bytes:
    return row.contiguous().numpy().tobytes()
