"""Equations of solutions: the marked ones, <<48/2=24>>, those written out in plain text, and what a marked one that was opened comes to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from pcm_ros.tasks.mathematics.arithmetic import DIGITS, value_of, written_number
from pcm_ros.tasks.mathematics.latex import unframed, without_latex
from pcm_ros.tasks.mathematics.notation import EQUATION

LONGEST_SEARCHED = 10_000
"""Characters of a text in which equations written out are looked for."""
_OPEN = re.compile(r"<<([^<>=\n]*)=$")
_ROUNDED = re.compile(r"[-–−\s$€£]*[\d.,]+\s*%?")
# Letters glued to a number make it one with a unit, 10ml, which only a result may have; the sign of multiplication does not, 3x4.
_TOKEN = re.compile(
    rf"""(?P<number>(?:\d+[ ]+\d+/\d+|{DIGITS})(?:[ ]?%)?(?:(?![.,]?[^\W_])|(?=[xX][ ]*[\d($€£.])))
    |(?P<glued>{DIGITS})(?=[^\W\d_])(?![eE][-+]?\d|[xX]\b)
    |(?P<operator>\*\*|[-–−+*/×·÷^%]|[xX](?=[ ]*[\d($€£.]))
    |(?P<open>\()|(?P<close>\))|(?P<currency>[$€£])
    |(?P<equals>(?<![<>!=~])=(?!=))
    |(?P<word>\w+)|(?P<line>\n)|(?P<other>\S)""",
    re.VERBOSE,
)
_CUTS = frozenset(["of", "times", "plus", "minus", "by", "over", "per", "less", "than"])
"""Words behind which a number is the operand of an operation that began before it."""
_GOES_ON = frozenset(["times", "plus", "minus", "divided", "multiplied"])
"""Words behind a number that make it the first operand of something else."""
_HAS_OPERATOR = re.compile(r"[\d)%.]\s*(?:[-–−+*/×·÷^xX]|\()")
_STATED = re.compile(rf"[-–−]?\s*[$€£]?\s*[-–−]?\s*(?:\d+ +\d+/\d+|\d+\s*/\s*\d+|{DIGITS})\s?%?")
# Thousands with spaces are one number only where an equation goes on on either side: "in 2 100 + 5 = 105" has a 100.
_THOUSANDS = re.compile(r"(?<![\d.,/])\d{1,3}(?:[ \u00a0\u2009\u202f]\d{3})+(?![\d/]|-?\w|[.,]\d)")
_RESULT = re.compile(r"=[ ]*[$€£]?$")
_BEFORE = re.compile(r"(?:^|[-–−+*/x×÷(])[ ]*[$€£]?$")
_BEHIND = re.compile(r"[ ]*(?:[-–−+*/x×÷=)]|$)")
_REMAINDER = re.compile(r"[ ,]*(?:(?:with|and)[ ])?(?:an?[ ])?(?:remainder\b|rem\b|[rR][ ]?\d)")
_LEADING = re.compile(rf"[-–−]?\s*[$€£]?\s*[-–−]?{DIGITS}")


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
        """Both sides agree to the digits written: 1/3 = 0.33 does, 1/3 = 0.3 too, 10/3 = 3 does; a fraction is exact.

        Half a unit of the last decimal may go either way, 1/32 = 0.0312 and 0.0313; of a whole number it may not: 7/2 = 3 does not hold.
        What is not 0 is not rounded to 0.
        """
        if self.value is None or not self.stated or not _ROUNDED.fullmatch(self.result):
            return self.exact
        written = len(re.sub(r"[^\d.]", "", self.result).partition(".")[2])
        half = Fraction(1, 2 * 10 ** (written + (2 if "%" in self.result else 0)))
        distance = abs(self.value - self.stated)
        return distance < half or (distance == half and written > 0) or self.exact


class _Token(NamedTuple):
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class _WrittenOut:
    """An equation without marks: where it stands in the text, and its sides."""

    start: int
    end: int
    expression: str
    result: str


def equations(text: str) -> tuple[Equation, ...]:
    """The equations of a step or a solution: of each line the marked ones, <<48/2=24>>, or, where none is marked, those written out.

    Of those written out, 48/2 = 24, only the ones that stand there whole: what a word interrupts (12 eggs - 4 = 8, x + 5 = 12) is none.
    A division with a remainder, 7/2 = 3 remainder 1, has the value 3.
    """
    found = []
    for line in map(_in_plain_signs, text.splitlines()):
        marked_ones = [(match[1], match[2], match.end()) for match in EQUATION.finditer(line)]
        for left, right, end in marked_ones or [(each.expression, each.result, each.end) for each in _written_out(line)]:
            value, stated = value_of(left), value_of(right)
            if value is not None and stated == value // 1 and _REMAINDER.match(line, end):
                value = stated
            found.append(Equation(left.strip(), right.strip(), value, stated))
    return tuple(found)


def _in_plain_signs(line: str) -> str:
    """A line without LaTeX, and with the numbers of its equations in one piece: $80 000 x 2 as $80000 x 2."""
    line = unframed(without_latex(line))
    if "=" not in line:
        return line
    parts, place = [], 0
    for number in _THOUSANDS.finditer(line):
        before = line[max(0, number.start() - 10) : number.start()]
        if _RESULT.search(before) or (_BEFORE.search(before) and _BEHIND.match(line, number.end())):
            parts += [line[place : number.start()], re.sub(r"\s", "", number[0])]
            place = number.end()
    return "".join(parts) + line[place:]


def _written_out(text: str) -> list[_WrittenOut]:
    """The equations without marks, in order; of a chain, 2 + 3 = 5 + 4 = 9, each link, so that two may share their number."""
    text = text[:LONGEST_SEARCHED]
    tokens = [_Token(str(match.lastgroup), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    found = []
    for place, token in enumerate(tokens):
        if token.kind != "equals":
            continue
        left = _left_side(text, tokens, place)
        if left is None:
            continue
        expression = text[left[0].start : left[-1].end]
        value = value_of(expression)
        right, goes_on = _right_side(text, tokens, place)
        if value is None or not right or not _HAS_OPERATOR.search(expression):
            continue
        begin, end = right[0].start, right[-1].end
        if goes_on or not _STATED.fullmatch(text[begin:end]):
            # 2 + 3 = 5 + 4 goes on with the result; 2 * (3 + 4) = 2 * 7 says it in another way, and its own result comes later
            leading = _LEADING.match(text[begin:end])
            if leading is None or value_of(leading[0]) != value:
                continue
            end = begin + leading.end()
        found.append(_WrittenOut(left[0].start, end, expression, text[begin:end]))
    return found


_ARITHMETIC = frozenset(("number", "operator", "open", "close", "currency"))


def _apart(first: _Token, second: _Token) -> bool:
    """Whether two neighbours are no parts of one expression: two numbers in a row, a number behind a bracket."""
    return second.kind in ("number", "glued", "currency") and first.kind in ("number", "close")


def _left_side(text: str, tokens: Sequence[_Token], place: int) -> list[_Token] | None:
    """The expression in front of the equals sign at `place`; None if there is none, or only the end of one."""
    first = place
    while first > 0 and tokens[first - 1].kind in _ARITHMETIC and not (first < place and _apart(tokens[first - 1], tokens[first])):
        first -= 1
    unmatched = 0
    for row in range(place - 1, first - 1, -1):  # "(3 + 4 = 7)": the bracket is none of the expression
        unmatched += {"close": 1, "open": -1}.get(tokens[row].kind, 0)
        if unmatched < 0:
            first = row + 1
            break
    last = place
    if last > first and _is_bold(text, tokens[last - 1]):
        last -= 1
    if first < last and (_is_bold(text, tokens[first]) or _is_bullet(text, tokens, first)):
        first += 1
    elif first < last and tokens[first].kind == "operator" and not _is_sign(text, tokens, first):
        return None  # "12 eggs - 4 = 8"
    word = text[tokens[first - 1].start : tokens[first - 1].end] if first > 0 else ""
    if first >= last or word.lower() in _CUTS or word in ("<", ">", "\\", "~"):
        return None
    return list(tokens[first:last])


def _is_bold(text: str, token: _Token) -> bool:
    """Whether it is a mark of bold type: "**3 + 4 = 7**", not "2 ** 3"."""
    spaced_before = token.start == 0 or text[token.start - 1].isspace()
    spaced_after = token.end == len(text) or text[token.end].isspace()
    return text[token.start : token.end] == "**" and spaced_before != spaced_after


def _is_bullet(text: str, tokens: Sequence[_Token], row: int) -> bool:
    """Whether the token marks an item of a list: "- 3 + 4 = 7" at the start of a line."""
    starts = row == 0 or tokens[row - 1].kind == "line"
    return starts and text[tokens[row].start : tokens[row].end] in "-–*+·" and text[tokens[row].end : tokens[row].end + 1].isspace()


def _is_sign(text: str, tokens: Sequence[_Token], row: int) -> bool:
    """Whether the operator with which an expression begins is the sign of its first number."""
    alone = row == 0 or tokens[row - 1].kind in ("equals", "line", "other", "open")
    return alone and text[tokens[row].start : tokens[row].end] in "-–−" and tokens[row].end == tokens[row + 1].start


def _right_side(text: str, tokens: Sequence[_Token], place: int) -> tuple[list[_Token], bool]:
    """The expression behind the equals sign at `place`, an empty list if there is none; whether words go on calculating with it."""
    side: list[_Token] = []
    opened, goes_on = 0, False
    for token in tokens[place + 1 :]:
        opened += {"open": 1, "close": -1}.get(token.kind, 0)
        if token.kind == "glued" and not (side and _apart(side[-1], token)):
            side.append(token)
            break
        if token.kind not in _ARITHMETIC or opened < 0 or (side and _apart(side[-1], token)):
            goes_on = text[token.start : token.end].lower() in _GOES_ON
            break
        if side or not _is_bold(text, token):
            side.append(token)
    while side and side[-1].kind in ("operator", "open", "currency"):  # "= 24 (in May)", "= 24 - so"
        side.pop()
    return side, goes_on


def results_of(text: str) -> list[Fraction]:
    """The results of the equations of a solution, whole or in part, as they are stated; those without a value are left out."""
    return [equation.stated for equation in equations(text) if equation.stated is not None]


def marked(text: str) -> str:
    """The text, the equations of lines that have none marked put in marks, such lines without LaTeX."""
    return "\n".join(line if EQUATION.search(line) else _marked(line) for line in text[:LONGEST_SEARCHED].splitlines())


def _marked(line: str) -> str:
    plain = _in_plain_signs(line)
    parts, place = [], 0
    for found in _written_out(plain):
        # links of a chain share a number: each gets its own marks
        parts.append(plain[place : found.start] if found.start >= place else " ")
        parts.append(f"<<{found.expression.strip()}={found.result.strip()}>>")
        place = found.end
    return "".join(parts) + plain[place:] if parts else line


def calculator(line: str) -> str | None:
    """What comes after the equals sign of a marked equation that was just opened, "24>>"; None if there is none, or it has no value.

    The generator's `filled_in`: the model chooses what to calculate, and this does it (Cobbe et al., arXiv 2110.14168, appendix C).
    """
    opened = _OPEN.search(line)
    value = value_of(opened[1]) if opened else None
    return None if value is None else f"{written_number(value)}>>"
