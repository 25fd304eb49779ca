"""What a goal says by itself, before anything is looked at: whether its relations can hold together, and in which order to make them true.

An arrangement of boxes is looked for that fulfils all of them. A mixed-integer linear program: every phrase is a small box with unknown
middle; relations are linear constraints on the middles (in their widest reading: a cone of 45 degrees, centres over each other); what
carries several boxes is as wide as a row of them; boxes that are not in each other do not overlap. What has no solution with small boxes
and no walls has none on a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from pcm_ros.tasks.manipulation.goal import NounPhrase, Quantifier, Relation, RelationKind

# Edge of the boxes, metres: smaller than what a gripper is asked to move, so that room is never what is missing.
EDGE = 0.04
# Slightly less than 45 degrees: two directions at right angles have an edge in common and nothing else.
CONE_SLOPE = 0.99
LEAST_OFFSET = 0.03
NEXT_TO_GAP = 0.06
BETWEEN_LATERAL = 0.05
BETWEEN_SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
# Of two boxes one above the other, how much higher the upper one's middle is at least: what lies in a bowl lies higher than the bowl.
NESTED = 0.004
RESTING = (EDGE - 0.012, EDGE + 0.012)
SEPARATE = EDGE - 0.015
# Boxes that carry the same box overlap below its middle: of two that do not, neither carries most of it.
SEPARATE_CARRIERS = EDGE + 0.005
_SPAN = 1.5
# Where the search gives up, and the goal counts as possible: a number of steps, not a time, so that every machine says the same.
_NODES = 2000

_LEFT, _FORWARD, _UP = range(3)
_DIRECTIONS = {
    RelationKind.LEFT_OF: (_LEFT, 1.0),
    RelationKind.RIGHT_OF: (_LEFT, -1.0),
    RelationKind.BEHIND: (_FORWARD, 1.0),
    RelationKind.IN_FRONT_OF: (_FORWARD, -1.0),
}
SUPPORT = (RelationKind.ON, RelationKind.IN)
"""Relations in which the reference carries the subject."""
_Row = dict[int, float]


@dataclass
class _Program:
    """Constraints low <= sum of coefficients * variables, rows as dictionaries; variables 0..3n-1 are (left, forward, up) of n boxes."""

    boxes: int
    rows: list[tuple[_Row, float]] = field(default_factory=list)
    choices: int = 0

    def at_least(self, row: _Row, low: float, choice: int | None = None) -> None:
        """The row's value is at least `low`; with a choice: only if that choice is taken."""
        if choice is not None:
            slack = 2 * _SPAN * sum(abs(value) for value in row.values())
            row, low = {**row, choice: -slack}, low - slack
        self.rows.append((row, low))

    def within(self, row: _Row, reach: float, choice: int | None = None) -> None:
        self.at_least(row, -reach, choice)
        self.at_least({key: -value for key, value in row.items()}, -reach, choice)

    def one_of(self, count: int) -> list[int]:
        """New choices, at least one of which is taken."""
        first = 3 * self.boxes + self.choices
        self.choices += count
        chosen = list(range(first, first + count))
        self.rows.append((dict.fromkeys(chosen, 1.0), 1.0))
        return chosen

    def solvable(self) -> bool:
        """False only where it is certain that there is no solution."""
        size = 3 * self.boxes + self.choices
        matrix = np.zeros((len(self.rows), size))
        for number, (row, _) in enumerate(self.rows):
            for key, value in row.items():
                matrix[number, key] += value
        low, high = np.zeros(size), np.ones(size)
        low[: 3 * self.boxes], high[: 3 * self.boxes] = -_SPAN, _SPAN
        integrality = np.r_[np.zeros(3 * self.boxes), np.ones(self.choices)]
        result = milp(
            np.zeros(size),
            integrality=integrality,
            bounds=Bounds(low, high),
            constraints=LinearConstraint(matrix, np.array([bound for _, bound in self.rows])),
            options={"node_limit": _NODES},
        )
        return bool(result.status != 2)


