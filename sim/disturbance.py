"""Somebody who interferes: a workcell around the simulator's, in which objects are moved and grasps slip. The planner is not told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pybullet

from pcm_ros.sim.episodes import Disturbance, Episode
from pcm_ros.sim.feasibility import achievable_spots, direction, find, stands
from pcm_ros.sim.objects import origin_height
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import Body, Placement, clear_of, within_reach
from pcm_ros.tasks.manipulation.workcell import Array, ExecutionResult, Observation, PickPlace, WorkcellLimits

LIFTED = (0.012, 0.04)  # metres above where it stood at which an object slips, least and most
_CHECK_EVERY = 8  # simulation steps


class DisturbedWorkcell:
    """A `Workcell` that does to the scene what its episode's `disturbance` says, once; without one it changes nothing.

    Args:
        workcell: the simulator; its `reset` starts a new episode here too.
    """

    def __init__(self, workcell: SimWorkcell) -> None:
        self._workcell = workcell
        self._episode: Episode | None = None
        self._actions = 0
        self._happened = self._whom = ""

    @property
    def limits(self) -> WorkcellLimits:
        return self._workcell.limits

    @property
    def happened(self) -> str:
        """What was done in this episode ("red mug moved by 0.21 m after action 1"); "" as long as nothing was."""
        return self._happened if self._episode is self._workcell.episode else ""

    @property
    def disturbed(self) -> str:
        """Phrase of the object that it was done to; "" as long as nothing was done."""
        return self._whom if self.happened else ""

    def observe(self) -> Observation:
        """See `Workcell`."""
        return self._workcell.observe()

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """See `Workcell`. The disturbance happens in or after the action whose turn it is."""
        if self._episode is not self._workcell.episode:
            self._episode, self._actions, self._happened, self._whom = self._workcell.episode, 0, "", ""
        self._actions += 1
        planned = self._episode.disturbance
        due = planned is not None and not self._happened and self._actions >= planned.after
        if planned is not None and due and planned.kind == "slip":
            return self._execute_and_lose(action, planned, should_stop)
        result = self._workcell.execute(action, should_stop)
        # An action that failed has brought nothing about that could be spoilt: the disturbance waits for one that did not.
        if planned is not None and due and result.ok:
            self._happened = self._move(planned)
        return result

    # A grasp that slips

    def _execute_and_lose(self, action: PickPlace, planned: Disturbance, should_stop: Callable[[], bool]) -> ExecutionResult:
        """Carry out an action; what it lifts falls through the fingers, a few centimetres up.

        Without friction the fingers would hold it all the same (the Panda's description gives them friction anchors), so contacts between
        hand and object are switched off until the arm is back.
        """
        world = self._workcell.world
        client, robot = world.client, world.robot
        heights = {body.number: float(body.low[2]) for body in world.bodies()}
        lifted = float(np.random.default_rng(planned.seed).uniform(*LIFTED))
        lost: list[int] = []
        before, interval = robot.on_step, robot.on_step_interval

        def watch() -> None:
            if before is not None and robot.steps % interval == 0:
                before()
            for body in () if lost else world.bodies():
                touched = pybullet.getContactPoints(robot.body, body.number, physicsClientId=client)
                if touched and body.low[2] > heights[body.number] + lifted:
                    lost.append(body.number)
                    self._let_through(body.number, True)
                    self._whom = body.spec.phrase
                    self._happened = f"{self._whom} slipped in action {self._actions}"

        robot.on_step, robot.on_step_interval = watch, _CHECK_EVERY if before is None else math.gcd(interval, _CHECK_EVERY)
        try:
            return self._workcell.execute(action, should_stop)
        finally:
            robot.on_step, robot.on_step_interval = before, interval
            for number in lost:
                self._let_through(number, False)

    def _let_through(self, number: int, through: bool) -> None:
        """Whether a body passes through the arm."""
        client, arm = self._workcell.world.client, self._workcell.world.robot.body
        for link in range(-1, pybullet.getNumJoints(arm, physicsClientId=client)):
            pybullet.setCollisionFilterPair(arm, number, link, -1, 0 if through else 1, physicsClientId=client)

    # An object that somebody moves

    def _move(self, planned: Disturbance) -> str:
        """Put the object, or what stands on it, where a relation with it does not hold; "" if there is no such place."""
        world = self._workcell.world
        bodies = {body.spec.phrase: body for body in world.bodies()}
        body = _topmost(bodies[planned.phrase], list(bodies.values()))
        spot = self._free_spot(body, list(bodies.values()), np.random.default_rng(planned.seed))
        if spot is None:
            return ""
        forward = np.array(pybullet.getMatrixFromQuaternion(body.orientation)).reshape(3, 3)[:, 0]
        turn = pybullet.getQuaternionFromEuler([0.0, 0.0, float(np.arctan2(forward[1], forward[0]))])
        height = world.table_height + origin_height(body.spec) + 0.001
        pybullet.resetBasePositionAndOrientation(body.number, [*spot, height], turn, physicsClientId=world.client)
        pybullet.resetBaseVelocity(body.number, [0, 0, 0], [0, 0, 0], physicsClientId=world.client)
        world.settle()
        distance = float(np.linalg.norm(np.asarray(spot) - body.position[:2]))
        self._whom = body.spec.phrase
        return f"{self._whom} moved by {distance:.2f} m after action {self._actions}"

    def _free_spot(self, body: Body, bodies: list[Body], rng: np.random.Generator) -> Array | None:
        """A place (2,) within reach, clear of everything, from which the relations can still be brought about but one of them is false."""
        limits, episode = self.limits, self._workcell.episode
        placements = [Placement(other.spec, (float(other.position[0]), float(other.position[1]))) for other in bodies]
        number = find(placements, body.spec.phrase)
        others = [*placements[:number], *placements[number + 1 :]]
        concerned = [r for r in episode.relations if body.spec.phrase in r.phrases]
        low, high = (
            np.add(limits.workspace_min[:2], body.spec.radius + 0.02),
            np.subtract(limits.workspace_max[:2], body.spec.radius + 0.02),
        )
        fallback = None
        for trial in range(600):
            gap = 0.035 if trial < 300 else 0.012  # on a full table somebody is less careful
            xy = rng.uniform(low, high)
            if not within_reach(xy, limits, body.spec.radius + 0.01) or not clear_of(xy, body.spec.radius + gap, others):
                continue
            if np.linalg.norm(xy - body.position[:2]) < 0.08:
                continue
            after = [*placements]
            after[number] = replace(after[number], xy=(float(xy[0]), float(xy[1])))
            if concerned and all(stands(after, r, limits) for r in concerned):
                continue
            fallback = xy if fallback is None else fallback
            if all(direction(r.kind, limits) is None or achievable_spots(after, r, limits=limits) for r in concerned):
                return xy
        return fallback


def _topmost(body: Body, bodies: list[Body]) -> Body:
    """The object itself, or what stands on or in it."""
    for other in bodies:
        near = np.linalg.norm(other.position[:2] - body.position[:2]) < max(body.spec.radius, 0.02)
        if other is not body and near and other.low[2] > body.low[2] + 0.004:
            return _topmost(other, [b for b in bodies if b is not body])
    return body
