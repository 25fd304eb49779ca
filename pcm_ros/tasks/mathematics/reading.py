"""What a question states and asks for, and how a solution uses it: numbers, units, structure. Plain text in, numbers out."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from pcm_ros.tasks.mathematics.answers import SCALES, final_answer
from pcm_ros.tasks.mathematics.arithmetic import evaluate
from pcm_ros.tasks.mathematics.equations import equations
from pcm_ros.tasks.mathematics.notation import ANSWER

_OPERAND = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?|\.\d+%?")
_SIGN = re.compile(r"(?:^|[-–−+*/x×·÷^(])[\s$€£]*[-–−][\s$€£(]*$")
_QUOTIENT = re.compile(r"(?<![\d.,/÷^])(?P<mixed>\d+ +)?(?P<top>\d+)\s*[/÷]\s*(?P<bottom>\d+)(?![\d.,%]*\d|%)")
_WORD = re.compile(r"[a-z]+")
# Numbers in digits, mixed ones (1 1/2) and fractions included, and words; per cent belong to either.
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_PER_CENT = re.compile(r"[ -]?(?:%|per[ ]?cents?\b)")
_READ = re.compile(rf"(?P<whole>\d+)[ ]+(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])|(?P<number>(?:{_DIGITS})(?:/\d+)?)|(?P<word>[a-z]+)")
_JOINED = re.compile(r"[ -]|[ ]and[ ]|-and-")
_LONGEST_NUMBER = 30  # characters; what is longer is none that is reckoned with
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_CARDINALS = {word: value for value, word in enumerate(_SMALL.split())}
_CARDINALS |= {word: 10 * (place + 2) for place, word in enumerate(_TENS.split())}
_CARDINALS |= {"hundred": 100, **SCALES}
_PARTS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
WORDS: dict[str, tuple[Fraction, ...]] = {
    "half": (Fraction(1, 2), Fraction(2)),
    "halves": (Fraction(1, 2), Fraction(2)),
    "twice": (Fraction(2),),
    "double": (Fraction(2),),
    "doubled": (Fraction(2),),
    "triple": (Fraction(3),),
    "tripled": (Fraction(3),),
    "thrice": (Fraction(3),),
    "quarter": (Fraction(1, 4), Fraction(4), Fraction(25)),
    "quarters": (Fraction(1, 4), Fraction(4), Fraction(25)),
    "dozen": (Fraction(12),),
    "dozens": (Fraction(12),),
    "pair": (Fraction(2),),
    "pairs": (Fraction(2),),
    "couple": (Fraction(2),),
    "both": (Fraction(2),),
}
WORDS |= {word + plural: (Fraction(1, part), Fraction(part)) for part, word in enumerate(_PARTS.split(), 3) for plural in ("", "s")}
"""Words that say a number by themselves, and what it may be; cardinal numbers are read by `_Cardinal`."""
COMMON = frozenset((Fraction(1, 100), *map(Fraction, (1, 2, 4, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000))))
"""Numbers that a solution may bring in by itself: days of a week, hours, months, cents, per cent (50 * .01), two halves."""
_PLAIN = """
a an the of in on at to for from with and or is are was were be been has have had does do did how many much what when where which who if
then than there their his her its they he she it each every all more less fewer left now total altogether by as that this will would can not
no so per one some get gets
"""
PLAIN = frozenset(_PLAIN.split())
"""Words that say nothing about what a sentence is about."""


@dataclass(frozen=True)
class Question:
    """What was read of a question.

    Attributes:
        numbers: in order of appearance, each as the values that it may stand for ("half": 1/2 or 2; 20%: 1/5 or 20).
        asked: words of the sentence that asks, without plain ones.
        words: of the whole question, likewise.
        per_cent: whether it speaks of per cent. money: of money.
    """

    numbers: tuple[tuple[Fraction, ...], ...]
    asked: frozenset[str]
    words: frozenset[str]
    per_cent: bool
    money: bool


class _Cardinal:
    """A cardinal number in words, word by word: two hundred and fifty-one thousand."""

    def __init__(self, word: str) -> None:
        self._total = 0  # of the groups that "thousand" and the like have closed
        self._group: int | None = None  # of the open one
        self._last = 0
        self._scale = 10**12  # the least one so far
        self._several = False  # whether it has more than one word
        self._take(word)

    def goes_on(self, word: str, spaced: bool, linked: bool) -> bool:
        """Take another word in, if it belongs to the number; whether it does.

        Args:
            spaced: whether no hyphen is between them. linked: whether one follows, as in "twenty five-dollar notes", of which there are 20.
        """
        value = _CARDINALS[word]
        closed = self._last in SCALES.values()
        if value == 0 or self._last == 0:
            fits = False
        elif value in SCALES.values():
            fits = not closed and value < self._scale
        elif value == 100:
            fits = self._group is not None and self._group < 100 and self._group % 10 != 0
        elif value < 10 and 20 <= self._last < 100:
            fits = not (spaced and linked)
        else:
            fits = closed or self._last == 100
        if fits:
            self._several = True
            self._take(word)
        return fits

    def after_and(self) -> bool:
        """Whether "and" may come next: two hundred and five, but neither five and six nor twenty and five."""
        return self._last == 100 or self._last in SCALES.values()

    def _take(self, word: str) -> None:
        value = _CARDINALS[word]
        if value in SCALES.values():
            self._total += (1 if self._group is None else self._group) * value
            self._group, self._scale = None, value
        elif value == 100:
            self._group = (1 if self._group is None else self._group) * 100
        else:
            self._group = (self._group or 0) + value
        self._last = value

    @property
    def values(self) -> tuple[Fraction, ...]:
        """What it may stand for: of two million also the 2, since people go on calculating in millions."""
        whole = Fraction(self._total + (self._group or 0))
        if self._several and self._last >= 10**6 and whole % self._last == 0 and whole != self._last:
            return (whole, whole / self._last)
        return (whole,)


def _fraction(top: str, bottom: str) -> tuple[Fraction, ...]:
    """1/2, or 1, or 2: the whole and its parts; the top alone where there is nothing to divide by."""
    value = Fraction(top.replace(",", ""))
    if not bottom or int(bottom) == 0:
        return (value,)
    return (value / int(bottom), value, Fraction(bottom))


def _per_cent(values: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    value = values[0]
    return (value / 100, value, 1 - value / 100, 1 + value / 100)


def _numbers(text: str) -> list[tuple[Fraction, ...]]:
    """The numbers of a text in lower case, in digits and words, each as what it may stand for."""
    found: list[tuple[Fraction, ...]] = []
    cardinal: _Cardinal | None = None  # the last number, if it is in words and may go on
    digits = False  # whether the last one is in digits, and may be followed by "million"
    end = 0  # of the last one
    for match in _READ.finditer(text):
        word, between = match["word"], text[end : match.start()]
        if word == "and":
            continue  # it is looked at with what follows
        joined = _JOINED.fullmatch(between) is not None
        if word in _CARDINALS:
            linked = text[match.end() : match.end() + 1] == "-" and text[match.end() + 1 : match.end() + 2].isalpha()
            if digits and between in (" ", "-") and word in ("hundred", *SCALES):
                found[-1], digits = (found[-1][0] * _CARDINALS[word], *found[-1]), False
            elif cardinal and joined and ("and" not in between or cardinal.after_and()) and cardinal.goes_on(word, between != "-", linked):
                found[-1] = cardinal.values
            else:
                cardinal, digits = _Cardinal(word), False
                found.append(cardinal.values)
        else:
            cardinal, digits = None, False
            if len(match[0]) > _LONGEST_NUMBER or (word is not None and word not in WORDS):
                continue
            if word is not None:
                found.append(WORDS[word])
            elif match["whole"]:
                whole, part = Fraction(match["whole"]), _fraction(match["top"], match["bottom"])
                found.append((whole + part[0], whole, *part) if len(part) > 1 else (whole, *part))
            else:
                top, _, bottom = match["number"].partition("/")
                found.append(_fraction(top, bottom))
                digits = not bottom
        end = match.end()
        if _PER_CENT.match(text, end):
            found[-1], cardinal, digits = _per_cent(found[-1]), None, False
    return found


@functools.lru_cache(maxsize=4096)
def read_question(text: str) -> Question:
    """Numbers in digits and words, and the words that say what is asked. Any text will do; what is not understood is left out."""
    lower = text.lower()
    found = _numbers(lower)
    sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s+", lower) if sentence]
    asking = [sentence for sentence in sentences if "?" in sentence] or sentences[-1:]
    asked = frozenset(content_words(asking[-1].rpartition("how")[2] or asking[-1])) if asking else frozenset()
    per_cent = any(sign in lower for sign in ("%", "percent", "per cent"))
    return Question(tuple(found), asked, frozenset(content_words(lower)), per_cent, "$" in text or "dollar" in lower)


def content_words(text: str) -> list[str]:
    """Words without plain ones, in lower case, without the plural's s."""
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in _WORD.findall(text.lower()) if word not in PLAIN]


