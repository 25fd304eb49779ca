"""One consensus iteration on predicted views against simulating and rendering every candidate, in one process run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pybullet

from pcm_ros.consensus import mixed_seed
from pcm_ros.evidence import Document, Estimate, mean, ratio, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.sim.cameras import render
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import (
    ManipulationConfig,
    build_consensus,
    build_generator,
    build_grounder,
    build_perception,
    build_relation_scorer,
    build_vision,
)
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.instruction import parse

SETTLE_STEPS = 120  # half a second: what an object that is let go a few millimetres above its support needs


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell("relations-1")
        self.views = [camera.name for camera in self.workcell.world.config.cameras][: config["views"]]
        settings = ManipulationConfig(proposals=config["candidates"], iterations=1)
        vision = build_vision()
        grounder = build_grounder(settings.grounders, vision)
        self.scorers = [build_relation_scorer(view, settings, vision, grounder) for view in self.views]
        self.consensus = build_consensus(settings, build_generator(settings), self.scorers)
        self.perception = build_perception(self.workcell.limits, settings, vision, grounder)


def run_one(item: int, prepared: _Prepared) -> dict[str, Any]:
    """Both ways on one scene. The baseline is given the easy part: the object appears at its predicted place, no arm moves it."""
    cell = prepared.workcell
    episode = cell.reset(item)
    observation = cell.observe()
    observation = replace(observation, views=tuple(view for view in observation.views if view.name in prepared.views))
    scene = prepared.perception.perceive(observation)
    context = Context(parse(episode.instruction).relations[0], (), scene, observation)
    for scorer in prepared.scorers:  # what is done once an observation, not once an iteration
        scorer.assess(context)
    start = time.perf_counter()
    iteration = prepared.consensus.run(context, mixed_seed(item, 0))
    ours = time.perf_counter() - start

    world, client = cell.world, cell.world.client
    bodies = cell.world.bodies()
    middles = np.stack([(body.low + body.high) / 2 for body in bodies])
    nearest = [bodies[int(np.linalg.norm(middles - thing.center, axis=1).argmin())] for thing in scene.objects]
    state = pybullet.saveState(physicsClientId=client)
    start = time.perf_counter()
    for number, motion in zip(iteration.batch.category.tolist(), iteration.batch.extras["motion"].tolist(), strict=True):
        body = nearest[number]
        turn = pybullet.multiplyTransforms(
            [0, 0, 0], pybullet.getQuaternionFromEuler([0, 0, motion[3]]), [0, 0, 0], body.orientation.tolist()
        )[1]
        pybullet.resetBasePositionAndOrientation(body.number, (body.position + motion[:3]).tolist(), turn, physicsClientId=client)
        for _ in range(SETTLE_STEPS):
            pybullet.stepSimulation(physicsClientId=client)
        for camera in world.cameras:
            if camera.name in prepared.views:
                render(client, camera, world.light)
        pybullet.restoreState(stateId=state, physicsClientId=client)
    theirs = time.perf_counter() - start
    pybullet.removeState(state, physicsClientId=client)
    return {
        "instruction": episode.instruction,
        "candidates": len(iteration.batch),
        "ours_seconds": ours,
        "simulated_seconds": theirs,
        **{f"part_{name}": value for name, value in iteration.seconds.items()},
    }


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    good = [record for record in records if "error" not in record]
    ours, theirs = [r["ours_seconds"] for r in good], [r["simulated_seconds"] for r in good]
    return {"ratio": ratio(theirs, ours), "ours_seconds": mean(ours), "simulated_seconds": mean(theirs)} if good else {}


def bench(json_path: Path, *, candidates: int = 256, views: int = 5, scenes: int = 3, seed: int = 1000, fresh: bool = False) -> Document:
    """`scenes` scenes, each both ways in turn."""
    config = {"candidates": candidates, "views": views, "seed": seed, "settle_steps": SETTLE_STEPS}
    items = {f"scene-{number}": number for number in range(seed, seed + scenes)}
    return run_bench("world-model", config, items, run_one, summarise, json_path, prepare=_Prepared, fresh=fresh)
