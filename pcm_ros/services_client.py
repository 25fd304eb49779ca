"""Ask a running services system, from plain Python.

with ServicesClient() as client:
    solution = client.solve_math("Tom has 3 boxes of 12 eggs and eats 4. How many are left?", on_progress=print)
    print(solution.answer, solution.complete)
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from rclpy.client import Client

from pcm_ros import msg, srv
from pcm_ros.client import NotAvailable, RosClient
from pcm_ros.nodes.checked_messages import checked_message
from pcm_ros.nodes.discovery import Repeated
from pcm_ros.nodes.services.mathematics import Mathematics, solution_of
from pcm_ros.tasks.mathematics.solver import Solution

_GREETING = 1.0  # seconds after which an unanswered greeting is sent again


class ServiceError(RuntimeError):
    """A request was answered with an error.

    Attributes:
        code: name of the constant: "INVALID_REQUEST", "BUSY", ...
        response: the whole answer; what was found before a cancellation is in it.
    """

    def __init__(self, code: str, message: str, response: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.response = code, response


class Request:
    """A request that was sent.

    Attributes:
        id: its name in progress and for `cancel`.
    """

    def __init__(self, client: ServicesClient, identity: str, future: Any, kind: Any, service: Client) -> None:
        self.id, self._client, self._future, self._kind, self._service = identity, client, future, kind, service

    def done(self) -> bool:
        return bool(self._future.done())

    def cancel(self) -> None:
        """Ask for its end; the result then raises ServiceError with the code CANCELED. Returns at once."""
        self._client.cancel(self.id)

    def result(self, timeout: float | None = None) -> Any:
        """The response. Raises ServiceError, NotAvailable when the node is gone, TimeoutError after `timeout` seconds."""
        try:
            response = self._client.wait(self._future, timeout, self._service.service_is_ready)
        finally:
            self._client.forget(self)
        if response.error_code:
            raise ServiceError(_name_of(self._kind, response.error_code), response.error_msg, response)
        return response


class ServicesClient(RosClient):
    """A client of the services system.

    Args:
        node: name of the services node.
        domain_id: ROS domain; None: that of the environment.
        namespace: in which this node is; empty: none.
    """

    def __init__(self, node: str = "services", domain_id: int | None = None, namespace: str = "") -> None:
        super().__init__(f"services node '{node}'", domain_id, namespace)
        self._known: dict[str, tuple[Client, Client]] = {}  # of each service, and the one that greets its node
        self._listeners: dict[str, Callable[[msg.ServiceProgress], None]] = {}
        self._cancelling = self.node.create_client(srv.CancelRequest, f"{node}/cancel")
        self._subscription = self.node.create_subscription(msg.ServiceProgress, f"{node}/progress", self._progress, 100)

    def start(
        self,
        kind: Any,
        name: str,
        request: Any,
        on_progress: Callable[[msg.ServiceProgress], None] | None = None,
        timeout: float = 10.0,
    ) -> Request:
        """Send a request to a service of the node, and return at once.

        Args:
            kind, name: of the service, as in `ServedTask`. request: its id is set here if it is empty.
            on_progress: called for each report on it, from the client's thread.
            timeout: seconds to wait for the node.

        Raises:
            NotAvailable: nobody offers this service.
        """
        if name not in self._known:
            # Readers are announced in the order in which they were made: who has found that of the greeting has found the service's.
            service = self.node.create_client(kind, name)
            self._known[name] = service, self.node.create_client(srv.CancelRequest, self._cancelling.service_name)
        service, greeter = self._known[name]
        deadline = time.monotonic() + timeout
        if not (service.wait_for_service(timeout) and greeter.wait_for_service(max(0.1, deadline - time.monotonic()))):
            raise NotAvailable(
                f"no {self._partner} offers '{name}' within {timeout:g} s: start one with `pcm launch services`; if one runs, compare "
                "ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE (`pcm doctor`)"
            )
        # DDS may lose the first answer to a client that was just found, and a request must not be worked on twice: see discovery.py
        greeting = Repeated(lambda: greeter.call_async(srv.CancelRequest.Request()), greeter.remove_pending_request, _GREETING)
        try:
            self.wait(greeting.answer, max(timeout, 10.0), greeter.service_is_ready, greeting.poll)
        except TimeoutError as error:
            raise NotAvailable(f"{self._partner} is there, but does not answer: {error}; it hangs") from error
        finally:
            greeting.close()
        request.id = request.id or uuid.uuid4().hex
        if on_progress is not None:
            self._listeners[request.id] = on_progress
        return Request(self, request.id, service.call_async(request), kind, service)

    def solve_math(
        self,
        question: str,
        *,
        on_progress: Callable[[msg.ServiceProgress], None] | None = None,
        timeout: float | None = None,
        **fields: Any,
    ) -> Solution:
        """Solve a word problem and wait for the solution, as `pcm_ros.tasks.mathematics.assembly.solve` gives it.

        Args:
            timeout: seconds to wait for the answer; None: as long as the node lives.
            fields: other fields of SolveMath.srv by name: method, beam, proposals, temperature, seed, deadline, max_tokens, ...

        Raises:
            ServiceError, NotAvailable, TimeoutError; TypeError, ValueError: a field or value that does not fit. Whatever ends the wait,
                Ctrl-C too, cancels the request.
        """
        request = self.start(
            Mathematics.kind, Mathematics.service, checked_request(Mathematics.kind, question=question, **fields), on_progress
        )
        try:
            return solution_of(question, request.result(timeout))
        except BaseException:
            if not request.done():
                self.cancel(request.id, wait=1.0)
            raise

    def cancel(self, identity: str, wait: float = 0.0) -> None:
        """Ask the node to cancel a request. Returns when it has heard of it, after `wait` seconds at most."""
        heard = threading.Event()
        self._cancelling.call_async(checked_request(srv.CancelRequest, id=identity)).add_done_callback(lambda _: heard.set())
        heard.wait(wait)

    def forget(self, request: Request) -> None:
        """No more progress of this request is told."""
        self._listeners.pop(request.id, None)

    def _progress(self, message: msg.ServiceProgress) -> None:
        if (listener := self._listeners.get(message.id)) is not None:
            listener(message)


def checked_request(kind: Any, **fields: Any) -> Any:
    """A request of a service with these fields. Raises TypeError: unknown fields, or values of another type; ValueError: out of range."""
    return checked_message(kind.Request, f"{kind.__name__}.srv", **fields)


def _name_of(kind: Any, code: int) -> str:
    names = {value: name for name in dir(kind.Response) if name.isupper() and isinstance(value := getattr(kind.Response, name), int)}
    return names.get(code, f"code {code}")
