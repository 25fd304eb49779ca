"""Messages of what users give. A field of a wrong type that nobody checks ends the process, in rosidl's C code, when it is sent."""

from __future__ import annotations

import operator
import re
from numbers import Real
from typing import Any


def checked_integer(what: str, value: Any, low: int, high: int) -> int:
    """The value as an int; NumPy's integers are taken too. Raises TypeError: no integer; ValueError: out of `low` to `high` (included)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} is {value!r}, of type {type(value).__name__}; allowed: an integer, {low} to {high}") from None
    if not low <= number <= high:
        raise ValueError(f"{what} is {number}; allowed: an integer, {low} to {high}")
    return number


def checked_message(kind: Any, interface: str, **fields: Any) -> Any:
    """A message with these fields, every one checked.

    Args:
        kind: the message's class. interface: its file, for messages: "SolveMath.srv".

    Raises:
        TypeError: unknown fields, or values of another type. ValueError: integers out of the range of the field's type.
    """
    known = kind.get_fields_and_field_types()
    if unknown := set(fields) - set(known):
        raise TypeError(f"{interface} has no {', '.join(sorted(unknown))}; its fields are {', '.join(known)}")
    for name, value in fields.items():
        if integer := re.fullmatch(r"(u?)int(\d+)", known[name]):
            low, high = (0, 2 ** int(integer[2]) - 1) if integer[1] else (-(2 ** (int(integer[2]) - 1)), 2 ** (int(integer[2]) - 1) - 1)
            fields[name] = checked_integer(f"{interface}: '{name}'", value, low, high)
        elif known[name] == "double" and isinstance(value, Real) and not isinstance(value, bool):
            fields[name] = float(value)
    try:
        return kind(check_fields=True, **fields)
    except AssertionError as error:
        raise TypeError(f"{interface}: {error}") from error
