"""How problems and solutions are written for the language model: one step per line, equations marked, the answer last.

    sold <<48/2=24>> clips in May
    sold <<48+24=72>> clips altogether
    #### 72

It is GSM8K's calculator notation (Cobbe et al., arXiv 2110.14168) without the repetition: "48/2 = <<48/2=24>>24 clips" there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

ANSWER = "#### "
EQUATION = re.compile(r"<<([^<>=\n]*)=([^<>=\n]*)>>")
_SHOWN = re.compile(
    r"(?P<before>(?<![\w.])[$€£]?[\d(.][\d\s.,+\-*/x×÷()$%]*=\s*)?(?P<money>[$€£]?)\s?(?P<equation><<[^<>\n]*=[^<>\n]*>>)\s?(?P<after>[\d.,]*\d)?"
)


def prompt(question: str) -> str:
    """What the model is asked to go on from."""
    return f"Question: {' '.join(question.split())}\nAnswer:\n"


def written(steps: Sequence[str], answer: str) -> str:
    """A whole solution: the steps, then the answer."""
    return "\n".join([*steps, f"{ANSWER}{answer}"])


def compact(solution: str) -> str:
    """GSM8K's notation, with each marked equation in place of the one written out before it and the result written out after it."""
    lines = [_SHOWN.sub(r"\g<money>\g<equation>", line).strip() for line in solution.strip().splitlines()]
    return "\n".join(" ".join(line.split()) for line in lines if line)


def display(step: str) -> str:
    """A step for people: "sold <<48/2=24>> clips" becomes "sold 48/2 = 24 clips"."""
    return EQUATION.sub(lambda match: f"{match[1].strip()} = {match[2].strip()}", step)
