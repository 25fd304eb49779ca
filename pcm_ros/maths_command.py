"""What `pcm maths` does and shows."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pcm_ros.consensus import QuorumError
from pcm_ros.console import INTERRUPTED, json_values, printable, stop_on_signals
from pcm_ros.models.language import COLDEST
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.proposals import usual_tokens
from pcm_ros.tasks.mathematics.solver import Progress, Solution, UnusableQuestion, checked_question

UNTUNED = (
    "the embedded language model works without an adapter here, from three worked examples: it solves few problems. Give it one with "
    "--adapter, or a stronger model with --model"
)
STEPS_BESIDE = 7
"""Columns of energies that fit a terminal of 80 characters."""
_REASONS = {
    "deadline": "the deadline came",
    "tokens": "the tokens were spent",
    "steps": "no end after the most steps that are allowed",
    "cancelled": "interrupted",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """As on the command line; ranges: `assembly.solver` and `Solver.iterate`.

    max_tokens None or 0 = `usual_tokens`. adapter None = the shipped one, if there is one.
    """

    method: str = "consensus"
    beam: int = 5
    proposals: int = 4
    temperature: float = 0.7
    seed: int = 0
    deadline: float | None = None
    max_tokens: int | None = None
    model: Path | None = None
    adapter: Path | None = None


class MathsError(ValueError):
    """The command can't do it. The message says why, and the remedy."""


def solve_and_show(question: str, options: Options, as_json: bool = False) -> int:
    """Solve and print: the answer to stdout, progress to stderr.

    Returns:
        Exit code: 0 with an answer, 1 without one, 130 when interrupted.

    Raises:
        MathsError: an unusable question, an option out of its range, or a model that can't be loaded.
    """
    progress = Console(stderr=True, emoji=False)
    adapter = assembly.chosen_adapter(options.model, options.adapter)
    untuned = options.model is None and adapter is None
    method: Any = options.method
    options = dataclasses.replace(options, max_tokens=options.max_tokens or usual_tokens(options.beam * options.proposals))
    started = time.monotonic()
    try:
        checked_question(question)
        if not COLDEST <= options.temperature <= 5:
            raise MathsError(f"--temperature is {options.temperature}; allowed: {COLDEST} to 5")
        with progress.status("loading models"):
            solver = assembly.shared_solver(method, options.beam, options.proposals, options.temperature, options.model, adapter)
        found: Progress | Solution | None = None
        with stop_on_signals() as asked, progress.status("reading the question") as status:
            loaded = time.monotonic()
            for found in solver.iterate(question, options.seed, options.deadline, options.max_tokens, asked.is_set):
                if isinstance(found, Progress):
                    best = printable(found.beams[0].strip().replace("\n", " | ")) if found.beams else ""
                    line = f"round {found.round + 1}, {found.tokens} tokens, {found.seconds:.1f} s  {best}"
                    status.update(Text(line[: max(20, progress.width - 4)]))
    except KeyboardInterrupt:  # while models were loading
        progress.print("interrupted")
        return INTERRUPTED
    except (UnusableQuestion, ModelUnavailable, QuorumError, ValueError) as error:
        raise MathsError(str(error)) from error
    assert isinstance(found, Solution)
    if as_json:
        print(json.dumps(as_plain(found, options, adapter, loaded - started), indent=1, ensure_ascii=False))
    else:
        show(found, Console(emoji=False, highlight=False))
    if untuned:
        progress.print("[yellow]note[/]:", UNTUNED, highlight=False)
    if found.reason == "cancelled":
        return INTERRUPTED
    return 0 if found.answer is not None else 1


def show(solution: Solution, console: Console) -> None:
    """A solution for people: answer, steps with the energies of each scorer, runners-up, agreement."""
    if solution.answer is None:
        nothing = "no solution states a number" if solution.complete else "no solution was completed"
        console.print(f"[bold red]no answer[/]: {nothing}", _why(solution))
    else:
        console.print(Text.assemble(("answer: ", "bold"), (solution.answer, "bold green"), _why(solution)))
    names = sorted({name for step in solution.steps for name in step.energies})
    if solution.steps:
        for number, step in enumerate(solution.steps, start=1):
            console.print(Text(f"{number:>3}  {printable(step.text)}"))
        if names:
            console.print("energy of the solution up to each step, by scorer (lower is better)")
            for first in range(0, len(solution.steps), STEPS_BESIDE):
                console.print(_energies(solution, names, first))
    if solution.runners_up:
        title = f"runners-up (chosen: energy {solution.energy:.2f})"
        table = Table("other answer", "energy", "solution", title=title, title_justify="left")
        for candidate in solution.runners_up[:5]:
            steps = printable(candidate.text.strip().replace("\n", " | "))
            shown = Text(steps if len(steps) <= 200 else steps[:197] + "...")
            table.add_row(candidate.answer or "none", f"{candidate.answer_energy:.2f}", shown)
        console.print(table)
    if solution.answer is not None:
        console.print(f"agreement of the scorers {solution.agreement:.2f}, share of the votes for this answer {solution.votes:.2f}")
    console.print(f"{solution.tokens} tokens in {solution.seconds:.1f} s")
    for name, reason in solution.dropped.items():
        console.print(Text(f"left out in the last round: {name}: {reason}", "yellow"))


def _energies(solution: Solution, names: Sequence[str], first: int) -> Table:
    """A row for each scorer, a column for each of `STEPS_BESIDE` steps from the `first` on."""
    steps = solution.steps[first : first + STEPS_BESIDE]
    weighed = bool(solution.weights)
    table = Table("scorer", *["weight"] * weighed, *(str(first + number) for number in range(1, len(steps) + 1)))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for name in names:
        table.add_row(name, *[_number(solution.weights, name)] * weighed, *(_number(step.energies, name) for step in steps))
    return table


def as_plain(solution: Solution, options: Options, adapter: Path | None, loading: float) -> dict[str, Any]:
    """A solution and how it was made as JSON-like values; what is not a number is null."""
    made = {**dataclasses.asdict(options), "adapter": adapter, "loading_seconds": loading}
    plain: dict[str, Any] = json_values({**dataclasses.asdict(solution), "options": made})
    return plain


def question_of(words: str) -> str:
    """The question as given, or all of stdin for "-". Raises MathsError: it is no text."""
    try:
        question = sys.stdin.read() if words == "-" else words
        question.encode()
    except UnicodeError as error:
        raise MathsError(f"the question is no UTF-8 text ({error})") from error
    return question


def _why(solution: Solution) -> str:
    return "" if solution.complete else f" (partial: {_REASONS.get(solution.reason, solution.reason)})"


def _number(energies: Mapping[str, float], name: str) -> str:
    return f"{energies[name]:.2f}" if name in energies else "-"
