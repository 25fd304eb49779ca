"""Answers are found in the forms in which people and models state them, and solutions are put into the experts' notation."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.mathematics.answers import final_answer, in_notation

STATEMENTS = (
    "The answer is 36 eggs.",
    "The answer is 36%.",
    "Answer: 36",
    "**Answer: 36**",
    "**Answer:** 36",
    "So the final answer is 36",
    "Therefore, the answer is $\\boxed{36}$.",
    "\\boxed{36}",
    "A: 36",
    "#### 36 eggs",
)
"""Last lines that say the answer."""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a <<2+3=5>>\n#### 5", 5),
        ("#### $1,234.50", Fraction("1234.5")),
        ("A: 18", 18),
        ("so the answer is 42.", 42),
        ("there are 3 dogs and 7 cats", 7),
        ("#### -3", -3),
        ("#### -$5", -5),
        ("#### 1/2", Fraction(1, 2)),
        ("The answer is 1/3.", Fraction(1, 3)),
        ("nothing", None),
        ("#### 3 1/2", Fraction(7, 2)),
        ("#### −5", -5),
        ("\\boxed{\\frac{1}{2}}", Fraction(1, 2)),
        ("The answer is $\\boxed{-3\\frac{1}{2}}$.", Fraction(-7, 2)),
        ("\\boxed{36\\text{ eggs}}, not 5", 36),
        ("\\boxed{\\frac{x}{2}}", None),
        ("10-5", 5),
        ("-3/4", Fraction(-3, 4)),
        ("1/2", Fraction(1, 2)),
        ("-$5", -5),
        ("$-5", -5),
        ("she has 3 1/2", Fraction(7, 2)),
        ("1e3", 1000),
        ("COVID-19", 19),
        ("The answer is 50%.", 50),
        ("**Answer:** 36 eggs, of 40", 36),
        ("The answer is 3 + 4 = 7 eggs", 7),
        ("The answer is 7, since 2 + 2 = 4 and 3", 7),
        ("The answer to the problem is 12. There were 3.", 12),
        ("To answer 3 questions she needs 4 hours", 4),
        ("\\boxed{1{,}200}", 1200),
        ("\\boxed{1,\\!200}", 1200),
        ("\\boxed{1\\,200\\,000}", 1_200_000),
        ("The answer is about 12 eggs out of 20.", 12),
        ("The answer is approximately $12.50 for 3.", Fraction(25, 2)),
        ("A: 5 apples\nB: 7 apples\nTotal: 12 apples", 12),
        ("A: 5 apples, B: 7 of them", 5),
        ("The answer is minus 5.", -5),
        ("She has 12 minus 5", 5),
        ("#### -(5)", -5),
        ("#### (5)", 5),
        ("The answer is -(5 + 3) = -8", -8),
        ("#### 1.2 million", 1_200_000),
        ("There are 3 thousand cats", 3000),
        ("The answer is 3 millions of them", 3),
        ("#### 1 000", 1000),
        ("#### 1 000 000.5", Fraction(2_000_001, 2)),
        ("The answer is 5 100-gram bars.", 5),
        ("#### 2 ½", Fraction(5, 2)),
        ("#### 2¾", Fraction(11, 4)),
        ("½", Fraction(1, 2)),
        ("The answer is 10^6.", 10**6),
        ("#### 2 × 10^3", 2000),
        ("\\boxed{2^{10}}", 1024),
        ("$\\frac12$", Fraction(1, 2)),
        ("1.200.000 people", 1_200_000),
        ("The answer is      minus     5", -5),
    ],
)
def test_final_answer(text: str, answer: Fraction | int | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{begin}{' ' * 4000}{end}"
            for begin in ("The answer is", "####", "A:", "answer is minus", "answer is (")
            for end in ("x", "| see |")
        ),
        *(f"answer is{filler * 1900}" for filler in ("* ", "- ", " is", "(", "$ ", "1 ", "1/", "about ", "1,000", "1 000 ", ". ")),
    ],
)
def test_no_text_takes_long_to_read(text: str) -> None:
    """Quantifiers that share a run of spaces out among them took minutes."""
    began = time.process_time()
    final_answer(text)
    in_notation(text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = <<3+4=7>>7 eggs\nA: 7", "<<3+4=7>> eggs\n#### 7"),
        ("She has 3 + 4 = 7 eggs.\nThe answer is $7.", "She has <<3 + 4=7>> eggs.\n#### 7"),
        ("<<3+4=7>> eggs\n#### 7", "<<3+4=7>> eggs\n#### 7"),
        ("seven", "seven"),
        ("", ""),
        *((f"<<3*12=36>> eggs\n{line}", "<<3*12=36>> eggs\n#### 36") for line in STATEMENTS),
        ("<<3+4=7>> eggs, so the answer is 7, not 8.", "<<3+4=7>> eggs, so the answer is 7, not 8.\n#### 7"),
        ("The answer is 7.\n<<3+4=7>> eggs", "The answer is 7.\n<<3+4=7>> eggs\n#### 7"),
        ("2 + 3 = 5 + 4 = 9", "<<2 + 3=5>> <<5 + 4=9>>"),
        ("12 eggs - 4 = 8", "12 eggs - 4 = 8"),
        ("She has 36 eggs.", "She has 36 eggs."),
        ("To answer 3 questions she needs 4 hours", "To answer 3 questions she needs 4 hours"),
        ("What is the answer?", "What is the answer?"),
        ("The answer is about 36 eggs.", "#### 36"),
        ("A: 5 apples\nB: 7 apples\n5 + 7 = 12 apples", "A: 5 apples\nB: 7 apples\n<<5 + 7=12>> apples"),
        ("B: 7 apples\nA: 5 apples", "B: 7 apples\nA: 5 apples"),
        ("#### 2 ½", "#### 2 1/2"),
        ("#### 1.2 million", "#### 1200000"),
        ("#### 1 000", "#### 1000"),
        ("7 / 2 = 3 remainder 1", "<<7 / 2=3>> remainder 1"),
        ("2 + 2 = <<2+2=4>>4\nso 20/4 = 5 each\nA: 5", "<<2+2=4>>\nso <<20/4=5>> each\n#### 5"),
        ("<<17/8.5=2.0>>2.0 hours\nA: 2", "<<17/8.5=2>> hours\n#### 2"),
        ("<<5/3=1.6666666666666667>> h\n<<1.6666666666666667*3=5.0>> h", "<<5/3=1.67>> h\n<<1.67*3=5>> h"),
        ("<<0.1*3=0.30000000000000004>> l", "<<0.1*3=0.3>> l"),
        ("<<10/3=3.3>> eggs", "<<10/3=3.3>> eggs"),
        ("<<7/2=4.0>> eggs", "<<7/2=4.0>> eggs"),
        ("<<130000*.15=19500.0>>195,000 dollars\nA: 195,000", "<<130000*.15=19500>> 195,000 dollars\n#### 195000"),
        ("<<10/3=3.33>>3.3 eggs, <<45000*2=90000>>90,000 dollars", "<<10/3=3.33>> eggs, <<45000*2=90000>> dollars"),
    ],
)
def test_any_solution_in_notation(text: str, expected: str) -> None:
    assert in_notation(text) == expected
    assert in_notation(expected) == expected


@given(st.text("0123456789 .,+-*/=<>()$%#\nAx answeri:{}\\boxed", max_size=80))
def test_solutions_in_notation_stay_as_they_are(text: str) -> None:
    once = in_notation(text)
    assert in_notation(once) == once
