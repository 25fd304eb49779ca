"""The simulator's node: one motion at a time, and none that is lost keeps the next from coming."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from rclpy._rclpy_pybind11 import RCLError
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes import conversions
from pcm_ros.nodes.discovery import ActionClientWhileSpinning, greeting
from pcm_ros.nodes.sim_node import SimNode
from pcm_ros.tasks.manipulation.workcell import PickPlace
from tests.nodes.spinning import domain, spinning

PATIENCE = 60.0


class LosesFirstAcceptance:
    """rclpy's server of an action, whose first answer to a goal cannot be sent, as to a client that is gone."""

    def __init__(self, server: Any) -> None:
        self._server, self.lost = server, threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def send_goal_response(self, header: Any, response: Any) -> None:
        if not self.lost.is_set():
            self.lost.set()
            raise RCLError("the client is gone")
        self._server.send_goal_response(header, response)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def spun(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SimNode, ActionClientWhileSpinning]]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], domain_id=domain(92), signal_handler_options=SignalHandlerOptions.NO)
    node, other = SimNode(), rclpy.create_node("other")
    with spinning(node, other, workers=6):
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        client = ActionClientWhileSpinning(other, ExecutePickPlace, "workcell/execute", callback_group=ReentrantCallbackGroup())
        assert client.wait_for_server(PATIENCE)
        known = greeting(client, ExecutePickPlace)
        until(lambda: known.poll() or known.answer.done())
        yield node, client
        node.stopping.set()


def goal() -> ExecutePickPlace.Goal:
    there = PickPlace(np.array([0.5, 0.0, 0.1]), 0.0, 0.05, np.array([0.5, 0.1, 0.1]), 0.0)
    return ExecutePickPlace.Goal(action=conversions.pick_place_message(there))


def test_an_acceptance_that_cannot_be_sent_does_not_bar_the_next_motion(spun: tuple[SimNode, ActionClientWhileSpinning]) -> None:
    node, client = spun
    losing = node._server._handle = LosesFirstAcceptance(node._server._handle)
    client.send_goal_async(goal())
    assert losing.lost.wait(PATIENCE)
    sent = client.send_goal_async(goal())
    until(sent.done)
    assert sent.result().accepted
    sent.result().cancel_goal_async()
    ended = sent.result().get_result_async()
    until(ended.done)
    assert not node._moving.locked()


def test_a_second_motion_is_rejected_or_aborted_and_the_first_goes_on(spun: tuple[SimNode, ActionClientWhileSpinning]) -> None:
    """Those that are considered before the first has begun are accepted, and end at once."""
    node, client = spun
    sent = [client.send_goal_async(goal()) for _ in range(3)]
    until(lambda: all(one.done() for one in sent))
    endings = [one.result().get_result_async() for one in sent if one.result().accepted]
    until(node._moving.locked)
    late = client.send_goal_async(goal())
    until(late.done)
    assert not late.result().accepted
    for one in sent:
        if one.result().accepted:
            one.result().cancel_goal_async()
    until(lambda: all(ending.done() for ending in endings))
    refused = [ending.result() for ending in endings if ending.result().result.error_msg == "another motion is being carried out"]
    assert len(refused) == len(endings) - 1
    assert all(ending.status == GoalStatus.STATUS_ABORTED for ending in refused)
