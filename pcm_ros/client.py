"""Ask a running system to manipulate, from plain Python: no action code, no executor.

with ManipulationClient() as client:
    outcome = client.manipulate("put the red mug to the left of the blue bowl", on_feedback=print)
    print(outcome.success, outcome.message)
    outcome = client.manipulate(picture=load_picture(Path("goal.npz")), correspondence={"red mug": "blue mug"})
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from pcm_ros import msg, srv
from pcm_ros.action import Manipulate
from pcm_ros.nodes.checked_messages import checked_integer, checked_message
from pcm_ros.nodes.conversions import pick_place_from_message, read_goal_picture, relation_message, write_goal_picture
from pcm_ros.nodes.discovery import ActionClientWhileSpinning, Repeated, SentGoal, greeting
from pcm_ros.nodes.ros_workcell import SAFE_END
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.workcell import PickPlace, View

GOAL_END = SAFE_END + 5.0
"""Seconds that a goal may take to end after its cancellation: those of a motion, and some for the way."""
_ASK_AGAIN = 5.0  # seconds, for the first answer of a service
_HEARD = 1.0  # seconds to wait until a cancellation has been heard, where the client may end right afterwards
_GOAL_ANSWER = 20.0  # seconds that a node that is there may take to accept a goal
_MOST_SEED = 2**63 - 1

ERROR_NAMES: dict[int, str] = {
    getattr(Manipulate.Result, name): name
    for name in (
        "NONE",
        "INVALID_INSTRUCTION",
        "OBJECT_NOT_FOUND",
        "IMPOSSIBLE",
        "QUORUM",
        "OBSERVATION",
        "EXECUTION",
        "NOT_REACHED",
        "CANCELED",
        "BUSY",
        "ERROR",
    )
}


class NotAvailable(RuntimeError):
    """No running system answers. The message says what was looked for, and the remedy."""


@dataclass(frozen=True)
class Outcome:
    """How a manipulation ended.

    Attributes:
        error: name of an error code of Manipulate.action; "NONE": the relations hold.
        message: what happened and what can be done; empty on success.
        actions: what was carried out, in order.
        video: path on the consensus node's machine; empty: none was made.
    """

    error: str
    message: str
    actions: tuple[PickPlace, ...]
    video: str

    @property
    def success(self) -> bool:
        return self.error == "NONE"


@dataclass(frozen=True)
class SceneGoal:
    """What is asked for in a scene of the simulator, in the words of `ManipulationClient.manipulate`.

    Attributes:
        instruction: empty where nothing is asked, or a picture shows it. picture, correspondence: None and empty where a sentence says it.
    """

    instruction: str = ""
    picture: View | None = None
    correspondence: Mapping[str, str] = field(default_factory=dict)


class RunningGoal:
    """A manipulation under way."""

    def __init__(self, client: ManipulationClient, handle: Any) -> None:
        self._client, self._handle = client, handle
        self._result = handle.get_result_async()

    def cancel(self, wait: float = 0.0) -> None:
        """Ask for a safe end; `result` then says CANCELED, or EXECUTION where the arm is not known to have stopped.

        Args:
            wait: seconds to wait at most until the node has heard of it; 0: return at once.
        """
        heard = threading.Event()
        self._handle.cancel_goal_async().add_done_callback(lambda _: heard.set())
        heard.wait(wait)

    def done(self) -> bool:
        return bool(self._result.done())

    def result(self, timeout: float | None = None, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Wait for the end.

        Raises NotAvailable if the consensus node goes away, TimeoutError after `timeout` seconds, KeyboardInterrupt once `should_stop` says
        so; the goal runs on.
        """
        answer = self._client.wait(self._result, timeout, alive=self._client.ready, should_stop=should_stop)
        if answer.status == GoalStatus.STATUS_UNKNOWN:
            raise NotAvailable("the consensus node has forgotten this goal; was it restarted?")
        result = answer.result
        error = ERROR_NAMES.get(result.error_code, f"code {result.error_code}")
        return Outcome(error, result.error_msg, tuple(pick_place_from_message(action) for action in result.actions), result.video)


