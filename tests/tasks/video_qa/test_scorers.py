"""Experts on made-up sights: what stands where and moves how is known, and so are the names that an expert gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pcm_ros.consensus import Batch, Scorer
from pcm_ros.models.registry import Calibration
from pcm_ros.sight.frames import Clip
from pcm_ros.sight.naming import Namer, colour_and_kind
from pcm_ros.sight.things import Region, Sight, Thing, followed, motion_of, nothing
from pcm_ros.tasks.video_qa.proposals import Inquiry, OutOfTime, answers_batch, sequence_of, shortened, text_of, texts_of
from pcm_ros.tasks.video_qa.reading import read_question
from pcm_ros.tasks.video_qa.scorers import CAP, CountScorer, FrameScorer, LanguageScorer, MotionScorer, RelationScorer

FRAMES = 6
NAMES = ("red mug", "blue bowl", "green block")


class Knows:
    """An expert that is sure of what the things are called. What it has not heard of it denies."""

    name = "knows"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def logits(self, sight: Sight, texts: Sequence[str], kinds: bool) -> Tensor:
        result = torch.full((len(sight.clip.frames), len(sight.things), len(texts)), torch.nan)
        for m, thing in enumerate(sight.things):
            for t in thing.regions:
                for k, text in enumerate(texts):
                    colour, kind = colour_and_kind(text)
                    fits = (not colour or self.names[m].startswith(colour)) and (not kind or self.names[m].endswith(kind))
                    result[t, m, k] = 5.0 if fits else -5.0
        return result


def region(x: float, y: float, half: float = 0.05, look: int = 0) -> Region:
    cells = np.zeros((60, 80), dtype=bool)
    cells[int((y - half) * 60) : int((y + half) * 60), int((x - half) * 80) : int((x + half) * 80)] = True
    embedding = np.eye(3)[look]
    return Region(cells, np.array([x, y]), np.array([x - half, y - half, x + half, y + half]), embedding)


def sight() -> Sight:
    """The mug goes right from frame 1 on, the block up from frame 3 on, until it stands on the bowl."""
    clip = Clip(np.zeros((FRAMES, 48, 64, 3), dtype=np.uint8), np.arange(FRAMES) / 2, 3.0, "made up")
    things = (
        Thing({t: region(0.2 + 0.05 * t, 0.7, look=0) for t in range(FRAMES)}),
        Thing({t: region(0.75, 0.5, 0.08, look=1) for t in range(FRAMES)}),
        Thing({t: region(0.75, 0.8 if t < 3 else 0.42 + 0.02 * (5 - t), 0.04, look=2) for t in range(FRAMES)}),
    )
    middles = np.stack([np.stack([thing.regions[t].middle for thing in things]) for t in range(FRAMES)])
    moves, onset = motion_of(middles)
    return Sight(clip, (), things, middles, moves, onset)


NAMER = Namer([Knows(NAMES)], Calibration({"knows": 1.0}, {"knows": 1.0}))
SCORERS: dict[str, Scorer] = {
    "knows": FrameScorer(NAMER),
    "motion": MotionScorer(NAMER),
    "relations": RelationScorer(NAMER),
    "counts": CountScorer(NAMER),
    "language": LanguageScorer(),
}


def batch(answers: Sequence[str]) -> Batch:
    return answers_batch(answers, [-2.0 - n for n in range(len(answers))], [3] * len(answers), [0] * len(answers))


def energies(scorer: str, question: str, answers: Sequence[str], seen: Sight | None = None) -> dict[str, float]:
    inquiry = Inquiry(question, read_question(question), seen or sight())
    return dict(zip(answers, SCORERS[scorer].energy(batch(answers), inquiry).tolist(), strict=True))


@pytest.mark.parametrize(
    ("scorer", "question", "answers", "right"),
    [
        ("knows", "What colour is the mug?", ("blue", "red", "green", "yes", "mug"), "red"),
        ("knows", "What kind of object is the blue object?", ("mug", "bowl", "two", "blue"), "bowl"),
        ("knows", "Is there a red mug?", ("no", "yes", "red"), "yes"),
        ("knows", "Is there a red bowl?", ("yes", "no", "bowl"), "no"),
        ("motion", "Which object moves first?", ("blue bowl", "green block", "red mug", "red"), "red mug"),
        ("motion", "Which object moves last?", ("blue bowl", "green block", "red mug"), "green block"),
        ("motion", "Which object does not move?", ("red mug", "blue bowl", "green block"), "blue bowl"),
        ("motion", "How many objects move?", ("one", "two", "3", "red"), "two"),
        ("motion", "Does the blue bowl move?", ("yes", "no"), "no"),
        ("motion", "Does the green block move?", ("no", "yes"), "yes"),
        ("relations", "Is the red mug to the left of the blue bowl at the end?", ("no", "yes"), "yes"),
        ("relations", "Is the red mug to the right of the blue bowl at the end?", ("yes", "no"), "no"),
        ("relations", "Which object is farthest to the left at the end?", ("blue bowl", "red mug"), "red mug"),
        ("relations", "What is on the blue bowl at the end?", ("red mug", "green block", "blue bowl"), "green block"),
        ("counts", "How many objects are there?", ("two", "three", "four"), "three"),
        ("counts", "How many mugs are there?", ("zero", "one", "two"), "one"),
        ("counts", "Is there a blue mug?", ("yes", "no"), "no"),
    ],
)
def test_the_right_answer_has_the_least_energy(scorer: str, question: str, answers: tuple[str, ...], right: str) -> None:
    found = energies(scorer, question, answers)
    assert min(found, key=lambda answer: found[answer]) == right
    assert all(0 <= energy <= CAP for energy in found.values())
    assert sorted(found.values())[1] > found[right] + 0.5


@pytest.mark.parametrize(
    ("scorer", "question"),
    [
        ("knows", "How many mugs are there?"),
        ("knows", "Does the red mug move?"),
        ("motion", "What colour is the mug?"),
        ("relations", "Which object moves first?"),
        ("counts", "Which object moves first?"),
        ("knows", "Why is it there?"),
    ],
)
def test_an_expert_that_has_nothing_to_say_changes_no_order(scorer: str, question: str) -> None:
    assert set(energies(scorer, question, ("yes", "red mug", "two")).values()) == {0.0}


@pytest.mark.parametrize("scorer", sorted(SCORERS))
@pytest.mark.parametrize("question", ["Which object moves?", "How many mugs are there?", "What is on the bowl?", "Is there a mug?", "Who?"])
def test_every_expert_keeps_the_contract_also_where_nothing_is_seen(scorer: str, question: str) -> None:
    answers = ("yes", "red mug", "two", "ünknown wörds", "a")
    for seen in (sight(), nothing(sight().clip)):
        given = batch(answers)
        before = given.extras["sequence"].clone()
        found = SCORERS[scorer].energy(given, Inquiry(question, read_question(question), seen))
        assert found.shape == (5,) and torch.isfinite(found).all()
        assert torch.equal(found, SCORERS[scorer].energy(given, Inquiry(question, read_question(question), seen)))
        one = SCORERS[scorer].energy(given.select([2]), Inquiry(question, read_question(question), seen))
        assert float(one) == pytest.approx(float(found[2]))
        assert torch.equal(before, given.extras["sequence"])


def test_the_language_scorer_says_what_the_model_said() -> None:
    assert energies("language", "Why?", ("a", "b")) == {"a": 2.0, "b": 3.0}


def test_frames_that_do_not_show_a_thing_do_not_carry_the_answer() -> None:
    whole = sight()
    things = (Thing({t: whole.things[0].regions[t] for t in (2, 3)}), *whole.things[1:])
    seen = Sight(whole.clip, (), (things[0],), whole.middles[:, :1], whole.moves[:1], whole.onset[:1])
    scorer = FrameScorer(NAMER)
    question = "What colour is the mug?"
    found = scorer.by_frame(Inquiry(question, read_question(question), seen), "red")
    assert np.isfinite(found).tolist() == [False, False, True, True, False, False]
    assert np.nanmax(found) < 0.1


def test_a_deadline_ends_experts() -> None:
    late = Inquiry("Which object moves?", read_question("Which object moves?"), sight(), deadline=0.0)
    for name in ("knows", "motion", "relations", "counts"):
        with pytest.raises(OutOfTime):
            SCORERS[name].energy(batch(["red mug"]), late)


def test_things_are_followed_where_they_go_and_when_they_come_back() -> None:
    frames = [[region(0.2 + 0.05 * t, 0.5, look=0), region(0.7, 0.5, look=1)] for t in range(6)]
    frames[3] = [frames[3][1]]
    things = followed(frames)
    assert len(things) == 2
    by_look = {int(thing.last.embedding.argmax()): sorted(thing.regions) for thing in things}
    assert by_look == {0: [0, 1, 2, 4, 5], 1: [0, 1, 2, 3, 4, 5]}
    assert followed([[], []]) == []


def test_motion_of_what_moves_and_what_trembles() -> None:
    rng = np.random.default_rng(2)
    middles = np.full((10, 3, 2), 0.5) + rng.normal(0, 0.001, (10, 3, 2))
    middles[4:, 1, 0] += np.linspace(0.02, 0.15, 6)
    middles[:, 2] = np.nan
    moves, onset = motion_of(middles)
    middles[7, 2] = 0.5
    moves, onset = motion_of(middles)
    assert moves[0] < 0.1 and moves[1] > 0.9 and np.isnan(moves[2]), "of what is seen once nobody knows whether it moves"
    assert 4 <= onset[1] <= 6 and onset[2] == 10


def shown(*seen_in: Sequence[int], frames: int = 1) -> Sight:
    """A clip of so many frames, and for each thing the frames that show it; things stand still."""
    clip = Clip(np.zeros((frames, 48, 64, 3), dtype=np.uint8), np.arange(frames) / 2, frames / 2, "made up")
    things = tuple(Thing({t: region(0.2 + 0.2 * m, 0.5, look=m) for t in times}) for m, times in enumerate(seen_in))
    middles = np.full((frames, len(things), 2), np.nan)
    for m, thing in enumerate(things):
        for t, place in thing.regions.items():
            middles[t, m] = place.middle
    return Sight(clip, (), things, middles, *motion_of(middles))


def test_each_thing_of_a_single_picture_counts() -> None:
    question, answers = "How many objects are there?", ("one", "two", "three", "four")
    found = energies("counts", question, answers, shown((0,), (0,), (0,)))
    assert min(found, key=lambda answer: found[answer]) == "three" and found["three"] < 0.3
    twice = energies("counts", question, answers, shown((0, 1), (0, 1), (1,), frames=2))  # what comes and goes counts half
    assert twice["two"] == pytest.approx(twice["three"], abs=0.1)


@pytest.mark.parametrize(
    "question", ["Does the red mug move?", "How many objects move?", "Which object does not move?", "Does anything move?"]
)
def test_of_a_single_picture_the_expert_on_motion_says_nothing(question: str) -> None:
    found = energies("motion", question, ("yes", "no", "zero", "red mug", "blue bowl"), shown((0,), (0,), (0,)))
    assert set(found.values()) == {0.0}


def test_what_is_seen_once_may_move_or_not() -> None:
    seen = shown((0, 1, 2), (0, 1, 2), (1,), frames=3)
    yes_no = energies("motion", "Does the green block move?", ("yes", "no"), seen)
    assert yes_no["yes"] == pytest.approx(yes_no["no"], abs=0.1)
    assert energies("motion", "Does the red mug move?", ("no", "yes"), seen)["yes"] > 2.0
    for order in ("first", "last"):
        weight = MotionScorer.weight(seen, read_question(f"Which object moves {order}?"))
        assert np.isfinite(weight).all() and weight.sum() <= 1 and weight[2] == pytest.approx(0.5, abs=0.05)


def test_what_is_seen_once_does_not_move_before_what_is_seen_to() -> None:
    whole = sight()
    moves = whole.moves.copy()
    moves[1] = np.nan
    for order, right in (("first", 0), ("last", 2)):
        weight = MotionScorer.weight(replace(whole, moves=moves), read_question(f"Which object moves {order}?"))
        assert int(weight.argmax()) == right and weight[right] > 0.9


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("red mug", "red mug"),
        ("x" * 97, "x" * 96),
        (f"{'red ' * 24}mug", ("red " * 24).strip()),  # a space is the 96th byte
        (f"{'a' * 90} {'b' * 5} mug", f"{'a' * 90} {'b' * 5}"),  # a word ends at the 96th
        (f"{'a' * 90} {'b' * 6} mug", "a" * 90),
        ("ü" * 60, "ü" * 48),
        (f"a{'ü' * 60}", f"a{'ü' * 47}"),
    ],
)
def test_answers_that_are_too_long_are_cut_between_words(text: str, short: str) -> None:
    assert shortened(text) == short
    assert text_of(sequence_of(shortened(text))) == short


def test_answers_survive_the_batch() -> None:
    answers = ["red mug", "größer", "x" * 96]
    assert texts_of(batch(answers)) == answers
    for wrong in ("", "x" * 97):
        with pytest.raises(ValueError, match=r"allowed: 1\.\.96"):
            batch([wrong])
