"""The thread of a client."""

from __future__ import annotations

import threading

import pytest
from rclpy.task import Future

from pcm_ros.client import RosClient


def test_a_callback_that_raises_does_not_end_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    raised, answer = threading.Event(), Future()

    def on_feedback() -> None:
        if raised.is_set():
            answer.set_result("the end")
        else:
            raised.set()
            raise BrokenPipeError("whoever read this is gone")

    with RosClient("nobody", domain_id=97) as client:
        client.node.create_timer(0.05, on_feedback)
        assert client.wait(answer, 20.0) == "the end"
