"""One look at the workcell: which objects are meant, what stands on what, what is in the way and what a motion takes along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pcm_ros.tasks.manipulation.arrangement import SUPPORT
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.relation_scorer import predicted_margins
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Observation
from pcm_ros.tasks.manipulation.world_model import world_model


@dataclass(eq=False)
class Situation:
    """What one look tells.

    Attributes:
        observation, scene: the images, and the M objects that perception found in them.
        meant: of each relation that was asked about, (M, K) that object m is the one that phrase k means (see noun_probabilities).
    """

    observation: Observation
    scene: Scene
    meant: dict[Relation, Tensor] = field(default_factory=dict)
    _resting: dict[RelationKind, Tensor] = field(default_factory=dict)

    def context(
        self, relation: Relation, held: Sequence[Relation] = (), failed: Sequence[tuple[float, float, float, float]] = ()
    ) -> Context:
        """The planning problem of a relation in this situation."""
        return Context(relation, tuple(held), self.scene, self.observation, tuple(failed))

    def likeliest(self, relation: Relation, phrase: int) -> int:
        """The object that a phrase of a relation means; the relation is one of `meant`."""
        return int(self.meant[relation][:, phrase].argmax())

    def name(self, number: int) -> str:
        """A phrase for an object: one of the goal's if one means it, else perception's name."""
        for relation, meant in self.meant.items():
            for k, phrase in enumerate(relation.phrases):
                if int(meant[:, k].argmax()) == number and not (relation.plural and k == 0):
                    return phrase
        return self.scene.objects[number].label

    def resting(self, kind: RelationKind) -> Tensor:
        """(M, M) bool, whether object i is on (in) object j now."""
        if kind in self._resting:
            return self._resting[kind]
        relation = Relation(kind, "object", ("object",))
        still = world_model(self.context(relation)).predict_scene(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.float64))
        self._resting[kind] = predicted_margins(relation, still)[0] > 0
        return self._resting[kind]

    def carried(self) -> Tensor:
        """(M, M) bool, whether object i is on or in object j now."""
        return torch.stack([self.resting(kind) for kind in SUPPORT]).any(dim=0)

    def load(self, wanted: Relation, phrase: int, kind: RelationKind) -> Relation | None:
        """What to make true so that nothing is on (in) an object any more: its load stands beside it. None: there is no load."""
        carrier = self.likeliest(wanted, phrase)
        name = self.name(carrier)
        for number in self.resting(kind)[:, carrier].nonzero()[:, 0].tolist():
            if number != self.likeliest(wanted, 0) and (load := self.name(number)) != name:
                return Relation(RelationKind.NEXT_TO, load, (name,))
        return None

    def occupant(self, wanted: Relation) -> Relation | None:
        """What to make true so that there is room on or in the reference."""
        if wanted.kind not in SUPPORT:
            return None
        return next((load for kind in SUPPORT if (load := self.load(wanted, 1, kind)) is not None), None)

    def kept_by(self, wanted: Relation, held: Sequence[Relation]) -> tuple[Relation, ...]:
        """The relations that hold and that a motion of the wanted relation's subject can keep: what is on or in it goes with it or is
        put back later, and what is taken away from somewhere is no longer there."""
        if wanted.plural:
            return tuple(held)
        moved = self.likeliest(wanted, 0)
        carried = self.carried()[:, moved]
        kept = []
        for relation in held:
            subject = self.likeliest(relation, 0)
            lifted = subject == moved and relation.kind in SUPPORT and wanted.kind == RelationKind.NEXT_TO
            if not relation.plural and (bool(carried[subject]) or (lifted and relation.subject == wanted.subject)):
                continue
            kept.append(relation)
        return tuple(kept)

    def unloading(self, number: int) -> Iterator[Relation]:
        """What to make true so that nothing rests on or in an object."""
        carrier = self.name(number)
        for load in self.carried()[:, number].nonzero()[:, 0].tolist():
            if (name := self.name(load)) != carrier:
                yield Relation(RelationKind.NEXT_TO, name, (carrier,))


def of_same_subject(wanted: Relation, missing: Sequence[Relation]) -> tuple[Relation, ...]:
    """Of the relations that do not hold yet, those that one placement of the same subject can fulfil together with the wanted one: their
    references stay where they are."""
    if wanted.plural:
        return ()
    moving = {relation.subject for relation in missing} - {wanted.subject}
    return tuple(
        relation
        for relation in missing
        if relation.subject == wanted.subject and relation != wanted and not relation.plural and not moving & {*relation.references}
    )
