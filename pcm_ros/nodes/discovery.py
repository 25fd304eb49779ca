"""How two processes that are only finding each other come to talk all the same: what ROS loses meanwhile, and how it is had.

The two sides of a service learn of each other one after the other. A server that has not yet found its client's reader loses the answer:
rmw_fastrtps waits 100 ms for it, too little on a busy machine. So the first request to a server is sent again until an answer comes, and
before a goal, which must not be sent twice, goes a request that changes nothing.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.task import Future
from unique_identifier_msgs.msg import UUID


class ActionClientWhileSpinning(ActionClient):
    """An action client that can be made while an executor spins its node.

    rclpy shows a new client to the node's executor before the client has its lock: an executor that looks in between ends with an
    AttributeError, and its node hears nothing any more. Here the lock is there first; rclpy then puts its own in its place.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lock = threading.Lock()
        super().__init__(*arguments, **options)


class SentGoal:
    """A goal that was sent to an action's server.

    Attributes:
        answer: done, with the goal's handle, when the server has accepted or rejected it.
    """

    def __init__(self, client: ActionClient, action: Any, goal: Any, on_feedback: Callable[[Any], None] | None = None) -> None:
        self._client, self._action, self._id = client, action, _new_id()
        self.answer: Future = client.send_goal_async(goal, feedback_callback=on_feedback, goal_uuid=self._id)

    def withdraw(self) -> None:
        """Nobody waits for the answer any more: see to it that the goal ends, also if the server accepts it only later."""
        self.answer.add_done_callback(_cancel_accepted)
        # By its name too: a server that comes to the goal later finds this behind it, though this process may be gone by then.
        _cancel(self._client, self._action, self._id)


def _cancel_accepted(answer: Future) -> None:
    handle = answer.result()
    if handle is not None and handle.accepted:
        handle.cancel_goal_async()


def _cancel(client: ActionClient, action: Any, goal_id: UUID) -> Future:
    return ClientGoalHandle(client, goal_id, action.Impl.SendGoalService.Response()).cancel_goal_async()


def _new_id() -> UUID:
    return UUID(uuid=list(uuid.uuid4().bytes))


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
    return Repeated(lambda: _cancel(client, action, _new_id()), again=1.0)
