"""Exact evaluation of the equations in a solution: a grammar over fractions. Nothing of the text is ever run.

Hostile text costs little: expressions longer than 120 characters, exponents above 12 and results of more than 60 digits are refused.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from lark import Lark, Transformer
from lark.exceptions import LarkError, VisitError

from pcm_ros.tasks.mathematics.notation import ANSWER, EQUATION, compact

LONGEST = 120
LARGEST_EXPONENT = 12
LARGEST = Fraction(10**60)
_OPEN = re.compile(r"<<([^<>=\n]*)=$")
_ROUNDED = re.compile(r"[-\s$€£]*[\d.,]+\s*%?")
_PLAIN = re.compile(r"(?<![\w.<])((?:[\d(.$€£][\d\s.,()$€£%+\-–−*/x×÷·^]*)?[\d)%])\s*=\s*([$€£]?\s*-?[\d.,]*\d%?)(?![\d<])")


class NoArithmetic(ValueError):
    """The text is no arithmetic expression, has no value (division by zero), or exceeds the limits. The message says which."""


class _Value(Transformer[Fraction]):
    def number(self, parts: list[Any]) -> Fraction:
        return Fraction(str(parts[0]).replace(",", "").rstrip("."))

    def percent(self, parts: list[Any]) -> Fraction:
        return self.number(parts) / 100

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


@dataclass(frozen=True)
class Equation:
    """An equation of a solution.

    Attributes:
        expression, result: its sides as written.
        value: exact value of the expression; None = it has none.
        stated: exact value of the result; None = it has none.
    """

    expression: str
    result: str
    value: Fraction | None
    stated: Fraction | None

    @property
    def exact(self) -> bool:
        """Both sides are the same number."""
        return self.value is not None and self.value == self.stated

    @property
    def holds(self) -> bool:
        """Both sides agree to the digits written: 1/3 = 0.33 does, 1/3 = 0.3 too, 7/2 = 3 does not, 10/3 = 3 does; a fraction is exact."""
        if self.value is None or self.stated is None or not _ROUNDED.fullmatch(self.result):
            return self.exact
        digits = re.sub(r"[^\d.]", "", self.result)
        decimals = len(digits.partition(".")[2]) + (2 if "%" in self.result else 0)
        return abs(self.value - self.stated) < Fraction(1, 2 * 10**decimals) or self.exact


def equations(text: str) -> tuple[Equation, ...]:
    """The equations of a step or a solution: the marked ones, <<48/2=24>>, or, where none is marked, those written out, 48/2 = 24."""
    pairs = EQUATION.findall(text) or _PLAIN.findall(text[:10_000])
    return tuple(Equation(left.strip(), right.strip(), _value(left), _value(right)) for left, right in pairs)


def _value(text: str) -> Fraction | None:
    try:
        return evaluate(text)
    except NoArithmetic:
        return None


def written_number(value: Fraction) -> str:
    """A number as solutions write it: 24, 0.2, 3.75; 0.3333 and 16.67 where the decimals do not end."""
    if value.denominator == 1:
        return str(value.numerator)
    decimals = 4 if abs(value) < 1 or (value * 10_000).denominator == 1 else 2
    return f"{float(round(value, decimals)):.{decimals}f}".rstrip("0").rstrip(".")


def calculator(line: str) -> str | None:
    """What comes after the equals sign of a marked equation that was just opened, "24>>"; None if there is none, or it has no value.

    The generator's `filled_in`: the model chooses what to calculate, and this does it (Cobbe et al., arXiv 2110.14168, appendix C).
    """
    opened = _OPEN.search(line)
    value = _value(opened[1]) if opened else None
    return None if value is None else f"{written_number(value)}>>"


def in_notation(solution: str) -> str:
    """Any solution in the notation that the experts know: equations marked in place, the answer's line last.

    "A: 18" and "The answer is 18." as a last line become "#### 18"; equations written out are marked where none is marked; repetitions of
    marked ones go (`notation.compact`).
    """
    text = solution.strip()
    if not EQUATION.search(text):
        text = _PLAIN.sub(lambda match: f"<<{match[1].strip()}={match[2].strip()}>>", text[:10_000])
    lines = compact(text).splitlines()
    if lines and (found := _ANSWER_LINE.fullmatch(lines[-1].strip())):
        lines[-1] = f"{ANSWER}{found[1]}{found[2].rstrip('.,')}"
    return "\n".join(lines)


def results_of(text: str) -> list[Fraction]:
    """The results of the equations of a solution, whole or in part, as they are stated; those without a value are left out."""
    return [equation.stated for equation in equations(text) if equation.stated is not None]


_NUMBER = r"(-?)\s*[$€£]?\s*(-?[\d.,]*\d(?:\s*/\s*\d+)?)"
_ANSWER_LINE = re.compile(rf"(?:####|A:|(?:[Ss]o |[Tt]hus,? )?[Tt]he (?:final )?answer is:?)\s*{_NUMBER}[%.]?")
_FINAL = re.compile(rf"(?:####|\bA:|[Aa]nswer(?:\s+is)?:?|\\boxed\{{)\s*{_NUMBER}")
_LAST = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def final_answer(solution: str) -> Fraction | None:
    """The number that a solution gives as its answer: after the last "####", "A:" or "answer is", else its last number; None if none."""
    marked = ["".join(parts) for parts in _FINAL.findall(solution)]
    numbers = marked or _LAST.findall(solution)
    return _value(numbers[-1].rstrip(".,")) if numbers else None
