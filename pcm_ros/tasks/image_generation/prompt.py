"""What a prompt asks for: concepts that shall and that shall not be in the picture, and the things that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 300
MOST_CONCEPTS = 6
MOST_ALIKE = 4
_BETWEEN = re.compile(
    r"\b(?:to the (?:left|right) of|on the (?:left|right) of|(?:left|right) of|in front of|on top of|stacked on|next to|inside of|inside"
    r"|behind|under|beside|near|between|above|below|with|and|in|on)\b|[,;.]"
)
_RELATIONS = {
    "left of": "left",
    "right of": "right",
    "in front of": "front",
    "behind": "behind",
    "on top of": "on",
    "stacked on": "on",
    "on": "on",
    "in": "in",
    "inside": "in",
    "inside of": "in",
}
_NUMBERS = {"two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4}
_LEADING = re.compile(r"^(?:(?:a|an|the|one|two|three|four|[1-4]|some|picture of|photo of)\s+)+")
_PLACES = frozenset({"table", "picture", "left", "right", "front", "background", "it", "top"})


class UnusablePrompt(ValueError):
    """A prompt that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Relation:
    """How a thing of a prompt stands to another: numbers in `Prompt.things`, and "left", "right", "front", "behind", "on" or "in"."""

    subject: int
    word: str
    object: int


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        text: on one line. wanted: 1..6 concepts, each a prompt of its own. avoided: concepts that shall not be in the picture.
        things: phrases of the single things in `wanted` ("red mug"), for experts that look at parts of the picture.
        counts: how often each of them is wanted, 1..4.
        relations: of those things, as far as the words between them are known.
    """

    text: str
    wanted: tuple[str, ...]
    avoided: tuple[str, ...]
    things: tuple[str, ...]
    counts: tuple[int, ...]
    relations: tuple[Relation, ...]


def read_prompt(text: str) -> Prompt:
    """Understand "a red mug AND a blue bowl AND NOT a plate": AND and NOT in capitals join and exclude concepts (Liu et al., arXiv
    2206.01714); all else is left to the models.

    Raises:
        UnusablePrompt: empty, longer than 300 characters, more than 6 concepts, or nothing that is wanted.
    """
    line = " ".join(text.split())
    if not line:
        raise UnusablePrompt(f"the prompt is empty; allowed: 1..{LONGEST} characters of text")
    if len(line) > LONGEST:
        raise UnusablePrompt(f"the prompt has {len(line)} characters; allowed: 1..{LONGEST}; remedy: say less")
    wanted: list[str] = []
    avoided: list[str] = []
    for part in re.split(r"(?:^|\s)AND(?=\s|$)", re.sub(r"(^|\s)NOT(?=\s|$)", r"\1AND NOT", line)):
        concept = part.strip(" ,")
        negated = concept.startswith("NOT ") or concept == "NOT"
        concept = concept.removeprefix("NOT").strip() if negated else concept
        if concept:
            (avoided if negated else wanted).append(concept)
    if not wanted:
        raise UnusablePrompt(f"'{line}' names nothing that is wanted; allowed: at least one concept without NOT")
    if len(wanted) + len(avoided) > MOST_CONCEPTS:
        raise UnusablePrompt(f"the prompt has {len(wanted) + len(avoided)} concepts; allowed: up to {MOST_CONCEPTS}")
    counts, relations = _things_of(wanted)
    return Prompt(line, tuple(wanted), tuple(avoided), tuple(counts), tuple(min(count, MOST_ALIKE) for count in counts.values()), relations)


def _things_of(concepts: list[str]) -> tuple[dict[str, int], tuple[Relation, ...]]:
    """The phrases between words of relation, without articles and numbers, and how often each is wanted (the concepts themselves where none
    is left), and how neighbours stand to each other: "a and b" says nothing, "a on b" does. A thing that is said again in another concept,
    or with "the", is the same one."""
    counts: dict[str, int] = {}
    relations: list[Relation] = []
    for concept in concepts:
        text, start, word, before, seen = concept.lower(), 0, "", -1, set[str]()
        for found in [*_BETWEEN.finditer(text), None]:
            said = text[start : found.start() if found else len(text)].strip()
            phrase = _LEADING.sub("", said)
            if phrase and phrase not in _PLACES:
                many = max((_NUMBERS.get(name, 1) for name in said.removesuffix(phrase).split()), default=1)
                phrase = _singular(phrase) if many > 1 else phrase
                again = phrase in seen and not said.startswith("the ")
                counts[phrase] = counts[phrase] + many if again else max(counts.get(phrase, 0), many)
                seen.add(phrase)
                number = list(counts).index(phrase)
                if word and before not in (-1, number):
                    relations.append(Relation(before, word, number))
                before, word = number, ""
            elif phrase:
                before, word = -1, ""  # "on a table" relates to nothing in the picture
            if found:
                word = _RELATIONS.get(re.sub(r"^(?:to|on) the ", "", found[0]), "")
                start = found.end()
    return counts or dict.fromkeys(concepts, 1), tuple(relations)


def _singular(phrase: str) -> str:
    """ "red boxes" -> "red box", "mugs" -> "mug"."""
    return re.sub(r"(?<=x|s|h)es$|(?<!s)s$", "", phrase)
