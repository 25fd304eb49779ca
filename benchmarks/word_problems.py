"""Word problems of a file, in the manner of GSM8K and SVAMP, and whether an answer is the recorded one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pcm_ros.consensus import mixed_seed
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.arithmetic import NoArithmetic, evaluate

SOURCES = (
    "remedy: GSM8K is at https://github.com/openai/grade-school-math, SVAMP at https://github.com/arkilpatel/SVAMP (both MIT); one JSON "
    "object a line with `question` and `answer` (a number, or a solution that ends in '#### number'); for select also `solutions` (texts) "
    "and `correct` (true or false each)"
)


@dataclass(frozen=True)
class Item:
    """A problem. solutions and correct: empty unless they are given. seed: of the draws."""

    question: str
    answer: Fraction | None
    solutions: tuple[str, ...]
    correct: tuple[bool, ...]
    seed: int


def read_items(path: Path, mode: str, limit: int | None, seed: int) -> dict[str, Item]:
    """The problems of a file by id; `limit` of them, chosen by the seed.

    Raises:
        ValueError: the file is missing, or a line is not what the mode needs.
    """
    if not path.is_file():
        raise ValueError(f"the data file '{path}' does not exist; {SOURCES}")
    # only "\n" ends a line: JSON may have U+2028 and the like within a text
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    order = np.random.default_rng(seed).permutation(len(lines)).tolist()[:limit]
    items = {}
    for row in sorted(order):
        try:
            data = json.loads(lines[row])
            identity = str(data.get("id", f"{row:05d}"))
            question, given = str(data["question"]), data["answer"]
            solutions, correct = _given(data) if mode == "select" else ((), ())
            answer = recorded_answer(given) if isinstance(given, str) else Fraction(str(given))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"line {row + 1} of '{path}' can't be used ({error!r}); {SOURCES}") from error
        if mode == "select" and not solutions:
            raise ValueError(f"line {row + 1} of '{path}' has no solutions; remedy: leave such problems out, there is nothing to select")
        if len(solutions) != len(correct):
            raise ValueError(f"line {row + 1} of '{path}' has {len(solutions)} solutions and {len(correct)} marks; as many are needed")
        if answer is None and mode == "solve":
            raise ValueError(f"line {row + 1} of '{path}' has the answer '{str(given)[:60]}', which ends in no number; {SOURCES}")
        if identity in items:
            raise ValueError(f"line {row + 1} of '{path}' has the id '{identity}' of an earlier line; {SOURCES}")
        items[identity] = Item(question, answer, solutions, correct, mixed_seed(seed, row))
    if not items:
        raise ValueError(f"the data file '{path}' holds no problem; {SOURCES}")
    return items


def _given(data: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """The solutions of a problem, and which are right. Raises KeyError, TypeError."""
    solutions, correct = data["solutions"], data["correct"]
    if not isinstance(solutions, list) or not isinstance(correct, list) or not all(isinstance(mark, bool) for mark in correct):
        raise TypeError("`solutions` is a list of texts, `correct` one of as many true or false")
    return tuple(map(str, solutions)), tuple(correct)


def recorded_answer(text: str) -> Fraction | None:
    """The answer in a data file: a number or an expression (-3/4, -$5), else what a solution ends in; None if that is no number."""
    try:
        # "50%" is 50, as in what solutions say
        return final_answer(text) if "%" in text else evaluate(text.strip())
    except NoArithmetic:
        return final_answer(text)


def is_right(answer: str | None, expected: Fraction | None) -> bool:
    """Whether an answer is the recorded one: whole numbers exactly, others to half a hundredth, below 1 to half a hundredth of them."""
    value = None if answer is None else final_answer(answer)
    if value is None or expected is None:
        return False
    return value == expected if expected.denominator == 1 else abs(value - expected) <= Fraction(1, 200) * min(Fraction(1), abs(expected))
