"""How reliably the simulated arm lifts and places: grasps from truth, so that only physics and motion are measured.

python benchmarks/grasp.py --trials 60 --seed 1000 --json grasp.json
python benchmarks/grasp.py --suite relations-1 --trials 50        # whole episodes: what a planner with perfect sight would reach
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pybullet

from pcm_ros.evidence import rate
from pcm_ros.sim.benchmark_tasks import FreeTask, achievable, achievable_spots
from pcm_ros.sim.objects import WALL
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import PANDA_LIMITS, Body, Placement, WorldConfig, arrange, cameras
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.workcell import Array, PickPlace

KINDS = ("block", "can", "mug", "bowl")


def yaw_of(body: Body) -> float:
    """Rotation about z, radians, of an upright body."""
    matrix = np.array(pybullet.getMatrixFromQuaternion(body.orientation)).reshape(3, 3)
    return float(np.arctan2(matrix[1, 0], matrix[0, 0]))


def grasp(body: Body, others: Sequence[Body], rng: np.random.Generator) -> tuple[Array, float, float]:
    """Tool position (3,), yaw and opening from truth, the hand turned away from its neighbours.

    Across blocks, cans and bottles; at the rim of mugs (not at the handle) and bowls.
    """
    candidates = [_any_grasp(body, rng) for _ in range(16)]
    return max(candidates, key=lambda candidate: _room(candidate[0], candidate[1], others))


def _room(tool: Array, yaw: float, others: Sequence[Body]) -> float:
    """Metres between the hand's long side and the nearest body that is as high as the hand."""
    along = np.linspace(-0.1, 0.1, 9)[:, None] * np.array([np.cos(yaw), np.sin(yaw)]) + tool[:2]
    near = [float(np.hypot(*(along - o.position[:2]).T).min()) - o.spec.radius for o in others if o.high[2] > tool[2]]
    return min([*near, 0.1])


def _any_grasp(body: Body, rng: np.random.Generator) -> tuple[Array, float, float]:
    spec, top, low, centre = body.spec, body.high[2], body.low[2], body.position[:2]
    if spec.kind in ("mug", "bowl"):
        turn = yaw_of(body) + rng.uniform(0.7, 2 * np.pi - 0.7) if spec.kind == "mug" else rng.uniform(-np.pi, np.pi)
        depth, radius = (0.025, spec.dimensions[0] - WALL / 2) if spec.kind == "mug" else (0.016, spec.dimensions[0] - WALL / 2 - 0.004)
        return np.array([centre[0] + radius * np.cos(turn), centre[1] + radius * np.sin(turn), top - depth]), float(turn), 0.045
    if spec.kind == "block":
        side = int(rng.integers(2))
        tool = np.array([*centre, low + max(0.008, spec.height / 2 - 0.005)])
        return tool, yaw_of(body) + side * np.pi / 2, spec.dimensions[side] + 0.016
    height = max(low + 0.45 * spec.height, top - 0.040)  # the palm must stay above the top
    return np.array([*centre, height]), float(rng.uniform(-np.pi, np.pi)), 2 * spec.dimensions[0] + 0.014


def move(body: Body, others: Sequence[Body], target: Array, turn: float, lift: float, rng: np.random.Generator) -> PickPlace:
    """Grasp a body and set its centre down at `target` (2,), turned by `turn` radians, `lift` metres higher than it stands."""
    pick, yaw, width = grasp(body, others, rng)
    offset = pick[:2] - body.position[:2]
    c, s = np.cos(turn), np.sin(turn)
    place = np.array([target[0] + c * offset[0] - s * offset[1], target[1] + s * offset[0] + c * offset[1], pick[2] + lift + 0.003])
    return PickPlace(pick, yaw, width, place, yaw + turn)


def lift_and_place(cell: SimWorkcell, seed: int, noise: float) -> tuple[bool, str]:
    """Move the only object to a random place; it must end upright within 2 cm of it (3 cm with noise)."""
    rng = np.random.default_rng([seed, 99])
    cell.reset(seed)
    body = cell.world.bodies()[0]
    goal = arrange(rng, [body.spec])[0].xy
    action = move(body, (), np.array(goal), float(rng.uniform(-np.pi / 2, np.pi / 2)), 0.0, rng)
    # As an imperfect eye would have it: position and direction of the grasp are off (10 mm goes with 0.2 rad).
    error = rng.normal(0, noise, 3) * [1.0, 1.0, 0.5]
    pick = action.pick_position + error
    action = replace(action, pick_position=pick, pick_yaw=action.pick_yaw + float(rng.normal(0, 20 * noise)))
    result = cell.execute(action)
    body = cell.world.bodies()[0]
    missed = float(np.hypot(*(body.position[:2] - goal)))
    if result.ok and missed < (0.03 if noise else 0.02) and body.up[2] > 0.95:
        return True, ""
    return False, f"{result.code.name} {result.message} {missed:.3f} m from the goal, upright {body.up[2]:.2f}"


