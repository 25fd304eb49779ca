"""The cell's driver in another process, behind the interface that the policy knows: images by topics, motions by an action.

Its methods wait for answers: see `waiting.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
from action_msgs.msg import GoalStatus
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from pcm_ros import msg
from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes import conversions
from pcm_ros.nodes.discovery import ActionClientWhileSpinning, SentGoal, greeting
from pcm_ros.nodes.views import LATCHED, OBSERVATION_TOPIC, SCENE_CHANGED_TOPIC, ViewBuffer
from pcm_ros.nodes.waiting import POLL, RemoteError, Stopped, wait
from pcm_ros.tasks.manipulation.workcell import (
    ExecutionCode,
    ExecutionResult,
    InvalidObservation,
    Observation,
    PickPlace,
    WorkcellLimits,
)

_GOAL_ANSWER = 20.0  # seconds that a driver may take to accept or reject a motion
SAFE_END = 30.0
"""Seconds that a motion may take to end after it was cancelled."""
MAY_MOVE = "the arm is not known to have stopped: look at it before anything else"


class RosWorkcell:
    """A cell behind ROS topics and an action, simulated or real, as a `Workcell`.

    Args:
        node: whose executor brings the answers.
        cameras: the cameras that should deliver.
        view_timeout: seconds to wait for new images after a motion; the cameras that did not deliver by then are reported as missing.
        view_age: seconds; a first observation takes no images that are older.
        motion_timeout: seconds for one pick and place.
    """

    def __init__(
        self,
        node: Node,
        cameras: Sequence[str],
        view_timeout: float,
        view_age: float,
        motion_timeout: float,
        group: CallbackGroup,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._node, self._should_stop = node, should_stop
        self._view_timeout, self._view_age, self._motion_timeout = view_timeout, view_age, motion_timeout
        self.views = ViewBuffer(node, cameras, source=True, on_restart=self._forget_times)
        self.reasons: dict[str, str] = {}
        self._limits: WorkcellLimits | None = None
        self._limits_known = threading.Event()
        self._joints = JointState()
        self._not_before_ns = self._changed_ns = 0
        self._subscriptions = (
            node.create_subscription(msg.WorkcellLimits, "workcell/limits", self._receive_limits, LATCHED, callback_group=group),
            node.create_subscription(JointState, "joint_states", self._receive_joints, 10, callback_group=group),
            node.create_subscription(Header, SCENE_CHANGED_TOPIC, self._receive_change, LATCHED, callback_group=group),
        )
        self._taken = node.create_publisher(msg.ObservationTaken, OBSERVATION_TOPIC, LATCHED)
        self._client = ActionClientWhileSpinning(node, ExecutePickPlace, "workcell/execute", callback_group=group)

    def _forget_times(self) -> None:
        self._not_before_ns = self._changed_ns = 0

    def _receive_limits(self, message: msg.WorkcellLimits) -> None:
        try:
            self._limits = conversions.limits_from_message(message)
            self._limits_known.set()
        except conversions.InvalidMessage as error:
            self._node.get_logger().error(f"topic 'workcell/limits': {error}")

    def _receive_change(self, message: Header) -> None:
        self._changed_ns = max(self._changed_ns, conversions.nanoseconds_of(message.stamp))

    def _receive_joints(self, message: JointState) -> None:
        self._joints = message

    @property
    def limits(self) -> WorkcellLimits:
        """What the cell's driver has published. Raises InvalidObservation if it has not within the view timeout."""
        deadline = time.monotonic() + self._view_timeout
        while not self._limits_known.wait(POLL):
            if self._should_stop():
                raise Stopped("stopped while waiting for the limits of the workcell")
            if time.monotonic() > deadline:
                raise InvalidObservation(
                    f"nothing arrived on topic 'workcell/limits' within {self._view_timeout:g} s; is the cell's driver active?"
                )
        assert self._limits is not None
        return self._limits

    def forget_older_views(self) -> None:
        """Observe with images that are taken from now on."""
        self._not_before_ns = self._node.get_clock().now().nanoseconds

    def observe(self) -> Observation:
        """Images after the last motion. Cameras without a usable view are `missing`, and `reasons` says why.

        Raises:
            InvalidObservation: no camera delivered a usable view.
        """
        not_before = max(self._not_before_ns, self._changed_ns, self._node.get_clock().now().nanoseconds - int(self._view_age * 1e9))
        views, self.reasons = self.views.since(not_before, self._view_timeout, self._should_stop)
        for camera, reason in self.reasons.items():
            self._node.get_logger().warning(f"camera '{camera}' is left out: {reason}")
        if not views:
            if self._should_stop():
                raise Stopped("stopped while waiting for images")
            raise InvalidObservation("no camera delivered a usable view: " + "; ".join(self.reasons.values()))
        stamps = [conversions.time_message(view.stamp_ns) for view in views]
        self._taken.publish(msg.ObservationTaken(header=conversions.header(not_before), views=[view.name for view in views], stamps=stamps))
        joints = self._joints
        return Observation(views, tuple(joints.name), np.array(joints.position, dtype=np.float64), tuple(self.reasons))

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """Send the action and wait for its end; when asked to stop, cancel it and wait for the safe end.

        The code is CANCELED only where the driver says so, or nothing was sent; ERROR with a message that says so where the arm is not
        known to have stopped.
        """
        what = "action 'workcell/execute'"
        if not self._client.wait_for_server(2.0):
            return ExecutionResult(ExecutionCode.ERROR, f"{what} is not there: is the cell's driver active?")
        alive = self._client.server_is_ready

        def stopped() -> bool:
            return should_stop() or self._should_stop()

        try:
            known = greeting(self._client, ExecutePickPlace)
            try:
                wait(known.answer, _GOAL_ANSWER, what, alive, stopped, meanwhile=known.poll)
                if stopped():
                    raise Stopped
            except Stopped:
                return ExecutionResult(ExecutionCode.CANCELED, "stopped before the motion was sent")
            sent = SentGoal(self._client, ExecutePickPlace, ExecutePickPlace.Goal(action=conversions.pick_place_message(action)))
            try:
                handle = wait(sent.answer, _GOAL_ANSWER, what, alive)
            except RemoteError as error:
                sent.withdraw()
                return ExecutionResult(ExecutionCode.ERROR, f"{error}; {MAY_MOVE}")
            if not handle.accepted:
                return ExecutionResult(ExecutionCode.ERROR, f"{what} rejected the motion: the cell is busy or not active")
            ending = handle.get_result_async()
            try:
                ended = wait(ending, self._motion_timeout, what, alive, stopped)
            except (Stopped, RemoteError) as error:
                handle.cancel_goal_async()
                try:
                    ended = wait(ending, SAFE_END, what, alive)
                except RemoteError as silence:
                    return ExecutionResult(ExecutionCode.ERROR, f"the motion was cancelled, but {silence}; {MAY_MOVE}")
                if isinstance(error, RemoteError):
                    return ExecutionResult(ExecutionCode.TIMEOUT, str(error))
        except RemoteError as error:
            return ExecutionResult(ExecutionCode.ERROR, str(error))
        finally:  # images of before or during the motion must not be taken for what it led to
            self._not_before_ns = max(self._not_before_ns, self._node.get_clock().now().nanoseconds)
        self._not_before_ns = conversions.nanoseconds_of(ended.result.stamp) or self._not_before_ns
        return execution_result(ended.status, ended.result)

    def close(self) -> None:
        self.views.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._taken)
        self._client.destroy()


def execution_result(status: int, result: ExecutePickPlace.Result) -> ExecutionResult:
    """What a driver says of a motion. One that fails itself sends a result that nobody filled in: its code says OK, its status does not."""
    what = "action 'workcell/execute'"
    if result.error_code not in set(ExecutionCode):
        return ExecutionResult(ExecutionCode.ERROR, f"{what} ended with the unknown error_code {result.error_code}: {result.error_msg}")
    if result.error_code == ExecutionCode.OK and status != GoalStatus.STATUS_SUCCEEDED:
        return ExecutionResult(ExecutionCode.ERROR, f"{what} ended with status {status} and without a result: see the driver's log")
    return ExecutionResult(ExecutionCode(result.error_code), result.error_msg)
