"""The simulated cell: cameras, arm, and for tests and benchmarks a judge that knows the truth.

Topics `workcell/views/<camera>`, `workcell/limits` (latched), `workcell/scene_changed` (latched: older views show another scene),
`joint_states`; action `workcell/execute`; services `~/reset`, `~/judge`. A
real cell offers the topics and the action, and everything else works on it unchanged.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
from rclpy.action import GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from pcm_ros import msg, srv
from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes import conversions
from pcm_ros.nodes.lifecycle import INACTIVE, ConfigurationError, Node, Parameter, run
from pcm_ros.nodes.views import LATCHED, SCENE_CHANGED_TOPIC, view_topic
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, Observation

_MOVING = "another motion is being carried out"
_SAFE_END = 30.0  # seconds that a motion may take to end safely when the node is deactivated


class SimNode(Node):
    """PyBullet behind the topics and the action of a real cell."""

    PARAMETERS = (
        Parameter("task", "demo", "what a scene consists of: the name of a task of the simulator"),
        Parameter("seed", 0, "seed of the first scene", low=0, high=2**63 - 1),
        Parameter(
            "republish_period", 1.0, "seconds after which unchanged views are sent again with a new stamp", low=0.1, high=60.0, fixed=False
        ),
    )

    def __init__(self) -> None:
        super().__init__("sim")
        self._cell: Any = None
        self._hands: Any = None
        self._busy = threading.Lock()  # the physics client serves one thread at a time
        self._observation: Observation | None = None
        self._stamp_ns = 0
        self._moving = threading.Lock()
        self._untouched: tuple[int, str] | None = None  # what was asked of the last reset, if nothing has happened since
        self._server = self.serve(ExecutePickPlace, "workcell/execute", self._execute, self._consider)

    def configure(self) -> None:
        from pcm_ros.sim.disturbance import DisturbedWorkcell
        from pcm_ros.sim.workcell import SimWorkcell

        if self.get_parameter("use_sim_time").value:
            raise ConfigurationError(
                "parameter 'use_sim_time' is true; the simulator stamps with the system's time and publishes no /clock"
            )
        try:
            self._cell = SimWorkcell(self.value("task"), seed=self.value("seed"))
            self._hands = DisturbedWorkcell(self._cell)  # what somebody does meanwhile belongs to the task
        except (KeyError, ValueError) as error:
            raise ConfigurationError(f"parameters 'task', 'seed': {error}") from error
        self._untouched = self._observation = None
        cameras = [camera.name for camera in self._cell.world.cameras]
        self._view_publishers = {camera: self.create_publisher(msg.View, view_topic(camera), qos_profile_sensor_data) for camera in cameras}
        self._limits_publisher = self.create_publisher(msg.WorkcellLimits, "workcell/limits", LATCHED)
        self._joint_publisher = self.create_publisher(JointState, "joint_states", 10)
        self._change_publisher = self.create_publisher(Header, SCENE_CHANGED_TOPIC, LATCHED)
        self._timer = self.create_timer(self.value("republish_period"), self._republish, callback_group=MutuallyExclusiveCallbackGroup())
        self._timer.cancel()

    def activate(self) -> None:
        self._limits_publisher.publish(conversions.limits_message(self._cell.limits))
        with self._busy:
            self._look()
        self._timer.reset()
        self.offer(srv.ResetScene, "~/reset", self._reset)
        self.offer(srv.JudgeScene, "~/judge", self._judge)

    def deactivate(self) -> None:
        if self._cell is not None:
            self._timer.cancel()
        super().deactivate()
        self.wait_for_end(self._busy, _SAFE_END, "the motion that was under way")

    def cleanup(self) -> None:
        if self._cell is None:
            return
        super().cleanup()
        self.destroy_timer(self._timer)
        for publisher in (*self._view_publishers.values(), self._limits_publisher, self._joint_publisher, self._change_publisher):
            self.destroy_publisher(publisher)
        with self._busy:
            self._cell.close()
            self._cell = None

    def busy(self) -> bool:
        return super().busy() or self._moving.locked()

    def report(self) -> dict[str, str]:
        return {"task": self.value("task"), "moving": str(self._moving.locked()), "views stamped (s)": f"{self._stamp_ns / 1e9:.3f}"}

    # Images

    def _look(self) -> int:
        """Render all cameras and send the images; the caller holds the lock. Returns their stamp, nanoseconds."""
        self._observation = self._cell.observe()
        return self._publish()

    def _publish(self) -> int:
        observation = self._observation
        if observation is None:
            return 0
        self._stamp_ns = self.get_clock().now().nanoseconds
        joints = JointState(header=Header(stamp=conversions.time_message(self._stamp_ns)), name=list(observation.joint_names))
        joints.position = conversions.flat(np.asarray(observation.joint_positions, dtype=np.float64))
        self._joint_publisher.publish(joints)
        for view in observation.views:
            self._view_publishers[view.name].publish(conversions.view_message(replace(view, stamp_ns=self._stamp_ns)))
        return self._stamp_ns

    def _republish(self) -> None:
        if self._timer.timer_period_ns != (period := int(self.value("republish_period") * 1e9)):
            self._timer.timer_period_ns = period
        if self._busy.acquire(blocking=False):  # else: a motion or a new scene is under way, whose views will follow
            try:
                self._publish()
            finally:
                self._busy.release()

    # Motion

    def _consider(self, _: ExecutePickPlace.Goal) -> GoalResponse:
        if not self.active or self._moving.locked():
            self.get_logger().warning(f"pick and place rejected: {_MOVING if self.active else INACTIVE}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _execute(self, goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        if not self._moving.acquire(blocking=False):  # both were accepted before one of them began
            goal.abort()
            return ExecutePickPlace.Result(error_code=ExecutePickPlace.Result.ERROR, error_msg=_MOVING)
        try:
            result = self._move(goal)
        finally:
            self._moving.release()
        if result.error_code == ExecutionCode.CANCELED and goal.is_cancel_requested:
            goal.canceled()
        elif result.error_code == ExecutionCode.OK:
            goal.succeed()
        else:
            goal.abort()
        return result

    def _move(self, goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        result, ended = ExecutePickPlace.Result(error_code=ExecutePickPlace.Result.ERROR), self.ended
        start = last = time.monotonic()

        def should_stop() -> bool:
            nonlocal last
            if (now := time.monotonic()) - last > 0.2:
                last = now
                goal.publish_feedback(ExecutePickPlace.Feedback(elapsed=now - start))
            return goal.is_cancel_requested or self.stopping.is_set() or ended.is_set()

        try:
            action = conversions.pick_place_from_message(goal.request.action)
            with self._busy:
                if ended.is_set():
                    raise conversions.InvalidMessage(INACTIVE)
                self._untouched = None
                outcome = self._hands.execute(action, should_stop)
                result.error_code, result.error_msg = int(outcome.code), outcome.message
                if not self.stopping.is_set():
                    result.stamp = conversions.time_message(self._look())
        except conversions.InvalidMessage as error:
            result.error_msg = str(error)
        return result

    # For tests and benchmarks

    def _reset(self, request: srv.ResetScene.Request, response: srv.ResetScene.Response) -> srv.ResetScene.Response:
        try:
            with self._busy:
                if self._untouched == (request.seed, request.task):
                    stamp = self._publish()  # asked again, since the answer was lost: the scene is there
                else:
                    self._untouched = None
                    self._cell.reset(request.seed, request.task or None)
                    stamp = self._look()
                    self._untouched = (request.seed, request.task)
                    self._change_publisher.publish(conversions.header(stamp))
                response.stamp = conversions.time_message(stamp)
                episode, picture = self._cell.episode, self._cell.picture
                response.instruction = episode.instruction if picture is None else ""
                conversions.write_goal_picture(response, picture, episode.pictured if picture is not None else {})
        except (KeyError, ValueError, RuntimeError) as error:
            response.error_msg = str(error)
        return response

    def _judge(self, request: srv.JudgeScene.Request, response: srv.JudgeScene.Response) -> srv.JudgeScene.Response:
        try:
            with self._busy:
                self._untouched = None  # judging lets the scene settle
                if request.relation.kind:
                    verdict = self._cell.judge(conversions.relation_from_message(request.relation))
                else:
                    verdict = self._cell.judge_all()
            response.holds, response.reason = bool(verdict), verdict.reason
        except ValueError as error:
            response.error_msg = str(error)
        return response


def main() -> None:
    run(SimNode)


if __name__ == "__main__":
    main()
