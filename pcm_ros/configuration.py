"""The planner's configuration from ROS parameters, or from their sections of a parameter file: one file serves nodes and `pcm run`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcm_ros.bringup import read_parameters
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig

FIELDS = tuple(field.name for field in dataclasses.fields(ManipulationConfig))
_DEFAULTS = ManipulationConfig()
_ALLOWED: Mapping[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str,)),
    tuple: ("a list", (list, tuple)),
}
"""Type of a default -> in words, and what may stand for it in YAML."""


def manipulation_config(values: Mapping[str, Any]) -> ManipulationConfig:
    """The values whose names are fields of ManipulationConfig; those that are not there keep their defaults.

    Raises:
        ValueError: a value out of its range, or a weight that is not 'scorer name=number'.
    """
    settings: dict[str, Any] = {}
    for name in FIELDS:
        if name not in values:
            continue
        value, default = values[name], getattr(_DEFAULTS, name)
        _check_type(name, value, default)
        if name == "weights":
            settings[name] = tuple(_weight(text) for text in value)
        else:
            settings[name] = tuple(value) if isinstance(default, tuple) else value
    return ManipulationConfig(**settings)


def _check_type(name: str, value: object, default: object) -> None:
    kind = next(kind for kind in _ALLOWED if isinstance(default, kind))
    wanted, allowed = _ALLOWED[kind]
    if not isinstance(value, allowed) or isinstance(value, bool) != (kind is bool):
        raise ValueError(f"parameter '{name}' is {value!r}; allowed: {wanted}, such as {default}")


def manipulation_config_of(parameter_file: Path) -> ManipulationConfig:
    """What the consensus node would use. Raises LaunchError: the file cannot be read, ValueError as above."""
    sections = read_parameters(parameter_file)
    return manipulation_config({**sections.get("/**", {}), **sections.get("consensus", {})})


def _weight(text: str) -> tuple[str, float]:
    name, sign, number = text.rpartition("=")
    try:
        if not sign:
            raise ValueError("no '='")
        return name, float(number)
    except ValueError as error:
        raise ValueError(f"parameter 'weights' has the entry '{text}'; it must read 'scorer name=number'") from error
