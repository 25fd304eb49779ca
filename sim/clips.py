"""Short rendered clips in which things are moved by an unseen hand, with questions whose answers come from physics.

A still camera looks at a table with a few objects. One or two of them are moved in turn: slid, lifted and put back, or carried onto or to
another place. The hand sets velocities, so what is touched on the way is pushed along. What moved, when, and what stands where at the
end is read from the simulator after the fact, never from the plan. Questions are asked only where the answer is plain to see.

Clips of the numbers below TEST_FROM have the shades of the training pictures and none of the pairs that these lack; those from TEST_FROM on
have shades that no model was trained on, and any pair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pybullet

from pcm_ros.sim.appearance import COLORS, load_texture, sample_light, sample_shade, texture_image
from pcm_ros.sim.cameras import CameraSpec, render
from pcm_ros.sim.objects import HELD_OUT_PAIRS, ObjectSpec, sample_object, spawn

TEST_FROM = 100_000
QuestionKind = Literal["colour", "kind", "count", "relation", "moved", "order", "yes_no"]
QUESTION_KINDS: tuple[str, ...] = get_args(QuestionKind)
KINDS_SHOWN = ("mug", "bowl", "block", "can", "bottle", "plate", "duck")
"""Toys are left out: people would not agree on what to call them."""
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WIDTH, HEIGHT = 320, 240
PER_SECOND = 5
STEPS_PER_SECOND = 240
SPEED = 0.30  # metres a second of the hand
HELD_UP = 0.16  # metres that a lifted thing is raised
MOVED, STILL = 0.03, 0.012  # metres: more is a motion, less is none; clips with something in between are drawn again
SEEN_PIXELS = 60  # that a thing shows in the first and in the last picture
APART = 0.25  # of the picture's width: how far a thing must be to the left of another for people to say so without doubt
TRIES = 60


@dataclass(frozen=True)
class Question:
    """Attributes: kind of question, its text, and the answer in the shortest words."""

    kind: QuestionKind
    text: str
    answer: str


@dataclass(frozen=True, eq=False)
class SimulatedClip:
    """A clip and what is true of it.

    Attributes:
        number: of the clip; the same number gives the same clip.
        frames: (T, 240, 320, 3) uint8 rgb. times: (T,) seconds, five a second.
        phrases: what the objects are called. moved: numbers of those that moved, in the order in which they began to.
        questions: at most one of each kind.
    """

    number: int
    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    phrases: tuple[str, ...]
    moved: tuple[int, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, eq=False)
class _Motion:
    """What the hand does to one object: way points (W, 3), offsets from where the object stands, metres."""

    body: int
    way: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Course:
    """What happened: pictures, positions (T, K, 3) of the objects, pixels (2, K) and places (2, K, 2) in the first and last picture, and
    (K, K) bool whether i rests on j at the end."""

    frames: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.float64]
    pixels: npt.NDArray[np.int64]
    places: npt.NDArray[np.float64]
    rests_on: npt.NDArray[np.bool_]


def clip(number: int) -> SimulatedClip:
    """The clip of a number, 0 or more. Takes some seconds: about 25 pictures by the software renderer.

    Raises:
        ValueError: a negative number.
        RuntimeError: no usable clip in many tries (not seen).
    """
    if number < 0:
        raise ValueError(f"number is {number}; allowed: 0 or more ({TEST_FROM} and above are for tests)")
    split = "test" if number >= TEST_FROM else "train"
    rng = np.random.default_rng([number, 7])
    client = pybullet.connect(pybullet.DIRECT)
    try:
        for _ in range(TRIES):
            made = _attempt(client, rng, number, split)
            if made is not None:
                return made
    finally:
        pybullet.disconnect(client)
    raise RuntimeError(f"clip {number}: no usable scene in {TRIES} tries")


def _specs(rng: np.random.Generator, split: str) -> list[ObjectSpec]:
    """3 to 5 objects of few colours and few kinds, no two alike in both."""
    colours, kinds = rng.choice(COLORS, 3, replace=False), rng.choice(KINDS_SHOWN, 3, replace=False)
    count = int(rng.integers(3, 6))
    specs: list[ObjectSpec] = []
    while len(specs) < count:
        colour, kind = str(rng.choice(colours)), str(rng.choice(kinds))
        if rng.random() < 0.15:
            colour, kind = str(rng.choice(COLORS)), str(rng.choice(KINDS_SHOWN))
        taken = any((spec.shade.name, spec.kind) == (colour, kind) for spec in specs)
        if not taken and not (split == "train" and (colour, kind) in HELD_OUT_PAIRS):
            specs.append(sample_object(rng, kind, sample_shade(rng, split, colour)))
    return specs


def _places(rng: np.random.Generator, specs: Sequence[ObjectSpec]) -> list[tuple[float, float]] | None:
    places: list[tuple[float, float]] = []
    for spec in specs:
        for _ in range(60):
            xy = rng.uniform(-0.21, 0.21, 2)
            if all(np.hypot(*(xy - p)) > spec.radius + s.radius + 0.035 for p, s in zip(places, specs, strict=False)):
                places.append((float(xy[0]), float(xy[1])))
                break
        else:
            return None
    return places


def _motions(
    rng: np.random.Generator, specs: Sequence[ObjectSpec], places: Sequence[tuple[float, float]], bodies: Sequence[int], camera_yaw: float
) -> list[_Motion]:
    """One to three motions of different objects; an empty list where no free way was found."""
    count = int(rng.choice((1, 2, 3), p=(0.35, 0.5, 0.15)))
    standing = [np.array(place) for place in places]
    motions = []
    for i in rng.permutation(len(specs))[:count].tolist():
        how = str(rng.choice(("slide", "lift", "carry", "onto"), p=(0.35, 0.2, 0.2, 0.25)))
        others = [j for j in range(len(specs)) if j != i]
        hosts = [j for j in others if specs[j].kind == "plate" or specs[j].inner_radius > specs[i].radius + 0.012]
        up = np.array([0.0, 0.0, HELD_UP])
        if how == "onto" and hosts:
            goal = standing[int(rng.choice(hosts))]
            over = np.array([*(goal - standing[i]), HELD_UP])
            way = [up, over, over - np.array([0.0, 0.0, HELD_UP - 0.022])]
        elif how == "lift":
            way = [up, up, 0.02 * up]
        else:
            goal = None
            for _ in range(40):
                turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.10, 0.24)
                to = standing[i] + far * np.array([np.cos(turn), np.sin(turn)])
                way_free = how == "carry" or all(
                    _distance(standing[i], to, standing[j]) > specs[i].radius + specs[j].radius + 0.02 for j in others
                )
                end_free = all(np.hypot(*(to - standing[j])) > specs[i].radius + specs[j].radius + 0.03 for j in others)
                if np.abs(to).max() < 0.24 and way_free and end_free:
                    goal = to
                    break
            if goal is None:
                return []
            shift = np.array([*(goal - standing[i]), 0.0])
            way = [shift] if how == "slide" else [up, shift + up, shift + 0.02 * up]
        standing[i] = standing[i] + np.array(way[-1][:2])
        motions.append(_Motion(bodies[i], np.stack(way)))
    return motions


def _distance(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], point: npt.NDArray[np.float64]) -> float:
    """Of a point from the way a..b."""
    along = np.clip(np.dot(point - a, b - a) / max(float(np.dot(b - a, b - a)), 1e-9), 0, 1)
    return float(np.hypot(*(a + along * (b - a) - point)))


def _attempt(client: int, rng: np.random.Generator, number: int, split: str) -> SimulatedClip | None:
    """A clip, or None where something left the table, is hidden, or moved too little to say whether it moved."""
    pybullet.resetSimulation(physicsClientId=client)
    pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
    half = [0.7, 0.7, 0.02]
    table = pybullet.createMultiBody(
        0,
        pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client),
        pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client),
        [0, 0, -0.02],
        physicsClientId=client,
    )
    pybullet.changeVisualShape(table, -1, textureUniqueId=load_texture(client, texture_image(rng)), physicsClientId=client)
    specs = _specs(rng, split)
    places = _places(rng, specs)
    if places is None:
        return None
    bodies = [spawn(client, spec, xy, 0.0, rng.uniform(0, 2 * np.pi)) for spec, xy in zip(specs, places, strict=True)]
    turn, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 55))
    eye = 0.95 * np.array([np.cos(elevation) * np.cos(turn), np.cos(elevation) * np.sin(turn), np.sin(elevation)])
    camera = CameraSpec("clip", tuple(eye.tolist()), (0.0, 0.0, 0.03), WIDTH, HEIGHT, 38.0)
    light = sample_light(rng)
    for _ in range(120):
        pybullet.stepSimulation(physicsClientId=client)
    motions = _motions(rng, specs, places, bodies, turn)
    if not motions:
        return None
    pauses = rng.uniform(0.3, 0.8, len(motions) + 1)
    course = _carried_out(client, bodies, motions, pauses.tolist(), camera, light)
    if course is None or course.pixels.min() < SEEN_PIXELS:
        return None
    way = np.linalg.norm(course.positions - course.positions[:1], axis=-1)  # (T, K)
    farthest = way.max(axis=0)
    if ((farthest > STILL) & (farthest < MOVED)).any():
        return None
    onset = np.where(farthest > MOVED, (way > MOVED / 2).argmax(axis=0), len(way))
    moved = tuple(int(i) for i in np.argsort(onset, kind="stable") if farthest[i] > MOVED)
    if not moved or any(onset[b] - onset[a] < 2 for a, b in itertools.pairwise(moved)):
        return None
    questions = _questions(rng, specs, course, moved)
    times = np.arange(len(course.frames)) / PER_SECOND
    return SimulatedClip(number, course.frames, times, tuple(spec.phrase for spec in specs), moved, questions)


def _carried_out(
    client: int, bodies: Sequence[int], motions: Sequence[_Motion], pauses: Sequence[float], camera: CameraSpec, light: object
) -> _Course | None:
    """Let the hand move and take pictures; None if something left the table or is out of sight."""
    frames, positions, segments = [], [], []
    steps = 0

    def picture() -> None:
        view, segmentation = render(client, camera, light)  # type: ignore[arg-type]
        frames.append(view.rgb)
        segments.append(segmentation)
        positions.append([pybullet.getBasePositionAndOrientation(body, physicsClientId=client)[0] for body in bodies])

    def step() -> None:
        nonlocal steps
        if steps % (STEPS_PER_SECOND // PER_SECOND) == 0:
            picture()
        pybullet.stepSimulation(physicsClientId=client)
        steps += 1

    def wait(seconds: float) -> None:
        for _ in range(round(seconds * STEPS_PER_SECOND)):
            step()

    wait(pauses[0])
    for motion, pause in zip(motions, pauses[1:], strict=True):
        start = np.array(pybullet.getBasePositionAndOrientation(motion.body, physicsClientId=client)[0])
        for point in start + motion.way:
            for _ in range(3 * STEPS_PER_SECOND):
                at = np.array(pybullet.getBasePositionAndOrientation(motion.body, physicsClientId=client)[0])
                left = point - at
                if abs(point[2] - start[2]) < 1e-6:
                    left[2] = 0.0  # slid: the table carries it
                far = float(np.linalg.norm(left))
                if far < 0.004:
                    break
                speed = left / far * min(SPEED, far * STEPS_PER_SECOND / 4)
                pybullet.resetBaseVelocity(motion.body, speed.tolist(), [0, 0, 0], physicsClientId=client)
                step()
        pybullet.resetBaseVelocity(motion.body, [0, 0, 0], [0, 0, 0], physicsClientId=client)
        wait(0.25 + pause)
    picture()
    places = np.array(positions)
    if places[-1, :, 2].min() < -0.01 or places[..., 2].max() > 0.5:
        return None
    pixels = np.array([[int((segment == body).sum()) for body in bodies] for segment in (segments[0], segments[-1])])
    if pixels.min() == 0:
        return None
    middles = np.array([[np.argwhere(segment == body).mean(axis=0)[::-1] for body in bodies] for segment in (segments[0], segments[-1])])
    rests = np.zeros((len(bodies), len(bodies)), dtype=bool)
    for i, upper in enumerate(bodies):
        for j, lower in enumerate(bodies):
            if i != j and pybullet.getContactPoints(upper, lower, physicsClientId=client):
                on_table = any(
                    pybullet.getContactPoints(upper, other, physicsClientId=client) for other in range(min(bodies)) if other not in bodies
                )
                rests[i, j] = not on_table and places[-1, i, 2] > places[-1, j, 2]
    return _Course(np.stack(frames), places, pixels, middles, rests)


def _questions(rng: np.random.Generator, specs: Sequence[ObjectSpec], course: _Course, moved: Sequence[int]) -> tuple[Question, ...]:
    """At most one question of each kind."""
    kinds, colours = [spec.kind for spec in specs], [spec.shade.name for spec in specs]
    still = [i for i in range(len(specs)) if i not in moved]
    found: list[Question] = []

    def pick(options: list[tuple[str, str]], kind: QuestionKind) -> None:
        if options:
            text, answer = options[int(rng.integers(len(options)))]
            found.append(Question(kind, text, answer))

    one_kind = [i for i in range(len(specs)) if kinds.count(kinds[i]) == 1]
    one_colour = [i for i in range(len(specs)) if colours.count(colours[i]) == 1]
    options = [(f"What colour is the {kinds[i]}?", colours[i]) for i in one_kind]
    alone = [i for i in moved if sum(kinds[j] == kinds[i] for j in moved) == 1]
    options += [(f"What colour is the {kinds[i]} that moves?", colours[i]) for i in alone if i not in one_kind]
    pick(options, "colour")
    options = [(f"What kind of object is the {colours[i]} object?", kinds[i]) for i in one_colour]
    alone = [i for i in moved if sum(colours[j] == colours[i] for j in moved) == 1]
    options += [(f"What kind of object is the {colours[i]} object that moves?", kinds[i]) for i in alone if i not in one_colour]
    pick(options, "kind")
    options = [(f"How many {_several(kind)} are there?", NUMBERS[kinds.count(kind)]) for kind in sorted(set(kinds))]
    options += [(f"How many {colour} objects are there?", NUMBERS[colours.count(colour)]) for colour in sorted(set(colours))]
    options.append(("How many objects are there?", NUMBERS[len(specs)]))
    options.append(("How many objects move?", NUMBERS[len(moved)]))
    pick(options, "count")
    pick(_spatial(specs, course, rng), "relation")
    if len(moved) == 1:
        pick([("Which object moves?", specs[moved[0]].phrase)], "moved")
    elif still and len(still) == 1:
        pick([("Which object does not move?", specs[still[0]].phrase)], "moved")
    if len(moved) > 1:
        order = [("Which object moves first?", specs[moved[0]].phrase), ("Which object moves last?", specs[moved[-1]].phrase)]
        pick(order, "order")
    absent = sorted({f"{a.shade.name} {b.kind}" for a in specs for b in specs} - {spec.phrase for spec in specs})
    options = [(f"Is there a {specs[i].phrase}?", "yes") for i in range(len(specs))][:2]
    options += [(f"Is there a {phrase}?", "no") for phrase in absent[:2]]
    options += [(f"Does the {specs[i].phrase} move?", "yes") for i in moved[:1]] + [
        (f"Does the {specs[i].phrase} move?", "no") for i in still[:1]
    ]
    pick(options, "yes_no")
    return tuple(found)


def _spatial(specs: Sequence[ObjectSpec], course: _Course, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Questions about where things are at the end."""
    options: list[tuple[str, str]] = []
    for i, j in np.argwhere(course.rests_on).tolist():
        if course.rests_on[:, j].sum() == 1:
            where = "in" if specs[j].inner_radius > 0 else "on"
            options += [(f"What is {where} the {specs[j].phrase} at the end?", specs[i].phrase)] * 3
    across = course.places[1, :, 0]
    for i in range(len(specs)):
        for j in range(len(specs)):
            apart = float(across[j] - across[i])
            if i != j and abs(apart) > APART * WIDTH:
                side = str(rng.choice(("left", "right")))
                text = f"Is the {specs[i].phrase} to the {side} of the {specs[j].phrase} at the end?"
                options.append((text, "yes" if (apart > 0) == (side == "left") else "no"))
    leftmost, rightmost = across.argsort()[:2], across.argsort()[::-1][:2]
    if across[leftmost[1]] - across[leftmost[0]] > 0.1 * WIDTH:
        options += [("Which object is farthest to the left at the end?", specs[int(leftmost[0])].phrase)] * 3
    if across[rightmost[0]] - across[rightmost[1]] > 0.1 * WIDTH:
        options += [("Which object is farthest to the right at the end?", specs[int(rightmost[0])].phrase)] * 3
    return options


def _several(kind: str) -> str:
    return f"{kind}s"
