"""What the bench of questions about clips makes of what went wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pcm_ros.benchmarks.video import Item, bench, read_questions, run_one, summarise

QUESTION = {"video": "gone", "question": "What colour is the mug?", "answer": "red", "type": "colour"}


class Blind:
    """A worker that is prepared and never asked: no clip can be read."""

    frames, policy, most = 4, "uniform", None

    @property
    def answerer(self) -> None:
        raise AssertionError("there is nothing to ask about")


def test_questions_about_a_clip_that_cannot_be_read_are_wrong(tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([QUESTION, {**QUESTION, "answer": "blue"}]))
    (tmp_path / "gone.mp4").write_bytes(b"no video")
    (item,) = read_questions(questions, tmp_path, None).values()
    record = run_one(item, Blind())  # type: ignore[arg-type]
    assert [one["failure"].split(":")[0] for one in record["answers"]] == ["UnusableClip"] * 2
    right = {"normalised": True, "exact": True, "similar": True}
    good = {"kind": "colour", "truth": "red", "answer_seconds": 1.0, "matches": {"ensemble": right, "language_model": right}}
    good |= {"proposed": True, "proposed_in_words": True}
    results = summarise([{"id": "gone", **record}, {"id": "there", "answers": [good]}])
    assert (results["ensemble"].value, results["ensemble"].n) == (pytest.approx(1 / 3), 3)
    assert results["ensemble.kind.colour"].n == 3
    assert results["failures"].value == pytest.approx(2 / 3)
    assert (results["seconds_per_answer"].value, results["seconds_per_answer"].n) == (1.0, 1)


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="questions is 0; allowed: >= 1"):
        bench(tmp_path / "video.json", questions=0)
    assert Item(3).questions == ()
