"""/pcm/answer_video_question without ROS around it: clips are taken as pictures or files, what does not fit is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from pcm_ros.nodes.services.task import Refused, Work
from pcm_ros.nodes.services.video_qa import MOST_TOPICS, Topics, VideoQuestions, rgb_of
from tests.models.tiny_language import make_model

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
    rclpy.init(args=[], domain_id=97, signal_handler_options=SignalHandlerOptions.NO)
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
        deadline = time.monotonic() + 20
        while publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert publisher.get_subscription_count() == 0
    finally:
        topics.close()
        rclpy.try_shutdown()


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
