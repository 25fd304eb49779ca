"""What a question states and asks for, and how a solution uses it: numbers, units, structure. Plain text in, numbers out."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

from pcm_ros.tasks.mathematics.arithmetic import equations, evaluate, final_answer, results_of
from pcm_ros.tasks.mathematics.notation import ANSWER

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:/\d+)?%?|\.\d+")
_OPERAND = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?|\.\d+%?")
_WORD = re.compile(r"[a-z]+")
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS: dict[str, tuple[Fraction, ...]] = {word: (Fraction(value),) for value, word in enumerate(_SMALL.split())}
WORDS |= {word: (Fraction(10 * (k + 2)),) for k, word in enumerate(_TENS.split())}
WORDS |= {
    "half": (Fraction(1, 2), Fraction(2)),
    "halves": (Fraction(1, 2), Fraction(2)),
    "twice": (Fraction(2),),
    "double": (Fraction(2),),
    "doubled": (Fraction(2),),
    "triple": (Fraction(3),),
    "tripled": (Fraction(3),),
    "thrice": (Fraction(3),),
    "third": (Fraction(1, 3), Fraction(3)),
    "thirds": (Fraction(1, 3), Fraction(3)),
    "quarter": (Fraction(1, 4), Fraction(4), Fraction(25)),
    "quarters": (Fraction(1, 4), Fraction(4), Fraction(25)),
    "fourth": (Fraction(1, 4), Fraction(4)),
    "fifth": (Fraction(1, 5), Fraction(5)),
    "tenth": (Fraction(1, 10), Fraction(10)),
    "dozen": (Fraction(12),),
    "dozens": (Fraction(12),),
    "pair": (Fraction(2),),
    "pairs": (Fraction(2),),
    "couple": (Fraction(2),),
    "both": (Fraction(2),),
    "hundred": (Fraction(100),),
    "thousand": (Fraction(1000),),
}
COMMON = frozenset(map(Fraction, (1, 2, 4, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000)))
"""Numbers that a solution may bring in by itself: days of a week, hours, months, cents, per cent, two halves."""
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


def _values(token: str) -> tuple[Fraction, ...]:
    bare = token.rstrip("%").replace(",", "")
    top, _, bottom = bare.partition("/")
    if bottom and int(bottom) == 0:
        return (Fraction(top),)
    value = Fraction(top) / int(bottom or 1)
    if token.endswith("%"):
        return (value / 100, value, 1 - value / 100, 1 + value / 100)
    return (value, Fraction(top), Fraction(bottom)) if bottom else (value,)


@functools.lru_cache(maxsize=4096)
def read_question(text: str) -> Question:
    """Numbers in digits and words, and the words that say what is asked. Any text will do; what is not understood is left out."""
    found = []
    lower = text.lower()
    for match in re.finditer(rf"{_NUMBER.pattern}|[a-z]+", lower):
        token = match[0]
        if token in WORDS:
            found.append(WORDS[token])
        elif not token.isalpha() and len(token) <= 30:
            found.append(_values(token))
    sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s+", lower) if sentence]
    asking = [sentence for sentence in sentences if "?" in sentence] or sentences[-1:]
    asked = frozenset(content_words(asking[-1].rpartition("how")[2] or asking[-1])) if asking else frozenset()
    return Question(
        tuple(found), asked, frozenset(content_words(lower)), "%" in text or "percent" in lower, "$" in text or "dollar" in lower
    )


def content_words(text: str) -> list[str]:
    """Words without plain ones, in lower case, without the plural's s."""
    return [word[:-1] if len(word) > 3 and word.endswith("s") else word for word in _WORD.findall(text.lower()) if word not in PLAIN]


Outcome = tuple[bool, frozenset[Fraction]]
"""Of a line of a solution: whether it is the answer's, and its results, or the answer."""


@functools.lru_cache(maxsize=8192)
def outcome(line: str) -> Outcome | None:
    """What a line of a solution comes to, in whatever words; None = it has neither results nor the answer."""
    if line.startswith(ANSWER.strip()):
        answer = final_answer(line)
        return None if answer is None else (True, frozenset((answer,)))
    results = frozenset(results_of(line))
    return (False, results) if results else None


@dataclass(frozen=True)
class Usage:
    """How a solution, whole or in part, uses its question.

    Attributes:
        lines: steps, the answer's line not counted. equations: their number. wrong: how many do not hold.
        bare: steps without an equation.
        numbers: how many the question has (1 and 0 not counted). unused: how many of them appear in no equation.
        operands: in all equations. unknown: how many are neither in the question, nor an earlier result, nor in `COMMON`.
        idle: results, the last one aside, that no later equation uses. repeated: equations with a result and operands met before.
        complete: whether the answer's line is there.
        answer: the final answer, None if there is none. last: result of the last equation.
        answer_is_last: whether both are equal. on_topic: share of the words asked for that the last step has, 0..1.
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


@functools.lru_cache(maxsize=8192)
def usage(question: str, solution: str) -> Usage:
    """See `Usage`."""
    asked = read_question(question)
    lines = [line for line in solution.strip().splitlines() if line.strip()]
    ending = ("A:", ANSWER.strip())
    steps = [line for line in lines if not line.startswith(ending)]
    complete = len(steps) < len(lines)
    stated = {value for values in asked.numbers for value in values}
    results: list[Fraction] = []
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
            values = [evaluate(token) if len(token) < 60 else Fraction(0) for token in _OPERAND.findall(equation.expression)]
            operands += len(values)
            for value in values:
                unknown += value not in stated and value not in results and value not in COMMON
            used.update(values)
            key = (tuple(sorted(values)), equation.stated)
            repeated += key in met
            met.add(key)
            signs.update(re.findall(r"[+\-*/]", equation.expression.replace("x", "*").replace("×", "*").replace("÷", "/")))
            if equation.stated is not None:
                results.append(equation.stated)
    needed = [values for values in asked.numbers if not {Fraction(0), Fraction(1)} & set(values)]
    unused = sum(1 for values in needed if not used & set(values))
    answer = final_answer(lines[-1]) if complete else None
    last = results[-1] if results else None
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
        sum(1 for result in results[:-1] if result not in used),
        repeated,
        complete,
        answer,
        last,
        answer is not None and answer == last,
        len(words & asked.asked) / max(len(asked.asked), 1),
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
