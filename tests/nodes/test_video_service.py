"""/pcm/answer_video_question without ROS around it: clips are taken as pictures or files, what does not fit is refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from pcm_ros import srv
from pcm_ros.nodes.services.task import Refused, Work
from pcm_ros.nodes.services.video_qa import MOST_TOPICS, Topics, VideoQuestions, rgb_of
from pcm_ros.nodes.services_node import ServicesNode
from tests.models.tiny_language import make_model
from tests.nodes.spinning import domain, spinning

QUESTION = "Which object moves first?"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> VideoQuestions:
    """The embedded image-text models, and a language model of random weights."""
    model = make_model("llama", tmp_path_factory.mktemp("served"), context=800)
    values = {parameter.name: parameter.default for parameter in VideoQuestions.PARAMETERS} | {"video_qa.model": str(model)}
    return VideoQuestions(values.__getitem__)


def work(seconds: float = 120.0, stop: Callable[[], bool] = lambda: False) -> Work:
    now = time.monotonic()
    return Work(now + seconds, now, now, stop, lambda step, steps, words: None)


def image(rgb: np.ndarray, encoding: str = "rgb8", padding: int = 0) -> Image:
    height, width = rgb.shape[:2]
    row = rgb.reshape(height, -1)
    data = np.concatenate([row, np.zeros((height, padding), dtype=np.uint8)], axis=1)
    return Image(height=height, width=width, encoding=encoding, step=data.shape[1], data=data.reshape(-1))


def clip(count: int = 4) -> list[Image]:
    return [image(np.full((48, 64, 3), 40 * number, dtype=np.uint8)) for number in range(count)]


def request(**fields: Any) -> Any:
    return VideoQuestions.kind.Request(**{"question": QUESTION, **fields})


def test_an_answer_with_what_the_experts_said_of_it(task: VideoQuestions) -> None:
    response = task.answer(request(images=clip(), frames=4), work())
    assert (response.error_code, response.partial) == (0, False) and response.answer
    assert {"motion", "language", "segmenter"} <= {score.scorer for score in response.scores}
    assert all(len(score.energies) == 1 + len(response.runner_up_answers) for score in response.scores)
    assert len(response.times) == 4 and all(len(score.energies) == 4 for score in response.frame_scores)
    assert len(response.carrying) == len(response.carrying_images)
    assert task.answer(request(images=clip(), frames=4), work()).answer == response.answer, "the same clip gets the same answer"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of images, file, topic"),
        ({"images": clip(), "file": "a.mp4"}, "exactly one of images, file, topic"),
        ({"images": clip(), "question": " "}, "question"),
        ({"images": clip(), "policy": "best"}, "allowed: uniform"),
        ({"images": clip(), "seed": 2**63}, "seed"),
        ({"images": clip(), "frames": 1000}, "allowed"),
        ({"file": "/nowhere/clip.mp4"}, "nowhere"),
        ({"topic": "/camera", "seconds": 0.0}, "seconds"),
        ({"topic": "/camera", "seconds": float("nan")}, "seconds"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_allowed(task: VideoQuestions, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as refusal:
        task.answer(request(**fields), work())
    assert refusal.value.code == "INVALID_REQUEST"


def test_topics_that_nobody_asks_about_any_more_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], domain_id=domain(97), signal_handler_options=SignalHandlerOptions.NO)
    talker = rclpy.create_node("talker")
    names = [f"/camera_{number}" for number in range(MOST_TOPICS + 1)]
    topics = Topics(names[:1])
    try:
        for name in names[1:MOST_TOPICS]:
            topics.listen(name)
        since = topics.since(names[1])
        topics.listen(names[1])
        assert topics.since(names[1]) == since, "it is heard already"
        topics.listen(names[-1])
        with pytest.raises(KeyError):
            topics.since(names[2])  # asked about longest ago, of those that are not to be heard for good
        publisher = talker.create_publisher(Image, names[-1], qos_profile_sensor_data)
        deadline = time.monotonic() + 20
        while not topics.last(names[-1], 60.0)[0] and time.monotonic() < deadline:
            publisher.publish(clip(1)[0])
            time.sleep(0.05)
        assert topics.last(names[-1], 60.0)[0]
        with pytest.raises(Refused, match="not a topic"):
            topics.listen("not a topic")
        topics.close()
        with pytest.raises(Refused, match="deactivated"):
            topics.listen(names[0])
        deadline = time.monotonic() + 20
        while publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert publisher.get_subscription_count() == 0
    finally:
        topics.close()
        rclpy.try_shutdown()


@contextlib.contextmanager
def spun(*words: str) -> Iterator[tuple[ServicesNode, Any]]:
    """The services' node with these ROS arguments, and another node of the same process, which hears nothing of them."""
    rclpy.init(args=["--ros-args", "-r", "__node:=serving", "-p", "tasks:=[video_qa]", *words], domain_id=domain(93))
    node, other = ServicesNode(), rclpy.create_node("other", use_global_arguments=False)
    with spinning(node, other):
        try:
            yield node, other
        finally:
            node.deactivate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_topics_are_heard_from_the_activation_on_by_a_node_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with spun("-r", "__ns:=/robot", "-r", "camera:=/cameras/front", "-p", "video_qa.topics:=[camera, side]") as (node, other):
        talkers = [other.create_publisher(Image, topic, qos_profile_sensor_data) for topic in ("/cameras/front", "/robot/side")]
        assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        until(lambda: all(talker.get_subscription_count() == 1 for talker in talkers))
        until(lambda: "video_listener" in other.get_node_names())
        assert other.get_node_names().count("serving") == 1
        asking = other.create_client(srv.AnswerVideoQuestion, "/robot/pcm/answer_video_question")
        assert asking.wait_for_service(20)
        until(lambda: other.count_services("/robot/serving/get_parameters") == 1)
        refused = asking.call_async(request(topic="no topic", seconds=1.0))
        until(refused.done)
        assert refused.result().error_code == refused.result().INVALID_REQUEST and "no topic" in refused.result().error_msg
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        until(lambda: all(talker.get_subscription_count() == 0 for talker in talkers))
        until(lambda: "video_listener" not in other.get_node_names())


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["good", "not a topic"], "parameter 'video_qa.topics' names 'not a topic', which is no name of a topic"),
        ([f"camera_{number}" for number in range(MOST_TOPICS + 1)], f"names {MOST_TOPICS + 1} topics; allowed: at most {MOST_TOPICS}"),
    ],
)
def test_topics_that_cannot_be_heard_fail_the_configuration(monkeypatch: pytest.MonkeyPatch, names: list[str], told: str) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with spun() as (node, _):
        node.set_parameters([Parameter("video_qa.topics", value=names)])
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert told in node.status().message


