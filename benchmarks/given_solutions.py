"""The data of `pcm bench maths --mode select`, from the solutions that GSM8K's repository records of four language models.

python benchmarks/given_solutions.py --data example_model_solutions.jsonl --to given.jsonl
python benchmarks/given_solutions.py --data example_model_solutions.jsonl --to dev.jsonl --only gsm8k/dev.jsonl   # its problems alone
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from pcm_ros.benchmarks.word_problems import recorded_answer
from pcm_ros.consensus import mixed_seed

SOURCE = "remedy: it is grade_school_math/data/example_model_solutions.jsonl of https://github.com/openai/grade-school-math"
NOT_MODELS = {"question", "ground_truth"}


def given(recorded: dict[str, Any], seed: int) -> dict[str, Any]:
    """A problem with its solutions shuffled and without their makers.

    Raises:
        ValueError: the answer ends in no number.
        KeyError, TypeError: a part is missing or something else.
    """
    solutions = [(str(made["solution"]), made["is_correct"]) for name, made in recorded.items() if name not in NOT_MODELS]
    if not solutions or not all(isinstance(right, bool) for _, right in solutions):
        raise TypeError("each model has a `solution` and whether it `is_correct`")
    if (answer := recorded_answer(str(recorded["ground_truth"]))) is None:
        raise ValueError("`ground_truth` ends in no number")
    shuffled = [solutions[place] for place in np.random.default_rng(seed).permutation(len(solutions))]
    return {
        "question": str(recorded["question"]),
        "answer": str(answer),
        "solutions": [text for text, _ in shuffled],
        "correct": [right for _, right in shuffled],
    }


def read(path: Path, seed: int, only: Collection[str] | None) -> list[dict[str, Any]]:
    """The problems of the file in its order; with `only` those of these questions.

    Raises:
        ValueError: a line is not a problem with recorded solutions, or none is left.
    """
    problems = []
    for row, line in enumerate(path.read_text(encoding="utf-8").split("\n")):
        try:
            recorded = json.loads(line) if line.strip() else None
            if recorded is not None and (only is None or recorded["question"] in only):
                problems.append(given(recorded, mixed_seed(seed, row)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"line {row + 1} of '{path}' can't be used ({error!r}); {SOURCE}") from error
    if not problems:
        raise ValueError(f"'{path}' holds no problem{'' if only is None else ' that is wanted'}; {SOURCE}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's example_model_solutions.jsonl")
    parser.add_argument("--to", type=Path, required=True, help="where to write the problems")
    parser.add_argument("--only", type=Path, help="a file of problems (one JSON object a line with `question`): only these are written")
    parser.add_argument("--seed", type=int, default=0, help="of the order of a problem's solutions (default 0)")
    options = parser.parse_args()
    if options.seed < 0:
        parser.error(f"--seed is {options.seed}; allowed: >= 0")
    if options.to in (options.data, options.only):
        parser.error(f"--to: '{options.to}' is what is read; allowed: another file")
    for name in ("data", "only"):
        path = getattr(options, name)
        if path is not None and not path.is_file():
            parser.error(f"--{name}: '{path}' does not exist" + (f"; {SOURCE}" if name == "data" else ""))
    try:
        wanted = options.only.read_text(encoding="utf-8").split("\n") if options.only else []
        only = {json.loads(line)["question"] for line in wanted if line.strip()} if options.only else None
    except (ValueError, KeyError, TypeError) as error:
        parser.error(f"--only: '{options.only}' has a line that is no problem ({error!r})")
    try:
        problems = read(options.data, options.seed, only)
    except ValueError as error:
        parser.error(str(error))
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text("".join(json.dumps(problem) + "\n" for problem in problems), encoding="utf-8")
    print(f"{len(problems)} problems are in {options.to}; next: pcm bench maths --mode select --data {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
