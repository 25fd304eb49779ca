"""Plain samples of a language model that cost as many tokens as a consensus did, and what choosing among them is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from pcm_ros.benchmarks.word_problems import Item, is_right
from pcm_ros.consensus import mixed_seed
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.solver import Candidate, Drawn, Solver

MOST_LOTS = 5
"""So many times plain samples are drawn for one problem, at most, until they cost what the consensus did."""


@dataclass(frozen=True)
class Sample:
    """One plain sample. solution: None = it came to no end. tokens: what it cost (of those without an end the mean)."""

    solution: Drawn | None
    tokens: float


def as_drawn(sample: Sample) -> dict[str, Any]:
    """What a record says of a sample."""
    answer = None if sample.solution is None else final_answer(sample.solution.text)
    return {"answer": None if answer is None else str(answer), "tokens": sample.tokens}


def samples_for(item: Item, plain: Callable[[int], Solver], budget: float, guess: float) -> tuple[list[Sample], int]:
    """Plain samples until they cost as many tokens as the consensus, at least one, and how many were drawn for that.

    The last one may go beyond: a sample is whole.

    Args:
        plain: a solver that draws so many plain samples. budget: tokens. guess: tokens of a sample, before the first is drawn.
    """
    samples: list[Sample] = []
    spent, drawn, each = 0.0, 0, max(guess, 1.0)
    for turn in range(MOST_LOTS):
        missing = budget - spent
        count = min(max(1, math.ceil(missing / each)), assembly.MOST_DRAWS)
        solver = plain(count)
        try:
            # room for twice what is expected, and for a last line of each: a limit would lose the long ones
            limit = math.ceil(2 * max(missing, each)) + solver.generator.longest * count
            found, tokens = solver.drawn(item.question, mixed_seed(item.seed, 1 + turn), limit)
        finally:
            solver.close()
        for sample in in_turn(found, count, tokens, mixed_seed(item.seed, 1000 + turn)):
            if samples and spent >= budget:
                break
            samples.append(sample)
            spent += sample.tokens
        drawn += count
        if spent >= budget:
            break
        each = max(spent / drawn, 1.0)
    return samples, drawn


def in_turn(found: Sequence[Drawn], count: int, tokens: int, seed: int) -> list[Sample]:
    """A lot of `count` samples that cost so many tokens one by one, those that came to no end among them, in an order that the seed draws:
    the search returns them by text."""
    each = [Sample(one, float(one.tokens)) for one in found for _ in range(round(one.votes))]
    lost = max(0, count - len(each))
    over = max(0.0, tokens - sum(sample.tokens for sample in each))
    each += [Sample(None, over / max(lost, 1))] * lost
    return [each[place] for place in np.random.default_rng(seed).permutation(len(each)).tolist()]


def merged(samples: Sequence[Sample]) -> list[Drawn]:
    """Their distinct solutions, each with its votes in these samples."""
    votes = Counter(sample.solution.text for sample in samples if sample.solution is not None)
    first: dict[str, Drawn] = {}
    for sample in samples:
        if sample.solution is not None:
            first.setdefault(sample.solution.text, sample.solution)
    return [replace(one, votes=float(votes[text])) for text, one in first.items()]


def of_samples(candidates: Sequence[Candidate], expected: Fraction | None, count: int) -> dict[str, float]:
    """What `count` plain samples, merged to these candidates, are worth: one of them, the majority, and what each scorer would choose.

    Samples without an answer are wrong.
    """
    answered = [candidate for candidate in candidates if candidate.answer is not None]
    worth = {candidate.answer: float(is_right(candidate.answer, expected)) for candidate in answered}
    tally: dict[str | None, float] = {}
    for candidate in answered:
        tally[candidate.answer] = tally.get(candidate.answer, 0.0) + candidate.votes
    credit = {
        "sample": sum(number * worth[answer] for answer, number in tally.items()) / count,
        "any": max(worth.values(), default=0.0),
        "majority": shared([-number for number in tally.values()], [worth[answer] for answer in tally]) if tally else 0.0,
    }
    if answered:
        right, votes = [worth[candidate.answer] for candidate in answered], [candidate.votes for candidate in answered]
        for name in sorted({name for candidate in answered for name in candidate.energies}):
            credit[f"scorer.{name}"] = shared([candidate.energies.get(name, math.inf) for candidate in answered], right, votes)
        credit["samples.ensemble"] = shared([candidate.answer_energy for candidate in answered], right)
    return credit


def shared(energies: Sequence[float], worth: Sequence[float], votes: Sequence[float] | None = None) -> float:
    """What taking the least energy is worth: the mean over those that are tied (weighed by votes where there are any)."""
    counts = [1.0] * len(worth) if votes is None else votes
    least = min(energies)
    tied = [row for row, energy in enumerate(energies) if energy <= least + 1e-9]
    mass = sum(counts[row] for row in tied)
    return sum(counts[row] * worth[row] for row in tied) / mass if mass > 0 else sum(worth[row] for row in tied) / len(tied)
