"""The cell's driver as the planner sees it: images by a clock that may jump, and motions that are cancelled before they begin."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock

from pcm_ros import msg
from pcm_ros.action import ExecutePickPlace
from pcm_ros.nodes.conversions import view_message
from pcm_ros.nodes.ros_workcell import RosWorkcell
from pcm_ros.nodes.views import view_topic
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, InvalidObservation, PickPlace, View
from tests.nodes.spinning import domain, spinning

PATIENCE = 20.0
MOTION = PickPlace(np.array([0.5, 0.0, 0.1]), 0.0, 0.05, np.array([0.5, 0.2, 0.1]), 0.0)


@dataclass
class Cell:
    """The planner's side of a cell, and a driver in another node; the driver's motions end when they are cancelled."""

    planner: Node
    driver: Node
    workcell: RosWorkcell
    begun: threading.Event
    stopped: threading.Event

    def send(self, seconds: float) -> None:
        """An image that was taken at this time."""
        depth = np.ones((6, 8), dtype=np.float32)
        turned = np.array([0.0, 0.0, 0.0, 1.0])
        view = View("front", np.zeros((6, 8, 3), np.uint8), depth, np.diag([9.0, 9.0, 1.0]), np.zeros(3), turned, int(seconds * 1e9))
        self.images.publish(view_message(view))

    def __post_init__(self) -> None:
        self.images = self.driver.create_publisher(msg.View, view_topic("front"), qos_profile_sensor_data)
        self.clock = self.driver.create_publisher(Clock, "/clock", 10)
        until(lambda: self.images.get_subscription_count() > 0)

    def set_clock(self, seconds: float) -> None:
        """Publish this time until the planner has it."""

        def told() -> bool:
            message = Clock()
            message.clock.sec = int(seconds)
            self.clock.publish(message)
            time.sleep(0.05)
            return self.planner.get_clock().now().nanoseconds == int(seconds) * 10**9

        until(told)


def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], domain_id=domain(95))
    planner, driver, group = rclpy.create_node("planner"), rclpy.create_node("driver"), ReentrantCallbackGroup()
    begun, stopped = threading.Event(), threading.Event()

    def move(goal: Any) -> ExecutePickPlace.Result:
        begun.set()
        while not goal.is_cancel_requested:
            time.sleep(0.01)
        goal.canceled()
        return ExecutePickPlace.Result(error_code=ExecutionCode.CANCELED)

    server = ActionServer(
        driver, ExecutePickPlace, "workcell/execute", move, cancel_callback=lambda _: CancelResponse.ACCEPT, callback_group=group
    )
    with spinning(planner, driver):
        workcell = RosWorkcell(planner, ["front"], 1.0, 3.0, 30.0, group, should_stop=stopped.is_set)
        yield Cell(planner, driver, workcell, begun, stopped)
        stopped.set()
        workcell.close()
    del server


def test_a_motion_that_nobody_wants_any_more_is_not_sent(cell: Cell) -> None:
    cell.stopped.set()
    result = cell.workcell.execute(MOTION)
    assert (result.code, result.message) == (ExecutionCode.CANCELED, "stopped before the motion was sent")
    assert not cell.begun.wait(0.5)


def test_a_motion_under_way_is_cancelled(cell: Cell) -> None:
    assert cell.workcell.execute(MOTION, cell.begun.is_set).code == ExecutionCode.CANCELED
    assert cell.begun.is_set()


def test_a_view_of_the_future_is_left_out_and_said_so(cell: Cell) -> None:
    cell.send(time.time() + 60)
    with pytest.raises(InvalidObservation, match=r"'front' is stamped 5\d\.\d+ s in the future"):
        cell.workcell.observe()
    cell.send(time.time())
    assert abs(cell.workcell.observe().views[0].stamp_ns / 1e9 - time.time()) < 5


def test_a_simulation_that_begins_anew_is_looked_at_anew(cell: Cell) -> None:
    cell.planner.set_parameters([Parameter("use_sim_time", value=True)])
    with pytest.raises(InvalidObservation, match="nobody publishes /clock"):
        cell.workcell.observe()
    cell.set_clock(1000)
    until(lambda: (cell.send(1000.5), cell.workcell.views.newest_stamp("front"))[1])
    assert cell.workcell.observe().views[0].stamp_ns == 1000.5e9
    cell.set_clock(5)
    cell.send(5.25)
    assert cell.workcell.observe().views[0].stamp_ns == 5.25e9
