"""Starts the processes of a system, brings their lifecycle up, and ends them: what `pcm launch` does without a ROS distribution."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from pcm_ros.bringup import NodeSpec, System, command, environment
from pcm_ros.client import ManipulationClient, NotAvailable

# Read by pcm_ros.nodes.lifecycle.run: a node whose launcher was killed ends itself.
LAUNCHER_VARIABLE = "PCM_LAUNCHER_PID"


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
                self._show(self.spec.name, line.rstrip())

    def reason(self) -> str:
        """The last error that it logged, or its last line."""
        self._reader.join(0.5)
        lines = [line for line in self.lines if "[ERROR]" in line or "[FATAL]" in line or "cannot start" in line] or self.lines
        return lines[-1] if lines else "it said nothing"


class RunningSystem:
    """The processes of a system. Use as a context manager: leaving it ends them all.

    Args:
        system: from bringup.system().
        logs: folder for one log file per node.
        show: called with (node, line) for each line that a node prints.
    """

    def __init__(self, system: System, logs: Path, show: Callable[[str, str], None] = lambda _name, _line: None) -> None:
        self.system, self.nodes = system, dict[str, RunningNode]()
        self._logs, self._show = logs, show

    def __enter__(self) -> RunningSystem:
        variables = {**os.environ, **environment(), LAUNCHER_VARIABLE: str(os.getpid())}
        os.environ.update(environment())  # for the client in this process
        self._logs.mkdir(parents=True, exist_ok=True)
        for spec in self.system.nodes:
            arguments = command(spec, self.system.parameter_file)
            self.nodes[spec.name] = RunningNode(spec, arguments, variables, self._logs / f"{spec.name}.log", self._show)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def activate(self, client: ManipulationClient, timeout: float = 180.0, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Configure all nodes at the same time (models load), then activate them in order. Raises BringupError."""
        deadline = time.monotonic() + timeout
        services = {name: client.node.create_client(ChangeState, f"{name}/change_state") for name in self.nodes}
        try:
            for name, service in services.items():
                self._until(service.service_is_ready, name, "start", deadline, should_stop)
            self._transition(services, list(self.nodes), Transition.TRANSITION_CONFIGURE, "configure", deadline, should_stop)
            for name in self.nodes:
                self._transition(services, [name], Transition.TRANSITION_ACTIVATE, "activate", deadline, should_stop)
        finally:
            for service in services.values():
                client.node.destroy_client(service)

    def _transition(
        self, services: dict[str, Any], names: Sequence[str], transition: int, verb: str, deadline: float, should_stop: Callable[[], bool]
    ) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        futures = {name: services[name].call_async(request) for name in names}
        for name, future in futures.items():
            self._until(future.done, name, verb, deadline, should_stop)
            if not future.result().success:
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

    def stop(self, patience: float = 10.0) -> dict[str, int]:
        """End all processes (SIGINT, then SIGTERM, then SIGKILL); name -> exit code."""
        for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
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
