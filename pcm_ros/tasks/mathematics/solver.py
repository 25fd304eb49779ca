"""Word problems solved by consensus: steps are proposed, judged by the ensemble, and the best partial solutions are gone on from."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch

from pcm_ros.consensus import Batch, Beam, BeamState, Consensus, Ensemble, Iteration, QuorumError, Scorer, ScoreTable, Stop
from pcm_ros.consensus.energies import Normalise
from pcm_ros.tasks.mathematics.answers import final_answer, fractions_in_digits, in_notation
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
        votes: how often it was drawn. energies: scorer -> raw energy. answer_energy: of its answer, see `answer_energies`.
    """

    answer: str | None
    text: str
    total: float
    votes: float
    energies: Mapping[str, float]
    answer_energy: float


@dataclass(frozen=True)
class Drawn:
    """A complete solution, as the generator came to it. Attributes: see `solutions_batch`."""

    text: str
    votes: float
    likelihood: float
    tokens: int


@dataclass(frozen=True)
class Solution:
    """What the ensemble agreed on.

    Attributes:
        question: as given. answer: the number as text; None = no solution was completed, or none states a number.
        steps: of the chosen solution, the best one with that answer (the best one without, or the best partial one, if there is none).
        energy: of the answer, see `Candidate.answer_energy`; +inf = none.
        runners_up: the best candidates with other answers, one for each answer, the best answer first.
        agreement: 0..1, how far the scorers agree on the choice (`ScoreTable.agreement`). votes: share of the votes for the answer.
        complete: whether the search ended by itself. reason: else "deadline", "tokens", "steps" or "cancelled".
        tokens: written by the generator, all beams together. seconds: wall clock. dropped: scorer -> why it was left out (last round).
        candidates: all complete solutions that were met, best first.
        weights: of each scorer, how much its energy counts.
    """

    question: str
    answer: str | None
    steps: tuple[Step, ...]
    energy: float
    runners_up: tuple[Candidate, ...]
    agreement: float
    votes: float
    complete: bool
    reason: str
    tokens: int
    seconds: float
    dropped: Mapping[str, str] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


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
        order: indices, best first: by their answers, those without one last, and those of one answer by their own energies.
        totals: energy of each solution as given. answer_energies: of its answer, see the function of this name. table: all energies.
    """

    order: tuple[int, ...]
    totals: tuple[float, ...]
    answer_energies: tuple[float, ...]
    table: ScoreTable


def checked_question(text: str) -> str:
    """The question on one line, with fractions of one character in digits.

    Raises:
        UnusableQuestion: empty, or longer than 4000 characters.
    """
    question = " ".join(fractions_in_digits(text).split())
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


def unsolved(
    question: str, reason: str, seconds: float, steps: tuple[Step, ...] = (), tokens: int = 0, weights: Mapping[str, float] | None = None
) -> Solution:
    """What there is where no solution was completed, or none states a number. Arguments: see `Solution`."""
    return Solution(question, None, steps, float("inf"), (), 0.0, 0.0, not reason, reason, tokens, seconds, weights=weights or {})


@dataclass(frozen=True)
class Weighing:
    """How energies of the experts are added up.

    Attributes:
        weights: name -> weight >= 0, default 1.
        normalise: "zscore": in standard deviations among the proposals of a round, which needs no weights. "none": as they are; a small
            difference then is a small one, and weights have to bring the experts to one scale.
        fitted: whether the weights were fitted so that exp(-total) tells how probable it is that a solution is right.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    normalise: Normalise = "zscore"
    fitted: bool = False


