"""What both verifiers learn from: beginnings of sampled solutions, each with the share of its continuations that were right.

Few samples of hard problems are right, so most beginnings would be called wrong whatever they say. Where a worked solution is known, a
beginning all of whose results are among that solution's counts as right: it is on a way that leads to the answer.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor, unique

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.tasks.mathematics.arithmetic import written_number
from pcm_ros.tasks.mathematics.equations import results_of
from pcm_ros.tasks.mathematics.notation import ANSWER
from pcm_ros.tasks.mathematics.proposals import Problem, solutions_batch
from training.maths_samples import NEXT_STEPS, right


@dataclass(frozen=True)
class Beginning:
    """A solution, whole or in part.

    Attributes:
        problem: number of its problem. question, text: of both.
        right: share of the samples with this beginning that were right, 0..1. count: how many there were.
        complete: whether the answer is there. step: whether it was drawn and is judged as a next step.
    """

    problem: int
    question: str
    text: str
    right: float
    count: int
    complete: bool
    step: bool = False


@dataclass(frozen=True)
class Sampled:
    """A problem with its samples: (text, how often it was drawn, whether it is right).

    before: what was written when they were drawn; they then are next steps. results: of the equations of a worked solution, in order;
    empty = none is known.
    """

    number: int
    source: str
    question: str
    answer: str
    held_out: bool
    samples: tuple[tuple[str, int, bool], ...]
    before: str = ""
    results: tuple[Fraction, ...] = ()

    @property
    def steps(self) -> bool:
        """Whether the samples are next steps, each judged by itself, not solutions."""
        return self.source.endswith(NEXT_STEPS)


def sampled(paths: Sequence[Path], worked: Path | None = None) -> list[Sampled]:
    """The problems of files of `maths_samples.py`, plain or compressed (.xz).

    Args:
        worked: GSM8K's train.jsonl, which has a solution of each of its problems.
    """
    found = []
    solutions = [] if worked is None else [json.loads(line)["answer"] for line in worked.read_text().splitlines()]
    for number, line in enumerate(line for path in paths for line in text_of(path).splitlines()):
        entry = json.loads(line)
        ends = entry["source"].endswith(NEXT_STEPS)  # solutions go on behind them, in a line of its own
        samples = tuple(
            (sample["text"] + "\n" * (ends and not complete(sample["text"])), sample["count"], sample["right"])
            for sample in entry["samples"]
            if sample["text"]
        )
        if not samples:  # of none of the steps that were drawn could be said whether it is right
            continue
        known = solutions and entry["source"].startswith("gsm8k")
        results = tuple(results_of(solutions[entry["index"]])) if known else ()
        before = entry.get("before", "")
        found.append(Sampled(number, entry["source"], entry["question"], entry["answer"], entry["held_out"], samples, before, results))
    return found


def text_of(path: Path) -> str:
    """What a file says, plain or compressed (.xz)."""
    return lzma.decompress(path.read_bytes()).decode() if path.suffix == ".xz" else path.read_text()


def complete(text: str) -> bool:
    """Whether its last line is the answer's."""
    return text.splitlines()[-1].startswith(ANSWER.strip())


def stopped(text: str) -> str | None:
    """A partial solution with its last result as the answer, as the generator proposes it; None if it has none."""
    for line in reversed(text.splitlines()):
        if results := results_of(line):
            return f"{text.removesuffix(chr(10))}\n{ANSWER}{written_number(results[-1])}"
    return None


def shares_right(problem: Sampled) -> dict[str, tuple[float, int]]:
    """Every beginning of the samples, in whole lines: the share of the samples that begin so that were right, and how many these are.

    The share of a beginning whose results the worked solution has too, each as often, is 1, but for whole samples, which are as right as
    their answers. Of next steps: each, behind what was written.
    """
    if problem.steps:
        return {problem.before + text: (float(good), count) for text, count, good in problem.samples}
    tally: dict[str, list[int]] = {}
    for text, count, good in problem.samples:
        lines = text.splitlines(keepends=True)
        for end in range(1, len(lines) + 1):
            counts = tally.setdefault("".join(lines[:end]), [0, 0])
            counts[0] += count
            counts[1] += count * good
    whole, worked = {text for text, _, _ in problem.samples}, Counter(problem.results)
    on_the_way = {text for text in tally if text not in whole and (got := Counter(results_of(text))) and got <= worked}
    return {text: (1.0 if text in on_the_way else good / count, count) for text, (count, good) in tally.items()}


