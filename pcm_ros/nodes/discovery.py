"""Answers that DDS loses while two processes are still finding each other, and how they are had all the same.

The two sides of a service learn of each other one after the other. A server that has not yet found its client's reader loses the answer:
rmw_fastrtps waits 100 ms for it, too little on a busy machine. So the first request to a server is sent again until an answer comes, and
before a goal, which must not be sent twice, goes a request that changes nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID


class Repeated:
    """A request that is sent again until it is answered; for requests that may be carried out twice without harm.

    Args:
        send: sends the request once.
        drop: forgets a request that was not answered.
        again: seconds after which it is sent again.

    Attributes:
        answer: done when the first answer has come.
    """

    def __init__(self, send: Callable[[], Future], drop: Callable[[Future], None] = lambda _: None, again: float = 5.0) -> None:
        self.answer: Future = Future()
        self._send, self._drop, self._again = send, drop, again
        self._sent: list[Future] = []
        self._ask()

    def _ask(self) -> None:
        self._last = time.monotonic()
        request = self._send()
        self._sent.append(request)
        request.add_done_callback(self._answered)

    def _answered(self, request: Future) -> None:
        if not self.answer.done():
            self.answer.set_result(request.result())

    def poll(self) -> None:
        """Send the request again if it is time to; to be called now and then while waiting for the answer."""
        if not self.answer.done() and time.monotonic() - self._last > self._again:
            self._ask()

    def close(self) -> None:
        """Nobody waits any more."""
        for request in self._sent:
            if not request.done():
                self._drop(request)


def greeting(client: ActionClient, action: Any) -> Repeated:
    """Asks an action's server to cancel a goal that does not exist. Its answer shows that it has found this client.

    Readers are announced in the order in which they were made: who has found that of the cancellations has found that of the goals.
    """

    def send() -> Future:
        nobody = UUID(uuid=list(uuid.uuid4().bytes))
        return ClientGoalHandle(client, nobody, action.Impl.SendGoalService.Response()).cancel_goal_async()

    return Repeated(send, again=1.0)
