"""From an English instruction to a goal: ordered relations between described objects.

The grammar is in `instruction.lark`. Understood are:

- orders: "put the red mug to the left of the blue bowl", "pick up the mug and put it on the plate";
- statements of what shall hold: "the red mug is left of the blue bowl";
- "and", commas: relations that hold together; "then", "after that", a new order after a full stop: a new stage;
- short forms: "put the mug left of the bowl and behind the block" (same object), "left of the bowl and the block" (same relation),
  "the mug and the bowl", "and the block behind it" (no verb);
- "it" = the object moved last; "the other mug" = one not meant before; "the blue one" = of the kind moved last;
- several: "all the red blocks", "every can", "the blocks", "both mugs", "two cans" (at least), for what is moved; "between the two cans";
- "next to each other": of two objects, the first one next to the second;
- sizes: "the largest block", "the smaller mug", "the tallest can", "two small blocks": compared among the objects that fit the rest;
- "in a row": the first and the last object named stay, the others go between them in order; "stack the plate, the bowl and the block":
  the first one named is the lowest; "stack the block on the bowl on the plate".

Everything else is refused with an error that says what was understood and what is possible. Nothing is guessed.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput

from pcm_ros.sight.words import COLOUR_NAMES, colour_and_kind
from pcm_ros.tasks.manipulation.goal import Goal, NounPhrase, Quantifier, Relation, RelationKind, number_of, singular, size_word
from pcm_ros.tasks.manipulation.instruction_errors import PHRASES, InstructionError, explained
from pcm_ros.tasks.manipulation.noun_words import ADJECTIVES, DISTANCE, PLACE, complaint, counted, head_of, is_plural, several

LENGTH_LIMIT = 500
_COURTESY_AT_END = re.compile(
    r"(?:[\s.!?,;]|\b(?:please|thanks|thank\s+you|for\s+me|now|carefully|gently|slowly|quickly|safely|neatly)\b)*$", re.IGNORECASE
)
_ARTICLES = ("the", "these", "those", "my", "your", "our")
_QUANTIFIERS = ("all", "every", "each", "both")
_EACH_OTHER = ("each other", "one another")


def parse(text: str) -> Goal:
    """Read an instruction.

    Args:
        text: at most 500 characters of English; letters of any script may occur in noun phrases.

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
        raise explained(error, body) from None
    goal = Goal(_Reader(body).stages(tree), text)
    if "?" in normal[len(body) :] and _is_bare_statement(_tree(tree.children[-1])):
        raise InstructionError("Questions are not answered, say what shall be", normal, len(body))
    return goal


def render(goal: Goal) -> str:
    """The goal as an instruction that `parse` reads back to the same stages."""

    def said(phrase: str) -> str:
        phrase = re.sub(r"\ba\b", "A", phrase)  # a name, or part of "with a handle"
        first, *rest = phrase.split()
        return phrase if rest and (first in _QUANTIFIERS or number_of(first) is not None) else f"the {phrase}"

    def clause(relation: Relation) -> str:
        subject, *references = map(said, relation.phrases)
        return f"put {subject} {PHRASES[relation.kind]} {' and '.join(references)}"

    return ", then ".join(" and ".join(clause(relation) for relation in stage) for stage in goal.stages)


@functools.cache
def _parser() -> Lark:
    return Lark(Path(__file__).with_name("instruction.lark").read_text(encoding="utf-8"), parser="lalr", propagate_positions=True)


def _may_be(phrase: str, taken: str) -> bool:
    """Whether a phrase may speak of what was taken: "the mug" of "the red mug"."""
    return set(phrase.split()) <= set(taken.split())


