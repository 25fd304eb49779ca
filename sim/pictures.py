"""Small pictures of one to three things on a table: what is where in them, how things stand to each other, and how they are rendered.

The picture is seen from the front and from above: x points to the right in it, y away from the camera. Such pictures are what the embedded
diffusion model learnt from, and what its pictures are compared with.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pybullet

from pcm_ros.sim.appearance import COLORS, Light, load_texture, sample_shade
from pcm_ros.sim.cameras import CameraSpec, render
from pcm_ros.sim.objects import HELD_OUT_PAIRS, ObjectSpec, origin_height, spawn

KINDS = ("mug", "bowl", "block", "can", "bottle", "plate", "duck")
MOST_OBJECTS = 3
APART = 0.055  # metres along the leading axis from which on a relation is clear
LEADS = 1.5  # times the distance along the other axis
RELATIONS = ("left", "right", "front", "behind", "on", "in")
HELD_OUT_SETS = 12  # one in so many sets of two or three things is kept for testing
SIZE = 64
DRAWN = 128
PICTURES_A_WORLD = 24
AWAY = (0.0, -9.0, 0.0)  # behind the camera
ELEVATIONS, DISTANCES = (38.0, 48.0), (0.65, 0.71)  # of the camera above the table, degrees, and from what it looks at, metres
TARGET = (0.0, 0.01, 0.03)
PROBABILITIES = (0.2, 0.18, 0.18, 0.14, 0.1, 0.08, 0.12)
SIZES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # larger than on the robot's table: 64 pixels must show them
    "mug": ((0.036, 0.075, 0.85), (0.043, 0.095, 1.0)),
    "bowl": ((0.058, 0.042, 0.45), (0.075, 0.058, 0.6)),
    "block": ((0.050, 0.050, 0.050), (0.064, 0.064, 0.064)),
    "can": ((0.029, 0.080), (0.036, 0.110)),
    "bottle": ((0.028, 0.130, 0.011), (0.035, 0.165, 0.014)),
    "plate": ((0.065, 0.015), (0.080, 0.020)),
    "duck": ((0.095,), (0.115,)),
}


@dataclass(frozen=True)
class Placed:
    """A thing in a picture.

    Attributes:
        color, kind: words of COLORS and KINDS. x, y: metres on the table, x to the right, y away from the camera.
        host: number of the thing in or on which it is, -1 = the table.
    """

    color: str
    kind: str
    x: float
    y: float
    host: int = -1


def held_out(things: Sequence[tuple[str, str]]) -> bool:
    """Whether pictures with exactly these (colour, kind) are kept for testing: one of HELD_OUT_PAIRS, or by a checksum of the set."""
    if any(pair in HELD_OUT_PAIRS for pair in things):
        return True
    names = "+".join(sorted(f"{color} {kind}" for color, kind in things))
    return len(things) > 1 and zlib.crc32(names.encode()) % HELD_OUT_SETS == 0


def relation(a: int, b: int, things: Sequence[Placed]) -> str | None:
    """How a stands to b: one of RELATIONS, or None where that is not clear."""
    first, second = things[a], things[b]
    if first.host == b:
        return "in" if second.kind in ("bowl", "mug") else "on"
    if second.host == a or first.host >= 0 or second.host >= 0:
        return None
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > max(APART, LEADS * abs(dy)):
        return "right" if dx > 0 else "left"
    if abs(dy) > max(APART, LEADS * abs(dx)):
        return "behind" if dy > 0 else "front"
    return None


World = list[tuple[ObjectSpec, int, float]]  # thing, body, height of the body's origin above the underside


def sample_thing(rng: np.random.Generator, kind: str) -> ObjectSpec:
    """A thing of a kind; its colour is given to it in each picture anew."""
    low, high = SIZES[kind]
    dimensions = tuple(float(x) for x in rng.uniform(low, high))
    return ObjectSpec(kind, sample_shade(rng, "train"), (dimensions[0],) * 3 if kind == "block" else dimensions)


def build_world(client: int, rng: np.random.Generator) -> World:
    """An empty table of a muted colour, and nine things of four kinds out of sight."""
    pybullet.resetSimulation(physicsClientId=client)
    look = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=[1.5, 1.5, 0.02], physicsClientId=client)
    table = pybullet.createMultiBody(0, -1, look, [0, 0.5, -0.02], physicsClientId=client)
    base = rng.uniform(0.35, 0.95) + rng.normal(0, 0.06, 3)
    grain = cv2.resize(rng.random((16, 16, 1)).astype(np.float32), (64, 64), interpolation=cv2.INTER_CUBIC)[..., None]
    surface = np.clip(base + rng.uniform(0, 0.08) * (grain - 0.5), 0.05, 1)
    texture = load_texture(client, (surface * 255).astype(np.uint8))
    pybullet.changeVisualShape(table, -1, textureUniqueId=texture, physicsClientId=client)
    kinds = rng.choice(len(KINDS), 4, replace=False, p=PROBABILITIES)
    world = []
    for number in range(9):
        spec = sample_thing(rng, KINDS[kinds[number % 4]])
        body = spawn(client, spec, (0.0, 0.0), 0.0)
        low, _ = pybullet.getAABB(body, physicsClientId=client)
        duck = spec.kind == "duck"  # its origin is found by its bounding box, which pybullet widens a little
        world.append((spec, body, 0.0005 - low[2] if duck else origin_height(spec)))
    return world


def sample_camera(rng: np.random.Generator) -> CameraSpec:
    """From the front and from above, mildly varied."""
    turn, elevation = -90 + rng.normal(0, 2.5), rng.uniform(*ELEVATIONS)
    target = np.array(TARGET) + np.array([rng.normal(0, 0.006), rng.normal(0, 0.006), 0.0])
    return _camera(turn, elevation, target, rng.uniform(*DISTANCES))


def mean_camera() -> CameraSpec:
    """The camera about which `sample_camera` varies."""
    return _camera(-90.0, float(np.mean(ELEVATIONS)), np.array(TARGET), float(np.mean(DISTANCES)))


def _camera(turn: float, elevation: float, target: npt.NDArray[np.float64], distance: float) -> CameraSpec:
    around, above = np.radians(turn), np.radians(elevation)
    away = np.array([np.cos(above) * np.cos(around), np.cos(above) * np.sin(around), np.sin(above)])
    eye = target + distance * away
    return CameraSpec("camera", tuple(eye.tolist()), tuple(target.tolist()), DRAWN, DRAWN, 30.0)


def sample_light(rng: np.random.Generator) -> Light:
    """From above, behind the camera or beside it."""
    direction = (float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.8, 0.3)), 1.0)
    tint = 1.0 - rng.uniform(0, 0.05, 3)
    strength = float(rng.uniform(0.5, 0.65)), float(rng.uniform(0.3, 0.5))
    return Light(direction, tuple(tint.tolist()), *strength, specular=0.05, shadow=bool(rng.random() < 0.3))


def arrange(rng: np.random.Generator, world: World) -> list[tuple[int, Placed, float]] | None:
    """(number in the world, thing as placed, underside) of one to three things, or None where a draw has no room for them."""
    count = int(rng.choice((1, 2, 3), p=(0.25, 0.45, 0.30)))
    twins = rng.random() < 0.2
    chosen: list[int] = []
    while len(chosen) < count:
        number = int(rng.integers(len(world)))
        if number in chosen or (chosen and (world[number][0].kind == world[chosen[0]][0].kind) != twins and rng.random() < 0.8):
            continue
        chosen.append(number)
    colors = [COLORS[rng.integers(len(COLORS))] for _ in chosen]
    if twins:
        colors = [colors[0] if world[n][0].kind == world[chosen[0]][0].kind else color for n, color in zip(chosen, colors, strict=True)]
    placed: list[tuple[int, Placed, float]] = []
    for number, color in zip(chosen, colors, strict=True):
        spec = world[number][0]
        hosts = [
            i
            for i, (other, thing, _) in enumerate(placed)
            if thing.host < 0
            and (below := world[other][0]).kind in ("block", "can", "plate", "bowl")
            and (below.flat_top or spec.radius < below.inner_radius)
            and spec.radius < 0.062
            and all(p.host != i for _, p, _ in placed)
        ]
        if hosts and rng.random() < 0.45:
            host = hosts[int(rng.integers(len(hosts)))]
            below, thing = world[placed[host][0]][0], placed[host][1]
            underside = 0.012 if below.kind == "bowl" else 0.010 if below.kind == "plate" else below.height
            placed.append((number, Placed(color, spec.kind, thing.x, thing.y, host), underside))
            continue
        for _ in range(40):
            x, y = rng.uniform(-1, 1) * (0.160 - spec.radius), rng.uniform(-0.09, 0.12)
            ground = [(world[n][0], p) for n, p, _ in placed if p.host < 0]
            if all(np.hypot(x - p.x, y - p.y) > spec.radius + s.radius + 0.008 for s, p in ground) and all(
                abs(x - p.x) > 0.05 or (y - p.y > 0) == (spec.height > 0.7 * s.height) or abs(y - p.y) > 0.12 for s, p in ground
            ):  # what is in front must not hide what is behind
                placed.append((number, Placed(color, spec.kind, float(x), float(y)), 0.0))
                break
        else:
            return None
    return placed


def pictures(client: int, seed: int, world_number: int, split: str) -> Iterator[tuple[npt.NDArray[np.uint8], list[Placed]]]:
    """PICTURES_A_WORLD times rgb (64, 64, 3) uint8 and the things in it. split: "test" = held-out sets and shades."""
    rng = np.random.default_rng([seed, world_number, split == "test"])
    world = build_world(client, rng)
    made = 0
    while made < PICTURES_A_WORLD:
        placed = arrange(rng, world)
        if placed is None or held_out([(thing.color, thing.kind) for _, thing, _ in placed]) != (split == "test"):
            continue
        for _, body, _ in world:
            pybullet.resetBasePositionAndOrientation(body, AWAY, (0, 0, 0, 1), physicsClientId=client)
        for number, thing, underside in placed:
            spec, body, above = world[number]
            yaw = rng.uniform(0, 2 * np.pi)
            turn = pybullet.getQuaternionFromEuler([np.pi / 2 if spec.kind == "duck" else 0, 0, yaw])
            pybullet.resetBasePositionAndOrientation(body, (thing.x, thing.y, underside + above), turn, physicsClientId=client)
            shade = sample_shade(rng, split, thing.color)
            pybullet.changeVisualShape(body, -1, rgbaColor=[*shade.rgb, 1], physicsClientId=client)
        view, _ = render(client, sample_camera(rng), sample_light(rng))
        rgb = cv2.resize(view.rgb, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        yield rgb, [thing for _, thing, _ in placed]
        made += 1
