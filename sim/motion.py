"""Plans the arm's motion for a pick and place by kinematics alone: straight tool paths, speed limits, one posture branch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcm_ros.sim.kinematics import JOINT_MAX, JOINT_MIN, JOINT_SPEED, REST, ToolPose, inverse
from pcm_ros.tasks.manipulation.workcell import Array, ExecutionCode, ExecutionResult, Gripper, PickPlace

PANDA_GRIPPER = Gripper(
    kind="parallel", max_opening=0.08, finger_thickness=0.0145, finger_width=0.021, finger_length=0.046, palm_size=(0.205, 0.064)
)

HOME = np.array([0.0, -1.35, 0.0, -2.75, 0.0, 1.75, 0.785])
"""Observation posture: the arm folded back over its base, out of the cameras' view of the workspace."""


@dataclass(frozen=True)
class MotionConfig:
    """How the arm moves.

    Attributes:
        speed: share of the arm's joint speed limits, 0..1.
        tool_speed: metres per second. turn_speed: of the tool, radians per second.
        clearances: metres that objects are carried above the higher of pick and place; the first that is reachable is taken.
        grip_force: newtons of each finger. closing_speed: metres per second of each finger.
        least_width: metres; a gripper that closes further than this holds nothing.
        release: metres that each finger opens to let go.
        obstructed: metres the tool may lag behind its path before the arm counts as blocked.
        detailed_look: draw the arm with its full meshes; they triple the time of rendering a view.
    """

    speed: float = 0.75
    tool_speed: float = 0.45
    turn_speed: float = 2.5
    clearances: tuple[float, ...] = (0.18, 0.14, 0.10)
    grip_force: float = 25.0
    closing_speed: float = 0.06
    least_width: float = 0.002
    release: float = 0.007
    obstructed: float = 0.012
    detailed_look: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 1:
            raise ValueError(f"speed is {self.speed}; allowed: above 0, at most 1 (share of the joint speed limits)")
        if not self.clearances or min(self.clearances) <= 0:
            raise ValueError(f"clearances are {self.clearances}; at least one positive height in metres is needed")


@dataclass(frozen=True)
class Trajectory:
    """Joint waypoints (K, 7) and the seconds (K,) at which a motion at the speed limits would pass them."""

    joints: Array
    times: Array


@dataclass(frozen=True)
class Plan:
    """All paths of one pick and place, known to be reachable before anything moves."""

    approach: Trajectory
    descend: Trajectory
    lift: Trajectory
    carry: Trajectory
    lower: Trajectory
    retreat: Trajectory
    go_home: Trajectory


class MotionPlanner:
    """Finds reachable trajectories for the Panda with its base at the origin.

    Args:
        config: speeds and heights.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._config = config

    def plan(self, action: PickPlace) -> Plan | ExecutionResult:
        """Paths for the action from the observation posture, or the UNREACHABLE result that says which pose has no solution."""
        if action.pick_width > PANDA_GRIPPER.max_opening + 1e-3 or action.pick_width < 0:
            return ExecutionResult(
                ExecutionCode.UNREACHABLE, f"pick_width {action.pick_width:.3f} m; the gripper opens 0 to {PANDA_GRIPPER.max_opening:.3f} m"
            )
        turn = (action.place_yaw - action.pick_yaw + np.pi) % (2 * np.pi) - np.pi
        failure = ""
        for clearance in self._config.clearances:
            height = max(action.pick_position[2], action.place_position[2]) + clearance
            # The gripper is symmetric under half a turn, and the object may be turned either way round.
            for turned in sorted((turn, turn - 2 * np.pi, turn + 2 * np.pi), key=abs):
                for flip in (0.0, np.pi):
                    plan = self._plan(action, height, action.pick_yaw + flip, action.pick_yaw + flip + turned)
                    if isinstance(plan, Plan):
                        return plan
                    failure = failure or plan
        return ExecutionResult(ExecutionCode.UNREACHABLE, failure)

    def _plan(self, action: PickPlace, height: float, pick_yaw: float, place_yaw: float) -> Plan | str:
        pick, place = np.asarray(action.pick_position, dtype=np.float64), np.asarray(action.place_position, dtype=np.float64)
        above_pick, above_place = np.array([pick[0], pick[1], height]), np.array([place[0], place[1], height])
        seed = inverse(ToolPose(above_pick, pick_yaw), _seed_towards(above_pick))
        if seed is None:
            return f"no arm posture reaches the pick at x {pick[0]:.3f}, y {pick[1]:.3f}, z {height:.3f} m, yaw {pick_yaw:.2f} rad"
        descend = self.straight(seed, ToolPose(above_pick, pick_yaw), ToolPose(pick, pick_yaw))
        if descend is None:
            return f"no arm posture reaches the pick at {np.round(pick, 3).tolist()} m, yaw {pick_yaw:.2f} rad"
        carry = self.straight(seed, ToolPose(above_pick, pick_yaw), ToolPose(above_place, place_yaw))
        if carry is None:
            way = f"from {np.round(above_pick, 3).tolist()} to {np.round(above_place, 3).tolist()} m"
            return f"the arm cannot carry {way}, turning by {place_yaw - pick_yaw:.2f} rad"
        lower = self.straight(carry.joints[-1], ToolPose(above_place, place_yaw), ToolPose(place, place_yaw))
        if lower is None:
            return f"no arm posture reaches the place at {np.round(place, 3).tolist()} m, yaw {place_yaw:.2f} rad"
        return Plan(
            approach=self.joint_path(HOME, seed),
            descend=descend,
            lift=_reversed(descend),
            carry=carry,
            lower=lower,
            retreat=_reversed(lower),
            go_home=self.joint_path(carry.joints[-1], HOME),
        )

    def straight(self, seed: Array, start: ToolPose, end: ToolPose) -> Trajectory | None:
        """A path on which the tool moves in a straight line and turns evenly, or None where the arm cannot follow."""
        distance, turn = float(np.linalg.norm(end.position - start.position)), abs(end.yaw - start.yaw)
        pieces = max(2, int(np.ceil(max(distance / 0.03, turn / 0.2))))
        joints = [seed]
        for share in np.linspace(0, 1, pieces + 1)[1:]:
            pose = ToolPose(start.position + share * (end.position - start.position), start.yaw + share * (end.yaw - start.yaw))
            found = inverse(pose, joints[-1])
            if found is None or np.abs(found - joints[-1]).max() > 0.6:
                return None
            joints.append(found)
        seconds = max(distance / self._config.tool_speed, turn / self._config.turn_speed) / pieces
        return self._timed(np.array(joints), seconds)

    def joint_path(self, start: Array, end: Array) -> Trajectory:
        """From one posture (7,) to another, all joints moving evenly."""
        return self._timed(np.linspace(start, end, 5), 0.0)

    def _timed(self, joints: Array, least: float) -> Trajectory:
        needed = (np.abs(np.diff(joints, axis=0)) / (JOINT_SPEED * self._config.speed)).max(axis=1)
        return Trajectory(joints, np.concatenate([[0.0], np.cumsum(np.maximum(needed, max(least, 1e-6)))]))


def _seed_towards(position: Array) -> Array:
    """A posture that faces a tool position: the inverse kinematics then finds the elbow-up branch everywhere."""
    seed = REST.copy()
    seed[0] = np.arctan2(position[1], position[0])
    return np.clip(seed, JOINT_MIN, JOINT_MAX)


def _reversed(path: Trajectory) -> Trajectory:
    return Trajectory(path.joints[::-1].copy(), (path.times[-1] - path.times)[::-1].copy())
