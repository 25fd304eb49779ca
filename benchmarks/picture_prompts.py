"""Prompts whose fulfilment can be read from a picture: sets of things that the diffusion model never saw together, and relations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.pictures import KINDS, Placed, held_out, relation

CATEGORIES = ("attributes", "counts", "relations")
SAID = {"left": "to the left of", "right": "to the right of", "front": "in front of", "behind": "behind", "on": "on", "in": "in"}
NUMBERS = {2: "two", 3: "three"}
BELOW, ABOVE = ("block", "can", "plate"), ("mug", "block", "can", "duck")  # what stands on what in the pictures that were learnt
INTO = ("mug", "block", "can", "duck")


@dataclass(frozen=True)
class Asked:
    """A prompt and what it says.

    Attributes:
        text: of the prompt. category: of CATEGORIES. things: (colour, kind) of all that shall be there and of nothing else.
        how: relation of the first thing to the second; "" = none is said.
    """

    text: str
    category: str
    things: tuple[tuple[str, str], ...]
    how: str = ""


def ask(seed: int, number: int) -> Asked:
    """Prompt `number` of a seed; categories take turns. Its set of things is held out from the training of the diffusion model."""
    rng = np.random.default_rng([seed, number, 71])
    category = CATEGORIES[number % len(CATEGORIES)]
    while True:
        how = ""
        if category == "counts":
            twin = _thing(rng)
            count = int(rng.integers(2, 4))
            others = [_thing(rng)] if count == 2 and rng.random() < 0.6 else []
            things = [twin] * count + others
        elif category == "attributes":
            things = [_thing(rng) for _ in range(int(rng.integers(2, 4)))]
        else:
            how = tuple(SAID)[int(rng.integers(len(SAID)))]
            things = [_thing(rng), _thing(rng)]
            if how == "on":
                things = [_thing(rng, ABOVE), _thing(rng, BELOW)]
            if how == "in":
                things = [_thing(rng, INTO), _thing(rng, ("bowl",))]
        alike = len(set(things)) < len(things)
        if held_out(things) and (category == "counts" or not alike) and len(things) <= 3:
            return Asked(_said(things, how), category, tuple(things), how)


def _thing(rng: np.random.Generator, kinds: Sequence[str] = KINDS) -> tuple[str, str]:
    return COLORS[int(rng.integers(len(COLORS)))], kinds[int(rng.integers(len(kinds)))]


def _said(things: Sequence[tuple[str, str]], how: str) -> str:
    names = []
    for (color, kind), count in Counter(things).items():
        article = "an" if color[0] in "aeiou" else "a"
        names.append(f"{article} {color} {kind}" if count == 1 else f"{NUMBERS[count]} {color} {kind}s")
    if how:
        return f"{names[0]} {SAID[how]} {names[1]}"
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def things_fulfilled(asked: Asked, found: Sequence[Placed]) -> bool:
    """Whether exactly the things that were asked for are there."""
    return sorted((thing.color, thing.kind) for thing in found) == sorted(asked.things)


def fulfilled(asked: Asked, found: Sequence[Placed]) -> bool:
    """Whether the things are there and stand as was said (`pcm_ros.sim.pictures.relation`)."""
    if not things_fulfilled(asked, found):
        return False
    if not asked.how:
        return True
    names = [(thing.color, thing.kind) for thing in found]
    return relation(names.index(asked.things[0]), names.index(asked.things[1]), found) == asked.how
