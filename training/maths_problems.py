"""Word problems of one to three steps, made from templates: what teaches a language model to stop after the step that answers the question.

GSM8K's problems take two to eight steps, and a model trained on them alone takes a step too many on simple ones. Here the number of steps
follows the question, many stories hold numbers that play no part, and similar stories end in different questions. The templates were
written for this file: none is taken from a benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HE = [
    "Adam",
    "Ben",
    "Carlos",
    "David",
    "Emil",
    "Frank",
    "Georgi",
    "Hassan",
    "Ivan",
    "Jack",
    "Kofi",
    "Liam",
    "Marco",
    "Nadir",
    "Omar",
    "Pablo",
    "Quentin",
    "Ravi",
    "Samuel",
    "Tom",
    "Umar",
    "Victor",
    "Walter",
    "Xavier",
    "Yusuf",
    "Zane",
]
SHE = [
    "Anna",
    "Bella",
    "Chloe",
    "Diana",
    "Elena",
    "Fatima",
    "Grace",
    "Hana",
    "Irina",
    "Julia",
    "Kira",
    "Laura",
    "Maya",
    "Nina",
    "Olga",
    "Paula",
    "Qiana",
    "Rosa",
    "Sara",
    "Tina",
    "Uma",
    "Vera",
    "Wendy",
    "Xenia",
    "Yara",
    "Zoe",
]
THINGS = [
    "apples",
    "oranges",
    "pears",
    "plums",
    "lemons",
    "cookies",
    "muffins",
    "candies",
    "balloons",
    "marbles",
    "stickers",
    "stamps",
    "coins",
    "cards",
    "shells",
    "pebbles",
    "pencils",
    "pens",
    "crayons",
    "markers",
    "notebooks",
    "books",
    "magazines",
    "postcards",
    "buttons",
    "beads",
    "ribbons",
    "bracelets",
    "toys",
    "puzzles",
    "blocks",
    "kites",
    "hats",
    "scarves",
    "shirts",
    "socks",
    "towels",
    "plates",
    "cups",
    "spoons",
    "candles",
    "flowers",
    "roses",
    "tulips",
    "seeds",
    "carrots",
    "tomatoes",
    "potatoes",
    "onions",
    "eggs",
    "sandwiches",
    "pies",
    "cakes",
    "bottles",
    "cans",
    "tickets",
    "photos",
    "keys",
    "bolts",
    "screws",
    "nails",
    "tiles",
    "bricks",
    "planks",
    "ropes",
    "badges",
    "medals",
    "buckets",
    "lamps",
    "chairs",
]
BOXES = ("box", "bag", "basket", "jar", "drawer", "shelf", "crate", "packet", "tray", "album", "case", "carton")
PLURAL = {"box": "boxes", "shelf": "shelves"}
PLACES = ("market", "fair", "school", "park", "library", "shop", "museum", "farm", "bakery", "camp", "station", "garden", "club", "hotel")
PEOPLE = ("children", "students", "visitors", "workers", "guests", "players", "passengers", "campers", "teachers", "singers", "dancers")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "purple", "orange", "silver", "brown")

# maths_problems.txt, under each kind of numbers: "story | question | step | step ...". [p|q] is a choice; {a} {b} ... are numbers, {r} the
# result of the last step, {s} {t} of those before. A, B, C are people ({he}, {his}, {him} go with A), x, y, z things, box a container.
TEMPLATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    kind: tuple(tuple(part.strip() for part in line.split(" | ")) for line in lines.strip().splitlines())
    for kind, _, lines in (block.partition("\n") for block in Path(__file__).with_suffix(".txt").read_text().split("== ")[1:])
}

# Two things, two events: the same story with many questions, each of which needs some of its four numbers.
PAIRED = (
    ("{A} [bought|got] {a} {x} and {b} {y}. Then {he} [gave away|lost|used] {c} {x} and {d} {y}.", "buy", "give away"),
    ("The {place} [had|kept] {a} {x} and {b} {y}. It sold {c} {x} and {d} {y}.", "have", "sell"),
    ("{A} baked {a} {x} and {b} {y}. {He} sold {c} of the {x} and {d} of the {y}.", "bake", "sell"),
)
PAIRED_ASKS = (
    ("a-c", "How many {x} are left?", ("<<{a}-{c}={r}>> {x} are left.",)),
    ("b-d", "How many {y} are left?", ("<<{b}-{d}={r}>> {y} are left.",)),
    ("a+b", "How many {x} and {y} were there at first?", ("There were <<{a}+{b}={r}>> at first.",)),
    ("c+d", "How many {x} and {y} went away?", ("<<{c}+{d}={r}>> went away.",)),
    ("a-b", "How many more {x} than {y} were there at first?", ("There were <<{a}-{b}={r}>> more {x}.",)),
    ("b-a", "How many more {y} than {x} were there at first?", ("There were <<{b}-{a}={r}>> more {y}.",)),
    ("c-d", "How many more {x} than {y} went away?", ("<<{c}-{d}={r}>> more {x} went away.",)),
    ("a-c", "How many {x} remain?", ("<<{a}-{c}={r}>> {x} remain.",)),
    (
        "(a-c)+(b-d)",
        "How many {x} and {y} are left in all?",
        ("<<{a}-{c}={s}>> {x} are left.", "<<{b}-{d}={t}>> {y} are left.", "In all <<{s}+{t}={r}>> are left."),
    ),
)
IDLE = (
    "{C} has {d1} {z}.", "The {place2} is {d1} years old.", "It was {d1} degrees outside.", "{C} is {d1} years old.",
    "There are {d1} {z} in the {place2}.", "The {place2} opens at {d2} o'clock.", "{C} bought {d2} {z} for ${d1}.",
    "{A} also has {d1} {z}.", "{C} lives {d2} miles from the {place2}.", "Last week {C} found {d1} {z}.", "Each {z1} weighs {d2} grams.",
    "{A} slept {d2} hours.", "{d1} {people2} work at the {place2}.", "A {z1} costs ${d2}.",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A word problem.

    Attributes:
        question: one paragraph. steps: lines of the solution, each with one equation <<a*b=c>>. answer: the number asked for.
        kind: "add", "mul_sub", ..., the operations in order; "paired" for stories with two things and two events.
    """

    question: str
    steps: tuple[str, ...]
    answer: int
    kind: str


