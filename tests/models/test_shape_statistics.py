"""Statistics of shapes do not depend on where an object stands, and tell hollow things from solid ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.models.shape_statistics import STATISTICS, shape_statistics

ANGLES = np.linspace(0, 2 * np.pi, 60, endpoint=False)


def vessel(radius: float, height: float, foot: float = 1.0) -> np.ndarray:
    """The wall and the floor of a hollow round thing."""
    wall = [
        [radius * (foot + (1 - foot) * z / height) * np.cos(a), radius * (foot + (1 - foot) * z / height) * np.sin(a), z]
        for z in np.linspace(0, height, 12)
        for a in ANGLES
    ]
    floor = [[r * np.cos(a), r * np.sin(a), 0.004] for r in np.linspace(0, radius * foot, 8) for a in ANGLES]
    return np.array(wall + floor, dtype=np.float32)


def solid(radius: float, height: float) -> np.ndarray:
    """The wall and the top of a cylinder."""
    wall = [[radius * np.cos(a), radius * np.sin(a), z] for z in np.linspace(0, height, 12) for a in ANGLES]
    top = [[r * np.cos(a), r * np.sin(a), height] for r in np.linspace(0, radius, 8) for a in ANGLES]
    return np.array(wall + top, dtype=np.float32)


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 6.28), st.floats(-2, 2), st.floats(-2, 2), st.floats(-0.5, 1.5))
def test_place_and_turn_do_not_matter(turn: float, x: float, y: float, z: float) -> None:
    points = np.concatenate([vessel(0.05, 0.06, 0.6), [[0.08, 0.0, 0.03]] * 5]).astype(np.float32)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    moved = (points @ rotation.T + (x, y, z)).astype(np.float32)
    before, after = shape_statistics(points), shape_statistics(moved)
    assert before.shape == (STATISTICS,)
    assert np.isfinite(before).all()
    assert np.abs(before[:3] - after[:3]).max() < 0.1
    assert np.abs(before - after).mean() < 0.12


def test_hollow_and_solid_differ() -> None:
    bowl, can = shape_statistics(vessel(0.05, 0.06)), shape_statistics(solid(0.05, 0.06))
    assert bowl[:5] == pytest.approx(can[:5], abs=0.05), "they are of one size"
    assert np.abs(bowl - can).max() > 0.8


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_few_points_have_statistics_too(count: int) -> None:
    assert np.isfinite(shape_statistics(vessel(0.05, 0.06)[:count])).all()


@pytest.mark.parametrize("shape", [(0, 3), (4, 2), (3,)])
def test_what_is_no_cloud_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(P, 3\)"):
        shape_statistics(np.zeros(shape, dtype=np.float32))
