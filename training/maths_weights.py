"""Fit the weights of the experts on word problems: how much each one's energy counts when solutions of one problem are compared.

    python -m training.maths_weights --candidates training/maths_candidates.jsonl.xz --out runs/maths/maths-weights.json

Copied to pcm_ros/models/weights/maths-weights.json, they are what the solver and `pcm bench maths` count the experts with.

A conditional logit (McFadden, "Conditional logit analysis of qualitative choice behavior", 1974) on what `maths_candidates.py` drew: the
probability of a draw is softmax(-sum_s w_s e_s) over those of its problem, and the right ones shall have all of it. e_s are the
expert's energies, either in z-scores among the solutions of a problem, or as they are, in units of their usual spread within a problem:
then an expert to whom all solutions of a problem are nearly the same has nearly no say there. Weights are >= 0, and a penalty draws them
to 1. Which of the two is found by leaving out a fifth of the problems in turn, split in five ways: what makes their right solutions
likeliest. Of the penalties it is the strongest that is no worse than the best by more than one standard error (Breiman et al.,
"Classification and Regression Trees", 1984, section 3.4.3): an expert of whom these draws say little keeps a weight, for solutions that
others made. The same tells what the fit is worth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pcm_ros.consensus.energies import Normalise, normalised
from pcm_ros.tasks.mathematics.solver import answer_energies
from training.maths_labels import text_of

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FOLDS = 5
SPLITS = 5


@dataclass(frozen=True)
class Choice:
    """Solutions of one problem: scaled energies (K, S) float64, which are right (K,) bool, their answers, and how often each was drawn."""

    scores: Tensor
    right: Tensor
    answers: tuple[str, ...]
    votes: tuple[float, ...]

    @property
    def informative(self) -> bool:
        """Whether there is something to choose."""
        return bool(self.right.any()) and not bool(self.right.all())


def choices(path: Path, normalise: Normalise = "zscore") -> tuple[tuple[str, ...], Tensor, list[Choice]]:
    """The problems of a file of `maths_candidates.py`, plain or compressed (.xz), that have a solution.

    Returns:
        The names of the experts; (S,) float64 units, in which their energies are given; the problems. The units of z-scores are 1; those of
        energies as they are: the root of their mean variance within a problem, or 1 where that is nothing.

    Raises:
        ValueError: an expert is missing somewhere: it was left out while they were drawn.
    """
    names: tuple[str, ...] = ()
    found: list[tuple[Tensor, Tensor, tuple[str, ...], tuple[float, ...]]] = []
    for line in text_of(path).splitlines():
        entry = json.loads(line)
        candidates = entry["candidates"]
        if not candidates:
            continue
        names = names or tuple(sorted(candidates[0]["energies"]))
        if wrong := [sorted(each["energies"]) for each in candidates if set(each["energies"]) != set(names)]:
            raise ValueError(f"{entry['source']} {entry['index']} has energies of {wrong[0]}; the others have {list(names)}")
        energies = torch.tensor([[each["energies"][name] for name in names] for each in candidates], dtype=torch.float64)
        scores = torch.stack([normalised(column, normalise) for column in energies.T], dim=1)
        right = torch.tensor([each["right"] for each in candidates])
        found.append((scores, right, *(tuple(each[key] for each in candidates) for key in ("answer", "votes"))))
    units = torch.ones(len(names), dtype=torch.float64)
    if normalise == "none":
        spread = torch.stack([scores.var(dim=0, correction=0) for scores, *_ in found if len(scores) > 1]).mean(dim=0).sqrt()
        units = torch.where(spread > 1e-9, spread, units)
    return names, units, [Choice(scores / units, *others) for scores, *others in found]


@dataclass(frozen=True)
class Surprise:
    """-log of the probability of the right draws of each problem with right and wrong ones, as a function of the weights.

    Attributes:
        scores: (P, K, S) scaled energies, problems of fewer solutions filled up.
        votes: (P, K) log of how often each was drawn; what fills up: -inf. right: (P, K) bool.
    """

    scores: Tensor
    votes: Tensor
    right: Tensor

    @classmethod
    def of(cls, problems: Sequence[Choice]) -> Surprise:
        """Raises ValueError: no problem has right and wrong solutions."""
        these = [problem for problem in problems if problem.informative]
        if not these:
            raise ValueError("no problem has right and wrong solutions; draw for more problems")
        votes = [torch.tensor(problem.votes, dtype=torch.float64).log() for problem in these]
        scores, right = ([getattr(problem, name) for problem in these] for name in ("scores", "right"))
        return cls(*(pad_sequence(each, True, fill) for each, fill in ((scores, 0.0), (votes, -torch.inf), (right, False))))

    def __call__(self, weights: Tensor) -> Tensor:
        """(P,) nats, of weights (S,): the probability of a draw is in proportion to exp(-energy)."""
        odds = self.votes - self.scores @ weights
        return odds.logsumexp(1) - odds.where(self.right, -torch.inf).logsumexp(1)


def fitted(problems: Sequence[Choice], penalty: float) -> Tensor:
    """(S,) weights >= 0 of least mean -log(share of the right ones) + penalty * |w - 1|^2.

    Raises:
        ValueError: no problem has right and wrong solutions.
    """
    surprise = Surprise.of(problems)
    raw = torch.ones(surprise.scores.shape[-1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        weights = raw.abs()
        value = surprise(weights).mean() + penalty * (weights - 1).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return raw.detach().abs()


def chosen(problem: Choice, weights: Tensor, weights_fitted: bool = False) -> float:
    """Whether the answer of least energy is right (`answer_energies`); ties are shared."""
    energies = answer_energies(problem.answers, (problem.scores @ weights).tolist(), problem.votes if weights_fitted else None)
    totals = torch.tensor(energies, dtype=torch.float64)
    tied = totals <= totals.min() + 1e-9
    return float(problem.right[tied].double().mean())


def left_out(problems: Sequence[Choice], penalty: float) -> dict[str, float]:
    """A fifth of the problems in turn with weights that are fitted to the others, in each of `SPLITS` ways to split them.

    Returns:
        "fitted": the share whose answer of least energy is right. "nats": -log of the probability of the right solutions, mean of the
        problems with right and wrong ones. "nats_error": its standard error over those problems.
    """
    right: list[float] = []
    nats: dict[int, list[float]] = {}
    for seed in range(SPLITS):
        fold = np.random.default_rng(seed).permutation(len(problems)) % FOLDS
        for number in range(FOLDS):
            weights = fitted([problem for problem, part in zip(problems, fold, strict=True) if part != number], penalty)
            others = [place for place, part in enumerate(fold) if part == number]
            right += [chosen(problems[place], weights, weights_fitted=True) for place in others]
            told = [place for place in others if problems[place].informative]
            if told:
                surprises = Surprise.of([problems[place] for place in told])(weights).tolist()
                for place, surprise in zip(told, surprises, strict=True):
                    nats.setdefault(place, []).append(surprise)
    means = np.array([np.mean(surprises) for surprises in nats.values()])
    return {"fitted": float(np.mean(right)), "nats": float(means.mean()), "nats_error": float(means.std() / len(means) ** 0.5)}


def strongest_penalty(figures: Mapping[float, Mapping[str, float]]) -> float:
    """The one whose "nats" exceed the least by at most that one's standard error. figures: penalty -> what `left_out` tells of it."""
    best = min(figures.values(), key=lambda each: each["nats"])
    return max(penalty for penalty, each in figures.items() if each["nats"] <= best["nats"] + best["nats_error"])


