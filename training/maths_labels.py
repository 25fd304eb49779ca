"""What both verifiers learn from: beginnings of sampled solutions, each with the share of its continuations that were right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcm_ros.tasks.mathematics.arithmetic import NoArithmetic, equations, evaluate, written_number
from pcm_ros.tasks.mathematics.notation import ANSWER, EQUATION
from training.maths_samples import right


@dataclass(frozen=True)
class Beginning:
    """A solution, whole or in part.

    Attributes:
        problem: number of its problem. question, text: of both.
        right: share of the samples with this beginning that were right, 0..1. count: how many there were.
        complete: whether the answer is there.
    """

    problem: int
    question: str
    text: str
    right: float
    count: int
    complete: bool


@dataclass(frozen=True)
class Sampled:
    """A problem with its samples: (text, how often it was drawn, whether it is right)."""

    number: int
    source: str
    question: str
    answer: str
    held_out: bool
    samples: tuple[tuple[str, int, bool], ...]


def sampled(path: Path) -> list[Sampled]:
    """The problems of a file of `maths_samples.py`."""
    found = []
    for number, line in enumerate(path.read_text().splitlines()):
        entry = json.loads(line)
        samples = tuple((sample["text"], sample["count"], sample["right"]) for sample in entry["samples"])
        found.append(Sampled(number, entry["source"], entry["question"], entry["answer"], entry["held_out"], samples))
    return found


def stopped(text: str) -> str | None:
    """A partial solution with its last result as the answer, as the generator proposes it; None if it has none."""
    for _, result in reversed(EQUATION.findall(text)):  # most often the last one has a value, and no other need be read
        try:
            return f"{text}{ANSWER}{written_number(evaluate(result))}"
        except NoArithmetic:
            continue
    results = [] if EQUATION.search(text) else [equation.stated for equation in equations(text) if equation.stated is not None]
    return f"{text}{ANSWER}{written_number(results[-1])}" if results else None


def shares_right(problem: Sampled) -> dict[str, tuple[float, int]]:
    """Every beginning of the samples, in whole lines: the share of the samples that begin so that were right, and how many these are."""
    tally: dict[str, list[int]] = {}
    for text, count, good in problem.samples:
        lines = text.splitlines(keepends=True)
        for end in range(1, len(lines) + 1):
            counts = tally.setdefault("".join(lines[:end]), [0, 0])
            counts[0] += count
            counts[1] += count * good
    return {text: (good / count, count) for text, (count, good) in tally.items()}


def beginnings(problem: Sampled) -> Iterator[Beginning]:
    """Every beginning of the samples once, and each with "the answer is what we have" behind it."""
    tally = shares_right(problem)
    for text, (share, count) in tally.items():
        complete = text.splitlines()[-1].startswith(ANSWER.strip())
        yield Beginning(problem.number, problem.question, text, share, count, complete)
        if not complete and (early := stopped(text)) is not None and early not in tally:
            yield Beginning(problem.number, problem.question, early, float(right(early, problem.answer)), count, True)


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a right one is scored above a wrong one; ties count half. NaN if there is only one kind."""
    from scipy.stats import rankdata

    truth = np.asarray(labels, dtype=bool)
    good, bad = int(truth.sum()), int((~truth).sum())
    if not good or not bad:
        return float("nan")
    ranks = rankdata(np.asarray(scores))
    return float((ranks[truth].sum() - good * (good + 1) / 2) / (good * bad))


def held_out_figures(energies: dict[tuple[int, str], float], problems: Sequence[Sampled]) -> dict[str, float]:
    """How well energies of whole samples (by problem and text) tell right from wrong on held-out problems, by source.

    Returns:
        "SOURCE.auc" over all samples; "SOURCE.sample" = share right of all; "SOURCE.majority", "SOURCE.selected", "SOURCE.weighted" =
        problems whose answer by majority, by the least energy, and by votes weighted with exp(-energy), is right; "SOURCE.problems".
    """
    figures: dict[str, float] = {}
    for source in sorted({problem.source for problem in problems}):
        part = [problem for problem in problems if problem.source == source]
        scores, labels, shares, majority, selected, weighted = [], [], [], [], [], []
        for problem in part:
            values = [energies[problem.number, text] for text, _, _ in problem.samples]
            for value, (_, count, good) in zip(values, problem.samples, strict=True):
                scores += [-value] * count
                labels += [good] * count
            shares.append(sum(c * g for _, c, g in problem.samples) / sum(c for _, c, _ in problem.samples))
            votes: dict[str, list[float]] = {}
            for value, (text, count, good) in zip(values, problem.samples, strict=True):
                vote = votes.setdefault(text.splitlines()[-1], [0.0, 0.0, float(good)])
                vote[0] += count
                vote[1] += count * float(np.exp(-value))
            majority.append(max(votes.values(), key=lambda vote: vote[0])[2])
            weighted.append(max(votes.values(), key=lambda vote: vote[1])[2])
            selected.append(float(problem.samples[int(np.argmin(values))][2]))
        figures |= {
            f"{source}.auc": area_under_curve(scores, labels),
            f"{source}.sample": float(np.mean(shares)),
            f"{source}.majority": float(np.mean(majority)),
            f"{source}.selected": float(np.mean(selected)),
            f"{source}.weighted": float(np.mean(weighted)),
            f"{source}.problems": len(part),
        }
    return {name: round(value, 4) for name, value in figures.items()}
