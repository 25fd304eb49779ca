"""A Franka Panda with its two-finger gripper: position-controlled joints, driven along a plan that is complete before it moves.

Objects are held by friction between the fingers alone. Every motion is bounded in simulation steps, never in wall-clock time.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pybullet

from pcm_ros.sim.kinematics import ToolPose, forward
from pcm_ros.sim.motion import HOME, PANDA_GRIPPER, MotionConfig, MotionPlanner, Plan, Trajectory
from pcm_ros.sim.objects import data_path
from pcm_ros.tasks.manipulation.workcell import Array, ExecutionCode, ExecutionResult, PickPlace

TIME_STEP = 1 / 240
"""Seconds of one simulation step."""

JOINT_NAMES = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1", "panda_finger_joint2")

_ARM = list(range(7))
_FINGERS = [9, 10]
_POLL_STEPS = 20
_EASED_FORCE = 0.3
"""Newtons of a finger that shall press against nothing: by friction two of them hold 0.6 N, and a bowl weighs 1.8 N."""


class _Stopped(Exception):
    """should_stop() said so."""


class _Blocked(Exception):
    """The arm does not follow its path."""


class Panda:
    """The arm in a PyBullet world, its base at the origin.

    Args:
        client: PyBullet physics client.
        config: speeds, forces and heights.

    Attributes:
        on_step: called after every `on_step_interval` simulation steps (video recording); None: nothing is called.
    """

    def __init__(self, client: int, config: MotionConfig | None = None) -> None:
        self._client = client
        self._config = config or MotionConfig()
        self._planner = MotionPlanner(self._config)
        self.on_step: Callable[[], None] | None = None
        self.on_step_interval = 8
        self.steps = 0
        self.body = _load(client, self._config.detailed_look)
        for finger in _FINGERS:
            pybullet.changeDynamics(
                self.body,
                finger,
                lateralFriction=1.1,
                spinningFriction=0.02,
                rollingFriction=0.001,
                frictionAnchor=1,
                physicsClientId=client,
            )
        # The fingers of the real gripper are coupled by a gear; without it the lighter-loaded one pushes the object aside.
        gear = pybullet.createConstraint(
            self.body, 9, self.body, 10, pybullet.JOINT_GEAR, [1, 0, 0], [0, 0, 0], [0, 0, 0], physicsClientId=client
        )
        pybullet.changeConstraint(gear, gearRatio=-1, erp=0.2, maxForce=60, physicsClientId=client)
        self._target = HOME.copy()
        self._opening = PANDA_GRIPPER.max_opening
        self._closing = False
        self._eased = False
        self.reset()

    def reset(self) -> None:
        """Put the arm into the observation posture with an open gripper, at rest."""
        for joint, angle in zip(_ARM, HOME, strict=True):
            pybullet.resetJointState(self.body, joint, angle, physicsClientId=self._client)
        for finger in _FINGERS:
            pybullet.resetJointState(self.body, finger, PANDA_GRIPPER.max_opening / 2, physicsClientId=self._client)
        self._target, self._opening, self._closing, self._eased = HOME.copy(), PANDA_GRIPPER.max_opening, False, False
        self.hold()

    # ------------------------------------------------------------------------------------------------------------------- what it feels

    @property
    def joint_positions(self) -> Array:
        """(9,) arm angles in radians, then finger positions in metres."""
        states = pybullet.getJointStates(self.body, _ARM + _FINGERS, physicsClientId=self._client)
        return np.array([state[0] for state in states])

    @property
    def width(self) -> float:
        """Metres between the fingers."""
        return float(self.joint_positions[7:].sum())

    @property
    def at_home(self) -> bool:
        """Whether the arm is in the observation posture and holds nothing."""
        return bool(np.abs(self.joint_positions[:7] - HOME).max() < 0.02) and not self._closing

    @property
    def tool_position(self) -> Array:
        """(3,) world metres of the tool point."""
        return forward(self.joint_positions[:7])[0]

    # -------------------------------------------------------------------------------------------------------------------------- moving

    def hold(self) -> None:
        """Command the present targets (they stay in force until the next command)."""
        self._command(self._target, np.zeros(7))

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """One pick and place from the observation posture and back to it. See `Workcell.execute`."""
        self.clear()
        plan = self._planner.plan(action)
        if isinstance(plan, ExecutionResult):
            return plan
        try:
            return self._carry_out(plan, min(action.pick_width, PANDA_GRIPPER.max_opening), should_stop)
        except _Stopped:
            self._rise()
            held = "holding the object" if self._closing else "holding nothing"
            return ExecutionResult(ExecutionCode.CANCELED, f"stopped on request; arm lifted, {held}")
        except _Blocked as blocked:
            self.clear()
            return ExecutionResult(ExecutionCode.COLLISION, str(blocked))

    def _carry_out(self, plan: Plan, width: float, should_stop: Callable[[], bool]) -> ExecutionResult:
        self._opening = width
        self._follow(plan.approach, should_stop)
        self._follow(plan.descend, should_stop, watch="on the way down to the pick")
        self._close(should_stop)
        self._follow(plan.lift, should_stop)
        if not self._grasped:
            return self._give_up(plan.carry.joints[0], f"the gripper closed to {1000 * self.width:.1f} mm: nothing was grasped")
        self._follow(plan.carry, should_stop)
        if not self._grasped:
            return self._give_up(plan.carry.joints[-1], "the object was lost on the way")
        stuck = self._lower(plan.lower, should_stop)
        # Past this point stopping would leave the object half released, so the release is finished first.
        self._release()
        self._follow(plan.retreat if stuck is None else self._planner.joint_path(self._target, plan.lower.joints[0]), lambda: False)
        self._follow(plan.go_home, lambda: False)
        self._opening = PANDA_GRIPPER.max_opening
        self._settle_home()
        if stuck is not None and stuck > 0.03:
            where = f"{1000 * stuck:.0f} mm above the place"
            return ExecutionResult(ExecutionCode.COLLISION, f"something was in the way {where}; the object was released there")
        return ExecutionResult(ExecutionCode.OK)

    @property
    def _grasped(self) -> bool:
        return self.width > self._config.least_width

    def _give_up(self, joints: Array, message: str) -> ExecutionResult:
        self._release()
        self._follow(self._planner.joint_path(joints, HOME), lambda: False)
        self._opening = PANDA_GRIPPER.max_opening
        self._settle_home()
        return ExecutionResult(ExecutionCode.GRASP_FAILED, message)

    def clear(self) -> None:
        """Bring an arm that was stopped or blocked back to the observation posture, putting down straight below what it holds."""
        if self.at_home:
            return
        if self._closing:
            if self._grasped:
                self._put_down()
            self._release()
        self._rise()
        self._follow(self._planner.joint_path(self._target, HOME), lambda: False)
        self._opening = PANDA_GRIPPER.max_opening
        self._settle_home()

    def _put_down(self) -> None:
        """Lower the tool until something resists."""
        position, rotation = forward(self._target)
        start = ToolPose(position, float(np.arctan2(rotation[1, 1], rotation[0, 1])))
        for depth in (0.3, 0.2, 0.1):
            path = self._planner.straight(self._target, start, ToolPose(position - [0, 0, depth], start.yaw))
            if path is not None:
                self._lower(Trajectory(path.joints, path.times * 2), lambda: False)
                return

    def _rise(self) -> None:
        """Lift the tool straight up to a safe height, as far as the arm can reach."""
        position, rotation = forward(self._target)
        start = ToolPose(position, float(np.arctan2(rotation[1, 1], rotation[0, 1])))
        if abs(rotation[2, 2] + 1) > 0.02:  # on the way between home and the first pose the hand is tilted, and already high
            return
        for height in (0.30, 0.25, 0.20, 0.15):
            path = (
                self._planner.straight(self._target, start, ToolPose(np.array([*position[:2], height]), start.yaw))
                if height > position[2]
                else None
            )
            if path is not None:
                self._follow(path, lambda: False)
                return

    def _follow(self, path: Trajectory, should_stop: Callable[[], bool], watch: str = "") -> None:
        """Run along a path; raises _Stopped on request and _Blocked (only if `watch` says where) when the tool lags behind."""
        for joints in self._drive(path, should_stop, poll=5 if watch else _POLL_STEPS):
            if watch:
                lag = float(np.linalg.norm(forward(joints)[0] - self.tool_position))
                if lag > self._config.obstructed:
                    raise _Blocked(f"the arm met an obstacle {watch} (tool {1000 * lag:.0f} mm off its path)")
        self._run(8)

    def _lower(self, path: Trajectory, should_stop: Callable[[], bool]) -> float | None:
        """Run down a path until its end or until something resists; returns the metres that were left, None at the end."""
        for joints in self._drive(path, should_stop, poll=4):
            lag = float(self.tool_position[2] - forward(joints)[0][2])
            if lag > 0.004:
                self._target = self.joint_positions[:7]
                self.hold()
                self._run(10)
                return float(self.tool_position[2] - forward(path.joints[-1])[0][2])
        self._run(20)
        return None

    def _drive(self, path: Trajectory, should_stop: Callable[[], bool], poll: int = _POLL_STEPS) -> Iterator[Array]:
        """Step along a path with a smooth start and stop; yields the commanded joints every `poll` steps."""
        least = path.times[-1]
        steps = max(12, int(np.ceil(1.5 * least / TIME_STEP)))
        before = self._target
        for step in range(1, steps + 1):
            share = step / steps
            moment = (3 - 2 * share) * share * share * least  # smoothstep: its greatest speed is 1.5 times the mean
            joints = np.array([np.interp(moment, path.times, column) for column in path.joints.T])
            self._command(joints, (joints - before) / TIME_STEP)
            before = joints
            self._target = joints
            self.step()
            if step % poll == 0:
                if should_stop():
                    raise _Stopped
                yield joints
        self.hold()
        yield self._target

    def _close(self, should_stop: Callable[[], bool]) -> None:
        """Close until the width no longer changes (at most 1.5 s of simulated time)."""
        self._closing = True
        self.hold()
        before = self.width
        for _ in range(18):
            self._run(20)
            if should_stop():
                raise _Stopped
            width = self.width
            if abs(before - width) < 2e-4:
                break
            before = width

    def _release(self) -> None:
        """Open a little, then ease the drive: fingers that met the walls of a bowl on the way would lift it."""
        self._opening = min(PANDA_GRIPPER.max_opening, self.width + 2 * self._config.release)
        self._closing = False
        self.hold()
        self._run(60)
        self._eased = True
        self.hold()
        self._run(20)

    def _settle_home(self) -> None:
        self._target, self._eased = HOME.copy(), False
        self.hold()
        self._run(30)

    def _command(self, joints: Array, speeds: Array) -> None:
        pybullet.setJointMotorControlArray(
            self.body,
            _ARM,
            pybullet.POSITION_CONTROL,
            targetPositions=joints,
            targetVelocities=speeds,
            forces=_ARM_FORCES,
            positionGains=[0.25] * 7,
            velocityGains=[1.0] * 7,
            physicsClientId=self._client,
        )
        finger = 0.0 if self._closing else self._opening / 2
        force = _EASED_FORCE if self._eased else self._config.grip_force
        for joint in _FINGERS:
            pybullet.setJointMotorControl2(
                self.body,
                joint,
                pybullet.POSITION_CONTROL,
                targetPosition=finger,
                force=force,
                maxVelocity=self._config.closing_speed if self._closing else 0.15,
                physicsClientId=self._client,
            )

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """One simulation step of the whole world, with the arm holding its targets."""
        pybullet.stepSimulation(physicsClientId=self._client)
        self.steps += 1
        if self.on_step is not None and self.steps % self.on_step_interval == 0:
            self.on_step()


_ARM_FORCES = [87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]


def _load(client: int, detailed_look: bool) -> int:
    folder = data_path() / "franka_panda"
    urdf = (folder / "panda.urdf").read_text()
    if not detailed_look:  # the links' convex hulls instead of 100,000 triangles; hand and fingers stay as they are
        urdf = re.sub(r"meshes/visual/(link\d)\.obj", r"meshes/collision/\1.obj", urdf)
    urdf = urdf.replace("package://meshes", str(folder / "meshes"))
    with tempfile.TemporaryDirectory() as written:
        path = Path(written) / "panda.urdf"
        path.write_text(urdf)
        return int(pybullet.loadURDF(str(path), useFixedBase=True, physicsClientId=client))
