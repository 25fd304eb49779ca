"""A process that is told to end while its node works: it ends in time, with code 0, and what moves is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.node import Node

from pcm_ros import srv
from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes import lifecycle
from tests.nodes.spinning import domain, spinning

DOMAIN, PATIENCE = domain(95), 60.0


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node of this process that is spun."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(args=[], context=context, domain_id=DOMAIN)
    node = rclpy.create_node("here", context=context)
    with spinning(node):
        yield node


@contextlib.contextmanager
def at_work(here: Node, kind: str) -> Iterator[subprocess.Popen[str]]:
    """The process of a node of ending_node.py that has begun to work."""
    command = [sys.executable, str(Path(__file__).with_name("ending_node.py")), kind]
    process = subprocess.Popen(command, env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}, stdout=subprocess.PIPE, text=True)
    try:
        client = here.create_client(srv.JudgeScene, "/ending/work")
        assert client.wait_for_service(PATIENCE)
        client.call_async(srv.JudgeScene.Request())
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_call_that_hangs_does_not_keep_the_process(here: Node, number: signal.Signals) -> None:
    with at_work(here, "hangs") as process:
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - started < lifecycle._GRACE + 10.0


def test_a_node_outlives_what_was_destroyed_in_its_hands(here: Node) -> None:
    with at_work(here, "meddles") as process:
        client = here.create_client(srv.JudgeScene, "/ending/work")
        assert client.wait_for_service(PATIENCE)
        time.sleep(1.0)  # for the error to come back to the executor
        client.call_async(srv.JudgeScene.Request())
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_motion_under_way_is_cancelled_when_the_process_of_the_planner_ends(here: Node, number: signal.Signals) -> None:
    begun, canceled = threading.Event(), threading.Event()

    def drive(goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        begun.set()
        deadline = time.monotonic() + PATIENCE
        while not goal.is_cancel_requested and time.monotonic() < deadline:
            time.sleep(0.01)
        if goal.is_cancel_requested:
            canceled.set()
            goal.canceled()
        return ExecutePickPlace.Result(error_code=ExecutePickPlace.Result.CANCELED)

    group = ReentrantCallbackGroup()
    cancel = lambda _: CancelResponse.ACCEPT  # noqa: E731
    driver = ActionServer(here, ExecutePickPlace, "workcell/execute", drive, cancel_callback=cancel, callback_group=group)
    with at_work(here, "moves") as process:
        assert begun.wait(PATIENCE)
        time.sleep(0.5)
        process.send_signal(number)
        assert canceled.wait(PATIENCE)
        assert process.wait(PATIENCE) == 0
    driver.destroy()
