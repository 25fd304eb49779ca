"""Which scenes the generator's node can draw proposals for, and its deactivation at work."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from pcm_ros import srv
from pcm_ros.nodes import conversions
from pcm_ros.nodes.generator_node import GeneratorNode
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Gripper, Observation, View, WorkcellLimits
from tests.nodes.spinning import domain, spinning

LIMITS = WorkcellLimits(
    (0.2, -0.4, -0.1), (0.8, 0.4, 0.5), (0.0, 0.0, 0.0), (0.25, 0.75), (0.0, 1.0), (-1.0, 0.0), Gripper("suction", 0.03)
)
STAMP = 42_000_000_001


@pytest.fixture
def node() -> Iterator[GeneratorNode]:
    rclpy.init(args=[], domain_id=domain(94))
    yield GeneratorNode()
    rclpy.try_shutdown()


def scene(objects: int, stamp_ns: int = STAMP) -> Scene:
    rng = np.random.default_rng(0)
    points = [rng.normal(size=(9, 3)).astype(np.float32) for _ in range(objects)]
    return Scene(tuple(SceneObject(xyz, np.zeros((9, 3), dtype=np.uint8), "red mug", 0.5) for xyz in points), 0.0, LIMITS, stamp_ns)


def test_a_scene_to_which_the_planner_added_what_it_remembers_has_the_images_of_the_perceived_one(node: GeneratorNode) -> None:
    depth, turn = np.ones((2, 3), dtype=np.float32), np.array([0.0, 0.0, 0.0, 1.0])
    view = View("front", np.zeros((2, 3, 3), dtype=np.uint8), depth, np.diag([5.0, 5.0, 1.0]), np.zeros(3), turn, STAMP)
    perceived, seen = scene(2), Observation((view,))
    node._scenes.append((conversions.scene_message(perceived), perceived, seen))
    assert node._known(conversions.scene_message(perceived))[0] is perceived
    message = conversions.scene_message(scene(3))
    found, observation = node._known(message)
    assert observation is seen and len(found.objects) == 3
    assert node._known(message)[0] is found  # what is worked out for it is found again
    with pytest.raises(conversions.InvalidMessage, match="ask it first"):
        node._known(conversions.scene_message(scene(2, STAMP + 1)))


def test_a_deactivation_ends_the_wait_for_an_image_and_waits_for_the_call(node: GeneratorNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    node.set_parameters([Parameter("view_timeout", value=60.0), Parameter("grounders", value=["segmenter"])])
    asking = rclpy.create_node("asking")
    with spinning(node, asking):
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        client = asking.create_client(srv.PerceiveScene, "/generator/perceive")
        assert client.wait_for_service(20.0)
        client.call_async(srv.PerceiveScene.Request(views=["front"], stamps=[conversions.time_message(STAMP)]))
        deadline = time.monotonic() + 20.0
        while not node.working.locked():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        started = time.monotonic()
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert time.monotonic() - started < 20.0
        assert not node.working.locked()
        assert "did not arrive" in node.status().message, "the call has ended"
