"""Word problems solved by consensus: steps are proposed, judged by the ensemble, and the best partial solutions are gone on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from pcm_ros.consensus import Batch, Beam, BeamState, Consensus, Ensemble, Iteration, QuorumError, Scorer, ScoreTable, Stop
from pcm_ros.tasks.mathematics.answers import final_answer, in_notation
from pcm_ros.tasks.mathematics.arithmetic import written_number
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import display
from pcm_ros.tasks.mathematics.proposals import LONGEST_TEXT, OutOfTime, Problem, never, solutions_batch, text_of, texts_of, usual_tokens

LONGEST_QUESTION = 4000
MOST_STEPS = 12


class UnusableQuestion(ValueError):
    """A question that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Step:
    """A step of a solution.

    Attributes:
        text: for people. written: as the generator wrote it.
        energies: scorer -> raw energy of the solution up to here, beside the proposals of its round; lower is better.
    """

    text: str
    written: str
    energies: Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """A solution that was in the last round.

    Attributes:
        answer: the number as text, None if the solution has none. text: the whole solution, for people. total: the ensemble's energy.
        votes: how often it was drawn. energies: scorer -> raw energy.
    """

    answer: str | None
    text: str
    total: float
    votes: float
    energies: Mapping[str, float]


@dataclass(frozen=True)
class Solution:
    """What the ensemble agreed on.

    Attributes:
        question: as given. answer: the number as text; None = no solution was completed.
        steps: of the chosen solution (of the best partial one if none was completed). total: its energy; +inf = none.
        runners_up: the best candidates with other answers, best first, one for each answer.
        agreement: 0..1, how far the scorers agree on the choice (`ScoreTable.agreement`). votes: share of the votes for the answer.
        complete: whether the search ended by itself. reason: else "deadline", "tokens", "steps" or "cancelled".
        tokens: written by the generator, all beams together. seconds: wall clock. dropped: scorer -> why it was left out (last round).
        candidates: all complete solutions that were met, best first.
    """

    question: str
    answer: str | None
    steps: tuple[Step, ...]
    total: float
    runners_up: tuple[Candidate, ...]
    agreement: float
    votes: float
    complete: bool
    reason: str
    tokens: int
    seconds: float
    dropped: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class Progress:
    """After each round: its number, the best beams as text, tokens written so far, seconds so far."""

    round: int
    beams: tuple[str, ...]
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """The ensemble's order of given solutions.

    Attributes:
        order: indices, best first. totals: energy of each solution as given. table: all energies.
    """

    order: tuple[int, ...]
    totals: tuple[float, ...]
    table: ScoreTable


def checked_question(text: str) -> str:
    """The question on one line.

    Raises:
        UnusableQuestion: empty, or longer than 4000 characters.
    """
    question = " ".join(text.split())
    if not question:
        raise UnusableQuestion("the question is empty; allowed: 1..4000 characters of text")
    if len(question) > LONGEST_QUESTION:
        raise UnusableQuestion(f"the question has {len(question)} characters; allowed: 1..{LONGEST_QUESTION}; remedy: ask less at once")
    return question


def check_limits(deadline: float | None, max_tokens: int | None) -> None:
    """Raises ValueError: seconds that are not above 0, or tokens below 1."""
    if deadline is not None and not deadline > 0:
        raise ValueError(f"deadline is {deadline}; allowed: seconds > 0, or None")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens is {max_tokens}; allowed: >= 1")


def unsolved(question: str, reason: str, seconds: float, steps: tuple[Step, ...] = (), tokens: int = 0) -> Solution:
    """What there is where no solution was completed. Arguments: see `Solution`."""
    return Solution(question, None, steps, float("inf"), (), 0.0, 0.0, False, reason, tokens, seconds)