@dataclass(frozen=True)
class Usage:
    """How a solution, whole or in part, uses its question.

    Attributes:
        lines: steps, the answer's line not counted. equations: their number. wrong: how many do not hold.
        bare: steps without an equation.
        numbers: how many the question has (1 and 0 not counted, of 1/4 the 1/4 is). unused: how many of them appear in no equation.
        operands: in all equations. unknown: how many are neither in the question, nor an earlier result, nor in `COMMON`.
        idle: results, the last one aside, that no later equation uses. repeated: equations with a result and operands met before.
        complete: whether nothing comes after it.
        answer: the final answer of a complete solution, None if there is none. last: result of the last equation.
        answer_is_last: whether both are equal, per cent and millions taken into account.
        on_topic: share of the words asked for that the last step has, 0..1; 1 where only plain words ask ("How many are left?").
    """

    lines: int
    equations: int
    wrong: int
    bare: int
    numbers: int
    unused: int
    operands: int
    unknown: int
    idle: int
    repeated: int
    complete: bool
    answer: Fraction | None
    last: Fraction | None
    answer_is_last: bool
    on_topic: float
    signs: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Operands:
    """The numbers of an expression.

    Attributes:
        readings: of each number what it may be: 20% is 1/5, and the 20 of the question; -3 is -3, and the 3 degrees below zero there.
        wholes: fractions and mixed numbers, and the places in `readings` of their parts: of 2*1/2 the 1/2, places 1 and 2.
    """

    readings: tuple[tuple[Fraction, ...], ...]
    wholes: tuple[tuple[Fraction, frozenset[int]], ...]


