"""Words for things: colours and kinds that the models know, how phrases fall into the two, and what new words may mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from pcm_ros.models.registry import known_words
from pcm_ros.models.sentence import sentence_encoder

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "white", "gray")
"""The colours that models were trained on, by their plainest names."""
KINDS = ("mug", "bowl", "block", "can", "bottle", "plate", "duck", "toy")
"""The kinds of things that models were trained on: what else than these could a new word mean to them?"""
VOCABULARY = tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)
"""What things are called where the words are ours to choose. Phrases of people are free text and not bound to it."""
COLOUR_NAMES = frozenset(
    (  # noqa: SIM905
        "amber aqua aquamarine azure beige black blue bronze brown burgundy canary carmine cerulean charcoal chartreuse cherry "
        "chestnut chocolate cobalt colored coloured copper coral cream crimson cyan ebony emerald fuchsia gold golden gray green grey "
        "indigo ivory khaki lavender lemon lilac lime magenta maroon mauve mustard navy ochre olive orange pink plum pumpkin purple "
        "red rose ruby salmon sapphire scarlet silver tan tangerine taupe teal terracotta turquoise umber vermilion violet white "
        "yellow"
    ).split()
)
"""What people call colours, one word each. Some name things too, but before another noun they say its colour ("lemon bowl"); what says the
use of a vessel there ("wine bottle", "coffee mug") is left out."""
# Of COLOUR_NAMES those that mean a colour where no noun follows: a lemon is a thing.
_PLAIN_NAMES = frozenset(COLOURS) | frozenset(
    "aqua beige crimson gold golden ivory lime magenta maroon navy scarlet silver tan teal turquoise violet".split()  # noqa: SIM905
)
ANYTHING = frozenset({"object", "thing", "item", "one"})
"""Nouns that say nothing of what a thing is."""
# Cosine of two sentences from which they are about alike things, and by how much less a reading is e times less likely.
_ALIKE, _DISTINCT = 0.57, 0.1
_SHADE = 10.0  # distance of two shades by which a reading is e times less likely
# Cosine of two sentences about things of the same sort, and of different sorts.
_SAME, _UNLIKE = 0.80, 0.45


def colour_and_thing(phrase: str) -> tuple[str, str] | None:
    """ "ash grey beaker" -> ("ash grey", "beaker"): all up to the last colour name that something follows; None: no such name."""
    words = phrase.split()
    last = max((i for i, word in enumerate(words[:-1]) if word.lower() in COLOUR_NAMES), default=-1)
    return (" ".join(words[: last + 1]), " ".join(words[last + 1 :])) if last >= 0 else None


def colour_and_kind(phrase: str) -> tuple[str, str]:
    """ "dark red mug" -> ("dark red", "mug"), "red object" and "red" -> ("red", ""), "mug" -> ("", "mug"), "lemon" -> ("", "lemon")."""
    colour, thing = colour_and_thing(phrase) or ("", phrase)
    if not colour and phrase.split()[-1:] and phrase.split()[-1].lower() in _PLAIN_NAMES:
        return phrase, ""
    return colour, " ".join(word for word in thing.split() if word not in ANYTHING)


def colour_question(colour: str) -> str:
    """What models are asked to hear of a colour alone."""
    return f"{colour} object"


def both(first: Tensor, second: Tensor) -> Tensor:
    """Log-odds that two things are true that know nothing of each other, from the log-odds of each; shapes alike."""
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), dim=0)


def unfamiliar_words(phrase: str) -> list[str]:
    """Words of a phrase that no model met in training: what they say of it is a guess from similar words."""
    return [word for word in re.findall(r"[^\W\d_]+", phrase.lower()) if word not in known_words()]


@functools.cache
def nearest_kinds(text: str) -> Mapping[str, float]:
    """Known kinds that a new word may mean, by the sentence encoder: how likely each is, the likeliest 1; empty: it is like none of them.

    Raises:
        ModelUnavailable: the encoder's package is not installed.
    """
    alike = _alike(text)
    if float(alike.max()) < _ALIKE:
        return {}
    return dict(zip(KINDS, torch.exp((alike - alike.max()) / _DISTINCT).tolist(), strict=True))


@functools.cache
def nearest_colours(colour: str) -> Mapping[str, float]:
    """Known colours that look like what people mean by a new colour word: how likely each is, the likeliest 1; empty: nobody knows it.

    What they mean is what they named in the XKCD colour survey (CC0, shipped with matplotlib); a known colour is all shades that the survey
    calls by its name ("dark cyan", "bright cyan"), its distance that of the nearest one (CIE 1976, L*a*b*).
    """
    shades = _survey()
    words = colour.lower().split()
    meant = next((shades[name] for name in (" ".join(words), *words[-1:]) if name in shades), None)
    if meant is None:
        return {}
    gaps = {
        known: min(float(np.linalg.norm(shade - meant)) for name, shade in shades.items() if name.split()[-1] == known) for known in COLOURS
    }
    least = min(gaps.values())
    return {known: float(np.exp((least - gap) / _SHADE)) for known, gap in gaps.items()}


@functools.cache
def _survey() -> Mapping[str, np.ndarray]:
    """Name -> (3,) L*a*b* of each colour of the XKCD survey; gray is spelt so."""
    import cv2
    from matplotlib.colors import XKCD_COLORS, to_rgb

    names = [name.removeprefix("xkcd:").replace("grey", "gray") for name in XKCD_COLORS]
    lab = cv2.cvtColor(np.array([[to_rgb(value) for value in XKCD_COLORS.values()]], dtype=np.float32), cv2.COLOR_RGB2LAB)[0]
    return dict(zip(names, lab, strict=True))


@functools.cache
def strangeness(text: str) -> float:
    """0 for words of the training captions and such as are like a known kind in meaning, by the sentence encoder, .. 1 for others.

    Raises:
        ModelUnavailable: the encoder's package is not installed.
    """
    if not unfamiliar_words(text):
        return 0.0
    return float(np.clip((_SAME - float(_alike(text).max())) / (_SAME - _UNLIKE), 0.0, 1.0))


def _alike(text: str) -> Tensor:
    """(K,) cosine of a sentence about it and of those about KINDS."""
    encoder = sentence_encoder()
    return encoder.encode([f"a photo of a {kind}" for kind in KINDS]) @ encoder.encode([f"a photo of a {text}"])[0]
