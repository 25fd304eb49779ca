"""Goals that are shown, not said: a picture of another scene, whose relations are to be reproduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

import numpy as np

from pcm_ros.sim.appearance import COLORS, sample_shade
from pcm_ros.sim.episodes import Episode, Notes
from pcm_ros.sim.feasibility import can_go_into, can_stand_on, direction
from pcm_ros.sim.judge import in_direction
from pcm_ros.sim.objects import ObjectSpec, sample_object
from pcm_ros.sim.relation_tasks import SUBJECT_KINDS, pick
from pcm_ros.sim.world import PANDA_LIMITS, NoRoom, Placement, arrange
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

DIRECTIONS = (RelationKind.LEFT_OF, RelationKind.RIGHT_OF, RelationKind.IN_FRONT_OF, RelationKind.BEHIND)
CLEAR = 0.015  # metres inside the cone of a direction from which a person reads it off the picture
SHARE_OF_STACKS = 0.35


@dataclass(frozen=True)
class PictureTask:
    """2 to 4 objects stand in a picture; the same ones, in half of the episodes of other colours, and sometimes one more are on the table.

    What must hold in the end: of each pair of objects in the picture the direction that is clear, and what stands on or in something.
    Notes: `recolored`, `stacked`, `pictured_objects`.
    """

    name: str = "image-goal"
    objects: tuple[int, int] = (2, 4)

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """See Task. Raises RuntimeError if no feasible episode is found, which would be a defect of the task."""
        for _ in range(300):
            specs = self._specs(rng, int(rng.integers(self.objects[0], self.objects[1] + 1)))
            resting = _resting(rng, specs) if rng.random() < SHARE_OF_STACKS else None
            try:
                shown = _shown(rng, specs, resting, limits)
            except NoRoom:
                continue
            relations = _clear(shown, resting, limits)
            if not relations:
                continue
            recolored = rng.random() < 0.5
            present = _recolored(rng, specs) if recolored else specs
            names = {spec.phrase: other.phrase for spec, other in zip(specs, present, strict=True)}
            relations = tuple(Relation(r.kind, names[r.subject], (names[r.references[0]],)) for r in relations)
            more = self._specs(rng, 1)
            everything = [*present, *more] if rng.random() < 0.5 and more[0].phrase not in names.values() else present
            try:
                placements = arrange(rng, everything, limits, 0.035, attempts=40)
            except NoRoom:
                continue
            notes: Notes = {
                "recolored": recolored,
                "stacked": resting is not None,
                "pictured_objects": len(specs),
                "objects": len(everything),
            }
            return Episode(
                self.name,
                tuple(placements[i] for i in rng.permutation(len(everything))),
                "as in the picture",
                relations,
                MappingProxyType(notes),
                shown=shown,
                pictured=MappingProxyType({name: phrase for name, phrase in names.items() if name != phrase}),
            )
        raise RuntimeError(f"task '{self.name}': no feasible episode in 300 draws")

    @staticmethod
    def _specs(rng: np.random.Generator, count: int) -> list[ObjectSpec]:
        specs: list[ObjectSpec] = []
        while len(specs) < count:
            spec = sample_object(rng, pick(rng, SUBJECT_KINDS), None, "test")
            if spec.phrase not in {other.phrase for other in specs}:
                specs.append(spec)
        return specs


def _resting(rng: np.random.Generator, specs: Sequence[ObjectSpec]) -> tuple[int, RelationKind, int] | None:
    """(upper, ON or IN, lower) of two of the objects; None: no two allow it."""
    options = [(i, RelationKind.ON, j) for i, a in enumerate(specs) for j, b in enumerate(specs) if i != j and can_stand_on(a, b)]
    options += [(i, RelationKind.IN, j) for i, a in enumerate(specs) for j, b in enumerate(specs) if i != j and can_go_into(a, b)]
    return options[int(rng.integers(len(options)))] if options else None


def _shown(
    rng: np.random.Generator, specs: Sequence[ObjectSpec], resting: tuple[int, RelationKind, int] | None, limits: WorkcellLimits
) -> tuple[Placement, ...]:
    """Places in the picture. Raises NoRoom."""
    on_table = [i for i in range(len(specs)) if resting is None or i != resting[0]]
    placed = dict(zip(on_table, arrange(rng, [specs[i] for i in on_table], limits, 0.04, attempts=40), strict=True))
    if resting is not None:
        upper, kind, lower = resting
        above = specs[lower].height + 0.001 if kind == RelationKind.ON else 0.010
        placed[upper] = replace(placed[lower], spec=specs[upper], above=above)
    return tuple(placed[i] for i in range(len(specs)))


def _clear(shown: Sequence[Placement], resting: tuple[int, RelationKind, int] | None, limits: WorkcellLimits) -> tuple[Relation, ...]:
    """What the picture shows clearly."""
    phrases = [placement.spec.phrase for placement in shown]
    relations = [Relation(resting[1], phrases[resting[0]], (phrases[resting[2]],))] if resting else []
    for i, j in combinations([k for k in range(len(shown)) if resting is None or k != resting[0]], 2):
        offset = np.subtract(shown[i].xy, shown[j].xy)
        for kind in DIRECTIONS:
            axis = direction(kind, limits)
            assert axis is not None
            if in_direction(offset - CLEAR * axis, axis):
                relations.append(Relation(kind, phrases[i], (phrases[j],)))
    return tuple(relations)


def _recolored(rng: np.random.Generator, specs: Sequence[ObjectSpec]) -> list[ObjectSpec]:
    """The same objects in other colours, no two of which share colour and kind."""
    found: list[ObjectSpec] = []
    for spec in specs:
        while True:
            other = replace(spec, shade=sample_shade(rng, "test", pick(rng, [color for color in COLORS if color != spec.shade.name])))
            if other.phrase not in {known.phrase for known in found}:
                found.append(other)
                break
    return found
