"""The closed loop: propose, score, learn, until the ensemble agrees."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.cascade import Cascade
from pcm_ros.consensus.energies import ScoreTable
from pcm_ros.consensus.ensemble import Ensemble


class Generator(Protocol):
    """What proposes."""

    def propose(self, context: Any, state: Any, rng: torch.Generator) -> Batch:
        """N proposals under the condition `context`.

        Args:
            state: what the strategy learnt so far; None = draw from the prior.
            rng: the only source of randomness. It is fresh in each iteration: `rng.initial_seed()` tells a remote generator all.
        """
        ...


class Strategy(Protocol):
    """What turns feedback into the state from which the generator draws next."""

    def update(self, batch: Batch, table: ScoreTable, state: Any) -> Any:
        """The next state; `state` is None at first."""
        ...


@dataclass(frozen=True)
class Stop:
    """When the loop ends, whichever comes first.

    Attributes:
        max_iterations: >= 1.
        agreement: 0 < agreement <= 1, ends when the agreement about the best proposal reaches it; None = never. Ignored while only one
            scorer counts, which always agrees with itself.
        patience: >= 1, ends after so many iterations in a row without a gain above `tolerance`; None = never.
        tolerance: >= 0, in units of the total energy. The gain is total(old leader) - total(new leader), both in the newest table.
        min_iterations: >= 1, agreement and patience are not asked before.
    """

    max_iterations: int = 10
    agreement: float | None = 1.0
    patience: int | None = None
    tolerance: float = 0.0
    min_iterations: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_iterations <= self.max_iterations:
            raise ValueError(f"min_iterations {self.min_iterations} and max_iterations {self.max_iterations}: allowed: 1 <= min <= max")
        if self.agreement is not None and not 0 < self.agreement <= 1:
            raise ValueError(f"agreement is {self.agreement}; allowed: 0 < agreement <= 1, or None")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; allowed: >= 1, or None")
        if not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"tolerance is {self.tolerance}; allowed: finite and >= 0")


@dataclass(frozen=True, eq=False)
class Iteration:
    """What happened in one round.

    Attributes:
        index: 0, 1, ...
        batch: the generator's proposals; from the second round on the last row is the leader so far (if it is feasible), to be judged
            anew beside them: normalised totals of different rounds could not be compared.
        table: the scores of `batch`.
        best: row of the least total in `batch`.
        leader: Batch of one, the best of all rounds as judged now (= row `best`).
        leader_energy: its total; +inf = no feasible proposal so far.
        leader_energies: scorer -> its raw energy.
        agreement: 0..1, see `ScoreTable.agreement`.
        seconds: "propose", "score", "update" and "total" of this round.
        dropped: scorer -> why it was left out of this round.
        state: the strategy's state after this round.
        stopped: "" while the loop goes on, else "agreement", "patience" or "max_iterations".
    """

    index: int
    batch: Batch
    table: ScoreTable
    best: int
    leader: Batch
    leader_energy: float
    leader_energies: Mapping[str, float]
    agreement: float
    seconds: Mapping[str, float]
    dropped: Mapping[str, str]
    state: Any
    stopped: str


def mixed_seed(seed: int, index: int) -> int:
    """A seed in 0 .. 2**63 - 1 for one iteration: splitmix64 (Steele et al. 2014) of both numbers; near seeds share nothing."""
    mask = (1 << 64) - 1
    value = seed & mask
    for addend in (0x9E3779B97F4A7C15, (index * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & mask):
        value = (value + addend) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        value ^= value >> 31
    return value >> 1


class Consensus:
    """Iterative consensus of an ensemble: minimises sum_n w_n E_n(x, c) over x without training anything for the task.

    Li, Du, Tenenbaum, Torralba, Mordatch, "Composing Ensembles of Pre-trained Models via Iterative Consensus", ICLR 2023,
    arXiv 2210.11522, algorithm 1. The same seed and context give the same iterations, bit for bit, on one machine.

    Args:
        generator: proposes. ensemble: scores. strategy: learns. stop: ends.
        keep_leader: judge the leader of earlier rounds again beside the new proposals. False where a round's proposals replace those of
            the one before (a gradient's steps, the steps of a diffusion) or contain what is left of it (a beam); leader and best are
            then those of the round, and there is no gain to have patience for.

    Raises:
        ValueError: keep_leader is False, and `stop` has a patience.
    """

    def __init__(
        self, generator: Generator, ensemble: Ensemble | Cascade, strategy: Strategy, stop: Stop | None = None, keep_leader: bool = True
    ) -> None:
        self.generator, self.ensemble, self.strategy, self.stop = generator, ensemble, strategy, stop or Stop()
        self.keep_leader = keep_leader
        if self.stop.patience is not None and not keep_leader:
            raise ValueError(f"patience is {self.stop.patience} without keep_leader: gains are over the leader; remedy: patience=None")

    def iterate(self, context: Any, seed: int, state: Any = None) -> Iterator[Iteration]:
        """Yield each iteration as it ends. Whoever stops asking has cancelled: nothing goes on in the background.

        Args:
            seed: any int. state: start from here instead of the generator's prior.

        Raises:
            QuorumError: too few scorers answered in an iteration.
            ValueError: keep_leader is True, and the generator's proposals require gradients.
        """
        champion: Batch | None = None  # the leader so far, if it is feasible
        waited = 0
        for index in range(self.stop.max_iterations):
            clock = [time.perf_counter()]
            rng = torch.Generator().manual_seed(mixed_seed(seed, index))
            batch = self.generator.propose(context, state, rng)
            if champion is not None and batch.parameters.requires_grad:
                raise ValueError("proposals that require gradients cannot stand beside the leader of earlier rounds: set keep_leader=False")
            if champion is not None:
                batch = batch.joined(champion)
            clock.append(time.perf_counter())
            table = self.ensemble.score(batch, context, incumbents=0 if champion is None else 1)
            if batch.parameters.requires_grad:
                batch = batch.detached()  # the gradients are in the table: nobody who keeps the iteration keeps the graph
            clock.append(time.perf_counter())
            state = self.strategy.update(batch, table, state)
            clock.append(time.perf_counter())
            best = table.best
            energy = float(table.total[best])
            feasible = energy < float("inf")
            gained = feasible and (champion is None or float(table.total[-1]) - energy > self.stop.tolerance)
            waited = 0 if gained else waited + 1
            leader = batch.select([best])
            champion = leader if feasible and self.keep_leader else None
            agreement = table.agreement(best)
            seconds = dict(zip(("propose", "score", "update"), (b - a for a, b in itertools.pairwise(clock)), strict=True))
            seconds["total"] = clock[-1] - clock[0]
            compared = len(table.counted) if len(batch) > 1 else 0  # of one proposal alone nobody says that it is the better one
            stopped = self._reason_to_stop(index + 1, agreement, compared, waited)
            yield Iteration(
                index, batch, table, best, leader, energy, table.energies_of(best), agreement, seconds, dict(table.dropped), state, stopped
            )
            if stopped:
                return

    def run(self, context: Any, seed: int, state: Any = None) -> Iteration:
        """Iterate to the end; the last iteration. Raises as `iterate`."""
        (last,) = deque(self.iterate(context, seed, state), maxlen=1)
        return last

    def _reason_to_stop(self, done: int, agreement: float, voters: int, waited: int) -> str:
        stop = self.stop
        if done >= stop.min_iterations:
            if stop.agreement is not None and agreement >= stop.agreement and voters > 1:
                return "agreement"
            if stop.patience is not None and waited >= stop.patience:
                return "patience"
        return "max_iterations" if done >= stop.max_iterations else ""