def _operands(expression: str) -> _Operands:
    found = list(_OPERAND.finditer(expression))
    readings = []
    for match in found:
        value = evaluate(match[0]) if len(match[0]) < 60 else Fraction(0)
        values = (value, value * 100) if match[0].endswith("%") else (value,)
        negative = _SIGN.search(expression[: match.start()]) is not None
        readings.append((*(-each for each in values), *values) if negative else values)
    wholes = []
    for match in _QUOTIENT.finditer(expression):
        parts = frozenset(place for place, part in enumerate(found) if match.start() <= part.start() < match.end())
        if len(match[0]) < 60 and int(match["bottom"]):
            sign = -1 if _SIGN.search(expression[: match.start()]) else 1
            wholes.append((sign * (int(match["mixed"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))), parts))
    return _Operands(tuple(readings), tuple(wholes))


def _is_last(answer: Fraction | None, said: str, last: tuple[Fraction, ...]) -> bool:
    """Whether an answer, said in this line, is the last result. last: its readings, of which an answer in per cent is 100."""
    units = [1, *(100 for sign in ("%", "percent", "per cent") if sign in said), *(size for word, size in SCALES.items() if word in said)]
    return answer is not None and any(answer == value * unit for value in last for unit in units)


@functools.lru_cache(maxsize=8192)
def usage(question: str, solution: str, complete: bool | None = None) -> Usage:
    """See `Usage`.

    Args:
        complete: whether nothing comes after it; None = if it has an answer's line. Without such a line a complete solution's answer is
            what `final_answer` finds in it.
    """
    asked = read_question(question)
    lines = [line for line in solution.strip().splitlines() if line.strip()]
    endings = [line for line in lines if line.startswith(ANSWER.strip())] or [line for line in lines[-1:] if line.startswith("A:")]
    steps = [line for line in lines if line not in endings]
    if complete is None:
        complete = bool(endings)
    stated = {value for values in asked.numbers for value in values}
    results: list[tuple[Fraction, ...]] = []
    known = stated | COMMON
    used: set[Fraction] = set()
    met: set[tuple[tuple[Fraction, ...], Fraction | None]] = set()
    count = wrong = bare = operands = unknown = repeated = 0
    signs: Counter[str] = Counter()
    for line in steps:
        found = equations(line)
        bare += not found
        for equation in found:
            count += 1
            wrong += not equation.holds
            numbers = _operands(equation.expression)
            operands += len(numbers.readings)
            parts = {place for whole, places in numbers.wholes if whole in known for place in places}
            unknown += sum(1 for place, values in enumerate(numbers.readings) if place not in parts and not known & set(values))
            used.update(*numbers.readings, (whole for whole, _ in numbers.wholes))
            key = (tuple(sorted(values[0] for values in numbers.readings)), equation.stated)
            repeated += key in met
            met.add(key)
            signs.update(re.findall(r"[+\-*/]", equation.expression.replace("x", "*").replace("×", "*").replace("÷", "/")))
            if equation.stated is not None:
                result = equation.stated
                results.append((result, result * 100) if "%" in equation.result else (result,))
                known = known.union(results[-1])
    needed = [values for values in asked.numbers if values[0] not in (0, 1)]
    unused = sum(1 for values in needed if not used & set(values))
    answer = final_answer(endings[-1] if endings else solution) if complete else None
    last = results[-1][0] if results else None
    words = set(content_words(steps[-1])) if steps else set()
    return Usage(
        len(steps),
        count,
        wrong,
        bare,
        len(needed),
        unused,
        operands,
        unknown,
        sum(1 for readings in results[:-1] if not used & set(readings)),
        repeated,
        complete,
        answer,
        last,
        bool(results) and _is_last(answer, lines[-1], results[-1]),
        len(words & asked.asked) / len(asked.asked) if asked.asked else 1.0,
        (signs["+"], signs["-"], signs["*"], signs["/"]),
    )


