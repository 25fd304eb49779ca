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
    + r")[ -]?(?:mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?|inch(?:es)?)$"
)
_VAGUE = tuple("few several many most half more enough various some rest remaining pair everything either".split())  # noqa: SIM905
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "last", "next", "same")
# What says where a thing is, which changes as things are moved and which models that see it cut out cannot know.
_POSITIONS = frozenset(
    (  # noqa: SIM905
        "left right leftmost rightmost front frontmost foremost rear hindmost rearmost backmost back middle center centre central near "
        "nearer nearest close closer closest far farther farthest further furthest top topmost upper uppermost bottom bottommost lower "
        "lowest higher highest opposite"
    ).split()
)
# What is neither seen nor measured, as a degree.
_COMPARED = frozenset(
    (  # noqa: SIM905
        "heavier heaviest lighter lightest wider widest narrower narrowest thinner thinnest thicker thickest fatter fattest deeper deepest "
        "newer newest older oldest darker darkest brighter brightest better best worse worst nicer nicest prettier prettiest medium "
        "average matching identical similar"
    ).split()
)
# What is said of a motion or of how a thing is to stand, where an object's noun is expected.
_MANNERS = frozenset(
    (  # noqa: SIM905
        "along slightly far much upside aside apart together closer straight alone up out half maybe perhaps always sometimes later soon "
        "first last further farther more less way still just only almost quite rather very somewhere elsewhere here there home inverted "
        "rotated turned tilted flipped reversed lying standing upright lengthwise crosswise clockwise counterclockwise anticlockwise early"
    ).split()
)
_ADVERB = re.compile(r"\w+(?:ways|wards?|(?:[^l]|al)ly)")
_NOUNS_IN_LY = frozenset("anomaly assembly butterfly dragonfly family firefly fly lily supply".split())  # noqa: SIM905
# What stands still or speaks; and whose the thing is that is spoken of.
_SURROUNDINGS = frozenset("table tabletop desk floor ground counter countertop worktop workspace gripper".split())  # noqa: SIM905
_PERSONS = ("robot", "arm", "me", "you", "him", "her", "us", "myself", "yourself")
_OWNERS = ("its", "his", "her", "their")
_SIDES = ("side", "left", "right", "front", "rear", "back", "middle", "center", "centre", "edge", "corner")
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


def is_adverb(word: str) -> bool:
    """Whether a word, where a noun is expected, says how or whither: "partly", "backwards", "sideways"; not "jelly" or "lily"."""
    return _ADVERB.fullmatch(word) is not None and word not in _NOUNS_IN_LY


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
    if of_them and len(words) > 4 and number_of(words[3]):  # "one of the three mugs"
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
    if ordered or (head[0] in _ORDINALS and len(head) > 1) or "same" in words:
        return f"'{text}': describe it; of sizes, only the largest or smallest can be told, not the second"
    if head[-1] in _SIDES:
        return f"'{text}' is a place, not an object: say of what"
    if head[-1] in _MANNERS or is_adverb(head[-1]) or (len(head) == 1 and head[0] in _NO_OBJECTS):
        return f"'{text}' is not understood: '{head[-1]}' is no object, and nothing that can be done here"
    if head[-1] in _SURROUNDINGS or (head == head[-1:] and head[0] in _PERSONS):
        return f"'{head[-1]}' is not among the things that can be moved or placed by: name an object that lies on the table"
    before = head[:-1] or [word for word in head if word.endswith("st")]  # a bottle's top is a thing, "the leftmost" is none
    if where := next((word for word in before if word.removesuffix("-hand") in _POSITIONS), ""):
        return f"'{text}': describe it by colour, kind or size; '{where}' says where it is, which changes"
    if degree := next((word for word in head if word in _COMPARED), ""):
        return f"'{text}': '{degree}' can't be told; of objects, only sizes are compared"
    if owner := next((word for word in head if word in _OWNERS), ""):
        return f"'{text}' is not understood: whose is it? Say it without '{owner}'"
    if negated := next((word for word in words if re.match(r"non?t?-", word)), ""):
        return f"'{negated}' is not understood: say what it is, not what it is not"
    if any(number_of(word) is not None for word in head[1:-1]):
        return f"'{text}' is not understood: numbers stand before a noun"
    sizes = [word for word in head if size_word(word) is not None]
    if len(sizes) > 1:
        return f"'{text}': one word of size in each phrase"
    if sizes and head[-1] == sizes[0]:
        return f"'{text}': say the {text} of what"
    if head[-1] in ("others", "another", "other"):
        return f"'{head[-1]}': say which, as 'the other mug'"
    return ""
