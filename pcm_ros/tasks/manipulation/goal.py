"""What is asked of the robot: ordered relations between described objects."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class RelationKind(enum.StrEnum):
    """Spatial relations. Directions are those of the person who speaks (WorkcellLimits.forward, .left)."""

    LEFT_OF = "left_of"
    RIGHT_OF = "right_of"
    IN_FRONT_OF = "in_front_of"
    BEHIND = "behind"
    ON = "on"
    IN = "in"
    NEXT_TO = "next_to"
    BETWEEN = "between"


@dataclass(frozen=True)
class Relation:
    """`subject kind references`: "the red mug" LEFT_OF ("the blue bowl",). Phrases are free text that vision-language models ground.

    Attributes:
        subject: noun phrase of the object to be moved, without article ("red mug"); may start with "other " (the one not meant before).
        references: one phrase, or two for BETWEEN.
    """

    kind: RelationKind
    subject: str
    references: tuple[str, ...]

    def __post_init__(self) -> None:
        wanted = 2 if self.kind == RelationKind.BETWEEN else 1
        if len(self.references) != wanted:
            raise ValueError(f"relation {self.kind} needs {wanted} reference phrase(s), got {self.references}")

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.subject, *self.references)

    def __str__(self) -> str:
        return f"{self.subject} {self.kind.replace('_', ' ')} {' and '.join(self.references)}"


@dataclass(frozen=True)
class Goal:
    """Stages in order ("then"); each stage is a conjunction ("and") of relations that must hold together at its end."""

    stages: tuple[tuple[Relation, ...], ...]
    text: str = ""

    @property
    def relations(self) -> tuple[Relation, ...]:
        return tuple(relation for stage in self.stages for relation in stage)
