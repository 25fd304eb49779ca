"""How people say it: the sentences of the tasks, synonyms of kinds and colours, paraphrases.

The lists of words are kept beside the tasks because the simulator knows nothing of training; a test compares them with the words of the
training captions: what is called held out here is in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pcm_ros.sim.appearance import Rgb, Shade, lab
from pcm_ros.sim.objects import ObjectSpec
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind

_PHRASES: Mapping[RelationKind, tuple[str, ...]] = MappingProxyType(
    {
        RelationKind.LEFT_OF: ("to the left of", "left of", "on the left of"),
        RelationKind.RIGHT_OF: ("to the right of", "right of", "on the right of"),
        RelationKind.IN_FRONT_OF: ("in front of",),
        RelationKind.BEHIND: ("behind",),
        RelationKind.ON: ("on", "on top of", "onto"),
        RelationKind.IN: ("in", "into", "inside"),
        RelationKind.NEXT_TO: ("next to", "beside"),
        RelationKind.BETWEEN: ("between",),
    }
)
_VERBS = ("put", "place", "move", "set")


def instruct(rng: np.random.Generator, relations: Sequence[Relation]) -> str:
    """An English instruction for relations in order, its wording drawn at random."""
    joiner = (" and ", ", then ", ", and then ")[rng.integers(3)]
    clauses = []
    for relation in relations:
        verb = _VERBS[rng.integers(len(_VERBS))]
        if relation.kind == RelationKind.ON and rng.random() < 0.3:
            verb = "stack"
        options = _PHRASES[relation.kind]
        where = "on" if verb == "stack" else options[rng.integers(len(options))]
        clauses.append(f"{verb} the {relation.subject} {where} the {' and the '.join(relation.references)}")
    return joiner.join(clauses)


# ---------------------------------------------------------------------------------------------------------------------------- paraphrases

_WHERE: Mapping[RelationKind, tuple[str, ...]] = MappingProxyType(
    {
        RelationKind.LEFT_OF: ("to the left of", "on the left side of", "on the left-hand side of", "just left of"),
        RelationKind.RIGHT_OF: ("to the right of", "on the right side of", "on the right-hand side of", "just right of"),
        RelationKind.IN_FRONT_OF: ("in front of", "directly in front of", "just in front of"),
        RelationKind.BEHIND: ("behind", "right behind", "at the back of"),
        RelationKind.ON: ("on top of", "atop", "upon"),
        RelationKind.IN: ("inside", "inside of", "within"),
        RelationKind.NEXT_TO: ("next to", "beside", "close to"),
        RelationKind.BETWEEN: ("between", "in between"),
    }
)
_WHERETO: Mapping[RelationKind, tuple[str, ...]] = MappingProxyType({RelationKind.ON: ("onto",), RelationKind.IN: ("into",)})
SENTENCES = (
    "make sure the {s} is {w} the {r}",
    "make sure that the {s} stands {w} the {r}",
    "ensure the {s} is {w} the {r}",
    "take the {s} and place it {to} the {r}",
    "pick up the {s} and set it down {to} the {r}",
    "grab the {s}, then put it {to} the {r}",
    "could you bring the {s} {to} the {r}?",
    "can you please position the {s} {to} the {r}?",
    "would you kindly move the {s} so that it is {w} the {r}",
    "I want the {s} {w} the {r}",
    "I would like the {s} to be {w} the {r}",
    "the {s} should be {w} the {r}, please",
    "the {s} goes {w} the {r}",
    "hey robot, shift the {s} {to} the {r}",
    "now transfer the {s} {to} the {r}, thanks",
    "please lay the {s} {to} the {r}",
)
"""Ways to ask for one relation: {s} subject, {w} where it shall be, {to} where it shall go, {r} reference(s)."""


def paraphrase(rng: np.random.Generator, relation: Relation) -> str:
    """One relation in a sentence of another form than `instruct` uses."""
    sentence = SENTENCES[rng.integers(len(SENTENCES))]
    where = _WHERE[relation.kind]
    whereto = where + _WHERETO.get(relation.kind, ())
    return sentence.format(
        s=relation.subject,
        w=where[rng.integers(len(where))],
        to=whereto[rng.integers(len(whereto))],
        r=" and the ".join(relation.references),
    )


# ------------------------------------------------------------------------------------------------------------------------------- synonyms


@dataclass(frozen=True)
class KindWord:
    """Another word for a kind.

    Attributes:
        held_out: it is in no training caption.
        also: kinds that a person might take it for too: not said while one of them is on the table.
        cubes_only: said of blocks with equal sides only.
    """

    word: str
    kind: str
    held_out: bool
    also: tuple[str, ...] = ()
    cubes_only: bool = False


@dataclass(frozen=True)
class ColorWord:
    """Another word for a colour; `rgb` is the shade that people mean by it (XKCD survey where the survey has the word)."""

    word: str
    color: str
    held_out: bool
    rgb: Rgb


KIND_SYNONYMS = (
    KindWord("cup", "mug", False),
    KindWord("coffee mug", "mug", False),
    KindWord("coffee cup", "mug", False),
    KindWord("drinking mug", "mug", False),
    KindWord("teacup", "mug", True),
    KindWord("beaker", "mug", True),
    KindWord("soup bowl", "bowl", False),
    KindWord("salad bowl", "bowl", False),
    KindWord("cereal bowl", "bowl", False),
    KindWord("basin", "bowl", False),
    KindWord("dish", "bowl", True, also=("plate",)),
    KindWord("punch bowl", "bowl", True),
    KindWord("cube", "block", False, cubes_only=True),
    KindWord("brick", "block", False),
    KindWord("toy block", "block", False, also=("toy",)),
    KindWord("building block", "block", False),
    KindWord("square block", "block", True, cubes_only=True),
    KindWord("dice", "block", True, cubes_only=True),
    KindWord("tin", "can", False),
    KindWord("cylinder", "can", False, also=("mug", "bottle")),
    KindWord("tin can", "can", False),
    KindWord("soda can", "can", False),
    KindWord("beer can", "can", True),
    KindWord("canister", "can", True, also=("bottle",)),
    KindWord("flask", "bottle", False),
    KindWord("wine bottle", "bottle", False),
    KindWord("plastic bottle", "bottle", False),
    KindWord("water bottle", "bottle", True),
    KindWord("carafe", "bottle", True, also=("mug",)),
    KindWord("flat plate", "plate", False),
    KindWord("dinner plate", "plate", False),
    KindWord("saucer", "plate", False),
)


def _hex(code: str) -> Rgb:
    return int(code[:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:], 16) / 255


COLOR_SYNONYMS = tuple(
    ColorWord(word, color, held_out, _hex(code))
    for word, color, held_out, code in (
        ("scarlet", "red", False, "be0119"),
        ("bright red", "red", False, "ff000d"),
        ("dark red", "red", False, "840000"),
        ("cherry red", "red", False, "f7022a"),
        ("crimson", "red", True, "8c000f"),
        ("blood red", "red", True, "980002"),
        ("tangerine", "orange", False, "ff9408"),
        ("bright orange", "orange", False, "ff5b00"),
        ("dark orange", "orange", False, "c65102"),
        ("pumpkin", "orange", False, "e17701"),
        ("amber orange", "orange", True, "feb308"),
        ("golden yellow", "yellow", False, "fec615"),
        ("lemon", "yellow", False, "fdff52"),
        ("bright yellow", "yellow", False, "fffd01"),
        ("canary", "yellow", False, "fdff63"),
        ("mustard yellow", "yellow", True, "d2bd0a"),
        ("gold", "yellow", True, "dbb40c"),
        ("emerald", "green", False, "01a049"),
        ("dark green", "green", False, "033500"),
        ("light green", "green", False, "96f97b"),
        ("grass green", "green", False, "3f9b0b"),
        ("olive green", "green", False, "677a04"),
        ("lime green", "green", True, "89fe05"),
        ("forest green", "green", True, "06470c"),
        ("turquoise", "cyan", False, "06c2ac"),
        ("aqua", "cyan", False, "13eac9"),
        ("bright cyan", "cyan", False, "41fdfe"),
        ("teal", "cyan", True, "029386"),
        ("navy", "blue", False, "01153e"),
        ("dark blue", "blue", False, "00035b"),
        ("royal blue", "blue", False, "0504aa"),
        ("sapphire", "blue", False, "2138ab"),
        ("azure", "blue", True, "069af3"),
        ("cobalt", "blue", True, "1e488f"),
        ("violet", "purple", False, "9a0eea"),
        ("dark purple", "purple", False, "35063e"),
        ("plum", "purple", False, "580f41"),
        ("lavender", "purple", True, "c79fef"),
        ("magenta", "purple", True, "c20078"),
        ("rose", "pink", False, "cf6275"),
        ("hot pink", "pink", False, "ff028d"),
        ("light pink", "pink", False, "ffd1df"),
        ("salmon pink", "pink", False, "fe7b7c"),
        ("fuchsia pink", "pink", True, "ed0dd9"),
        ("chocolate", "brown", False, "3d1c02"),
        ("dark brown", "brown", False, "341c02"),
        ("chestnut", "brown", False, "742802"),
        ("coffee brown", "brown", False, "6f4e37"),
        ("tan", "brown", True, "d1b26f"),
        ("wood brown", "brown", True, "85572b"),
        ("jet black", "black", False, "0a0a0a"),
        ("ebony", "black", True, "14120e"),
        ("snow white", "white", False, "fffafa"),
        ("cream white", "white", True, "fff8e0"),
        ("silver", "gray", False, "c5c9c7"),
        ("dark grey", "gray", False, "363737"),
        ("ash grey", "gray", True, "a9aba8"),
    )
)
FARTHEST = 32.0  # CIE L*a*b* distance up to which a person accepts a colour word for a shade
AHEAD = 15.0  # how much farther every other object that the phrase could mean must be


def color_distance(rgb: Rgb, shade: Shade) -> float:
    """CIE 1976 distance; both clipped to what objects show (very dark and very bright shades are drawn less so)."""
    clipped = tuple(float(np.clip(c, 0.10, 0.93)) for c in rgb)
    return float(np.linalg.norm(lab(clipped) - lab(shade.rgb)))  # type: ignore[arg-type]


def kind_words(spec: ObjectSpec, scene: Sequence[ObjectSpec], held_out: bool) -> list[str]:
    """Synonyms of an object's kind that no other object in the scene could be called."""
    kinds = {other.kind for other in scene}
    cube = spec.kind == "block" and max(spec.dimensions) - min(spec.dimensions) < 1e-6
    return [
        entry.word
        for entry in KIND_SYNONYMS
        if entry.kind == spec.kind and entry.held_out == held_out and not kinds & set(entry.also) and (cube or not entry.cubes_only)
    ]


