"""The generator: the language model goes on from each beam by one step, or stops there."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace

import torch

from pcm_ros.consensus import Batch, BeamState
from pcm_ros.models.key_value_cache import Branches, gathered
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.arithmetic import calculator, results_of, written_number
from pcm_ros.tasks.mathematics.notation import ANSWER, prompt
from pcm_ros.tasks.mathematics.proposals import LONGEST_TEXT, Problem, solutions_batch, text_of
from pcm_ros.tasks.mathematics.reading import outcome


@dataclass(frozen=True)
class _Proposal:
    """A row of `solutions_batch`; its arguments say what each part is."""

    text: str
    complete: bool
    votes: float
    likelihood: float
    tokens: int
    reproduced: tuple[float, int] = (0.0, 0)


class StepGenerator:
    """Proposes each beam's solution with one more step, drawn several times, and with "the answer is what we have" in place of a step.

    The prompt is read once per problem, and each step once: the caches of the beams' last steps are kept between rounds. Equal proposals
    are merged and their votes added up. Complete beams are proposed again as they are.

    Votes estimate how many of `first` plain samples would go this way: the root has `first` votes, and the steps drawn for a beam share
    its votes. Where stopping is a proposal, it gets the share that is the model's probability of an answer's line; the drawn steps get
    the rest.

    Args:
        model: the language model (with the adapter that speaks in steps).
        first: proposals at the root. each: proposals per open beam, or, with `by_votes`, per vote of an open beam: then nothing is pruned
            but by the strategy, and the solutions are plain samples.
        temperature: of the draws; 0 = always the likeliest step.
        longest: tokens of a step.
        stop_here: whether to propose, beside the drawn steps, to stop with the last result as the answer.
        calculate: whether marked equations are filled in by the exact calculator.
        preamble: worked examples in front of the question, for models without an adapter.

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
        longest: int = 80,
        stop_here: bool = True,
        calculate: bool = True,
        preamble: str = "",
    ) -> None:
        for name, value in (("first", first), ("each", each), ("longest", longest)):
            if value < 1:
                raise ValueError(f"{name} is {value}; allowed: >= 1")
        if not 0 <= temperature <= 5:
            raise ValueError(f"temperature is {temperature}; allowed: 0..5")
        self.model, self.first, self.each, self.by_votes = model, first, each, by_votes
        self.temperature, self.longest, self.stop_here = temperature, longest, stop_here
        self.calculate, self.preamble = calculate, preamble
        self.spent = 0
        self.question = ""
        self._open: dict[str, tuple[Branches, int]] = {}
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
                context.check_time()
                self.question, self.spent = context.question, 0
                self._open = {"": (self.model.read([self.model.encode(self.preamble + prompt(context.question))]), 0)}
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
                [p.reproduced for p in proposals],
            )

    def _extend(self, context: Problem, going: list[_Proposal], root: bool, rng: torch.Generator, found: dict[str, _Proposal]) -> None:
        """Add what can follow these beams to `found`."""
        branches, rows = self._branches([beam.text for beam in going])
        left = [beam.votes for beam in going]  # what the drawn steps share
        settled = set()
        if self.stop_here:
            for number, beam in enumerate(going):
                if (proposal := self._stopped(beam, branches, rows[number])) is not None:
                    _add(found, proposal)
                    left[number] -= proposal.votes
                    settled.add(number)
        parents = []
        for number, beam in enumerate(going):
            if int(branches.lengths[rows[number]]) + self.longest >= self.model.context:
                continue  # no room for another step
            times = self.first if root else self.each * (max(1, round(beam.votes)) if self.by_votes else 1)
            parents += [number] * times
        if not parents:
            return
        most = max(1, min(self.longest, (context.max_tokens - self.spent) // len(parents)))
        grown = self.model.write(
            branches,
            [rows[number] for number in parents],
            [self.temperature] * len(parents),
            most,
            rng,
            context.deadline,
            calculator if self.calculate else None,
            context.stop,
        )
        drawn: list[tuple[int, int, _Proposal]] = []
        lines = [self.model.decode(tokens) for tokens in grown.tokens]
        same = Counter((number, outcome(line.strip())) for number, line in zip(parents, lines, strict=True))
        times_drawn = Counter(parents)
        for row, number in enumerate(parents):
            beam, tokens, ended, line = going[number], grown.tokens[row], grown.ended[row], lines[row]
            self.spent += len(tokens)
            complete = line.startswith(ANSWER.strip()) and ended in ("line", "end")
            if complete and number in settled:
                continue  # it is there already
            line = line.strip() if complete else line.rstrip("\n") + "\n"
            text = beam.text + line
            if ended in ("limit", "deadline") or not line.strip() or len(text.encode(errors="replace")) > LONGEST_TEXT - 64:
                continue
            likelihood = beam.likelihood + sum(grown.log_likelihoods[row])
            share, steps = beam.reproduced
            if (comes_to := outcome(line.strip())) is not None:
                share, steps = share + same[number, comes_to] / times_drawn[number], steps + 1
            drawn.append((row, number, _Proposal(text, complete, 1.0, likelihood, beam.tokens + len(tokens), (share, steps))))
        counts = Counter(number for _, number, _ in drawn)
        still_open: dict[str, tuple[Branches, int]] = {}
        for row, number, proposal in drawn:
            _add(found, replace(proposal, votes=left[number] / (times_drawn[number] if self.by_votes else counts[number])))
            if not proposal.complete:
                still_open.setdefault(proposal.text, (grown.branches, row))
        self._open = still_open

    def _stopped(self, beam: _Proposal, branches: Branches, row: int) -> _Proposal | None:
        """The beam with its last result as the answer; None if it has no result."""
        if not (results := results_of(beam.text)):
            return None
        logits = branches.logits[row]
        likelihood = float(torch.log_softmax(logits, dim=-1)[self._mark])
        share = float(torch.softmax(logits / max(self.temperature, 1e-3), dim=-1)[self._mark])
        text = f"{beam.text}{ANSWER}{written_number(results[-1])}"
        reproduced, steps = beam.reproduced
        return _Proposal(text, True, beam.votes * share, beam.likelihood + likelihood, beam.tokens + 1, (reproduced + share, steps + 1))

    def _branches(self, texts: list[str]) -> tuple[Branches, list[int]]:
        """What the model has read of these beams; those of which it does not remember are read again."""
        unread = [text for text in texts if text not in self._open]
        if unread:
            head = self.preamble + prompt(self.question)
            again = self.model.read([self.model.encode(head) + self.model.encode(text) for text in unread])
            self._open |= {text: (again, row) for row, text in enumerate(unread)}
        return gathered([self._open[text] for text in texts])


def _beams(state: BeamState) -> list[_Proposal]:
    """The beams of a state, as they were proposed."""
    votes, complete = state.beams.extras["votes"].tolist(), state.complete.tolist()
    numbers, shares = state.beams.parameters.tolist(), state.beams.extras["reproduced"].tolist()
    return [
        _Proposal(text_of(sequence), done, count, likelihood, int(tokens), (share, int(steps)))
        for sequence, done, count, (likelihood, tokens), (share, steps) in zip(
            state.beams.extras["sequence"], complete, votes, numbers, shares, strict=True
        )
    ]


def _add(found: dict[str, _Proposal], new: _Proposal) -> None:
    """Put a proposal into the collection; one with the same text gains its votes."""
    old = found.get(new.text)
    found[new.text] = new if old is None else replace(old, votes=old.votes + new.votes)
