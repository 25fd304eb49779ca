"""Rendered clips: the same number gives the same clip, and questions have the answers that physics gives."""

from __future__ import annotations

import numpy as np
import pytest

from pcm_ros.sim.clips import NUMBERS, QUESTION_KINDS, TEST_FROM, clip


@pytest.mark.parametrize("number", [3, TEST_FROM + 1])
def test_a_clip_and_its_questions(number: int) -> None:
    made, again = clip(number), clip(number)
    assert np.array_equal(made.frames, again.frames) and made.questions == again.questions
    assert made.frames.shape[1:] == (240, 320, 3) and len(made.times) == len(made.frames) >= 5
    changed = np.abs(made.frames[0].astype(int) - made.frames[len(made.frames) // 2]).max(axis=2) > 40
    assert 0 < changed.sum() < 0.4 * changed.size, "something moves, and the camera does not"
    assert len({question.kind for question in made.questions}) == len(made.questions) >= 4
    for question in made.questions:
        assert question.kind in QUESTION_KINDS and question.text.endswith("?")
        if question.kind == "count":
            assert question.answer in NUMBERS
        elif question.kind == "yes_no":
            assert question.answer in ("yes", "no")
        elif question.kind in ("moved", "order"):
            assert (made.phrases.index(question.answer) in made.moved) != ("does not" in question.text)


def test_numbers_below_zero() -> None:
    with pytest.raises(ValueError, match="allowed: 0 or more"):
        clip(-1)
