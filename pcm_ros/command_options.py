"""How options of commands and launch arguments are read, wherever they stand."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The names in "a, b"."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
