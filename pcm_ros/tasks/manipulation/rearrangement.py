"""Where several objects could stand so that all relations of a goal hold at once: looked for when no single motion leads on.

Relations that are made true one by one may leave no room for each other: the reference stands at the edge of the table, the next thing is
to stand where the last one was put. The same engine looks for an arrangement of all of them. A proposal is which objects move (the
category) and where to (parameters); the scorers are the relations, the room between the objects, the arm's reach, how much is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pcm_ros.consensus import Batch, Consensus, CrossEntropy, CrossEntropyState, Ensemble, Stop
from pcm_ros.tasks.manipulation.arrangement import SUPPORT
from pcm_ros.tasks.manipulation.goal import RelationKind
from pcm_ros.tasks.manipulation.relations import footprint_gap, ground_offset, relation_margin
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.world_model import WorldModel

# Room for a finger between footprints, metres; with less the arrangement is not accepted.
ROOM, LEAST_ROOM = 0.03, 0.012
# Margin (see relation_margin) from which a relation of an arrangement counts as true, and the one aimed at.
HOLDS, AIMED = 0.5, 2.0
MOST_MOVED = 3
CANDIDATES, ITERATIONS = 1024, 14


@dataclass(frozen=True)
class Placed:
    """A relation between objects of a scene, by their numbers: the subject, then one or two references."""

    kind: RelationKind
    objects: tuple[int, ...]


@dataclass(frozen=True)
class Rearrangement:
    """An arrangement in which all relations hold.

    Attributes:
        targets: object -> its place on the table, (left, forward) metres; the other objects stay.
        first: the object to move first: the one whose place is freest while the others stand where they are.
    """

    targets: dict[int, tuple[float, float]]
    first: int


@dataclass(frozen=True)
class _Table:
    """The scene as the search sees it. Positions are (left, forward), metres.

    Attributes:
        ground: (M, 2) where the objects are. size: (M, 3) along (left, forward, up).
        relations: which must hold. movable: numbers of the objects that may be moved, `moved` at a
            time. follows: object -> the one that carries it in the end. scene: for the limits.
    """

    ground: Tensor
    size: Tensor
    relations: tuple[Placed, ...]
    movable: tuple[int, ...]
    follows: dict[int, int]
    scene: Scene
    moved: int

    @cached_property
    def subsets(self) -> list[tuple[int, ...]]:
        """Category -> the objects that it moves."""
        return list(combinations(self.movable, self.moved))

    def positions(self, batch: Batch) -> Tensor:
        """(N, M, 2) of all objects in each proposal."""
        count = len(batch)
        where = self.ground.expand(count, -1, -1).clone()
        chosen = torch.tensor(self.subsets)[batch.category]
        rows = torch.arange(count)[:, None]
        where[rows, chosen] = batch.parameters.view(count, self.moved, 2)
        return self.settled(where)

    def settled(self, where: Tensor) -> Tensor:
        """(N, M, 2) with what is carried in the end at the place of what carries it."""
        where = where.clone()
        for load, carrier in self.follows.items():
            where[:, load] = where[:, carrier]
        return where

    def margins(self, where: Tensor) -> Tensor:
        """(N, R) of the relations, those of support left out: what carries is where it carries."""
        columns = []
        for relation in self.relations:
            if relation.kind in SUPPORT:
                continue
            subject, reference, *second = relation.objects
            level = torch.zeros(len(where), dtype=where.dtype)
            other, extents = (where[:, subject] - where[:, second[0]], self.size[second[0]]) if second else (None, None)
            offset = where[:, subject] - where[:, reference]
            columns.append(relation_margin(relation.kind, offset, level, self.size[subject], self.size[reference], other, extents))
        return torch.stack(columns, dim=1) if columns else torch.zeros((len(where), 0), dtype=where.dtype)

    def gaps(self, where: Tensor) -> Tensor:
        """(N, P) metres between the footprints of all pairs on the table."""
        standing = [i for i in range(len(self.ground)) if i not in self.follows]
        pairs = list(combinations(standing, 2))
        if not pairs:
            return torch.full((len(where), 1), 1.0, dtype=where.dtype)
        first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
        least, _ = footprint_gap(where[:, first] - where[:, second], self.size[first], self.size[second])
        return least

    def bounds(self) -> tuple[Tensor, Tensor]:
        """(2,) lowest and highest (left, forward) of the workspace, metres; where the speaker's axes are not those of the world this is a
        larger box, and what lies outside is left to the workspace scorer of the motion."""
        limits = self.scene.limits
        corners = torch.tensor([limits.workspace_min[:2], limits.workspace_max[:2]], dtype=torch.float64)
        turned = ground_offset(limits, corners)
        return turned.amin(dim=0), turned.amax(dim=0)


class _Relations:
    name, cost, differentiable = "relations", 1e-6, True

    def energy(self, batch: Batch, context: _Table) -> Tensor:
        """(N,) nats, >= 0: how far the relations are from holding with AIMED units of margin to spare."""
        return -logsigmoid(context.margins(context.positions(batch)) - AIMED).sum(dim=1)


class _Room:
    name, cost, differentiable = "room", 1e-6, True

    def energy(self, batch: Batch, context: _Table) -> Tensor:
        """(N,) >= 0: one for each 4 mm that a gap lacks of ROOM."""
        # What stands close now and is not moved is nobody's fault.
        now = context.gaps(context.ground[None]).clamp(max=ROOM)
        return ((now - context.gaps(context.positions(batch))).clamp(min=0) / 0.004).sum(dim=1)


class _Reach:
    name, cost, differentiable = "reach", 1e-6, True

    def energy(self, batch: Batch, context: _Table) -> Tensor:
        """(N,) >= 0: one for each 4 mm beyond the arm's reach, less 2 cm."""
        limits = context.scene.limits
        where = batch.parameters.view(len(batch), context.moved, 2)
        base = ground_offset(limits, torch.tensor(limits.base_position[:2], dtype=torch.float64))
        away = (where - base).norm(dim=-1)
        near, far = limits.reach
        return (((near + 0.02 - away).clamp(min=0) + (away - far + 0.02).clamp(min=0)) / 0.004).sum(dim=1)


