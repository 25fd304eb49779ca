"""Episodes in the other world: `python tests/tasks/manipulation/another_episodes.py --help`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from another_workcell import AnotherWorkcell
from another_world import CAMERAS, AnotherWorld
from truth import Truth, truth_policy

from pcm_ros.evidence import rate
from pcm_ros.models.loading import set_threads
from pcm_ros.models.segmentation import TextSegmenter
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_policy
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.policy_events import Checked, Chosen, Executed, Finished, Observed, Outcome


@dataclass(frozen=True)
class Result:
    """One episode: what was asked, whether it is so in truth, what the robot said, and what happened on the way."""

    seed: int
    instruction: str
    done: bool
    outcome: Outcome
    message: str
    story: tuple[str, ...]


def truth_of_another(world: AnotherWorld) -> Truth:
    def labels(rgb: np.ndarray) -> np.ndarray:
        bodies = next(bodies for picture, bodies in world.shots.values() if picture.shape == rgb.shape and (picture == rgb).all())
        found = np.full(bodies.shape, -1)
        for index, thing in enumerate(world.things):
            found[bodies == thing.body] = index
        return found

    return Truth(
        labels,
        lambda number, phrase: set(phrase.split()) <= set(world.things[number].name.split()),
        lambda: np.array([np.mean(world.box(thing.name), axis=0) for thing in world.things]),
    )


def episodes(world: AnotherWorld, policy: ManipulationPolicy, seeds: Sequence[int], where: str = "") -> Iterator[Result]:
    """Run the policy on its jobs, or on jobs of one sort (`AnotherWorld.reset`); the judge is the world's own."""
    for seed in seeds:
        job = world.reset(seed, where)
        story = []
        finished: Finished | None = None
        for event in policy.run(job.instruction, seed):
            if isinstance(event, Observed):
                story.append(f"sees {[thing.label for thing in event.scene.objects]}, there are {[thing.name for thing in world.things]}")
            elif isinstance(event, Checked):
                story.append(f"p={event.probability:.2f} log-odds {[round(x, 1) for x in event.best_logits]}")
            elif isinstance(event, Chosen):
                thing = event.context.scene.objects[event.category]
                story.append(f"takes '{thing.label}' at {thing.center.round(3)} {event.action}, motion {np.round(event.motion, 3)}")
            elif isinstance(event, Executed):
                story.append(f"{event.result.code.name} {event.result.message}")
            elif isinstance(event, Finished):
                finished = event
        assert finished is not None
        yield Result(seed, job.instruction, world.done(), finished.outcome, finished.message, (*story, *finished.degraded))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--where", default="", help="jobs of one sort: in, left, right, behind or 'in front'")
    parser.add_argument("--truth", action="store_true", help="the truth in the place of the models")
    parser.add_argument("--segmenter", type=Path, help="another segmenter's .safetensors, which then grounds alone")
    parser.add_argument("--tell", action="store_true", help="tell the story of every episode, not only of failures")
    options = parser.parse_args()
    set_threads()
    world = AnotherWorld()
    cell = AnotherWorkcell(world)
    if options.truth:
        policy = truth_policy(cell, truth_of_another(world), list(CAMERAS))
    elif options.segmenter:
        policy = build_policy(cell, list(CAMERAS), ManipulationConfig(grounders=("segmenter",)), TextSegmenter(options.segmenter))
    else:
        policy = build_policy(cell, list(CAMERAS))
    done = []
    for result in episodes(world, policy, range(options.seed, options.seed + options.episodes), options.where):
        done.append(result.done)
        print(result.seed, result.instruction, "->", "done" if result.done else "NOT DONE", result.outcome.name, result.message, flush=True)
        if options.tell or not result.done or result.outcome != Outcome.SUCCESS:
            print("\n".join(f"    {line}" for line in result.story), flush=True)
    print(f"success {sum(done)} of {len(done)}: {rate(done)}")


if __name__ == "__main__":
    main()
