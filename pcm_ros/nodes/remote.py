"""The parts of a manipulation system that live in other processes, behind the interfaces that the policy knows.

Their methods wait for answers: call them from a thread that does not serve the executor's callbacks which bring those answers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from rclpy.callback_groups import CallbackGroup
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from torch import Tensor

from pcm_ros import msg, srv
from pcm_ros.action import ExecutePickPlace
from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.nodes import conversions
from pcm_ros.nodes.discovery import ActionClientWhileSpinning, Repeated, SentGoal, greeting
from pcm_ros.nodes.views import LATCHED, OBSERVATION_TOPIC, SCENE_CHANGED_TOPIC, ViewBuffer
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.generator import NothingToGrasp
from pcm_ros.tasks.manipulation.goal import Goal
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError
from pcm_ros.tasks.manipulation.relation_scorer import Assessment
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import (
    ExecutionCode,
    ExecutionResult,
    InvalidObservation,
    Observation,
    PickPlace,
    View,
    Workcell,
    WorkcellLimits,
)

_POLL = 0.1
_ASK_AGAIN = 5.0  # seconds, for the first answer of a service
_GOAL_ANSWER = 20.0  # seconds that a driver may take to accept or reject a motion
_SAFE_END = 30.0  # seconds that a motion may take to end after it was cancelled
_MAY_MOVE = "the arm is not known to have stopped: look at it before anything else"
_HOPE = 30.0  # times its timeout that a scorer which hangs is waited for: meanwhile the ensemble goes on without it, and does not ask again


class RemoteError(RuntimeError):
    """Another process did not answer, or answered with an error. The text names it."""


class Stopped(RuntimeError):
    """The wait was ended because somebody asked to stop."""


def wait(
    future: Future,
    timeout: float,
    what: str,
    alive: Callable[[], bool],
    should_stop: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Any:
    """The future's result. Raises RemoteError after `timeout` seconds or as soon as the other side is gone, Stopped when asked to stop."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    deadline = time.monotonic() + timeout
    while not done.wait(min(_POLL, max(0.0, deadline - time.monotonic()))):
        if should_stop():
            raise Stopped(f"stopped while waiting for {what}")
        if not alive():
            raise RemoteError(f"{what} is gone: its process ended or cannot be reached; restart it")
        if time.monotonic() >= deadline:
            raise RemoteError(f"{what} gave no answer within {timeout:g} s; it hangs, or is overloaded")
        meanwhile()
    return future.result()


class _Service:
    """A service of another node, called and waited for. It exists while that node is active. Calling it twice does no harm."""

    def __init__(self, node: Node, kind: Any, name: str, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]) -> None:
        self._node, self._timeout, self._should_stop = node, timeout, should_stop
        self._client: Client = node.create_client(kind, name, callback_group=group)
        self._has_answered = False

    @property
    def ready(self) -> bool:
        return bool(self._client.service_is_ready())

    def call(self, request: Any) -> Any:
        what = f"service '{self._client.service_name}'"
        if not self.ready:
            self._has_answered = False
            raise RemoteError(
                f"{what} is not there: its node ended or is not active; restart it (its log and /diagnostics say why it ended)"
            )
        # Once it has answered, an answer that does not come is not lost: it hangs, and must not find a heap of requests afterwards.
        again = math.inf if self._has_answered else _ASK_AGAIN
        asking = Repeated(lambda: self._client.call_async(request), self._client.remove_pending_request, again)
        try:
            response = wait(asking.answer, self._timeout, what, self._client.service_is_ready, self._should_stop, asking.poll)
        except RemoteError:
            self._has_answered = self._has_answered and self.ready  # else whoever comes back has to find this client first
            raise
        finally:
            asking.close()
        self._has_answered = True
        return response

    def close(self) -> None:
        self._node.destroy_client(self._client)


