"""Word problems from stories that the generator was not trained on, each with several questions that take different numbers of it.

`maths_problems.py` has the stories that taught the generator when to stop; of those it solves nearly all, so its samples of them teach a
verifier nothing. Here it errs: which numbers are asked for depends on the question alone. The stories were written for this file, none is
taken from a benchmark; every fourth one is held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pcm_ros.tasks.mathematics.arithmetic import evaluate
from training.maths_problems import COLOURS, chosen, whole_number, words_for

TRIES = 4000
"""So often numbers are drawn until they fit a story."""


@dataclass(frozen=True)
class Story:
    """A story in the words of `maths_problems.TEMPLATES`, over numbers {a} {b} {c} {d}.

    Attributes:
        text: with the slots. rules: what the numbers fulfil, in order: "a<b", or "a=b*p", which sets a. asks: (answer, question), the
            answer as an expression of the numbers.
        held_out: whether it is kept for measuring, and for what is fitted to verifiers.
    """

    text: str
    rules: tuple[str, ...]
    asks: tuple[tuple[str, str], ...]
    held_out: bool


@dataclass(frozen=True)
class StoryProblem:
    """A question of a story with numbers in it. answer: a whole number above 0."""

    question: str
    answer: int
    held_out: bool


def _story(block: str, number: int) -> Story:
    head, *asks = block.strip().splitlines()
    text, _, rules = head.partition(" | ")
    parted = tuple((answer, question) for answer, _, question in (line.partition(" | ") for line in asks))
    return Story(text.removesuffix(" |"), tuple(rules.split()), parted, number % 4 == 3)


STORIES = tuple(_story(block, number) for number, block in enumerate(Path(__file__).with_suffix(".txt").read_text().split("\n== ")[1:]))


def story_problem(rng: np.random.Generator) -> StoryProblem:
    """One problem: a story, one of its questions, and numbers that fit both."""
    story = STORIES[rng.integers(len(STORIES))]
    expression, asked = story.asks[rng.integers(len(story.asks))]
    numbers, answer = _numbers(story, expression, rng)
    words: dict[str, object] = dict(words_for(rng))
    words["His"] = str(words["his"]).capitalize()
    words["c3"] = str(rng.choice([colour for colour in COLOURS if colour not in (words["c1"], words["c2"])]))
    text = chosen(f"{story.text} {asked}", rng).format(**words, **numbers)
    return StoryProblem(text[0].upper() + text[1:], answer, story.held_out)


def _numbers(story: Story, expression: str, rng: np.random.Generator) -> tuple[dict[str, int], int]:
    """The story's numbers, and the value of the expression."""
    for _ in range(TRIES):
        numbers = {letter: whole_number(rng) if rng.random() < 0.6 else whole_number(rng, 2, 12) for letter in "abcd"}
        numbers |= {letter: whole_number(rng, 2, 12) for letter in "pq"}
        if all(_fulfilled(rule, numbers) for rule in story.rules):
            answer = _value(expression, numbers)
            if answer > 0 and answer.denominator == 1:
                return numbers, int(answer)
    raise ValueError(f"no numbers fit '{expression}' of '{story.text}' in {TRIES} tries")


def _fulfilled(rule: str, numbers: dict[str, int]) -> bool:
    """Whether the numbers fulfil "x<y"; "x=y" sets x, if that is a whole number above 0."""
    if "<" in rule:
        less, more = rule.split("<")
        return _value(less, numbers) < _value(more, numbers)
    letter, expression = rule.split("=")
    value = _value(expression, numbers)
    if value <= 0 or value.denominator != 1:
        return False
    numbers[letter] = int(value)
    return True


def _value(expression: str, numbers: dict[str, int]) -> Fraction:
    return evaluate("".join(str(numbers.get(sign, sign)) for sign in expression))
