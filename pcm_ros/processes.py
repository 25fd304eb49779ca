"""Starts the processes of a system, brings their lifecycle up, and ends them: what `pcm launch` does without a ROS distribution."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from rclpy.task import Future

from pcm_ros.bringup import NodeSpec, System, command, environment
from pcm_ros.client import NotAvailable, RosClient

# Read by pcm_ros.nodes.lifecycle.run: a node whose launcher was killed ends itself.
LAUNCHER_VARIABLE = "PCM_LAUNCHER_PID"

_STATE_AFTER = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_CLEANUP: State.PRIMARY_STATE_UNCONFIGURED,
}
_ASK_AGAIN = 2.0  # seconds


class BringupError(RuntimeError):
    """A process did not start, or a node did not become active. The message holds the node's own reason."""


class RunningNode:
    """One process, its log file, and its last lines."""

    def __init__(
        self, spec: NodeSpec, arguments: list[str], variables: dict[str, str], log: Path, show: Callable[[str, str], None]
    ) -> None:
        self.spec, self.log = spec, log
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            arguments,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches the launcher alone, which ends the nodes in order
        )
        self._show = show
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.log.open("w", encoding="utf-8") as file:
            for line in self.process.stdout:
                file.write(line)
                file.flush()
                self.lines = [*self.lines[-19:], line.rstrip()]
                with contextlib.suppress(Exception):  # who looks on must not stop the node, whose pipe would fill
                    self._show(self.spec.name, line.rstrip())

    def reason(self) -> str:
        """The last error that it logged, or its last line."""
        self._reader.join(0.5)
        lines = [line for line in self.lines if "[ERROR]" in line or "[FATAL]" in line or "cannot start" in line] or self.lines
        return lines[-1] if lines else "it said nothing"