def beginnings(problem: Sampled) -> Iterator[Beginning]:
    """Every beginning of the samples once, and each with "the answer is what we have" behind it."""
    tally = shares_right(problem)
    for text, (share, count) in tally.items():
        whole = complete(text)
        yield Beginning(problem.number, problem.question, text, share, count, whole, problem.steps)
        if not whole and not problem.steps and (early := stopped(text)) is not None and early not in tally:
            yield Beginning(problem.number, problem.question, early, float(right(early, problem.answer)), count, True)


def ranking_loss(odds: Tensor, worth: Tensor, problem: Tensor) -> Tensor:
    """Of the samples of one problem the right ones should have the highest odds: -log(share of the right ones), summed over problems.

    Differences between problems (easy, hard) have no part in it; nor have problems whose samples are all right or all wrong.

    Args:
        odds, worth, problem: (M,) log-odds, targets 0..1 and numbers of the problems.
    """
    total = odds.new_zeros(())
    for number in unique(problem).tolist():
        rows = problem == number
        good = worth[rows] > 0.5
        if bool(good.any()) and not bool(good.all()):
            total = total + odds[rows].logsumexp(0) - odds[rows][good].logsumexp(0)
    return total


def area_under_curve(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a right one is scored above a wrong one; ties count half. NaN if there is only one kind."""
    from scipy.stats import rankdata

    truth = np.asarray(labels, dtype=bool)
    good, bad = int(truth.sum()), int((~truth).sum())
    if not good or not bad:
        return float("nan")
    ranks = rankdata(np.asarray(scores))
    return float((ranks[truth].sum() - good * (good + 1) / 2) / (good * bad))


def energies_by(scorer: Scorer, problems: Sequence[Sampled]) -> dict[tuple[int, str], float]:
    """What a scorer of the product says of the samples, by problem and text."""
    energies: dict[tuple[int, str], float] = {}
    for problem in problems:
        texts = [text for text, _, _ in problem.samples]
        count = len(texts)
        batch: Batch = solutions_batch([problem.before + text for text in texts], [True] * count, [1.0] * count, [0.0] * count, [0] * count)
        found = scorer.energy(batch, Problem(" ".join(problem.question.split()))).tolist()
        energies |= {(problem.number, text): energy for text, energy in zip(texts, found, strict=True)}
    return energies


def held_out_figures(energies: dict[tuple[int, str], float], problems: Sequence[Sampled]) -> dict[str, float]:
    """How well energies of whole samples (by problem and text) tell right from wrong on held-out problems, by source.

    Returns:
        "SOURCE.auc" over all samples; "SOURCE.within" = the mean over problems that have right and wrong ones of the same among their own
        samples; "SOURCE.sample" = share right of all; "SOURCE.selected" = problems whose sample of the least energy is right; of solutions
        also "SOURCE.majority", "SOURCE.weighted" = problems whose answer by votes, and by votes weighted with exp(-energy), is right;
        "SOURCE.problems".
    """
    figures: dict[str, float] = {}
    for source in sorted({problem.source for problem in problems}):
        part = [problem for problem in problems if problem.source == source]
        scores, labels, within, shares, majority, selected, weighted = [], [], [], [], [], [], []
        for problem in part:
            values = [energies[problem.number, text] for text, _, _ in problem.samples]
            for value, (_, count, good) in zip(values, problem.samples, strict=True):
                scores += [-value] * count
                labels += [good] * count
            within.append(area_under_curve([-value for value in values], [good for _, _, good in problem.samples]))
            shares.append(sum(c * g for _, c, g in problem.samples) / sum(c for _, c, _ in problem.samples))
            votes: dict[str, list[float]] = {}
            for value, (text, count, good) in zip(values, problem.samples, strict=True):
                vote = votes.setdefault(text.splitlines()[-1], [0.0, 0.0, float(good)])
                vote[0] += count
                vote[1] += count * float(np.exp(-value))
            majority.append(max(votes.values(), key=lambda vote: vote[0])[2])
            weighted.append(max(votes.values(), key=lambda vote: vote[1])[2])
            selected.append(float(problem.samples[int(np.argmin(values))][2]))
        mixed = [value for value in within if not np.isnan(value)]
        figures |= {
            f"{source}.auc": area_under_curve(scores, labels),
            f"{source}.within": float(np.mean(mixed)) if mixed else float("nan"),
            f"{source}.sample": float(np.mean(shares)),
            f"{source}.selected": float(np.mean(selected)),
            f"{source}.problems": len(part),
        }
        if not part[0].steps:
            figures |= {f"{source}.majority": float(np.mean(majority)), f"{source}.weighted": float(np.mean(weighted))}
    return {name: round(value, 4) for name, value in figures.items()}
