"""A flag that signal handlers set and a program waits for."""

from __future__ import annotations

import time

_LOOK = 0.02  # seconds between two looks


class AskedToEnd:
    """Like `threading.Event`, but safe to be set by a signal handler.

    An Event is not: its lock is not reentrant, and a second signal that meets the main thread inside `set` or `wait` would wait for that
    very thread, for ever.
    """

    def __init__(self) -> None:
        self._asked = 0

    def set(self) -> None:
        """Somebody asks."""
        self._asked += 1

    def is_set(self) -> bool:
        """Whether somebody has asked."""
        return self._asked > 0

    def insists(self) -> bool:
        """Whether somebody has asked more than once."""
        return self._asked > 1

    def wait(self, seconds: float) -> bool:
        """Wait until somebody asks, but no longer than this; whether somebody has."""
        until = time.monotonic() + seconds
        while not self._asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(_LOOK, left))
        return self.is_set()