def whole_number(rng: np.random.Generator, least: int = 2, most: int = 0) -> int:
    """A number of varied size: mostly below 100, some hundreds, few thousands."""
    most = most or int(rng.choice([12, 30, 100, 100, 400, 2000], p=[0.2, 0.25, 0.25, 0.15, 0.1, 0.05]))
    return int(rng.integers(least, max(most, least + 1) + 1))


def _numbers(kind: str, rng: np.random.Generator) -> dict[str, int]:
    """Numbers that make every step a whole number above 0."""
    a, b, c, d = (whole_number(rng) for _ in range(4))
    small = [whole_number(rng, 2, 12) for _ in range(4)]
    match kind:
        case "add":
            return {"a": a, "b": b, "r": a + b}
        case "sub":
            return {"a": a + b, "b": b, "r": a}
        case "mul":
            first, second = (small[0], b) if rng.random() < 0.6 else (whole_number(rng, 2, 40), small[1])
            return {"a": first, "b": second, "r": first * second}
        case "div":
            share = whole_number(rng, 2, 60)
            by = small[0] if rng.random() < 0.8 else whole_number(rng, 2, 40)
            return {"a": by * share, "b": by, "r": share}
        case "add_add":
            return {"a": a, "b": b, "c": c, "s": a + b, "t": 2 * a + b, "r": a + b + c}
        case "add_sub":
            c = int(rng.integers(1, a + b))
            return {"a": a, "b": b, "c": c, "s": a + b, "r": a + b - c}
        case "sub_sub":
            return {"a": a + b + c, "b": b, "c": c, "s": a + c, "r": a}
        case "mul_add":
            return {"a": small[0], "b": small[1], "c": c, "s": small[0] * small[1], "r": small[0] * small[1] + c}
        case "mul_sub":
            product = small[0] * small[1]
            c = int(rng.integers(1, product))
            return {"a": small[0], "b": small[1], "c": c, "s": product, "r": product - c}
        case "add_mul":
            a, b = whole_number(rng, 2, 30), whole_number(rng, 2, 30)
            return {"a": a, "b": b, "c": small[0], "s": a + b, "r": (a + b) * small[0]}
        case "add_div":
            total = small[0] * (share := whole_number(rng, 2, 40))
            a = int(rng.integers(1, total))
            return {"a": a, "b": total - a, "c": small[0], "s": total, "r": share}
        case "sub_div":
            share = whole_number(rng, 2, 40)
            return {"a": small[0] * share + b, "b": b, "c": small[0], "s": small[0] * share, "r": share}
        case "mul_mul_add":
            a, b, c, d = small
            return {"a": a, "b": b, "c": c, "d": d, "s": a * b, "t": c * d, "r": a * b + c * d}
        case "mul_mul_sub":
            a, b, c, d = small
            if a * b <= c * d:
                a, b, c, d = c, d + 1, a, b
            if a * b <= c * d:
                a = c * d + 1
            return {"a": a, "b": b, "c": c, "d": d, "s": a * b, "t": c * d, "r": a * b - c * d}
    raise ValueError(f"kind is '{kind}'; allowed: {', '.join(TEMPLATES)}")


