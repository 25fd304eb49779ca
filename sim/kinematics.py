"""Forward and inverse kinematics of the Franka Panda, in numpy: needs no simulator and gives the same answer for the same question."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pcm_ros.tasks.manipulation.workcell import Array

JOINT_MIN = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_MAX = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
"""Limits of the real arm (franka datasheet), radians and radians per second; the URDF's are a little wider."""

REST = np.array([0.0, 0.1, 0.0, -2.2, 0.0, 2.3, 0.785])
"""Elbow-up posture that the null space is pulled to: keeps consecutive solutions on one branch, far from the limits."""

TOOL_LENGTH = 0.1122
"""Metres from the hand's frame to the end of the fingertips (the tool point)."""


def _transform(roll: float, xyz: tuple[float, float, float]) -> Array:
    c, s = np.cos(roll), np.sin(roll)
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[c, -s], [s, c]]
    matrix[:3, 3] = xyz
    return matrix


_QUARTER = np.pi / 2
_ORIGINS = (
    _transform(0.0, (0.0, 0.0, 0.333)),
    _transform(-_QUARTER, (0.0, 0.0, 0.0)),
    _transform(_QUARTER, (0.0, -0.316, 0.0)),
    _transform(_QUARTER, (0.0825, 0.0, 0.0)),
    _transform(-_QUARTER, (-0.0825, 0.384, 0.0)),
    _transform(_QUARTER, (0.0, 0.0, 0.0)),
    _transform(_QUARTER, (0.088, 0.0, 0.0)),
)
_C = np.sqrt(0.5)
_TOOL = np.array([[_C, _C, 0.0, 0.0], [-_C, _C, 0.0, 0.0], [0.0, 0.0, 1.0, 0.107 + TOOL_LENGTH], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class ToolPose:
    """Tool point straight down: position (3,) metres in the arm's base frame; the fingers close along (cos yaw, sin yaw)."""

    position: Array
    yaw: float

    @property
    def rotation(self) -> Array:
        """(3, 3) base_from_hand: the hand's y axis is the closing direction, its z axis looks down."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[-s, c, 0.0], [c, s, 0.0], [0.0, 0.0, -1.0]])


def forward(joints: Array) -> tuple[Array, Array]:
    """Position (3,) and rotation (3, 3) of the tool for joint angles (7,)."""
    frame = _frames(joints)[-1]
    return frame[:3, 3], frame[:3, :3]


def _frames(joints: Array) -> list[Array]:
    """The seven joints' frames and the tool's, (4, 4) each, in the base frame."""
    frame = np.eye(4)
    frames = []
    cosines, sines = np.cos(joints), np.sin(joints)
    for origin, c, s in zip(_ORIGINS, cosines, sines, strict=True):
        frame = frame @ origin
        x, y = frame[:, 0].copy(), frame[:, 1].copy()
        frame[:, 0], frame[:, 1] = c * x + s * y, c * y - s * x
        frames.append(frame)
    frames.append(frame @ _TOOL)
    return frames


def inverse(pose: ToolPose, seed: Array, iterations: int = 80, position_error: float = 2e-4, angle_error: float = 2e-3) -> Array | None:
    """Joint angles (7,) that reach a tool pose, near a seed (7,); None if there are none within the joint limits.

    Damped least squares with the rest posture in the null space (Buss, "Introduction to inverse kinematics", 2004). The answer is
    accepted only if forward kinematics puts the tool within `position_error` metres and `angle_error` radians of the pose.
    """
    target, rotation = pose.position, pose.rotation
    joints = np.clip(seed, JOINT_MIN, JOINT_MAX)
    identity = np.eye(7)
    for _ in range(iterations):
        frames = _frames(joints)
        tool = frames[-1]
        error = np.empty(6)
        error[:3] = target - tool[:3, 3]
        # Half the sum of the columns' cross products is the axis times the sine of the angle between the two frames.
        error[3:] = 0.5 * np.cross(tool[:3, :3].T, rotation.T).sum(axis=0)
        aligned = np.trace(rotation.T @ tool[:3, :3]) > 1.0
        if aligned and np.linalg.norm(error[:3]) < position_error and np.linalg.norm(error[3:]) < angle_error:
            return joints
        stacked = np.array(frames[:7])
        axes = stacked[:, :3, 2]
        jacobian = np.vstack([np.cross(axes, tool[:3, 3] - stacked[:, :3, 3]).T, axes.T])
        inverse_jacobian = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 1e-4 * np.eye(6))
        step = inverse_jacobian @ error + (identity - inverse_jacobian @ jacobian) @ (0.1 * (REST - joints) * _POSTURE)
        joints = np.clip(joints + np.clip(step, -0.3, 0.3), JOINT_MIN, JOINT_MAX)
    return None


# The wrist's last joint must be free to turn the hand; it is not pulled to a posture.
_POSTURE = np.array([0.2, 0.5, 1.0, 0.5, 0.5, 0.5, 0.0])
