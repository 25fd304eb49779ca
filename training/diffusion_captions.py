"""Captions of the pictures that the diffusion model learns from: relations that are clear, in varying wordings.

A relation is put into words only where it is clear; where neither axis leads, a caption lists the things. All things are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pcm_ros.sim.pictures import Placed, relation
from training.lexicon import COLOR_WORDS, KIND_WORDS

PLAIN = 0.8  # share of the captions that use the plain words of colours and kinds

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