class SceneMessages:
    """The message of a scene, made once and not for each scorer and iteration."""

    def __init__(self) -> None:
        self._last: tuple[Scene, msg.Scene] | None = None
        self._lock = threading.Lock()

    def of(self, scene: Scene) -> msg.Scene:
        with self._lock:
            if self._last is None or self._last[0] is not scene:
                self._last = (scene, conversions.scene_message(scene))
            return self._last[1]


class RemoteScorer:
    """A scorer node as a scorer of an ensemble; the energies are those that the same scorer gives in this process.

    Args:
        node_name: of the scorer node; its services are `<node_name>/score` and `<node_name>/assess`.
        name: in the ensemble.
        view: the camera whose image it scores on.
        timeout: of the ensemble, seconds; also for what the scorer says of things as they are.
    """

    differentiable = False

    def __init__(
        self,
        node: Node,
        node_name: str,
        name: str,
        view: str,
        timeout: float,
        scenes: SceneMessages,
        group: CallbackGroup,
        should_stop: Callable[[], bool] = lambda: False,
        cost: float = 1e-3,
    ) -> None:
        self.name, self.view, self.cost, self._scenes = name, view, cost, scenes
        self._scoring = _Service(node, srv.ScoreProposals, f"{node_name}/score", _HOPE * timeout, group, should_stop)
        self._assessing = _Service(node, srv.AssessRelation, f"{node_name}/assess", timeout, group, should_stop)

    def energy(self, batch: Batch, context: Context) -> Tensor:
        """(N,) energies. Raises RemoteError, or InvalidObservation where its camera delivered nothing."""
        request = srv.ScoreProposals.Request(
            proposals=conversions.proposals_message(batch, self._scenes.of(context.scene)),
            relation=conversions.relation_message(context.relation),
            held=[conversions.relation_message(relation) for relation in context.held],
            stamp=self._stamp(context),
        )
        score = self._scoring.call(request).score
        if score.error:
            raise RemoteError(score.error)
        return torch.from_numpy(np.array(score.energies, dtype=np.float64))

    def assess(self, context: Context) -> Assessment:
        """What its view says of the relation as things are. Raises as `energy`."""
        request = srv.AssessRelation.Request(
            relation=conversions.relation_message(context.relation), scene=self._scenes.of(context.scene), stamp=self._stamp(context)
        )
        response = self._assessing.call(request)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        objects, phrases = len(context.scene.objects), len(context.relation.phrases)
        logits = torch.from_numpy(conversions.rows(response.logits, len(context.relation.texts), "logits", objects))
        margins = torch.from_numpy(conversions.rows(response.margins, 1, "margins", objects**phrases))
        return Assessment(self.name, logits, margins.reshape((objects,) * phrases))

    def _stamp(self, context: Context) -> Time:
        for view in context.observation.views:
            if view.name == self.view:
                return conversions.time_message(view.stamp_ns)
        raise InvalidObservation(f"camera '{self.view}' delivered no usable view")

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._scoring.ready

    def close(self) -> None:
        self._scoring.close()
        self._assessing.close()


