"""Waiting for one's turn at what several threads share."""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK = 0.05
"""Seconds between two looks at whether to wait on: a lock by itself hears no deadline of another clock, and no cancellation."""


def acquired(lock: threading.Lock, given_up: Callable[[], bool]) -> bool:
    """Wait for a lock and hold it: whoever gets true has to release it. False once `given_up` says so; it may raise instead, and is not
    asked where the lock is free."""
    while not lock.acquire(timeout=LOOK):
        if given_up():
            return False
    return True