class _Reader:
    """Walks the tree from left to right and remembers what "it", "one" and an omitted subject stand for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.subjects: list[str] = []
        self.kind: RelationKind | None = None
        self.last_subject = ""  # for "one": phrases without quantifier
        self.last_reference_phrase = ""
        self.named: list[str] = []
        self.last_reference: Tree | None = None

    def stages(self, tree: Tree) -> tuple[tuple[Relation, ...], ...]:
        stages: list[list[Relation]] = [[]]
        picked: list[str] = []  # taken, and not said yet where to put it
        for node in tree.children:
            if isinstance(node, Token):
                continue
            item = _tree(node)
            content = item if item.data in ("order", "statement") else _tree(item.children[1])
            new_stage = item.data == "afterwards" or (item.data == "sentence" and content.data == "order")
            if new_stage and stages[-1]:
                stages.append([])
            relations = self._relations(content)
            if picked and not any(_may_be(relation.subject, taken) for relation in relations for taken in picked):
                raise self._error(f"It is not said where to put '{' and '.join(picked)}'", content.meta.start_pos)
            picked = [] if relations else self.subjects
            stages[-1].extend(relations)
        if picked:
            raise self._error("It is not said where to put it", len(self.text))
        return tuple(tuple(dict.fromkeys(stage)) for stage in stages)

    def _relations(self, content: Tree) -> list[Relation]:
        if content.data == "placement":
            return self._placed(content, self.subjects)
        if content.data == "noun":
            return self._more_of_the_same(content)
        antecedent = self.subjects
        found: list[Relation] = []
        tower = isinstance(first := content.children[0], Token) and first.type == "STACK"
        for child in content.children:
            if not isinstance(child, Tree):
                continue
            if child.data == "placement":
                found.extend(self._based(child, antecedent) if tower and len(self.subjects) > 1 else self._placed(child, antecedent))
            elif child.data == "chain":
                found.append(self._chained(child, found[-1]))
            else:
                nouns = [_tree(n) for n in child.children if isinstance(n, Tree)] if child.data == "subjects" else [child]
                self._check_articles(nouns)
                together = len(nouns) > 1
                taken = isinstance(first, Token) and first.type == "PICK"
                said = [(phrase, noun) for noun in nouns for phrase in self._phrases(noun, antecedent, listed=together, taken=taken)]
                self.subjects = self._headed(said)
                self.kind = None
        if tower and not found:
            found = self._tower(content.meta.end_pos)
        return found

    def _tower(self, end: int) -> list[Relation]:
        """ "Stack A, B and C": B on A, C on B."""
        self._check_single("stacked", end)
        if len(self.subjects) < 2:
            raise self._error("It is not said what to stack it on", end)
        self.kind = RelationKind.ON
        return [Relation(RelationKind.ON, upper, (lower,)) for lower, upper in itertools.pairwise(self.subjects)]

    def _based(self, placement: Tree, antecedent: list[str]) -> list[Relation]:
        """ "Stack A and B on the plate": A on the plate, B on A."""
        tower = self._tower(placement.meta.start_pos)
        whole, self.subjects = self.subjects, self.subjects[:1]
        base = self._placed(placement, antecedent)
        self.subjects = whole
        return [*base, *tower]

    def _chained(self, chain: Tree, before: Relation) -> Relation:
        """ "On B ON C": B on C."""
        lower = before.references[-1]
        (reference,) = self._phrases(_tree(chain.children[1]), [lower])
        if reference in before.phrases or before.kind != RelationKind.ON:
            raise self._error(f"'{lower}' cannot be placed on '{reference}' here", chain.meta.start_pos)
        return Relation(RelationKind.ON, lower, (reference,))

    def _check_single(self, what: str, position: int) -> None:
        for subject in self.subjects:
            if NounPhrase.read(subject).quantifier != Quantifier.ONE:
                raise self._error(f"'{subject}': name the objects that shall be {what} one by one", position)

    def _more_of_the_same(self, noun: Tree) -> list[Relation]:
        """Another reference for the relation just read: "left of the bowl AND THE BLOCK"."""
        if self.kind is None:
            raise self._error("It is not said where to put it", noun.meta.end_pos)
        if self.kind == RelationKind.BETWEEN:
            raise self._error("'between' takes two objects", noun.meta.start_pos)
        self._check_articles([self.last_reference, noun] if self.last_reference else [noun])
        before = self.last_reference_phrase
        found = self._related(self.kind, [noun], self.subjects)
        if _only_a_colour(before) and all(all(colour_and_kind(reference)) for relation in found for reference in relation.references):
            raise self._error(f"The {before} what? Name it: 'the {before} {head_of(self.last_reference_phrase)}'", noun.meta.start_pos)
        return found

    def _placed(self, placement: Tree, antecedent: list[str]) -> list[Relation]:
        first = placement.children[0]
        token = first if isinstance(first, Token) else _tree(first).children[0]
        assert isinstance(token, Token)
        if token.type == "ROW":
            return self._row(placement)
        self.kind = RelationKind[token.type]
        if (pair := next((n for n in placement.children if isinstance(n, Tree) and n.data == "pair"), None)) is not None:
            return self._between_two(pair)
        return self._related(self.kind, [n for n in placement.children if isinstance(n, Tree) and n.data == "noun"], antecedent)

    def _related(self, kind: RelationKind, nouns: list[Tree], antecedent: list[str]) -> list[Relation]:
        if len(nouns) == 1 and " ".join(map(str, nouns[0].children)).lower() in _EACH_OTHER:
            return self._beside_each_other(kind, nouns[0].meta.start_pos)
        said: list[tuple[str, Tree]] = []
        for noun in nouns:
            partners = [*self.subjects, *(phrase for phrase, _ in said)] if kind == RelationKind.BETWEEN else self.subjects
            said.extend((phrase, noun) for phrase in self._phrases(noun, antecedent, tuple(partners), reference=True))
        self.last_reference = nouns[-1]
        found = [(phrase, noun.meta.start_pos) for phrase, (_, noun) in zip(self._headed(said), said, strict=True)]
        for reference, start in found:
            if NounPhrase.read(reference).quantifier != Quantifier.ONE:
                raise self._error(f"'{reference}' are several objects: name one object for what others are placed by", start)
            if PLACE.fullmatch(reference):
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

    def _beside_each_other(self, kind: RelationKind, start: int) -> list[Relation]:
        """ "A and B next to each other": A next to B."""
        self._check_single("next to each other", start)
        if kind != RelationKind.NEXT_TO or len(self.subjects) != 2 or len(set(self.subjects)) != 2:
            raise self._error("Only two objects, named one by one, can be next to each other", start)
        return [Relation(kind, self.subjects[0], (self.subjects[1],))]

    def _headed(self, said: list[tuple[str, Tree]]) -> list[str]:
        """Phrases named together, with the noun that some of them share: "the red and the blue block" -> "red block", "blue block"."""
        phrases: list[str] = []
        kind = ""
        for phrase, noun in reversed(said):
            colour, own = colour_and_kind(phrase)
            if own:
                kind = own if colour else ""
            elif kind:
                if phrase in ("lime", "orange") or is_plural(head_of(kind)):
                    raise self._error(f"The {phrase} what? Name it: 'the {phrase} {kind}'", noun.meta.start_pos)
                whole = f"{phrase} {kind}"
                self.named = [whole if name == phrase else name for name in self.named]
                phrase = whole
            phrases.insert(0, phrase)
        return phrases

    def _between_two(self, pair: Tree) -> list[Relation]:
        """ "Between the two blocks": between the block and the other block."""
        words = " ".join(str(token) for token in pair.children).lower().split()
        if not is_plural(head_of(" ".join(words))):
            raise self._error("'between' takes two objects: between A and B, or between the two blocks", pair.meta.start_pos)
        one = self._checked([*words[:-1], singular(words[-1])] if head_of(" ".join(words)) == words[-1] else words, pair.meta.start_pos)
        if one in self.subjects:
            raise self._error(f"'{one}' cannot be placed relative to itself", pair.meta.start_pos)
        self.last_reference_phrase = one
        self.named.append(one)
        return [Relation(RelationKind.BETWEEN, subject, (one, f"other {one}")) for subject in self.subjects]

    def _row(self, placement: Tree) -> list[Relation]:
        """ "In a row": the first and the last stay, each of the others stands between the one before it and the last."""
        self._check_single("in a row", placement.meta.start_pos)
        if len(set(self.subjects)) != len(self.subjects) or len(self.subjects) < 3:
            raise self._error("A row takes at least three objects, named one by one", placement.meta.start_pos)
        self.kind = None
        *before, last = self.subjects
        return [Relation(RelationKind.BETWEEN, middle, (first, last)) for first, middle in itertools.pairwise(before)]

    def _check_articles(self, nouns: list[Tree]) -> None:
        """ "The red and blue mug" may be one mug or two things: refused, not guessed."""
        bare = [noun for noun in nouns[1:] if _first(noun).type == "WORD"]
        if bare and _first(nouns[0]).type in ("ARTICLE", "QUANTITY"):
            noun = self.text[bare[0].meta.start_pos : bare[0].meta.end_pos]
            reason = f"Is '{noun}' another object? Then say 'the {noun}'; for one object of two colours say 'black-and-white mug'"
            raise self._error(reason, bare[0].meta.start_pos)

    def _phrases(
        self,
        noun: Tree,
        antecedent: list[str],
        partners: tuple[str, ...] = (),
        listed: bool = False,
        reference: bool = False,
        taken: bool = False,
    ) -> list[str]:
        """The phrase of a noun in the form that NounPhrase.read takes, or what its pronoun stands for ("them": all).

        Args:
            partners: the other phrases of the same relation; "the other mug" is another than those anyway. listed: other nouns stand beside
                it with "and". reference: others are placed by it, rather than it being moved. taken: it is only said to be taken ("up").
        """
        tokens = [token for token in noun.children if isinstance(token, Token)]
        start = noun.meta.start_pos
        if tokens[0].type == "PRONOUN":
            return self._antecedent(str(tokens[0]), antecedent, start)
        self._check_commas(tokens)
        said = " ".join(str(t) for t in tokens if t.type not in ("ARTICLE", "QUANTITY", "ADJECTIVE_COMMA")).lower()
        words = re.sub(r"\b(other\s+than)\s+(?:the|an?)\b", r"\1", said).split()
        determiner = str(tokens[0]).lower().split()[0] if tokens[0].type in ("ARTICLE", "QUANTITY") else ""
        if taken and len(words) > 1 and words[-1] in ("up", "out"):
            words = words[:-1]
        if DISTANCE.search(" ".join(words)):
            raise self._error(f"'{' '.join(words)}': distances are not understood", start)
        if words[0] == "another":
            words[0] = "other"
        quantifier = [determiner] if determiner in _QUANTIFIERS else []
        words = counted(words)
        if number_of(words[0]) is not None and len(words) > 1:
            quantifier.append(words[0])
            words = words[1:]
        if words[-1] in ("one", "ones"):
            kind = self._kind_of_one(" ".join(words), reference, start)
            words[-1] = kind if words[-1] == "one" else several(kind)
        text = self._checked(words, start)
        if quantifier and quantifier[0] in ("every", "each"):
            text = re.sub(rf"\b{re.escape(head_of(text))}\b", singular(head_of(text)), text)
        plural = is_plural(head_of(text))
        if quantifier == ["both"] and not plural:
            if not listed:
                raise self._error(f"'both {text}': say both of what", start)
            quantifier = []
        elif not quantifier and plural:
            if determiner not in _ARTICLES:
                raise self._error(f"'{text}': say how many: 'all {text}' or 'two {text}'", start)
            quantifier = ["all"]
        if quantifier and quantifier[-1] in _QUANTIFIERS and quantifier[-1] != "both" and NounPhrase.read(text).measure is not None:
            raise self._error(f"'{' '.join([*quantifier, text])}': sizes are compared, so say how many: 'the two {text}'", start)
        if reference:
            self.last_reference_phrase = text
        else:
            self.last_subject = text
        phrase = self._excluding(" ".join([*quantifier, text]), partners, start)
        if not phrase.removeprefix("all ").startswith("other ") and " other than " not in phrase:
            self.named.append(phrase)
        return [phrase]

    def _check_commas(self, tokens: list[Token]) -> None:
        """ "The mug, can" may be two things: refused, not guessed."""
        for before, token in itertools.pairwise(tokens):
            word = str(before).lower()
            if token.type == "ADJECTIVE_COMMA" and not (size_word(word) or word in COLOUR_NAMES or word in ADJECTIVES):
                reason = f"Is '{word}' an object? Then say 'the' before each one of the list; if not, leave out the comma behind it"
                raise self._error(reason, before.start_pos or 0)

    def _kind_of_one(self, phrase: str, reference: bool, start: int) -> str:
        """What "one" stands for: of what is moved, the kind moved last; of what that is placed by, the kind of both if they are alike."""
        kinds = [singular(head_of(text)) for text in (self.last_subject, self.last_reference_phrase) if text]
        if not kinds:
            raise self._error(f"'{phrase}' refers to nothing that was named before", start)
        if reference and len(set(kinds)) > 1:
            options = " or ".join(re.sub(r"\bones?$", kind, phrase) for kind in kinds)
            raise self._error(f"'{phrase}' may be {options}: name it", start)
        return kinds[0]

    def _antecedent(self, pronoun: str, antecedent: list[str], start: int) -> list[str]:
        if not antecedent:
            raise self._error(f"'{pronoun}' refers to nothing that was moved before", start)
        kinds = [NounPhrase.read(phrase).quantifier for phrase in antecedent]
        if pronoun.lower() == "it" and (len(antecedent) > 1 or kinds[0] != Quantifier.ONE):
            raise self._error(f"'{pronoun}' may be {' or '.join(antecedent)}: name it", start)
        if Quantifier.COUNT in kinds:
            raise self._error(f"'{pronoun}' may be any {antecedent[kinds.index(Quantifier.COUNT)]}: describe them", start)
        return antecedent

    def _checked(self, words: list[str], start: int) -> str:
        """The words as one phrase. Raises InstructionError for what would be guessed."""
        if reason := complaint(words):
            raise self._error(reason, start)
        return " ".join(words)

    def _excluding(self, phrase: str, partners: tuple[str, ...], start: int) -> str:
        """ "Other mug" -> "mug other than red mug" where the red mug was named before in another relation."""
        words = phrase.split()
        split = next((n for n, word in enumerate(words) if word not in _QUANTIFIERS and number_of(word) is None), 0)
        quantifier, rest = words[:split], words[split + 1 :]
        if words[split] != "other" or not rest or " other than " in phrase:
            return phrase
        kind = singular(head_of(" ".join(rest)))
        before = next((named for named in reversed(self.named) if singular(head_of(named)) == kind), None)
        if before is None or (before in partners and not quantifier):
            return phrase
        if NounPhrase.read(before).quantifier == Quantifier.COUNT:
            raise self._error(f"'{phrase}' may be any: '{before}' does not say which were meant", start)
        return " ".join([*quantifier, *rest, "other than", before])

    def _error(self, reason: str, position: int) -> InstructionError:
        return InstructionError(reason, self.text, position)


def _tree(node: object) -> Tree:
    assert isinstance(node, Tree)
    return node


def _is_bare_statement(last: Tree) -> bool:
    """Whether the end of an instruction says what is, rather than what to do or what shall be."""
    content = last if last.data == "statement" else _tree(last.children[-1])
    return (
        content.data in ("statement", "elliptic")
        and any(isinstance(t, Token) and t.type == "IS" for t in content.children)
        and not any(isinstance(t, Token) and t.type == "WISH" for t in content.children)
    )


def _first(noun: Tree) -> Token:
    token = noun.children[0]
    assert isinstance(token, Token)
    return token


def _only_a_colour(phrase: str) -> bool:
    return bool(phrase) and not colour_and_kind(phrase)[1]