class RemoteGenerator:
    """A generator node's proposals; the same seed gives those of the same generator in this process."""

    def __init__(
        self,
        node: Node,
        name: str,
        count: int,
        timeout: float,
        scenes: SceneMessages,
        group: CallbackGroup,
        should_stop: Callable[[], bool],
    ) -> None:
        self._count, self._scenes = count, scenes
        self._service = _Service(node, srv.Propose, f"{name}/propose", timeout, group, should_stop)

    def propose(self, context: Context, state: CrossEntropyState | None, rng: torch.Generator) -> Batch:
        """A batch. Raises NothingToGrasp as the generator does, RemoteError."""
        request = srv.Propose.Request(
            relation=conversions.relation_message(context.relation),
            held=[conversions.relation_message(relation) for relation in context.held],
            scene=self._scenes.of(context.scene),
            seed=rng.initial_seed(),
            count=self._count,
        )
        conversions.write_state(state, request)
        response = self._service.call(request)
        if response.error_code == srv.Propose.Response.NOTHING_TO_GRASP:
            raise NothingToGrasp(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return conversions.batch_from_message(response.proposals)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()


class RemotePerception:
    """A generator node's perception of the views that it has received itself."""

    def __init__(
        self, node: Node, name: str, workcell: Workcell, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]
    ) -> None:
        self._workcell = workcell
        self._service = _Service(node, srv.PerceiveScene, f"{name}/perceive", timeout, group, should_stop)

    def perceive(self, observation: Observation) -> Scene:
        """The scene. Raises InvalidObservation as the perception does, RemoteError."""
        request = srv.PerceiveScene.Request(
            views=[view.name for view in observation.views],
            stamps=[conversions.time_message(view.stamp_ns) for view in observation.views],
            limits=conversions.limits_message(self._workcell.limits),
        )
        response = self._service.call(request)
        if response.error_code == srv.PerceiveScene.Response.OBSERVATION:
            raise InvalidObservation(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return conversions.scene_from_message(response.scene)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()


class RemoteGoalPictureReader:
    """A generator node's reading of pictures as goals: what perceives the present scene reads the picture too."""

    def __init__(
        self, node: Node, name: str, workcell: Workcell, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]
    ) -> None:
        self._workcell = workcell
        self._service = _Service(node, srv.ReadGoalPicture, f"{name}/read_goal_picture", timeout, group, should_stop)

    def read(self, view: View, correspondence: Mapping[str, str], present: Observation) -> Goal:
        """The goal. Raises GoalPictureError and InvalidObservation as GoalPictureReader does, RemoteError, Stopped."""
        request = srv.ReadGoalPicture.Request(
            limits=conversions.limits_message(self._workcell.limits),
            views=[seen.name for seen in present.views],
            stamps=[conversions.time_message(seen.stamp_ns) for seen in present.views],
        )
        conversions.write_goal_picture(request, view, correspondence)
        response = self._service.call(request)
        if response.error_code == srv.ReadGoalPicture.Response.PICTURE:
            raise GoalPictureError(response.error_msg)
        if response.error_code == srv.ReadGoalPicture.Response.OBSERVATION:
            raise InvalidObservation(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return Goal((conversions.relations_from_messages(response.relations),), response.text)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()


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
        self.views = ViewBuffer(node, cameras, source=True)
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
        while not self._limits_known.wait(_POLL):
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

        The code is CANCELED only where the driver says so; ERROR with a message that says so where the arm is not known to have stopped.
        """
        what = "action 'workcell/execute'"
        if not self._client.wait_for_server(2.0):
            return ExecutionResult(ExecutionCode.ERROR, f"{what} is not there: is the cell's driver active?")
        alive = self._client.server_is_ready
        try:
            known = greeting(self._client, ExecutePickPlace)
            wait(known.answer, _GOAL_ANSWER, what, alive, meanwhile=known.poll)
            sent = SentGoal(self._client, ExecutePickPlace, ExecutePickPlace.Goal(action=conversions.pick_place_message(action)))
            try:
                handle = wait(sent.answer, _GOAL_ANSWER, what, alive)
            except RemoteError as error:
                sent.withdraw()
                return ExecutionResult(ExecutionCode.ERROR, f"{error}; {_MAY_MOVE}")
            if not handle.accepted:
                return ExecutionResult(ExecutionCode.ERROR, f"{what} rejected the motion: the cell is busy or not active")
            ending = handle.get_result_async()
            try:
                ended = wait(ending, self._motion_timeout, what, alive, lambda: should_stop() or self._should_stop())
            except (Stopped, RemoteError) as error:
                handle.cancel_goal_async()
                try:
                    ended = wait(ending, _SAFE_END, what, alive)
                except RemoteError as silence:
                    return ExecutionResult(ExecutionCode.ERROR, f"the motion was cancelled, but {silence}; {_MAY_MOVE}")
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