def can_hold_together(relations: Sequence[Relation]) -> bool:
    """Whether some arrangement fulfils all relations. "Two blocks" may be other blocks in each relation and are left out; "all" are alike.

    Phrases that differ mean different objects, unless one says all that the other says ("the mug", "the red mug").
    """
    relations = [relation for relation in relations if relation.nouns[0].quantifier != Quantifier.COUNT]
    names = list(dict.fromkeys(phrase for relation in relations for phrase in relation.phrases))
    program = _Program(len(names))
    touching = {frozenset(relation.phrases) for relation in relations if relation.kind in SUPPORT}
    beside = {frozenset((r.subject, reference)) for r in relations if r.kind not in SUPPORT for reference in r.references}
    if touching & beside:  # nothing is beside what carries it
        return False
    carried: dict[str, set[str]] = {}
    for relation in relations:
        if relation.kind in SUPPORT:
            carried.setdefault(relation.references[0], set()).add(relation.subject)
    on = {(relation.references[0], relation.subject) for relation in relations if relation.kind == RelationKind.ON}
    for relation in relations:
        load = len(carried.get(relation.references[0], ()))
        _constrain(program, relation, [names.index(phrase) for phrase in relation.phrases], load)
    # The cheap part first: most goals are consistent, most contradictions are in the relations themselves.
    if not relations or not program.solvable():
        return not relations
    for a, first in enumerate(names):
        for b in range(a):
            second = names[b]
            on_one = any(first in loads and second in loads for loads in carried.values())  # there is room for both
            if frozenset((first, second)) not in touching and not on_one and not _may_be_same(first, second):
                both_carry = any((first, name) in on and (second, name) in on for name in names)
                _keep_apart(program, a, b, SEPARATE_CARRIERS if both_carry else SEPARATE)
    return program.solvable()