def whole_episode(cell: SimWorkcell, seed: int, noise: float) -> tuple[bool, str]:
    """Carry out an episode's relations in order, knowing everything; the judge decides. At most three tries each; no noise."""
    rng = np.random.default_rng([seed, 99])
    episode = cell.reset(seed)
    for number, relation in enumerate(episode.relations):
        for _ in range(3):
            if cell.judge(relation):
                break
            action = oracle_action(cell, relation, episode.relations[:number], rng)
            if action is None:
                return False, f"{episode.instruction}: no room left for {relation}"
            result = cell.execute(action)
    verdict = cell.judge_all()
    return verdict.holds, "" if verdict else f"{episode.instruction}: {result.code.name} {result.message} {verdict.reason}"


def oracle_action(cell: SimWorkcell, relation: Relation, earlier: Sequence[Relation], rng: np.random.Generator) -> PickPlace | None:
    """An action from truth that should make the relation hold; None where there is no room left."""
    bodies = {body.spec.phrase: body for body in cell.world.bodies()}
    subject, reference = bodies[relation.subject], bodies[relation.references[0]]
    others = [body for body in bodies.values() if body is not subject]
    if relation.kind in (RelationKind.ON, RelationKind.IN):
        hollow = {"bowl": 0.008, "plate": 0.008}.get(reference.spec.kind)
        floor = reference.high[2] if hollow is None else reference.low[2] + hollow
        return move(subject, others, reference.position[:2], 0.0, float(floor - subject.low[2]), rng)
    placements = [Placement(body.spec, (float(body.position[0]), float(body.position[1]))) for body in bodies.values()]
    spots = achievable_spots(placements, relation, earlier, cell.limits)
    if not spots:
        return None
    return move(
        subject,
        others,
        np.array(_spot_that_leaves_room(cell, spots, placements, relation, rng)),
        0.0,
        float(cell.world.table_height - subject.low[2]),
        rng,
    )


def _spot_that_leaves_room(
    cell: SimWorkcell, spots: list[tuple[float, float]], placements: list[Placement], relation: Relation, rng: np.random.Generator
) -> tuple[float, float]:
    """A random one of the spots after which the episode's later relations can still be reached; any if there is none."""
    relations = cell.episode.relations
    number = relations.index(relation)
    subject = next(i for i, placement in enumerate(placements) if placement.spec.phrase == relation.subject)
    order = [spots[i] for i in rng.permutation(len(spots))]
    for spot in order[:20]:
        after = [*placements[:subject], replace(placements[subject], xy=spot), *placements[subject + 1 :]]
        if achievable(after, relations[number + 1 :], cell.limits):
            return spot
    return order[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials, print and write the result. Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60, help="trials of each kind, or episodes of the suite")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first trial; the others follow")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated kinds of objects")
    parser.add_argument("--suite", default="", help="run episodes of this task instead of single objects")
    parser.add_argument(
        "--noise", type=float, default=0.0, help="standard deviation of the grasp's position, metres (with yaw errors to match)"
    )
    parser.add_argument("--json", default="", help="file for the result")
    options = parser.parse_args(arguments)
    started = time.time()
    config = WorldConfig(cameras=cameras(1), vary_appearance=False)
    names = [options.suite] if options.suite else options.kinds.split(",")
    results, records = {}, []
    for name in names:
        cell = SimWorkcell(options.suite or FreeTask(((name, None),)), config)
        trial = whole_episode if options.suite else lift_and_place
        for seed in range(options.seed, options.seed + options.trials):
            good, reason = trial(cell, seed, options.noise)
            records.append({"name": name, "seed": seed, "success": good, "reason": reason, "steps": cell.world.robot.steps})
            if not good:
                print(f"{name} {seed}: {reason}")
        cell.close()
        successes = sum(bool(record["success"]) for record in records if record["name"] == name)
        share = rate([True] * successes + [False] * (options.trials - successes))
        results[name] = share.as_json()
        print(f"{name}: {successes} of {options.trials} ({100 * share.low:.1f} to {100 * share.high:.1f} %)")
    if options.json:
        report = {
            "command": " ".join(sys.argv),
            "config": {"limits": str(PANDA_LIMITS), **vars(options)},
            "versions": {"python": platform.python_version(), "pybullet": pybullet.getAPIVersion(), "numpy": np.__version__},
            "machine": platform.platform(),
            "seconds": time.time() - started,
            "results": results,
            "records": records,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
