"""The experts on answers. Energies are negative logarithms of probabilities (nats), at most `CAP`; an expert that has nothing to say of a
question gives each answer 0, which changes no order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pcm_ros.consensus import Batch
from pcm_ros.sight.naming import Namer
from pcm_ros.sight.things import Region, Sight
from pcm_ros.sight.words import COLOURS, colour_and_kind
from pcm_ros.tasks.video_qa.proposals import Inquiry, texts_of
from pcm_ros.tasks.video_qa.reading import ANYTHING, Reading, bare, number_of, truth_of

Floats = npt.NDArray[np.float64]
CAP = 8.0
DIM = 1e-3
"""Probability that an expert leaves to what it holds to be impossible."""


def _energy(probability: Floats | Tensor) -> Tensor:
    """Negative logarithm, between about 0 and `CAP`."""
    value = torch.as_tensor(np.asarray(probability), dtype=torch.float64)
    return (-torch.log(value.clamp(0, 1) * (1 - DIM) + DIM / 2)).clamp_max(CAP)


def _form(reading: Reading, answers: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which answers have the form that the question asks for."""
    if reading.asks == "yes_no":
        return np.array([truth_of(answer) is not None for answer in answers])
    if reading.asks == "count":
        return np.array([number_of(answer) is not None for answer in answers])
    if reading.asks == "colour":
        return np.array([bare(answer) != "" and colour_and_kind(bare(answer))[1] == "" for answer in answers])
    said = [truth_of(answer) is None and number_of(answer) is None for answer in answers]
    if reading.asks == "kind":
        return np.array([fine and _names_kind(answer) and bare(answer) not in COLOURS for fine, answer in zip(said, answers, strict=True)])
    if reading.asks == "object":
        return np.array([fine and _names_kind(answer) for fine, answer in zip(said, answers, strict=True)])
    return np.ones(len(answers), dtype=bool)


def _names_kind(answer: str) -> bool:
    return colour_and_kind(bare(answer))[1] not in ANYTHING


def _said(reading: Reading, answers: Sequence[str], yes: float) -> Floats:
    """(N,) probability of answers to a question of yes or no whose truth is likely to `yes`."""
    return np.array([0.0 if (truth := truth_of(answer)) is None else yes if truth else 1 - yes for answer in answers])


def _counted(answers: Sequence[str], each: Floats) -> Floats:
    """(N,) probability of the number that an answer says, of independent things that count with probabilities `each`."""
    distribution = np.ones(1)
    for p in each:
        distribution = np.convolve(distribution, [1 - p, p])
    numbers = [number_of(answer) for answer in answers]
    return np.array([distribution[n] if n is not None and n < len(distribution) else 0.0 for n in numbers])


def _share(log_odds: Tensor) -> Floats:
    """(M,) how the things share what a phrase means: softmax, zero where none was looked at."""
    values = torch.nan_to_num(log_odds.double(), nan=-30.0)
    return np.asarray(torch.softmax(values, dim=0)) if len(values) else np.zeros(0)


def _probability(log_odds: Tensor) -> Floats:
    return np.asarray(torch.sigmoid(torch.nan_to_num(log_odds.double(), nan=-30.0)))


def _asked(namer: Namer, context: Inquiry, answers: Sequence[str]) -> Floats:
    """(M, N) probability that thing m is what question and answer n together call it; 0 for answers of a wrong form, unasked."""
    rows = np.flatnonzero(_form(context.reading, answers)).tolist()
    found = np.zeros((len(context.sight.things), len(answers)))
    if rows:
        phrases = [context.reading.phrase(answers[row]) or answers[row] for row in rows]
        found[:, rows] = _probability(namer.log_odds(context.sight, phrases))
    return found


