"""The answer that a solution states, in the forms in which people and models write it, and solutions in the experts' notation."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from pcm_ros.tasks.mathematics.arithmetic import DIGITS, value_of, written_number
from pcm_ros.tasks.mathematics.equations import marked
from pcm_ros.tasks.mathematics.latex import without_latex
from pcm_ros.tasks.mathematics.notation import ANSWER, EQUATION, compact

_MINUS = str.maketrans("–−", "--")
_FRACTION_SIGN = re.compile(r"[¼-¾⅐-⅞]")
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
"""Words behind a number that multiply it."""
_SCALED = rf"(?:[ ]++(?:{'|'.join(SCALES)})\b)?"
# Powers, 2 * 10^3, and thousands with points, 1.200.000, which with one point would be decimals.
_POWER = r"\d+(?:\.\d+)?(?:[ ]*[×x*·][ ]*10)?\^\{?\d{1,2}(?!\d|\.\d)\}?"
_DOTTED = r"\d{1,3}(?:\.\d{3}){2,}(?!\d|[./]\d)"
_QUANTITY = rf"(?:\d+[ ]++\d+/\d+|\d+[ ]*+/[ ]*+\d+(?!\d|[./]\d)|{_POWER}|{_DOTTED}|{DIGITS}(?:[eE][-+]?\d{{1,2}}(?!\w)|{_SCALED}))"
_SPACED = r"\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?![\d/]|-?\w)(?:\.\d+)?"
_STATED = rf"(?:{_SPACED}|{_QUANTITY})"
# Quantifiers that give nothing back (++, *+), or a run of spaces would be shared out among them in all possible ways.
_OPENED = rf"(?:\((?=[ ]*+[$€£]?[ ]*+{_STATED}[ ]*+\)))?"
_NUMBER = rf"(-|(?:[Mm]inus|[Nn]egative)[ ]++)?[ ]*+{_OPENED}[ ]*+\\?[$€£]?[ ]*+(-?)[ ]*+({_STATED})"
_NEARLY = r"(?:(?:about|around|approximately|roughly|nearly|almost|exactly|only|just|[~≈])[ ]*+)?"
_SAID = (
    r"(?:####|^[ *_]*+A:|\b(?:answer|Answer|ANSWER)(?:[ ]++(?:to|for)[ ]++[^\n.:=\d]{1,60}?)?[ *_]*+(?:(?:\bis\b|[:=])[ *_]*+)++|\\boxed\{)"
    rf"[ *_$(]*+(?:\\boxed\{{)?{_NEARLY}"
)
_WORKED_OUT = r"(?:<<)?[\d \t.,()$€£%]{1,60}[-+*/x×÷·^][-\d \t.,()$€£%+*/x×÷·^]{1,60}=\s*"
_STATEMENT = re.compile(rf"{_SAID}\s*+(?:{_WORKED_OUT})?{_NUMBER}", re.MULTILINE)
_ANSWER_LINE = re.compile(
    rf"[*_]{{0,2}}(?:[^\W\d]+,?[ ])?(?:(?:[Tt]he|[Mm]y|[Oo]ur)[ ])?(?:[Ff]inal[ ])?{_SAID}\s*+{_NUMBER}"
    r"\}?[ ]?(?:\\?%)?[*_$)]{0,4}(?:[ ][^\W\d]+){0,3}[.!]?[*_$)]{0,4}"
)
_LABELS = re.compile(r"^[ *_]*B:", re.MULTILINE)
_LAST = re.compile(rf"(?<![\d.])(?:(?<![\w)%.])(-))?[$€£]?(?:(?<=[$€£])(-))?({_QUANTITY})")
_BOX = "\\boxed{"
_NOISE = Fraction(1, 10**9)
"""What a computer's rounding makes of a number, at most."""
_DECIMALS = re.compile(r"-?\d*\.\d+")
_MANY_DECIMALS = re.compile(r"(?<![\w.])\d*\.\d{9,}(?!\w)")