class _Given:
    """A generator that proposes what it was given."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def propose(self, context: Problem, state: BeamState | None, rng: torch.Generator) -> Batch:
        return self.batch


class _Found:
    """What the rounds brought: energies of every partial solution, and the complete ones with votes, likelihood and tokens."""

    def __init__(self) -> None:
        self.energies: dict[str, Mapping[str, float]] = {}
        self.complete: dict[str, tuple[float, float, int, tuple[float, int]]] = {}

    def add(self, iteration: Iteration) -> None:
        """A complete solution is drawn in one round only and carries its votes with it, so the last word about it is right."""
        batch = iteration.batch
        for row, text in enumerate(texts_of(batch)):
            self.energies[text] = iteration.table.energies_of(row)
            if bool(batch.extras["complete"][row]):
                likelihood, tokens = batch.parameters[row].tolist()
                share, steps = batch.extras["reproduced"][row].tolist()
                self.complete[text] = (float(batch.extras["votes"][row]), likelihood, int(tokens), (share, int(steps)))

    def steps(self, text: str) -> tuple[Step, ...]:
        """The lines of a solution, each with the energies of the solution up to there."""
        lines = text.splitlines(keepends=True)
        until = ["".join(lines[: count + 1]) for count in range(len(lines))]
        pairs = zip(lines, until, strict=True)
        return tuple(Step(display(line.strip()), line.strip(), self.energies.get(so_far, {})) for line, so_far in pairs)


class Solver:
    """Generator, ensemble and beam search, put together.

    Args:
        generator: proposes steps; it keeps what it read of one question, so one problem is solved at a time.
        scorers: the experts. weights: name -> weight, default 1.
        width: beams. distinct: whether equal beams are one.
    """

    def __init__(
        self,
        generator: StepGenerator,
        scorers: Sequence[Scorer],
        weights: Mapping[str, float] | None = None,
        width: int = 5,
        distinct: bool = True,
    ) -> None:
        self.generator = generator
        self.ensemble = Ensemble(scorers, weights, normalise="zscore", quorum=1)
        self.beam = Beam(width, distinct=distinct)

    def solve(self, question: str, seed: int = 0, deadline: float | None = None, max_tokens: int | None = None) -> Solution:
        """See `iterate`; the end of it."""
        for result in self.iterate(question, seed, deadline, max_tokens):
            if isinstance(result, Solution):
                return result
        raise AssertionError("iterate ends with a Solution")

    def iterate(
        self,
        question: str,
        seed: int = 0,
        deadline: float | None = None,
        max_tokens: int | None = None,
        stop: Callable[[], bool] = never,
    ) -> Iterator[Progress | Solution]:
        """Progress after each round, then the solution.

        Args:
            deadline: seconds from now after which the best found so far is returned, marked; None = none. Work that is under way is not
                torn apart: one token of all beams, or one reading of a scorer, may come after it.
            max_tokens: that all proposals together may cost, >= 1; None = `usual_tokens` of the generator's first draws.
            stop: asked between tokens; true cancels, and the best found so far is returned, marked.

        Raises:
            UnusableQuestion: see `checked_question`; also for one that is longer than the model's context.
            ValueError: a limit out of its range.
        """
        text = checked_question(question)
        check_limits(deadline, max_tokens)
        max_tokens = usual_tokens(self.generator.first) if max_tokens is None else max_tokens
        started = time.monotonic()
        problem = Problem(text, None if deadline is None else started + deadline, max_tokens, stop)
        room = self.generator.model.context // 2
        if len(self.generator.model.encode(text)) > room:
            raise UnusableQuestion(f"the question is longer than the {room} tokens that the model can read; remedy: a shorter one")
        # The generator proposes complete beams again itself; one that the engine adds would have its votes twice.
        consensus = Consensus(self.generator, self.ensemble, self.beam, Stop(MOST_STEPS, agreement=None), keep_leader=False)
        found = _Found()
        state: BeamState | None = None
        reason = "steps"
        try:
            for iteration in consensus.iterate(problem, seed):
                state = iteration.state
                found.add(iteration)
                spent = self.generator.spent
                beams = tuple(texts_of(state.beams)) if state is not None else ()
                yield Progress(iteration.index, tuple(map(display, beams)), spent, time.monotonic() - started)
                if state is not None and bool(state.complete.all()):
                    reason = "tokens" if self.generator.limited else ""
                    break
                if problem.late or spent >= max_tokens:
                    reason = why_it_ended(problem) if problem.late else "tokens"
                    break
        except OutOfTime:
            reason = why_it_ended(problem)
        except QuorumError:
            if not problem.late:
                raise
            reason = why_it_ended(problem)
        if not reason and problem.late:
            reason = why_it_ended(problem)  # scorers were left out of the last rounds because of it
        yield self._chosen(question, problem, found, state, reason, started)

    def rank(self, question: str, solutions: Sequence[str]) -> Ranking:
        """Order given solutions by the ensemble's energy: selection without a generator. They are put into the experts' notation first.

        Raises:
            UnusableQuestion: see `checked_question`.
            ValueError: no solution, or one of more than 4096 bytes.
            QuorumError: no scorer answered.
        """
        if not solutions:
            raise ValueError("there is no solution to rank; allowed: at least one")
        if (longest := max(len(text.encode(errors="replace")) for text in solutions)) > LONGEST_TEXT:
            raise ValueError(f"a solution has {longest} bytes; allowed: at most {LONGEST_TEXT}")
        count = len(solutions)
        batch = solutions_batch([in_notation(text) for text in solutions], [True] * count, [1.0] * count, [0.0] * count, [0] * count)
        iteration = self._judged(batch, Problem(checked_question(question)))
        totals = iteration.table.total
        return Ranking(tuple(totals.argsort(stable=True).tolist()), tuple(totals.tolist()), iteration.table)

    def _judged(self, batch: Batch, problem: Problem) -> Iteration:
        return Consensus(_Given(batch), self.ensemble, Beam(len(batch), distinct=False), Stop(1)).run(problem, 0)

    def _chosen(self, question: str, problem: Problem, found: _Found, state: BeamState | None, reason: str, started: float) -> Solution:
        """The best of all complete solutions that were met, judged together; the best partial one if there is none."""
        spent = self.generator.spent if self.generator.question == problem.question else 0
        partial = "" if state is None else text_of(state.beams.extras["sequence"][0])
        nothing = unsolved(question, reason, time.monotonic() - started, found.steps(partial), spent)
        if not found.complete:
            return nothing
        texts = list(found.complete)
        votes, likelihood, tokens, reproduced = zip(*found.complete.values(), strict=True)
        try:
            iteration = self._judged(solutions_batch(texts, [True] * len(texts), votes, likelihood, tokens, reproduced), problem)
        except QuorumError:
            if problem.late:
                return nothing
            raise
        table = iteration.table
        candidates = []
        for row in table.total.argsort(stable=True).tolist():
            value = final_answer(texts[row])
            answer = None if value is None else written_number(value)
            candidates.append(Candidate(answer, display(texts[row]), float(table.total[row]), votes[row], table.energies_of(row)))
        best, chosen = candidates[0], texts[table.best]
        others: dict[str | None, Candidate] = {}
        for candidate in candidates:
            if candidate.answer != best.answer:
                others.setdefault(candidate.answer, candidate)
        return Solution(
            question,
            best.answer,
            found.steps(chosen),
            best.total,
            tuple(others.values()),
            iteration.agreement,
            sum(c.votes for c in candidates if c.answer == best.answer) / max(sum(votes), 1e-9),
            not reason,
            reason,
            spent,
            time.monotonic() - started,
            dict(iteration.dropped),
            tuple(candidates),
        )

    def close(self) -> None:
        """End the scorers' threads."""
        self.ensemble.close()


def why_it_ended(problem: Problem) -> str:
    """The reason of a late problem's solution."""
    return "cancelled" if problem.stop() else "deadline"