class FrameScorer:
    """One image-text model over the frames: does what the answer says stand there?

    Energy: -log of the probability, by the model's own calibrated log-odds (mean over the frames in which it looked at a thing), that the
    thing of which it is most sure is what question and answer together call it: "red mug" for "What colour is the mug?" and "red". Of "Is
    there a red mug?" yes and no have p and 1 - p. Range 0..8. It sees single frames: of motion, order, number and place it says nothing,
    and only that what an answer names is there. Wrong when: another thing fits the same words; the model has never seen such things.
    Source: the model and `models/weights/calibration.json`.
    """

    differentiable = False

    def __init__(self, namer: Namer, cost: float = 0.02) -> None:
        (expert,) = namer.experts
        self.name, self.cost, self._namer = expert.name, cost, namer

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(N,) float64."""
        answers, reading = texts_of(batch), context.reading
        context.check_time()
        if not context.sight.things or reading.asks in ("count", "open") or (reading.asks == "yes_no" and not self._sees(reading)):
            return torch.zeros(len(answers), dtype=torch.float64)
        if reading.asks == "yes_no":
            there = float(_probability(self._namer.log_odds(context.sight, [reading.noun])).max())
            return _energy(_said(reading, answers, there))
        return _energy(_asked(self._namer, context, answers).max(axis=0))

    def by_frame(self, context: Inquiry, answer: str) -> Floats:
        """(T,) the same energy from each frame alone; NaN where the model did not look, or has nothing to say."""
        reading = context.reading
        if not context.sight.things or reading.asks in ("count", "open") or (reading.asks == "yes_no" and not self._sees(reading)):
            return np.full(len(context.sight.clip.frames), np.nan)
        phrase = reading.noun if reading.asks == "yes_no" else reading.phrase(answer)
        found = self._namer.log_odds(context.sight, [phrase or answer], by_frame=True)[..., 0].double()
        looked = ~torch.isnan(found).all(dim=1)
        best = torch.nan_to_num(found, nan=-30.0).amax(dim=1)
        probability = torch.sigmoid(best)
        if reading.asks == "yes_no" and truth_of(answer) is False:
            probability = 1 - probability
        return np.where(looked.numpy(), _energy(probability).numpy(), np.nan)

    @staticmethod
    def _sees(reading: Reading) -> bool:
        return reading.known and bool(reading.noun) and not reading.motion and not reading.side


class _Situated:
    """An expert that weighs the things of a clip by what they do or where they are, and asks all image-text models together for names."""

    differentiable = False
    cost = 0.01

    def __init__(self, namer: Namer) -> None:
        self._namer = namer

    def _named(self, sight: Sight, phrase: str) -> Floats:
        """(M,) how the things share a phrase; evenly for ""."""
        count = len(sight.things)
        return _share(self._namer.log_odds(sight, [phrase])[:, 0]) if phrase else np.full(count, 1 / max(count, 1))

    def _match(self, context: Inquiry, answers: Sequence[str], weight: Floats) -> Tensor:
        """Energies of answers that name the thing, or its colour or kind, of which (M,) `weight` says how likely it is the one."""
        reading = context.reading
        if reading.noun and reading.asks in ("object", "kind"):
            weight = weight * _probability(self._namer.log_odds(context.sight, [reading.noun])[:, 0])
        weight = weight / max(float(weight.sum()), 1e-9)
        found = _asked(self._namer, context, answers)
        if reading.asks == "colour" and reading.noun:
            weight = weight * _probability(self._namer.log_odds(context.sight, [reading.noun])[:, 0])
            weight = weight / max(float(weight.sum()), 1e-9)
        return _energy(weight @ found)


class MotionScorer(_Situated):
    """What moves, and in which order, from the ways of the things over the frames.

    Energy: -log of the probability that what the answer names is what moves (first, last, not at all), where a thing's motion is a logistic
    function of how far its middle gets (`things.motion_of`), its first motion is in the order of the onsets, and its name is what all
    image-text models together call it. Numbers of moving things: as if each moved independently. Of what is seen in one frame only it is
    as likely as not that it moves. Range 0..8; 0 for questions without motion, and where nothing is seen twice.
    Wrong when: the camera moves, things are lost when they are hidden, two begin between two frames. Source: this module.
    """

    name = "motion"

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(N,) float64."""
        answers, reading, sight = texts_of(batch), context.reading, context.sight
        context.check_time()
        if not reading.motion or np.isnan(sight.moves).all():  # of single pictures nothing can be known
            return torch.zeros(len(answers), dtype=torch.float64)
        weight = self.weight(sight, reading)
        if reading.asks == "yes_no":
            share = self._named(sight, reading.noun)
            yes = float(share @ weight) if reading.noun else float(1 - np.prod(1 - weight))
            return _energy(_said(reading, answers, yes))
        if reading.asks == "count":
            count = len(sight.things)
            named = _probability(self._namer.log_odds(sight, [reading.noun])[:, 0]) if reading.noun else np.ones(count)
            return _energy(_counted(answers, weight * named))
        return self._match(context, answers, weight)

    @staticmethod
    def weight(sight: Sight, reading: Reading) -> Floats:
        """(M,) how far each thing does what is asked, 0..1."""
        unknown = np.isnan(sight.moves)
        moves = np.where(unknown, 0.5, sight.moves)
        if reading.motion == "still":
            return 1 - moves
        if reading.motion == "moves":
            return moves
        sign = 1 if reading.motion == "first" else -1
        order = np.argsort(np.where(unknown, np.inf, sign * sight.onset), kind="stable")  # when the unknown ones move nobody knows
        weight, left = np.zeros(len(moves)), 1.0
        for m in order.tolist():  # the first of them that moves at all
            weight[m], left = left * moves[m], left * (1 - moves[m])
        return weight


