"""Worked solutions of training problems beside copies in which one step went wrong: they differ in what is calculated, and in no word.

    python -m training.maths_corruptions --data gsm8k/train.jsonl --out runs/maths/worked.jsonl

A copy has another operation, another number, a step left out, or stops a step early; what follows is calculated again, so that every
equation still holds. The file is one of samples, as `maths_samples.py` draws them: no model is asked. What a verifier learns from
the generator's own samples alone are that generator's mistakes; solutions of others are more fluent, and wrong in such ways.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from pcm_ros.tasks.mathematics.arithmetic import value_of, written_number
from pcm_ros.tasks.mathematics.equations import results_of
from pcm_ros.tasks.mathematics.notation import ANSWER, EQUATION, compact
from training.maths_adapter import HELD_OUT
from training.maths_samples import Labelled, problems, right

WORKED = "worked"
"""Ends the source of problems whose samples are worked solutions and corrupted copies of them."""
KINDS = ("operation", "operation", "number", "number", "left out", "early")
LARGEST = 10**7
TRIES = 12
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|(?<![\w.])\.\d+")
_SPELT_OUT = re.compile(r"(?<![\w.])[$€£]?\d[^=\n]*[-+*/x×][^=\n]*=\s*(?=[$€£]?<<)")
_OPERATION = re.compile(r"(?<=[\d)%])\s*[-+*/]\s*(?=[\d(.])")


def worked_solution(answer: str) -> str:
    """GSM8K's solution in compact notation, without calculations that are spelt out with their units before they are marked."""
    return _SPELT_OUT.sub("", compact(answer))


def numbers_in(text: str) -> list[str]:
    """The numbers of a text as they are written, without separators of thousands."""
    return [found.replace(",", "") for found in _NUMBER.findall(text)]


def recalculated(lines: Sequence[str], changed: dict[Fraction, str]) -> list[str] | None:
    """Lines with one marked equation at most, with numbers exchanged and every result worked out anew; None if one has no sensible value.

    Args:
        changed: value -> what is written in its place from here on.
    """
    changed = dict(changed)

    def exchanged(number: re.Match[str]) -> str:
        value = value_of(number[0])
        return number[0] if value is None else changed.get(value, number[0])

    found = []
    for line in lines:
        equation = EQUATION.search(line)
        if equation is None:
            found.append(_NUMBER.sub(exchanged, line))
            continue
        head, expression, tail = (_NUMBER.sub(exchanged, part) for part in (line[: equation.start()], equation[1], line[equation.end() :]))
        value, before = value_of(expression), value_of(equation[2])
        if value is None or before is None or not 0 < value < LARGEST:
            return None
        if value != value_of(equation[1]):
            changed[before] = written_number(value)
        shown = written_number(value) if value != before else equation[2]
        found.append(f"{head}<<{expression}={shown}>>{tail}")
    return found


def corrupted(question: str, worked: str, rng: np.random.Generator) -> str | None:
    """A copy of a worked solution (compact notation) with one step gone wrong; None if this draw gives none of use.

    Its answer is its last result, and another than the right one.
    """
    *lines, last = worked.splitlines()
    steps = [row for row, line in enumerate(lines) if len(EQUATION.findall(line)) == 1]
    if any(len(EQUATION.findall(line)) > 1 for line in lines) or not steps:
        return None
    kind, row = str(rng.choice(KINDS)), int(rng.choice(steps))
    equation = EQUATION.search(lines[row])
    assert equation is not None
    expression, result = equation[1], value_of(equation[2])
    head, tail = lines[row][: equation.start()], lines[row][equation.end() :]
    rest: list[str] | None = None
    if kind == "early" and len(steps) > 1:
        rest = lines[: steps[-1]]
    elif kind == "left out" and len(steps) > 1 and row != steps[-1] and result is not None:
        rest = recalculated(lines[row + 1 :], {result: str(rng.choice(numbers_in(expression) or [equation[2]]))})
        rest = None if rest is None else lines[:row] + rest
    elif kind == "operation" and (places := list(_OPERATION.finditer(expression))):
        place = places[int(rng.integers(len(places)))]
        sign = str(rng.choice([other for other in "+-*/" if other != place[0].strip()]))
        changed = f"{expression[: place.start()]}{place[0].replace(place[0].strip(), sign)}{expression[place.end() :]}"
        rest = _changed_at(lines, row, f"{head}<<{changed}={equation[2]}>>{tail}", result)
    elif kind == "number" and (written := list(_NUMBER.finditer(expression))):
        place = written[int(rng.integers(len(written)))]
        known = {*numbers_in(question), *(equation[2] for line in lines[:row] for equation in EQUATION.finditer(line))}
        others = sorted(other for other in known if value_of(other) not in (None, value_of(place[0])))
        if others:
            changed = f"{expression[: place.start()]}{rng.choice(others)}{expression[place.end() :]}"
            rest = _changed_at(lines, row, f"{head}<<{changed}={equation[2]}>>{tail}", result)
    if not rest or (answers := [equation[2] for line in rest for equation in EQUATION.finditer(line)]) == []:
        return None
    copy = "\n".join([*rest, f"{ANSWER}{answers[-1].strip()}"])
    if right(copy, last.removeprefix(ANSWER.strip()).strip()) or not _plausible(results_of(copy), results_of(worked)):
        return None
    return copy


def _plausible(results: Sequence[Fraction], worked: Sequence[Fraction]) -> bool:
    """Whether a glance at the results does not give the mistake away: whole where the worked solution's are, and of their size."""
    whole = all(value.denominator == 1 for value in worked)
    return all(value <= 20 * max(worked) and (value.denominator == 1 or not whole) for value in results)


def _changed_at(lines: Sequence[str], row: int, changed: str, result: Fraction | None) -> list[str] | None:
    """The lines with a changed one; its result, and all that follows from it, is worked out anew."""
    equation = EQUATION.search(changed)
    assert equation is not None
    value = value_of(equation[1])
    if value is None or result is None or value == result or not 0 < value < LARGEST:
        return None
    wrong = f"{changed[: equation.start()]}<<{equation[1]}={written_number(value)}>>{changed[equation.end() :]}"
    rest = recalculated(lines[row + 1 :], {result: written_number(value)})
    return None if rest is None else [*lines[:row], wrong, *rest]


def line_of(problem: Labelled, worked: str, copies: int, rng: np.random.Generator) -> dict[str, object] | None:
    """What the file says of a problem; None where no copy of its solution can be made."""
    found: dict[str, None] = {}
    for _ in range(TRIES * copies):
        if len(found) < copies and (copy := corrupted(problem.question, worked, rng)) is not None:
            found[copy] = None
    if not found:
        return None
    samples = [{"text": text, "count": 1, "right": text == worked} for text in (worked, *found)]
    return asdict(problem) | {"source": f"{problem.source} {WORKED}", "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=8000, help="problems at most")
    parser.add_argument("--copies", type=int, default=3, help="corrupted copies of a solution")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="the last problems of the file, as when the adapter was trained")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    answers = [json.loads(line)["answer"] for line in options.data.read_text().splitlines()]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with options.out.open("w") as out:
        for problem in islice(problems(options.data, 0.0, options.seed, options.held_out), options.problems):
            rng = np.random.default_rng([options.seed, 97, problem.index])
            if (line := line_of(problem, worked_solution(answers[problem.index]), options.copies, rng)) is not None:
                out.write(json.dumps(line) + "\n")
                count += 1
    print(f"{count} problems with a worked solution and corrupted copies of it")


if __name__ == "__main__":
    main()
