"""What a question asks, as far as a few patterns of English can tell; whatever they do not fit is an open question."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Asks = Literal["colour", "kind", "object", "count", "yes_no", "open"]
Motion = Literal["", "moves", "still", "first", "last"]
Side = Literal["", "left", "right", "on", "in", "leftmost", "rightmost"]

LONGEST_QUESTION = 500
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ANYTHING = frozenset({"", "object", "thing", "item", "one", "something", "anything"})

_MOVES = (
    r"(?:moves?|moved|is moving|is (?:being )?(?:moved|pushed|lifted|picked up|carried|slid|raised)"
    r"|(?:the )?(?:robot|hand|arm|person) (?:moves|picks up|lifts|pushes|carries))"
)
_STILL = r"(?:does not move|doesn't move|stays(?: still| where it is)?|stands still|is not moved|is still)"
_THAT = rf"(?: (?:that |which )?(?P<motion>{_MOVES}|{_STILL}))?"
_WHEN = r"(?: (?P<when>at the end|in the end|at the start|at the beginning|first|last|in the (?:video|clip|scene)))?"
_SIDES = {
    "left": r"(?:to the left of|left of)",
    "right": r"(?:to the right of|right of)",
    "on": r"(?:on top of|on|upon)",
    "in": r"(?:inside|in|within)",
}
_SIDE = r"(?P<side>" + "|".join(_SIDES.values()) + ")"
_A = r"(?:the |a |an |any )?"
_PATTERNS: tuple[tuple[Asks, str], ...] = (
    ("colour", rf"what colou?r (?:is|was|has) {_A}(?P<noun>.+?){_THAT}{_WHEN}"),
    ("count", rf"how many (?P<noun>.+?) (?:(?P<motion>{_MOVES}|move|do not move|{_STILL})|are .*|can .*|do .*){_WHEN}"),
    ("object", r"(?:which|what) (?P<noun>.+?) (?:is|stands) (?:the )?(?:farthest|furthest|most) (?:to the )?(?P<far>left|right)" + _WHEN),
    ("object", rf"(?:which|what) (?P<noun>\w+ )?(?:is|stands|lies) {_SIDE} {_A}(?P<anchor>.+?){_WHEN}"),
    (
        "kind",
        rf"what (?:kind|sort|type) of (?:object|thing|item) is {_A}(?P<noun>.+?){_THAT}{_WHEN}",
    ),
    ("object", rf"(?:which|what) (?P<noun>[\w ]+? )?(?P<motion>{_MOVES}|{_STILL}){_WHEN}"),
    (
        "object",
        r"(?:which|what) (?P<noun>[\w ]+ )?does (?:the )?(?:robot|hand|arm|person) (?P<motion>move|pick up|lift|push|carry)" + _WHEN,
    ),
    ("yes_no", rf"(?:is|are) there {_A}(?P<noun>.+?){_WHEN}"),
    ("yes_no", rf"(?:does|did|do) {_A}(?P<noun>.+?) (?P<motion>move|stay|stand still){_WHEN}"),
    ("yes_no", rf"(?:is|was) {_A}(?P<noun>.+?) (?P<motion>moved|moving|lifted|pushed|carried|picked up){_WHEN}"),
    ("yes_no", rf"(?:is|was) {_A}(?P<noun>.+?) {_SIDE} {_A}(?P<anchor>.+?){_WHEN}"),
    ("yes_no", r"(?:is|are|was|were|does|do|did|has|have|can|could|will) .*"),
)


class UnusableQuestion(ValueError):
    """A question that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Reading:
    """What is asked.

    Attributes:
        asks: for a colour, a kind of thing, a thing, a number, yes or no, or something that no pattern fits ("open").
        noun: what it is about, in the singular, without article; "" = anything.
        motion: what the thing does; "first" and "last" of those that move.
        side: where it is of the `anchor`; "leftmost" and "rightmost" need none.
        at_end: whether places at the end count, else at the start.
        known: whether the text was understood in full: of a question of yes or no that was not, only the form of its answer is known.
    """

    asks: Asks
    noun: str = ""
    motion: Motion = ""
    side: Side = ""
    anchor: str = ""
    at_end: bool = True
    known: bool = True

    def phrase(self, answer: str) -> str:
        """What the thing is called if this answer is right: "mug" and "red" are a "red mug"."""
        words = bare(answer)
        if self.asks == "colour":
            return f"{words} {self.noun or 'object'}"
        if self.asks == "kind":
            colour = " ".join(word for word in self.noun.split() if word not in ANYTHING)
            return words if set(colour.split()) & set(words.split()) else f"{colour} {words}".strip()
        return words


def checked_question(text: str) -> str:
    """The question on one line; control characters and line breaks, which could look like a second question, are spaces.

    Raises:
        UnusableQuestion: empty, or longer than 500 characters.
    """
    question = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not question:
        raise UnusableQuestion(f"the question is empty; allowed: 1..{LONGEST_QUESTION} characters of text")
    if len(question) > LONGEST_QUESTION:
        raise UnusableQuestion(
            f"the question has {len(question)} characters; allowed: 1..{LONGEST_QUESTION}; remedy: ask one thing at a time"
        )
    return question


def read_question(text: str) -> Reading:
    """What a question asks. Never fails: what fits no pattern is "open"."""
    question = re.sub(r"[?.!\s]+$", "", text.lower().replace("grey", "gray")).strip()
    for asks, pattern in _PATTERNS:
        found = re.fullmatch(pattern, question)
        if found is None:
            continue
        parts = {name: (value or "").strip() for name, value in found.groupdict().items()}
        when = parts.get("when", "")
        side = next((name for name, words in _SIDES.items() if re.fullmatch(words, parts.get("side", ""))), "")
        if parts.get("far"):
            side = {"left": "leftmost", "right": "rightmost"}[parts["far"]]
        said = parts.get("motion", "")
        motion = "" if not said else "still" if re.search(r"not|n't|stay|still", said) else "moves"
        if motion == "moves" and when in ("first", "last"):
            motion = when
        noun = singular(parts.get("noun", "")) if asks == "count" else parts.get("noun", "")
        return Reading(
            asks,
            "" if bare(noun) in ANYTHING else bare(noun),
            motion,  # type: ignore[arg-type]
            side,  # type: ignore[arg-type]
            bare(parts.get("anchor", "")),
            when not in ("at the start", "at the beginning"),
            "noun" in parts,
        )
    return Reading("open", known=False)


def bare(words: str) -> str:
    """Without articles and punctuation, in lower case, one spelling of gray."""
    kept = re.sub(r"[^\w\s'-]", " ", words.lower()).split()
    while kept and kept[0] in ("the", "a", "an"):
        kept = kept[1:]
    return " ".join("gray" if word == "grey" else word for word in kept)


def singular(noun: str) -> str:
    """Of regular plurals."""
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun[:-2] if noun.endswith(("xes", "ches", "shes")) else noun[:-1]
    return noun


def number_of(answer: str) -> int | None:
    """The number that an answer says, 0..99; None: it says none."""
    words = bare(answer)
    if words in ("none", "no", "nothing"):
        return 0
    if words in NUMBERS:
        return NUMBERS.index(words)
    return int(words) if re.fullmatch(r"\d{1,2}", words) else None


def truth_of(answer: str) -> bool | None:
    """Yes or no; None: neither."""
    return {"yes": True, "no": False}.get(bare(answer))


def normalised(answer: str) -> str:
    """For comparison: bare words, numbers as digits."""
    number = None if bare(answer) in ("no", "nothing") else number_of(answer)
    return bare(answer) if number is None else str(number)
