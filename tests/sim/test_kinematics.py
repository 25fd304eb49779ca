"""The arm's kinematics against PyBullet's, and inverse against forward."""

from __future__ import annotations

import numpy as np
import pybullet
import pytest

from pcm_ros.sim.kinematics import JOINT_MAX, JOINT_MIN, REST, TOOL_LENGTH, ToolPose, forward, inverse
from pcm_ros.sim.objects import data_path
from pcm_ros.sim.world import PANDA_LIMITS


def test_forward_agrees_with_the_simulator() -> None:
    client = pybullet.connect(pybullet.DIRECT)
    try:
        body = pybullet.loadURDF(str(data_path() / "franka_panda" / "panda.urdf"), useFixedBase=True, physicsClientId=client)
        rng = np.random.default_rng(0)
        for _ in range(20):
            joints = rng.uniform(JOINT_MIN, JOINT_MAX)
            for joint in range(7):
                pybullet.resetJointState(body, joint, joints[joint], physicsClientId=client)
            state = pybullet.getLinkState(body, 8, computeForwardKinematics=1, physicsClientId=client)
            rotation = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            position, turned = forward(joints)
            np.testing.assert_allclose(position, np.array(state[4]) + rotation[:, 2] * TOOL_LENGTH, atol=1e-5)
            np.testing.assert_allclose(turned, rotation, atol=1e-5)
    finally:
        pybullet.disconnect(client)


def test_inverse_reaches_the_whole_workspace() -> None:
    rng = np.random.default_rng(1)
    reached = 0
    while reached < 60:
        position = rng.uniform([0.30, -0.35, -0.02], [0.70, 0.35, 0.25])
        if np.hypot(*position[:2]) > PANDA_LIMITS.reach[1]:
            continue
        yaw = rng.uniform(-np.pi, np.pi)
        seed = REST.copy()
        seed[0] = np.arctan2(position[1], position[0])
        # half a turn is the same grasp: one of the two must be within the wrist's limits
        found = [
            (pose, joints)
            for pose in (ToolPose(position, yaw), ToolPose(position, yaw + np.pi))
            if (joints := inverse(pose, seed)) is not None
        ]
        assert found, f"no posture for {position}, yaw {yaw}"
        for pose, joints in found:
            at, rotation = forward(joints)
            assert np.linalg.norm(at - position) < 1e-3
            np.testing.assert_allclose(rotation, pose.rotation, atol=5e-3)
            assert (joints >= JOINT_MIN).all() and (joints <= JOINT_MAX).all()
        reached += 1


@pytest.mark.parametrize("position", [(1.2, 0.0, 0.1), (0.05, 0.0, -0.3)])
def test_inverse_says_no(position: tuple[float, float, float]) -> None:
    assert inverse(ToolPose(np.array(position), 0.0), REST) is None
