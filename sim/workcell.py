"""The simulator as a `Workcell`: what it tells the planner is images, depth, calibration and joint states, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pcm_ros.sim.benchmark_tasks import Episode, Task, get_task
from pcm_ros.sim.cameras import render
from pcm_ros.sim.judge import Judge, Verdict
from pcm_ros.sim.robot import JOINT_NAMES, TIME_STEP
from pcm_ros.sim.world import Placement, World, WorldConfig
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, ExecutionResult, Observation, PickPlace, View, WorkcellLimits

_ATTEMPTS = 30
_OTHER_TABLE = 500_000  # added to the seed of a scene for that of the picture shown


class SimWorkcell:
    """A table, objects, cameras and a Panda in PyBullet.

    Args:
        task: what `reset` sets up: the name of a registered task, or a Task.
        config: cameras, how much varies, speeds.
        seed: reset to this at once; None: call `reset` before use.

    Attributes:
        world: the physics and its truth, for judges, training, recording and tests; a planner that reads it cheats.
        episode: what the last reset set up.
    """

    def __init__(self, task: str | Task = "demo", config: WorldConfig | None = None, seed: int | None = None) -> None:
        self.world = World(config)
        self._task = get_task(task) if isinstance(task, str) else task
        self._episode: Episode | None = None
        self._picture: View | None = None
        self._past_steps = 0  # of worlds before the last reset: time never runs backwards
        if seed is not None:
            self.reset(seed)

    @property
    def limits(self) -> WorkcellLimits:
        return self.world.config.limits

    @property
    def episode(self) -> Episode:
        """Raises RuntimeError before the first reset."""
        if self._episode is None:
            raise RuntimeError("the workcell is empty: call reset(seed) first")
        return self._episode

    def reset(self, seed: int, task: str | Task | None = None) -> Episode:
        """A new scene: objects, instruction, table, lights, cameras. The same seed and task give the same bits.

        Args:
            seed: 0 or greater.
            task: as in the constructor; None keeps the present one.

        Returns:
            The episode: instruction and relations (and where objects stood before they settled, which is truth).

        Raises:
            ValueError: a negative seed or an unknown task.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or greater")
        if task is not None:
            self._task = get_task(task) if isinstance(task, str) else task
        if self._episode is not None:
            self._past_steps += self.world.robot.steps
        self._episode = self._picture = None  # whatever is on the table until a scene is sound belongs to no episode
        for attempt in range(_ATTEMPTS):
            episode = self._task.sample(np.random.default_rng([seed, attempt]), self.limits)
            self._picture = self._taken(episode, seed) if episode.shown else None
            if episode.shown and self._picture is None:
                continue
            self.world.reset(episode.placements, seed)
            if self._sound(episode):
                self._episode = episode
                return episode
        raise RuntimeError(f"task '{self._task.name}', seed {seed}: no scene came to rest as it was planned in {_ATTEMPTS} attempts")

    def _sound(self, episode: Episode) -> bool:
        """Objects stand where they were put, and the goal is not yet reached."""
        if not self._stands(episode.placements):
            return False
        judge = Judge(self.world)
        return not episode.relations or not all(judge.relation(relation) for relation in episode.relations)

    def _stands(self, placements: Sequence[Placement]) -> bool:
        for body, placement in zip(self.world.bodies(), placements, strict=True):
            moved = float(np.linalg.norm(body.position[:2] - placement.xy))
            toppled = body.spec.kind != "toy" and body.up[2] < 0.95
            if moved > 0.03 or toppled or body.speed > 0.01:
                return False
        return True

    def _taken(self, episode: Episode, seed: int) -> View | None:
        """The picture of the scene that is shown, on another table in other light; None: it does not show what is asked for."""
        self.world.reset(episode.shown, seed + _OTHER_TABLE)
        names = {present: name for name, present in episode.pictured.items()}
        judge = Judge(self.world)
        shown = [
            Relation(r.kind, names.get(r.subject, r.subject), tuple(names.get(phrase, phrase) for phrase in r.references))
            for r in episode.relations
        ]
        if not self._stands(episode.shown) or not all(judge.relation(relation) for relation in shown):
            return None
        pictures = [render(self.world.client, camera, self.world.light) for camera in self.world.cameras]
        numbers = [body.number for body in self.world.bodies()]
        # Who takes a picture to show how things stand stands where all can be seen.
        return max(pictures, key=lambda picture: min(int((picture[1] == number).sum()) for number in numbers))[0]

    @property
    def picture(self) -> View | None:
        """The picture that the goal of the episode is taken from; None: it is given in words."""
        return self._picture

    @property
    def stamp_ns(self) -> int:
        """Simulated nanoseconds since this workcell was made."""
        steps = self._past_steps + (self.world.robot.steps if self.world.client >= 0 else 0)
        return round(steps * TIME_STEP * 1e9)

    def observe(self) -> Observation:
        """Images of all cameras. An arm that a cancelled motion left over the table first puts down what it holds and goes home."""
        self.world.robot.clear()
        stamp = self.stamp_ns
        views = tuple(render(self.world.client, camera, self.world.light, stamp)[0] for camera in self.world.cameras)
        return Observation(views, JOINT_NAMES, self.world.robot.joint_positions)

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """Carry out one pick and place with the arm; see `Workcell.execute`. Returns when the objects have come to rest."""
        result = self.world.robot.execute(action, should_stop)
        if result.code != ExecutionCode.CANCELED:
            self.world.settle()
        return result

    def judge(self, relation: Relation) -> Verdict:
        """Whether a relation holds, from truth: for benchmarks only."""
        self.world.settle()
        return Judge(self.world).relation(relation)

    def judge_all(self) -> Verdict:
        """Whether all relations of the episode hold; the reason names the first that does not."""
        self.world.settle()
        judge = Judge(self.world)
        for relation in self.episode.relations:
            verdict = judge.relation(relation)
            if not verdict:
                return verdict
        return Verdict(bool(self.episode.relations), "" if self.episode.relations else "the episode has no relations to judge")

    def close(self) -> None:
        """Free the physics client."""
        self.world.close()