def color_words(spec: ObjectSpec, scene: Sequence[ObjectSpec], held_out: bool) -> list[str]:
    """Synonyms of an object's colour that a person accepts for its shade, and rather than for any other object of its kind."""
    rivals = [other.shade for other in scene if other.kind == spec.kind and other.phrase != spec.phrase]
    found = []
    for entry in COLOR_SYNONYMS:
        if entry.color == spec.shade.name and entry.held_out == held_out:
            near = color_distance(entry.rgb, spec.shade)
            if near <= FARTHEST and all(color_distance(entry.rgb, rival) >= near + AHEAD for rival in rivals):
                found.append(entry.word)
    return found


def reword(rng: np.random.Generator, spec: ObjectSpec, scene: Sequence[ObjectSpec], held_out: bool) -> tuple[str, list[str]]:
    """Another phrase for an object, and the synonyms in it (none if there are no fitting ones).

    Args:
        spec: the object, one of `scene`.
        held_out: take words that no training caption has; otherwise those that captions have. Words that are not replaced stay.
    """
    colors, kinds = color_words(spec, scene, held_out), kind_words(spec, scene, held_out)
    said = {"color": spec.shade.name, "kind": spec.kind}
    options = [(part, words) for part, words in (("color", colors), ("kind", kinds)) if words]
    if not options:
        return spec.phrase, []
    chosen = options if rng.random() < 0.5 else [options[int(rng.integers(len(options)))]]
    used = []
    for part, words in chosen:
        said[part] = words[int(rng.integers(len(words)))]
        used.append(said[part])
    return f"{said['color']} {said['kind']}", used