def test_no_time_left_is_said(task: VideoQuestions) -> None:
    with pytest.raises(Refused) as refusal:
        task.answer(request(images=clip()), work(0.0))
    assert refusal.value.code == "DEADLINE"


def test_no_such_model(tmp_path: Path) -> None:
    values = {parameter.name: parameter.default for parameter in VideoQuestions.PARAMETERS} | {"video_qa.model": str(tmp_path / "none")}
    with pytest.raises(Refused) as refusal:
        VideoQuestions(values.__getitem__).answer(request(images=clip()), work())
    assert refusal.value.code == "MODEL"


@pytest.mark.parametrize("padding", [0, 5])
def test_encodings(padding: int) -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(rgb_of(image(rgb, padding=padding)), rgb)
    assert np.array_equal(rgb_of(image(rgb[..., ::-1], "bgr8", padding)), rgb)
    assert np.array_equal(rgb_of(image(rgb[..., :1], "mono8", padding)), rgb[..., :1].repeat(3, axis=2))


def test_images_that_are_not_what_they_say() -> None:
    with pytest.raises(Refused, match="16UC1"):
        rgb_of(image(np.zeros((2, 2, 3), dtype=np.uint8), "16UC1"))
    broken = image(np.zeros((4, 4, 3), dtype=np.uint8))
    broken.height = 400
    with pytest.raises(Refused, match="step"):
        rgb_of(broken)
