"""What is wrong with an instruction, said in words: each error tells what was understood and what is possible."""

from __future__ import annotations

import re

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from pcm_ros.tasks.manipulation.goal import RelationKind

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

_REASONS: tuple[tuple[str, str], ...] = (
    (
        "The relation '{word}' is not known",
        "under underneath below beneath above over against around across through off from at to toward towards away",
    ),
    (
        "'{word}' is not understood: say what shall be, not what must not or may be",
        "not no never nor neither nothing nobody nowhere anywhere everywhere but except besides instead or none dont do cannot "
        "if unless until when while",
    ),
    ("'{word}' is not understood: questions are not answered, say what shall be", "what whose how why"),
    ("'{word}' is not understood: say of each object where it shall be", "too also as again twice respectively"),
    ("'{word}' is not understood: say what shall be, not what was or may be", "was were been being has have had would could might"),
    ("'{word}' can only stand at the beginning of a phrase", "all every each both any"),
    ("'{word}' is not understood: say 'the largest' or 'the smaller', not larger than what", "than"),
    ("'{word}' is not understood: describe an object by colour, kind, material or size, not by a clause", "that which who where"),
)


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


def explained(error: UnexpectedInput, text: str) -> InstructionError:
    """Why the parser stopped, in words.

    Args:
        text: the whole text that the parser was given.
    """
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
        if re.sub("^.+n['’]t$", "not", word) in words.split():
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
