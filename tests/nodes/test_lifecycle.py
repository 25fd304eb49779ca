"""Nodes that are deactivated, cleaned up or given something unusable while they work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from action_msgs.msg import GoalStatus
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.signals import SignalHandlerOptions

from pcm_ros import srv
from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes import lifecycle
from pcm_ros.nodes.lifecycle import ConfigurationError, Node, Parameter
from pcm_ros.nodes.ros_workcell import execution_result
from pcm_ros.tasks.manipulation.workcell import ExecutionCode
from tests.nodes.spinning import domain


class Slow(Node):
    """Answers when it is let, and tells of its calls as all nodes do."""

    EXPECTED = (KeyError,)

    def __init__(self) -> None:
        super().__init__("slow")
        self.begun, self.let = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def activate(self) -> None:
        self.offer(srv.JudgeScene, "~/work", self._work)

    def _work(self, _: srv.JudgeScene.Request, response: srv.JudgeScene.Response) -> srv.JudgeScene.Response:
        self.begun.set()
        self.let.wait(20)
        if self.error is None:
            self.succeeded()
        else:
            response.error_msg = self.failed(self.error)
        response.holds = self.error is None
        return response


@pytest.fixture
def spun(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Slow, Any, threading.Thread]]:
    """An active node, a client of its service, and the thread that spins both."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], domain_id=domain(98), signal_handler_options=SignalHandlerOptions.NO)
    node, asking = Slow(), rclpy.create_node("asking")
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    executor.add_node(asking)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    client = asking.create_client(srv.JudgeScene, "/slow/work")
    assert client.wait_for_service(20)
    yield node, client, thread
    node.let.set()
    executor.shutdown(timeout_sec=5)
    rclpy.try_shutdown()


def answered(future: Any, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not future.done() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(future.done())


def test_a_node_that_is_deactivated_during_a_call_goes_on(spun: tuple[Slow, Any, threading.Thread]) -> None:
    node, client, thread = spun
    lost = client.call_async(srv.JudgeScene.Request())
    assert node.begun.wait(20)
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    node.let.set()
    assert not answered(lost, 0.5)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert client.wait_for_service(20)
    assert thread.is_alive()
    again = client.call_async(srv.JudgeScene.Request())
    assert answered(again)
    assert again.result().holds


@pytest.mark.parametrize(("error", "told"), [(KeyError("front"), "'front'"), (ZeroDivisionError("oh"), "ZeroDivisionError: oh")])
def test_what_a_call_ran_into_is_told_until_the_next_one_succeeds(
    spun: tuple[Slow, Any, threading.Thread], error: Exception, told: str
) -> None:
    node, client, _ = spun
    node.let.set()
    node.error = error
    call = client.call_async(srv.JudgeScene.Request())
    assert answered(call)
    assert (call.result().holds, call.result().error_msg) == (False, told)
    assert node.status().message == f"last call failed: {told}"
    node.error = None
    assert answered(client.call_async(srv.JudgeScene.Request()))
    assert node.status().message == "active"


class Halves(Node):
    """Its configuration may fail half-way."""

    PARAMETERS = (Parameter("size", 1, "of something", low=1, high=9), Parameter("rate", 1.0, "of it", low=0.0, high=9.0, fixed=False))

    def __init__(self) -> None:
        super().__init__("halves")
        self.held: list[str] = []
        self.works = False

    def configure(self) -> None:
        self.held.append("first half")
        if not self.works:
            raise ConfigurationError("no second half")
        self.held.append("second half")

    def cleanup(self) -> None:
        super().cleanup()
        self.held.clear()


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[Halves]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], domain_id=domain(98), signal_handler_options=SignalHandlerOptions.NO)
    yield Halves()
    rclpy.try_shutdown()


def test_a_failed_configuration_leaves_nothing_behind(halves: Halves) -> None:
    assert halves.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert halves.held == []
    assert halves.status().message == "no second half"
    halves.works = True
    assert halves.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert halves.held == ["first half", "second half"]


def test_what_is_read_at_configuration_can_be_set_before_it(halves: Halves) -> None:
    def setting(name: str, value: float) -> Any:
        return halves.set_parameters([RosParameter(name, value=value)])[0]

    assert setting("size", 3).successful
    assert not setting("size", 10).successful
    halves.works = True
    assert halves.trigger_configure() == TransitionCallbackReturn.SUCCESS
    refused = setting("size", 4)
    assert not refused.successful and "clean it up, then set it" in refused.reason
    assert setting("rate", 4.0).successful
    assert halves.value("size") == 3
    assert halves.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert setting("size", 4).successful


def test_a_misspelt_parameter_is_refused_and_one_of_another_node_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for name, fits in (("sizes", False), ("grounders", True)):
        rclpy.init(args=["--ros-args", "-p", f"{name}:=3"], domain_id=domain(98), signal_handler_options=SignalHandlerOptions.NO)
        try:
            if fits:
                assert Halves().value("size") == 1
            else:
                with pytest.raises(ConfigurationError, match=r"there is no parameter 'sizes'; did you mean 'size'\?"):
                    Halves()
        finally:
            rclpy.try_shutdown()


def test_a_node_whose_shutdown_failed_is_at_its_end_all_the_same(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    halves.works = True
    assert halves.trigger_configure() == halves.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert halves.active
    monkeypatch.setattr(lifecycle, "_CALL_END", 0.1)
    with halves.working:
        assert halves.trigger_deactivate() == TransitionCallbackReturn.FAILURE
        assert not halves.active  # it takes no more goals, and can be deactivated once more
        assert halves.trigger_shutdown() == TransitionCallbackReturn.FAILURE
    assert not halves.active and halves.status().values[0].value == "finalized"


def test_a_deactivation_waits_for_what_is_under_way(halves: Halves) -> None:
    busy = threading.Lock()
    with busy, pytest.raises(RuntimeError, match=r"the motion did not end within 0\.1 s"):
        halves.wait_for_end(busy, 0.1, "the motion")
    halves.wait_for_end(busy, 0.1, "the motion")
    assert not busy.locked()
    halves.stopping.set()
    with busy:
        halves.wait_for_end(busy, 60.0, "a process that ends waits for nothing")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (GoalStatus.STATUS_SUCCEEDED, 0, ExecutionCode.OK),
        (GoalStatus.STATUS_ABORTED, 0, ExecutionCode.ERROR),
        (GoalStatus.STATUS_UNKNOWN, 0, ExecutionCode.ERROR),
        (GoalStatus.STATUS_ABORTED, 1, ExecutionCode.GRASP_FAILED),
        (GoalStatus.STATUS_ABORTED, 999, ExecutionCode.ERROR),
    ],
)
def test_only_a_driver_that_says_so_has_moved_well(status: int, code: int, expected: ExecutionCode) -> None:
    result = execution_result(status, ExecutePickPlace.Result(error_code=code))
    assert result.code == expected
    assert bool(result.message) == (code == 999 or expected == ExecutionCode.ERROR)
