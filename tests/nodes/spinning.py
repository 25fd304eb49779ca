"""Nodes of tests: their ROS domains, since tests share a machine with each other, and the thread that spins them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from pcm_ros.nodes.lifecycle import spin_on


def domain(number: int) -> int:
    """The ROS domain of a test file with a number (90 to 99) of its own, another one in each of pytest-xdist's workers."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return number - 10 * (worker % 8)


@contextlib.contextmanager
def spinning(*nodes: Node, workers: int = 4) -> Iterator[threading.Thread]:
    """Nodes of one ROS context, spun by a thread until the end, which is the context's too."""
    context = nodes[0].context
    executor = MultiThreadedExecutor(num_threads=workers, context=context)
    for node in nodes:
        executor.add_node(node)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            spin_on(executor, context)  # as the nodes' own processes do

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        if context is rclpy.get_default_context():
            rclpy.try_shutdown()  # makes place for another one too
        else:
            context.try_shutdown()
        thread.join(20.0)
