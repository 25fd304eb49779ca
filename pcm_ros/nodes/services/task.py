"""What services_node asks of a task: its service, its parameters, and an answer to each request."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pcm_ros.nodes.lifecycle import ConfigurationError, Parameter


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        code: name of the constant of the response: "INVALID_REQUEST", "MODEL", ...
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Work:
    """What a task is told about the request that it works on.

    Attributes:
        deadline: time.monotonic() at which an answer must be given.
        arrived: time.monotonic() at which the request came. started: at which it left the queue.
        stop: whether it was cancelled, or the node ends; to be asked often.
        report: tell the caller how far it is: (steps done, steps to be done or 0, words for people).
    """

    deadline: float
    arrived: float
    started: float
    stop: Callable[[], bool]
    report: Callable[[int, int, str], None]

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


class ServedTask(ABC):
    """A task of services_node.

    Every service has in its request `string id` and `float64 deadline` (seconds; 0: the node's limit), in its response
    `uint16 error_code`, `string error_msg` and at least the constants NONE=0, INVALID_REQUEST, MODEL, BUSY, DEADLINE, CANCELED, ERROR.

    Args:
        value: gives the present value of a parameter of the node by its name.
        resolve: gives the full name of a topic, as the node's namespace and remappings make it. Raises for what is no name.
    """

    name: ClassVar[str]
    service: ClassVar[str]
    kind: ClassVar[Any]
    PARAMETERS: ClassVar[Sequence[Parameter]] = ()

    def __init__(self, value: Callable[[str], Any], resolve: Callable[[str], str] = lambda name: name) -> None:
        self.value, self.resolve = value, resolve

    def check(self) -> None:  # noqa: B027 most tasks' parameters say by themselves what is allowed
        """Whether the parameters can be worked with; at configuration, and nothing may be kept. Raises ConfigurationError."""

    def open(self) -> None:  # noqa: B027 as `close`
        """The node is activated: hear and hold what requests will ask for."""

    @abstractmethod
    def answer(self, request: Any, work: Work) -> Any:
        """The response to a request; called in the task's own thread, one request at a time.

        Raises Refused for what ends with a code of its own; any other exception is answered with ERROR, and logged.
        """

    @abstractmethod
    def warm_up(self) -> None:
        """Load the models that the parameters name. Called in the task's thread, before the first request, where the node is told to."""

    def close(self) -> None:  # noqa: B027 most tasks hold nothing but models
        """Let go of what is held beside models; the node is deactivated, and nothing is asked of this object afterwards."""


def check_path(parameter: str, path: str) -> None:
    """Raises ConfigurationError unless a parameter that names a file or folder is empty or names one that is there."""
    if path and not Path(path).exists():
        raise ConfigurationError(
            f"parameter '{parameter}' is '{path}', which does not exist; remedy: leave it empty, or name what is there"
        )


def checked_deadline(deadline: float, longest: float) -> float:
    """Seconds that a request may take. Raises Refused."""
    if not math.isfinite(deadline) or not 0 <= deadline <= longest:
        raise Refused("INVALID_REQUEST", f"deadline is {deadline:g}; allowed: 0 (the node's limit) to {longest:g} s (parameter 'longest')")
    return deadline or longest
