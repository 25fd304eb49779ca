"""Real processes over real DDS. Each system has a ROS domain of its own, and is ended when its fixture ends."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from rclpy.node import Node

from pcm_ros import bringup, msg
from pcm_ros.action import ExecutePickPlace
from pcm_ros.client import ManipulationClient, Outcome
from pcm_ros.processes import RunningSystem

HERE = Path(__file__).parent
RELATION_SCORER = {"scorer": bringup.RELATION_SCORER}
INSTRUCTION = "put the red mug to the left of the blue bowl"
_numbers = itertools.count(os.getpid() % 97)


def own_domain() -> int:
    """A ROS domain id that no other test of this run uses at the same time (0 and those of the ephemeral ports are left alone)."""
    return 2 + next(_numbers) % 98


def write_parameters(path: Path, scorers: dict[str, dict[str, Any]], **consensus: Any) -> Path:
    """A parameter file of a small, quick system."""
    planning = {"proposals": 128, "iterations": 5, "agreement": 1.0, "quorum": 0.6, "timeout": 10.0, "attempts": 3, "view_timeout": 5.0}
    sections: dict[str, dict[str, Any]] = {"/**": {"grounders": ["segmenter"]}, "consensus": {**planning, **consensus}, **scorers}
    path.write_text(yaml.safe_dump({name: {"ros__parameters": parameters} for name, parameters in sections.items()}))
    return path


@dataclass
class Bench:
    """A running system, a client of it, and what the last goal reported."""

    running: RunningSystem
    client: ManipulationClient
    parameter_file: Path
    domain: int

    def manipulate(self, instruction: str = INSTRUCTION, seed: int = 0) -> tuple[Outcome, list[msg.ConsensusState]]:
        states: list[msg.ConsensusState] = []
        return self.client.manipulate(instruction, seed, states.append, timeout=400.0), states


class MotionFeedback:
    """Hears the feedback of the motions of the cell, which is sent while they are under way."""

    def __init__(self, node: Node) -> None:
        self._node, self.begun, self.count = node, threading.Event(), 0
        topic = "workcell/execute/_action/feedback"
        self._heard = node.create_subscription(ExecutePickPlace.Impl.FeedbackMessage, topic, self._hear, 10)

    def _hear(self, _: object) -> None:
        self.count += 1
        self.begun.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_subscription(self._heard)


@contextmanager
def running_system(folder: Path, parameter_file: Path, remappings: dict[str, str] | None = None, **arguments: str) -> Iterator[Bench]:
    """Start a system on a domain of its own; its scorers may come from scorers_for_tests.py beside this file."""
    domain = own_domain()
    words = [f"config:={parameter_file}", f"output:={folder / 'videos'}", *(f"{name}:={value}" for name, value in arguments.items())]
    system = bringup.system("manipulation", words)
    if remappings:
        nodes = tuple(replace(node, remappings=remappings) if node.name == "sim" else node for node in system.nodes)
        system = replace(system, nodes=nodes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(domain))
        patch.setenv("PYTHONPATH", str(HERE))
        for name, value in bringup.environment().items():
            patch.setenv(name, value)
        with RunningSystem(system, folder / "log") as running, ManipulationClient(domain_id=domain) as client:
            running.activate(client)
            yield Bench(running, client, parameter_file, domain)
