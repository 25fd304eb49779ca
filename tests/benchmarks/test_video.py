"""What the bench of questions about clips makes of what went wrong, and what its intervals take for independent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pcm_ros.benchmarks import video
from pcm_ros.benchmarks.video import QUESTIONS, Item, bench, read_questions, run_one, summarise

QUESTION = {"video": "gone", "question": "What colour is the mug?", "answer": "red", "type": "colour"}


class Blind:
    """A worker that is prepared and never asked: no clip can be read."""

    frames, policy, most = 4, "uniform", None

    @property
    def answerer(self) -> None:
        raise AssertionError("there is nothing to ask about")


def answer(right: bool, blind: bool = False, kind: str = "colour", **more: Any) -> dict[str, Any]:
    """A question that the ensemble answered, and the language model alone, rightly or not."""
    found = {
        name: dict.fromkeys(("normalised", "exact", "similar"), good) for name, good in (("ensemble", right), ("language_model", blind))
    }
    return {
        "kind": kind,
        "truth": "red",
        "answer_seconds": 1.0,
        "matches": found,
        "proposed": True,
        "proposed_in_words": True,
        **more,
    }


def test_questions_about_a_clip_that_cannot_be_read_are_wrong(tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([QUESTION, {**QUESTION, "answer": "blue"}]))
    (tmp_path / "gone.mp4").write_bytes(b"no video")
    (item,) = read_questions(questions, tmp_path, None).values()
    record = run_one(item, Blind())  # type: ignore[arg-type]
    assert [one["failure"].split(":")[0] for one in record["answers"]] == ["UnusableClip"] * 2
    results = summarise([{"id": "gone", **record}, {"id": "there", "answers": [answer(True, True)]}])
    assert (results["ensemble"].value, results["ensemble"].n) == (pytest.approx(1 / 3), 2)
    assert results["ensemble.kind.colour"].n == 2
    assert results["failures"].value == pytest.approx(2 / 3)
    assert (results["seconds_per_answer"].value, results["seconds_per_answer"].n) == (1.0, 1)


def test_questions_about_a_clip_that_cannot_be_made_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_clip(number: int) -> None:
        raise RuntimeError(f"clip {number}: no usable scene")

    monkeypatch.setattr(video, "clip", no_clip)
    record = run_one(Item(7), Blind())  # type: ignore[arg-type]
    assert [one["failure"] for one in record["answers"]] == ["RuntimeError: clip 7: no usable scene"] * QUESTIONS
    results = summarise([{"id": "clip-7", **record}, {"id": "clip-8", "answers": [answer(True)] * QUESTIONS}])
    assert results["ensemble"].value == 0.5
    assert not [name for name in results if name.endswith(".kind.")]


def test_questions_of_a_worker_that_died_are_wrong() -> None:
    """As many as the item had; of a rendered clip, as many as such a clip is asked."""
    there = {"id": "there", "answers": [answer(True)] * 3}
    died = {"id": "died", "error": "The process that ran 'died' died, twice."}
    assert summarise([there, died], {"died": ["colour"]})["ensemble"].value == 3 / 4
    assert summarise([there, died], {"died": ["colour"]})["ensemble.kind.colour"].value == 3 / 4
    results = summarise([there, died], {"died": Item(3).planned})
    assert (results["ensemble"].value, results["ensemble"].n) == (pytest.approx(3 / 9), 2)
    assert results["failures"].value == pytest.approx(6 / 9)
    assert results["seconds_per_answer"].value == 1.0
    assert summarise([died])["failures"].value == 1.0


def records(outcomes: Sequence[Sequence[tuple[bool, bool]]]) -> list[dict[str, Any]]:
    """One record for each clip, of the outcomes of ensemble and language model."""
    return [{"id": f"clip-{number}", "answers": [answer(*one) for one in clip]} for number, clip in enumerate(outcomes)]


def test_intervals_take_clips_for_independent_and_not_their_questions() -> None:
    """Clips of which all questions are right or wrong together: six times the questions say no more, and the intervals know it."""
    one = summarise(records([[(number < 12, number < 6)] for number in range(20)]))
    six = summarise(records([[(number < 12, number < 6)] * 6 for number in range(20)]))
    for name in ("ensemble", "oracle", "ensemble.kind.colour", "ensemble.minus.language_model"):
        assert six[name].n == 20
        assert (six[name].value, six[name].low, six[name].high) == pytest.approx((one[name].value, one[name].low, one[name].high)), name
    assert six["ensemble"].share and six["ensemble.kind.colour"].share and not six["ensemble.minus.language_model"].share
    assert six["ensemble"].high - six["ensemble"].low > 0.35
    assert six["ensemble.minus.language_model.p"].value == one["ensemble.minus.language_model.p"].value == pytest.approx(2 / 2**6, abs=0.01)


def test_intervals_of_clips_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(60):
        easy = rng.beta(1, 1, 40)  # half of all questions are right, of some clips nearly all
        right = (rng.random((40, 6)) < easy[:, None]).reshape(-1)
        found = video._Clips(np.repeat(np.arange(40), 6).astype(str).tolist()).mean(right.tolist(), share=True)
        hits.append(found.low <= 0.5 <= found.high)
    assert np.mean(hits) > 0.85


def test_clips_that_are_all_right_leave_room_for_others_that_are_not() -> None:
    found = summarise(records([[(True, False)] * 6] * 5))["ensemble"]
    assert (found.value, found.n) == (1.0, 5)
    assert found.low == pytest.approx(0.566, abs=0.01)


def test_signs_of_clips_that_do_not_differ_say_nothing() -> None:
    assert summarise(records([[(True, True)] * 6] * 5))["ensemble.minus.language_model.p"].value == 1.0
    sure = summarise(records([[(True, False)] * 6] * 30))["ensemble.minus.language_model.p"]
    assert (sure.value, sure.n) == (pytest.approx(1e-4, rel=0.01), 30)


def test_another_video_of_the_same_name_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(video, "run_bench", lambda name, config, *rest, **more: seen.append(config))
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([QUESTION]))
    for content in (b"one", b"other", b"one"):
        (tmp_path / "gone.mp4").write_bytes(content)
        bench(tmp_path / "video.json", data=questions, clips=tmp_path)
    assert seen[0] == seen[2] != seen[1]
    assert seen[0]["contents"][0] == seen[1]["contents"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"questions": 0}, "questions is 0; allowed: >= 1"),
        ({"seed": -1}, "seed is -1; allowed: >= 0"),
        ({"frames": 0}, r"count is 0; allowed: 1\.\.64 frames"),
        ({"frames": 65}, r"count is 65; allowed: 1\.\.64 frames"),
        ({"policy": "luck"}, "policy is 'luck'; allowed: uniform, change"),
        ({"scorers": ["nobody"]}, r"scorers are \['nobody'\]; allowed: one or more of segmenter"),
        ({"scorers": ["motion", "motion"]}, "scorers are .*each once"),
        ({"strategy": "luck"}, "strategy is 'luck'; allowed: words, gradient"),
        ({"strategy": "gradient", "scorers": ["language"]}, "at least one that looks at the clip"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "run_bench", lambda *rest, **more: pytest.fail("items would be run"))
    with pytest.raises(ValueError, match=message):
        bench(tmp_path / "video.json", **arguments)
    assert Item(3).questions == ()
