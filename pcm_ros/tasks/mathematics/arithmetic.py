"""Exact evaluation of arithmetic expressions: a grammar over fractions. Nothing of the text is ever run.

Hostile text costs little: expressions longer than 120 characters, exponents above 12 and results of more than 60 digits are refused.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

from lark import Lark, Transformer
from lark.exceptions import LarkError, VisitError

LONGEST = 120
LARGEST_EXPONENT = 12
LARGEST = Fraction(10**60)
DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
"""A pattern of numbers as people write them: 1,000.50, .5."""
_MOST_DECIMALS = 8


class NoArithmetic(ValueError):
    """The text is no arithmetic expression, has no value (division by zero), or exceeds the limits. The message says which."""


class _Value(Transformer[Fraction]):
    def number(self, parts: list[Any]) -> Fraction:
        return Fraction(str(parts[0]).replace(",", "").rstrip("."))

    def percent(self, parts: list[Any]) -> Fraction:
        return self.number(parts) / 100

    def mixed(self, parts: list[Any]) -> Fraction:
        whole, part = str(parts[0]).split()
        top, bottom = part.split("/")
        if int(bottom) == 0:
            raise NoArithmetic("division by zero")
        return int(whole) + Fraction(int(top), int(bottom))

    def percent_of(self, parts: list[Any]) -> Fraction:
        return _bounded(parts[0] / 100)

    def add(self, parts: list[Any]) -> Fraction:
        return _bounded(parts[0] + parts[1])

    def subtract(self, parts: list[Any]) -> Fraction:
        return _bounded(parts[0] - parts[2])

    def multiply(self, parts: list[Any]) -> Fraction:
        return _bounded(parts[0] * parts[2])

    def multiply_group(self, parts: list[Any]) -> Fraction:
        return _bounded(parts[0] * parts[1])

    def divide(self, parts: list[Any]) -> Fraction:
        if parts[2] == 0:
            raise NoArithmetic("division by zero")
        return _bounded(parts[0] / parts[2])

    def negate(self, parts: list[Any]) -> Fraction:
        return -parts[1]

    def power(self, parts: list[Any]) -> Fraction:
        base, exponent = parts
        if exponent.denominator != 1 or not 0 <= exponent <= LARGEST_EXPONENT:
            raise NoArithmetic(f"the exponent {exponent} is not a whole number of 0..{LARGEST_EXPONENT}")
        return _bounded(base ** int(exponent))


def _bounded(value: Fraction) -> Fraction:
    if abs(value) > LARGEST or value.denominator > LARGEST:
        raise NoArithmetic("a number of more than 60 digits")
    return value


@functools.cache
def _parser() -> Lark:
    return Lark(Path(__file__).with_suffix(".lark").read_text(), parser="lalr", maybe_placeholders=False)


@functools.lru_cache(maxsize=4096)
def evaluate(text: str) -> Fraction:
    """The exact value of an expression.

    Raises:
        NoArithmetic: see there.
    """
    if len(text) > LONGEST:
        raise NoArithmetic(f"an expression of {len(text)} characters; allowed: {LONGEST}")
    try:
        return _bounded(_Value().transform(_parser().parse(text)))
    except VisitError as error:
        raise (error.orig_exc if isinstance(error.orig_exc, NoArithmetic) else NoArithmetic(f"'{text}': {error.orig_exc}")) from error
    except (LarkError, RecursionError) as error:
        raise NoArithmetic(f"'{text}' is no arithmetic expression") from error


def value_of(text: str) -> Fraction | None:
    """`evaluate`; None where that raises."""
    try:
        return evaluate(text)
    except NoArithmetic:
        return None


def written_number(value: Fraction) -> str:
    """A number as solutions write it: 24, 0.2, 1.157625; rounded half to even where that takes more than 8 decimals.

    Decimals that do not end are rounded to 2, 16.67; to 4 below 1, 0.3333; to 8 below 1/100, 0.00333333;
    to more where little would be left.
    """
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    size = abs(value)
    decimals = _MOST_DECIMALS if rest == 1 or size < Fraction(1, 100) else 4 if size < 1 else 2
    while (units := round(size * 10**decimals)) < 100 and size < Fraction(1, 100):
        decimals += 4
    whole, part = divmod(units, 10**decimals)
    digits = f"{whole}.{part:0{decimals}d}".rstrip("0").rstrip(".")
    return f"-{digits}" if value < 0 and units else digits
