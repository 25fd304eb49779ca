"""The words of the training captions, and those that are kept back to measure generalisation to unseen words."""

from __future__ import annotations

import re

import numpy as np

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS

KIND_WORDS: dict[str, tuple[str, ...]] = {
    "mug": ("mug", "mug", "mug", "cup", "coffee mug", "coffee cup", "tea mug", "drinking mug", "mug with a handle"),
    "bowl": ("bowl", "bowl", "bowl", "soup bowl", "salad bowl", "mixing bowl", "cereal bowl", "basin", "round bowl"),
    "block": ("block", "block", "block", "cube", "box", "brick", "toy block", "wooden block", "building block"),
    "can": ("can", "can", "can", "tin", "cylinder", "tin can", "soda can", "drink can"),
    "bottle": ("bottle", "bottle", "bottle", "flask", "wine bottle", "plastic bottle", "glass bottle"),
    "plate": ("plate", "plate", "plate", "flat plate", "dinner plate", "saucer", "round plate"),
    "duck": ("duck", "duck", "rubber duck", "toy duck", "duckling", "toy bird"),
    "toy": ("toy", "gadget", "tool", "trinket", "odd toy"),
}
COLOR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "scarlet", "bright red", "dark red", "ruby", "cherry red"),
    "orange": ("orange", "orange", "orange", "tangerine", "bright orange", "dark orange", "pumpkin"),
    "yellow": ("yellow", "yellow", "yellow", "golden yellow", "lemon", "bright yellow", "canary"),
    "green": ("green", "green", "green", "emerald", "dark green", "light green", "grass green", "olive green"),
    "cyan": ("cyan", "cyan", "cyan", "turquoise", "aqua", "bright cyan"),
    "blue": ("blue", "blue", "blue", "navy", "dark blue", "light blue", "royal blue", "sapphire"),
    "purple": ("purple", "purple", "purple", "violet", "dark purple", "plum"),
    "pink": ("pink", "pink", "pink", "rose", "hot pink", "light pink", "salmon pink"),
    "brown": ("brown", "brown", "brown", "chocolate", "dark brown", "chestnut", "coffee brown"),
    "black": ("black", "black", "black", "jet black", "dark black"),
    "white": ("white", "white", "white", "snow white", "ivory"),
    "gray": ("gray", "grey", "gray", "grey", "silver", "dark grey", "light gray"),
}
# Never in a training caption: the benchmark's unseen words.
HELD_OUT_KIND_WORDS = {
    "mug": ("teacup", "beaker"),
    "bowl": ("dish", "punch bowl"),
    "block": ("square block", "dice"),
    "can": ("beer can", "canister"),
    "bottle": ("water bottle", "carafe"),
}
HELD_OUT_COLOR_WORDS = {
    "red": ("crimson", "blood red"),
    "orange": ("amber orange",),
    "yellow": ("mustard yellow", "gold"),
    "green": ("lime green", "forest green"),
    "cyan": ("teal",),
    "blue": ("azure", "cobalt"),
    "purple": ("lavender", "magenta"),
    "pink": ("fuchsia pink",),
    "brown": ("tan", "wood brown"),
    "black": ("ebony",),
    "white": ("cream white",),
    "gray": ("ash grey",),
}
THINGS = ("object", "thing", "item", "one", "object", "object")
PAIR_TEMPLATES = (
    "{c} {k}",
    "{c} {k}",
    "{c} {k}",
    "a {c} {k}",
    "the {c} {k}",
    "{k} that is {c}",
    "{c}-coloured {k}",
    "{c} coloured {k}",
    "a photo of a {c} {k}",
    "{k} in {c}",
    "small {c} {k}",
    "big {c} {k}",
)
KIND_TEMPLATES = ("{k}", "{k}", "a {k}", "the {k}", "a photo of a {k}", "small {k}", "large {k}")
COLOR_TEMPLATES = ("{c} {t}", "{c} {t}", "the {c} {t}", "a {c} {t}", "something {c}", "{t} that is {c}", "{c}")

PAIRS = tuple((color, kind) for color in COLORS for kind in KINDS)


def captions(rng: np.random.Generator) -> list[str]:
    """One random wording of each of the 96 colour + kind pairs, the 8 kinds and the 12 colours, in this order (116 texts)."""

    def pick(words: tuple[str, ...]) -> str:
        return words[rng.integers(len(words))]

    texts = [pick(PAIR_TEMPLATES).format(c=pick(COLOR_WORDS[c]), k=pick(KIND_WORDS[k])) for c, k in PAIRS]
    texts += [pick(KIND_TEMPLATES).format(k=pick(KIND_WORDS[k])) for k in KINDS]
    return texts + [pick(COLOR_TEMPLATES).format(c=pick(COLOR_WORDS[c]), t=pick(THINGS)) for c in COLORS]


def matches(kind: np.ndarray, color: np.ndarray) -> np.ndarray:
    """(..., 116) bool: which of the `captions` describe an object of that kind and colour index."""
    pair = np.array([[COLORS.index(c), KINDS.index(k)] for c, k in PAIRS])
    kind, color = np.asarray(kind)[..., None], np.asarray(color)[..., None]
    return np.concatenate(
        [(color == pair[:, 0]) & (kind == pair[:, 1]), kind == np.arange(len(KINDS)), color == np.arange(len(COLORS))], axis=-1
    )


def known_words() -> list[str]:
    """All words that occur in training captions, in lower case, sorted."""
    parts = [*(word for words in (*KIND_WORDS.values(), *COLOR_WORDS.values()) for word in words), *THINGS]
    templates = [template.format(c="", k="", t="") for template in (*PAIR_TEMPLATES, *KIND_TEMPLATES, *COLOR_TEMPLATES)]
    return sorted({word for text in (*parts, *templates) for word in re.findall(r"[a-z]+", text.lower())})
