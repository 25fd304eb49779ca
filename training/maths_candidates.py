"""Draw whole solutions of training problems, plain samples, and note what each expert says of them: what weights are fitted to.

    python -m training.maths_candidates --data gsm8k/train.jsonl --out runs/maths/candidates.jsonl

Problems that neither adapter nor verifiers were trained on: GSM8K's last ones and generated ones, as `maths_samples.py` orders them, then
problems of held-out stories (`maths_stories.py`). One line of JSON for
each: the question, and of each distinct solution how often it was drawn, whether its answer is right, and its energies. The same command
goes on with the problems that the file does not hold yet; two cores are used by two processes (`--part 1/2`, `--part 2/2`).
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from pcm_ros.consensus import mixed_seed
from pcm_ros.models.loading import set_threads
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.solver import Solution, Solver
from training.maths_adapter import HELD_OUT
from training.maths_samples import Labelled, problems, right, share_of_work, story_problems, whole_lines


def candidate_solver(
    adapter: Path | None, model: Path | None, sentence: Path | None, hidden: Path | None, count: int, calculate: bool = True
) -> Solver:
    """Plain samples, judged by all experts. calculate: whether the generator's equations are filled in by the calculator."""
    generating, examples = assembly.language_model(model, adapter), assembly.preamble(adapter)
    generator = StepGenerator(generating, count, 1, by_votes=True, stop_here=False, calculate=calculate, preamble=examples)
    return Solver(generator, assembly.scorers(model, adapter, sentence, hidden), width=count)


def line_of(problem: Labelled, found: Solution) -> dict[str, Any]:
    """What the file says of a problem; solutions without an answer are left out."""
    return {
        "source": problem.source,
        "index": problem.index,
        "question": problem.question,
        "candidates": [
            {
                "answer": candidate.answer,
                "votes": candidate.votes,
                "right": right(f"#### {candidate.answer}", problem.answer),
                "energies": dict(candidate.energies),
            }
            for candidate in found.candidates
            if candidate.answer is not None
        ],
    }


def unseen_problems(data: Path, generated: float, stories: int, held_out: int, seed: int) -> list[Labelled]:
    """What neither adapter nor verifiers were trained on. stories: how many of held-out stories; the rest: see `maths_samples.problems`."""
    recorded = takewhile(lambda problem: problem.held_out, problems(data, generated, seed, held_out))
    return [*recorded, *islice((problem for problem in story_problems(seed) if problem.held_out), stories)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder in transformers' format; default: the embedded model")
    parser.add_argument("--adapter", type=Path, help="default: the shipped one, for the embedded model")
    parser.add_argument(
        "--sentence", type=Path, help="weights of the sentence verifier; default: the shipped ones, with the shipped adapter"
    )
    parser.add_argument("--hidden", type=Path, help="weights of the hidden-state verifier; default: likewise")
    parser.add_argument("--count", type=int, default=20, help="samples a problem")
    parser.add_argument("--no-calculator", action="store_true", help="let the generator slip, as other writers of solutions do")
    parser.add_argument("--generated", type=float, default=0.5, help="share of generated problems")
    parser.add_argument("--stories", type=int, default=100, help="problems of held-out stories")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="the last problems of the file, as when the adapter was trained")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--part", type=share_of_work, default="1/1", help="K/N: the K-th of N processes, each with an --out of its own")
    options = parser.parse_args()
    part, parts = options.part
    set_threads()
    todo = unseen_problems(options.data, options.generated, options.stories, options.held_out, options.seed)[part - 1 :: parts]
    done = {(entry["source"], entry["index"]) for entry in whole_lines(options.out)}
    todo = [problem for problem in todo if (problem.source, problem.index) not in done]
    adapter = assembly.chosen_adapter(options.model, options.adapter)
    sentence, hidden = assembly.shipped_verifiers(adapter)
    solver = candidate_solver(
        adapter, options.model, options.sentence or sentence, options.hidden or hidden, options.count, not options.no_calculator
    )
    started = shown = time.monotonic()
    with options.out.open("a") as out:
        for number, problem in enumerate(todo, start=1):
            found = solver.solve(problem.question, mixed_seed(options.seed, problem.index), max_tokens=400 * options.count)
            out.write(json.dumps(line_of(problem, found)) + "\n")
            out.flush()
            if time.monotonic() - shown > 10 or number == len(todo):
                shown = time.monotonic()
                print(f"{number} of {len(todo)}, {shown - started:.0f} s", flush=True)
    solver.close()


if __name__ == "__main__":
    main()
