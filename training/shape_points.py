"""Points of objects as perception finds them in simulated scenes, with their kinds: what the expert on shapes is trained on.

    python -m training.shape_points --out training/shapes/a.npz --scenes 1500 --seed 700000

Scenes of the suite `clutter`, and of objects of all kinds at random, at seeds that no bench uses; their shapes are those that the other
experts were trained on (`sim.objects.sample_object`), not those of the suite `unseen`. Half of the scenes are seen by all cameras, the
others by some: one camera sees one side. Two cores are used by two processes with seeds of their own.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pcm_ros.sim.appearance import COLORS
from pcm_ros.sim.objects import KINDS
from pcm_ros.sim.relation_tasks import FreeTask
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import NoRoom
from pcm_ros.tasks.manipulation.assembly import build_vision
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation

SHARES = {"mug": 0.18, "bowl": 0.18, "block": 0.16, "can": 0.14, "bottle": 0.1, "plate": 0.12, "duck": 0.06, "toy": 0.06}
"""Of the kinds among objects at random."""
MOST_POINTS = 800
NEAR = 0.025  # metres between the middle that was perceived and the true one


def some_views(observation: Observation, rng: np.random.Generator) -> Observation:
    """All of the views, or one to four of them."""
    count = len(observation.views)
    if rng.random() < 0.5:
        return observation
    chosen = rng.choice(count, rng.integers(1, count), replace=False)
    return replace(observation, views=tuple(observation.views[number] for number in sorted(chosen)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=700_000, help="of the first scene")
    options = parser.parse_args()
    cells = [SimWorkcell("clutter"), SimWorkcell("free")]
    perceptions = [Perception(build_vision(), cell.limits) for cell in cells]
    clouds, kinds, colors, started = [], [], [], time.monotonic()
    shown = started
    for number in range(options.scenes):
        seed, which = options.seed + number, number % len(cells)
        rng = np.random.default_rng([seed, 5])
        drawn = rng.choice(list(SHARES), rng.integers(3, 7), p=list(SHARES.values()))
        try:
            cells[which].reset(seed, FreeTask(tuple((str(kind), None) for kind in drawn)) if which else None)
        except NoRoom:
            continue
        bodies = cells[which].world.bodies()
        middles = np.array([(body.low + body.high)[:2] / 2 for body in bodies])
        heights = np.array([(body.low + body.high)[2] / 2 for body in bodies])
        try:
            scene = perceptions[which].perceive(some_views(cells[which].observe(), rng))
        except InvalidObservation:
            continue
        for thing in scene.objects:
            away = np.hypot(*(middles - thing.center[:2]).T) + np.abs(heights - thing.center[2]) / 2
            nearest = int(away.argmin())
            if away[nearest] > NEAR:
                continue
            chosen = rng.permutation(len(thing.points))[:MOST_POINTS]
            clouds.append((thing.points[chosen] - thing.center).astype(np.float16))
            kinds.append(KINDS.index(bodies[nearest].spec.kind))
            colors.append(COLORS.index(bodies[nearest].spec.shade.name))
        if time.monotonic() - shown > 10 or number + 1 == options.scenes:
            shown = time.monotonic()
            print(f"{number + 1} of {options.scenes} scenes, {len(clouds)} objects, {shown - started:.0f} s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        options.out,
        points=np.concatenate(clouds),
        counts=np.array([len(cloud) for cloud in clouds]),
        kind=np.array(kinds),
        color=np.array(colors),
    )


if __name__ == "__main__":
    main()