def contradiction(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """A smallest set of relations that cannot hold together: none can be left out of it; () if all can hold."""
    if len(relations) < 2 or can_hold_together(relations):
        return ()
    needed = list(relations)
    for relation in relations:
        fewer = [other for other in needed if other is not relation]
        if not can_hold_together(fewer):
            needed = fewer
    return tuple(needed)


def _may_be_same(first: str, second: str) -> bool:
    return _nested(first, second) or "other" in {*first.split(), *second.split()}


def _difference(a: int, b: int, axis: int, sign: float = 1.0) -> _Row:
    return {3 * a + axis: sign, 3 * b + axis: -sign}


def _constrain(program: _Program, relation: Relation, boxes: Sequence[int], load: int) -> None:
    """Add a relation between boxes; load: how many boxes the reference carries."""
    kind, subject, reference = relation.kind, boxes[0], boxes[1]
    if kind in _DIRECTIONS:
        axis, sign = _DIRECTIONS[kind]
        ahead = _difference(subject, reference, axis, sign)
        program.at_least(ahead, LEAST_OFFSET)
        for side in (1.0, -1.0):
            across = _difference(subject, reference, _FORWARD - axis, side)
            program.at_least({**{key: CONE_SLOPE * value for key, value in ahead.items()}, **across}, 0.0)
    elif kind in SUPPORT:
        for axis in (_LEFT, _FORWARD):
            program.within(_difference(subject, reference, axis), load * EDGE / 2)
        lowest, highest = RESTING if kind == RelationKind.ON else (NESTED, RESTING[1])
        program.at_least(_difference(subject, reference, _UP), lowest)
        program.at_least(_difference(subject, reference, _UP, -1.0), -highest)
    elif kind == RelationKind.NEXT_TO:
        for axis in (_LEFT, _FORWARD):
            program.within(_difference(subject, reference, axis), EDGE + NEXT_TO_GAP)
        program.within(_difference(subject, reference, _UP), EDGE - 0.005)
        for choice, (axis, sign) in zip(program.one_of(4), _DIRECTIONS.values(), strict=True):
            program.at_least(_difference(subject, reference, axis, sign), SEPARATE, choice)
    else:
        second = boxes[2]
        for choice, share in zip(program.one_of(len(BETWEEN_SHARES)), BETWEEN_SHARES, strict=True):
            for axis in (_LEFT, _FORWARD):
                row = {3 * subject + axis: 1.0, 3 * reference + axis: share - 1.0, 3 * second + axis: -share}
                program.within(row, BETWEEN_LATERAL, choice)
        for other in (reference, second):
            for choice, (axis, sign) in zip(program.one_of(4), _DIRECTIONS.values(), strict=True):
                program.at_least(_difference(subject, other, axis, sign), SEPARATE, choice)


def _keep_apart(program: _Program, a: int, b: int, distance: float) -> None:
    """The boxes do not overlap: their middles are a distance apart along one of the axes."""
    options = [*_DIRECTIONS.values(), (_UP, 1.0), (_UP, -1.0)]
    for choice, (axis, sign) in zip(program.one_of(len(options)), options, strict=True):
        program.at_least(_difference(a, b, axis, sign), distance, choice)


def still_wanted(before: Sequence[Relation], stage: Sequence[Relation]) -> tuple[Relation, ...]:
    """Of the relations of earlier stages, those that a later stage leaves standing: the later one wins where they exclude each other.

    What was put on or into something is free again when it is placed anew, as far as words can tell: "the red block" and then "the largest
    block" may be one or two; they are taken for two.
    """
    kept: list[Relation] = []
    for relation in reversed(before):
        lifted = relation.kind in SUPPORT and any(_spoken_of_again(relation.nouns[0], later.nouns[0]) for later in stage)
        if relation not in stage and relation not in kept and not lifted and not contradiction((*stage, *kept, relation)):
            kept.append(relation)
    return tuple(reversed(kept))


def in_order(relations: Sequence[Relation]) -> tuple[Relation, ...]:
    """An order in which each is made true without undoing another.

    An object is put in its own place before anything is placed relative to it, above all before anything is put on or into it. What carries
    an object shall stand where the object is asked to stand: such relations of the carrier are added. Relations that depend on each other
    in a circle ("A left of B and B behind A") stay in the order given.
    """
    rest = list(dict.fromkeys([*relations, *_of_carriers(relations)]))
    ordered: list[Relation] = []
    while rest:
        waits = {relation: [other for other in rest if _must_precede(other, relation)] for relation in rest}
        free = next((relation for relation in rest if not waits[relation]), None)
        if free is None:  # a circle: supports alone
            free = next((r for r in rest if not any(r.kind in SUPPORT and other.subject in r.references for other in waits[r])), rest[0])
        rest.remove(free)
        ordered.append(free)
    return tuple(ordered)


_MIRRORED = {
    RelationKind.LEFT_OF: RelationKind.RIGHT_OF,
    RelationKind.RIGHT_OF: RelationKind.LEFT_OF,
    RelationKind.BEHIND: RelationKind.IN_FRONT_OF,
    RelationKind.IN_FRONT_OF: RelationKind.BEHIND,
    RelationKind.NEXT_TO: RelationKind.NEXT_TO,
}


def mirrored(relation: Relation) -> Relation | None:
    """The same said of the reference: "A left of B" is "B right of A". None where that is something else, or A is several objects."""
    if relation.kind not in _MIRRORED or relation.plural:
        return None
    return Relation(_MIRRORED[relation.kind], relation.references[0], (relation.subject,))


def _must_precede(first: Relation, then: Relation) -> bool:
    """Whether `first` moves what `then` is relative to, or puts its subject on something from which `then` is to be seen."""
    return first is not then and (
        first.subject in then.references or (first.subject == then.subject and first.kind in SUPPORT and then.kind not in SUPPORT)
    )


def _of_carriers(relations: Sequence[Relation]) -> list[Relation]:
    """ "A on B and A left of C" asks that B be left of C; carriers of carriers included."""
    found: list[Relation] = []
    carriers = {relation.subject: relation.references[0] for relation in relations if relation.kind in SUPPORT and not relation.plural}
    for relation in relations:
        subject, seen = relation.subject, {relation.subject}
        while relation.kind not in SUPPORT and not relation.plural and (carrier := carriers.get(subject)) is not None:
            if carrier in seen or carrier in relation.references:
                break
            found.append(Relation(relation.kind, carrier, relation.references))
            seen.add(carrier)
            subject = carrier
    return found


def _spoken_of_again(first: NounPhrase, then: NounPhrase) -> bool:
    """Whether a phrase means what an earlier one meant: "the block" after "the small red block" does, "the other block" does not."""
    if not _nested(first.text, then.text):
        return False
    for one, other in ((first, then), (then, first)):
        if one.excluded is not None and _nested(one.excluded.text, other.text):
            return False
        if one.measure is not None and other.measure is None and not set(other.text.split()) <= set(one.text.split()):
            return False
    return None in (first.measure, then.measure) or (first.measure, first.greatest) == (then.measure, then.greatest)


def _nested(first: str, second: str) -> bool:
    one, other = set(first.split()), set(second.split())
    return one <= other or other <= one
