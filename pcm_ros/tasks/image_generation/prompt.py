"""What a prompt asks for: concepts that shall and that shall not be in the picture, and the things that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 300
MOST_CONCEPTS = 6
_BETWEEN = re.compile(
    r"\b(?:to the (?:left|right) of|on the (?:left|right) of|(?:left|right) of|in front of|on top of|stacked on|next to|inside of|inside"
    r"|behind|under|beside|near|between|above|below|with|and|in|on)\b|[,;.]"
)
_LEADING = re.compile(r"^(?:(?:a|an|the|one|two|three|four|some|picture of|photo of)\s+)+")
_PLACES = frozenset({"table", "picture", "left", "right", "front", "background", "it", "top"})


class UnusablePrompt(ValueError):
    """A prompt that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        text: on one line. wanted: 1..6 concepts, each a prompt of its own. avoided: concepts that shall not be in the picture.
        things: phrases of the single things in `wanted` ("red mug"), for experts that look at parts of the picture.
    """

    text: str
    wanted: tuple[str, ...]
    avoided: tuple[str, ...]
    things: tuple[str, ...]


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
    return Prompt(line, tuple(wanted), tuple(avoided), things_of(wanted))


def things_of(concepts: list[str]) -> tuple[str, ...]:
    """The phrases between words of relation, without articles and numbers, each once; the concepts themselves where none is left."""
    found: dict[str, None] = {}
    for concept in concepts:
        for part in _BETWEEN.split(concept.lower()):
            phrase = _LEADING.sub("", part.strip())
            if phrase and phrase not in _PLACES:
                found[phrase] = None
    return tuple(found) or tuple(concepts)
