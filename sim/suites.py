"""Harder kinds of episodes than plain relations: other words, unseen objects, clutter, somebody who interferes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from pcm_ros.sim.appearance import COLORS, unseen_shade
from pcm_ros.sim.episodes import Disturbance, Episode
from pcm_ros.sim.feasibility import achievable, achievable_spots, direction, find, room_for_gripper, stands
from pcm_ros.sim.objects import HELD_OUT_PAIRS, ObjectSpec
from pcm_ros.sim.relation_tasks import OTHER_KINDS, RelationTask, pick
from pcm_ros.sim.variants import NAMES
from pcm_ros.sim.wording import paraphrase, reword
from pcm_ros.sim.world import PANDA_LIMITS, Placement, arrange
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

# -------------------------------------------------------------------------------------------------------------------------------- words


@dataclass(frozen=True)
class WordsTask(RelationTask):
    """One relation, asked for in other words: synonyms of kinds and colours, paraphrased sentences.

    Half of the episodes use synonyms that training captions have, half use words that none of them has (note `held_out_words`; `words`
    lists them). No synonym could mean another object of the scene.
    """

    name: str = "words"

    def say(self, rng: np.random.Generator, specs: Sequence[ObjectSpec], episode: Episode) -> Episode | None:
        """See RelationTask."""
        held_out = bool(rng.random() < 0.5)
        wording, used = {}, []
        for phrase in episode.relations[0].phrases:
            wording[phrase], words = reword(rng, next(spec for spec in specs if spec.phrase == phrase), specs, held_out)
            used += words
        if not used:
            return None
        notes = {**episode.notes, "held_out_words": held_out, "trained_words": not held_out, "words": ", ".join(used)}
        episode = replace(episode, wording=MappingProxyType(wording), notes=MappingProxyType(notes))
        return replace(episode, instruction=paraphrase(rng, episode.said[0]))


# ------------------------------------------------------------------------------------------------------------------------------- unseen

Range = tuple[float, float]
UNSEEN_SIZES: dict[tuple[str, str], tuple[Range, ...]] = {
    ("mug", "faceted"): ((0.034, 0.044), (0.070, 0.105), (0.85, 1.0)),
    ("mug", "conical"): ((0.036, 0.045), (0.104, 0.118), (0.55, 0.68)),
    ("mug", "squat"): ((0.044, 0.050), (0.048, 0.062), (0.82, 0.95)),
    ("bowl", "square"): ((0.084, 0.102), (0.042, 0.062), (0.50, 0.65)),
    ("bowl", "octagonal"): ((0.060, 0.092), (0.040, 0.066), (0.45, 0.62)),
    ("bowl", "flared"): ((0.062, 0.092), (0.052, 0.070), (0.36, 0.50)),
    ("block", "hexagonal"): ((0.042, 0.062), (0.0, 0.0), (0.030, 0.060)),
    ("block", "tapered"): ((0.042, 0.056), (0.042, 0.056), (0.034, 0.060)),
    ("block", "bar"): ((0.026, 0.031), (0.060, 0.080), (0.026, 0.032)),
    ("can", "ribbed"): ((0.0335, 0.0365), (0.046, 0.058)),
    ("can", "necked"): ((0.0190, 0.0225), (0.090, 0.115)),
    ("bottle", "square"): ((0.032, 0.042), (0.125, 0.180), (0.011, 0.016)),
    ("bottle", "stepped"): ((0.032, 0.040), (0.130, 0.190), (0.010, 0.014)),
    ("plate", "square"): ((0.086, 0.104), (0.014, 0.021)),
    ("plate", "octagonal"): ((0.064, 0.094), (0.014, 0.021)),
}
"""Kind and variant -> ranges of the dimensions of `ObjectSpec`, metres (a hexagonal block's second one follows from its first)."""


def sample_unseen(rng: np.random.Generator, kind: str, color: str) -> ObjectSpec:
    """An object of a shape, a size and a shade that training pictures do not show; a person would call it `color` `kind` all the same."""
    variant = pick(rng, NAMES[kind])
    dimensions = [float(rng.uniform(low, high)) for low, high in UNSEEN_SIZES[kind, variant]]
    if variant == "hexagonal":
        dimensions[1] = dimensions[0] * float(np.sqrt(3) / 2)
    elif variant == "tapered" and rng.random() < 0.6:
        dimensions[1] = dimensions[0]
    return ObjectSpec(kind, unseen_shade(rng, color), tuple(dimensions), variant=variant)


@dataclass(frozen=True)
class UnseenTask(RelationTask):
    """One relation between objects of unseen shapes, sizes and shades; every other one has an unseen colour + kind.

    Notes: `held_out_pair`: the subject or the reference is of HELD_OUT_PAIRS; `subject_variant`, `reference_variant`.
    """

    name: str = "unseen"

    def object(self, rng: np.random.Generator, kind: str, color: str | None = None) -> ObjectSpec:
        """See RelationTask."""
        held_out = [c for c, k in HELD_OUT_PAIRS if k == kind]
        if color is None:
            color = pick(rng, held_out) if held_out and rng.random() < 0.5 else pick(rng, COLORS)
        return sample_unseen(rng, kind, color)

    def say(self, rng: np.random.Generator, specs: Sequence[ObjectSpec], episode: Episode) -> Episode | None:
        """See RelationTask."""
        meant = [next(spec for spec in specs if spec.phrase == phrase) for phrase in episode.relations[0].phrases]
        notes = {
            **episode.notes,
            "held_out_pair": any((spec.shade.name, spec.kind) in HELD_OUT_PAIRS for spec in meant),
            "subject_variant": f"{meant[0].variant} {meant[0].kind}",
            "reference_variant": f"{meant[1].variant} {meant[1].kind}",
        }
        return RelationTask.say(self, rng, specs, replace(episode, notes=MappingProxyType(notes)))


# ------------------------------------------------------------------------------------------------------------------------------ clutter


@dataclass(frozen=True)
class ClutterTask(RelationTask):
    """One relation among 8 to 10 objects that stand close together and hide each other from the sides.

    At least two others share the subject's colour and two its kind, one each the reference's.

    Attributes:
        spread: metres along x and y of the part of the table on which the objects stand.
    """

    name: str = "clutter"
    objects: tuple[int, int] = (8, 10)
    gap: float = 0.012
    spread: tuple[float, float] = (0.36, 0.56)

    def draw(self, rng: np.random.Generator) -> tuple[list[ObjectSpec], tuple[Relation, ...]] | None:
        """See RelationTask."""
        total = int(rng.integers(self.objects[0], self.objects[1] + 1))
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        specs = self.first_pair(rng, kind)
        if specs is None:
            return None
        subject, reference = specs
        for other, twins in ((subject, 2), (reference, 1)):
            for _ in range(twins):
                specs.append(self.object(rng, pick(rng, [k for k in OTHER_KINDS if k != other.kind]), other.shade.name))
                specs.append(self.object(rng, other.kind, pick(rng, [c for c in COLORS if c != other.shade.name])))
        while len(specs) < total:
            specs.append(self.object(rng, pick(rng, OTHER_KINDS)))
        wide = sum(spec.kind in ("bowl", "plate") for spec in specs)
        if len({spec.phrase for spec in specs}) != len(specs) or wide > 4:
            return None
        return specs, (Relation(kind, subject.phrase, (reference.phrase,)),)

    def arrange(
        self, rng: np.random.Generator, specs: Sequence[ObjectSpec], relations: Sequence[Relation], limits: WorkcellLimits
    ) -> tuple[Placement, ...]:
        """See RelationTask."""
        low, high = np.asarray(limits.workspace_min), np.asarray(limits.workspace_max)
        corner = rng.uniform(low[:2], np.maximum(high[:2] - self.spread, low[:2]))
        far = np.minimum(corner + self.spread, high[:2])
        part = replace(
            limits,
            workspace_min=(float(corner[0]), float(corner[1]), limits.workspace_min[2]),
            workspace_max=(float(far[0]), float(far[1]), limits.workspace_max[2]),
        )

        def accept(placements: tuple[Placement, ...]) -> bool:
            return (
                not any(stands(placements, r, limits) for r in relations)
                and achievable(placements, relations, limits)
                and all(self._within_grasp(placements, r, limits) for r in relations)
            )

        return arrange(rng, specs, part, self.gap, accept=accept, attempts=60)

    @staticmethod
    def _within_grasp(placements: Sequence[Placement], relation: Relation, limits: WorkcellLimits) -> bool:
        """Whether the gripper finds room at the subject and at some place where the relation holds."""
        subject, reference = (placements[find(placements, phrase)] for phrase in relation.phrases)
        others = [placement for placement in placements if placement is not subject]
        if not room_for_gripper(subject.spec, subject.xy, others, limits, subject.yaw):
            return False
        if direction(relation.kind, limits) is None:
            others = [placement for placement in others if placement is not reference]
            return room_for_gripper(subject.spec, reference.xy, others, limits, floor=reference.spec.height)
        spots = achievable_spots(placements, relation, limits=limits)
        return sum(room_for_gripper(subject.spec, spot, others, limits) for spot in spots) >= min(4, len(spots)) > 0


# ---------------------------------------------------------------------------------------------------------------------------- disturbed

_DIRECTIONS = (RelationKind.LEFT_OF, RelationKind.RIGHT_OF, RelationKind.IN_FRONT_OF, RelationKind.BEHIND)


@dataclass(frozen=True)
class DisturbedTask:
    """One or two relations, and somebody who moves an object that matters, or a grasp that slips.

    `Episode.disturbance` says what happens; `DisturbedWorkcell` does it. Notes: `disturbance`, its kind and role.
    """

    name: str = "disturbed"
    inner: tuple[RelationTask, ...] = field(
        default=(RelationTask("disturbed", 1, (3, 5), gap=0.04), RelationTask("disturbed", 2, (4, 5), gap=0.04))
    )

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """See Task."""
        episode = self.inner[int(rng.integers(len(self.inner)))].sample(rng, limits)
        options: list[tuple[str, int, str, str]] = []
        for number, relation in enumerate(episode.relations, start=1):
            options += [("slip", number, "held", ""), ("moved", number, "placed", relation.subject)]
            if relation.kind in _DIRECTIONS:  # what carries another object is not pulled away from under it
                options.append(("moved", number, "reference", relation.references[0]))
            options += [("moved", number, "next", later.subject) for later in episode.relations[number:]]
        role = pick(rng, sorted({option[2] for option in options}))
        options = [option for option in options if option[2] == role]
        kind, after, _, phrase = options[int(rng.integers(len(options)))]
        notes = {**episode.notes, "disturbance": "slip" if kind == "slip" else f"{role} moved"}
        return replace(
            episode,
            task=self.name,
            notes=MappingProxyType(notes),
            disturbance=Disturbance(kind, after, role, phrase, int(rng.integers(2**31))),
        )
