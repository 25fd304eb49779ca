"""The experts on solutions that need no training: arithmetic, the question's numbers, agreement, likelihoods. Lower energy is better.

Whether a solution is complete is what the batch says, not what its text looks like. Each judges complete and partial solutions alike, so
that a beam can compare them; what only a complete solution can be blamed for (numbers of the question that it never uses, an answer that
nobody else finds) is neutral for partial ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.models.key_value_cache import Branches, gathered
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import Problem, texts_of
from pcm_ros.tasks.mathematics.reading import Usage, usage


class Arithmetic:
    """Do the equations hold?

    Energy: equations that do not hold, at most 3, plus 1 for a complete solution without any and 1 for one whose answer is not the result
    of the last equation. Range 0..4, and 4 for a complete solution that has no answer in any form (`final_answer`). Source: exact fractions
    (`arithmetic.py`), tolerance half a unit of the last digit written. Wrong when: the slip is in what is calculated, not in how; a
    generator with a calculator makes no slips, so this says little then.
    """

    name, cost, differentiable = "arithmetic", 1e-4, False
    WORST = 4.0

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64."""
        energies = []
        for use in _usages(batch, context):
            unsupported = use.complete and not (use.equations and use.answer_is_last)
            energies.append(self.WORST if use.complete and use.answer is None else float(min(use.wrong, 3) + unsupported))
        return torch.tensor(energies, dtype=torch.float64)


class QuestionNumbers:
    """Are the question's numbers and units used, and no others?

    Energy: share of operands of unknown origin (neither in the question, nor an earlier result, nor a common constant such as 60 or 100);
    for complete solutions also the share of the question's numbers that no equation uses, 0.5 for each intermediate result that is never
    used (at most 1), and 0.5 times the share of the asked words (the unit), if there are any, missing in the last step. Range 0..3.5,
    and 3.5 for a complete solution that has no answer in any form. Source: `reading.py`. Wrong when: the question holds numbers that play
    no part, or numbers in words unknown to it.
    """

    name, cost, differentiable = "numbers", 2e-4, False
    WORST = 3.5

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64."""
        energies = []
        for use in _usages(batch, context):
            energy = use.unknown / max(use.operands, 1)
            if use.complete and use.answer is None:
                energy = self.WORST
            elif use.complete:
                energy += use.unused / max(use.numbers, 1) + 0.5 * min(use.idle, 2) + 0.5 * (1 - use.on_topic)
            energies.append(energy)
        return torch.tensor(energies, dtype=torch.float64)


def _usages(batch: Batch, context: Problem) -> list[Usage]:
    complete = batch.extras["complete"].tolist()
    return [usage(context.question, text, done) for text, done in zip(texts_of(batch), complete, strict=True)]


class Agreement:
    """Do other solutions come to the same answer?

    Energy of a complete solution: -log((votes for its answer + 0.5) / (all votes + 1)), votes being how often each was drawn. That is
    self-consistency (Wang et al., arXiv 2203.11171) as an energy. Range 0..about log(2 N + 2). Partial solutions get the mean of the
    complete ones, which is neutral. Source: the other proposals. Wrong when: the generator makes one mistake more often than it is right;
    a solution without an answer agrees with none.
    """

    name, cost, differentiable = "agreement", 1e-5, False

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64."""
        complete, votes = batch.extras["complete"].tolist(), batch.extras["votes"].tolist()
        answers = [final_answer(text) if done else None for text, done in zip(texts_of(batch), complete, strict=True)]
        tally: dict[Fraction, float] = {}
        for answer, count in zip(answers, votes, strict=True):
            if answer is not None:
                tally[answer] = tally.get(answer, 0.0) + count
        total = sum(votes[row] for row, done in enumerate(complete) if done) + 1
        share = torch.tensor([(tally.get(answer, 0.0) if answer is not None else 0.0) + 0.5 for answer in answers], dtype=torch.float64)
        energies = -torch.log(share / total)
        done = batch.extras["complete"]
        return torch.where(done, energies, energies[done].mean()) if done.any() else torch.zeros(len(batch), dtype=torch.float64)


