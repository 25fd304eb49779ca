"""Somebody who interferes: a workcell around the simulator's, in which objects are moved and grasps slip. The planner is not told."""

from __future__ import annotations

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

LIFTED = 0.012  # metres above where it stood at which a slipping object begins to slip
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
        self._happened = ""

    @property
    def limits(self) -> WorkcellLimits:
        return self._workcell.limits

    @property
    def happened(self) -> str:
        """What was done in this episode ("red mug moved by 0.21 m after action 1"); "" as long as nothing was."""
        return self._happened if self._episode is self._workcell.episode else ""

    def observe(self) -> Observation:
        """See `Workcell`."""
        return self._workcell.observe()

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """See `Workcell`. The disturbance happens in or after the action whose turn it is."""
        if self._episode is not self._workcell.episode:
            self._episode, self._actions, self._happened = self._workcell.episode, 0, ""
        self._actions += 1
        planned = self._episode.disturbance
        due = planned is not None and not self._happened and self._actions >= planned.after
        if planned is not None and due and planned.kind == "slip":
            return self._execute_and_lose(action, should_stop)
        result = self._workcell.execute(action, should_stop)
        # An action that failed has brought nothing about that could be spoilt: the disturbance waits for one that did not.
        if planned is not None and due and result.ok:
            self._happened = self._move(planned)
        return result

    # A grasp that slips

    def _execute_and_lose(self, action: PickPlace, should_stop: Callable[[], bool]) -> ExecutionResult:
        """Carry out an action; what it lifts loses its friction until it has left the fingers."""
        world = self._workcell.world
        client, robot = world.client, world.robot
        heights = {body.number: float(body.low[2]) for body in world.bodies()}
        slipping: dict[int, float] = {}
        before, interval = robot.on_step, robot.on_step_interval

        def watch() -> None:
            if before is not None and robot.steps % interval == 0:
                before()
            if not slipping and not self._happened:
                for body in world.bodies():
                    touched = pybullet.getContactPoints(robot.body, body.number, physicsClientId=client)
                    if touched and body.low[2] > heights[body.number] + LIFTED:
                        slipping[body.number] = pybullet.getDynamicsInfo(body.number, -1, physicsClientId=client)[1]
                        pybullet.changeDynamics(body.number, -1, lateralFriction=0.0, physicsClientId=client)
                        self._happened = f"{body.spec.phrase} slipped in action {self._actions}"
            for number, friction in list(slipping.items()):
                if not pybullet.getContactPoints(robot.body, number, physicsClientId=client):
                    pybullet.changeDynamics(number, -1, lateralFriction=friction, physicsClientId=client)
                    del slipping[number]

        robot.on_step, robot.on_step_interval = watch, _CHECK_EVERY if before is None else np.gcd(interval, _CHECK_EVERY).item()
        try:
            return self._workcell.execute(action, should_stop)
        finally:
            robot.on_step, robot.on_step_interval = before, interval
            for number, friction in slipping.items():
                pybullet.changeDynamics(number, -1, lateralFriction=friction, physicsClientId=client)

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
        return f"{body.spec.phrase} moved by {distance:.2f} m after action {self._actions}"

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
        for _ in range(300):
            xy = rng.uniform(low, high)
            if not within_reach(xy, limits, body.spec.radius + 0.01) or not clear_of(xy, body.spec.radius + 0.035, others):
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
