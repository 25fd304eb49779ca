"""A client's thread, what it refuses to send, and what becomes of goals that nobody waits for any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.task import Future
from rich.console import Console

from pcm_ros import client as client_module
from pcm_ros.action import Manipulate
from pcm_ros.asked_to_end import AskedToEnd
from pcm_ros.client import ManipulationClient, NotAvailable, RosClient
from pcm_ros.console import ended_goal
from tests.nodes.spinning import domain, spinning

DOMAIN, NOBODYS = domain(90), domain(99)
PATIENCE = 20.0


def test_a_callback_that_raises_does_not_end_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    raised, answer = threading.Event(), Future()

    def on_feedback() -> None:
        if raised.is_set():
            answer.set_result("the end")
        else:
            raised.set()
            raise BrokenPipeError("whoever read this is gone")

    with RosClient("nobody", domain_id=DOMAIN) as client:
        client.node.create_timer(0.05, on_feedback)
        assert client.wait(answer, 20.0) == "the end"


@dataclass
class Server:
    """An action server in the place of the consensus node; it considers a goal until it is let, and carries it out until cancelled."""

    let: threading.Event = field(default_factory=threading.Event)
    considered: threading.Event = field(default_factory=threading.Event)
    canceled: threading.Event = field(default_factory=threading.Event)
    goals: list[Any] = field(default_factory=list)

    def consider(self, goal: Any) -> GoalResponse:
        self.goals.append(goal)
        self.considered.set()
        self.let.wait(PATIENCE)
        return GoalResponse.ACCEPT

    def execute(self, goal: ServerGoalHandle) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not goal.is_cancel_requested and time.monotonic() < deadline:
            time.sleep(0.01)
        if goal.is_cancel_requested:
            goal.canceled()
            self.canceled.set()
        return Manipulate.Result(error_code=Manipulate.Result.CANCELED)


@pytest.fixture(params=[ReentrantCallbackGroup])
def server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Server]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context, made = Context(), Server()
    rclpy.init(args=[], context=context, domain_id=DOMAIN)
    node = rclpy.create_node("consensus", context=context)
    group: CallbackGroup = request.param()
    kept = ActionServer(
        node,
        Manipulate,
        "consensus/manipulate",
        made.execute,
        goal_callback=made.consider,
        cancel_callback=lambda _: CancelResponse.ACCEPT,
        callback_group=group,
    )
    with spinning(node):
        yield made
        made.let.set()
    del kept


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"seed": 1.0}, TypeError, "seed is 1.0, of type float; allowed: an integer, 0 to 9223372036854775807"),
        ({"seed": None}, TypeError, "seed is None"),
        ({"seed": "3"}, TypeError, "seed is '3'"),
        ({"seed": -1}, ValueError, "seed is -1; allowed: an integer, 0 to 9223372036854775807"),
        ({"seed": 2**63}, ValueError, "seed is 9223372036854775808"),
        ({"instruction": None}, TypeError, "Manipulate.action: The 'instruction' field must be of type 'str'"),
        ({"instruction": "", "correspondence": {"mug": 3}}, TypeError, "'present' field"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], error: type[Exception], told: str
) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with ManipulationClient(domain_id=DOMAIN) as client:
        with pytest.raises(error, match=told):
            client.manipulate(**{"instruction": "put the red mug on the table", **fields})
        if "seed" in fields:
            with pytest.raises(error, match=told):
                client.reset(fields["seed"])
        with pytest.raises(TypeError, match=r"ResetScene\.srv: The 'task' field must be of type 'str'"):
            client.reset(0, task=None)  # type: ignore[arg-type]


def test_integers_of_numpy_are_sent(server: Server) -> None:
    server.let.set()
    with ManipulationClient(domain_id=DOMAIN) as client:
        running = client.start("stack them", np.int64(3), timeout=PATIENCE, correspondence={"red mug": "blue mug"})  # type: ignore[arg-type]
        running.cancel()
        assert running.result(PATIENCE).error == "CANCELED"
    assert [(goal.instruction, goal.seed, goal.pictured, goal.present) for goal in server.goals] == [
        ("stack them", 3, ["red mug"], ["blue mug"])
    ]


def test_a_goal_that_is_accepted_too_late_is_cancelled(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with ManipulationClient(domain_id=DOMAIN) as client:
        assert client._action.wait_for_server(PATIENCE)
        monkeypatch.setattr(client_module, "_GOAL_ANSWER", 2.0)
        with pytest.raises(NotAvailable, match=r"'consensus' did not answer the goal: no answer within 2 s; .* The goal was cancelled"):
            client.start("stack them", timeout=2.0)
        assert server.considered.is_set() and not server.canceled.is_set()
        time.sleep(0.5)  # the cancellation by the goal's name has come, and there was nothing to cancel yet
        server.let.set()
        assert server.canceled.wait(PATIENCE)


@pytest.mark.parametrize("server", [MutuallyExclusiveCallbackGroup], indirect=True)
def test_a_server_that_hangs_finds_the_cancellation_behind_the_goal_though_the_client_is_gone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ManipulationClient(domain_id=DOMAIN) as client:
        assert client._action.wait_for_server(PATIENCE)
        monkeypatch.setattr(client_module, "_GOAL_ANSWER", 2.0)
        with pytest.raises(NotAvailable):
            client.start("stack them", timeout=2.0)
    server.let.set()
    assert server.canceled.wait(PATIENCE)


def test_whatever_ends_the_wait_for_a_manipulation_cancels_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.let.set()

    def interrupted(self: RosClient, future: Future, *arguments: Any, **options: Any) -> Any:
        if server.goals:
            time.sleep(0.5)  # the goal runs
            raise KeyboardInterrupt
        return real(self, future, *arguments, **options)

    real = RosClient.wait
    with ManipulationClient(domain_id=DOMAIN) as client:
        assert client._action.wait_for_server(PATIENCE)
        started = client.start("stack them", timeout=PATIENCE)
        monkeypatch.setattr(client, "start", lambda *_, **__: started)
        monkeypatch.setattr(RosClient, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.manipulate("stack them")
        assert server.canceled.wait(PATIENCE)


def test_waiting_for_a_system_ends_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    begun = time.monotonic()
    # where a server has just ended, it may still be heard of
    with ManipulationClient(domain_id=NOBODYS) as client, pytest.raises(KeyboardInterrupt):
        client.start("stack them", timeout=PATIENCE, should_stop=lambda: time.monotonic() > begun + 0.5)
    assert time.monotonic() - begun < PATIENCE / 2


def test_a_system_in_a_namespace_is_talked_to_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with ManipulationClient(domain_id=DOMAIN, namespace="robot1") as client:
        assert client.node.resolve_service_name("sim/reset") == "/robot1/sim/reset"
        assert client.node.get_fully_qualified_name() == "/robot1/pcm_client"


def test_whoever_waits_for_a_goal_hears_that_its_node_is_gone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.let.set()
    with ManipulationClient(domain_id=DOMAIN) as client:
        goal = client.start("stack them", timeout=PATIENCE)
        monkeypatch.setattr(client, "ready", lambda: False)
        with pytest.raises(NotAvailable, match="'consensus' is gone"):
            ended_goal(goal, AskedToEnd(), Console(quiet=True))
        goal.cancel(PATIENCE)


def test_a_goal_that_was_cancelled_is_waited_for_and_not_when_asked_again(server: Server) -> None:
    server.let.set()
    asked = AskedToEnd()
    asked.set()
    with ManipulationClient(domain_id=DOMAIN) as client:
        assert ended_goal(client.start("stack them", timeout=PATIENCE), asked, Console(quiet=True)).error == "CANCELED"
        asked.set()
        with pytest.raises(TimeoutError, match="its end not waited for; the arm is not known to have stopped"):
            ended_goal(_Endless(), asked, Console(quiet=True))


class _Endless:
    """A goal that does not end when it is cancelled."""

    def cancel(self) -> None:
        """Nothing comes of it."""

    def result(self, timeout: float | None = None, should_stop: Any = None) -> Any:
        assert should_stop()
        raise KeyboardInterrupt