def worth(names: Sequence[str], problems: Sequence[Choice], penalty: float) -> dict[str, float]:
    """Share of problems whose chosen answer is right.

    Of each expert alone and of the plain sum: that of the solution of least energy. "fitted": `left_out`, all solutions of an answer
    together; "nats", "nats_error" likewise. "any": of any solution.
    """
    alone = dict(zip(names, torch.eye(len(names), dtype=torch.float64), strict=True))
    ways = alone | {"sum": torch.ones(len(names), dtype=torch.float64)}
    figures = {name: float(np.mean([chosen(problem, weights) for problem in problems])) for name, weights in ways.items()}
    return figures | left_out(problems, penalty) | {"any": float(np.mean([bool(problem.right.any()) for problem in problems]))}


def fitted_alone(names: Sequence[str], problems: Sequence[Choice], penalty: float) -> dict[str, dict[str, float]]:
    """`left_out` for each expert alone, weighed against the votes: what the others add is the rest."""
    columns = {name: [replace(problem, scores=problem.scores[:, [place]]) for problem in problems] for place, name in enumerate(names)}
    return {name: left_out(these, penalty) for name, these in columns.items()}


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=Path, required=True, help="made by training/maths_candidates.py")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    ways: tuple[Normalise, ...] = ("none", "zscore")
    tried = {way: choices(options.candidates, way) for way in ways}
    figures = {way: {penalty: worth(names, problems, penalty) for penalty in PENALTIES} for way, (names, _, problems) in tried.items()}
    for each, of_penalties in figures.items():
        for penalty, found in of_penalties.items():
            print(f"{each:7} penalty {penalty:<6} " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    way = min(ways, key=lambda each: min(found["nats"] for found in figures[each].values()))
    penalty = strongest_penalty(figures[way])
    names, units, problems = tried[way]
    weights = dict(zip(names, (round(value, 4) for value in (fitted(problems, penalty) / units).tolist()), strict=True))
    made = {
        "weights": weights,
        "normalise": way,
        "penalty": penalty,
        "problems": len(problems),
        "informative": sum(problem.informative for problem in problems),
        "cross_validated": rounded(figures[way][penalty]),
        "cross_validated_alone": {name: rounded(figures) for name, figures in fitted_alone(names, problems, penalty).items()},
    }
    options.out.write_text(json.dumps(made, indent=2) + "\n")
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
