"""What a prompt asks for: concepts that shall and that shall not be in the picture, and the things that they name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LONGEST = 300
MOST_CONCEPTS = 6
MOST_ALIKE = 4
_SIDE = r"(?:to|on|at) the (?:left|right)(?:[ -]hand)?(?: side)? of"
_REGION = (
    r"(?:in|at|on|to) the (?:(?:upper|lower|top|bottom|left|right|front|back) )*"
    r"(?:middle|centre|center|corner|foreground|background|front|back|top|bottom|edge|side) of"
)
_BETWEEN = re.compile(
    rf"\b(?:{_SIDE}|(?:left|right) of|on the top of|{_REGION}|in front of|on top of|stacked on|next to|inside of|inside"
    r"|behind|under|beside|near|between|above|below|with|and|in|on|at|to(?= the (?:left|right)\b))\b|[,;.]"
)
_RELATIONS = {
    "left of": "left",
    "right of": "right",
    "in front of": "front",
    "behind": "behind",
    "on top of": "on",
    "on the top of": "on",
    "stacked on": "on",
    "on": "on",
    "in": "in",
    "inside": "in",
    "inside of": "in",
}
_STANDS = r"(?=(?:(?:to|on|at) the|left of|right of|in|on|at|behind|under|beside|next to|near|between|above|below|inside|stacked on)\b)"
_ADVERBS = re.compile(rf"\b(?:directly|immediately|just|exactly|straight|slightly|somewhat|(?<!the )(?<!to )right) {_STANDS}")
_VERBS = re.compile(
    rf"(?: (?:that|which|is|are|stands|standing|sits|sitting|lies|lying|placed|located|positioned|(?<=s )(?:stand|sit|lie)))+ {_STANDS}"
)
_NEGATION = re.compile(r"\b(?:no(?!\.)|not|without|neither|nor|none|never|except|cannot|\w+n['’]t)\b")
_NUMBERS = {"two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4, "pair of": 2, "pairs of": 2, "couple of": 2}
_LEADING = re.compile(
    r"^(?:(?:there is|there are|a|an|the|another|one|two|three|four|[1-4]|some|pairs? of|couple of|pictures? of|photos? of)\s+)+"
)
_SAID_NUMBER = re.compile("|".join(sorted(_NUMBERS, key=len, reverse=True)))
_OTHER_NUMBER = re.compile(
    r"(?:\d+|zero|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[ -]\w+)?|(?P<noun>(?:dozen|hundred|thousand|million)s?(?: of)?)) (?=\S)"
)
_IN_PAIRS = re.compile(r"\b(?:scissors|glasses|trousers|pants|shorts|jeans|pliers|tongs|tweezers|headphones)$")
_PLACE = re.compile(
    r"(?:its )?(?:(?:upper|lower|top|bottom|left|right|front|back|far|very)[ -])*"
    r"(?:table|picture|image|scene|left|right|front|back|background|foreground|top|bottom|middle|centre|center|corners?|edge|side"
    r"|(?:left|right)[ -]hand side)|it|them|each other|another"
)
_JOINING = frozenset({"and", ",", ";", "."})
_MANY = re.compile(r"(?:s|people|men|women|children|mice|geese|sheep|fish|deer)$")
_PLURALS = {"people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "geese": "goose"}
_IN_ES = r"(?:x|ss|sh|ch|zz|\bbus|octopus|cactus|walrus|\blens|\bgas|canvas|potato|tomato)"
_IN_IE = r"(?:cook|brown|p|t|mov|zomb)"


class UnusablePrompt(ValueError):
    """A prompt that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Relation:
    """How a thing of a prompt stands to another: numbers in `Prompt.things`, and "left", "right", "front", "behind", "on" or "in"."""

    subject: int
    word: str
    object: int


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood.

    Attributes:
        text: on one line. wanted: 1..6 concepts, each a prompt of its own. avoided: concepts that shall not be in the picture.
        things: phrases of the single things in `wanted` ("red mug"), for experts that look at parts of the picture.
        counts: how often each of them is wanted, 1..4 (more are refused).
        relations: of those things, as far as the words between them are known.
    """

    text: str
    wanted: tuple[str, ...]
    avoided: tuple[str, ...]
    things: tuple[str, ...]
    counts: tuple[int, ...]
    relations: tuple[Relation, ...]


def read_prompt(text: str) -> Prompt:
    """Understand "a red mug AND a blue bowl AND NOT a plate": AND and NOT in capitals join and exclude concepts (Liu et al., arXiv
    2206.01714); all else is left to the models.

    Raises:
        UnusablePrompt: empty, longer than 300 characters, more than 6 concepts, nothing that is wanted, more than 4 alike things, or a
            negation that is not AND NOT.
    """
    line = " ".join(text.split())
    if not line:
        raise UnusablePrompt(f"the prompt is empty; allowed: 1..{LONGEST} characters of text")
    if len(line) > LONGEST:
        raise UnusablePrompt(f"the prompt has {len(line)} characters; allowed: 1..{LONGEST}; remedy: say less")
    wanted: list[str] = []
    avoided: list[str] = []
    for part in re.split(r"(?:^|\s)AND(?=\s|$)", re.sub(r"(^|\s)NOT(?=\s|$)", r"\1AND NOT", line)):
        concept = part.strip(" ,")
        negated = concept.startswith("NOT ") or concept == "NOT"
        concept = concept.removeprefix("NOT").strip() if negated else concept
        if concept:
            (avoided if negated else wanted).append(concept)
    if not wanted:
        raise UnusablePrompt(f"'{line}' names nothing that is wanted; allowed: at least one concept without NOT")
    if len(wanted) + len(avoided) > MOST_CONCEPTS:
        raise UnusablePrompt(f"the prompt has {len(wanted) + len(avoided)} concepts; allowed: up to {MOST_CONCEPTS}")
    for concept in wanted:
        if found := _NEGATION.search(concept.lower()):
            raise UnusablePrompt(
                f"'{concept}' says '{found[0]}', which would be taken as wanted; allowed: exclude by AND NOT in capitals, as in "
                "'a red mug AND NOT a plate'"
            )
    counts, relations = _things_of(wanted)
    for thing, count in counts.items():
        if count > MOST_ALIKE:
            raise UnusablePrompt(f"the prompt asks {count} times for '{thing}'; allowed: 1..{MOST_ALIKE} alike; remedy: ask for fewer")
    return Prompt(line, tuple(wanted), tuple(avoided), tuple(counts), tuple(counts.values()), relations)


def _things_of(concepts: list[str]) -> tuple[dict[str, int], tuple[Relation, ...]]:
    """The phrases between words of relation, without articles and numbers, and how often each is wanted (the concepts themselves where none
    is left), and how neighbours stand to each other: "a and b" says nothing, "a on b" does, and "a on b and left of c" says both of a. A
    thing that is said again in another concept, or with "the", is the same one.

    Raises:
        UnusablePrompt: a number outside 1..4.
    """
    counts: dict[str, int] = {}
    relations: list[Relation] = []
    for concept in concepts:
        text = _VERBS.sub(" ", _ADVERBS.sub("", concept.lower()))
        start, word, before, subject, last, seen = 0, "", -1, -1, "", set[str]()
        for found in [*_BETWEEN.finditer(text), None]:
            said = text[start : found.start() if found else len(text)].strip()
            phrase, many = _counted(said)
            if phrase and not _PLACE.fullmatch(phrase):
                again = phrase in seen and not said.startswith("the ")
                counts[phrase] = counts[phrase] + many if again else max(counts.get(phrase, 0), many)
                seen.add(phrase)
                number = list(counts).index(phrase)
                if word and before not in (-1, number):
                    relations.append(Relation(before, word, number))
                before, word = number, ""
            elif phrase:
                before, word = -1, ""  # "on a table" relates to nothing in the picture
            elif last == "and" and found and found[0] not in _JOINING:
                before = subject
            if found:
                word = _RELATIONS.get(re.sub(r"^(?:to|on|at) the (left|right)\b.*", r"\1 of", found[0]), "")
                subject = subject if found[0] in _JOINING else before
                start, last = found.end(), found[0]
    return counts or dict.fromkeys(concepts, 1), tuple(relations)


def _counted(said: str) -> tuple[str, int]:
    """ "two red mugs" -> "red mug", 2. Raises UnusablePrompt: a number outside 1..4."""
    phrase = _LEADING.sub("", said)
    lead = said.removesuffix(phrase)
    paired = "pair" in lead and bool(_IN_PAIRS.search(phrase))  # a pair of scissors is one thing
    many = math.prod(_NUMBERS[name] for name in _SAID_NUMBER.findall(lead) if not (paired and name.startswith("pair")))
    other = _OTHER_NUMBER.match(phrase)
    alone = re.search(r"\ban? $", lead) or (phrase[:1].isdigit() and not _MANY.search(phrase))  # "a 5 door car", "in 1950 style"
    if other and (other["noun"] or not alone):
        raise UnusablePrompt(f"'{said}' asks for {other[0].strip()}; allowed: 1..{MOST_ALIKE} alike; remedy: ask for fewer")
    return _singular(phrase) if many > 1 and not paired else phrase, many


def _singular(phrase: str) -> str:
    """ "red boxes" -> "red box", "mugs" -> "mug", "vases" -> "vase"."""
    *others, last = phrase.split(" ")
    if last in _PLURALS:
        return " ".join([*others, _PLURALS[last]])
    if last.endswith("ies") and not re.fullmatch(_IN_IE + "ies", last):
        return phrase.removesuffix("ies") + "y"
    return re.sub(rf"({_IN_ES})es$|(?<!s)s$", r"\1", phrase)