class GeneratorLikelihood:
    """How likely the generator itself finds the solution.

    Energy: minus the mean log-likelihood per token, nats, 0..about 3; 0 where no generator made the text. Source: the generator.
    Wrong when: the generator is sure of a mistake. Common phrases and short solutions are favoured.
    """

    name, cost, differentiable = "generator", 1e-6, False

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64."""
        likelihood, tokens = batch.parameters[:, 0], batch.parameters[:, 1]
        return -likelihood / tokens.clamp_min(1)


class Read(NamedTuple):
    """A partial solution that was read.

    Attributes:
        branches, row: to go on from. likelihood: log-likelihood (nats) of the text given the question, 0 if it was not asked for.
        tokens: of the text.
        states: (H,) float32 for each of its lines, the last layer's state at its end.
    """

    branches: Branches
    row: int
    likelihood: float
    tokens: int
    states: tuple[Tensor, ...] = ()


class ReadSolutions:
    """Partial solutions that a language model has read, line by line; a line behind one of the texts of the last call is all it reads.

    Args:
        scored: whether likelihoods are asked for.
    """

    ROWS = 8
    """Lines read at a time, those of about the same length: the shorter ones are filled up; and between times the deadline is looked at."""

    def __init__(self, model: LanguageModel, scored: bool = True) -> None:
        self.model, self.scored = model, scored
        self._question = ""
        self._read: dict[str, Read | None] = {}

    def __call__(self, problem: Problem, texts: list[str]) -> list[Read | None]:
        """What was read of each text; None for one that with its question is longer than the model's context.

        Raises:
            OutOfTime: the deadline came.
        """
        if problem.question != self._question or not self._read:
            problem.check_time()
            self.forget()
            self._read = {"": Read(self.model.read([self.model.encode(prompt(problem.question))]), 0, 0.0, 0)}
            self._question = problem.question
        known = self._read
        while missing := {self._next(known, text) for text in texts} - {("", "")}:
            lines = [(begun, line, self.model.encode(line)) for begun, line in missing]
            todo = sorted(lines, key=lambda part: (len(part[2]), part))
            for first in range(0, len(todo), self.ROWS):
                problem.check_time()
                self._read_on(known, todo[first : first + self.ROWS])
            problem.check_time()
        self._read = {text: known[text] for text in ("", *texts)}  # older branches are large, and no beam goes on from them
        return [known[text] for text in texts]

    def forget(self) -> None:
        """Let go of what was read: it takes much memory, and how a text was read may show in the last bits of its likelihood."""
        self._question, self._read = "", {}

    def _read_on(self, known: dict[str, Read | None], lines: Sequence[tuple[str, str, list[int]]]) -> None:
        """Add known texts with one more line each: (text, line, the line's tokens)."""
        start = known[""]
        assert start is not None
        asked = int(start.branches.lengths[start.row])
        fitting: list[tuple[str, Read, list[int]]] = []
        for begun, line, tokens in lines:
            parent = known[begun]
            if parent is None or asked + parent.tokens + len(tokens) >= self.model.context:
                known[begun + line] = None
            else:
                fitting.append((begun + line, parent, tokens))
        if not fitting:
            return
        joined, rows = gathered([(parent.branches, parent.row) for _, parent, _ in fitting])
        fed, likelihoods = self.model.feed(joined, rows, [tokens for *_, tokens in fitting], self.scored)
        for row, (text, parent, tokens) in enumerate(fitting):
            likelihood, states = parent.likelihood + sum(likelihoods[row]), (*parent.states, fed.hidden[row])
            known[text] = Read(fed, row, likelihood, parent.tokens + len(tokens), states)

    @staticmethod
    def _next(known: dict[str, Read | None], text: str) -> tuple[str, str]:
        """The longest known prefix of whole lines, and the line behind it; two empty texts if all is known."""
        if text in known:
            return "", ""
        lines = text.splitlines(keepends=True)
        for count in range(len(lines) - 1, -1, -1):
            start = "".join(lines[:count])
            if start in known:
                return start, lines[count]
        raise AssertionError("the empty text is always known")


def with_the_worst(energies: Sequence[float | None]) -> Tensor:
    """(N,) float64: where there is none, since the text was too long to be read, the highest of the others; 0 if there are no others."""
    worst = max((energy for energy in energies if energy is not None), default=0.0)
    return torch.tensor([worst if energy is None else energy for energy in energies], dtype=torch.float64)


class Likelihood:
    """How natural a language model that was not tuned on solutions finds the text.

    Energy: minus the mean log-likelihood per token given the question, nats, 0..about 5; 0 for an empty text, the highest of the others for
    one that the model can't read for its length. Source: the base model, which has read more than word problems. Wrong when: a wrong
    solution is fluent; it knows next to no arithmetic.
    """

    differentiable = False

    def __init__(self, model: LanguageModel, name: str = "likelihood") -> None:
        self.name, self.cost = name, 0.02
        self._read = ReadSolutions(model)

    def energy(self, batch: Batch, context: Problem) -> Tensor:
        """(N,) float64. Raises OutOfTime."""
        found = self._read(context, texts_of(batch))
        return with_the_worst([None if read is None else -read.likelihood / max(read.tokens, 1) for read in found])

    def forget(self) -> None:
        """See `ReadSolutions.forget`."""
        self._read.forget()
