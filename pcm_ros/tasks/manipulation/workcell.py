"""The boundary between the policy and a world: a simulator, a real robot, or ROS topics and actions behind the same three members.

Units are SI, angles radians; the world frame has z up (REP-103). Optical frames follow REP-103: x right, y down, z forward.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class InvalidObservation(ValueError):
    """A view, an image encoding, a calibration or a set of views that cannot be used. The message names the field and the remedy."""


def rotation_from_quaternion(xyzw: npt.ArrayLike) -> Array:
    """Rotation matrix (3, 3) of a unit quaternion (x, y, z, w). Raises InvalidObservation unless it is finite and of unit length."""
    x, y, z, w = np.asarray(xyzw, dtype=np.float64)
    norm = float(np.sqrt(x * x + y * y + z * z + w * w))
    if not np.isfinite(norm) or abs(norm - 1.0) > 1e-3:
        raise InvalidObservation(f"camera orientation: quaternion {[x, y, z, w]} has length {norm:.4f}; it must be 1 (order x, y, z, w)")
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@dataclass(frozen=True)
class View:
    """One calibrated RGB-D image.

    Attributes:
        name: the camera's name, unique in an observation.
        rgb: (H, W, 3) uint8, red first.
        depth: (H, W) float32, metres along the optical axis; 0, NaN and inf mean "no return".
        intrinsics: (3, 3) float64 pinhole matrix in pixels (no distortion: rectify first).
        position: (3,) float64, optical centre in the world frame, metres.
        orientation: (4,) float64 unit quaternion (x, y, z, w) that turns optical-frame vectors into world-frame vectors.
        stamp_ns: acquisition time, nanoseconds; views of one observation may differ by at most the camera period.

    Raises:
        InvalidObservation: wrong shape, dtype or calibration.
    """

    name: str
    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    intrinsics: Array
    position: Array
    orientation: Array
    stamp_ns: int = 0

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise InvalidObservation(f"view '{self.name}': rgb is {self.rgb.dtype}{self.rgb.shape}; it must be uint8 (H, W, 3)")
        if self.depth.shape != self.rgb.shape[:2] or self.depth.dtype != np.float32:
            raise InvalidObservation(
                f"view '{self.name}': depth is {self.depth.dtype}{self.depth.shape}; it must be float32 {self.rgb.shape[:2]} in metres"
            )
        k = self.intrinsics
        if k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
            raise InvalidObservation(
                f"view '{self.name}': intrinsics must be a finite (3, 3) matrix with positive focal lengths, got {k.tolist()}"
            )
        if self.position.shape != (3,) or not np.isfinite(self.position).all():
            raise InvalidObservation(f"view '{self.name}': position must be 3 finite metres, got {self.position}")
        rotation_from_quaternion(self.orientation)

    @property
    def rotation(self) -> Array:
        """(3, 3) rotation world_from_optical."""
        return rotation_from_quaternion(self.orientation)

    @property
    def valid_depth(self) -> npt.NDArray[np.bool_]:
        """(H, W) True where the depth is a finite positive distance."""
        return np.isfinite(self.depth) & (self.depth > 0)

    def points(self) -> npt.NDArray[np.float32]:
        """(H, W, 3) float32 world-frame points of all pixels; NaN where there is no depth. Made once: read only."""
        return self._points

    @cached_property
    def _points(self) -> npt.NDArray[np.float32]:
        height, width = self.depth.shape
        k = self.intrinsics
        u = (np.arange(width, dtype=np.float64) - k[0, 2]) / k[0, 0]
        v = (np.arange(height, dtype=np.float64) - k[1, 2]) / k[1, 1]
        depth = np.where(self.valid_depth, self.depth, np.nan).astype(np.float64)
        optical = np.stack([u[None, :] * depth, v[:, None] * depth, depth], axis=-1)
        points: npt.NDArray[np.float32] = (optical @ self.rotation.T + self.position).astype(np.float32)
        points.flags.writeable = False
        return points

    def project(self, points: npt.ArrayLike) -> tuple[Array, Array]:
        """Project world points (..., 3) to pixels.

        Returns:
            uv (..., 2) float64 pixel coordinates (u right, v down; pixel centres are integers) and depth (...,) along the optical axis;
            points with depth <= 0 lie behind the camera and their uv is meaningless.
        """
        optical = (np.asarray(points, dtype=np.float64) - self.position) @ self.rotation
        depth = optical[..., 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        k = self.intrinsics
        uv = np.stack([optical[..., 0] / safe * k[0, 0] + k[0, 2], optical[..., 1] / safe * k[1, 1] + k[1, 2]], axis=-1)
        return uv, depth


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one moment.

    Attributes:
        views: at least one View, names unique.
        joint_names / joint_positions: the arm's joints, radians or metres; may be empty for a floating gripper.
        missing: names of cameras that should have delivered and did not (the policy states this as a degradation).
    """

    views: tuple[View, ...]
    joint_names: tuple[str, ...] = ()
    joint_positions: Array = field(default_factory=lambda: np.zeros(0))
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if not names:
            raise InvalidObservation("observation has no views: at least one calibrated RGB-D view is needed")
        if len(set(names)) != len(names):
            raise InvalidObservation(f"observation has views of the same name: {names}")

    @property
    def stamp_ns(self) -> int:
        """The newest stamp of its views, nanoseconds."""
        return max(view.stamp_ns for view in self.views)