class _Given:
    """A generator that proposes what it was given."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def propose(self, context: Problem, state: BeamState | None, rng: torch.Generator) -> Batch:
        return self.batch


class _Found:
    """What the rounds brought: energies of every partial solution, the complete ones as they were drawn, and the state at the end."""

    def __init__(self) -> None:
        self.energies: dict[str, Mapping[str, float]] = {}
        self.complete: dict[str, Drawn] = {}
        self.state: BeamState | None = None

    def add(self, iteration: Iteration) -> None:
        """A complete solution is drawn in one round only and carries its votes with it, so the last word about it is right."""
        batch, self.state = iteration.batch, iteration.state
        for row, text in enumerate(texts_of(batch)):
            self.energies[text] = iteration.table.energies_of(row)
            if bool(batch.extras["complete"][row]):
                likelihood, tokens = batch.parameters[row].tolist()
                self.complete[text] = Drawn(text, float(batch.extras["votes"][row]), likelihood, int(tokens))

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
        scorers: the experts. weighing: how much each counts, and what is added up.
        width: beams. distinct: whether equal beams are one.
    """

    def __init__(
        self,
        generator: StepGenerator,
        scorers: Sequence[Scorer],
        weighing: Weighing | None = None,
        width: int = 5,
        distinct: bool = True,
    ) -> None:
        self.generator = generator
        self.weighing = weighing = weighing or Weighing()
        self.ensemble = Ensemble(scorers, weighing.weights, normalise=weighing.normalise, quorum=1)
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
        """Progress after each round, then the solution. What was read of the question is let go of at the end.

        Args:
            deadline: seconds from now after which the best found so far is returned, marked; None = none. Work that is under way is not
                torn apart: one token of all beams, or a scorer's reading of 16 lines, may come after it.
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
        found = _Found()
        with self._remembering():
            reason = yield from self._searched(problem, seed, found, started)
            if not reason and problem.late:
                reason = why_it_ended(problem)  # scorers were left out of the last rounds because of it
            solution = self._chosen(question, problem, found, reason, started)
        yield solution

    def drawn(self, question: str, seed: int = 0, max_tokens: int | None = None) -> tuple[tuple[Drawn, ...], int]:
        """The complete solutions that the search comes to, not compared with each other, and the tokens spent. Arguments: see `iterate`."""
        max_tokens = usual_tokens(self.generator.first) if max_tokens is None else max_tokens
        found = _Found()
        with self._remembering():
            for _ in self._searched(Problem(checked_question(question), None, max_tokens), seed, found, time.monotonic()):
                pass
        return tuple(found.complete.values()), self.generator.spent

    def judged(self, question: str, drawn: Sequence[Drawn]) -> tuple[Candidate, ...]:
        """What the ensemble says of complete solutions beside each other, best first. Raises QuorumError."""
        with self._remembering():
            compared, _ = self._compared(_batch_of(drawn), Problem(checked_question(question)))
            return tuple(candidate for _, candidate in compared)

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Nothing that was read before is known at the beginning, so that energies do not depend on it; nothing is kept at the end."""
        self._forget()
        try:
            yield
        finally:
            self._forget()

    def _forget(self) -> None:
        self.generator.forget()
        for scorer in self.ensemble.scorers:
            if isinstance(scorer, _Remembers):
                scorer.forget()

    def _searched(self, problem: Problem, seed: int, found: _Found, started: float) -> Generator[Progress, None, str]:
        """Progress after each round, which is added to `found`; then why the search ended, "" = by itself."""
        # The generator proposes complete beams again itself; one that the engine adds would have its votes twice.
        consensus = Consensus(self.generator, self.ensemble, self.beam, Stop(MOST_STEPS, agreement=None), keep_leader=False)
        try:
            for iteration in consensus.iterate(problem, seed):
                found.add(iteration)
                state, spent = found.state, self.generator.spent
                beams = tuple(texts_of(state.beams)) if state is not None else ()
                yield Progress(iteration.index, tuple(map(display, beams)), spent, time.monotonic() - started)
                if state is not None and bool(state.complete.all()):
                    return "tokens" if self.generator.limited else ""
                if problem.late or spent >= problem.max_tokens:
                    return why_it_ended(problem) if problem.late else "tokens"
        except OutOfTime:
            return why_it_ended(problem)
        except QuorumError:
            if not problem.late:
                raise
            return why_it_ended(problem)
        return "steps"

    def rank(self, question: str, solutions: Sequence[str]) -> Ranking:
        """Order given solutions as the search orders its own at the end: selection without a generator. They are put into the experts'
        notation first, where that does not make them too long; all count as complete, and each as drawn once.

        Raises:
            UnusableQuestion: see `checked_question`.
            ValueError: no solution, or one of more than 4096 bytes.
            QuorumError: no scorer answered.
        """
        if not solutions:
            raise ValueError("there is no solution to rank; allowed: at least one")
        if (longest := max(map(_bytes, solutions))) > LONGEST_TEXT:
            raise ValueError(f"a solution has {longest} bytes; allowed: at most {LONGEST_TEXT}")
        count = len(solutions)
        texts = [text if _bytes(marked := in_notation(text)) > LONGEST_TEXT else marked for text in solutions]
        batch = solutions_batch(texts, [True] * count, [1.0] * count, [0.0] * count, [0] * count)
        with self._remembering():
            compared, iteration = self._compared(batch, Problem(checked_question(question)))
        given = dict(compared)
        energies = tuple(given[row].answer_energy for row in range(count))
        return Ranking(tuple(row for row, _ in compared), tuple(iteration.table.total.tolist()), energies, iteration.table)

    def _compared(self, batch: Batch, problem: Problem) -> tuple[list[tuple[int, Candidate]], Iteration]:
        """Complete solutions judged beside each other, each with its row, in the order of `Ranking`."""
        iteration = _judged(self.ensemble, batch, problem)
        texts, votes, totals = texts_of(batch), batch.extras["votes"].tolist(), iteration.table.total.tolist()
        values = [final_answer(text) for text in texts]
        answers = [None if value is None else written_number(value) for value in values]
        energies = answer_energies(answers, totals, votes if self.weighing.fitted else None)
        each = zip(answers, map(display, texts), totals, votes, map(iteration.table.energies_of, range(len(texts))), energies, strict=True)
        candidates = [Candidate(*parts) for parts in each]
        return sorted(enumerate(candidates), key=lambda entry: _order(entry[1])), iteration

    def _chosen(self, question: str, problem: Problem, found: _Found, reason: str, started: float) -> Solution:
        """The best answer of all complete solutions that were met, judged together, and the best solution with it; the best partial one if
        there is none."""
        spent = self.generator.spent if self.generator.question == problem.question else 0
        weights = dict(zip(self.ensemble.names, self.ensemble.weights.tolist(), strict=True))
        partial = "" if found.state is None else text_of(found.state.beams.extras["sequence"][0])
        drawn = list(found.complete.values())
        try:
            compared = self._compared(_batch_of(drawn), problem) if drawn else None
        except QuorumError:
            if not problem.late:
                raise
            compared, reason = None, reason or why_it_ended(problem)
        if compared is None:
            return unsolved(question, reason, time.monotonic() - started, found.steps(partial), spent, weights)
        ranked, iteration = compared
        if not reason and iteration.dropped and problem.late:
            reason = why_it_ended(problem)  # time was over while the last choice was made
        row, best = ranked[0]
        if best.answer is None:
            return unsolved(question, reason, time.monotonic() - started, found.steps(drawn[row].text), spent, weights)
        others: dict[str | None, Candidate] = {}
        for _, candidate in ranked:
            if candidate.answer != best.answer:
                others.setdefault(candidate.answer, candidate)
        return Solution(
            question,
            best.answer,
            found.steps(drawn[row].text),
            best.answer_energy,
            tuple(others.values()),
            iteration.table.agreement(row),
            sum(c.votes for _, c in ranked if c.answer == best.answer) / max(sum(one.votes for one in drawn), 1e-9),
            not reason,
            reason,
            spent,
            time.monotonic() - started,
            dict(iteration.dropped),
            tuple(candidate for _, candidate in ranked),
            weights,
        )

    def close(self) -> None:
        """End the scorers' threads."""
        self.ensemble.close()