class RelationScorer(_Situated):
    """What stands where, from the places of the things in the picture at the end (or the start).

    Energy: -log of the probability that what the answer names stands as asked: to the left or right of, on or in what the question names,
    or farthest to a side. Sides are logistic in the distance across the picture; on and in: the lower edge of one lies over the other,
    within its width, and their regions touch. Range 0..8; 0 for questions without places. Wrong when: what is in a deep vessel cannot be
    seen; things far behind others look as if they stood on them. Source: this module.
    """

    name = "relations"

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(N,) float64."""
        answers, reading, sight = texts_of(batch), context.reading, context.sight
        context.check_time()
        if not reading.side or not sight.things:
            return torch.zeros(len(answers), dtype=torch.float64)
        holds = self.holds(sight, reading)
        if reading.side in ("leftmost", "rightmost"):
            weight = holds[:, 0]
        else:
            anchor = self._named(sight, reading.anchor)
            if reading.asks == "yes_no":
                subject = self._named(sight, reading.noun)
                if not reading.noun:  # anything
                    return _energy(_said(reading, answers, float(1 - np.prod(1 - np.clip(holds @ anchor, 0, 1)))))
                joint = subject[:, None] * anchor[None] * (1 - np.eye(len(anchor)))
                return _energy(_said(reading, answers, float((joint * holds).sum() / max(joint.sum(), 1e-9))))
            weight = holds @ anchor
        if reading.asks == "count":
            named = _probability(self._namer.log_odds(sight, [reading.noun])[:, 0]) if reading.noun else np.ones(len(weight))
            return _energy(_counted(answers, weight * named))
        return self._match(context, answers, weight)

    @staticmethod
    def holds(sight: Sight, reading: Reading) -> Floats:
        """(M, M) probability that thing i stands as asked of thing j; the same in each column for "leftmost" and "rightmost"."""
        places = [thing.regions[max(thing.regions) if reading.at_end else min(thing.regions)] for thing in sight.things]
        across = np.array([place.middle[0] for place in places])
        count = len(places)
        if reading.side in ("leftmost", "rightmost"):
            value = across if reading.side == "rightmost" else -across
            share = np.exp((value - value.max()) / 0.02)
            return np.repeat((share / share.sum())[:, None], count, axis=1)
        if reading.side in ("left", "right"):
            apart = (across[None] - across[:, None]) * (1 if reading.side == "left" else -1)
            return np.asarray((1 - np.eye(count)) / (1 + np.exp(-apart / 0.02)))
        return np.array([[0.0 if i == j else _rests(a, b) for j, b in enumerate(places)] for i, a in enumerate(places)])


def _rests(upper: Region, lower: Region) -> float:
    """How likely one thing rests on or in another, from their boxes and whether their regions touch."""
    left, _, right, bottom = upper.box
    inside = min(right, lower.box[2]) - max(left, lower.box[0])
    over = inside / max(right - left, 1e-6)
    high = float(lower.middle[1] - upper.middle[1]) > -0.02
    reaches = lower.box[1] - 0.03 <= bottom <= lower.box[3] + 0.01
    grown = np.zeros_like(lower.cells)
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            grown |= np.roll(lower.cells, step, axis=axis)
    touch = bool((grown & upper.cells).any())
    return 0.95 if over > 0.8 and high and reaches and touch else 0.3 if over > 0.5 and reaches and touch else 0.02


class CountScorer(_Situated):
    """How many there are, and whether there is one, from the segmenter's regions.

    Energy: -log of the probability of the answer's number, each thing being what is asked for independently, with the probability of all
    image-text models together; things of any name, with 0.97 what is seen in two frames, or in all if there are fewer, and 0.5 what is not.
    "Is there a ...?": the probability that at least one is. Range 0..8; 0 for other questions.
    Wrong when: touching things are one region, or one thing is two. Source: this module.
    """

    name = "counts"

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(N,) float64."""
        answers, reading, sight = texts_of(batch), context.reading, context.sight
        context.check_time()
        if reading.motion or reading.side or reading.asks not in ("count", "yes_no") or not reading.known:
            return torch.zeros(len(answers), dtype=torch.float64)
        if not sight.things:
            return _energy(_counted(answers, np.zeros(0)) if reading.asks == "count" else _said(reading, answers, 0.1))
        each = (
            _probability(self._namer.log_odds(sight, [reading.noun])[:, 0])
            if reading.noun
            else np.array([0.97 if len(thing.regions) >= min(2, len(sight.clip.frames)) else 0.5 for thing in sight.things])
        )
        if reading.asks == "count":
            return _energy(_counted(answers, each))
        return _energy(_said(reading, answers, float(1 - np.prod(1 - each)) if reading.noun else 1.0))


class LanguageScorer:
    """How natural the answer is as a continuation of the question.

    Energy: -log p(answer and its end | question) under the generator, nats, by which a longer answer is less likely. Range 0..60.
    Wrong when: the likely is not the true; it has not seen the clip. Source: the language model.
    """

    name, cost, differentiable = "language", 1e-5, False

    def energy(self, batch: Batch, context: Inquiry) -> Tensor:
        """(N,) float64."""
        return -batch.parameters[:, 0]
