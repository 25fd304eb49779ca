"""The arithmetic checker agrees with exact fractions, finds equations in plain text, and hostile text can do nothing to it."""

from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.mathematics.answers import final_answer, in_notation
from pcm_ros.tasks.mathematics.arithmetic import NoArithmetic, evaluate, written_number
from pcm_ros.tasks.mathematics.equations import calculator, equations, results_of
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
        ("2(3)^2", 18),
        ("1000(1.05)^2", Fraction("1102.5")),
        ("1000(1+.05)**2", Fraction("1102.5")),
        ("2(50)%", 1),
        ("(1+2)(3)^2(2)", 54),
        ("3 1/2", Fraction(7, 2)),
        ("-2 1/4 * 4", -9),
        ("1,5", None),
        ("3 4", None),
        ("1 1/0", None),
    ],
)
def test_notations(text: str, value: Fraction | int | None) -> None:
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


def test_half_a_unit_of_the_last_decimal_may_go_either_way() -> None:
    found = equations(
        "<<1/32=0.0312>> <<1/32=0.0313>> <<5/4=1.2>> <<5/4=1.3>> <<1/32=0.0314>> <<7/2=3>> <<7/2=4>> <<1/8=12%>> <<1/8=12.5%>>"
    )
    assert [equation.holds for equation in found] == [True, True, True, True, False, False, False, False, True]


@given(st.fractions(-1000, 1000, max_denominator=5000))
def test_what_the_calculator_writes_holds(value: Fraction) -> None:
    written = calculator(f"<<{value.numerator}/{value.denominator}=")
    assert written is not None
    (equation,) = equations(f"<<{value.numerator}/{value.denominator}={written}")
    assert equation.holds


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("1157625/1000000", "1.157625"),
        ("1/100000", "0.00001"),
        ("1/32", "0.03125"),
        ("-1/1024", "-0.00097656"),
        ("1/3", "0.3333"),
        ("-50/3", "-16.67"),
        ("1/300", "0.00333333"),
        ("-1/10000000000", "-0.0000000001"),
        ("1/1000000007", "0.000000001"),
        ("20000000000000000000001/2", "10000000000000000000000.5"),
        ("3/2", "1.5"),
    ],
)
def test_written_numbers(value: str, written: str) -> None:
    assert written_number(Fraction(value)) == written


@given(st.integers(-(10**9), 10**9), st.integers(0, 8))
def test_up_to_eight_decimals_are_written_in_full(units: int, decimals: int) -> None:
    value = Fraction(units, 10**decimals)
    assert Fraction(written_number(value)) == value


def test_a_fraction_as_the_result_is_not_rounded() -> None:
    found = equations("<<1/3=1/2>> <<5/8=1/2>> <<1/4=1/10+1/10>> <<1/2=2/4>>")
    assert [equation.holds for equation in found] == [False, False, False, True]


