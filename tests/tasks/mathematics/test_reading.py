"""What is read of a question: numbers in digits and in words."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.tasks.mathematics.reading import read_question

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
