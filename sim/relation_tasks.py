"""Tasks whose goal is one or more relations: which objects stand where, what is asked, what must hold in the end. All from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from pcm_ros.sim.appearance import COLORS, sample_shade
from pcm_ros.sim.episodes import Episode, Notes
from pcm_ros.sim.feasibility import achievable, possible, stands
from pcm_ros.sim.objects import ObjectSpec, sample_object
from pcm_ros.sim.wording import instruct
from pcm_ros.sim.world import PANDA_LIMITS, NoRoom, Placement, arrange
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

SUBJECT_KINDS = ("mug", "bowl", "block", "can")
OTHER_KINDS = ("mug", "bowl", "block", "can", "bottle", "plate")
_ON_REFERENCES = ("block", "can", "plate")
RELATIONS = (
    RelationKind.LEFT_OF,
    RelationKind.RIGHT_OF,
    RelationKind.IN_FRONT_OF,
    RelationKind.BEHIND,
    RelationKind.ON,
    RelationKind.IN,
)


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """One of the choices, all equally likely."""
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
            drawn = self.draw(rng)
            if drawn is None:
                continue
            specs, relations = drawn
            try:
                placements = self.arrange(rng, specs, relations, limits)
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
            episode = Episode(self.name, tuple(placements[i] for i in order), "", relations, MappingProxyType(notes))
            said = self.say(rng, specs, episode)
            if said is not None:
                return said
        raise RuntimeError(f"task '{self.name}': no feasible episode in 200 draws; allow more objects, smaller gaps or other relations")

    # What the other suites do otherwise

    def object(self, rng: np.random.Generator, kind: str, color: str | None = None) -> ObjectSpec:
        """An object of a kind and a colour (None: any)."""
        return sample_object(rng, kind, sample_shade(rng, "test", color) if color else None, "test")

    def arrange(
        self, rng: np.random.Generator, specs: Sequence[ObjectSpec], relations: Sequence[Relation], limits: WorkcellLimits
    ) -> tuple[Placement, ...]:
        """Places where no relation holds yet and all can be brought about. Raises NoRoom."""

        def accept(placements: tuple[Placement, ...]) -> bool:
            return not any(stands(placements, r, limits) for r in relations) and achievable(placements, relations, limits)

        return arrange(rng, specs, limits, self.gap, accept=accept, attempts=40)

    def say(self, rng: np.random.Generator, specs: Sequence[ObjectSpec], episode: Episode) -> Episode | None:
        """The episode with its instruction; None: this scene cannot be spoken of, draw another."""
        return replace(episode, instruction=instruct(rng, episode.relations))

    def draw(self, rng: np.random.Generator) -> tuple[list[ObjectSpec], tuple[Relation, ...]] | None:
        """Specs, the first subject first, and relations between them; None for a draw that cannot be (it is drawn again)."""
        total = int(rng.integers(self.objects[0], self.objects[1] + 1))
        kinds = [self.kinds[int(rng.integers(len(self.kinds)))] for _ in range(self.count)]
        specs = self.first_pair(rng, kinds[0])
        if specs is None:
            return None
        subject = specs[0]
        both = (True, True) if total >= 4 else ((True, False), (False, True))[int(rng.integers(2))]
        same_color, same_kind = both
        if same_color and not any(s.shade.name == subject.shade.name for s in specs[1:]):
            kind = pick(rng, [k for k in OTHER_KINDS if k != subject.kind])
            specs.append(self.object(rng, kind, subject.shade.name))
        if same_kind and not any(s.kind == subject.kind for s in specs[1:]):
            color = pick(rng, [c for c in COLORS if c != subject.shade.name])
            specs.append(self.object(rng, subject.kind, color))
        while len(specs) < total:
            specs.append(self.object(rng, pick(rng, OTHER_KINDS)))
        if len(specs) != total or len({spec.phrase for spec in specs}) != len(specs):
            return None
        relations = [Relation(kinds[0], subject.phrase, (specs[1].phrase,))]
        for kind in kinds[1:]:
            following = self._next_relation(rng, kind, specs, relations)
            if following is None:
                return None
            relations.append(following)
        return specs, tuple(relations)

    def first_pair(self, rng: np.random.Generator, kind: RelationKind) -> list[ObjectSpec] | None:
        subject_kinds = ("block", "can") if kind == RelationKind.IN else SUBJECT_KINDS
        reference_kinds = {RelationKind.IN: ("bowl",), RelationKind.ON: _ON_REFERENCES}.get(kind, OTHER_KINDS)
        subject_kind, reference_kind = pick(rng, subject_kinds), pick(rng, reference_kinds)
        for _ in range(40):
            subject = self.object(rng, subject_kind)
            reference = self.object(rng, reference_kind)
            if subject.phrase != reference.phrase and possible(kind, subject, reference):
                return [subject, reference]
        return None

    def _next_relation(
        self, rng: np.random.Generator, kind: RelationKind, specs: Sequence[ObjectSpec], relations: Sequence[Relation]
    ) -> Relation | None:
        """A relation whose subject is not yet bound by an earlier one."""
        bound = {phrase for relation in relations for phrase in relation.phrases}
        subjects = [s for s in specs if s.phrase not in bound and s.kind in SUBJECT_KINDS]
        pairs = [(s, r) for s in subjects for r in specs if r is not s and possible(kind, s, r) and self._on_top(r, relations) is False]
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
            rng, specs, limits, 0.03, accept=lambda p: not stands(p, relation, limits) and achievable(p, [relation], limits), attempts=1000
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
        accept = (lambda p: not all(stands(p, r, limits) for r in self.relations)) if self.relations else (lambda p: True)
        return Episode(self.name, arrange(rng, specs, limits, accept=accept), self.instruction, self.relations)
