"""The arithmetic checker agrees with exact fractions, and hostile text can do nothing to it."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.mathematics.arithmetic import (
    NoArithmetic,
    calculator,
    equations,
    evaluate,
    final_answer,
    in_notation,
    written_number,
)
from training.maths_problems import TEMPLATES, make_problem

numbers = st.one_of(st.integers(0, 10**6), st.decimals(0, 1000, places=2, allow_nan=False))


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction]:
    """An expression as text, and its value worked out beside it."""
    if depth == 0 or draw(st.booleans()):
        number = draw(numbers)
        return str(number), Fraction(str(number))
    left, a = draw(expressions(depth=depth - 1))
    right, b = draw(expressions(depth=depth - 1))
    sign = draw(st.sampled_from("+-*/"))
    if sign == "/" and b == 0:
        sign = "+"
    value = {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a / b
    space = draw(st.sampled_from(["", " "]))
    return f"({left}{space}{sign}{space}{right})", value


@given(expressions())
def test_values_are_exact(pair: tuple[str, Fraction]) -> None:
    text, value = pair
    if len(text) <= 120:
        assert evaluate(text) == value
        (equation,) = equations(f"so <<{text}={written_number(value)}>> eggs")
        assert equation.holds
        (wrong,) = equations(f"so <<{text}={written_number(value + 1)}>> eggs")
        assert not wrong.holds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("2-3-4", -5),
        ("24/4/2", 3),
        ("-3+5", 2),
        ("2*-3", -6),
        ("20/100 x $50", 10),
        ("15%*200", 30),
        ("1,200 + 300", 1500),
        ("2(3+4)", 14),
        (".5*4", 2),
        ("3 × 4 ÷ 2", 6),
        ("2^3", 8),
        ("1,5", None),
    ],
)
def test_notations(text: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(NoArithmetic):
            evaluate(text)
    else:
        assert evaluate(text) == value


@given(st.text(max_size=300))
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    equations(text)
    final_answer(text)
    calculator(text)
    with contextlib.suppress(NoArithmetic):
        assert isinstance(evaluate(text), Fraction)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "9**9**9**9",
        "9^99999999",
        "1/0",
        "(" * 60 + "1" + ")" * 59,
        "9" * 119,
        "*".join(["9" * 15] * 7),
        "",
        "1+",
        "a+b",
    ],
)
def test_hostile_expressions_are_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(NoArithmetic):
        evaluate(text)
    assert time.process_time() - start < 5  # 9**9**9 would take for ever


def test_rounding() -> None:
    found = equations("<<1/3=0.33>> <<1/3=.333>> <<10/3=3>> <<7/2=3>> <<7/2=3.4>> <<2/3=67%>> <<1/0=3>> <<2+2=x>>")
    assert [equation.holds for equation in found] == [True, True, True, False, False, True, False, False]
    assert [equation.exact for equation in found] == [False] * 8


def test_a_fraction_as_the_result_is_not_rounded() -> None:
    found = equations("<<1/3=1/2>> <<5/8=1/2>> <<1/4=1/10+1/10>> <<1/2=2/4>>")
    assert [equation.holds for equation in found] == [False, False, False, True]


def test_equations_written_out_count_where_none_is_marked() -> None:
    (plain,) = equations("She sold 48/2 = 24 clips.")
    assert (plain.expression, plain.stated, plain.holds) == ("48/2", 24, True)
    (both,) = equations("She sold 48/2 = <<48/2=24>>24 clips.")
    assert both.holds
    assert equations("nothing = nobody") == ()


def test_calculator_speaks_when_an_equation_opens() -> None:
    assert calculator("She sold <<48/2=") == "24>>"
    assert calculator("one costs $<<12/60=") == "0.2>>"
    assert calculator("<<2+2=4>> and <<4*10=") == "40>>"
    assert calculator("48/2=") is None
    assert calculator("<<48/2") is None
    assert calculator("<<48/0=") is None


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
    ],
)
def test_final_answer(text: str, answer: Fraction | int | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = <<3+4=7>>7 eggs\nA: 7", "<<3+4=7>> eggs\n#### 7"),
        ("She has 3 + 4 = 7 eggs.\nThe answer is $7.", "She has <<3 + 4=7>> eggs.\n#### 7"),
        ("<<3+4=7>> eggs\n#### 7", "<<3+4=7>> eggs\n#### 7"),
        ("seven", "seven"),
        ("", ""),
    ],
)
def test_any_solution_in_notation(text: str, expected: str) -> None:
    assert in_notation(text) == expected
    assert in_notation(expected) == expected


@pytest.mark.parametrize("value", [0.2, 3.75, 24, 0.3333, 16.67, -2.5])
def test_written_numbers_are_read_again(value: float) -> None:
    assert evaluate(written_number(Fraction(str(value)))) == Fraction(str(value))


def test_generated_problems_are_right() -> None:
    rng = np.random.default_rng(3)
    kinds = set()
    for _ in range(3000):
        problem = make_problem(rng)
        kinds.add(problem.kind)
        assert not set("{}[]|") & set(problem.question)
        marked = [equations(step) for step in problem.steps]
        assert all(len(found) == 1 and found[0].exact for found in marked)
        assert marked[-1][0].stated == problem.answer > 0
        assert all(int(number) > 0 for number in (found[0].stated for found in marked) if number is not None)
    assert kinds == {*TEMPLATES, "paired"}
