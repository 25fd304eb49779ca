"""Beam search over words of digits, where the best word is known."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pcm_ros.consensus import Batch, Beam, BeamState, Consensus, Ensemble, ScoreTable, Stop

LENGTH, SYMBOLS = 4, 3


def words(rows: list[list[int]]) -> Batch:
    """Words as a batch: what is missing is -1, a word of full length is complete."""
    sequence = torch.full((len(rows), LENGTH), -1)
    for i, row in enumerate(rows):
        sequence[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
    complete = (sequence >= 0).all(dim=1)
    lengths = (sequence >= 0).sum(dim=1).to(torch.float64)[:, None]
    return Batch(lengths, torch.zeros(len(rows), dtype=torch.int64), {"sequence": sequence, "complete": complete})


def table(total: Tensor) -> ScoreTable:
    return ScoreTable(("s",), total[:, None], torch.ones(1, dtype=torch.float64), total, {}, {})


class AllContinuations:
    """Adds each symbol to each beam; proposes complete words again as they are."""

    def propose(self, context: Any, state: BeamState | None, rng: torch.Generator) -> Batch:
        if state is None:
            return words([[symbol] for symbol in range(SYMBOLS)])
        rows = []
        for row, complete in zip(state.beams.extras["sequence"].tolist(), state.complete.tolist(), strict=True):
            start = [symbol for symbol in row if symbol >= 0]
            rows += [start] if complete else [[*start, symbol] for symbol in range(SYMBOLS)]
        return words(rows)


class SumOfCosts:
    """Energy of a word: the sum of `costs[position][previous][symbol]`."""

    name, cost, differentiable = "costs", 1.0, False

    def __init__(self, costs: Tensor) -> None:
        self.costs = costs

    def of(self, word: list[int]) -> float:
        return sum(float(self.costs[i, word[i - 1] if i else 0, symbol]) for i, symbol in enumerate(word) if symbol >= 0)

    def energy(self, batch: Batch, context: Any) -> Tensor:
        return torch.tensor([self.of(word) for word in batch.extras["sequence"].tolist()], dtype=torch.float64)


def search(costs: Tensor, width: int) -> BeamState:
    ensemble = Ensemble([SumOfCosts(costs)])
    with ensemble:
        return Consensus(AllContinuations(), ensemble, Beam(width), Stop(LENGTH, agreement=None)).run(None, seed=0).state


costs_of = st.integers(0, 2**32).map(
    lambda seed: torch.rand(LENGTH, SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
)


@given(costs_of)
def test_width_one_is_greedy(costs: Tensor) -> None:
    word: list[int] = []
    for i in range(LENGTH):
        word.append(int(costs[i, word[-1] if word else 0].argmin()))
    assert search(costs, 1).beams.extras["sequence"].tolist() == [word]


@given(costs_of)
def test_a_beam_as_wide_as_the_problem_is_exact(costs: Tensor) -> None:
    scorer = SumOfCosts(costs)
    everything = sorted(scorer.of(list(word)) for word in itertools.product(range(SYMBOLS), repeat=LENGTH))
    state = search(costs, SYMBOLS**LENGTH)
    assert bool(state.complete.all())
    assert state.energy.tolist() == pytest.approx(everything)


@given(costs_of, st.integers(1, 8))
def test_the_same_search_gives_the_same_beams(costs: Tensor, width: int) -> None:
    first, second = search(costs, width), search(costs, width)
    assert torch.equal(first.beams.extras["sequence"], second.beams.extras["sequence"])
    assert torch.equal(first.energy, second.energy)


word_and_energy = st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.floats(0, 10) | st.just(float("inf")))


@given(st.lists(word_and_energy, min_size=1, max_size=30), st.integers(1, 6), st.booleans())
def test_the_best_are_kept(proposals: list[tuple[list[int], float]], width: int, distinct: bool) -> None:
    batch = words([word for word, _ in proposals])
    total = torch.tensor([energy for _, energy in proposals], dtype=torch.float64)
    state = Beam(width, distinct=distinct).update(batch, table(total), None)
    feasible = [(energy, tuple(word)) for word, energy in proposals if energy < float("inf")]
    if not feasible:
        assert state is None
        return
    assert state is not None
    if distinct:
        least: dict[tuple[int, ...], float] = {}
        for energy, word in feasible:
            least[word] = min(energy, least.get(word, float("inf")))
        expected = sorted(least.values())[:width]
        kept = state.beams.extras["sequence"].tolist()
        assert len({tuple(word) for word in kept}) == len(kept)
    else:
        expected = sorted(energy for energy, _ in feasible)[:width]
    assert state.energy.tolist() == expected
    assert state.complete.tolist() == [all(symbol >= 0 for symbol in word) for word in state.beams.extras["sequence"].tolist()]


def test_a_beam_that_was_continued_is_not_kept_again() -> None:
    beam = Beam(2)
    state = beam.update(words([[0], [1]]), table(torch.tensor([1.0, 2.0], dtype=torch.float64)), None)
    later = beam.update(words([[0, 1], [1, 1], [0]]), table(torch.tensor([5.0, 6.0, 0.0], dtype=torch.float64)), state)
    assert later is not None
    assert later.beams.extras["sequence"][:, :2].tolist() == [[0, 1], [1, 1]]


def test_a_complete_one_stays_in_the_competition() -> None:
    beam = Beam(1)
    state = beam.update(words([[0, 0, 0, 0], [1]]), table(torch.tensor([1.0, 2.0], dtype=torch.float64)), None)
    later = beam.update(words([[0, 0, 0, 0], [1, 1]]), table(torch.tensor([1.0, 2.0], dtype=torch.float64)), state)
    assert later is not None
    assert later.complete.tolist() == [True]


def test_nothing_feasible_leaves_the_state() -> None:
    beam = Beam(1)
    state = beam.update(words([[0]]), table(torch.tensor([1.0], dtype=torch.float64)), None)
    assert beam.update(words([[0, 1]]), table(torch.tensor([torch.inf], dtype=torch.float64)), state) is state


def test_wrong_width() -> None:
    with pytest.raises(ValueError, match="width is 0; allowed: >= 1"):
        Beam(0)
