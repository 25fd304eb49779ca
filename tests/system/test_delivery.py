"""What DDS loses is had all the same: images under sensor-data quality of service, and answers to clients just discovered."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import rclpy
from losing_node import lose_first_answer
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Header
from system_bench import own_domain

from pcm_ros import bringup, msg, srv
from pcm_ros.action import ExecutePickPlace
from pcm_ros.client import ManipulationClient
from pcm_ros.nodes import conversions, ros_workcell, waiting
from pcm_ros.nodes.ros_workcell import RosWorkcell
from pcm_ros.nodes.views import LATCHED, SCENE_CHANGED_TOPIC, ViewBuffer, view_topic
from pcm_ros.nodes.waiting import RemoteError, RemoteService
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, InvalidObservation, PickPlace, View

PATIENCE = 60.0
CANCELABLE = {"cancel_callback": lambda _: CancelResponse.ACCEPT}


@dataclass
class Domain:
    """A ROS domain, and a thread that serves the nodes made here."""

    number: int
    context: Context
    executor: MultiThreadedExecutor

    def node(self, name: str) -> Node:
        node = rclpy.create_node(name, context=self.context)
        self.executor.add_node(node)
        return node


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[Domain]:
    for name, value in bringup.environment().items():
        monkeypatch.setenv(name, value)
    context, number = Context(), own_domain()
    rclpy.init(args=[], context=context, domain_id=number)
    made = Domain(number, context, MultiThreadedExecutor(num_threads=4, context=context))

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            made.executor.spin()

    thread = threading.Thread(target=spin)
    thread.start()
    yield made
    context.try_shutdown()
    thread.join()


def view(stamp_ns: int, shade: int = 0) -> View:
    depth = np.ones((48, 64), dtype=np.float32)
    pose = np.array([0.0, 0.0, 0.0, 1.0])
    return View("front", np.full((48, 64, 3), shade, dtype=np.uint8), depth, np.diag([50.0, 50.0, 1.0]), np.zeros(3), pose, stamp_ns)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def publish_until(publisher: Publisher, message: object, condition: Callable[[], bool]) -> None:
    """Best effort: what is sent before the other side was found is lost."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        publisher.publish(message)
        time.sleep(0.05)


def test_an_image_that_one_node_has_lost_comes_from_the_planner(domain: Domain) -> None:
    camera = domain.node("camera").create_publisher(msg.View, view_topic("front"), qos_profile_sensor_data)
    planner = ViewBuffer(domain.node("planner"), ["front"], source=True)
    publish_until(camera, conversions.view_message(view(1000, shade=7)), lambda: planner.newest_stamp("front") == 1000)
    scorer = ViewBuffer(domain.node("scorer"), ["front"])  # too late for this image
    publish_until(camera, conversions.view_message(view(2000)), lambda: scorer.newest_stamp("front") == 2000)
    found = scorer.at("front", 1000, PATIENCE, lambda: False)
    assert found.stamp_ns == 1000 and (found.rgb == 7).all()
    with pytest.raises(InvalidObservation, match="did not arrive within 1 s"):  # nobody has it
        scorer.at("front", 1500, 1.0, lambda: False)


def test_views_of_the_scene_before_a_change_are_not_planned_on(domain: Domain) -> None:
    node = domain.node("driver")
    camera = node.create_publisher(msg.View, view_topic("front"), qos_profile_sensor_data)
    changes = node.create_publisher(Header, SCENE_CHANGED_TOPIC, LATCHED)
    planner = domain.node("planner")
    cell = RosWorkcell(planner, ["front"], 1.0, 3600.0, 1.0, ReentrantCallbackGroup())
    before = planner.get_clock().now().nanoseconds
    publish_until(camera, conversions.view_message(view(before)), lambda: cell.views.newest_stamp("front") == before)
    assert cell.observe().views[0].stamp_ns == before
    changes.publish(conversions.header(before + 1))

    def refuses_old_views() -> bool:
        try:
            return not cell.observe().views
        except InvalidObservation:
            return True

    until(refuses_old_views)
    publish_until(camera, conversions.view_message(view(before + 1)), lambda: cell.views.newest_stamp("front") == before + 1)
    assert cell.observe().views[0].stamp_ns == before + 1