def words_for(rng: np.random.Generator) -> dict[str, str]:
    """Names, things and places, none twice in one story."""
    people = [(name, "he", "his", "him") for name in HE] + [(name, "she", "her", "her") for name in SHE]
    who = [people[i] for i in rng.choice(len(people), 3, replace=False)]
    things = [THINGS[i] for i in rng.choice(len(THINGS), 3, replace=False)]
    days = [DAYS[i] for i in rng.choice(len(DAYS), 2, replace=False)]
    colours = [COLOURS[i] for i in rng.choice(len(COLOURS), 2, replace=False)]
    places = [PLACES[i] for i in rng.choice(len(PLACES), 2, replace=False)]
    crowds = [PEOPLE[i] for i in rng.choice(len(PEOPLE), 2, replace=False)]
    box = str(rng.choice(BOXES))
    words = {"A": who[0][0], "B": who[1][0], "C": who[2][0], "he": who[0][1], "his": who[0][2], "him": who[0][3]}
    words |= {"He": who[0][1].capitalize(), "x": things[0], "y": things[1], "z": things[2], "box": box, "boxes": PLURAL.get(box, f"{box}s")}
    words |= {f"{slot}1": _singular(thing) for slot, thing in zip("xyz", things, strict=True)}
    words |= {"day": days[0], "day2": days[1], "c1": colours[0], "c2": colours[1], "place": places[0], "place2": places[1]}
    return words | {"people": crowds[0], "people2": crowds[1]}


def _singular(things: str) -> str:
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("scarves", "scarf"), ("sandwiches", "sandwich"), ("toes", "to"), ("s", "")):
        if things.endswith(ending) and things not in ("cookies", "pies"):
            return things[: -len(ending)] + instead
    return things[:-1]


def chosen(text: str, rng: np.random.Generator) -> str:
    """The text with one of the words of each [p|q]."""
    return re.sub(r"\[([^\]|]*(?:\|[^\]]*)+)\]", lambda match: str(rng.choice(match[1].split("|"))), text)


ONE_STEP = ("add", "sub", "mul", "div")


def make_problem(rng: np.random.Generator, one_step: float = 0.55, paired: float = 0.2, idle: float = 0.4) -> Problem:
    """One problem.

    Args:
        one_step: probability of a plain story of one step; the rest have two or three.
        paired: probability of a story with two things and two events instead. idle: of a sentence that plays no part.
    """
    words: dict[str, object] = dict(words_for(rng))
    if rng.random() < paired:
        story, question, steps, numbers, kind = _paired(rng)
    else:
        several = [kind for kind in TEMPLATES if kind not in ONE_STEP]
        kind = str(rng.choice(ONE_STEP) if rng.random() < one_step else rng.choice(several))
        story, question, *steps = TEMPLATES[kind][rng.integers(len(TEMPLATES[kind]))]
        numbers = _numbers(kind, rng)
        if kind == "add_add" and len(steps) == 3:
            numbers["r"] = numbers["t"] + numbers["c"]
    sentences = [story]
    while rng.random() < idle and len(sentences) < 3:
        sentences.insert(int(rng.integers(len(sentences) + 1)), str(rng.choice(IDLE)))
        words |= {"d1": whole_number(rng), "d2": whole_number(rng, 2, 12)}
    words |= numbers
    filled: Callable[[str], str] = lambda text: chosen(text, rng).format(**words)  # noqa: E731
    text = " ".join(filled(sentence) for sentence in sentences)
    asked = filled(question)
    if rng.random() < 0.12 and text.endswith("."):
        asked = f"{asked[0].lower()}{asked[1:]}"
        text = f"{text[:-1]}, {asked}" if text.startswith("If ") else f"If {_lower_first(text[:-1], words)}, {asked}"
    else:
        text = f"{text} {asked}"
    lines = tuple(_capital(filled(step)) for step in steps)
    return Problem(text, lines, int(numbers["r"]), kind)


def _lower_first(text: str, words: Mapping[str, object]) -> str:
    names = {str(words[slot]) for slot in "ABC"}
    return text if text.split()[0].strip("'s") in names or not text[0].isalpha() else text[0].lower() + text[1:]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _paired(rng: np.random.Generator) -> tuple[str, str, list[str], dict[str, int], str]:
    while True:
        story, *_ = PAIRED[rng.integers(len(PAIRED))]
        what, question, steps = PAIRED_ASKS[rng.integers(len(PAIRED_ASKS))]
        c, d = whole_number(rng), whole_number(rng)
        numbers = {"a": c + whole_number(rng), "b": d + whole_number(rng), "c": c, "d": d}
        a, b = numbers["a"], numbers["b"]
        results = {"a-c": a - c, "b-d": b - d, "a+b": a + b, "c+d": c + d, "a-b": a - b, "b-a": b - a, "c-d": c - d}
        result = results.get(what, (a - c) + (b - d))
        if result > 0:
            return story, question, list(steps), numbers | {"r": result, "s": a - c, "t": b - d}, "paired"
