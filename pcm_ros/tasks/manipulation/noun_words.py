"""English nouns as they are said in instructions: numbers, plurals, and words that look like descriptions of an object and are none."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from pcm_ros.tasks.manipulation.goal import NUMBERS, number_of, singular, size_word

PLACE = re.compile(
    r"(?:(?:other|left|right|far|near|opposite|front|back|rear|top|bottom)[ -](?:hand )?)?"
    r"(?:side|left|right|front|back|rear|top|bottom|middle|center|centre|edge|corner|end)(?: of .*)?"
)
DISTANCE = re.compile(
    r"\b(?:\d+|few|some|couple of|one|half|"
    + "|".join(NUMBERS)
    + r") ?(?:mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?|inch(?:es)?)$"
)
_VAGUE = tuple("few several many most half more enough various some rest remaining pair everything either".split())  # noqa: SIM905
_ORDINALS = ("second", "third", "fourth", "fifth", "next", "same")
_MANNERS = tuple("along slightly far much upside sideways aside apart together closely closer straight alone".split())  # noqa: SIM905
# "Stack the blocks by size"
_NO_OBJECTS = ("size", "height", "length", "color", "colour", "shape", "kind", "type", "order", "hand", "turns", "itself", "themselves")
# Words in -s that name one object.
_ONE_OBJECT = frozenset(
    (  # noqa: SIM905
        "atlas axis basis bias binoculars canvas chaos chassis cosmos gas headphones iris jeans lens mantis molasses oasis pants pliers "
        "rhinoceros scissors series shears sunglasses tennis thermos tongs trellis trousers tweezers"
    ).split()
)
# What may stand before a comma inside a phrase, beside sizes and colours ("the shiny, red mug"); of anything else it may be another object.
ADJECTIVES = frozenset(
    (  # noqa: SIM905
        "bright broken clean cheap dark deep dirty dry dull empty fancy flat full glossy hard heavy hollow light long matte metallic "
        "narrow new nice old open pale plain pretty rectangular round rusty shallow sharp shiny smooth soft solid spherical square thick "
        "thin transparent triangular ugly warm wet wide wooden"
    ).split()
)


def head_of(phrase: str) -> str:
    """The noun of a phrase: "large mug with a handle" -> "mug"."""
    return (re.split(r"\b(?:with|without|of|for|other than)\b", phrase)[0].split() or phrase.split())[-1]


def is_plural(noun: str) -> bool:
    """Whether a noun means several objects: "mugs" does, "thermos" does not."""
    return len(noun) > 3 and singular(noun) != noun and noun not in _ONE_OBJECT


def several(noun: str) -> str:
    """Several of a noun: "mug" -> "mugs"; a plural stays."""
    if singular(noun) != noun:
        return noun
    return noun + ("es" if re.search(r"(?:s|x|ch|sh)$", noun) else "s")


def counted(words: Sequence[str]) -> list[str]:
    """Words with their number in front of all others: "one of the mugs" -> "mug", "two of the mugs" and "a couple of mugs" -> "two mugs",
    "the other two mugs" -> "two other mugs", "largest of the mugs" -> "largest mug". At least one word, lower case, without article."""
    words = list(words)
    if words[0] == "couple" and words[1:2] == ["of"] and len(words) > 2:
        words = ["two", *words[1:]]
    if words[0] == "other" and len(words) > 2 and number_of(words[1]) is not None:
        words = [words[1], "other", *words[2:]]
    of_them = words[1:2] == ["of"] and words[2:3] in (["the"], ["these"], ["those"])
    if of_them and len(words) > 4 and number_of(words[3]) and not number_of(words[0]):  # "one of the three mugs"
        words = [*words[:3], *words[4:]]
    partitive = len(words) > 2 and words[1] == "of" and (words[0] == "one" or number_of(words[0]) or size_word(words[0]))
    if partitive:
        rest = words[3:] if words[2] in ("the", "these", "those") and len(words) > 3 else words[2:]
        words = [words[0], *rest] if number_of(words[0]) else [words[0], *rest[:-1], singular(rest[-1])]
    return words[1:] if words[0] == "one" and len(words) > 1 else words


def complaint(words: Sequence[str]) -> str:
    """Why these words cannot be taken for the description of an object without guessing; empty: they can. As for `counted`."""
    text = " ".join(words)
    head = re.split(r" (?:with|without|of|for|other than)\b", text)[0].split()
    if head[0] in _VAGUE:
        return f"'{head[0]}' is not understood: say how many, or 'all'"
    ordered = any(a in _ORDINALS and size_word(b) is not None for a, b in itertools.pairwise(head))
    if ordered or (head[0] in _ORDINALS and len(head) > 1):
        return f"'{text}': describe it; of sizes, only the largest or smallest can be told, not the second"
    if head[-1] in _MANNERS or (len(head) == 1 and head[0] in _NO_OBJECTS):
        return f"'{text}' is not understood: '{head[-1]}' is no object, and nothing that can be done here"
    sizes = [word for word in head if size_word(word) is not None]
    if len(sizes) > 1:
        return f"'{text}': one word of size in each phrase"
    if sizes and head[-1] == sizes[0]:
        return f"'{text}': say the {text} of what"
    if head[-1] in ("others", "another", "other"):
        return f"'{head[-1]}': say which, as 'the other mug'"
    return ""
