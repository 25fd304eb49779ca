"""Waiting for what another process answers: until it is there, the process is gone, time is over, or somebody asks to stop.

Call it from a thread that does not serve the executor's callbacks which bring the answers.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from pcm_ros.nodes.discovery import Repeated

POLL = 0.1
"""Seconds between two looks at whether to wait on."""
_ASK_AGAIN = 5.0  # seconds, for the first answer of a service


class RemoteError(RuntimeError):
    """Another process did not answer, or answered with an error. The text names it."""


class Stopped(RuntimeError):
    """The wait was ended because somebody asked to stop."""


def wait(
    future: Future,
    timeout: float,
    what: str,
    alive: Callable[[], bool],
    should_stop: Callable[[], bool] = lambda: False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Any:
    """The future's result. Raises RemoteError after `timeout` seconds or as soon as the other side is gone, Stopped when asked to stop."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    deadline = time.monotonic() + timeout
    while not done.wait(min(POLL, max(0.0, deadline - time.monotonic()))):
        if should_stop():
            raise Stopped(f"stopped while waiting for {what}")
        if not alive():
            raise RemoteError(f"{what} is gone: its process ended or cannot be reached; restart it")
        if time.monotonic() >= deadline:
            raise RemoteError(f"{what} gave no answer within {timeout:g} s; it hangs, or is overloaded")
        meanwhile()
    return future.result()


class RemoteService:
    """A service of another node, called and waited for. It exists while that node is active. Calling it twice does no harm."""

    def __init__(self, node: Node, kind: Any, name: str, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]) -> None:
        self._node, self._timeout, self._should_stop = node, timeout, should_stop
        self._client: Client = node.create_client(kind, name, callback_group=group)
        self._has_answered = False

    @property
    def ready(self) -> bool:
        return bool(self._client.service_is_ready())

    def call(self, request: Any) -> Any:
        what = f"service '{self._client.service_name}'"
        if not self.ready:
            self._has_answered = False
            raise RemoteError(
                f"{what} is not there: its node ended or is not active; restart it (its log and /diagnostics say why it ended)"
            )
        # Once it has answered, an answer that does not come is not lost: it hangs, and must not find a heap of requests afterwards.
        again = math.inf if self._has_answered else _ASK_AGAIN
        asking = Repeated(lambda: self._client.call_async(request), self._client.remove_pending_request, again)
        try:
            response = wait(asking.answer, self._timeout, what, self._client.service_is_ready, self._should_stop, asking.poll)
        except RemoteError:
            self._has_answered = self._has_answered and self.ready  # else whoever comes back has to find this client first
            raise
        finally:
            asking.close()
        self._has_answered = True
        return response

    def close(self) -> None:
        self._node.destroy_client(self._client)
