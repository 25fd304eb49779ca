"""What all nodes share: parameters with ranges, lifecycle, diagnostics, and an end with exit code 0 on SIGINT and SIGTERM.

Long work (scoring, planning, moving) runs in service and action callbacks of a callback group of its own, on a thread of the executor's
pool: images, parameters, transitions, diagnostics and cancellations are served meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.service import Service
from rclpy.signals import SignalHandlerOptions

from pcm_ros.asked_to_end import AskedToEnd

INACTIVE = "the node is not active: configure and activate it (pcm launch and the launch files do), then ask again"
_GRACE = 5.0  # seconds that what is under way may take to end with the process
_CALL_END = 30.0  # seconds that a call may take to end when its node is deactivated
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Parameter:
    """One parameter of a node.

    Attributes:
        name, default, description: the type is that of the default; lists are given as tuples.
        low / high: allowed range of numbers, both included.
        choices: allowed strings; empty: any.
        fixed: read at configuration: a change is refused until the node is cleaned up.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...] | tuple[float, ...]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    fixed: bool = True

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(name=self.name, description=self.description)
        if self.choices:
            descriptor.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                descriptor.floating_point_range = [FloatingPointRange(from_value=float(self.low), to_value=float(self.high), step=0.0)]
        return descriptor

    def complaint(self, value: Any) -> str:
        """What is wrong with a value; empty: nothing. The message names the parameter, the value and what is allowed."""
        if self.choices and value not in self.choices:
            return f"parameter '{self.name}' is '{value}'; allowed: {', '.join(self.choices)}"
        if self.low is not None and self.high is not None and not (math.isfinite(value) and self.low <= value <= self.high):
            return f"parameter '{self.name}' is {value}; allowed: {self.low:g} to {self.high:g} ({self.description})"
        return ""


class ConfigurationError(ValueError):
    """Parameters or models that a node cannot work with. The message names what, and the remedy."""


