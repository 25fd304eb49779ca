"""Tasks: which objects stand where, what is asked, and which relations must hold in the end. All drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np

from pcm_ros.sim.appearance import COLORS, sample_shade
from pcm_ros.sim.judge import fits, in_direction
from pcm_ros.sim.objects import ObjectSpec, sample_object
from pcm_ros.sim.world import PANDA_LIMITS, NoRoom, Placement, arrange, clear_of, within_reach
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import Array, WorkcellLimits

Notes = Mapping[str, bool | int | str]


@dataclass(frozen=True)
class Episode:
    """One scene and what is asked in it.

    Attributes:
        task: name of the task that made it.
        placements: objects and where they stand before they settle.
        instruction: what the robot is told; "" where nothing is asked.
        relations: what must hold in the end.
        notes: facts for the analysis: `same_color` / `same_kind` (another object shares the first subject's colour / kind).
    """

    task: str
    placements: tuple[Placement, ...]
    instruction: str = ""
    relations: tuple[Relation, ...] = ()
    notes: Notes = field(default_factory=lambda: MappingProxyType({}))


class Task(Protocol):
    """A kind of episode."""

    @property
    def name(self) -> str: ...

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """Draw an episode: feasible, and with at least one relation that does not hold yet."""
        ...


# ------------------------------------------------------------------------------------------------------------------------------- wording

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


# --------------------------------------------------------------------------------------------------------------------------- feasibility


def can_stand_on(subject: ObjectSpec, reference: ObjectSpec) -> bool:
    """Whether the subject stands safely on the reference: a base with most of its circle on a flat top."""
    if not reference.flat_top:
        return False
    base = {"block": min(subject.dimensions[:2]) / 2, "mug": subject.dimensions[0] * 0.9, "bowl": subject.dimensions[0] * 0.6}.get(
        subject.kind, subject.dimensions[0]
    )
    if reference.kind == "plate":  # within the rim, on the plate's floor
        return base + 0.012 <= reference.dimensions[0] * 0.7
    top = min(reference.dimensions[:2]) / 2 if reference.kind == "block" else reference.dimensions[0]
    slender = subject.height / 2 <= 3 * base and reference.height <= 0.09
    return slender and top >= 0.019 and top >= 0.6 * base


def can_go_into(subject: ObjectSpec, container: ObjectSpec) -> bool:
    """Whether the subject and the fingers around it fit between the container's walls."""
    if container.kind != "bowl" or subject.kind not in ("block", "can"):
        return False
    half = max(subject.dimensions[:2]) / 2 if subject.kind == "block" else subject.dimensions[0]
    finger = 0.0145 + 0.007
    return half + finger + 0.006 <= container.dimensions[0] and subject.radius <= container.dimensions[0] * container.dimensions[2] + 0.004


def _possible(kind: RelationKind, subject: ObjectSpec, reference: ObjectSpec) -> bool:
    if kind == RelationKind.ON:
        return can_stand_on(subject, reference)
    if kind == RelationKind.IN:
        return can_go_into(subject, reference)
    return True


def _find(placements: Sequence[Placement], phrase: str) -> int:
    return next(i for i, placement in enumerate(placements) if fits(placement.spec, phrase))


def _stands(placements: Sequence[Placement], relation: Relation, limits: WorkcellLimits) -> bool:
    """Whether a direction relation holds between placements on the table; ON and IN never do."""
    axis = _axis(relation.kind, limits)
    if axis is None:
        return False
    subject, reference = (np.asarray(placements[_find(placements, phrase)].xy) for phrase in relation.phrases)
    return in_direction(subject - reference, axis)


def _axis(kind: RelationKind, limits: WorkcellLimits) -> Array | None:
    forward, left = np.asarray(limits.forward), np.asarray(limits.left)
    axes = {
        RelationKind.LEFT_OF: left,
        RelationKind.RIGHT_OF: -left,
        RelationKind.BEHIND: forward,
        RelationKind.IN_FRONT_OF: -forward,
    }
    return axes.get(kind)


def achievable(
    placements: Sequence[Placement], relations: Sequence[Relation], limits: WorkcellLimits = PANDA_LIMITS, gap: float = 0.025
) -> bool:
    """Whether moving each relation's subject in turn, with room for the fingers, makes all relations true."""
    current = list(placements)
    stacked: set[int] = set()
    for number, relation in enumerate(relations):
        subject, reference = (_find(current, phrase) for phrase in relation.phrases[:2])
        if _axis(relation.kind, limits) is None:
            stacked |= {subject, reference}  # may not be moved again
            current[subject] = replace(current[subject], xy=current[reference].xy)
            continue
        spots = [] if subject in stacked else achievable_spots(current, relation, relations[:number], limits, gap)
        if not spots:
            return False
        current[subject] = replace(current[subject], xy=spots[len(spots) // 2])
    return True


def achievable_spots(
    placements: Sequence[Placement],
    relation: Relation,
    earlier: Sequence[Relation] = (),
    limits: WorkcellLimits = PANDA_LIMITS,
    gap: float = 0.025,
) -> list[tuple[float, float]]:
    """Places (x, y) on a 2 cm grid where a direction relation's subject stands free, within reach, and earlier relations stay true."""
    axis = _axis(relation.kind, limits)
    if axis is None:
        raise ValueError(f"relation {relation.kind} has no direction; the subject's place is the reference's")
    subject, reference = (_find(placements, phrase) for phrase in relation.phrases[:2])
    spec, origin = placements[subject].spec, np.asarray(placements[reference].xy)
    others = [placement for i, placement in enumerate(placements) if i != subject]
    low, high = np.add(limits.workspace_min[:2], spec.radius + 0.01), np.subtract(limits.workspace_max[:2], spec.radius + 0.01)
    found = []
    for x in np.arange(low[0], high[0], 0.02).tolist():
        for y in np.arange(low[1], high[1], 0.02).tolist():
            spot = np.array([x, y])
            # 1.5 cm inside the cone, so that a small error of the arm or of perception does no harm
            inside = in_direction(spot - origin - 0.015 * axis, axis)
            if inside and within_reach(spot, limits, spec.radius) and clear_of(spot, spec.radius + gap, others):
                after = [*placements[:subject], replace(placements[subject], xy=(x, y)), *placements[subject + 1 :]]
                if all(_axis(r.kind, limits) is None or _stands(after, r, limits) for r in earlier):
                    found.append((x, y))
    return found


# ------------------------------------------------------------------------------------------------------------------------------- suites

_SUBJECT_KINDS = ("mug", "bowl", "block", "can")
_OTHER_KINDS = ("mug", "bowl", "block", "can", "bottle", "plate")
_ON_REFERENCES = ("block", "can", "plate")
RELATIONS = (
    RelationKind.LEFT_OF,
    RelationKind.RIGHT_OF,
    RelationKind.IN_FRONT_OF,
    RelationKind.BEHIND,
    RelationKind.ON,
    RelationKind.IN,
)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


@dataclass(frozen=True)
class RelationTask:
    """`count` relations among 3 to 5 (or more) objects.

    No two objects share both colour and kind. Distractors are chosen against shortcuts: with four objects or more there is one of the first
    subject's colour and another kind, and one of its kind and another colour; with three objects one of the two, by lot. Shades are
    those kept out of training.

    Attributes:
        name: of the suite.
        count: number of relations.
        objects: least and greatest number of objects.
        kinds: relations to draw from.
        gap: least metres between footprints at the start.
    """

    name: str
    count: int = 1
    objects: tuple[int, int] = (3, 5)
    kinds: tuple[RelationKind, ...] = RELATIONS
    gap: float = 0.03

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """See Task. Raises RuntimeError if no feasible episode is found, which would be a defect of the task."""
        for _ in range(200):
            drawn = self._draw(rng)
            if drawn is None:
                continue
            specs, relations = drawn
            try:
                placements = arrange(
                    rng,
                    specs,
                    limits,
                    self.gap,
                    accept=lambda p: not any(_stands(p, r, limits) for r in relations) and achievable(p, relations, limits),  # noqa: B023
                    attempts=40,
                )
            except NoRoom:
                continue
            subject, others = specs[0], specs[1:]
            notes: Notes = {
                "same_color": any(other.shade.name == subject.shade.name for other in others),
                "same_kind": any(other.kind == subject.kind for other in others),
                "objects": len(specs),
                "relations": " and ".join(relation.kind.value for relation in relations),
            }
            order = rng.permutation(len(specs))
            return Episode(self.name, tuple(placements[i] for i in order), instruct(rng, relations), relations, MappingProxyType(notes))
        raise RuntimeError(f"task '{self.name}': no feasible episode in 200 draws; allow more objects, smaller gaps or other relations")

    def _draw(self, rng: np.random.Generator) -> tuple[list[ObjectSpec], tuple[Relation, ...]] | None:
        """Specs, the first subject first, and relations between them; None for a draw that cannot be (it is drawn again)."""
        total = int(rng.integers(self.objects[0], self.objects[1] + 1))
        kinds = [self.kinds[int(rng.integers(len(self.kinds)))] for _ in range(self.count)]
        specs = self._first_pair(rng, kinds[0])
        if specs is None:
            return None
        subject = specs[0]
        both = (True, True) if total >= 4 else ((True, False), (False, True))[int(rng.integers(2))]
        same_color, same_kind = both
        if same_color and not any(s.shade.name == subject.shade.name for s in specs[1:]):
            kind = _pick(rng, [k for k in _OTHER_KINDS if k != subject.kind])
            specs.append(sample_object(rng, kind, sample_shade(rng, "test", subject.shade.name), "test"))
        if same_kind and not any(s.kind == subject.kind for s in specs[1:]):
            color = _pick(rng, [c for c in COLORS if c != subject.shade.name])
            specs.append(sample_object(rng, subject.kind, sample_shade(rng, "test", color), "test"))
        while len(specs) < total:
            specs.append(sample_object(rng, _pick(rng, _OTHER_KINDS), None, "test"))
        if len(specs) != total or len({spec.phrase for spec in specs}) != len(specs):
            return None
        relations = [Relation(kinds[0], subject.phrase, (specs[1].phrase,))]
        for kind in kinds[1:]:
            following = self._next_relation(rng, kind, specs, relations)
            if following is None:
                return None
            relations.append(following)
        return specs, tuple(relations)

    def _first_pair(self, rng: np.random.Generator, kind: RelationKind) -> list[ObjectSpec] | None:
        subject_kinds = ("block", "can") if kind == RelationKind.IN else _SUBJECT_KINDS
        reference_kinds = {RelationKind.IN: ("bowl",), RelationKind.ON: _ON_REFERENCES}.get(kind, _OTHER_KINDS)
        subject_kind, reference_kind = _pick(rng, subject_kinds), _pick(rng, reference_kinds)
        for _ in range(40):
            subject = sample_object(rng, subject_kind, None, "test")
            reference = sample_object(rng, reference_kind, None, "test")
            if subject.phrase != reference.phrase and _possible(kind, subject, reference):
                return [subject, reference]
        return None

    def _next_relation(
        self, rng: np.random.Generator, kind: RelationKind, specs: Sequence[ObjectSpec], relations: Sequence[Relation]
    ) -> Relation | None:
        """A relation whose subject is not yet bound by an earlier one."""
        bound = {phrase for relation in relations for phrase in relation.phrases}
        subjects = [s for s in specs if s.phrase not in bound and s.kind in _SUBJECT_KINDS]
        pairs = [(s, r) for s in subjects for r in specs if r is not s and _possible(kind, s, r) and self._on_top(r, relations) is False]
        if not pairs:
            return None
        subject, reference = pairs[int(rng.integers(len(pairs)))]
        return Relation(kind, subject.phrase, (reference.phrase,))

    @staticmethod
    def _on_top(spec: ObjectSpec, relations: Sequence[Relation]) -> bool:
        """Whether an earlier relation stacks this object, or something on it: then nothing more is asked of it."""
        return any(r.kind in (RelationKind.ON, RelationKind.IN) and spec.phrase in r.phrases for r in relations)


@dataclass(frozen=True)
class DemoTask:
    """A red mug, a blue bowl, and what might be taken for them: a red bowl, a blue mug, two blocks."""

    name: str = "demo"

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        wanted = (("mug", "red"), ("bowl", "blue"), ("bowl", "red"), ("mug", "blue"), ("block", "green"), ("block", "yellow"))
        specs = [sample_object(rng, kind, sample_shade(rng, "test", color), "test") for kind, color in wanted]
        relation = Relation(RelationKind.LEFT_OF, "red mug", ("blue bowl",))
        placements = arrange(
            rng, specs, limits, 0.03, accept=lambda p: not _stands(p, relation, limits) and achievable(p, [relation], limits), attempts=1000
        )
        notes: Notes = {"same_color": True, "same_kind": True, "objects": len(specs), "relations": "left_of"}
        return Episode(self.name, placements, "put the red mug to the left of the blue bowl", (relation,), MappingProxyType(notes))


@dataclass(frozen=True)
class FreeTask:
    """Given objects at random places; the instruction and relations, if any, are given too.

    Attributes:
        objects: (kind, colour) pairs; None as colour: any. Shades are those kept out of training.
    """

    objects: tuple[tuple[str, str | None], ...] = (("mug", "red"), ("bowl", "blue"), ("block", "green"), ("can", "yellow"))
    instruction: str = ""
    relations: tuple[Relation, ...] = ()
    name: str = "free"

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        specs = [sample_object(rng, kind, sample_shade(rng, "test", color), "test") for kind, color in self.objects]
        accept = (lambda p: not all(_stands(p, r, limits) for r in self.relations)) if self.relations else (lambda p: True)
        return Episode(self.name, arrange(rng, specs, limits, accept=accept), self.instruction, self.relations)


_TASKS: dict[str, Task] = {}


def register(task: Task) -> None:
    """Make a task available by its name. Raises ValueError if the name is taken."""
    if task.name in _TASKS:
        raise ValueError(f"a task named '{task.name}' exists already; choose another name")
    _TASKS[task.name] = task


def task_names() -> tuple[str, ...]:
    """Names of all registered tasks, sorted."""
    return tuple(sorted(_TASKS))


def get_task(name: str) -> Task:
    """The registered task of a name. Raises ValueError with the known names otherwise."""
    try:
        return _TASKS[name]
    except KeyError:
        raise ValueError(f"task '{name}' is not known; registered: {', '.join(task_names())}") from None


for _task in (
    DemoTask(),
    FreeTask(),
    RelationTask("relations-1", 1, (3, 5)),
    RelationTask("relations-2", 2, (4, 5)),
    RelationTask("relations-3", 3, (5, 6)),
):
    register(_task)
