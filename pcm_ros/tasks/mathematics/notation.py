"""How problems and solutions are written for the language model: one step per line, equations marked, the answer last.

    sold <<48/2=24>> clips in May
    sold <<48+24=72>> clips altogether
    #### 72

It is GSM8K's calculator notation (Cobbe et al., arXiv 2110.14168) without the repetition: "48/2 = <<48/2=24>>24 clips" there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from pcm_ros.tasks.mathematics.arithmetic import value_of

ANSWER = "#### "
EQUATION = re.compile(r"<<([^<>=\n]*)=([^<>=\n]*)>>")
_SHOWN = re.compile(
    r"(?P<before>(?<![\w.])[$€£]?[\d(.][\d\s.,+\-*/x×÷()$%]*=\s*)?(?:(?P<money>[$€£])\s?)?(?P<equation><<[^<>\n]*=[^<>\n]*>>)(?:\s?(?P<after>[\d.,]*\d))?"
)


def prompt(question: str) -> str:
    """What the model is asked to go on from."""
    return f"Question: {' '.join(question.split())}\nAnswer:\n"


def written(steps: Sequence[str], answer: str) -> str:
    """A whole solution: the steps, then the answer."""
    return "\n".join([*steps, f"{ANSWER}{answer}"])


def compact(solution: str) -> str:
    """GSM8K's notation, with each marked equation in place of the one written out before it and the result written out after it.

    A number after it that is neither the result nor a rounding of it stays: <<130000*.15=19500>>195,000 contradicts itself.
    """
    lines = [_SHOWN.sub(_without_repetition, line).strip() for line in solution.strip().splitlines()]
    return "\n".join(" ".join(line.split()) for line in lines if line)


def _without_repetition(shown: re.Match[str]) -> str:
    after = shown["after"] or ""
    marked = EQUATION.fullmatch(shown["equation"])
    result, said = value_of(marked[2]) if marked else None, value_of(after)
    unit = Fraction(1, 10 ** len(after.partition(".")[2]))
    contradicted = result is not None and said is not None and abs(said - result) >= unit
    return f"{shown['money'] or ''}{shown['equation']}{' ' + after if contradicted else ''}"


def display(step: str) -> str:
    """A step for people: "sold <<48/2=24>> clips" becomes "sold 48/2 = 24 clips"."""
    return EQUATION.sub(lambda match: f"{match[1].strip()} = {match[2].strip()}", step)


EXAMPLES = """Question: A baker makes 12 rolls in the morning and 18 in the evening. He sells 25 of them. How many rolls are left?
Answer:
The baker makes <<12+18=30>> rolls.
After selling there are <<30-25=5>> rolls left.
#### 5

Question: Mia has 4 boxes of 6 pens. It is raining for 3 days. How many pens does Mia have?
Answer:
Mia has <<4*6=24>> pens.
#### 24

Question: A ticket costs $15 for adults and half as much for children. How much do 2 adults and 3 children pay?
Answer:
A child's ticket costs $<<15/2=7.5>>.
The adults pay $<<2*15=30>>.
The children pay $<<3*7.5=22.5>>.
Together they pay $<<30+22.5=52.5>>.
#### 52.5

"""
"""Worked examples that show the notation to a model without an adapter."""