def load_class(path: str, parameter: str) -> Any:
    """The class that "module:Class" names. Raises ConfigurationError."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"parameter '{parameter}' is '{path}': {error}; it must be 'module:Class' of an installed module"
        ) from error


class Node(LifecycleNode):
    """A lifecycle node with checked parameters and diagnostics.

    Subclasses list PARAMETERS and override `configure`, `activate`, `deactivate`, `cleanup` (any may raise: the transition then fails
    and the log and diagnostics say why) and `report`. EXPECTED: errors whose message tells all that there is to know.
    """

    PARAMETERS: Sequence[Parameter] = ()
    EXPECTED: tuple[type[Exception], ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.stopping = threading.Event()
        self.work_group = MutuallyExclusiveCallbackGroup()
        self.free_group = ReentrantCallbackGroup()
        self.working = threading.Lock()  # held during a call of the group of long work
        self._error = ""
        self._failure = ""
        self._state = "unconfigured"
        self._offered: list[Service] = []
        self.ended = threading.Event()  # set by a deactivation; a new one with each activation: what began in an earlier one stays ended
        for parameter in self.PARAMETERS:
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            if default == []:
                value = self.declare_parameter(parameter.name, RosParameter.Type.STRING_ARRAY, parameter.descriptor()).value or []
            else:
                value = self.declare_parameter(parameter.name, default, parameter.descriptor()).value
            if complaint := parameter.complaint(value):
                raise ConfigurationError(complaint)
        self._check_names()
        self.add_on_set_parameters_callback(self._check_parameters)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A group of its own: a transition may wait for what is under way to end. A clock of its own: that of a simulation may stand still.
        self._diagnostics_timer = self.create_timer(
            1.0, self.publish_diagnostics, callback_group=MutuallyExclusiveCallbackGroup(), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _check_names(self) -> None:
        """ROS passes over values for parameters that a node has not. Those of other nodes may be among them (a section /**), but hardly
        with nearly the same name. Raises ConfigurationError."""
        known = [parameter.name for parameter in self.PARAMETERS]
        for name in self._parameter_overrides:
            if name not in known and (near := difflib.get_close_matches(name, known, 1, 0.8)):
                raise ConfigurationError(f"there is no parameter '{name}'; did you mean '{near[0]}'?")

    def value(self, name: str) -> Any:
        """The present value of a parameter; an unset list is empty. Raises KeyError for one that was not declared."""
        if not self.has_parameter(name):
            raise KeyError(f"parameter '{name}' is not declared by node '{self.get_name()}'")
        value = self.get_parameter_or(name).value
        return [] if value is None else value

    def _check_parameters(self, parameters: list[RosParameter]) -> SetParametersResult:
        known = {parameter.name: parameter for parameter in self.PARAMETERS}
        for new in parameters:
            if new.name not in known:
                continue
            if complaint := known[new.name].complaint(new.value):
                return SetParametersResult(successful=False, reason=complaint)
            if known[new.name].fixed and self._state != "unconfigured":
                reason = f"parameter '{new.name}' is read at configuration, and the node is {self._state}: clean it up, then set it"
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    # Steps of the lifecycle, for subclasses.

    def configure(self) -> None:
        """Load models, make subscriptions and services."""

    def activate(self) -> None:
        """Begin to answer."""

    def deactivate(self) -> None:
        """Stop answering, wait for the call of the group of long work that is under way, and keep what was loaded. Raises RuntimeError."""
        self.ended.set()
        for service in self._offered:
            self.destroy_service(service)
        self._offered = []
        self.wait_for_end(self.working, _CALL_END, "the call that was under way")

    def cleanup(self) -> None:
        """Undo `configure`, also one that failed half-way; the node may still be active."""
        self.deactivate()
        self._failure = ""

    def report(self) -> dict[str, str]:
        """What diagnostics show besides state and error. An entry named "warning" makes the status a warning."""
        return {}

    def offer(self, kind: Any, name: str, callback: Callable[[Any, Any], Any], group: CallbackGroup | None = None) -> Service:
        """A service that is there until the node is deactivated; in the group of long work unless another one is given."""
        ended = self.ended

        def work(request: Any, response: Any) -> Any:
            with self.working:
                return None if ended.is_set() else callback(request, response)  # taken, but not begun when the deactivation came

        service = self.create_service(kind, name, callback if group else work, callback_group=group or self.work_group)
        send = service.send_response

        def answer(response: Any, header: Any) -> None:
            if response is not None:
                with contextlib.suppress(InvalidHandle):  # deactivated during the call: nobody can be told any more
                    send(response, header)

        service.send_response = answer
        self._offered.append(service)
        return service

    def serve(
        self, kind: Any, name: str, execute: Callable[[ServerGoalHandle], Any], consider: Callable[[Any], GoalResponse]
    ) -> ActionServer:
        """An action, for as long as the node: one that goes with a deactivation takes the results with it that are on their way.

        Args:
            consider: has to refuse goals while the node is not active. Cancellations are always accepted.
        """
        return ActionServer(
            self,
            kind,
            name,
            execute,
            goal_callback=consider,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=self.free_group,
        )

    def failed(self, error: Exception) -> str:
        """Log what a call ran into, with the traceback of what nobody expected; what to answer. Diagnostics show it until `succeeded`."""
        known = isinstance(error, self.EXPECTED)
        self._failure = str(error) if known else f"{type(error).__name__}: {error}"
        self.get_logger().error(self._failure if known else traceback.format_exc())
        return self._failure

    def succeeded(self) -> None:
        """The newest call ran into nothing."""
        self._failure = ""

    @property
    def active(self) -> bool:
        return self._state == "active" and not self.ended.is_set()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step(self.configure, super().on_configure, state, "inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.ended = threading.Event()
        return self._step(self.activate, super().on_activate, state, "active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step(self.deactivate, super().on_deactivate, state, "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._step(self.cleanup, super().on_cleanup, state, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if state.state_id == State.PRIMARY_STATE_UNCONFIGURED:
            return TransitionCallbackReturn.SUCCESS
        return self._step(self.cleanup, super().on_shutdown, state, "finalized")

    def _step(
        self, step: Callable[[], None], parent: Callable[[LifecycleState], TransitionCallbackReturn], state: LifecycleState, after: str
    ) -> TransitionCallbackReturn:
        try:
            step()
        except Exception as error:  # whatever a model or a user's class raises must end as a failed transition, not as a dead node
            self._error = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigurationError) else str(error)
            self.get_logger().error(f"{step.__name__} failed: {self._error}")
            if step == self.configure:
                self._undo()
            elif after == "finalized":
                self._state = after  # whatever went wrong: there is no way back from a shutdown
            self.publish_diagnostics()
            return TransitionCallbackReturn.FAILURE
        self._error, self._state = "", after
        return parent(state)

    def _undo(self) -> None:
        """Let go of what a failed configuration has made."""
        try:
            self.cleanup()
        except Exception as error:
            self.get_logger().error(f"cleanup after it failed too: {type(error).__name__}: {error}")

    def should_stop(self) -> bool:
        """Whether what is under way shall end: the node was deactivated, or the process is to end."""
        return self.stopping.is_set() or self.ended.is_set()

    def busy(self) -> bool:
        """Whether something is under way that has to end before the process does."""
        return self.working.locked()

    def wait_for_end(self, busy: threading.Lock, seconds: float, what: str) -> None:
        """Wait until nobody holds a lock; for `deactivate`. Not while the process ends, which waits for nothing. Raises RuntimeError."""
        if not self.stopping.is_set():
            if not busy.acquire(timeout=seconds):
                raise RuntimeError(f"{what} did not end within {seconds:g} s")
            busy.release()

    def status(self) -> DiagnosticStatus:
        """State, and what is wrong, as diagnostics tell it."""
        details = self.report() if self._state in ("inactive", "active") else {}
        level, message = DiagnosticStatus.OK, self._state
        if self._failure:
            details["warning"] = f"last call failed: {self._failure}"
        if "warning" in details:
            level, message = DiagnosticStatus.WARN, details["warning"]
        if self._error:
            level, message = DiagnosticStatus.ERROR, self._error
        status = DiagnosticStatus(level=level, name=self.get_fully_qualified_name(), message=message, hardware_id="pcm_ros")
        status.values = [KeyValue(key=key, value=value) for key, value in {"state": self._state, **details}.items()]
        return status

    def publish_diagnostics(self) -> None:
        if not self.context.ok():
            return
        array = DiagnosticArray(status=[self.status()])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def _end_with_launcher() -> None:
    """Ask Linux for a SIGTERM when the process that launched this one is killed and can end nothing any more."""
    launcher = os.environ.get("PCM_LAUNCHER_PID", "")
    if launcher and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(launcher):  # it was killed before the line above
            sys.exit(2)


def spin_on(executor: MultiThreadedExecutor, context: Context | None = None) -> None:
    """Spin until the ROS context ends (None: the default one).

    What a transition destroys just as rclpy (9.1) is about to wait for it, or while a callback uses it, does not end the node.
    """
    while rclpy.ok(context=context):
        try:
            executor.spin()
            return
        except InvalidHandle:
            traceback.print_exc()


def run(make: Callable[[], Node], arguments: list[str] | None = None) -> None:
    """Spin a node until SIGINT, SIGTERM or the end of the ROS context, then leave the process with code 0 (2: it could not start).

    The signals end the context last, not first, as rclpy's own handlers would: what is under way is told to stop and has `_GRACE` seconds
    for it, in which a motion's cancellation goes out and its end comes back.
    """
    code = 0
    told = AskedToEnd()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    _end_with_launcher()
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node: Node | None = None
    executor = MultiThreadedExecutor(num_threads=6)
    failed: list[Exception] = []

    def spin() -> None:
        try:
            spin_on(executor)
        except ExternalShutdownException:
            pass
        except Exception as error:
            if rclpy.ok():  # else a callback met the context as it went: an end that was asked for
                failed.append(error)

    spinning = threading.Thread(target=spin, daemon=True)
    try:
        node = make()
        executor.add_node(node)
        spinning.start()
        while spinning.is_alive() and not told.wait(0.1):
            pass
    except (ParameterException, ConfigurationError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        code = 2
    except Exception:
        if not told.is_set():
            raise
    if failed:
        raise failed[0]
    if node is not None:
        node.stopping.set()
        until = time.monotonic() + _GRACE
        while node.busy() and time.monotonic() < until and rclpy.ok():
            time.sleep(0.02)
    try:
        # In a thread: the executor of rclpy joins its own threads however long they take, whatever timeout it is given.
        ending = threading.Thread(target=executor.shutdown, daemon=True)
        ending.start()
        ending.join(1.0)
        if node is not None and node.active:
            node.deactivate()
        rclpy.try_shutdown()
    except Exception:
        traceback.print_exc()  # nothing is left to save; the code says how the work ended, not how the tidying did
    # A user's scorer that hangs would keep its thread, and so the process, alive for ever: all is said and done, leave.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