class Lifecycle:
    """The lifecycle of one node, seen from outside: ask for a transition, then poll what became of it.

    A server that has not yet discovered this client's reader loses its answer (rmw_fastrtps waits 100 ms for it, too little on a busy
    machine). So the state of the node decides, not the answer alone, and what was lost is asked again.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._changing = node.create_client(ChangeState, f"{name}/change_state")
        self._asking = node.create_client(GetState, f"{name}/get_state")
        self._answer: Future | None = None
        self._state: Future | None = None

    def ready(self) -> bool:
        return bool(self._changing.service_is_ready() and self._asking.service_is_ready())

    def request(self, transition: int) -> None:
        """Ask for a transition: one of Transition.TRANSITION_CONFIGURE, _ACTIVATE, _DEACTIVATE, _CLEANUP."""
        self._transition, self._since, self._state = transition, time.monotonic(), None
        self._answer = self._changing.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def outcome(self) -> bool | None:
        """Whether the transition succeeded; None: not known yet."""
        assert self._answer is not None
        answered = self._answer.done()
        if answered and self._answer.result().success:
            return True
        late = time.monotonic() - self._since > _ASK_AGAIN
        if self._state is None:
            if answered or late:
                self._ask_state()
        elif self._state.done():
            if self._state.result().current_state.id == _STATE_AFTER[self._transition]:
                return True  # of an earlier request, the answer to which was lost
            if answered:
                return False
            if late:
                self.request(self._transition)
        elif late:  # lost as well, or the node is at work and will answer when it is done
            self._ask_state()
        return None

    def decided(self) -> bool:
        return self.outcome() is not None

    def _ask_state(self) -> None:
        self._since, self._state = time.monotonic(), self._asking.call_async(GetState.Request())

    def close(self) -> None:
        self._node.destroy_client(self._changing)
        self._node.destroy_client(self._asking)


class RunningSystem:
    """The processes of a system. Use as a context manager: leaving it ends them all.

    Args:
        system: from bringup.system().
        logs: folder for one log file per node.
        show: called with (node, line) for each line that a node prints.
    """

    def __init__(self, system: System, logs: Path, show: Callable[[str, str], None] = lambda _name, _line: None) -> None:
        self.system, self.nodes = system, dict[str, RunningNode]()
        self._logs, self._show, self._active = logs, show, False

    def __enter__(self) -> RunningSystem:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BringupError(f"'{self._logs}' cannot be made: {error.strerror}; remedy: start in a folder that can be written") from error
        variables = {**os.environ, **environment(), LAUNCHER_VARIABLE: str(os.getpid())}
        os.environ.update(environment())  # for the client in this process
        for spec in self.system.nodes:
            arguments = command(spec, self.system.parameter_file, self.system.namespace)
            self.nodes[spec.name] = RunningNode(spec, arguments, variables, self._logs / f"{spec.name}.log", self._show)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def activate(self, client: RosClient, timeout: float = 180.0, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Configure all nodes at the same time (models load), then activate them in order. Raises BringupError; KeyboardInterrupt if
        `should_stop` says so."""
        deadline = time.monotonic() + timeout
        lifecycles = {name: Lifecycle(client.node, name) for name in self.nodes}
        try:
            for name, lifecycle in lifecycles.items():
                self._until(lifecycle.ready, name, "start", deadline, should_stop)
            self._check_namesakes(client, 1)
            self._transition(lifecycles, Transition.TRANSITION_CONFIGURE, "configure", deadline, should_stop)
            for name, lifecycle in lifecycles.items():
                self._transition({name: lifecycle}, Transition.TRANSITION_ACTIVATE, "activate", deadline, should_stop)
            self._active = True
        finally:
            for lifecycle in lifecycles.values():
                lifecycle.close()

    def refuse_namesakes(self, client: RosClient, seconds: float = 1.0) -> None:
        """To be called before the processes are started: look for nodes with the names of this system's for so many seconds.

        Raises:
            BringupError: there is one, of another system: each would hear what is for the other.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check_namesakes(client, 0)
            time.sleep(0.05)

    def _check_namesakes(self, client: RosClient, own: int) -> None:
        """Raises BringupError where there are more nodes of one of the system's names than its own ones, 0 or 1."""
        within = f"/{self.system.namespace}" if self.system.namespace else "/"
        running = [name for name, namespace in client.node.get_node_names_and_namespaces() if namespace == within]
        if twice := [node.name for node in self.system.nodes if running.count(node.name) > own]:
            domain = os.environ.get("ROS_DOMAIN_ID", "0")
            raise BringupError(
                f"another node '{within.rstrip('/')}/{twice[0]}' runs in ROS domain {domain}: end it, set another ROS_DOMAIN_ID, or give "
                "this system a namespace (namespace:=NAME)"
            )

    def _transition(
        self, lifecycles: Mapping[str, Lifecycle], transition: int, verb: str, deadline: float, should_stop: Callable[[], bool]
    ) -> None:
        for lifecycle in lifecycles.values():
            lifecycle.request(transition)
        for name, lifecycle in lifecycles.items():
            self._until(lifecycle.decided, name, verb, deadline, should_stop)
            if not lifecycle.outcome():
                time.sleep(0.2)  # its reason is on the way through the pipe
                raise BringupError(f"node '{name}' did not {verb}: {self.nodes[name].reason()}")

    def _until(self, done: Callable[[], bool], name: str, verb: str, deadline: float, should_stop: Callable[[], bool]) -> None:
        while not done():
            if should_stop():
                raise KeyboardInterrupt
            code = self.nodes[name].process.poll()
            if code is not None:
                raise BringupError(f"node '{name}' ended with exit code {code} before it could {verb}: {self.nodes[name].reason()}")
            if time.monotonic() > deadline:
                raise BringupError(f"node '{name}' did not {verb} in time; its log is {self.nodes[name].log}")
            time.sleep(0.02)

    def ended(self) -> dict[str, int]:
        """Name -> exit code of the processes that have ended."""
        codes = {name: node.process.poll() for name, node in self.nodes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def check(self) -> None:
        """Raises NotAvailable if a process has ended without which the system cannot go on."""
        for name, code in self.ended().items():
            if self.nodes[name].spec.essential:
                raise NotAvailable(f"node '{name}' ended with exit code {code}: {self.nodes[name].reason()}")

    @property
    def active(self) -> bool:
        """Whether all nodes have been activated; before, a signal may end them while they load, with its own exit code."""
        return self._active

    def stop(self, patience: float = 10.0) -> dict[str, int]:
        """End all processes (SIGINT, then SIGTERM, then SIGKILL); name -> exit code."""
        for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            alive = [node for node in self.nodes.values() if node.process.poll() is None]
            for node in alive:
                node.process.send_signal(number)
            deadline = time.monotonic() + seconds
            for node in alive:
                try:
                    node.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue
        return self.ended()
