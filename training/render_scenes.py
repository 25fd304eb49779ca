"""Render randomised table scenes with their truth: the training data of the segmenter and the CLIPs.

    python -m training.render_scenes --out training/data --scenes 7000 --seed 1

Everything that could be learnt by accident is randomised: table and floor textures, light, camera pose and lens, number, kind, size,
shade and place of the objects, whether a robot arm is in view. Scenes are drawn so that neither colour nor kind alone tells objects
apart: two to four colours and two to four kinds a scene. Shades of the test split and the pairs of HELD_OUT_PAIRS never appear.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pybullet

from pcm_ros.sim.appearance import COLORS, load_texture, sample_light, sample_shade, texture_image
from pcm_ros.sim.cameras import CameraSpec, render
from pcm_ros.sim.objects import HELD_OUT_PAIRS, KINDS, ObjectSpec, data_path, sample_object, spawn

WIDTH, HEIGHT = 320, 240
VIEWS = 3
MOST_OBJECTS = 9


def sample_specs(rng: np.random.Generator, split: str) -> list[ObjectSpec]:
    """2 to 9 objects of few colours and few kinds, so that each has a twin in colour and a twin in kind."""
    colours = rng.choice(len(COLORS), rng.integers(2, 5), replace=False)
    common = rng.choice(6, rng.integers(2, 5), replace=False, p=(0.24, 0.24, 0.24, 0.11, 0.11, 0.06))
    specs: list[ObjectSpec] = []
    while len(specs) < rng.integers(3, MOST_OBJECTS + 1):
        kind = KINDS[rng.choice(common)] if rng.random() < 0.85 else KINDS[rng.integers(len(KINDS))]
        colour = COLORS[rng.choice(colours)] if rng.random() < 0.85 else COLORS[rng.integers(len(COLORS))]
        if split == "train" and (colour, kind) in HELD_OUT_PAIRS:
            continue
        specs.append(sample_object(rng, kind, sample_shade(rng, split, colour)))
    return specs


def place(rng: np.random.Generator, specs: list[ObjectSpec]) -> list[tuple[ObjectSpec, tuple[float, float], float, float]]:
    """(spec, xy, underside z, yaw): apart from each other on the table; some on or in another."""
    spread, placed = rng.uniform(0.16, 0.34), []
    for spec in specs:
        host = [p for p in placed if p[2] < 0.001 and (p[0].flat_top or p[0].inner_radius > spec.radius + 0.006)]
        if host and rng.random() < 0.25 and spec.radius < 0.06:
            below, xy, _, _ = host[rng.integers(len(host))]
            jitter = rng.normal(0, 0.004, 2)
            z = below.height + 0.001 if below.inner_radius == 0 else 0.010
            placed.append((spec, (xy[0] + jitter[0], xy[1] + jitter[1]), z, rng.uniform(0, 2 * np.pi)))
            continue
        for _ in range(30):
            xy = rng.uniform(-spread, spread, 2)
            if all(np.hypot(*(xy - q[1])) > spec.radius + q[0].radius + rng.uniform(0.004, 0.03) for q in placed):
                placed.append((spec, (float(xy[0]), float(xy[1])), 0.0, rng.uniform(0, 2 * np.pi)))
                break
    return placed


def sample_camera(rng: np.random.Generator, spread: float) -> CameraSpec:
    """A camera anywhere above the table that looks at the objects."""
    elevation = np.radians(rng.uniform(18, 90) if rng.random() < 0.85 else 89.9)
    turn, fov = rng.uniform(0, 2 * np.pi), rng.uniform(30, 62)
    distance = spread * rng.uniform(0.55, 1.25) / np.tan(np.radians(fov / 2)) + 0.1
    target = np.array([*rng.normal(0, 0.05, 2), rng.uniform(-0.02, 0.06)])
    eye = target + distance * np.array([np.cos(elevation) * np.cos(turn), np.cos(elevation) * np.sin(turn), np.sin(elevation)])
    return CameraSpec("camera", tuple(eye.tolist()), tuple(target.tolist()), WIDTH, HEIGHT, float(fov))


def render_scene(client: int, rng: np.random.Generator, split: str) -> list[dict[str, np.ndarray]]:
    """VIEWS pictures of one new scene. The client's world is emptied first."""
    pybullet.resetSimulation(physicsClientId=client)
    pybullet.setGravity(0, 0, -9.81, physicsClientId=client)
    half = [rng.uniform(0.35, 1.2), rng.uniform(0.35, 1.2), 0.02]
    box = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    look = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    table = pybullet.createMultiBody(0, box, look, [0, 0, -0.02], physicsClientId=client)
    pybullet.changeVisualShape(table, -1, textureUniqueId=load_texture(client, texture_image(rng)), physicsClientId=client)
    if rng.random() < 0.6:
        floor = pybullet.loadURDF(str(data_path() / "plane.urdf"), [0, 0, -rng.uniform(0.3, 0.8)], physicsClientId=client)
        pybullet.changeVisualShape(
            floor, -1, textureUniqueId=load_texture(client, texture_image(rng)), rgbaColor=[1, 1, 1, 1], physicsClientId=client
        )
    if rng.random() < 0.35:
        turn = rng.uniform(0, 2 * np.pi)
        arm = pybullet.loadURDF(
            str(data_path() / "franka_panda" / "panda.urdf"),
            [-0.62 * np.cos(turn), -0.62 * np.sin(turn), 0],
            pybullet.getQuaternionFromEuler([0, 0, turn]),
            useFixedBase=True,
            physicsClientId=client,
        )
        pose = np.array([0, -0.9, 0, -2.6, 0, 1.9, 0.78]) + rng.normal(0, 0.25, 7)
        for joint in range(7):
            pybullet.resetJointState(arm, joint, float(pose[joint]), physicsClientId=client)
    placed = place(rng, sample_specs(rng, split))
    bodies = [spawn(client, spec, xy, z, yaw) for spec, xy, z, yaw in placed]
    for _ in range(40):
        pybullet.stepSimulation(physicsClientId=client)
    light, spread = sample_light(rng), 0.12 + max(np.hypot(*p[1]) for p in placed)
    number = np.full(max(bodies) + 2, 0, dtype=np.uint8)
    number[bodies] = np.arange(1, len(bodies) + 1)
    pictures = []
    for _ in range(VIEWS):
        camera = sample_camera(rng, spread)
        view, segmentation = render(client, camera, light)
        instance = np.where(
            (segmentation >= 0) & (segmentation < len(number)), number[np.clip(segmentation, 0, len(number) - 1)], 0
        ).astype(np.uint8)
        truth = np.zeros((MOST_OBJECTS, 6), dtype=np.float32)  # kind, colour, centre in the optical frame (3), radius
        truth[:, 0] = -1
        for k, (body, (spec, *_)) in enumerate(zip(bodies, placed, strict=True)):
            low, high = pybullet.getAABB(body, physicsClientId=client)
            centre = ((np.add(low, high) / 2) - view.position) @ view.rotation
            truth[k] = [KINDS.index(spec.kind), COLORS.index(spec.shade.name), *centre, spec.radius]
        intrinsics = np.array([camera.intrinsics[0, 0], camera.intrinsics[0, 2], camera.intrinsics[1, 2]], dtype=np.float32)
        pictures.append(
            {
                "rgb": view.rgb,
                "instance": instance,
                "depth": view.depth[2::4, 2::4].astype(np.float16),
                "truth": truth,
                "intrinsics": intrinsics,
            }
        )
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("training/data"))
    parser.add_argument("--scenes", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "test"), default="train", help="test: held-out shades and pairs too")
    parser.add_argument("--shard", type=int, default=250, help="scenes a file")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    client, start = pybullet.connect(pybullet.DIRECT), time.time()
    for shard in range(0, options.scenes, options.shard):
        path = options.out / f"{options.split}-{options.seed:03d}-{shard // options.shard:04d}"
        if (path / "done.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        pictures = [
            picture
            for scene in range(shard, min(shard + options.shard, options.scenes))
            for picture in render_scene(client, np.random.default_rng([options.seed, scene, options.split == "test"]), options.split)
        ]
        for name in pictures[0]:
            np.save(path / f"{name}.npy", np.stack([picture[name] for picture in pictures]))
        (path / "done.json").write_text(json.dumps({"pictures": len(pictures), "seed": options.seed, "split": options.split}))
        pybullet.disconnect(client)  # a fresh client: textures of old scenes are not freed otherwise
        client = pybullet.connect(pybullet.DIRECT)
        print(f"{path.name}: {len(pictures)} pictures, {time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