class RosClient:
    """A ROS context and a thread of its own, usable beside any other ROS code; what the clients of all systems share.

    Args:
        partner: the node that is talked to, for messages.
        domain_id: ROS domain; None: that of the environment.
        namespace: in which the nodes of the system are; empty: none.
    """

    def __init__(self, partner: str, domain_id: int | None = None, namespace: str = "") -> None:
        self._context, self._partner = Context(), partner
        rclpy.init(args=[], context=self._context, domain_id=domain_id, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("pcm_client", context=self._context, namespace=namespace or None)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="pcm_client", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._context.ok():
            try:
                self._executor.spin()
                return
            except ExternalShutdownException:
                return
            except Exception:  # of a user's callback: whoever waits must still hear of the end
                if self._context.ok():
                    self.node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")

    def wait(
        self,
        future: Future,
        timeout: float | None = None,
        alive: Callable[[], bool] = lambda: True,
        meanwhile: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Any:
        """The future's result. `meanwhile` is called now and then.

        Raises:
            TimeoutError: it did not come. NotAvailable: the other side is gone. KeyboardInterrupt: `should_stop` says so.
        """
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done.wait(0.2):
            if should_stop():
                raise KeyboardInterrupt
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout:g} s")
            if not alive() and not done.wait(1.0):
                raise NotAvailable(f"{self._partner} is gone: its process ended or cannot be reached")
            meanwhile()
        return future.result()

    def close(self) -> None:
        """End the client's thread and context."""
        if self._context.ok():
            self._context.try_shutdown()
            self._thread.join(2.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ManipulationClient(RosClient):
    """A client of the manipulation system.

    Args:
        consensus: name of the consensus node.
        simulator: name of the simulator node, for `reset` and `judge`.
        domain_id: ROS domain; None: that of the environment.
        namespace: in which these nodes are; empty: none.
    """

    def __init__(self, consensus: str = "consensus", simulator: str = "sim", domain_id: int | None = None, namespace: str = "") -> None:
        super().__init__(f"consensus node '{consensus}'", domain_id, namespace)
        self._consensus, self._simulator = consensus, simulator
        self._services: dict[str, tuple[Client, bool]] = {}  # kept, with whether it has answered yet
        self._action = ActionClientWhileSpinning(self.node, Manipulate, f"{consensus}/manipulate")

    def ready(self) -> bool:
        """Whether the consensus node's action can be reached now."""
        return bool(self._action.server_is_ready())

    def start(
        self,
        instruction: str = "",
        seed: int = 0,
        on_feedback: Callable[[msg.ConsensusState], None] | None = None,
        timeout: float = 10.0,
        picture: View | None = None,
        correspondence: Mapping[str, str] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> RunningGoal:
        """Send an instruction, or a picture of another scene in its place, and return when it was accepted.

        Args:
            seed: 0 to 2**63 - 1; the same on the same images gives the same actions.
            on_feedback: called for each iteration and change of phase, from the client's thread.
            timeout: seconds to wait for the system.
            picture: its relations are to be reproduced; the camera's pose is in the frame of the workcell. Exactly one of instruction and
                picture is given: else the goal ends with INVALID_INSTRUCTION.
            correspondence: name in the picture -> name of the object of the present scene that takes its part; those left out mean
                themselves.
            should_stop: whether to give up waiting.

        Raises:
            NotAvailable: no consensus node, or it is not active or does not answer (a goal that it accepts later is then cancelled).
            TypeError, ValueError: an argument of another type or out of its range.
            KeyboardInterrupt: `should_stop` says so, or Ctrl-C (a goal that is accepted later is then cancelled).
        """
        who = dict(correspondence or {})
        goal = checked_message(
            Manipulate.Goal,
            "Manipulate.action",
            instruction=instruction,
            seed=checked_integer("seed", seed, 0, _MOST_SEED),
            pictured=list(who),
            present=list(who.values()),
        )
        write_goal_picture(goal, picture, who)
        deadline = time.monotonic() + timeout
        while not self.ready() and not self._action.wait_for_server(max(0.0, min(0.2, deadline - time.monotonic()))):
            if should_stop():
                raise KeyboardInterrupt
            if time.monotonic() < deadline:
                continue
            raise NotAvailable(
                f"no consensus node '{self._consensus}' answers within {timeout:g} s: start one with `pcm launch manipulation`; if one "
                "runs, compare ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE (`pcm doctor`)"
            )
        report = None if on_feedback is None else (lambda message: on_feedback(message.feedback.state))
        deadline = time.monotonic() + timeout
        known = greeting(self._action, Manipulate)
        try:
            self.wait(known.answer, max(timeout, _GOAL_ANSWER), self.ready, known.poll, should_stop)
        except TimeoutError as error:
            raise NotAvailable(f"consensus node '{self._consensus}' is there, but does not answer: {error}; it hangs") from error
        while True:
            sent = SentGoal(self._action, Manipulate, goal, report)
            try:
                handle = self.wait(sent.answer, max(timeout, _GOAL_ANSWER), self.ready, should_stop=should_stop)
            except BaseException as error:  # Ctrl-C too: else the arm may move, and nobody holds what would stop it
                sent.withdraw()
                if isinstance(error, TimeoutError):
                    raise NotAvailable(
                        f"consensus node '{self._consensus}' did not answer the goal: {error}; it hangs, or is overloaded. The goal was "
                        "cancelled"
                    ) from error
                raise
            if handle.accepted:
                break
            if time.monotonic() > deadline:
                raise NotAvailable(f"consensus node '{self._consensus}' rejects goals: it is not active; configure and activate it first")
            if should_stop():
                raise KeyboardInterrupt
            time.sleep(0.2)  # it is on its way up
        return RunningGoal(self, handle)

    def manipulate(
        self,
        instruction: str = "",
        seed: int = 0,
        on_feedback: Callable[[msg.ConsensusState], None] | None = None,
        timeout: float | None = None,
        picture: View | None = None,
        correspondence: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Bring about what a sentence says or a picture shows (see `start`), and wait for the end.

        Raises NotAvailable, TimeoutError, TypeError, ValueError (an argument that does not fit). Whatever ends the wait, Ctrl-C too,
        cancels the goal: nobody would be left to stop the arm.
        """
        goal = self.start(instruction, seed, on_feedback, picture=picture, correspondence=correspondence)
        try:
            return goal.result(timeout)
        except BaseException:
            goal.cancel(_HEARD)
            raise

    def reset(self, seed: int, task: str = "", timeout: float = 120.0) -> str:
        """New scene in the simulator; returns an instruction made for it. Raises as `reset_scene`."""
        return self.reset_scene(seed, task, timeout).instruction

    def reset_scene(self, seed: int, task: str = "", timeout: float = 120.0) -> SceneGoal:
        """New scene in the simulator; returns what is asked for in it.

        Args:
            seed: 0 to 2**63 - 1; the same seed and task give the same scene.
            task: name of a task; empty: the present one stays.
            timeout: seconds.

        Raises NotAvailable, TimeoutError, ValueError, TypeError (an argument of another type).
        """
        seed = checked_integer("seed", seed, 0, _MOST_SEED)
        request = checked_message(srv.ResetScene.Request, "ResetScene.srv", seed=seed, task=task)
        response = self._call(srv.ResetScene, f"{self._simulator}/reset", request, timeout)
        picture, correspondence = read_goal_picture(response) or (None, {})
        return SceneGoal(str(response.instruction), picture, correspondence)

    def judge(self, relation: Relation | None = None, timeout: float = 120.0) -> bool:
        """Does the relation (None: do all that the scene asks for) hold in the simulator's truth?

        Raises NotAvailable, TimeoutError, ValueError.
        """
        request = srv.JudgeScene.Request()
        if relation is not None:
            request.relation = relation_message(relation)
        return bool(self._call(srv.JudgeScene, f"{self._simulator}/judge", request, timeout).holds)

    def _call(self, kind: Any, name: str, request: Any, timeout: float) -> Any:
        client, has_answered = self._services.get(name) or (self.node.create_client(kind, name), False)
        self._services[name] = (client, False)
        if not client.wait_for_service(timeout):
            raise NotAvailable(f"service '{name}' is not there: is the simulator running and active?")
        asking = Repeated(lambda: client.call_async(request), client.remove_pending_request, math.inf if has_answered else _ASK_AGAIN)
        try:
            response = self.wait(asking.answer, timeout, meanwhile=asking.poll)
        finally:
            asking.close()
        self._services[name] = (client, True)
        if response.error_msg:
            raise ValueError(response.error_msg)
        return response