def in_notation(solution: str) -> str:
    """Any solution in the notation that the experts know: equations marked in place, the answer's line last.

    "A: 18" and "**Answer:** 18 eggs" as a last line become "#### 18"; an answer that is stated elsewhere ("so 3 + 4 = 7, and the answer is
    7") gets such a line. Without any statement of an answer the solution stays without. Equations written out are marked in lines that
    have none marked; repetitions of marked ones go (`notation.compact`), and so do a computer's decimals: 17/8.5 = 2.0, 1.6666666666666667.
    """
    text = marked(solution.strip())
    lines = EQUATION.sub(_shortened, compact(text)).splitlines()
    found = _ANSWER_LINE.fullmatch(_plain(lines[-1]).strip()) if lines else None
    if found and not (found[0].lstrip(" *_").startswith("A:") and _LABELS.search(text)):
        lines[-1] = f"{ANSWER}{_number_text(found)}"
    elif lines and not lines[-1].startswith(ANSWER.strip()) and (stated := _statements(text)):
        lines.append(f"{ANSWER}{stated[-1]}")
    return "\n".join(lines)


def _shortened(equation: re.Match[str]) -> str:
    """A marked equation, its numbers with no more decimals than people write."""
    expression, result = equation.groups()
    value, stated = value_of(expression), value_of(result)
    if value is None or stated is None:
        return equation[0]
    if _DECIMALS.fullmatch(result.strip()) and abs(value - stated) <= _NOISE * max(Fraction(1), abs(value)):
        result = min(written_number(value), result.strip(), key=len)
    return f"<<{_MANY_DECIMALS.sub(_few_decimals, expression)}={_MANY_DECIMALS.sub(_few_decimals, result)}>>"


def _few_decimals(number: re.Match[str]) -> str:
    """1.6666666666666667 as 5/3 is written, 1.67."""
    value = Fraction(number[0])
    near = value.limit_denominator(1000)
    return written_number(near if abs(near - value) <= _NOISE else value)


def fractions_in_digits(text: str) -> str:
    """The text with fractions of one character written out: 2½ as 2 1/2."""
    return _FRACTION_SIGN.sub(lambda sign: " " + unicodedata.normalize("NFKC", sign[0]).replace("\u2044", "/"), text)


def _plain(text: str) -> str:
    """The text with plain signs for minus, without LaTeX, and with fractions of one character as 1/2."""
    return without_latex(fractions_in_digits(text.translate(_MINUS)))


def _number_text(found: re.Match[str]) -> str:
    """The number that a match of `_NUMBER` or `_LAST` found, as `evaluate` reads it."""
    minus, other, digits = found.groups("")[-3:]
    sign = "-" if minus or other else ""
    digits, _, scale = digits.replace(",", "").partition(" ") if digits.endswith(tuple(SCALES)) else (digits.replace(",", ""), "", "")
    if re.fullmatch(_DOTTED, digits):
        digits = digits.replace(".", "")
    digits = digits.replace("{", "").replace("}", "")
    digits = re.sub(r"\s", "", digits) if re.fullmatch(_SPACED, digits) else re.sub(r" +", " ", digits)
    if scale or "e" in digits.lower():
        value = Fraction(digits) * SCALES.get(scale.strip(), 1)
        digits = str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"
    return sign + digits


def _statements(text: str) -> list[str]:
    """The numbers that a text says to be its answer, in order. "A:" says so where it is no label beside "B:"."""
    plain = _plain(text)
    labels = _LABELS.search(plain) is not None
    found = _STATEMENT.finditer(plain)
    return [_number_text(each) for each in found if not (labels and each[0].lstrip(" *_").startswith("A:"))]


def final_answer(solution: str) -> Fraction | None:
    """The number that a solution gives as its answer: after the last "####", "A:", "answer is" or in the last box, else its last number.

    Per cent are not divided by 100 ("50%" is 50), "1.2 million" is 1200000. None if there is no number, or only a box with another
    thing than a number in it.
    """
    numbers = _statements(solution)
    if not numbers:
        text = _plain(solution)
        if _BOX in text:
            return None
        numbers = [_number_text(found) for found in _LAST.finditer(text)]
    return value_of(numbers[-1]) if numbers else None
