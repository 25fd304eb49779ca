"""Questions about clips answered by consensus: a language model proposes answers, the ensemble judges them, the best are varied."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pcm_ros.consensus import Batch, Beam, Consensus, Ensemble, QuorumError, Scorer, ScoreTable, Stop
from pcm_ros.consensus.energies import aggregated
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.sight.frames import Clip
from pcm_ros.sight.naming import Namer
from pcm_ros.sight.things import Sight, look, nothing
from pcm_ros.tasks.video_qa.context_gradient import ContextWriter, Written
from pcm_ros.tasks.video_qa.generator import WORDS, AnswerGenerator
from pcm_ros.tasks.video_qa.proposals import Inquiry, OutOfTime, answers_batch, texts_of
from pcm_ros.tasks.video_qa.reading import checked_question, normalised, read_question
from pcm_ros.tasks.video_qa.scorers import FrameScorer
from pcm_ros.turns import acquired

KEPT_CLIPS = 4
ROUNDS = 2
ONE_WORD = ("yes_no", "count", "colour")
"""Questions whose answers are single words: one round says them all."""
WIDTH = 3
SHOWN_FRAMES = 3
RUNNERS_UP = 5
NAMES = 2
"""That each thing may have: the second one is right at times when the first is not."""


@dataclass(frozen=True)
class Candidate:
    """An answer that was proposed: its text, the ensemble's total, and scorer -> raw energy (lower is better)."""

    text: str
    total: float
    energies: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """What the ensemble agreed on.

    Attributes:
        question: as it was asked. text: the answer; "" = none (deadline: no round was judged in time). total: its energy; +inf = none.
        energies: scorer -> raw energy of the answer.
        frames: numbers of the frames that carried it, in the order of time: those in which the frame-wise models are surest of it.
        times: seconds of all frames that were looked at. frame_energies: scorer -> energy of the answer in each frame; NaN: none.
        runners_up: the next best answers. agreement: 0..1. dropped: scorer -> why it was left out.
        things: what the ensemble calls the things that it sees. complete: whether the search ended by itself. reason: else "deadline" or
            "cancelled". rounds: of proposals, or steps of gradients. seconds: wall clock.
    """

    question: str
    text: str
    total: float
    energies: Mapping[str, float]
    frames: tuple[int, ...]
    times: tuple[float, ...]
    frame_energies: Mapping[str, tuple[float, ...]]
    runners_up: tuple[Candidate, ...]
    agreement: float
    dropped: Mapping[str, str] = field(default_factory=dict)
    things: tuple[str, ...] = ()
    complete: bool = True
    reason: str = ""
    rounds: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """What was done last: "looked" (things found), "round" (its number, the best answers so far) or "step" (of gradients, after a word; the
    answer so far), and the seconds so far."""

    stage: str
    text: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Judged:
    """All answers that were proposed for a question, who proposed each (`generator.WORDS`, `PHRASES`), and how they were judged."""

    answers: tuple[str, ...]
    categories: tuple[int, ...]
    table: ScoreTable


@dataclass(eq=False)
class _Proposed:
    """The batches of all rounds that were judged in time, their scores, and what was left out while they were made."""

    batches: list[Batch] = field(default_factory=list)
    tables: list[ScoreTable] = field(default_factory=list)
    rounds: int = 0
    dropped: dict[str, str] = field(default_factory=dict)


class _Cancelled(OutOfTime):
    """`stop` said so while others had their turn."""


@contextlib.contextmanager
def _turn(lock: threading.Lock, until: float | None, stop: Callable[[], bool]) -> Iterator[None]:
    """Hold a lock.

    Raises:
        OutOfTime: `until` (time.monotonic(); None = never) came before the turn. _Cancelled: `stop` said so.
    """

    def given_up() -> bool:
        if stop():
            raise _Cancelled("cancelled while others had their turn")
        return until is not None and time.monotonic() >= until

    if not acquired(lock, given_up):
        raise OutOfTime("the deadline came while others had their turn")
    try:
        yield
    finally:
        lock.release()


