"""From an English instruction to a goal: ordered relations between described objects.

The grammar is in `instruction.lark`. Understood are:

- orders: "put the red mug to the left of the blue bowl", "pick up the mug and put it on the plate";
- statements of what shall hold: "the red mug is left of the blue bowl";
- "and", commas: relations that hold together; "then", "after that", a new order after a full stop: a new stage;
- short forms: "put the mug left of the bowl and behind the block" (same object), "left of the bowl and the block" (same relation),
  "the mug and the bowl", "and the block behind it" (no verb);
- "it" = the object moved last; "the other mug" = one not meant before; "the blue one" = of the kind named last.

Everything else is refused with an error that says what was understood and what is possible. Nothing is guessed.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from pcm_ros.tasks.manipulation.goal import Goal, Relation, RelationKind

LENGTH_LIMIT = 500
EXAMPLE = "put the red mug to the left of the blue bowl, then stack the green block on it"
PHRASES: dict[RelationKind, str] = {
    RelationKind.LEFT_OF: "to the left of",
    RelationKind.RIGHT_OF: "to the right of",
    RelationKind.IN_FRONT_OF: "in front of",
    RelationKind.BEHIND: "behind",
    RelationKind.ON: "on",
    RelationKind.IN: "in",
    RelationKind.NEXT_TO: "next to",
    RelationKind.BETWEEN: "between",
}
"""How each relation is said."""

_COURTESY_AT_END = re.compile(r"(?:[\s.!?,;]|\b(?:please|thanks|thank\s+you|now)(?=[\s.!?,;]*$))*$", re.IGNORECASE)
_PLACE = re.compile(
    r"(?:(?:other|left|right|far|near|opposite|front|back|rear|top|bottom)[ -](?:hand )?)?"
    r"(?:side|left|right|front|back|rear|top|bottom|middle|center|centre|edge|corner|end)(?: of .*)?"
)
_DISTANCE = re.compile(r"\d+ ?(?:mm|cm|m|millimet(?:re|er)s?|centimet(?:re|er)s?|met(?:re|er)s?|inch(?:es)?)$")
_REASONS: tuple[tuple[str, str], ...] = (
    (
        "The relation '{word}' is not known",
        "under underneath below beneath above over against around across through off from at to toward towards away",
    ),
    (
        "'{word}' is not understood: say what shall be, not what must not or may be",
        "not no never nor or don't dont don’t do cannot can't if unless until when while",
    ),
    ("'{word}' is not understood: name one object in each phrase", "all every each both any none"),
    ("'{word}' is not understood: describe an object by colour, kind, material or size, not by a clause", "that which who where"),
)
_VERBS = "put, place, move, set, stack, drop, bring or lay"


class InstructionError(ValueError):
    """An instruction outside the grammar.

    Attributes:
        reason: what is wrong, one sentence without full stop.
        position: 0-based character where it went wrong (in the text in Unicode form NFC).
        understood: the text before it.
    """

    def __init__(self, reason: str, text: str = "", position: int = 0) -> None:
        self.reason, self.position = reason, position
        self.understood = text[:position].strip(" ,;.")
        understood = f"Understood so far: '{self.understood}'" if self.understood else "Nothing was understood before it"
        relations = ", ".join(PHRASES.values())
        super().__init__(
            f"{reason} (character {position + 1}). {understood}. Possible relations: {relations} (between takes two objects: "
            f"between A and B). Example: {EXAMPLE}."
        )


def parse(text: str) -> Goal:
    """Read an instruction.

    Args:
        text: at most 500 characters of English; letters of any script may occur in noun phrases. Takes time linear in the length.

    Returns:
        The goal; phrases are in lower case, without article.

    Raises:
        InstructionError: not in the grammar, empty, too long, or an object placed relative to itself.
    """
    if len(text) > LENGTH_LIMIT:
        raise InstructionError(f"The instruction has {len(text)} characters; at most {LENGTH_LIMIT} are allowed")
    normal = unicodedata.normalize("NFC", text)
    end = _COURTESY_AT_END.search(normal)
    body = normal[: end.start()] if end else normal
    if not any(character.isalnum() for character in body):
        what = "is empty" if not normal.strip() else f"has no words: '{normal.strip()[:40]}'"
        raise InstructionError(f"The instruction {what}")
    if not re.search("[a-z]", body, re.IGNORECASE):
        raise InstructionError("Instructions are understood in English only")
    try:
        tree = _parser().parse(body)
    except UnexpectedInput as error:
        raise _explained(error, body) from None
    return Goal(_Reader(body).stages(tree), text)


def render(goal: Goal) -> str:
    """The goal as an instruction that `parse` reads back to the same stages."""

    def clause(relation: Relation) -> str:
        subject, *references = (re.sub(r"\ba\b", "A", phrase) for phrase in relation.phrases)  # a name, or part of "with a handle"
        return f"put the {subject} {PHRASES[relation.kind]} the {' and the '.join(references)}"

    return ", then ".join(" and ".join(clause(relation) for relation in stage) for stage in goal.stages)


@functools.cache
def _parser() -> Lark:
    return Lark(Path(__file__).with_name("instruction.lark").read_text(encoding="utf-8"), parser="lalr", propagate_positions=True)


class _Reader:
    """Walks the tree from left to right and remembers what "it", "one" and an omitted subject stand for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.subjects: list[str] = []
        self.kind: RelationKind | None = None
        self.last_phrase = ""
        self.last_reference: Tree | None = None

    def stages(self, tree: Tree) -> tuple[tuple[Relation, ...], ...]:
        stages: list[list[Relation]] = [[]]
        for node in tree.children:
            if isinstance(node, Token):
                continue
            item = _tree(node)
            content = item if item.data in ("order", "statement") else _tree(item.children[1])
            new_stage = item.data == "afterwards" or (item.data == "sentence" and content.data == "order")
            if new_stage and stages[-1]:
                stages.append([])
            stages[-1].extend(self._relations(content))
        if not stages[-1]:
            raise self._error("It is not said where to put it", len(self.text))
        return tuple(tuple(dict.fromkeys(stage)) for stage in stages)

    def _relations(self, content: Tree) -> list[Relation]:
        if content.data == "placement":
            return self._placed(content, self.subjects)
        if content.data == "noun":
            return self._more_of_the_same(content)
        antecedent = self.subjects
        found = []
        for child in content.children:
            if not isinstance(child, Tree):
                continue
            if child.data == "placement":
                found.extend(self._placed(child, antecedent))
            else:
                nouns = [_tree(n) for n in child.children if isinstance(n, Tree)] if child.data == "subjects" else [child]
                self._check_articles(nouns)
                self.subjects, self.kind = [phrase for noun in nouns for phrase in self._phrases(noun, antecedent)], None
        return found

    def _more_of_the_same(self, noun: Tree) -> list[Relation]:
        """Another reference for the relation just read: "left of the bowl AND THE BLOCK"."""
        if self.kind is None:
            raise self._error("It is not said where to put it", noun.meta.end_pos)
        if self.kind == RelationKind.BETWEEN:
            raise self._error("'between' takes two objects", noun.meta.start_pos)
        self._check_articles([self.last_reference, noun] if self.last_reference else [noun])
        return self._related(self.kind, [noun], self.subjects)

    def _placed(self, placement: Tree, antecedent: list[str]) -> list[Relation]:
        first = placement.children[0]
        token = first if isinstance(first, Token) else _tree(first).children[0]
        assert isinstance(token, Token)
        self.kind = RelationKind[token.type]
        return self._related(self.kind, [n for n in placement.children if isinstance(n, Tree) and n.data == "noun"], antecedent)

    def _related(self, kind: RelationKind, nouns: list[Tree], antecedent: list[str]) -> list[Relation]:
        found = [(phrase, noun.meta.start_pos) for noun in nouns for phrase in self._phrases(noun, antecedent)]
        self.last_reference = nouns[-1]
        for reference, start in found:
            if _PLACE.fullmatch(reference):
                raise self._error(f"'{reference}' is a place, not an object: say of what", start)
            if reference in self.subjects:
                hint = "" if reference.startswith("other ") else f" (if another one is meant, say 'the other {reference}')"
                raise self._error(f"'{reference}' cannot be placed relative to itself{hint}", start)
        references = [reference for reference, _ in found]
        if kind != RelationKind.BETWEEN:
            return [Relation(kind, subject, (reference,)) for subject in self.subjects for reference in references]
        if len(set(references)) != 2:
            raise self._error("'between' takes two different objects", nouns[-1].meta.start_pos)
        return [Relation(kind, subject, tuple(references)) for subject in self.subjects]

    def _check_articles(self, nouns: list[Tree]) -> None:
        """ "The red and blue mug" may be one mug or two things: refused, not guessed."""
        bare = [noun for noun in nouns[1:] if _first(noun).type == "WORD"]
        if bare and _first(nouns[0]).type == "ARTICLE":
            noun = self.text[bare[0].meta.start_pos : bare[0].meta.end_pos]
            reason = f"Is '{noun}' another object? Then say 'the {noun}'; for one object of two colours say 'black-and-white mug'"
            raise self._error(reason, bare[0].meta.start_pos)

    def _phrases(self, noun: Tree, antecedent: list[str]) -> list[str]:
        """The phrase of a noun, or what its pronoun stands for ("them": all)."""
        tokens = [token for token in noun.children if isinstance(token, Token)]
        start = noun.meta.start_pos
        if tokens[0].type == "PRONOUN":
            if not antecedent:
                raise self._error(f"'{tokens[0]}' refers to nothing that was moved before", start)
            if len(antecedent) > 1 and tokens[0].lower() == "it":
                raise self._error(f"'{tokens[0]}' may be {' or '.join(antecedent)}: name it", start)
            return antecedent
        words = " ".join(str(t) for t in tokens if t.type not in ("ARTICLE", "ADJECTIVE_COMMA")).lower().split()
        if _DISTANCE.search(" ".join(words)):
            raise self._error(f"'{' '.join(words)}': distances are not understood", start)
        if words[0] == "another":
            words[0] = "other"
        if words[-1] in ("one", "ones"):
            if not self.last_phrase:
                raise self._error(f"'{' '.join(words)}' refers to nothing that was named before", start)
            words[-1] = _head(self.last_phrase)
        self.last_phrase = " ".join(words)
        return [self.last_phrase]

    def _error(self, reason: str, position: int) -> InstructionError:
        return InstructionError(reason, self.text, position)


