"""The condition under which proposals are made and scored."""

from __future__ import annotations

from dataclasses import dataclass

from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Observation


@dataclass(frozen=True)
class Target:
    """Where scene object `category` shall stand: centre x, y, world metres."""

    category: int
    x: float
    y: float


@dataclass(frozen=True)
class Context:
    """One planning problem.

    Attributes:
        relation: what shall be made true by one pick and place.
        held: relations that are true and must stay so.
        scene: what perception made of the observation.
        observation: the images; a scorer of one view needs only that view in it.
        failed: picks (x, y, z, yaw) that the hand has tried in vain since something was last moved; others come first.
        target: the motion is a step of an arrangement of several objects, which says what is to be moved and where to; the relation
            need not be true after it.
    """

    relation: Relation
    held: tuple[Relation, ...]
    scene: Scene
    observation: Observation
    failed: tuple[tuple[float, float, float, float], ...] = ()
    target: Target | None = None
