"""What is asked of the robot: ordered relations between described objects."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property


class RelationKind(enum.StrEnum):
    """Spatial relations. Directions are those of the person who speaks (WorkcellLimits.forward, .left)."""

    LEFT_OF = "left_of"
    RIGHT_OF = "right_of"
    IN_FRONT_OF = "in_front_of"
    BEHIND = "behind"
    ON = "on"
    IN = "in"
    NEXT_TO = "next_to"
    BETWEEN = "between"


class Quantifier(enum.StrEnum):
    """How many of the objects that fit a phrase are meant: one of them, every one, or at least a number of them."""

    ONE = "one"
    ALL = "all"
    COUNT = "count"


class Measure(enum.StrEnum):
    """What size words compare: the cube root of the bounding box's volume, its height, or its longer horizontal extent."""

    SIZE = "size"
    HEIGHT = "height"
    LENGTH = "length"


_NUMBER_WORDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: number for number, word in enumerate(_NUMBER_WORDS, start=2)}
"""Number words that can stand before a noun."""

_SIZES: dict[str, tuple[Measure, bool]] = {
    form: (measure, greatest)
    for measure, greatest, forms in (
        (Measure.SIZE, True, "large larger largest big bigger biggest"),
        (Measure.SIZE, False, "small smaller smallest little littlest tiny tiniest"),
        (Measure.HEIGHT, True, "tall taller tallest"),
        (Measure.HEIGHT, False, "short shorter shortest"),
        (Measure.LENGTH, True, "long longer longest"),
    )
    for form in forms.split()
}
_GENERIC = frozenset({"object", "thing", "item"})
_LINK = re.compile(r" (?=(?:with|without|of|for)\b)")


@dataclass(frozen=True)
class NounPhrase:
    """What a phrase of a relation says, taken apart: free text for the vision-language models, and what geometry answers better.

    Attributes:
        text: the description without size words, quantifier and "other" ("red block").
        quantifier, count: how many are meant. ONE: count 1. ALL: as many as there are (count 0), or all and exactly `count`. COUNT: at
            least `count`.
        measure, greatest: of those that fit the text, the `max(count, 1)` with the greatest (least) measure are meant; None: no matter.
        excluded: another phrase; what it means is not meant ("the mug other than the red mug").
    """

    text: str
    quantifier: Quantifier = Quantifier.ONE
    count: int = 1
    measure: Measure | None = None
    greatest: bool = True
    excluded: NounPhrase | None = None

    @property
    def plain(self) -> bool:
        """Whether it means the one object that fits the text best."""
        return self.quantifier == Quantifier.ONE and self.measure is None and self.excluded is None

    @property
    def generic(self) -> bool:
        """Whether the text fits every object ("the largest object")."""
        return self.text in _GENERIC

    @classmethod
    def read(cls, phrase: str) -> NounPhrase:
        """Take apart a phrase in the form that `parse` gives it: lower case, no article, quantifier first.

        Size words count before the head noun only: "red mug with a small handle" has none. A phrase of nothing but such words is text.
        """
        phrase, _, excluded = phrase.removeprefix("the ").partition(" other than ")
        words = phrase.split()
        quantifier, count = Quantifier.ONE, 1
        if len(words) > 1 and words[0] in ("all", "every", "each", "both"):
            quantifier, count = Quantifier.ALL, 2 if words[0] == "both" else 0
            words = words[1:]
        if len(words) > 1 and (number := number_of(words[0])) is not None:
            quantifier, count = (Quantifier.COUNT if quantifier == Quantifier.ONE else quantifier), number
            words = words[1:]
        if len(words) > 1 and words[0] == "other":
            words = words[1:]
        head, *rest = _LINK.split(" ".join(words), maxsplit=1)
        kept = head.split()
        found = [word for word in kept[:-1] if word in _SIZES]
        kept = [word for word in kept[:-1] if word not in _SIZES] + kept[-1:]
        if quantifier != Quantifier.ONE:
            kept[-1] = singular(kept[-1])
        measure, greatest = _SIZES[found[0]] if found else (None, True)
        text = " ".join([*kept, *rest])
        return cls(text, quantifier, count, measure, greatest, cls.read(excluded) if excluded else None)


def number_of(word: str) -> int | None:
    """2..10 for "two".."ten" and "2".."10", else None."""
    if word in NUMBERS:
        return NUMBERS[word]
    return int(word) if word.isascii() and word.isdigit() and 2 <= int(word) <= 10 and not word.startswith("0") else None


def size_word(word: str) -> tuple[Measure, bool] | None:
    """What a size word ("largest", "small") compares, and whether the greatest is meant; None for any other word."""
    return _SIZES.get(word)


def singular(noun: str) -> str:
    """One of several: "boxes" -> "box", "dishes" -> "dish", "berries" -> "berry", "mugs" -> "mug"."""
    if len(noun) > 4 and noun.endswith("ies"):
        return noun[:-3] + "y"
    if len(noun) > 4 and re.search(r"(?:ss|x|ch|sh)es$", noun):
        return noun[:-2]
    return noun[:-1] if len(noun) > 2 and re.search(r"[^su]s$", noun) else noun


@dataclass(frozen=True)
class Relation:
    """`subject kind references`: "the red mug" LEFT_OF ("the blue bowl",). Phrases are free text that vision-language models ground.

    What phrases may hold besides free text is said by `NounPhrase.read`; the strings are the whole of a relation, it travels as text.

    Attributes:
        subject: noun phrase of what is to be moved, without article ("red mug"); may be several objects ("all red mugs", "two cans").
        references: one phrase, or two for BETWEEN; each means one object.
    """

    kind: RelationKind
    subject: str
    references: tuple[str, ...]

    def __post_init__(self) -> None:
        wanted = 2 if self.kind == RelationKind.BETWEEN else 1
        if len(self.references) != wanted:
            raise ValueError(f"relation {self.kind} needs {wanted} reference phrase(s), got {self.references}")
        for reference, noun in zip(self.references, self.nouns[1:], strict=True):
            if noun.quantifier != Quantifier.ONE:
                raise ValueError(f"reference '{reference}' means several objects; a relation needs one object in each reference")

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.subject, *self.references)

    @cached_property
    def nouns(self) -> tuple[NounPhrase, ...]:
        """The phrases taken apart, subject first."""
        return tuple(NounPhrase.read(phrase) for phrase in self.phrases)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All that models are asked about: the texts of `nouns` in order, then those of the phrases that they exclude."""
        excluded: list[str] = []
        for noun in self.nouns:
            other = noun.excluded
            while other is not None:
                excluded.append(other.text)
                other = other.excluded
        return (*(noun.text for noun in self.nouns), *excluded)

    @property
    def plural(self) -> bool:
        """Whether the subject may be several objects."""
        return self.nouns[0].quantifier != Quantifier.ONE

    def __str__(self) -> str:
        return f"{self.subject} {self.kind.replace('_', ' ')} {' and '.join(self.references)}"


@dataclass(frozen=True)
class Goal:
    """Stages in order ("then"); each stage is a conjunction ("and") of relations that must hold together at its end."""

    stages: tuple[tuple[Relation, ...], ...]
    text: str = ""

    @property
    def relations(self) -> tuple[Relation, ...]:
        return tuple(relation for stage in self.stages for relation in stage)