def _tree(node: object) -> Tree:
    assert isinstance(node, Tree)
    return node


def _first(noun: Tree) -> Token:
    token = noun.children[0]
    assert isinstance(token, Token)
    return token


def _head(phrase: str) -> str:
    """The noun of a phrase: "large mug with a handle" -> "mug"."""
    return re.split(r"\b(?:with|without|of|for)\b", phrase)[0].split()[-1]


def _explained(error: UnexpectedInput, text: str) -> InstructionError:
    """Why the parser stopped, in words."""
    position = error.pos_in_stream if error.pos_in_stream is not None and error.pos_in_stream >= 0 else len(text)
    expected: set[str] = set()
    token: Token | None = None
    if isinstance(error, UnexpectedToken):
        token = error.token  # type: ignore[attr-defined]
        expected = set(error.expected)
        position = len(text) if token.type == "$END" else position
    elif isinstance(error, UnexpectedCharacters):
        expected = set(error.allowed or ())
    while position < len(text) and text[position].isspace():
        position += 1
    rest = text[position:]
    if not rest:
        if "ON" in expected:
            return InstructionError("A relation is missing: where shall it be", text, len(text))
        if expected & {"AND"} and "THEN" not in expected:
            return InstructionError("'between' takes two objects: between A and B", text, len(text))
        return InstructionError("The instruction ends too early: an object is missing", text, len(text))
    found = re.match(r"[^\W_]+(?:['’-][^\W_]+)*", rest)
    if not found:
        return InstructionError(f"The character '{rest[0]}' is not understood", text, position)
    word = found.group().lower()
    for reason, words in _REASONS:
        if word in words.split():
            return InstructionError(reason.format(word=word), text, position)
    if token is not None and token.type in RelationKind.__members__ and "THEN" in expected:
        reason = f"'{token}' cannot follow here: say 'and' before another relation; an object cannot be described by where it is"
        return InstructionError(reason, text, position)
    if len(text[:position].split()) == 1 and word in ("the", "a", "an"):
        return InstructionError(
            f"The verb '{text[:position].strip()}' is not known: say put, place, move, set, stack, drop, bring or lay", text, position
        )
    if "ON" in expected:
        return InstructionError(f"A relation is expected before '{found.group()}'", text, position)
    if "WORD" in expected or "ARTICLE" in expected:
        return InstructionError(f"An object is expected before '{found.group()}'", text, position)
    return InstructionError(f"'{found.group()}' is not understood here", text, position)
