"""Cheap scorers first: dear ones see only the proposals that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import ScoreTable
from pcm_ros.consensus.ensemble import Ensemble, QuorumError


class Cascade:
    """Ensembles one after the other; each passes on the best of what it saw.

    The total of a proposal that reached the end is the sum of its totals in all stages (each normalised over what that stage saw), so
    without normalisation it is exactly that of one ensemble of all the scorers. Proposals that a stage did not pass on get +inf, and NaN
    energies from later scorers. Infeasible ones (+inf) are never passed on; if none is left, later stages are not asked.

    The first stage must have its quorum. A later one that has none is left out, all its scorers are named in `ScoreTable.dropped`, and
    what it was to judge goes on with the totals it had: dear experts refine a decision, they are no condition of one.

    Args:
        stages: (ensemble, keep) in order. keep = how many proposals this stage passes on: an int >= 1, a float in (0, 1] = share of the
            whole batch, or None = all feasible ones. The last stage's keep bounds how many get a finite total; None is usual.

    Raises:
        ValueError: no stage, a scorer name twice, or keep out of its range.
    """

    def __init__(self, stages: Sequence[tuple[Ensemble, int | float | None]]) -> None:
        self.stages = tuple(stages)
        self.names = tuple(name for ensemble, _ in self.stages for name in ensemble.names)
        if not self.stages or len(set(self.names)) != len(self.names):
            raise ValueError(f"a cascade needs at least one stage, and scorer names that are unique over all; got {list(self.names)}")
        for number, (_, keep) in enumerate(self.stages):
            if keep is not None and (isinstance(keep, bool) or not keep > 0 or (isinstance(keep, float) and keep > 1)):
                raise ValueError(f"keep of stage {number} is {keep}; allowed: an int >= 1, a share in (0, 1], or None for all")

    def score(self, batch: Batch, context: Any, incumbents: int = 0) -> ScoreTable:
        """Like `Ensemble.score`.

        Args:
            incumbents: the last so many rows are passed on by every stage as long as they are feasible, beside the `keep` best of the
                others: cheap scorers alone must not depose what all stages held to be best before.

        Raises:
            QuorumError: the first stage has no quorum.
            ValueError: incumbents are not 0..N.
        """
        if not 0 <= incumbents <= len(batch):
            raise ValueError(f"incumbents is {incumbents}; allowed: 0..{len(batch)}, the proposals of the batch")
        energies = torch.full((len(batch), len(self.names)), torch.nan, dtype=torch.float64)
        total = torch.zeros(len(batch), dtype=torch.float64)
        rows = torch.arange(len(batch))
        dropped: dict[str, str] = {}
        seconds: dict[str, float] = {}
        column = 0
        for ensemble, keep in self.stages:
            columns = slice(column, column := column + len(ensemble.names))
            if len(rows) == 0:
                continue
            try:
                table = ensemble.score(batch if len(rows) == len(batch) else batch.select(rows), context)
            except QuorumError as error:
                if ensemble is self.stages[0][0]:
                    raise
                dropped.update({name: error.dropped.get(name, "its stage has no quorum") for name in ensemble.names})
            else:
                energies[rows, columns] = table.energies
                total[rows] += table.total
                dropped.update(table.dropped)
                seconds.update(table.seconds)
            limit = len(rows) if keep is None else keep if isinstance(keep, int) else math.ceil(keep * len(batch) - 1e-9)
            held = rows >= len(batch) - incumbents
            others = rows[~held]
            passed = torch.cat([others[total[others].argsort(stable=True)[:limit]], rows[held]])
            left = passed[torch.isfinite(total[passed])].sort().values
            total[rows[~torch.isin(rows, left)]] = torch.inf
            rows = left
        weights = torch.cat([ensemble.weights for ensemble, _ in self.stages])
        return ScoreTable(self.names, energies, weights, total, dropped, seconds)

    def close(self) -> None:
        """Close all stages."""
        for ensemble, _ in self.stages:
            ensemble.close()

    def __enter__(self) -> Cascade:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cascade({', '.join(f'{ensemble!r} keep {keep}' for ensemble, keep in self.stages)})"
