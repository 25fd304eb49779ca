"""What is known of objects from before: after an action, things are expected where the world model put them.

Expectation helps where one look cannot tell: a plate hidden under the bowl that was put on it, a can inside a bowl of its own colour, a
block that is harder to recognise where it stands now. It is checked against the new images: what a camera sees through is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from torch import Tensor

from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.scene import Points, Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Array, Observation

# A new point this near to an expected one belongs to the expected object (metres): voxel size and a small error of the hand.
SAME_POINT = 0.008
# An expected point is seen through if a camera looks further than this past it (metres).
SEEN_THROUGH = 0.02
LEAST_SEEN_THROUGH = 0.005
# An object that was not found is still believed in if no more than this share of its points is seen through.
MOST_SEEN_THROUGH = 0.3
# Share of the expected points that must have new ones beside them for a whole object to be recognised as the expected one.
LEAST_COVERED = 0.3
# Share of them that must have, for an object to lie as expected.
MOSTLY_COVERED = 0.9
SAME_CENTER = 0.04
FEWEST_POINTS = 12
# Distance of median colours (RGB, 0..255) up to which an object at the same place is the same: light and shade move it by 20 or so.
SAME_COLOR = 60.0
NEW = 0.25


def expected_scene(scene: Scene, category: int, motion: tuple[float, float, float, float]) -> Scene:
    """The scene after a motion (dx, dy, dz, dyaw) of object `category`, as the world model predicts it."""
    thing = scene.objects[category]
    cos, sin = np.cos(motion[3]), np.sin(motion[3])
    relative = thing.points - thing.center.astype(np.float32)
    turned = np.stack([cos * relative[:, 0] - sin * relative[:, 1], sin * relative[:, 0] + cos * relative[:, 1], relative[:, 2]], axis=1)
    return scene.with_object_moved(category, (turned + thing.center + np.asarray(motion[:3])).astype(np.float32))


def reconcile(scene: Scene, expected: Scene, observation: Observation) -> Scene:
    """A perceived scene in the light of the expected one.

    Points near an expected object go to that object where perception has put two expected objects into one piece or mixed their points;
    objects that are expected, not found and not seen through are kept; one that lies otherwise than expected is what its piece exceeds the
    others in it by. Everything else stays as it was perceived.

    Args:
        scene: perceived now. expected: from before, see `expected_scene`. observation: the images now.
    """
    if not scene.objects or not expected.objects:
        return scene
    points = np.concatenate([thing.points for thing in scene.objects])
    colors = np.concatenate([thing.colors for thing in scene.objects])
    perceived = np.concatenate([np.full(len(thing.points), i) for i, thing in enumerate(scene.objects)])
    owner = _expected_owner(points, expected)
    share = np.zeros((len(scene.objects), len(expected.objects)))
    for i, thing in enumerate(scene.objects):
        mine = owner[perceived == i]
        share[i] = np.bincount(mine[mine >= 0], minlength=len(expected.objects)) / len(thing.points)
    pieces = np.bincount(perceived, minlength=len(scene.objects))
    common = share * pieces[:, None]
    # The piece most like the object: neither a crumb that is wholly its own nor a heap that it is only a part of.
    alike = 2 * common / (pieces[:, None] + common.sum(axis=0))
    match = {k: int(alike[:, k].argmax()) for k in range(len(expected.objects)) if share[:, k].max() > 0}
    label = perceived.copy()
    extra: list[SceneObject] = []
    hidden: set[int] = set()
    for k, thing in enumerate(expected.objects):
        mine = owner == k
        covered = _covered(thing.points, points)
        rivals = [other for other in match if other != k and match[other] == match.get(k, -1)]
        alone = k in match and (not rivals or all(share[match[k], k] > share[match[k], other] for other in rivals))
        if alone and covered >= LEAST_COVERED:
            if len(set(perceived[mine])) > 1:  # its points lie in several pieces: those of its neighbours come home
                label[mine] = match[k]
            continue
        if seen_through(thing.points, observation) > MOST_SEEN_THROUGH:
            surplus = _surplus(k, expected, points, colors, np.where(label == perceived, perceived, -1), match)
            if surplus is not None:
                label[surplus] = len(scene.objects) + len(extra)
                extra.append(thing)
            continue
        number = len(scene.objects) + len(extra)
        extra.append(thing)
        if covered < LEAST_COVERED or mine.sum() < FEWEST_POINTS:
            hidden.add(number)
        label[mine] = number
    objects = []
    for number, thing in enumerate([*scene.objects, *extra]):
        chosen = label == number
        if number in hidden:  # remembered as it was, with the little that is seen of it
            objects.append(
                replace(thing, points=np.concatenate([points[chosen], thing.points]), colors=np.concatenate([colors[chosen], thing.colors]))
            )
        elif chosen.sum() >= FEWEST_POINTS or (number < len(scene.objects) and np.array_equal(chosen, perceived == number)):
            objects.append(SceneObject(points[chosen], colors[chosen], thing.label, thing.label_confidence))
    objects.sort(key=lambda thing: tuple(np.round(thing.center, 3)))
    return Scene(tuple(objects), scene.table_height, scene.limits, scene.stamp_ns)


def seen_through(points: Points, observation: Observation) -> float:
    """Share of an object's points (P, 3) that some camera looks past by more than SEEN_THROUGH: nothing can be there.

    Of a thin object, as a plate, half its height is enough, but no less than LEAST_SEEN_THROUGH: the table is right behind it.
    """
    past = min(SEEN_THROUGH, max(LEAST_SEEN_THROUGH, float(np.ptp(points[:, 2])) / 2))
    through = np.zeros(len(points), dtype=bool)
    for view in observation.views:
        uv, depth = view.project(points)
        pixel = np.rint(np.where(np.isfinite(uv), uv, -1)).astype(int)
        height, width = view.depth.shape
        inside = (depth > 0.02) & (pixel >= 0).all(axis=1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
        seen = np.zeros(len(points))
        seen[inside] = np.where(view.valid_depth, view.depth, 0.0)[pixel[inside, 1], pixel[inside, 0]]
        through |= inside & (seen > depth + past)
    return float(through.mean())


def _surplus(
    number: int, expected: Scene, points: Points, colors: npt.NDArray[np.uint8], perceived: npt.NDArray[np.int64], match: dict[int, int]
) -> npt.NDArray[np.bool_] | None:
    """The points, (P,) bool, of an object that does not lie as expected: those about its place and of its colour by which a piece exceeds
    the other objects that are expected in it, as a can that fell over in its bowl. None: there are too few of them; the others do not
    lie as expected either, so that theirs would be taken for its; or it lies elsewhere, as a piece of its own.

    Args:
        perceived: (P,) piece of each point, -1: taken by another object. match: expected object -> the piece that is it.
    """
    thing = expected.objects[number]
    others = [k for k in range(len(expected.objects)) if k != number]
    if not others:
        return None
    explained = _expected_owner(points, replace(expected, objects=tuple(expected.objects[k] for k in others))) >= 0
    reach = float(np.linalg.norm(thing.size)) / 2 + SAME_POINT
    near = np.linalg.norm(points - thing.center.astype(np.float32), axis=1) <= reach
    hosts = [k for k in others if k in match]
    as_expected = [k for k in hosts if _covered(expected.objects[k].points, points[perceived == match[k]]) >= MOSTLY_COVERED]
    surplus = ~explained & near & np.isin(perceived, [match[k] for k in as_expected])
    claimed = [-1, *(match[k] for k in hosts)]
    for piece in np.setdiff1d(perceived, claimed):
        mine = perceived == piece
        if mine.sum() >= LEAST_COVERED * len(thing.points) and _same_color(colors[mine], thing.colors):
            return None
    if surplus.sum() < max(FEWEST_POINTS, LEAST_COVERED * len(thing.points)):
        return None
    return np.asarray(surplus) if _same_color(colors[surplus], thing.colors) else None


def _same_color(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> bool:
    return bool(np.linalg.norm(np.median(first, axis=0) - np.median(second, axis=0)) <= SAME_COLOR)


def _expected_owner(points: Points, expected: Scene) -> npt.NDArray[np.int64]:
    """(P,) number of the expected object next to each point, -1 where none is within SAME_POINT."""
    cloud = np.concatenate([thing.points for thing in expected.objects])
    number = np.concatenate([np.full(len(thing.points), k, dtype=np.int64) for k, thing in enumerate(expected.objects)])
    gap, nearest = cKDTree(cloud).query(points, distance_upper_bound=SAME_POINT)
    owner = np.full(len(points), -1, dtype=np.int64)
    owner[np.isfinite(gap)] = number[nearest[np.isfinite(gap)]]
    return owner


def _covered(expected: Points, points: Points) -> float:
    gap, _ = cKDTree(points).query(expected[:: max(1, len(expected) // 300)], distance_upper_bound=SAME_POINT)
    return float(np.isfinite(gap).mean())


@dataclass
class _Known:
    center: Array
    size: Array
    color: Array
    logits: dict[str, float]


class ObjectMemory:
    """Log-odds of phrases, carried along with the objects of one run from scene to scene.

    A phrase's log-odds for an object are those remembered, corrected by what is seen now with weight NEW: objects are seen best before
    others are put in front of them or into them. An object is recognised by where it is expected.
    """

    def __init__(self) -> None:
        self._scene: Scene | None = None
        self._known: list[_Known] = []
        self._before: list[_Known] = []
        self._moved: tuple[int, _Known] | None = None

    def recall(self, scene: Scene, relation: Relation, logits: Tensor) -> Tensor:
        """(M, T) log-odds of the relation's texts for the scene's objects, memory included; they are remembered in turn."""
        if scene is not self._scene:
            self._before, self._moved = self._known, None
            self._known = []
            for thing in scene.objects:  # what is not asked for now may be asked for again later
                color = np.median(thing.colors, axis=0)
                same = self._at(thing.center, thing.size, color)
                self._known.append(_Known(thing.center, thing.size, color, dict(same.logits) if same else {}))
            self._scene = scene
        result = logits.clone()
        for number, known in enumerate(self._known):
            earlier = self._at(known.center, known.size, known.color)
            for k, text in enumerate(relation.texts):
                if earlier is not None and text in earlier.logits:
                    result[number, k] = NEW * result[number, k] + (1 - NEW) * earlier.logits[text]
                known.logits[text] = float(result[number, k])
        return result

    def move(self, category: int, motion: tuple[float, float, float, float]) -> None:
        """Object `category` of the last scene was moved."""
        if category < len(self._known):
            known = self._known[category]
            self._moved = (category, known)
            self._known[category] = replace(known, center=known.center + np.asarray(motion[:3]))

    def forget_move(self) -> None:
        """The last motion did not happen after all: the object is where it was."""
        if self._moved is not None:
            category, known = self._moved
            self._known[category] = known

    def _at(self, center: Array, size: Array, color: Array) -> _Known | None:
        """The object from before at this place, if it has the same colour: somebody may have put another one there. Of several, as a bowl
        and what lies in it, the one nearest in place and size."""
        near = [
            known
            for known in self._before
            if np.linalg.norm(known.center - center) <= SAME_CENTER and np.linalg.norm(known.color - color) <= SAME_COLOR
        ]
        return min(near, key=lambda known: float(np.linalg.norm(known.center - center) + np.linalg.norm(known.size - size)), default=None)
