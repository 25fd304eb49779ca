"""The generator: the language model goes on from each beam by one step, or stops there."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from pcm_ros.consensus import Batch, BeamState
from pcm_ros.models.key_value_cache import Branches, gathered
from pcm_ros.models.language import COLDEST, LanguageModel
from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.arithmetic import evaluate, written_number
from pcm_ros.tasks.mathematics.equations import calculator, results_of
from pcm_ros.tasks.mathematics.notation import ANSWER, prompt
from pcm_ros.tasks.mathematics.proposals import LONGEST_TEXT, Problem, solutions_batch, texts_of


@dataclass(frozen=True)
class _Proposal:
    """A row of `solutions_batch`; its arguments say what each part is."""

    text: str
    complete: bool
    votes: float
    likelihood: float
    tokens: int


@dataclass(frozen=True)
class _Stop:
    """Stopping at a beam.

    Attributes:
        proposal: with the last result as the answer. numbers: the last result, exactly and as it is written.
    """

    proposal: _Proposal
    numbers: frozenset[Fraction]


class StepGenerator:
    """Proposes each beam's solution with one more step, drawn several times, and with "the answer is what we have" in place of a step.

    The prompt is read once per problem, and each step once: the caches of the beams' last steps are kept between rounds. Where the model
    wrote other tokens than a step's own (a second line break), the step is read again. Equal proposals are merged and their votes added
    up. Complete beams are proposed again as they are. A line that the model ends with its end token is the last one of a solution, which
    is complete, whether it states an answer or not.

    Votes estimate how many of `first` plain samples would go this way: the root has `first` votes, and the steps drawn for a beam share
    its votes. Where stopping is a proposal, the share that is the model's probability of an answer's line belongs to the answers, and the
    drawn steps get the rest. The answers are the last result and every other number that drawn answer's lines state; they share in the
    proportion in which they were drawn, and where no answer was drawn, all goes to the last result. A beam of whose draws every one that
    can be used is an answer has no steps to share the rest: the answers get that too. So a beam's votes all go to what follows it, unless
    nothing usable was drawn there, as for want of tokens or of room in the context.

    Where the tokens that are left do not cover a line of `longest` for every draw, fewer are drawn, the best beams first, so that lines
    come to their end.

    Args:
        model: the language model (with the adapter that speaks in steps).
        first: proposals at the root. each: proposals per open beam, or, with `by_votes`, per vote of an open beam: then nothing is pruned
            but by the strategy, and the solutions are plain samples.
        temperature: of the draws, 0.01..5; 0 = always the likeliest step.
        longest: tokens of a step; hardly a line of GSM8K's solutions is longer than 64.
        stop_here: whether to propose, beside the drawn steps, to stop with the last result as the answer.
        calculate: whether marked equations are filled in by the exact calculator.
        preamble: worked examples in front of the question, for models without an adapter.

    Attributes:
        spent: tokens written for the present problem. limited: whether tokens were too few to go on from one of its beams.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        model: LanguageModel,
        first: int = 20,
        each: int = 4,
        by_votes: bool = False,
        temperature: float = 0.7,
        longest: int = 64,
        stop_here: bool = True,
        calculate: bool = True,
        preamble: str = "",
    ) -> None:
        for name, value in (("first", first), ("each", each), ("longest", longest)):
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed: >= 1")
        if temperature != 0 and not COLDEST <= temperature <= 5:
            raise ValueError(f"temperature is {temperature}; allowed: 0, or {COLDEST}..5")
        self.model, self.first, self.each, self.by_votes = model, first, each, by_votes
        self.temperature, self.longest, self.stop_here = temperature, longest, stop_here
        self.calculate, self.preamble = calculate, preamble
        self.spent = 0
        self.limited = False
        self.question = ""
        self._open: dict[str, tuple[Branches, int]] = {}
        self._prompt: Branches | None = None
        self._lock = threading.Lock()
        self._mark = model.encode(ANSWER)[0]

    def propose(self, context: Problem, state: BeamState | None, rng: torch.Generator) -> Batch:
        """Partial solutions as `solutions_batch` describes them.

        Raises:
            OutOfTime: the deadline came before a single step.
            ValueError: the question is longer than the model's context.
        """
        with self._lock:
            if state is None or context.question != self.question:
                self.question, self.spent, self.limited = context.question, 0, False
                self._forget()
                context.check_time()
                self._open = {"": (self._read_prompt(), 0)}
            beams = [_Proposal("", False, float(self.first), 0.0, 0)] if state is None else _beams(state)
            found: dict[str, _Proposal] = {}
            for beam in beams:
                if beam.complete:
                    found[beam.text] = beam
            going = [beam for beam in beams if not beam.complete]
            if going and not context.late and self.spent < context.max_tokens:
                self._extend(context, going, state is None, rng, found)
            for beam in going:
                if not found:  # out of time or tokens: what there is stays as it is
                    found[beam.text] = beam
            proposals = list(found.values())
            return solutions_batch(
                [p.text for p in proposals],
                [p.complete for p in proposals],
                [p.votes for p in proposals],
                [p.likelihood for p in proposals],
                [p.tokens for p in proposals],
            )

    def forget(self) -> None:
        """Let go of what was read; what is asked for again is read again."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._open, self._prompt = {}, None

    def _read_prompt(self) -> Branches:
        """The question with what stands before it, read once."""
        if self._prompt is None:
            self._prompt = self.model.read([self.model.encode(self.preamble + prompt(self.question))])
        return self._prompt

    def _extend(self, context: Problem, going: list[_Proposal], root: bool, rng: torch.Generator, found: dict[str, _Proposal]) -> None:
        """Add what can follow these beams to `found`."""
        branches, rows = self._branches([beam.text for beam in going])
        stops: dict[int, _Stop] = {}
        if self.stop_here:
            for number, beam in enumerate(going):
                if results := results_of(beam.text):
                    stops[number] = self._stopped(beam, results[-1], branches, rows[number])
        left = context.max_tokens - self.spent
        wanted = [self._draws(beam, int(branches.lengths[rows[number]]), root) for number, beam in enumerate(going)]
        times = _fewer(wanted, left // self.longest)
        self.limited |= any(count and not given for count, given in zip(wanted, times, strict=True))
        parents = [number for number, count in enumerate(times) for _ in range(count)]
        if not parents:
            for stop in stops.values():
                _add(found, stop.proposal)
            return
        grown = self.model.write(
            branches,
            [rows[number] for number in parents],
            [self.temperature] * len(parents),
            min(self.longest, left),
            rng,
            context.deadline,
            calculator if self.calculate else None,
            context.stop,
        )
        self.spent += sum(map(len, grown.tokens))
        self.limited |= left < self.longest and "limit" in grown.ended
        drawn = [self.model.decode(tokens) for tokens in grown.tokens]
        lines = [line[: line.find("\n") + 1] or line for line in drawn]
        steps: list[tuple[int, int, _Proposal]] = []  # row, number of the beam, and what was drawn
        answers: list[tuple[int, int, _Proposal]] = []  # likewise, of beams where stopping is a proposal
        for row, number in enumerate(parents):
            beam, tokens, ended, line = going[number], grown.tokens[row], grown.ended[row], lines[row]
            answered = line.startswith(ANSWER.strip())
            complete = ended == "end" or answered  # nothing may follow the end token
            text = beam.text + (line.strip() if complete else line)
            if ended in ("limit", "deadline") or not line.strip() or len(text.encode(errors="replace")) > LONGEST_TEXT - 64:
                continue
            likelihood = beam.likelihood + sum(grown.log_likelihoods[row])
            proposal = _Proposal(text, complete, 1.0, likelihood, beam.tokens + len(tokens))
            (answers if answered and number in stops else steps).append((row, number, proposal))
        answering, going_on = (Counter(number for _, number, _ in drawn) for drawn in (answers, steps))
        sharing = [count - answering[number] if self.by_votes else going_on[number] for number, count in enumerate(times)]
        rest = [beam.votes for beam in going]  # what the steps share
        for number, stop in stops.items():
            pool = stop.proposal.votes if sharing[number] or not answering[number] else rest[number]
            rest[number] -= pool
            stated = [(row, proposal) for row, parent, proposal in answers if parent == number]
            others = [proposal for row, proposal in stated if final_answer(lines[row].strip()) not in stop.numbers]
            part = (len(stated) - len(others)) / len(stated) if stated else 1.0
            _add(found, replace(stop.proposal, votes=pool * part))
            for proposal in others:
                _add(found, replace(proposal, votes=pool / len(stated)))
        still_open: dict[str, tuple[Branches, int]] = {}
        for row, number, proposal in steps:
            _add(found, replace(proposal, votes=rest[number] / sharing[number]))
            if not proposal.complete and lines[row] == drawn[row]:  # else these branches hold other tokens than the text has
                still_open.setdefault(proposal.text, (grown.branches, row))
        self._open = still_open

    def _draws(self, beam: _Proposal, length: int, root: bool) -> int:
        """How often to draw a step for a beam of so many tokens, the prompt included; 0 where the context has no room for another."""
        if length + self.longest >= self.model.context:
            return 0
        return self.first if root else self.each * (max(1, round(beam.votes)) if self.by_votes else 1)

    def _stopped(self, beam: _Proposal, result: Fraction, branches: Branches, row: int) -> _Stop:
        """The beam with its last result as the answer, and with the votes of all answers."""
        logits = branches.logits[row]
        likelihood = float(torch.log_softmax(logits, dim=-1)[self._mark])
        share = float(torch.softmax(logits / max(self.temperature, 1e-3), dim=-1)[self._mark])
        number = written_number(result)
        stopped = _Proposal(f"{beam.text}{ANSWER}{number}", True, beam.votes * share, beam.likelihood + likelihood, beam.tokens + 1)
        return _Stop(stopped, frozenset((result, evaluate(number))))

    def _branches(self, texts: list[str]) -> tuple[Branches, list[int]]:
        """What the model has read of these beams; those of which it does not remember are read again."""
        if "" in texts:
            self._open[""] = (self._read_prompt(), 0)
        unread = [text for text in texts if text not in self._open]
        if unread:
            again, _ = self.model.feed(self._read_prompt(), [0] * len(unread), [self.model.encode(text) for text in unread], scored=False)
            self._open |= {text: (again, row) for row, text in enumerate(unread)}
        return gathered([self._open[text] for text in texts])


def _fewer(times: list[int], most: int) -> list[int]:
    """As many draws for each beam as `most` in all allows, at least one in all: one each, first beams first, then another, and so on."""
    given, left = [0] * len(times), min(sum(times), max(1, most))
    while left:
        for number, wanted in enumerate(times):
            if left and given[number] < wanted:
                given[number] += 1
                left -= 1
    return given


def _beams(state: BeamState) -> list[_Proposal]:
    """The beams of a state, as they were proposed."""
    texts, votes = texts_of(state.beams), state.beams.extras["votes"].tolist()
    each = zip(texts, state.complete.tolist(), votes, state.beams.parameters.tolist(), strict=True)
    return [_Proposal(text, done, count, likelihood, int(tokens)) for text, done, count, (likelihood, tokens) in each]


def _add(found: dict[str, _Proposal], new: _Proposal) -> None:
    """Put a proposal into the collection; one with the same text gains its votes."""
    old = found.get(new.text)
    found[new.text] = new if old is None else replace(old, votes=old.votes + new.votes)