FEATURES = 26


def structure(question: str, solution: str) -> tuple[float, ...]:
    """(26,) numbers of moderate size that describe a solution, whole or in part, beside its question: input of a verifier."""
    asked, use = read_question(question), usage(question, solution)
    answer = use.answer if use.answer is not None else use.last
    largest = max((abs(float(value)) for values in asked.numbers for value in values[:1]), default=1.0)
    size = math.log10(1 + abs(float(answer))) if answer is not None else 0.0
    return (
        use.lines / 5,
        use.equations / 5,
        min(use.wrong, 3) / 3,
        use.bare / 5,
        use.numbers / 5,
        use.unused / 3,
        use.unused / max(use.numbers, 1),
        use.unknown / max(use.operands, 1),
        use.idle / 3,
        min(use.repeated, 3) / 3,
        float(use.complete),
        float(use.answer_is_last),
        use.on_topic,
        *(sign / 4 for sign in use.signs),
        float(answer is not None),
        float(answer is not None and answer.denominator == 1),
        float(answer is not None and answer < 0),
        size / 3,
        (size - math.log10(1 + largest)) / 3,
        float(answer is not None and any(answer in values for values in asked.numbers)),
        float(asked.per_cent),
        float(asked.money),
        (use.equations - use.numbers) / 5,
    )