@dataclass(frozen=True)
class PickPlace:
    """A top-down pick and place. The tool point is the middle between the fingertips (of the suction cup's lip for a suction gripper).

    Attributes:
        pick_position: (3,) world metres, tool point when the gripper closes.
        pick_yaw: radians about world z; the fingers close along the direction (cos yaw, sin yaw).
        pick_width: metres between the fingers before they close (0 for a suction gripper).
        place_position: (3,) world metres, tool point when the gripper opens.
        place_yaw: radians, like pick_yaw, at the release.
    """

    pick_position: Array
    pick_yaw: float
    pick_width: float
    place_position: Array
    place_yaw: float

    def __post_init__(self) -> None:
        numbers = np.concatenate([self.pick_position, self.place_position, [self.pick_yaw, self.pick_width, self.place_yaw]])
        if numbers.shape != (9,) or not np.isfinite(numbers).all():
            raise ValueError(f"PickPlace must hold finite numbers, got {self}")


class ExecutionCode(enum.IntEnum):
    """Why an execution ended. The numbers are those of ExecutePickPlace.action."""

    OK = 0
    GRASP_FAILED = 1
    UNREACHABLE = 2
    COLLISION = 3
    CANCELED = 4
    TIMEOUT = 5
    ERROR = 6


@dataclass(frozen=True)
class ExecutionResult:
    """How an execution ended, as the robot itself can tell (gripper width, joint errors): never from a simulator's truth."""

    code: ExecutionCode
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.code == ExecutionCode.OK


@dataclass(frozen=True)
class Gripper:
    """Outer dimensions of the gripper, for grasp planning and collision checks.

    Attributes:
        kind: "parallel" (two fingers) or "suction" (a cup that takes flat tops).
        max_opening: metres between open fingers (a suction cup: its diameter).
        finger_thickness: metres along the closing axis; finger_width: metres across it.
        finger_length: free length of the fingers below the palm, metres: the palm's lower side is this far above the tool point.
        palm_size: (along the closing axis, across it), metres.
    """

    kind: str = "parallel"
    max_opening: float = 0.08
    finger_thickness: float = 0.015
    finger_width: float = 0.022
    finger_length: float = 0.045
    palm_size: tuple[float, float] = (0.204, 0.064)

    def __post_init__(self) -> None:
        if self.kind not in ("parallel", "suction"):
            raise ValueError(f"gripper.kind is '{self.kind}'; allowed: 'parallel', 'suction'")
        sizes = (self.finger_thickness, self.finger_width, self.finger_length, *self.palm_size)
        if not (0 < self.max_opening < math.inf and all(0 <= size < math.inf for size in sizes)):
            raise ValueError(f"the gripper opens {self.max_opening} m, its sizes are {sizes} m; allowed: > 0, and >= 0")


@dataclass(frozen=True)
class WorkcellLimits:
    """What the planner may know of the cell beforehand: no object, no table height, nothing that moves.

    Attributes:
        workspace_min / workspace_max: (3,) world metres; objects outside of this box are ignored and nothing is put outside of it.
            The table's surface lies inside its height range; the planner finds it in the depth images.
        base_position: (3,) world metres, the arm's base. reach: (least, greatest) horizontal distance from it, metres.
        forward / left: (2,) unit vectors in world x, y: what the person who gives instructions calls "behind" (away from them, along
            forward; "in front of" is the opposite) and "left". Default: REP-103 seen from the robot's base.
        gripper: its dimensions.
    """

    workspace_min: tuple[float, float, float]
    workspace_max: tuple[float, float, float]
    base_position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reach: tuple[float, float] = (0.0, 10.0)
    forward: tuple[float, float] = (1.0, 0.0)
    left: tuple[float, float] = (0.0, 1.0)
    gripper: Gripper = field(default_factory=Gripper)

    def __post_init__(self) -> None:
        low, high = np.asarray(self.workspace_min), np.asarray(self.workspace_max)
        if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
            raise ValueError(f"workspace_min {self.workspace_min} must be below workspace_max {self.workspace_max} in x, y and z")
        if not np.isfinite([*low, *high, *self.base_position]).all():
            raise ValueError(
                f"workspace {self.workspace_min} to {self.workspace_max} and base_position {self.base_position} must be finite"
            )
        if not 0 <= self.reach[0] < self.reach[1] < math.inf:
            raise ValueError(f"reach is {self.reach}; allowed: 0 <= least < greatest, metres")
        axes = np.array([self.forward, self.left], dtype=np.float64)
        if not np.allclose(axes @ axes.T, np.eye(2), atol=1e-6):
            raise ValueError(f"forward {self.forward} and left {self.left} must be perpendicular unit vectors")


@runtime_checkable
class Workcell(Protocol):
    """A world with cameras and one robot arm. Implement these three members and the policy runs on it unchanged."""

    @property
    def limits(self) -> WorkcellLimits: ...

    def observe(self) -> Observation:
        """Fresh images, taken after the last motion has ended, with the arm out of the cameras' way."""
        ...

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        """Carry out one pick and place and return to the observation pose. `should_stop` is polled during the motion: when it is True
        the motion ends safely (gripper state kept, arm lifted) and the result's code is CANCELED."""
        ...
