"""Instructions whose right answer is a refusal, each with the reason that is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from pcm_ros.sim.appearance import COLORS, PROTOTYPES
from pcm_ros.sim.episodes import Episode, Notes
from pcm_ros.sim.objects import WALL, ObjectSpec, sample_object
from pcm_ros.sim.relation_tasks import OTHER_KINDS, SUBJECT_KINDS, pick
from pcm_ros.sim.wording import color_distance, instruct
from pcm_ros.sim.world import PANDA_LIMITS, NoRoom, arrange
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

NOT_FOUND, IMPOSSIBLE, INVALID = "OBJECT_NOT_FOUND", "IMPOSSIBLE", "INVALID_INSTRUCTION"
"""Names of `Outcome`, which the simulator does not import."""
REFUSALS: Mapping[str, str] = MappingProxyType(
    {
        "absent_pair": NOT_FOUND,
        "absent_kind": NOT_FOUND,
        "too_small": IMPOSSIBLE,
        "no_container": IMPOSSIBLE,
        "nothing_stands_on_it": IMPOSSIBLE,
        "contradiction": IMPOSSIBLE,
        "no_meaning": INVALID,
    }
)
"""Reason -> the outcome that is right."""
_DIRECTIONS = (RelationKind.LEFT_OF, RelationKind.RIGHT_OF, RelationKind.IN_FRONT_OF, RelationKind.BEHIND)
_OPPOSITE = MappingProxyType(
    {
        RelationKind.LEFT_OF: RelationKind.RIGHT_OF,
        RelationKind.RIGHT_OF: RelationKind.LEFT_OF,
        RelationKind.BEHIND: RelationKind.IN_FRONT_OF,
        RelationKind.IN_FRONT_OF: RelationKind.BEHIND,
    }
)
_APART = 38.0  # L*a*b* distance from a colour's prototype at which nobody takes a shade for it
_SENSELESS = (
    "put the {a} to the left of the {a}",
    "make the {a} happy",
    "sing the {b} a song",
    "put the {a}",
    "left of the {b}",
    "put the {a} to the purple of the {b}",
    "put the {a} faster than the {b}",
    "put the {a} between the {b}",
    "is the {a} heavier than the {b}?",
    "the {a} the {b} behind put",
    "the {a} and the {b}",
    "put on behind the of",
)

Asked = tuple[list[ObjectSpec], tuple[Relation, ...], str]  # objects, relations, instruction ("" = said as the relations are)


@dataclass(frozen=True)
class ImpossibleTask:
    """What is asked cannot be done, or is not there, or means nothing.

    Right is the refusal that the reason calls for. Physics has the last word though: where the robot does it nonetheless (a can balanced on
    a duck's head) and says so, and all relations of the episode then hold by truth, that is right too.

    Notes: `refusal_reason`, one of REFUSALS. The scene has 3 to 5 objects, no two of the same colour and kind.
    """

    name: str = "impossible"
    reasons: tuple[str, ...] = tuple(REFUSALS)

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """See Task. Raises RuntimeError if nothing is found in 400 draws."""
        reason = pick(rng, self.reasons)
        for _ in range(400):
            drawn = _ASK[reason](rng)
            if drawn is None:
                continue
            specs, relations, instruction = drawn
            total = int(rng.integers(3, 6))
            while len(specs) < total:
                extra = sample_object(rng, pick(rng, OTHER_KINDS), None, "test")
                if all(_other_thing(extra, phrase) for relation in relations for phrase in relation.phrases):
                    specs.append(extra)
                else:
                    total -= 1
            if len({spec.phrase for spec in specs}) != len(specs) or (reason == "absent_kind" and _has_named_kind(specs, relations)):
                continue
            try:
                placements = arrange(rng, specs, limits, 0.03, attempts=40)
            except NoRoom:
                continue
            notes: Notes = {"refusal_reason": reason, "objects": len(specs), "relations": " and ".join(r.kind.value for r in relations)}
            order = rng.permutation(len(specs))
            text = instruction or instruct(rng, relations)
            episode = Episode(self.name, tuple(placements[i] for i in order), text, relations, MappingProxyType(notes))
            return replace(episode, refusal=REFUSALS[reason])
        raise RuntimeError(f"task '{self.name}': nothing to refuse for the reason '{reason}' in 400 draws")


def _other_thing(spec: ObjectSpec, phrase: str) -> bool:
    """Whether nobody would take an object for what a phrase "colour kind" says."""
    color, kind = phrase.split()
    return spec.kind != kind or (spec.shade.name != color and color_distance(PROTOTYPES[color], spec.shade) > _APART)


def _has_named_kind(specs: Sequence[ObjectSpec], relations: Sequence[Relation]) -> bool:
    """Whether every kind that is named is there."""
    return {phrase.split()[1] for relation in relations for phrase in relation.phrases} <= {spec.kind for spec in specs}


def _objects(rng: np.random.Generator, kinds: Sequence[str]) -> list[ObjectSpec]:
    return [sample_object(rng, kind, None, "test") for kind in kinds]


def _direction(rng: np.random.Generator) -> RelationKind:
    return _DIRECTIONS[int(rng.integers(len(_DIRECTIONS)))]


def _ask_absent(rng: np.random.Generator, there: ObjectSpec, absent: str) -> tuple[Relation, ...]:
    """A direction relation whose subject or reference is absent."""
    return (
        Relation(_direction(rng), absent, (there.phrase,)) if rng.random() < 0.5 else Relation(_direction(rng), there.phrase, (absent,)),
    )


def _absent_pair(rng: np.random.Generator) -> Asked | None:
    """The colour is on the table, the kind is, but no object has both."""
    first, second = pick(rng, SUBJECT_KINDS), pick(rng, SUBJECT_KINDS)
    if first == second:
        return None
    color_giver, kind_giver, there = _objects(rng, (first, second, pick(rng, SUBJECT_KINDS)))
    absent = f"{color_giver.shade.name} {kind_giver.kind}"
    if not all(_other_thing(spec, absent) for spec in (color_giver, kind_giver, there)):
        return None
    return [color_giver, kind_giver, there], _ask_absent(rng, there, absent), ""


def _absent_kind(rng: np.random.Generator) -> Asked | None:
    """No object of the kind is on the table."""
    kinds = list(rng.permutation(SUBJECT_KINDS))
    specs = _objects(rng, kinds[:3])
    color = pick(rng, [spec.shade.name for spec in specs]) if rng.random() < 0.5 else pick(rng, COLORS)
    return specs, _ask_absent(rng, specs[0], f"{color} {kinds[3]}"), ""


def _too_small(rng: np.random.Generator) -> Asked | None:
    """IN a vessel that the object is too wide for, however it is turned."""
    container_kind, subject_kind = [("mug", "block"), ("mug", "can"), ("mug", "mug"), ("bowl", "plate")][int(rng.integers(4))]
    container, subject, other = _objects(rng, (container_kind, subject_kind, pick(rng, OTHER_KINDS)))
    rim = container.dimensions[0] - WALL
    widest = subject.radius - 0.028 if subject.kind == "mug" else subject.radius
    if widest < rim + (0.017 if subject.kind == "plate" else 0.004):  # a plate that just covers a bowl may be said to lie in it
        return None
    return [subject, container, other], (Relation(RelationKind.IN, subject.phrase, (container.phrase,)),), ""


def _no_container(rng: np.random.Generator) -> Asked | None:
    """IN something solid or closed."""
    subject, solid, other = _objects(rng, (pick(rng, SUBJECT_KINDS), pick(rng, ("block", "bottle", "duck")), pick(rng, OTHER_KINDS)))
    return [subject, solid, other], (Relation(RelationKind.IN, subject.phrase, (solid.phrase,)),), ""


def _nothing_stands_on_it(rng: np.random.Generator) -> Asked | None:
    """ON a bottle's neck or a duck's head."""
    subject, host, other = _objects(rng, (pick(rng, SUBJECT_KINDS), pick(rng, ("bottle", "duck")), pick(rng, OTHER_KINDS)))
    return [subject, host, other], (Relation(RelationKind.ON, subject.phrase, (host.phrase,)),), ""


def _contradiction(rng: np.random.Generator) -> Asked | None:
    """Two relations that cannot hold together."""
    a, b = _objects(rng, (pick(rng, SUBJECT_KINDS), pick(rng, SUBJECT_KINDS)))
    if a.phrase == b.phrase:
        return None
    kind = _direction(rng)
    choice = int(rng.integers(3))
    if choice == 0:
        relations = (Relation(kind, a.phrase, (b.phrase,)), Relation(_OPPOSITE[kind], a.phrase, (b.phrase,)))
    elif choice == 1:
        relations = (Relation(kind, a.phrase, (b.phrase,)), Relation(kind, b.phrase, (a.phrase,)))
    else:
        a, b = _objects(rng, ("block", "block"))
        relations = (Relation(RelationKind.ON, a.phrase, (b.phrase,)), Relation(RelationKind.ON, b.phrase, (a.phrase,)))
        if a.phrase == b.phrase:
            return None
    first, second = (f"the {r.subject} is {r.kind.value.replace('_', ' ')} the {r.references[0]}" for r in relations)
    return [a, b], relations, f"make sure {first} and {second}"


def _no_meaning(rng: np.random.Generator) -> Asked | None:
    """A sentence that asks for no relation, or for one that means nothing."""
    a, b, other = _objects(rng, (pick(rng, SUBJECT_KINDS), pick(rng, SUBJECT_KINDS), pick(rng, OTHER_KINDS)))
    return [a, b, other], (), pick(rng, _SENSELESS).format(a=a.phrase, b=b.phrase)


_ASK: Mapping[str, Callable[[np.random.Generator], Asked | None]] = MappingProxyType(
    {
        "absent_pair": _absent_pair,
        "absent_kind": _absent_kind,
        "too_small": _too_small,
        "no_container": _no_container,
        "nothing_stands_on_it": _nothing_stands_on_it,
        "contradiction": _contradiction,
        "no_meaning": _no_meaning,
    }
)