class _Effort:
    name, cost, differentiable = "effort", 1e-6, True

    def energy(self, batch: Batch, context: _Table) -> Tensor:
        """(N,) metres that things are moved in all: of two arrangements that fit, the nearer."""
        return (context.positions(batch) - context.ground).norm(dim=-1).sum(dim=1)


class _Places:
    """Proposes places in the workspace: anywhere at first, then where the strategy's state says."""

    def propose(self, context: _Table, state: CrossEntropyState | None, rng: torch.Generator) -> Batch:
        low, high = context.bounds()
        kinds = len(context.subsets)
        if state is None:
            category = torch.arange(CANDIDATES) % kinds
        else:
            category = torch.multinomial(state.category_probability, CANDIDATES, replacement=True, generator=rng)
        chosen = torch.tensor(context.subsets)[category]
        room = (context.size[chosen][..., :2].amax(dim=-1, keepdim=True) / 2).expand(-1, -1, 2)
        low, high = low + room, torch.maximum(high - room, low + room + 1e-6)
        unit = torch.rand(CANDIDATES, context.moved, 2, generator=rng, dtype=torch.float64)
        where = low + unit * (high - low)
        if state is not None:
            noise = torch.randn(CANDIDATES, 2 * context.moved, generator=rng, dtype=torch.float64)
            drawn = (state.mean[category] + state.std[category] * noise).view_as(where)
            learnt = torch.rand(CANDIDATES, generator=rng, dtype=torch.float64) > 0.1
            where = torch.where(learnt[:, None, None], drawn, where)
        where = torch.minimum(torch.maximum(where, low), high)
        return Batch(where.flatten(1), category)


def rearrange(scene: Scene, relations: Sequence[Placed], movable: Sequence[int], resting: Tensor, seed: int) -> Rearrangement | None:
    """An arrangement in which all the relations hold, that moves as few objects as possible; None: none was found, or
    all that is not a matter of what carries what holds already.

    Args:
        scene: as perceived. relations: between its objects.
        movable: objects that the hand can take.
        resting: (M, M) bool, whether object i stands on or in object j now.
        seed: of the search.
    """
    still = WorldModel(scene).predict_scene(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.float64))
    follows = dict(resting.nonzero().tolist()) | {r.objects[0]: r.objects[1] for r in relations if r.kind in SUPPORT}
    if any(carrier in follows for carrier in follows.values()):  # towers of three: one level at a time is enough
        follows = {load: _bottom(carrier, follows) for load, carrier in follows.items()}
    free = tuple(i for i in movable if i not in follows)
    now = _Table(still.ground[0], still.size[0], tuple(relations), free, follows, scene, 0)
    if bool((now.margins(now.settled(now.ground[None])) >= 0).all()):
        return None
    for moved in range(1, min(MOST_MOVED, len(free)) + 1):
        table = _Table(still.ground[0], still.size[0], tuple(relations), free, follows, scene, moved)
        strategy = CrossEntropy(0.06, 0.3, 0.004, exploration=0.1)
        ensemble = Ensemble([_Relations(), _Room(), _Reach(), _Effort()], quorum=1.0)
        try:
            leader = Consensus(_Places(), ensemble, strategy, Stop(ITERATIONS, agreement=None)).run(table, seed).leader
        finally:
            ensemble.close()
        where = table.positions(leader)
        room = table.gaps(table.ground[None]).clamp(max=LEAST_ROOM)
        holds, apart = bool((table.margins(where) >= HOLDS).all()), bool((table.gaps(where) >= room - 1e-6).all())
        if holds and apart and float(_Reach().energy(leader, table)) == 0:
            return _ordered(table, leader)
    return None


def _bottom(carrier: int, follows: dict[int, int]) -> int:
    seen = {carrier}
    while (below := follows.get(carrier)) is not None and below not in seen:
        seen.add(below)
        carrier = below
    return carrier


def _ordered(table: _Table, leader: Batch) -> Rearrangement:
    """The arrangement with an object to begin with: one whose place is freest while the others still stand where they are."""
    chosen = table.subsets[int(leader.category[0])]
    places = leader.parameters[0].view(-1, 2)
    room = []
    for number, place in zip(chosen, places, strict=True):
        where = table.ground[None].clone()
        where[0, number] = place
        room.append(float(table.gaps(where).clamp(max=ROOM).sum()))
    first = chosen[max(range(len(chosen)), key=lambda i: room[i])]
    targets = {number: (float(place[0]), float(place[1])) for number, place in zip(chosen, places, strict=True)}
    return Rearrangement(targets, first)