def test_equations_written_out_count_where_none_is_marked() -> None:
    (plain,) = equations("She sold 48/2 = 24 clips.")
    assert (plain.expression, plain.stated, plain.holds) == ("48/2", 24, True)
    (both,) = equations("She sold 48/2 = <<48/2=24>>24 clips.")
    assert both.holds
    assert equations("nothing = nobody") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1/4 + 1/4 = 1/2", ["1/4 + 1/4=1/2"]),
        ("3/4 + 3/4 = 1 1/2 cups", ["3/4 + 3/4=1 1/2"]),
        ("5 - 8 = -$3", ["5 - 8=-$3"]),
        ("5 - 8 = $-3.00!", ["5 - 8=$-3.00"]),
        ("80 / 2 = $40/hour", ["80 / 2=$40"]),
        ("4*5 = 20ml", ["4*5=20"]),
        ("2 + 3 = 5 + 4 = 9", ["2 + 3=5", "5 + 4=9"]),
        ("2 * (3 + 4) = 2 * 7 = 14", ["2 * 7=14"]),
        ("20% of 50 = 0.2 * 50 = 10", ["0.2 * 50=10"]),
        ("(48/2 = 24)", ["48/2=24"]),
        ("- 3 + 4 = 7\n* 8 - 3 = 5\n**6 * 2 = 12**", ["3 + 4=7", "8 - 3=5", "6 * 2=12"]),
        ("So: -3 + 5 = 2", ["-3 + 5=2"]),
        ("3x4 = 12 and 2 x 5 = 10", ["3x4=12", "2 x 5=10"]),
        ("1. 3 + 4 = 7 (see 2)", ["3 + 4=7"]),
        ("100(1 + 0.05)^2 = 110.25", ["100(1 + 0.05)^2=110.25"]),
        ("$80 000 x 20/100 = $16 000", ["$80000 x 20/100=$16000"]),
        ("600 x 30 = 18 000 in 2 years", ["600 x 30=18000"]),
        (r"\(3 \times 4 = 12\)", ["3 × 4=12"]),
        (r"$3 \times 4 = 12$", ["$3 × 4=12"]),
        (r"3\cdot4 = \boxed{12}", ["3· 4=12"]),
        (r"So \[ \frac{12}{4} = 3 \text{ eggs} \]", ["12/4=3"]),
        (r"\left(3+4\right) \div 2 = \$3.50", ["(3+4) ÷ 2=$3.50"]),
        (r"3\frac{1}{2} \times 2 = 7", ["3 1/2 × 2=7"]),
        (r"2 \div \frac12 = 4", ["2 ÷ (1/2)=4"]),
        (r"\frac14 + \frac{1}{4} = \boxed{\frac{1}{2}}", ["1/4 + 1/4=1/2"]),
        (r"\frac{3+9}{4} = 3", ["((3+9)/(4))=3"]),
        (r"3 \times 400 = 1{,}200", ["3 × 400=1,200"]),
        (r"20\% \times 50 = 10", ["20% × 50=10"]),
        # not whole, or none at all
        ("12 eggs - 4 = 8", []),
        ("x + 5 = 12", []),
        ("3x = 12", []),
        ("$5/hour * 8 = $40", []),
        ("20% of 50 + 5 = 15", []),
        ("twenty plus 3 + 4 = 27", []),
        ("(12 eggs - 4) * 2 = 16", []),
        ("10ml * 2 = 20", []),
        ("5 = 5", []),
        ("10 + 5 = 5 times 3", []),
        ("10 + 5 = x", []),
        ("3 + 4 <= 7", []),
        ("a == 3 + 4 == 7", []),
        ("3 +\n4 = 7", []),
    ],
)
def test_only_whole_equations_are_read_where_none_is_marked(text: str, expected: list[str]) -> None:
    found = equations(text)
    assert [f"{equation.expression}={equation.result}" for equation in found] == expected
    assert all(equation.holds for equation in found)


@given(
    expressions(), st.sampled_from(["", "She sold ", "Then: ", "- ", "("]), st.sampled_from(["", " eggs.", ", so", ") in May", "\n3 more"])
)
def test_equations_written_out_are_read_whatever_stands_around(pair: tuple[str, Fraction], before: str, behind: str) -> None:
    text, value = pair
    if len(text) <= 120 and "(" in text:
        (equation,) = equations(f"{before}{text} = {written_number(value)}{behind}")
        assert (equation.expression, equation.holds) == (text, True)


def test_reading_equations_takes_time_in_proportion_to_the_text() -> None:
    start = time.process_time()
    for part in ("1 + ", "(", "1=", "1 ", "$", "-", "1,", "1/2 = ", "x", "answer is ", "\\frac{1}", "\\text{", "1 000 ", " = 000"):
        equations(part * 2000)
        in_notation(part * 2000)
        final_answer(part * 2000)
    assert time.process_time() - start < 5


def test_each_line_has_its_own_equations() -> None:
    """A marked equation in one line does not hide one that is written out in another."""
    text = "She has <<2+2=4>> tops.\nOne costs 20/4 = 5 dollars.\n<<5+1=6>> dollars, which is 2 * 3 = 6"
    assert results_of(text) == [4, 5, 6]


def test_calculator_speaks_when_an_equation_opens() -> None:
    assert calculator("She sold <<48/2=") == "24>>"
    assert calculator("one costs $<<12/60=") == "0.2>>"
    assert calculator("<<2+2=4>> and <<4*10=") == "40>>"
    assert calculator("48/2=") is None
    assert calculator("<<48/2") is None
    assert calculator("<<48/0=") is None


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


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("7 / 2 = 3 remainder 1", True),
        ("<<7/2=3>> with a remainder of 1", True),
        ("7/2 = 3 R1", True),
        ("7/2 = 4 remainder 1", False),
        ("7/2 = 3 rows", False),
        ("1/3 = 0", False),
        ("<<1/300=0.00>>", False),
        ("3-3 = 0", True),
        ("1/3 = 0.3", True),
    ],
)
def test_rests_are_no_mistakes_and_nothing_is_rounded_away(text: str, holds: bool) -> None:
    (equation,) = equations(text)
    assert equation.holds == holds
    assert results_of(text) == [equation.stated]
