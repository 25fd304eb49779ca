"""A picture as the goal: the relations between the objects in it, to be reproduced with the objects of another scene.

As in the paper's manipulation experiment (arXiv 2210.11522, section 4.4), what is taken from the picture is not where things stand but how
they stand to each other. The objects in the other scene may have other colours or be of other kinds: a correspondence says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from pcm_ros.tasks.manipulation.goal import Goal, Relation, RelationKind
from pcm_ros.tasks.manipulation.grounding import Grounder, regions_of
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.relations import relation_margin
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation, View
from pcm_ros.tasks.manipulation.world_model import WorldModel

SUPPORT = (RelationKind.IN, RelationKind.ON)
# A direction is read if it holds by its definition (45 degrees to either side, LEAST_ALONG metres along) with CLEAR metres to spare: what
# stands askew says nothing. The stricter margins of planning would pass over things that are far apart.
LEAST_ALONG, CLEAR = 0.03, 0.01
# ON and IN are read from single views, whose far side is not seen: a margin a little below zero will do.
RESTS = -0.5
MOST_OBJECTS = 6
# Log-odds by which a name that a correspondence expects in the picture is ahead of others, and those of what the view does not show.
EXPECTED, UNSEEN = 6.0, -8.0
# What nobody expects in the picture is a piece of something else if no name clearly fits it, in log-odds, or if it is no wider than a
# handle, metres.
FRAGMENT, SMALL = 2.0, 0.02
# What is seen this far above the table, metres, does not stand on it: it rests on what is below its middle, within this share of both
# widths, though one view may not see where they touch.
ALOFT, BENEATH = 0.025, 0.25
# What is seen of the underside of something that carries is no higher than the other's by this, metres.
NO_LOWER = 0.004
# Pieces of one name whose gap is less than this are one thing, metres.
SAME_THING = 0.02


class GoalPictureError(ValueError):
    """A picture from which no goal can be read. The message says what was seen in it, and the remedy."""


class GoalPictureReader:
    """Reads goals from pictures.

    Args:
        perception: finds the objects. grounder: says which name fits which. vocabulary: names to choose from.
    """

    def __init__(self, perception: Perception, grounder: Grounder, vocabulary: Sequence[str]) -> None:
        self._perception, self._grounder, self._vocabulary = perception, grounder, tuple(vocabulary)

    def read(self, view: View, correspondence: Mapping[str, str] | None = None, present: Observation | None = None) -> Goal:
        """The goal that a picture shows.

        Args:
            view: one RGB-D picture with calibration, of a scene on a table in the same workspace.
            correspondence: name in the picture -> phrase for the object of the present scene; names that are left out mean themselves.
            present: the present scene, where objects without a correspondence stand too: what they are called there is expected here.

        Raises:
            GoalPictureError: see `goal_of_scene`; or the picture has no depth in the workspace, or the correspondence names what is not in
                it.
            InvalidObservation: the present scene cannot be perceived.
        """
        given = {name.lower(): phrase for name, phrase in (correspondence or {}).items()}
        observation, known = Observation((view,)), [thing.label for thing in self._perception.perceive(present).objects] if present else []
        expected = [*given, *(name for name in known if name not in given.values())]
        try:
            pictured = self._perception.perceive(observation)
        except InvalidObservation as error:
            raise GoalPictureError(f"the picture cannot be used: {error}") from error
        scene = self._named(_whole(pictured), observation, expected)
        names = [thing.label for thing in scene.objects]
        if unknown := sorted(set(given) - set(names)):
            raise GoalPictureError(f"the correspondence names '{unknown[0]}', which is not in the picture; seen: {_listed(names)}")
        return goal_of_scene(scene, given)

    def _named(self, scene: Scene, observation: Observation, expected: list[str]) -> Scene:
        """The scene with a name of its own for each object: the assignment of names that fits best. What is expected is found if it fits at
        all: its names are ahead by EXPECTED nats."""
        if not scene.objects:
            return scene
        names = list(dict.fromkeys([*expected, *self._vocabulary]))
        view, world = observation.views[0], WorldModel(scene, observation)
        regions = regions_of(world.labels(view.name), scene.objects)
        fit = np.full((len(scene.objects), len(names)), UNSEEN)
        if regions:
            fit[[region.number for region in regions]] = self._grounder.logits(view.rgb, regions, names).numpy()
        ahead = np.array([EXPECTED if name in expected else 0.0 for name in names])
        rows, columns = linear_sum_assignment(-(fit + ahead))
        things = []
        for row, column in zip(rows, columns, strict=True):
            whole = fit[row, column] >= FRAGMENT and float(scene.objects[row].size[:2].max()) > SMALL
            if whole or names[column] in expected:
                confidence = float(1 / (1 + np.exp(-fit[row, column])))
                things.append(replace(scene.objects[row], label=names[column], label_confidence=confidence))
        return replace(scene, objects=tuple(things))


def goal_of_scene(scene: Scene, correspondence: Mapping[str, str] | None = None) -> Goal:
    """All clear relations between the objects of a scene, as one stage: each pair of objects contributes at most one.

    Directions are read between things that stand on the table, the smaller one being the subject (it is the one to move); of what stands
    on or in something else, that is what is asked for.

    Args:
        scene: its objects have names of their own. correspondence: name -> phrase of the goal; names that are left out mean themselves.

    Raises:
        GoalPictureError: fewer than two objects or more than MOST_OBJECTS, two of the same name, or no clear relation.
    """
    given, names = correspondence or {}, [thing.label for thing in scene.objects]
    if not 2 <= len(names) <= MOST_OBJECTS:
        raise GoalPictureError(f"a goal picture must show 2 to {MOST_OBJECTS} objects; seen: {_listed(names)}; remedy: another picture")
    phrases = [given.get(name, name) for name in names]
    if twice := sorted({phrase for phrase in phrases if phrases.count(phrase) > 1}):
        raise GoalPictureError(f"two objects are both '{twice[0]}': which is meant? Seen: {_listed(names)}; remedy: another correspondence")
    margins = _Margins(scene)
    resting = dict(margins.resting())
    relations = [Relation(kind, phrases[i], (phrases[j],)) for i, (kind, j) in resting.items()]
    for i, j in combinations([k for k in range(len(names)) if k not in resting], 2):
        subject, reference = sorted((i, j), key=lambda k: (float(scene.objects[k].size[:2].max()), k))
        kind = margins.direction(subject, reference)
        if kind is not None:
            relations.append(Relation(kind, phrases[subject], (phrases[reference],)))
    if not relations:
        raise GoalPictureError(f"no two objects stand clearly left, right, in front, behind, on or in another; seen: {_listed(names)}")
    return Goal((tuple(relations),), "as in the picture: " + "; ".join(str(relation) for relation in relations))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _whole(scene: Scene) -> Scene:
    """The scene with things of one name that lie within reach of each other made one: a single view cuts a bowl in a near and a far rim."""
    things = list(scene.objects)
    i = 0
    while i < len(things):
        for j in range(i + 1, len(things)):
            first, second = things[i], things[j]
            apart = float(np.hypot(*(first.center - second.center)[:2]))
            if first.label == second.label and apart < (max(first.size[:2]) + max(second.size[:2])) / 2 + SAME_THING:
                joined = SceneObject(
                    np.concatenate([first.points, second.points]),
                    np.concatenate([first.colors, second.colors]),
                    first.label,
                    max(first.label_confidence, second.label_confidence),
                )
                things[i : j + 1] = [joined, *things[i + 1 : j]]
                break
        else:
            i += 1
    return replace(scene, objects=tuple(things))


class _Margins:
    """How clearly relations hold between the objects of a scene as it is."""

    def __init__(self, scene: Scene) -> None:
        world = WorldModel(scene)
        still = world.predict_scene(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4, dtype=torch.float64))
        # As far as each is seen: what rests on something, though where they touch is hidden, does not stand on the table.
        seen = torch.tensor([footprint.seen_bottom for footprint in world.heights.footprints], dtype=torch.float64)
        self.ground, self.bottom, self.size = still.ground[0], seen - scene.table_height, still.size[0].clone()
        self.size[:, 2] -= seen - still.bottom[0]

    def of(self, kind: RelationKind, subject: int, reference: int) -> float:
        height, size = self.bottom[subject] - self.bottom[reference], self.size[reference]
        if kind in SUPPORT:  # what covers its reference hides where that ends below: measured from the table
            # One view sees the front of what stands below something: as wide as it is, it is deep.
            wide = size[:2].amax()
            height, size = self.bottom[subject], torch.stack([wide, wide, self.bottom[reference] + size[2]])
        return float(relation_margin(kind, self.ground[subject] - self.ground[reference], height, self.size[subject], size))

    def direction(self, subject: int, reference: int) -> RelationKind | None:
        """The direction in which the subject clearly stands from the reference."""
        left, forward = (float(value) for value in self.ground[subject] - self.ground[reference])
        along, across = max(abs(left), abs(forward)), min(abs(left), abs(forward))
        if along < LEAST_ALONG + CLEAR or across > along - CLEAR:
            return None
        if abs(left) > abs(forward):
            return RelationKind.LEFT_OF if left > 0 else RelationKind.RIGHT_OF
        return RelationKind.BEHIND if forward > 0 else RelationKind.IN_FRONT_OF

    def resting(self) -> list[tuple[int, tuple[RelationKind, int]]]:
        """(object, (ON or IN, what it rests on)) of objects that do not stand on the table."""
        found = []
        for i in range(len(self.bottom)):
            # What carries stands lower, as far as it is seen.
            options = [
                (self.of(kind, i, j), kind, j)
                for j in range(len(self.bottom))
                if j != i and self.bottom[j] < self.bottom[i] + NO_LOWER
                for kind in SUPPORT
                if kind == RelationKind.ON or self.size[i, :2].amax() < self.size[j, :2].amax()
            ]
            margin, kind, j = max(options, default=(-np.inf, RelationKind.ON, i))
            if margin >= RESTS:
                found.append((i, (kind, j)))
            elif (below := self._beneath(i)) is not None:
                found.append((i, (RelationKind.ON, below)))
        return found

    def _beneath(self, i: int) -> int | None:
        """What carries something that does not stand on the table; None: it may stand there, or nothing is below it."""
        if self.bottom[i] < ALOFT:
            return None
        wide = self.size[:, :2].amax(dim=1)
        away = (self.ground - self.ground[i]).norm(dim=1)
        near = [j for j in range(len(wide)) if self.bottom[j] < self.bottom[i] - NO_LOWER and away[j] < BENEATH * (wide[i] + wide[j])]
        return min(near, key=lambda j: float(away[j]), default=None)
