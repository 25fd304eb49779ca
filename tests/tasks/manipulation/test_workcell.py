"""The boundary to a world: views, observations, actions, limits; what they refuse and what they compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pcm_ros.tasks.manipulation.workcell import (
    ExecutionCode,
    ExecutionResult,
    Gripper,
    InvalidObservation,
    Observation,
    PickPlace,
    View,
    WorkcellLimits,
    rotation_from_quaternion,
)

turns = (
    st.lists(st.floats(-1, 1), min_size=4, max_size=4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: np.array(q) / np.linalg.norm(q))
)


def view(orientation: np.ndarray | None = None, height: int = 12, width: int = 16, **changes: object) -> View:
    rng = np.random.default_rng(0)
    plain = View(
        "front",
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        rng.uniform(0.3, 2, (height, width)).astype(np.float32),
        np.array([[20.0, 0, (width - 1) / 2], [0, 22.0, (height - 1) / 2], [0, 0, 1]]),
        np.array([0.4, -0.2, 1.1]),
        np.array([0.0, 0, 0, 1]) if orientation is None else orientation,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@given(turns)
def test_rotations(quaternion: np.ndarray) -> None:
    assert np.allclose(rotation_from_quaternion(quaternion), Rotation.from_quat(quaternion).as_matrix(), atol=1e-9)


@given(turns)
def test_pixels_to_points_and_back(quaternion: np.ndarray) -> None:
    looked = view(quaternion)
    points = looked.points()
    uv, depth = looked.project(points)
    v, u = np.mgrid[: looked.depth.shape[0], : looked.depth.shape[1]]
    assert np.allclose(uv[..., 0], u, atol=1e-3)
    assert np.allclose(uv[..., 1], v, atol=1e-3)
    assert np.allclose(depth, looked.depth, atol=1e-5)


@pytest.mark.parametrize("nothing", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_no_return_is_no_point(nothing: float) -> None:
    depth = view().depth.copy()
    depth[3, 4] = nothing
    points = view(depth=depth).points()
    assert np.isnan(points[3, 4]).all()
    assert np.isfinite(np.delete(points.reshape(-1, 3), 3 * 16 + 4, axis=0)).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rgb": np.zeros((12, 16), np.uint8)}, "rgb"),
        ({"rgb": np.zeros((12, 16, 4), np.uint8)}, "rgb"),
        ({"rgb": np.zeros((12, 16, 3), np.float32)}, "rgb"),
        ({"depth": np.zeros((12, 15), np.float32)}, "depth"),
        ({"depth": np.zeros((12, 16), np.uint16)}, "depth"),
        ({"depth": np.zeros((12, 16), np.float64)}, "depth"),
        ({"intrinsics": np.eye(4)}, "intrinsics"),
        ({"intrinsics": np.diag([0.0, 1, 1])}, "intrinsics"),
        ({"intrinsics": np.diag([np.nan, 1, 1])}, "intrinsics"),
        ({"position": np.zeros(2)}, "position"),
        ({"position": np.array([0, np.inf, 0])}, "position"),
        ({"orientation": np.zeros(4)}, "quaternion"),
        ({"orientation": np.array([0, 0, 0, 2.0])}, "quaternion"),
        ({"orientation": np.array([np.nan, 0, 0, 1.0])}, "quaternion"),
    ],
)
def test_views_that_cannot_be_used(changes: dict[str, np.ndarray], word: str) -> None:
    with pytest.raises(InvalidObservation, match=word):
        view(**changes)


def test_observations_that_cannot_be_used() -> None:
    with pytest.raises(InvalidObservation, match="no views"):
        Observation(())
    with pytest.raises(InvalidObservation, match="same name"):
        Observation((view(), view()))
    newest = Observation((view(stamp_ns=5), view(name="left", stamp_ns=9)))
    assert newest.stamp_ns == 9


@pytest.mark.parametrize("numbers", [(np.nan, 0, 0), (0, np.inf, 0)])
def test_actions_are_finite(numbers: tuple[float, ...]) -> None:
    good = np.zeros(3)
    with pytest.raises(ValueError, match="finite"):
        PickPlace(np.array(numbers), 0.0, 0.05, good, 0.0)
    with pytest.raises(ValueError, match="finite"):
        PickPlace(good, 0.0, 0.05, np.array(numbers), 0.0)
    with pytest.raises(ValueError, match="finite"):
        PickPlace(good, numbers[0] if np.isnan(numbers[0]) else numbers[1], 0.05, good, 0.0)


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="workspace_min"):
        WorkcellLimits((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="perpendicular"):
        WorkcellLimits((0, 0, 0), (1, 1, 1), forward=(1, 0), left=(0.7, 0.7))
    with pytest.raises(ValueError, match=r"gripper\.kind is 'hook'; allowed: 'parallel', 'suction'"):
        Gripper(kind="hook")


def test_only_ok_is_ok() -> None:
    assert [code for code in ExecutionCode if ExecutionResult(code).ok] == [ExecutionCode.OK]
