"""What the captioned pictures of the diffusion model say: relations read from where things stand, and their wordings.

The picture is seen from the front and from above: x points to the right in the picture, y away from the camera. A relation is put into
words only where it is clear; where neither axis leads, a caption lists the things.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcm_ros.sim.objects import HELD_OUT_PAIRS
from training.lexicon import COLOR_WORDS, KIND_WORDS

KINDS = ("mug", "bowl", "block", "can", "bottle", "plate", "duck")
MOST_OBJECTS = 3
APART = 0.055  # metres along the leading axis from which on a relation is clear
LEADS = 1.5  # times the distance along the other axis
PLAIN = 0.8  # share of the captions that use the plain words of colours and kinds
HELD_OUT_SETS = 12  # one in so many sets of two or three things is kept for testing

WORDINGS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
    "on": ("on", "on top of", "stacked on"),
    "in": ("in", "inside"),
}
PLURALS = {"box": "boxes", "brick": "bricks", "mug with a handle": "mugs with handles", "flask": "flasks"}
NUMBERS = {2: "two", 3: "three"}
ALONE = ("{}", "{}", "{}", "{} on a table", "a picture of {}", "one {}")


@dataclass(frozen=True)
class Placed:
    """A thing in a picture.

    Attributes:
        color, kind: words of COLORS and KINDS. x, y: metres on the table, x to the right, y away from the camera.
        host: number of the thing in or on which it is, -1 = the table.
    """

    color: str
    kind: str
    x: float
    y: float
    host: int = -1


def held_out(things: Sequence[tuple[str, str]]) -> bool:
    """Whether pictures with exactly these (colour, kind) are kept for testing: one of HELD_OUT_PAIRS, or by a checksum of the set."""
    if any(pair in HELD_OUT_PAIRS for pair in things):
        return True
    names = "+".join(sorted(f"{color} {kind}" for color, kind in things))
    return len(things) > 1 and zlib.crc32(names.encode()) % HELD_OUT_SETS == 0


def relation(a: int, b: int, things: Sequence[Placed]) -> str | None:
    """How a stands to b: a key of WORDINGS, or None where that is not clear."""
    first, second = things[a], things[b]
    if first.host == b:
        return "in" if second.kind in ("bowl", "mug") else "on"
    if second.host == a or first.host >= 0 or second.host >= 0:
        return None
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > max(APART, LEADS * abs(dy)):
        return "right" if dx > 0 else "left"
    if abs(dy) > max(APART, LEADS * abs(dx)):
        return "behind" if dy > 0 else "front"
    return None


def _plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


def _words(rng: np.random.Generator, color: str, kind: str) -> tuple[str, str]:
    if rng.random() < PLAIN:
        return color, kind
    return COLOR_WORDS[color][rng.integers(len(COLOR_WORDS[color]))], KIND_WORDS[kind][rng.integers(len(KIND_WORDS[kind]))]


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def caption(rng: np.random.Generator, things: Sequence[Placed]) -> str:
    """One wording of a picture of one to three things; what it says is true of the picture."""
    groups = Counter((thing.color, thing.kind) for thing in things)
    words = {pair: _words(rng, *pair) for pair in groups}
    if len(groups) < len(things):  # twins are counted: "two red mugs and a blue bowl"
        parts = [
            _a(" ".join(words[pair])) if count == 1 else f"{NUMBERS[count]} {words[pair][0]} {_plural(words[pair][1])}"
            for pair, count in sorted(groups.items(), key=lambda item: -item[1])
        ]
        return _listed(parts)
    names = [_a(" ".join(words[thing.color, thing.kind])) for thing in things]
    if len(things) == 1:
        wording = ALONE[rng.integers(len(ALONE))]
        return wording.format(names[0].split(" ", 1)[1] if wording.startswith("one") else names[0])
    order = rng.permutation(len(things)).tolist()
    found = [(a, b, how) for a in order for b in order if a != b and (how := relation(a, b, things)) is not None]
    if not found or rng.random() < 0.2:
        return _listed([names[i] for i in order])
    a, b, how = found[0]
    said = f"{names[a]} {WORDINGS[how][rng.integers(len(WORDINGS[how]))]} {names[b]}"
    rest = [i for i in order if i not in (a, b)]
    if not rest:
        return said
    third = rest[0]
    further = [(x, y, h) for x, y, h in found if x == third]
    if further and rng.random() < 0.7:
        _, host, how = further[0]
        known = " ".join(words[things[host].color, things[host].kind])
        return f"{said}, and {names[third]} {WORDINGS[how][rng.integers(len(WORDINGS[how]))]} the {known}"
    return f"{said}, and {names[third]}"
