"""What is read of a question: numbers in digits and in words."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.mathematics.reading import read_question, usage

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int, link: str, hyphen: str) -> str:
    """0..999 999 999 as people write it. link: behind hundreds, "" or "and ". hyphen: "-" or " "."""
    for scale, name in ((10**6, "million"), (1000, "thousand")):
        if number >= scale:
            rest = number % scale
            return f"{in_words(number // scale, link, hyphen)} {name}" + (f" {in_words(rest, link, hyphen)}" if rest else "")
    if number >= 100:
        return f"{_ONES[number // 100]} hundred" + (f" {link}{in_words(number % 100, link, hyphen)}" if number % 100 else "")
    if number >= 20:
        return _TENS[number // 10 - 2] + (f"{hyphen}{_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


def test_numbers_in_digits_and_words() -> None:
    read = read_question("Half of the 1,200 eggs cost $2.50 each, 20% off. How many dozen eggs did three cooks buy?")
    assert [float(values[0]) for values in read.numbers] == [0.5, 1200, 2.5, 0.2, 12, 3]
    assert read.asked == {"dozen", "egg", "three", "cook", "buy"}
    assert read.per_cent
    assert read.money


@given(st.integers(0, 999_999_999), st.sampled_from(["", "and "]), st.sampled_from(["-", " "]))
def test_numbers_in_words_are_read_whole(number: int, link: str, hyphen: str) -> None:
    read = read_question(f"Ann has {in_words(number, link, hyphen)} eggs.")
    assert [values[0] for values in read.numbers] == [number]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3,4,5 and 1,234,567", [3, 4, 5, 1234567]),
        ("five and six, twenty and five", [5, 6, 20, 5]),
        ("two three-room flats, twenty five-dollar notes", [2, 3, 20, 5]),
        ("fifteen hundred and a hundred", [1500, 100]),
        ("2.5 million or 3 thousand", [2_500_000, 3000]),
        ("a sixth, three-eighths, two fifths", [Fraction(1, 6), 3, Fraction(1, 8), 2, Fraction(1, 5)]),
        ("and two and half and", [2, Fraction(1, 2)]),
        ("1/2 of 3rd, 1/0", [Fraction(1, 2), 3, 1]),
        ("9" * 40, []),
    ],
)
def test_numbers(text: str, numbers: list[Fraction | int]) -> None:
    assert [values[0] for values in read_question(text).numbers] == numbers


@pytest.mark.parametrize("text", ["25%", "25 %", "25 percent", "25 per cent", "25-percent", "twenty-five percent"])
def test_per_cent(text: str) -> None:
    read = read_question(f"She saves {text} of it.")
    assert read.numbers == ((Fraction(1, 4), Fraction(25), Fraction(3, 4), Fraction(5, 4)),)
    assert read.per_cent


def test_cents_are_not_per_cent() -> None:
    assert read_question("25 cents per centimetre").numbers == ((Fraction(25),),)


def test_mixed_numbers_may_be_used_in_parts() -> None:
    assert read_question("1 1/2 cups").numbers == ((Fraction(3, 2), Fraction(1), Fraction(1, 2), Fraction(1), Fraction(2)),)
    assert read_question("3 1/0").numbers == ((Fraction(3), Fraction(1)),)
    assert read_question("two million").numbers == ((Fraction(2_000_000), Fraction(2)),)


@given(st.text(max_size=200) | st.text("0123456789 ,./%- andhuretwofiv", max_size=100))
def test_any_text_is_read(text: str) -> None:
    assert all(values for values in read_question(text).numbers)


def test_long_texts_are_read_at_once() -> None:
    start = time.process_time()
    for part in ("1", "1 ", "1,111", "1/", "1 1/", "two hundred and ", " ", "-", "one-"):
        read_question(part * 4000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("question", "solution"),
    [
        ("It was 5 degrees, fell by 8 and rose by 10. How many degrees now?", "<<5-8=-3>> degrees\n<<-3+10=7>> degrees\n#### 7"),
        ("It was 5 degrees below zero and rose by 10. How many degrees now?", "<<-5+10=5>> degrees\n#### 5"),
        ("Of 40 he lost 43, twice. How many?", "<<40-43=-3>>\n<<2*(-3)=-6>>\n#### -6"),
        ("Ann and Ben eat 1/4 each of 10 pies. How many pies?", "<<1/4+1/4=1/2>>\n<<1/2*10=5>> pies\n#### 5"),
        ("Of 16 he took 6 for each of 2. How many?", "<<6/16=3/8>>\n<<2*3/8=3/4>>\n#### 3/4"),
        ("Ropes of 3 1/2 and 3 feet, 8 times. How many feet?", "<<8*3 1/2=28>>\n<<28+3=31>> feet\n#### 31"),
        ("The tax is 20 of each 100 of 50 dollars. How many dollars?", "<<50*20%=10>> dollars\n<<10*100/100=10>> dollars\n#### 10"),
        ("Of 10 eggs 5 broke. How many, in per cent?", "<<5/10=50%>>\n#### 50%"),
        ("Of 10 eggs 5 broke, of 30 as large a share. How many?", "<<5/10=50%>>\n<<30*50/100=15>>\n#### 15"),
        ("Of 10 eggs 5 broke. How many, in per cent?", "<<5/10=0.5>>\n#### 50 percent"),
        ("6 of 5 men carry 1.2 million bricks. How many bricks?", "<<6/5=1.2>>\n#### 1.2 million"),
    ],
)
def test_what_is_used_is_known_and_what_is_said_is_the_last_result(question: str, solution: str) -> None:
    """Negative numbers, fractions and per cent, as an operand and as an answer."""
    use = usage(question, solution)
    assert (use.unknown, use.idle, use.wrong, use.answer_is_last) == (0, 0, 0, True)


def test_numbers_of_unknown_origin_are_told() -> None:
    question = "Tom has 3 boxes. How many?"
    for solution in ("<<3*-8=-24>>", "<<3*8/5=4.8>>", "<<3*15%=0.45>>", "<<3-8=-5>>"):
        assert usage(question, solution).unknown >= 1, solution
    assert usage(question, "<<3*4=12>>\n<<3+2=5>>\n#### 5").idle == 1
    assert not usage(question, "<<3+2=5>>\n#### 500").answer_is_last
    assert not usage(question, "<<3+2=5>>\n#### -5").answer_is_last


@pytest.mark.parametrize(
    ("question", "numbers"), [("1/4 of 20?", 2), ("a quarter of 20?", 2), ("1 1/2 of 20?", 2), ("1 of 20, 0 of 3?", 2), ("100% of 5?", 1)]
)
def test_how_many_numbers_a_question_needs(question: str, numbers: int) -> None:
    assert usage(question, "<<20/4=5>>").numbers == numbers


def test_who_says_that_a_solution_is_complete() -> None:
    question, text = "Tom has 3 boxes of 4. How many?", "<<3*4=12>> in all"
    assert usage(question, text).answer is None
    assert (usage(question, text, True).answer, usage(question, text, True).answer_is_last) == (12, True)
    assert usage(question, f"{text}\n#### 12", False).answer is None
    labelled = usage(question, f"A: 3 boxes\nB: 4 in each\n{text}", True)
    assert (labelled.lines, labelled.answer, labelled.answer_is_last) == (3, 12, True)
