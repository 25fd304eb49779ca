"""ROS domains of tests that share a machine with each other."""

from __future__ import annotations

import os


def domain(number: int) -> int:
    """The ROS domain of a test file with a number (90 to 99) of its own, another one in each of pytest-xdist's workers."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return number - 10 * (worker % 8)
