"""What a task hands out: a scene, what is asked in it, and what must hold in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np

from pcm_ros.sim.world import PANDA_LIMITS, Placement
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.workcell import WorkcellLimits

Notes = Mapping[str, bool | int | str]
NO_NOTES: Notes = MappingProxyType({})
DISTURBANCES = ("moved", "slip")


@dataclass(frozen=True)
class Disturbance:
    """What somebody does to the scene while the robot works.

    Attributes:
        kind: "moved": an object is put elsewhere between an action and the next look; "slip": an action loses the object it has lifted.
        after: number of the action, counted from 1: after it ("moved") or during it ("slip").
        role: what the object is: "placed" (subject of a relation already brought about), "reference", "next" (subject of a relation to
            come), "held".
        phrase: the object, as `ObjectSpec.phrase`; "" for what happens to be held.
        seed: of the place it is put to.
    """

    kind: str
    after: int
    role: str
    phrase: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in DISTURBANCES or self.after < 1:
            raise ValueError(
                f"disturbance '{self.kind}' after action {self.after}; allowed: {', '.join(DISTURBANCES)} after action 1, 2, ..."
            )


@dataclass(frozen=True)
class Episode:
    """One scene and what is asked in it.

    Attributes:
        task: name of the task that made it.
        placements: objects and where they stand before they settle.
        instruction: what the robot is told; "" where nothing is asked.
        relations: what must hold in the end, in the judge's words (`ObjectSpec.phrase`).
        notes: facts for the analysis: `same_color` / `same_kind` (another object shares the first subject's colour / kind).
        wording: phrase of `relations` -> what the instruction calls it; phrases that are not in it are said as they are.
        refusal: name of the `Outcome` that is the right answer where nothing can be done; "" where the relations can be made true.
        disturbance: what somebody does to the scene meanwhile; None: nothing.
        shown: another scene, a picture of which is the goal: `relations` hold in it, in the words of `pictured`; empty: the goal is said.
        pictured: phrase of an object in the picture -> phrase of the one that takes its part; those that are left out mean themselves.
    """

    task: str
    placements: tuple[Placement, ...]
    instruction: str = ""
    relations: tuple[Relation, ...] = ()
    notes: Notes = field(default_factory=lambda: NO_NOTES)
    wording: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    refusal: str = ""
    disturbance: Disturbance | None = None
    shown: tuple[Placement, ...] = ()
    pictured: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def said(self) -> tuple[Relation, ...]:
        """`relations` in the words of the instruction."""

        def spoken(phrase: str) -> str:
            return self.wording.get(phrase, phrase)

        return tuple(Relation(r.kind, spoken(r.subject), tuple(spoken(phrase) for phrase in r.references)) for r in self.relations)


class Task(Protocol):
    """A kind of episode."""

    @property
    def name(self) -> str: ...

    def sample(self, rng: np.random.Generator, limits: WorkcellLimits = PANDA_LIMITS) -> Episode:
        """Draw an episode: feasible (or with a `refusal`), and with at least one relation that does not hold yet."""
        ...
