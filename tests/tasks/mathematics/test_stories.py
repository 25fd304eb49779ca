"""Problems of stories: every question of every story can be asked, its answer is what its numbers make, and some stories are held out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from training import maths_candidates, maths_samples, maths_stories
from training.maths_problems import TEMPLATES
from training.maths_samples import story_problems
from training.maths_stories import STORIES, Story, story_problem

ASKED = [(story, ask) for story in STORIES for ask in story.asks]


@pytest.mark.parametrize(("story", "ask"), ASKED, ids=[f"{STORIES.index(story)}: {ask[0]}" for story, ask in ASKED])
def test_the_answer_is_what_the_numbers_make(story: Story, ask: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = replace(story, text="{a} {b} {c} {d}", asks=((ask[0], ""),))
    monkeypatch.setattr(maths_stories, "STORIES", (plain,))
    for seed in range(3):
        problem = story_problem(np.random.default_rng(seed))
        numbers = dict(zip("abcd", map(Fraction, problem.question.split()), strict=True))
        assert min(numbers.values()) > 0
        assert eval(ask[0], {}, numbers) == problem.answer > 0  # a file of this repository
        for rule in (rule for rule in story.rules if "<" in rule and not set("pq") & set(rule)):
            assert eval(rule, {}, numbers), rule
    assert problem.held_out == story.held_out


def test_problems_read_as_text() -> None:
    rng = np.random.default_rng(5)
    for _ in range(3000):
        question = story_problem(rng).question
        assert not set("{}[]|<>") & set(question)
        assert question.endswith("?") and question[0] == question[0].upper()
        assert "  " not in question and " ." not in question


def test_stories_are_new_and_every_fourth_is_held_out() -> None:
    known = {story for lines in TEMPLATES.values() for story, *_ in lines}
    assert not known & {story.text for story in STORIES}
    assert len({story.text for story in STORIES}) == len(STORIES)
    assert 0.2 < np.mean([story.held_out for story in STORIES]) < 0.3
    assert all(len(story.asks) >= 2 for story in STORIES), "what is asked for can't be known from the story alone"


def test_problems_are_the_same_for_a_seed() -> None:
    first, again, other = (list(islice(story_problems(seed), 50)) for seed in (3, 3, 4))
    assert first == again != other
    assert [problem.index for problem in first] == list(range(50))
    assert {problem.held_out for problem in first} == {True, False}
    assert {problem.source for problem in first} == {"stories"}


@pytest.mark.parametrize("arguments", [(), ("--stories", "--data", "train.jsonl"), ("--stories", "--next-steps")])
def test_samples_are_of_data_or_of_stories(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["maths_samples.py", "--adapter", "a", "--out", "o", *arguments])
    with pytest.raises(SystemExit):
        maths_samples.main()
    assert "--stories" in capsys.readouterr().err


def test_weights_see_held_out_stories_alone(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"#### {n}"}) + "\n" for n in range(6)))
    found = maths_candidates.unseen_problems(data, generated=0.0, stories=12, held_out=2, seed=7)
    assert [problem.source for problem in found] == ["gsm8k"] * 2 + ["stories"] * 12
    assert all(problem.held_out for problem in found)