@runtime_checkable
class _Remembers(Protocol):
    """A scorer that keeps what it has read of a question between calls."""

    def forget(self) -> None: ...


def answer_energies(answers: Sequence[str | None], totals: Sequence[float], votes: Sequence[float] | None) -> list[float]:
    """The energy of each solution's answer, from those of the solutions; without an answer, its own.

    Where weights are fitted (training/maths_weights.py), what was drawn is right with a probability in proportion to exp(-total), and an
    answer is as probable as all draws of it together: -log of the sum of votes * exp(-total) over its solutions, votes being shares of
    all. Another answer than the best solution's may be the best then. With equal totals it is that of most votes.

    Args:
        votes: how often each solution was drawn; None = weights are not fitted: the least total of the solutions with this answer.
    """
    exponents: dict[str | None, list[float]] = {}
    shares = [0.0] * len(totals) if votes is None else [math.log(max(count, 1e-12) / max(sum(votes), 1e-12)) for count in votes]
    for answer, total, share in zip(answers, totals, shares, strict=True):
        exponents.setdefault(answer, []).append(share - total)
    joined = torch.Tensor.amax if votes is None else torch.Tensor.logsumexp
    best = {answer: -float(joined(torch.tensor(each, dtype=torch.float64), 0)) for answer, each in exponents.items()}
    return [total if answer is None else best[answer] for answer, total in zip(answers, totals, strict=True)]


def _order(candidate: Candidate) -> tuple[bool, float, float]:
    return candidate.answer is None, candidate.answer_energy, candidate.total


def _batch_of(drawn: Sequence[Drawn]) -> Batch:
    parts = {name: [getattr(one, name) for one in drawn] for name in ("votes", "likelihood", "tokens")}
    return solutions_batch([one.text for one in drawn], [True] * len(drawn), **parts)


def _judged(ensemble: Ensemble, batch: Batch, problem: Problem) -> Iteration:
    return Consensus(_Given(batch), ensemble, Beam(len(batch), distinct=False), Stop(1)).run(problem, 0)


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


def why_it_ended(problem: Problem) -> str:
    """The reason of a late problem's solution."""
    return "cancelled" if problem.stop() else "deadline"