def test_views_of_before_a_motion_that_failed_are_not_taken_for_what_it_led_to(domain: Domain) -> None:
    driver, planner = domain.node("driver"), domain.node("planner")
    camera = driver.create_publisher(msg.View, view_topic("front"), qos_profile_sensor_data)

    def fail(goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        goal.abort()
        return ExecutePickPlace.Result(error_code=int(ExecutionCode.GRASP_FAILED), error_msg="it slipped")  # no stamp either

    ActionServer(driver, ExecutePickPlace, "workcell/execute", fail, callback_group=ReentrantCallbackGroup())
    cell = RosWorkcell(planner, ["front"], 1.0, 3600.0, PATIENCE, ReentrantCallbackGroup())
    before = planner.get_clock().now().nanoseconds
    publish_until(camera, conversions.view_message(view(before)), lambda: cell.views.newest_stamp("front") == before)
    assert cell.observe().views[0].stamp_ns == before
    ended = cell.execute(PickPlace(np.array([0.5, 0.0, 0.1]), 0.0, 0.05, np.array([0.5, 0.1, 0.1]), 0.0))
    assert (ended.code, ended.message) == (ExecutionCode.GRASP_FAILED, "it slipped")
    with pytest.raises(InvalidObservation, match="no new view arrived"):
        cell.observe()
    after = planner.get_clock().now().nanoseconds
    publish_until(camera, conversions.view_message(view(after)), lambda: cell.views.newest_stamp("front") == after)
    assert cell.observe().views[0].stamp_ns == after


MOTION = PickPlace(np.array([0.5, 0.0, 0.1]), 0.0, 0.05, np.array([0.5, 0.1, 0.1]), 0.0)


def test_a_motion_that_is_accepted_too_late_is_cancelled(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_workcell, "_GOAL_ANSWER", 2.0)
    let, canceled = threading.Event(), threading.Event()

    def consider(_: ExecutePickPlace.Goal) -> GoalResponse:
        let.wait(PATIENCE)
        return GoalResponse.ACCEPT

    def drive(goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        until(lambda: goal.is_cancel_requested)
        goal.canceled()
        canceled.set()
        return ExecutePickPlace.Result(error_code=int(ExecutionCode.CANCELED))

    driver, group = domain.node("driver"), ReentrantCallbackGroup()
    kept = ActionServer(driver, ExecutePickPlace, "workcell/execute", drive, callback_group=group, goal_callback=consider, **CANCELABLE)
    cell = RosWorkcell(domain.node("planner"), ["front"], 1.0, 3600.0, PATIENCE, ReentrantCallbackGroup())
    ended = cell.execute(MOTION)
    assert ended.code == ExecutionCode.ERROR
    assert "gave no answer within 2 s" in ended.message and "the arm is not known to have stopped" in ended.message
    time.sleep(0.5)  # a cancellation by the motion's name has come, and there was nothing to cancel yet
    let.set()
    assert canceled.wait(PATIENCE)
    kept.destroy()


def test_a_motion_that_does_not_end_when_it_is_cancelled_is_no_safe_end(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ros_workcell, "SAFE_END", 0.5)
    begun, let = threading.Event(), threading.Event()

    def drive(goal: ServerGoalHandle) -> ExecutePickPlace.Result:
        begun.set()
        let.wait(PATIENCE)
        goal.abort()
        return ExecutePickPlace.Result()

    kept = ActionServer(
        domain.node("driver"), ExecutePickPlace, "workcell/execute", drive, callback_group=ReentrantCallbackGroup(), **CANCELABLE
    )
    cell = RosWorkcell(domain.node("planner"), ["front"], 1.0, 3600.0, PATIENCE, ReentrantCallbackGroup())
    ended = cell.execute(MOTION, begun.is_set)
    let.set()
    assert ended.code == ExecutionCode.ERROR
    assert ended.message.startswith("the motion was cancelled, but action 'workcell/execute' gave no answer within 0.5 s")
    assert "the arm is not known to have stopped" in ended.message
    kept.destroy()


def test_a_scorer_that_hangs_finds_no_heap_of_requests(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_ASK_AGAIN", 0.2)
    seen: list[int] = []
    go_on = threading.Event()

    def answer(request: srv.ScoreProposals.Request, response: srv.ScoreProposals.Response) -> srv.ScoreProposals.Response:
        seen.append(len(seen))
        if len(seen) == 2:
            go_on.wait(PATIENCE)
        return response

    group = MutuallyExclusiveCallbackGroup()
    domain.node("scorer").create_service(srv.ScoreProposals, "scorer/score", answer, callback_group=group)
    service = RemoteService(domain.node("planner"), srv.ScoreProposals, "scorer/score", 2.0, ReentrantCallbackGroup(), lambda: False)
    until(lambda: service.ready)
    service.call(srv.ScoreProposals.Request())
    asked = len(seen)
    seen[:] = [0]
    with pytest.raises(RemoteError, match="gave no answer within 2 s"):
        service.call(srv.ScoreProposals.Request())
    go_on.set()
    service.call(srv.ScoreProposals.Request())
    assert (asked, len(seen)) == (1, 3)


def test_the_first_answer_of_a_scorer_is_asked_for_again_when_it_is_lost(domain: Domain) -> None:
    seen: list[int] = []

    def answer(request: srv.ScoreProposals.Request, response: srv.ScoreProposals.Response) -> srv.ScoreProposals.Response:
        seen.append(len(seen))
        response.score.scorer = f"request {len(seen)}"
        return response

    lose_first_answer(domain.node("scorer").create_service(srv.ScoreProposals, "scorer/score", answer))
    service = RemoteService(domain.node("planner"), srv.ScoreProposals, "scorer/score", PATIENCE, ReentrantCallbackGroup(), lambda: False)
    until(lambda: service.ready)
    assert service.call(srv.ScoreProposals.Request()).score.scorer == "request 2"
    assert service.call(srv.ScoreProposals.Request()).score.scorer == "request 3"
    assert len(seen) == 3  # one that has answered is slow when it is late: asking again would make it slower


def test_a_reset_whose_answer_is_lost_is_asked_for_again(domain: Domain) -> None:
    def reset(request: srv.ResetScene.Request, response: srv.ResetScene.Response) -> srv.ResetScene.Response:
        response.instruction = f"scene {request.seed}"
        return response

    lose_first_answer(domain.node("sim").create_service(srv.ResetScene, "sim/reset", reset))
    with ManipulationClient(domain_id=domain.number) as client:
        assert client.reset(5, timeout=PATIENCE) == "scene 5"
        assert client.reset(6, timeout=PATIENCE) == "scene 6"
