"""Whether a relation holds, from physics truth. For benchmarks and tests: the planner never asks.

A phrase may fit several objects ("the mug" with two mugs). A relation holds if it holds for any object that fits the subject and any
other object that fits the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS, ObjectSpec
from pcm_ros.sim.world import Body, World
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind

LEAST_OFFSET = 0.03
"""Metres that centres must be apart along a direction; across it they may be apart no further than along it (a cone of 45 degrees)."""
NEXT_TO_GAP = 0.06
BETWEEN_LATERAL = 0.05
BETWEEN_SPAN = (0.2, 0.8)

_KIND_WORDS = {kind: kind for kind in KINDS} | {
    "cup": "mug",
    "dish": "plate",
    "basin": "bowl",
    "cube": "block",
    "box": "block",
    "brick": "block",
    "tin": "can",
    "cylinder": "can",
    "flask": "bottle",
}
_COLOR_WORDS = {color: color for color in COLORS} | {
    "grey": "gray",
    "crimson": "red",
    "scarlet": "red",
    "violet": "purple",
    "turquoise": "cyan",
}
_ANY_WORDS = {"object", "thing", "item", "one"}
_AXES = {
    RelationKind.LEFT_OF: ("left", 1.0),
    RelationKind.RIGHT_OF: ("left", -1.0),
    RelationKind.BEHIND: ("forward", 1.0),
    RelationKind.IN_FRONT_OF: ("forward", -1.0),
}


@dataclass(frozen=True)
class Verdict:
    """Whether something holds, and why not."""

    holds: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.holds


def fits(spec: ObjectSpec, phrase: str) -> bool:
    """Whether a phrase ("red mug", "the mug", "red thing") describes an object: every colour and kind word in it must be the object's.

    Raises:
        ValueError: the phrase has no word that the judge knows.
    """
    words = [word.removesuffix("s") if word.removesuffix("s") in _KIND_WORDS else word for word in phrase.lower().split()]
    kinds = [_KIND_WORDS[word] for word in words if word in _KIND_WORDS]
    colors = [_COLOR_WORDS[word] for word in words if word in _COLOR_WORDS]
    if not kinds and not colors and not _ANY_WORDS & set(words):
        known = f"kinds ({', '.join(_KIND_WORDS)}) and colours ({', '.join(_COLOR_WORDS)})"
        raise ValueError(f"the judge knows no word of '{phrase}'; it knows {known}")
    return all(kind == spec.kind for kind in kinds) and all(color == spec.shade.name for color in colors)


class Judge:
    """Truth about relations in a world whose objects are at rest; however they lie: a mug on its side is left of a bowl too."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._limits = world.config.limits

    def relation(self, relation: Relation) -> Verdict:
        """Whether one relation holds now; call after the world has settled."""
        bodies = self._world.bodies()
        moving = [body.spec.phrase for body in bodies if body.speed > 0.02 or body.turning > 0.3]
        if moving:
            return Verdict(False, f"still moving: {', '.join(moving)}")
        held = [body.spec.phrase for body in bodies if self._world.touches_arm(body.number)]
        if held:
            return Verdict(False, f"hanging on the arm: {', '.join(held)}")
        fallen = [body.spec.phrase for body in bodies if body.position[2] < self._world.table_height - 0.01]
        if fallen:
            return Verdict(False, f"fallen off the table: {', '.join(fallen)}")
        groups = [[body for body in bodies if fits(body.spec, phrase)] for phrase in relation.phrases]
        for phrase, group in zip(relation.phrases, groups, strict=True):
            if not group:
                return Verdict(False, f"there is no {phrase}")
        for chosen in product(*groups):
            if len({body.number for body in chosen}) == len(chosen) and self.holds(relation.kind, chosen):
                return Verdict(True)
        return Verdict(False, f"not true: {relation}")

    def holds(self, kind: RelationKind, bodies: tuple[Body, ...]) -> bool:
        """Whether a relation holds between given bodies: the subject, then the reference (two for BETWEEN)."""
        subject, reference = bodies[0], bodies[1]
        if kind == RelationKind.IN:
            return self._inside(subject, reference)
        if kind == RelationKind.ON:
            return self._resting_on(subject, reference)
        if any(self._inside(subject, other) or self._resting_on(subject, other) for other in bodies[1:]):
            return False
        if kind == RelationKind.NEXT_TO:
            return float(np.linalg.norm(_offset(subject, reference))) - subject.spec.radius - reference.spec.radius <= NEXT_TO_GAP
        if kind == RelationKind.BETWEEN:
            return _between(subject.position[:2], reference.position[:2], bodies[2].position[:2])
        name, sign = _AXES[kind]
        return in_direction(_offset(subject, reference), sign * np.asarray(getattr(self._limits, name)))

    def _inside(self, subject: Body, container: Body) -> bool:
        """Centre within the inner radius of an upright container, underside between its underside and its rim."""
        if container.spec.inner_radius <= 0 or container.up[2] < 0.8:
            return False
        near = float(np.linalg.norm(_offset(subject, container))) <= container.spec.inner_radius
        return near and bool(container.low[2] - 0.002 <= subject.low[2] < container.high[2])

    def _resting_on(self, subject: Body, reference: Body) -> bool:
        """Centre above the reference's top and over its footprint; the reference carries most of the weight; not in its hollow."""
        if np.linalg.norm(_offset(subject, reference)) > reference.spec.radius or subject.position[2] < reference.high[2] - 0.005:
            return False
        return not self._inside(subject, reference) and self._world.carried_share(subject.number, reference.number) > 0.5


def in_direction(offset: np.ndarray, axis: np.ndarray) -> bool:
    """Whether an offset (2,) metres lies in the 45 degree cone about a unit axis (2,), at least LEAST_OFFSET along it."""
    along = float(np.dot(offset, axis))
    across = abs(float(axis[0] * offset[1] - axis[1] * offset[0]))
    return along >= LEAST_OFFSET and across <= along


def _offset(subject: Body, reference: Body) -> np.ndarray:
    return np.asarray(subject.position[:2] - reference.position[:2])


def _between(point: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    line = second - first
    length = float(np.linalg.norm(line))
    if length < 1e-6:
        return False
    share = float(np.dot(point - first, line)) / length**2
    lateral = abs(float(line[0] * (point - first)[1] - line[1] * (point - first)[0])) / length
    return BETWEEN_SPAN[0] <= share <= BETWEEN_SPAN[1] and lateral <= BETWEEN_LATERAL
