"""What a question asks, as far as its words tell (`wording`); whatever is not understood is an open question."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pcm_ros.sight import words as names
from pcm_ros.tasks.video_qa.wording import MOVES, WHO, Motion, Side, moving, placed, plain, says_that_it_moves, timed, whole, without_asides

Asks = Literal["colour", "kind", "object", "count", "yes_no", "open"]

LONGEST_QUESTION = 500
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ANYTHING = names.ANYTHING | {"", "something", "anything"}
_ANYTHING = rf"(?:{'|'.join(sorted(names.ANYTHING))})s?"
_COUNT = r"(?:how many|(?:what|which|the)?(?: is| are)?(?: the)?(?: total)? ?(?:number|count|amount|quantity) of|count|how much)"
_KIND = r"(?:(?:kind|sort|type|category|class)s? of (?:objects?|things?|items?)|(?:kind|sort|type|category|class)s? (?:of )?)"
_CAN_SEE = (
    r"(?:(?:(?:can|could|do|did) (?:you|we|i|one|anyone|anybody)|(?:can|could) be) (?:see|seen|find|found|spot|notice|count|counted))"
)
_YES_NO = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|will|would)"
# What a question is built of, beside the names of things.
_BUILDING = frozenset(
    (  # noqa: SIM905
        "what which who whose is are was were be been being does do did has have had will would could that those these this there it "
        "its they the a an any some all every each of for to with by and or so then not you we i me us see seen find found spot notice "
        "appear appears shown show called call named name tell say give identify know want like wonder whether if colour coloured kind "
        "sort type category class number count counting many how much amount quantity exist exists present visible stand stands lie "
        "lies sit sits located placed resting standing sitting lying own else as at in on out only both here now please describe point "
        "state happen happens question answer goes go comes very somebody someone anybody looking done belong belongs got get gets "
        "their mean means make makes come full whole ahead rest others other still"
    ).split()
)
# What changes the meaning of the rest: who reads past it answers another question.
_NOT_UNDERSTOOD = frozenset(
    (  # noqa: SIM905
        "not no never nothing none neither nor or before after than because while until except unless second third twice once times "
        "time most least longest shortest tallest largest smallest biggest fastest slowest farthest furthest direction shape size "
        "height weight stop stops stopped robot arm hand gripper person human without instead between "
        "and but same similar like almost always sometimes often again except besides apart excluding including "
        "two three four five six seven eight nine ten several multiple few fewer couple pair dozen half more less enough together alone"
    ).split()
)
# Places that no reading has: they are none of the things, and nothing stands on or in them.
_PLACES = frozenset(
    (  # noqa: SIM905
        "left right front back middle centre center central side sides corner corners edge foreground background top bottom upper lower "
        "under underneath below beneath above over behind beside near nearest next close closer around along across past through "
        "toward towards away out off from up down on onto upon in into inside within outside to"
    ).split()
)
_NO_ANCHORS = frozenset({"table", "tabletop", "desk", "surface"})
"""What all things stand on: it is none of them."""
_ALL_TIME = r"(?:ever|always|throughout|all along|at any (?:time|point|moment)|(?:all the|whole|entire|full) (?:time|while|way))"
_AMONG = rf"^out of (?:all )?(?:(?:the|these|those) )*{_ANYTHING}\b"
_NO_MEANING = rf"{_AMONG}|\bto be\b|\bbelongs? to\b|^to (?=(?:what|which)\b.* belong)"
"""Where words of `_PLACES` mean none."""
_MANNER = r"(?!(?:jelly|lily|doily|holly|fly|family)$)\w+ly|\d+"
_EXACTLY = rf"(?:only|solely|merely|exactly|single|just(?= (?:{'|'.join(NUMBERS)}|a|an|the)\b))"
_COLOUR = rf"(?:(?:dark|light|bright|pale) )?(?:{'|'.join(sorted(names.COLOUR_NAMES))})"
_HAVE = r"\b(?:is|are|was|were|has|have|had|can|do|does|did)\b"

_SINGULAR = {
    **{f"{word}s": word for word in ("cookie", "brownie", "movie", "smoothie", "toe", "shoe")},
    **{f"{word[:-2]}ves": word for word in ("knife", "life")},
    **{f"{word[:-1]}ves": word for word in ("shelf", "loaf", "leaf", "scarf", "half", "calf")},
    "buses": "bus",
    "lenses": "lens",
    **{word: word for word in ("gas", "lens", "scissors", "pliers", "tongs")},
}
"""Plurals that rules would get wrong."""


class UnusableQuestion(ValueError):
    """A question that cannot be worked on. The message says why, and what is allowed."""


@dataclass(frozen=True)
class Reading:
    """What is asked.

    Attributes:
        asks: for a colour, a kind of thing, a thing, a number, yes or no, or something that no pattern fits ("open").
        noun: what it is about, in the singular, without article; "" = anything.
        motion: what the thing does; "first" and "last" of those that move.
        side: where it is of the `anchor`; "leftmost" and "rightmost" need none.
        at_end: whether places at the end count, else at the start.
        known: whether the text was understood in full: of one that asks for a number or for yes or no and was not,
            only the form of its answer is known.
    """

    asks: Asks
    noun: str = ""
    motion: Motion = ""
    side: Side = ""
    anchor: str = ""
    at_end: bool = True
    known: bool = True

    def phrase(self, answer: str) -> str:
        """What the thing is called if this answer is right: "mug" and "red" are a "red mug"."""
        words = bare(answer)
        if self.asks == "colour":
            return f"{words} {self.noun or 'object'}"
        if self.asks == "kind":
            colour = " ".join(word for word in self.noun.split() if word not in ANYTHING)
            return words if set(colour.split()) & set(words.split()) else f"{colour} {words}".strip()
        return words


def checked_question(text: str) -> str:
    """The question on one line; control characters and line breaks, which could look like a second question, are spaces.

    Raises:
        UnusableQuestion: empty, or longer than 500 characters.
    """
    question = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not question:
        raise UnusableQuestion(f"the question is empty; allowed: 1..{LONGEST_QUESTION} characters of text")
    if len(question) > LONGEST_QUESTION:
        raise UnusableQuestion(
            f"the question has {len(question)} characters; allowed: 1..{LONGEST_QUESTION}; remedy: ask one thing at a time"
        )
    return question


def read_question(text: str) -> Reading:
    """What a question asks. Never fails: what is not understood is "open", or, where a number or yes or no is asked for, not `known`."""
    said = plain(text)
    words, at_end = timed(said)
    words = without_asides(words)
    words = re.sub(whole(_CAN_SEE), "is there" if re.match(_CAN_SEE, words) else " ", words)
    told = re.match(r"(?:there|the|a|an|any|some)\b", words) is not None and not re.search(r"\b(?:that|which|what|to)\b", words)
    yes_no = re.match(rf"(?:{_YES_NO}|whether|if)\b", words) is not None and not re.search(r"\b(?:what|which|how)\b", words)
    if re.match(rf"(?:on|in|under) (?:what|which)\b|(?:what|who|which(?: \w+){{1,2}}) {MOVES} (?:the|a|an)\b", words):
        return Reading("open", known=False)  # "on what does it stand", "what moves the mug": neither is looked for
    rest, motion = moving(words)
    rest, side, before, after = placed(rest)
    rest = re.sub(rf"^(how many) (.+?) {_HAVE} (?:coloured )?({_COLOUR})$", r"\1 \3 \2", rest)  # "how many mugs are red"
    rest = re.sub(rf"\b(of (?:the|these|those)) (?:{'|'.join(NUMBERS[2:])}) ", r"\1 ", rest)
    asks = "yes_no" if yes_no else _asks(rest, side, motion)
    if told and asks in ("object", "open") and _thing(before or rest, "object"):  # a statement, true or not
        yes_no, asks = True, "yes_no"
    if asks == "open":
        return Reading("open", known=False)
    noun, anchor = _thing(before if side and yes_no else rest, asks), _thing(after, "object") if side else ""
    left = {*re.sub(_NO_MEANING, " ", rest).split(), *after.split()}
    understood = not (_NOT_UNDERSTOOD | _PLACES) & left and not any(re.fullmatch(_MANNER, word) for word in left)
    understood &= anchor != "" or side in ("", "leftmost", "rightmost")
    understood &= anchor not in _NO_ANCHORS
    understood &= at_end or side != "" or motion in ("", "first", "last")  # "what moves at the start"
    understood &= side == "" or re.search(whole(_ALL_TIME), said) is None  # "is it always on the plate"
    if yes_no:
        understood &= re.search(whole(_EXACTLY), said) is None
        there = re.search(r"\b(?:there|here|exists?|appears?|shown|present|visible|have)\b|^any\b", words)
        understood &= not re.search(r"\b(?:all|every|both|each)\b", words) and side not in ("leftmost", "rightmost")
        understood &= says_that_it_moves(words) and not side if motion else bool(side or there)
        understood &= bool(noun) or not motion or re.search(whole(WHO), words) is None  # "does the robot move"
    if asks == "count":
        understood &= not (motion and side) and side not in ("leftmost", "rightmost")
        understood &= sum(_thing(part, asks) != "" for part in re.split(_HAVE, rest)) < 2  # "how many mugs have handles"
    if not understood:
        return Reading(asks if asks in ("yes_no", "count") else "open", known=False)
    return Reading(asks, noun, motion, side, anchor, at_end)


def _asks(text: str, side: Side, motion: Motion) -> Asks:
    """What sort of answer is wanted, unless it is yes or no; the text is without words of time, place and motion."""
    if re.match(r"(?:why|when|where|who|whose|how(?! many| much))\b", text):
        return "open"
    text = re.sub(r"^(?:.*? )??(?=(?:what|which|how many)\b)", "", text) if re.search(r"\b(?:what|which|how many)\b", text) else text
    if re.match(rf"{_COUNT}\b", text) or re.search(r"\b(?:count|number of)\b", text):
        return "count"
    if re.search(rf"\b{_KIND}", text):
        return "kind"
    if re.search(r"\bcolours?\b", text):
        return "colour"
    if not side and re.match(rf"what\b.*\b{_ANYTHING}\b", text) and _thing(text, "kind"):
        return "kind"
    if side or motion:
        return "object"
    return "open"


def _thing(text: str, asks: Asks) -> str:
    """The name of a thing in a text, without article and in the singular; of colours alone, "red object"; "" = anything."""
    words = [word for word in text.split() if word not in _BUILDING]
    several = asks == "count" or (asks == "yes_no" and text.startswith(("are ", "were ")))
    words = [singular(word) if several or singular(word) in names.ANYTHING else word for word in words]
    named = [word for word in words if word not in ANYTHING]
    return f"{' '.join(named)} object" if named and all(word in names.COLOURS for word in named) else " ".join(named)


def bare(words: str) -> str:
    """Without articles and punctuation, in lower case, one spelling of gray."""
    kept = re.sub(r"[^\w\s'-]", " ", words.lower()).split()
    while kept and kept[0] in ("the", "a", "an"):
        kept = kept[1:]
    return " ".join("gray" if word == "grey" else word for word in kept)


def singular(noun: str) -> str:
    """Of English plurals; words that are none, as far as their letters tell, are as they were."""
    if noun in _SINGULAR:
        return _SINGULAR[noun]
    if not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    return noun[:-2] if noun.endswith(("xes", "ches", "shes", "sses", "zzes", "toes")) else noun[:-1]


def number_of(answer: str) -> int | None:
    """The number that an answer says, 0..99; None: it says none."""
    words = bare(answer)
    if words in ("none", "nothing"):
        return 0
    if words in NUMBERS:
        return NUMBERS.index(words)
    return int(words) if re.fullmatch(r"\d{1,2}", words) else None


def truth_of(answer: str) -> bool | None:
    """Yes or no; None: neither."""
    return {"yes": True, "no": False}.get(bare(answer))


def normalised(answer: str) -> str:
    """For comparison: bare words, numbers as digits."""
    number = None if bare(answer) == "nothing" else number_of(answer)
    return bare(answer) if number is None else str(number)