class Answerer:
    """Generator, ensemble and beam, put together. Several threads may ask, and several questions may be under way: they take turns at the
    language model and the scorers, a round (or a word written by gradients) each, and nothing is held while nobody asks for the next.

    Args:
        generator: proposes. scorers: judge. weights: name -> weight, default 1. segmenter: finds things.
        namer: what things are called. vocabulary: names to choose from.
        told: whether phrases for what is seen are proposed beside the language model's own words.
        writer: writes one answer by gradients instead (`ContextWriter`); None = the ensemble chooses among proposals.
    """

    def __init__(
        self,
        generator: AnswerGenerator,
        scorers: Sequence[Scorer],
        segmenter: TextSegmenter,
        namer: Namer,
        vocabulary: Sequence[str],
        weights: Mapping[str, float] | None = None,
        told: bool = True,
        writer: ContextWriter | None = None,
    ) -> None:
        self.writer = writer
        self.generator, self.segmenter, self.namer = generator, segmenter, namer
        self.vocabulary, self.told = tuple(vocabulary), told
        self.ensemble = Ensemble(scorers, weights, normalise="none", quorum=1)
        self._several = Consensus(generator, self.ensemble, Beam(WIDTH), Stop(ROUNDS, agreement=None, patience=1))
        self._one = Consensus(generator, self.ensemble, Beam(WIDTH), Stop(1))
        self._sights: OrderedDict[str, tuple[Sight, tuple[tuple[str, ...], ...]]] = OrderedDict()
        self._looking, self._asking = threading.Lock(), threading.Lock()

    def answer(self, clip: Clip, question: str, seed: int = 0, deadline: float | None = None) -> Answer:
        """See `iterate`; the end of it."""
        for result in self.iterate(clip, question, seed, deadline):
            if isinstance(result, Answer):
                return result
        raise AssertionError("iterate ends with an Answer")

    def iterate(
        self,
        clip: Clip,
        question: str,
        seed: int = 0,
        deadline: float | None = None,
        stop: Callable[[], bool] = lambda: False,
        observe: Callable[[Judged], None] | None = None,
    ) -> Iterator[Progress | Answer]:
        """Progress, then the answer. Whoever stops asking has cancelled.

        Args:
            seed: of the engine. Nothing is drawn at present: the same clip and question get the same answer.
            deadline: seconds from now after which the best so far is returned, marked; None = none. Work under way is not torn apart: one
                look at all frames, one round of words, may come after it.
            stop: asked between the steps; once it says true, the best so far is returned, marked.
            observe: gets all that was judged, for measurements.

        Raises:
            UnusableQuestion: see `checked_question`.
            ValueError: a deadline out of its range.
            QuorumError: no scorer answered.
        """
        text = checked_question(question)
        if deadline is not None and not deadline > 0:
            raise ValueError(f"deadline is {deadline}; allowed: seconds > 0, or None")
        started = time.monotonic()
        until = None if deadline is None else started + deadline
        sight, called = self.seen(clip, until, stop)
        names = tuple(one[0] for one in called)
        reading = read_question(text)
        told = tuple(name for rank in range(NAMES) for one in called for name in one[rank : rank + 1])
        inquiry = Inquiry(text, reading, sight, told if self.told else (), until)
        yield Progress("looked", f"{len(names)} things: {', '.join(names)}", time.monotonic() - started)
        proposed = _Proposed()
        reason = "cancelled" if stop() else ""
        try:
            if reason:
                pass
            elif self.writer is None:
                reason = yield from self._weigh(inquiry, seed, stop, proposed, started)
            else:
                reason = yield from self._write(self.writer, inquiry, seed, stop, proposed, started)
        except _Cancelled:
            reason = "cancelled"
        except (OutOfTime, QuorumError):
            if not inquiry.late:
                raise
            reason = "deadline"
        yield self._chosen(question, inquiry, names, proposed, reason, started, observe)

    def _weigh(
        self, inquiry: Inquiry, seed: int, stop: Callable[[], bool], proposed: _Proposed, started: float
    ) -> Generator[Progress, None, str]:
        """Propose answers and judge them, in one round or several; returns why it ended early."""
        consensus = self._one if inquiry.reading.asks in ONE_WORD else self._several
        rounds = consensus.iterate(inquiry, seed)
        while True:
            with _turn(self._asking, inquiry.deadline, stop):  # not across a yield: whoever keeps this iterator would keep the turn
                iteration = next(rounds)
            if _too_late(iteration.table):  # whoever needs no time to look would answer alone
                return "deadline"
            proposed.batches.append(iteration.batch)
            proposed.tables.append(iteration.table)
            proposed.rounds += 1
            best = [texts_of(iteration.batch)[row] for row in iteration.table.total.argsort(stable=True)[:3].tolist()]
            yield Progress("round", f"{iteration.index + 1}: {', '.join(best)}", time.monotonic() - started)
            if stop() or inquiry.late:
                return "cancelled" if stop() else "deadline"
            if iteration.stopped:
                return ""

    def _write(
        self, writer: ContextWriter, inquiry: Inquiry, seed: int, stop: Callable[[], bool], proposed: _Proposed, started: float
    ) -> Generator[Progress, None, str]:
        """Write one answer and judge it; returns why it ended early."""
        steps = writer.iterate(inquiry, seed, stop)
        while True:
            with _turn(self._asking, inquiry.deadline, stop):
                try:
                    text, done = next(steps)
                except StopIteration as end:
                    written: Written = end.value
                    break
            yield Progress("step", f"{done}: {text}", time.monotonic() - started)
        proposed.rounds, proposed.dropped = written.steps, dict(written.dropped)
        if written.text:
            batch = answers_batch([written.text], [written.likelihood], [written.tokens], [WORDS])
            proposed.batches.append(batch)
            with _turn(self._asking, inquiry.deadline, stop):
                proposed.tables.append(self.ensemble.score(batch, inquiry))
        return written.reason

    def seen(
        self, clip: Clip, until: float | None = None, stop: Callable[[], bool] = lambda: False
    ) -> tuple[Sight, tuple[tuple[str, ...], ...]]:
        """What is in a clip and what each thing may be called, likeliest first; made once and kept for the newest clips.

        Nothing where `until` (time.monotonic()) or `stop` came first.
        """
        try:
            return self._seen(clip, until, stop)
        except OutOfTime:
            return nothing(clip), ()

    def _seen(self, clip: Clip, until: float | None, stop: Callable[[], bool]) -> tuple[Sight, tuple[tuple[str, ...], ...]]:
        """See `seen`. Raises OutOfTime: others looked for too long."""
        with _turn(self._looking, until, stop):
            found = self._sights.get(clip.key)
            if found is None:
                sight = look(clip, self.segmenter, lambda: stop() or (until is not None and time.monotonic() >= until))
                if sight is None:
                    return nothing(clip), ()
                names: tuple[tuple[str, ...], ...] = ()
                if sight.things:
                    odds = self.namer.log_odds(sight, self.vocabulary).nan_to_num(nan=-30.0)
                    best = odds.topk(min(NAMES, len(self.vocabulary)), dim=1).indices
                    names = tuple(tuple(self.vocabulary[i] for i in row) for row in best.tolist())
                found = self._sights[clip.key] = (sight, names)
                while len(self._sights) > KEPT_CLIPS:
                    self._sights.popitem(last=False)
            sight, names = found
            return sight if sight.clip is clip else replace(sight, clip=clip), names  # the same frames may have other times

    def _chosen(
        self,
        question: str,
        inquiry: Inquiry,
        names: tuple[str, ...],
        proposed: _Proposed,
        reason: str,
        started: float,
        observe: Callable[[Judged], None] | None,
    ) -> Answer:
        times = tuple(inquiry.sight.clip.times.tolist())
        if not proposed.batches or not proposed.tables:
            seconds = time.monotonic() - started
            return Answer(question, "", float("inf"), {}, (), times, {}, (), 0.0, {}, names, False, reason or "deadline", 0, seconds)
        batch, table = self._side_by_side(inquiry, proposed)
        answers = tuple(texts_of(batch))
        if observe is not None:
            observe(Judged(answers, tuple(batch.category.tolist()), table))
        order = table.total.argsort(stable=True).tolist()
        candidates = [Candidate(answers[row], float(table.total[row]), table.energies_of(row)) for row in order]
        others: dict[str, Candidate] = {}
        for candidate in candidates[1:]:
            if normalised(candidate.text) != normalised(candidates[0].text):
                others.setdefault(normalised(candidate.text), candidate)
        by_frame = {s.name: tuple(s.by_frame(inquiry, candidates[0].text).tolist()) for s in self._frame_scorers(table.dropped)}
        return Answer(
            question,
            candidates[0].text,
            candidates[0].total,
            candidates[0].energies,
            _carrying(list(by_frame.values())),
            times,
            by_frame,
            tuple(others.values())[:RUNNERS_UP],
            table.agreement(order[0]),
            {**proposed.dropped, **table.dropped},
            names,
            not reason,
            reason,
            proposed.rounds,
            time.monotonic() - started,
        )

    def _side_by_side(self, inquiry: Inquiry, proposed: _Proposed) -> tuple[Batch, ScoreTable]:
        """The answers of all rounds, each once, and their scores: judged anew while there is time, else as they were in their rounds."""
        rows = _distinct(proposed.batches)
        whole = _joined(proposed.batches)
        batch = whole.select(rows)
        if len(proposed.batches) == 1 and len(rows) == len(whole):
            return batch, proposed.tables[0]
        if not inquiry.late:
            try:  # a scorer that was left out of one round is in or out for all of them
                table = self.ensemble.score(batch, inquiry)
                if not _too_late(table):
                    return batch, table
            except QuorumError:
                if not inquiry.late:
                    raise
        dropped = {name: why for table in proposed.tables for name, why in table.dropped.items()}
        energies = torch.cat([table.energies for table in proposed.tables])[rows]
        energies[:, [name in dropped for name in self.ensemble.names]] = torch.nan
        if not any(weight > 0 and name not in dropped for name, weight in zip(self.ensemble.names, self.ensemble.weights, strict=True)):
            return proposed.batches[-1], proposed.tables[-1]  # no scorer took part in all rounds
        weights = self.ensemble.weights
        total = aggregated(energies, weights, self.ensemble.aggregate, self.ensemble.trim)
        return batch, ScoreTable(self.ensemble.names, energies, weights.clone(), total, dropped, {})

    def _frame_scorers(self, dropped: Mapping[str, str]) -> list[FrameScorer]:
        return [s for s in self.ensemble.scorers if isinstance(s, FrameScorer) and s.name not in dropped]

    def close(self) -> None:
        """End the scorers' threads."""
        self.ensemble.close()
        if self.writer is not None:
            self.writer.close()


def _joined(batches: Sequence[Batch]) -> Batch:
    """All proposals in the order in which they came."""
    whole = batches[0]
    for batch in batches[1:]:
        whole = whole.joined(batch)
    return whole


def _distinct(batches: Sequence[Batch]) -> list[int]:
    """Rows of all proposals, the first of each text."""
    first: dict[str, int] = {}
    for row, text in enumerate(text for batch in batches for text in texts_of(batch)):
        first.setdefault(text, row)
    return list(first.values())


def _too_late(table: ScoreTable) -> bool:
    """Whether a scorer was left out because the deadline came before it began."""
    return any(why.startswith(OutOfTime.__name__) for why in table.dropped.values())


def _carrying(by_frame: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """The frames of least mean energy."""
    if not by_frame:
        return ()
    energies = np.array(by_frame)
    seen = np.isfinite(energies)
    if not seen.any():
        return ()
    mean = np.where(seen.any(axis=0), np.where(seen, energies, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1), np.inf)
    best = np.argsort(mean, kind="stable")[:SHOWN_FRAMES]
    return tuple(sorted(int(t) for t in best if np.isfinite(mean[t])))
