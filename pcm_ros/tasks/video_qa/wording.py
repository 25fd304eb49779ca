"""The words of a question about a clip, taken apart: when, where, what moves, and the rest.

People ask the same in many ways ("At the end, what's the left-most thing?", "Which object ends up farthest to the left?"). Each function
takes one sort of expression out of a text, wherever it stands, and says what it meant.
"""

from __future__ import annotations

import re
from typing import Literal

Motion = Literal["", "moves", "still", "first", "last"]
Side = Literal["", "left", "right", "on", "in", "leftmost", "rightmost"]


def _words(text: str) -> str:
    """A pattern of one of these words; "_" in a word is a space."""
    return f"(?:{'|'.join(word.replace('_', ' ') for word in text.split())})"


def _any(*patterns: str) -> str:
    """A pattern of one of these."""
    return f"(?:{'|'.join(patterns)})"


def whole(pattern: str) -> str:
    """A pattern that neither begins nor ends within a word."""
    return rf"(?<![\w'-]){pattern}(?![\w'-])"


_SHORT: tuple[tuple[str, str], ...] = (
    (r"[’`´]", "'"),
    (r"\bcan't\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"'s\b", " is"),
    (r"'re\b", " are"),
    (r"'d\b", " would"),
    (r"'ve\b", " have"),
    (r"'ll\b", " will"),
    (r"'m\b", " am"),
    (r"\bgrey", "gray"),
    (r"\bcolor", "colour"),
)

# --- when ---
_FILM = (
    f"(?:(?:{_words('the this that your a whole entire short full')} )*"
    f"{_words('video clip film movie footage scene sequence recording shot animation episode frame image picture')}s?(?: clip| sequence)?)"
)
_ALL_OF_IT = _any(
    _FILM, _words("it everything every_object"), "all(?: is)?", "(?:all )?(?:the )?(?:motions?|movements?|action|moving|things|objects)"
)
_OVER = _any(
    "ends?|ended|finish(?:es|ed)?|stop(?:s|ped)?|settles?",
    f"{_words('is was are were has have')} {_words('over done finished through ended stopped settled')}",
)
_MOMENT = _any(_FILM, f"{_words('moment state second instant arrangement position layout configuration')}s?")
_END = _any(
    rf"{_words('at by toward towards in near until till')} (?:the )?(?:very )?{_words('end ending finish close')}(?: of {_FILM})?",
    rf"{_words('when once after by_the_time as')}(?: that)? {_ALL_OF_IT} {_OVER}",
    rf"(?:in|on) (?:the )?(?:very )?{_words('last final closing end')} {_MOMENT}(?: of {_FILM})?",
    _words("finally eventually ultimately afterward afterwards"),
    "after (?:all|everything)(?: is done)?(?! (?:of|the|other|others|else)(?![a-z]))",
)
_START = _any(
    rf"(?:at|in|from) (?:the )?(?:very )?{_words('start beginning outset')}(?: of {_FILM})?",
    rf"(?:when|as|before) {_any(_FILM, 'it', 'everything', 'anything', '(?:the )?motion')} (?:starts?|begins?|started|began|moves)",
    rf"(?:in|on) the (?:very )?{_words('first opening initial')} {_MOMENT}(?: of {_FILM})?",
    "initially|originally|to (?:begin|start) with",
)
_ENDS_UP = r"(?:(?:ends?|ended|ending|winds?|wound|finish(?:es|ed)?|comes?|came)(?: up)?|com(?:e|es) to rest|came to rest)"

# --- what adds nothing ---
_TELL = _words(
    "do_you_know any_idea let_me_know tell say name give identify state point_out specify find_out work_out figure_out find determine "
    "report indicate describe guess know check"
)
_POLITE = (
    _words("hi hello hey ok okay so now and well please just kindly look hmm excuse_me quick_question question in_your_opinion for_me"),
    rf"(?:can|could|would|will) (?:you|anyone|someone|somebody)(?= (?:please |kindly )?"
    rf"{_words('tell say name identify give point describe state count let work')})",
    rf"(?:i|we) {_words('want need would_like wish wonder am_wondering would_love am_curious')}(?: to)?(?: (?:know|hear|see))?",
)
WHO = _words("robot hand arm gripper person human someone somebody anyone anybody they")
"""A pattern of whoever moves things, and is none of the things."""
_AGENT = rf"(?:(?:the |a |an )?{WHO}(?: is(?= arm| hand))?(?: (?:arm|hand))?(?: or (?:something|anything))?)"
_SHOWN = _any(
    rf"{_words('in during throughout over within from for across of')}(?: the course of)? {_FILM}",
    rf"{_words('among amongst between')} (?:the |these |those )?(?:objects?|things?|items?)",
)
_ASIDE = (
    r"(?:(?:(?:for|during|over) )?(?:the )?(?:whole|entire|full) (?:time|while|way)|throughout)",
    _words("all_the_time all_along all_the_while all_the_way_through"),
    _words("at_all or_not at_any_time at_any_point at_any_moment in_all in_total in_sight on_screen on_the_screen"),
    _words(
        "altogether overall ever actually currently really exactly please together just only also kindly single total different distinct "
        "separate individual various simply"
    ),
    rf"by {_AGENT}",
)
_ON_THE_TABLE = rf"(?:{_words('on upon across')} (?:the |this )?{_words('table tabletop desk surface')}(?: top)?)"
_TAG = r"(?:(?<!the)(?<!far)(?<!most) right| (?:correct|true|yes|no)| (?:does|is|did|was|has) (?:not )?(?:it|there)(?: not)?)"

# --- what moves ---
_VERBS = (  # noqa: SIM905
    "move shift relocate displace slide push lift raise carry pick transport drag pull grab take budge reposition "
    "rearrange transfer travel grasp"
).split()
_IRREGULAR = {"slide": "slid", "take": "took|taken"}
_DOUBLED = {"grab": "grabb", "drag": "dragg"}


def _forms(verb: str) -> list[str]:
    """All forms of a verb."""
    if verb.endswith("ry"):
        return [verb, f"{verb[:-1]}ies", f"{verb}ing", f"{verb[:-1]}ied"]
    stem = _DOUBLED.get(verb, verb.removesuffix("e"))
    third = f"{verb}es" if verb.endswith(("sh", "ch")) else f"{verb}s"
    return [verb, third, f"{stem}ing", _IRREGULAR.get(verb, f"{stem}ed")]


_BE = _words(
    "make makes made making perform performs the a any is are was were get gets got gotten getting has have had having does do did be been "
    "being will would to begin begins began start starts started"
)
MOVES = _any(*(form for verb in _VERBS for form in _forms(verb)))
"""A pattern of verbs of motion, in all their forms."""
_MOVE = _any(
    rf"{MOVES}(?: {_words('up away around about over along position place')}\b)?",
    _words("in_motion into_motion set_in_motion put_in_motion"),
    r"(?:changes?|changed|changing|leaves?|left|leaving) (?:its |their |the )?(?:places?|positions?|locations?|spots?)",
    r"(?:in )?(?:any )?(?:motion|movement)",
    "movers?",
)
_UNMOVED = _words("still unmoved motionless stationary immobile untouched unmoving")
_PLACE = rf"{_words('its their the one the_same the_exact_same its_original')} (?:original )?(?:place|position|spot|location)"
_STAYS = rf"{_words('stay remain keep kept stand stood sit sat rest lie lay left leave hold held be')}(?:s|ed|ing)?"
_LEAVES = rf"{_words('leave leaves left leaving')} {_PLACE}"
_STILL = _any(
    rf"(?:{_BE} )*(?:not|never)(?: {_BE})*(?: {_MOVE})",
    rf"(?:{_BE} )*no(?:t any)? (?:motion|movement)",
    rf"without (?:any )?(?:moving|motion|being {_MOVE})",
    rf"(?:{_words('is was are were been')} )?(?!{_LEAVES}){_STAYS} (?:{_words('completely perfectly quite totally absolutely')} )?"
    + _any(
        _UNMOVED,
        _words("put at_rest alone fixed in_place the_same unchanged"),
        rf"(?:in |at )?{_PLACE}",
        rf"(?:exactly )?where (?:it|they) {_words('is was are were stood started began')}",
    ),
    rf"(?:{_words('is was are were')} )?(?:at rest|(?!still){_UNMOVED}|still$)",
)
_RESTLESS = rf"(?:(?:{_BE} )*(?:not|never) {_words('stay remain keep stand be at')}(?:ing)? (?:{_UNMOVED}|put|rest|in place|{_PLACE}))"
_OTHER = _any("others?", "rest", "anything else", "everything else", "all(?! the)")
_OTHERS = rf"(?:(?:{_words('all any every each')}(?: of)? )?(?:the )?{_OTHER}(?: (?:objects?|things?|items?|ones?))?)"
_FIRST, _LAST = _words("first firstly earliest soonest initial"), _words("last lastly latest final")

# --- where ---
_MORE = r"(?:further|farther|more)(?: to(?:wards?)?)?(?: the)?"
_SIDE_OF = {
    side: _any(
        rf"{_MORE} {side} than",
        rf"{_words('to on at toward towards')} (?:the )?{side}(?:[- ]?hand)?(?: side)?(?: of| from)",
        rf"{side}(?:wards?)? (?:of|from)",
    )
    for side in ("left", "right")
}
_FAR = _words("farthest furthest most closest nearest far very outermost extreme outer")
_FARTHEST = {
    side: _any(
        rf"(?:{_words('at to on in toward towards')} )?(?:the )?{_FAR}(?: over| along| out)?(?: to(?:wards?)?| on| at)?(?: the)?(?: far)? "
        rf"{side}(?:[- ]?hand)?(?: {_words('side edge end border')})?(?: of (?:the )?table)?",
        rf"(?:the )?{side}(?:[- ]hand)?[- ]?most",
        rf"{_MORE} {side} than {_OTHERS}",
    )
    for side in ("left", "right")
}
_ON, _IN = r"(?:on (?:the )?top of|atop(?: of)?|on to|onto|upon|on)", r"(?:inside(?: of)?|within|into|in)"
_STANDS = _any(
    f"{_words('rest stand sit lie place put locate position situate land contain hold find')}s?",
    _words("rested stood sat lay placed located positioned situated landed found contained held"),
    _words("resting standing sitting lying placing locating positioning landing containing holding"),
)
_HELD = (
    rf"(?:what|which)(?P<noun> [\w-]+)? (?:does|did|do) (?P<anchor>.+?) (?P<how>contain|hold|carry|support|have (?:{_ON}|{_IN}))"
    r"(?: it| top of it| its surface)?",
    rf"(?P<anchor>.+?) (?:has|have|holds?|contains?) (?:what|which object) (?P<how>{_ON}|{_IN})(?: it| top of it)?",
)
_NO_PLACE = r" (?:motion|place|position|its|the same|that|which)\b"


def plain(question: str) -> str:
    """In lower case, without marks and contractions, one spelling of gray and colour."""
    text = question.lower()
    for pattern, written in _SHORT:
        text = re.sub(pattern, written, text)
    return _tidy(re.sub(r"[^\w\s'-]|(?<!\w)[-']|[-'](?!\w)", " ", text))


def _tidy(text: str) -> str:
    return " ".join(text.split())


def timed(text: str) -> tuple[str, bool]:
    """Without words for the end or the start of the clip; whether the end is meant, which it is where nothing is said."""
    ended = re.sub(whole(_END), " ", text)
    started = re.sub(whole(_START), " ", ended)
    place = _any(_ON, _IN, _words("to left right farthest furthest most leftmost rightmost left-most right-most closest further farther"))
    return _tidy(re.sub(rf"{whole(_ENDS_UP)} (?=(?:\w+ )?{whole(place)})", "is ", started)), started == ended


def without_asides(text: str) -> str:
    """Without words that add nothing ("can you tell me", "altogether", "by the robot"), and in a plain order. "In the clip" is "there"."""
    before = ""
    while before != text:
        before = text
        for polite in _POLITE:
            text = re.sub(rf"^{polite} (?=\w)", "", text)
        told = rf"^{_TELL}(?: (?:me|us))?(?: (?:please|to me|to us))? "
        text = re.sub(told, "", re.sub(rf"{told}(?=(?:the|a|an) )", "what is ", text))
    film_has = rf"(?:does|do|did) {_FILM} {_words('have show contain include feature display hold')}"
    text = re.sub(rf"^{film_has} ", "is there ", text)
    text = re.sub(whole(film_has), " there ", text)
    things = r"(?:objects?|things?|items?)"
    text = re.sub(rf"^{_words('is are was were')} {_words('one any some either')} of (?:the|these|those) {things} ", "is there ", text)
    text = re.sub(rf"^(?:can|could) (?P<noun>.+) be {_words('seen found spotted')}\b", r"is there \g<noun>", text)
    text = _tidy(re.sub(whole(_SHOWN), " there ", text))
    for aside in _ASIDE:
        text = _tidy(re.sub(whole(aside), " ", text))
    on_it = _tidy(re.sub(whole(_ON_THE_TABLE), " there ", text))
    if not re.fullmatch(rf"(?:what|which)(?: \w+)? (?:is|are|was|{_STANDS})(?: there)+", on_it):
        text = on_it
    text = re.sub(r"^(?:(?:have|has) (?:we|you|i|they)(?: got)?|(?:do|does|did) (?:we|you|i|they) have) ", "is there ", text)
    if re.match(r"(?:there|the|a|an|any|some)\b", text) and not re.search(r"\b(?:what|which)\b", text):
        text = re.sub(rf"{_TAG}$", "", text)
    text = re.sub(r"^(is there .+) in it$", r"\1", text)
    text = re.sub(rf"^there (?!{_words('is are was were')} )|(?<=\w) (?:there|here)(?= (?:what|which) (?:is|was) (?:it|that)$)", "", text)
    # "a yellow object moves, what is it", "the plate, does it move"
    text = re.sub(
        r"^(?P<noun>(?:there (?:is|was) )?(?:the|a|an|one) .+?)(?: there| here)? (?P<asked>(?:what|which)(?: [\w ]+)?) (?:is|was) "
        r"(?:it|that|this)(?: one)?(?: there| here)?$",
        r"\g<asked> is \g<noun>",
        text,
    )
    asked = _words("does do did is are was were has have")
    question_word = _words("what which how why where when who whose")
    return re.sub(rf"^(?P<noun>(?!{asked}|{question_word})\w.*?) (?P<asked>{asked}) (?:it|they)(?= |$)", r"\g<asked> \g<noun>", text)


def placed(text: str) -> tuple[str, Side, str, str]:
    """The text without its expression of place, which side that means, and what stands before and after it."""
    for form in _HELD:
        if (held := re.fullmatch(form, text)) is not None:
            named = held.groupdict()
            within = re.search(f"contain|hold|{whole(_IN)}", named["how"]) is not None
            return f"which{named.get('noun') or ''} is", "in" if within else "on", "", named["anchor"]
    options: list[tuple[Side, str]] = [("leftmost", _FARTHEST["left"]), ("rightmost", _FARTHEST["right"])]
    options += [("left", _SIDE_OF["left"]), ("right", _SIDE_OF["right"]), ("on", _ON), ("in", _IN)]
    for name, pattern in options:
        found = re.search(whole(rf"(?:{_STANDS} )?{pattern}"), text)
        if found is None or (name in ("on", "in") and re.match(_NO_PLACE, text[found.end() :])):
            continue
        before, after = text[: found.start()].strip(), text[found.end() :].strip()
        if name in ("leftmost", "rightmost"):
            return _tidy(f"{before} {after}"), name, before, ""
        if after:
            return before, name, before, after
    return text, "", "", ""


def says_that_it_moves(text: str) -> bool:
    """Whether a text whose first word asks for yes or no ends in an expression of motion ("does the mug move"), or goes on from one by a
    robot ("does the robot move the mug"): else the motion only tells which thing is meant ("is the moving thing red")."""
    motion = _any(_RESTLESS, _STILL, _MOVE)
    behind = rf"(?: {_any(_FIRST, _LAST, f'before {_OTHERS}', f'after {_OTHERS}', 'there', 'here', _AGENT)})*"
    return re.search(rf"{whole(motion)}{behind}$", text) is not None or re.match(rf"\w+ {_AGENT} {_MOVE} ", text) is not None


def moving(text: str) -> tuple[str, Motion]:
    """The text without its expression of motion, and what that says."""
    text = re.sub(whole(_RESTLESS), " moves ", text)
    begun = re.search(whole(rf"(?P<order>{_words('begin start commence finish end conclude')})s?(?: with)?"), text)
    found = re.search(whole(r"(?:the )?(?:motion|movement|moving|action)s?"), text)
    if begun is not None and found is not None:
        rest = re.sub(whole(_any(_FIRST, _LAST)), " ", text.replace(begun[0], " ").replace(found[0], " "))
        return _tidy(rest), "first" if begun["order"] in ("begin", "start", "commence") else "last"
    rest, stays = re.subn(whole(_STILL), " ", text)
    if stays:
        return _tidy(rest), "still"
    rest = re.sub(whole(rf"(?:before|earlier than|ahead of|sooner than) {_OTHERS}(?: {_BE})*(?: {_MOVE})?"), " first ", text)
    rest = re.sub(whole(rf"(?:after|later than|following) {_OTHERS}(?: {_BE})*(?: {_MOVE})?"), " last ", rest)
    rest, moves = re.subn(whole(rf"(?:(?:that|which) )?(?:{_AGENT} )?(?:{_BE} )*{_MOVE}(?: {_AGENT})?"), " ", rest)
    if not moves:
        return text, ""
    for order, name in ((_FIRST, "first"), (_LAST, "last")):
        if re.search(whole(order), rest):
            return _tidy(re.sub(whole(order), " ", rest)), name  # type: ignore[return-value]
    return _tidy(rest), "moves"
