"""The simulator as a Workcell: what the planner sees, and the same bits for the same seed."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import WorldConfig, cameras
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, PickPlace, Workcell

_EPISODE = textwrap.dedent(
    """
    import hashlib, sys
    import numpy as np
    from pcm_ros.sim.workcell import SimWorkcell
    from pcm_ros.sim.world import WorldConfig, cameras
    from pcm_ros.tasks.manipulation.workcell import PickPlace

    cell = SimWorkcell("relations-1", WorldConfig(cameras=cameras(5, 160, 120)))
    if sys.argv[1] == "used":
        cell.reset(3, "demo")
        cell.observe()
    cell.reset(12, "relations-1")
    digest = hashlib.sha256()

    def look():
        for view in cell.observe().views:
            for array in (view.rgb, view.depth, view.intrinsics, view.position, view.orientation):
                digest.update(array.tobytes())
        for body in cell.world.bodies():
            digest.update(body.position.tobytes() + body.orientation.tobytes())

    look()
    target = cell.world.bodies()[0]
    pick = np.array([*target.position[:2], max(target.high[2] - 0.03, target.low[2] + 0.01)])
    result = cell.execute(PickPlace(pick, 0.3, 0.08, pick + [0.02, 0.03, 0.01], 0.9))
    digest.update(str(result).encode())
    look()
    print(digest.hexdigest())
    """
)


def test_same_seed_same_bits_in_two_processes() -> None:
    """States and images, before and after a motion; an earlier scene in the same process leaves no trace."""
    digests = [
        subprocess.run([sys.executable, "-c", _EPISODE, state], capture_output=True, text=True, check=True).stdout.split()[-1]
        for state in ("fresh", "used")
    ]
    assert digests[0] == digests[1]


@pytest.fixture(scope="module")
def cell() -> SimWorkcell:
    return SimWorkcell("free", WorldConfig(cameras=cameras(5, 160, 120)), seed=1)


def test_is_a_workcell(cell: SimWorkcell) -> None:
    assert isinstance(cell, Workcell)
    assert cell.limits.gripper.kind == "parallel"


def test_observation(cell: SimWorkcell) -> None:
    observation = cell.observe()
    assert [view.name for view in observation.views] == ["front", "left", "right", "back", "top"]
    assert len(observation.joint_names) == len(observation.joint_positions) == 9
    for view in observation.views:
        assert view.rgb.shape == (120, 160, 3)
        assert view.valid_depth.mean() > 0.5
        assert view.stamp_ns == observation.stamp_ns


def test_time_goes_on_with_every_motion_and_every_scene(cell: SimWorkcell) -> None:
    stamps = [cell.observe().stamp_ns]
    cell.execute(PickPlace(np.array([0.5, 0.0, 0.2]), 0.0, 0.05, np.array([0.5, 0.1, 0.2]), 0.0))
    stamps.append(cell.observe().stamp_ns)
    cell.reset(2)
    stamps.append(cell.observe().stamp_ns)
    assert stamps[0] < stamps[1] < stamps[2]


def test_cancelled_motion_leaves_a_clear_view(cell: SimWorkcell) -> None:
    cell.reset(1)
    before = cell.observe().joint_positions
    polls = iter(range(15))
    action = PickPlace(np.array([0.5, 0.0, 0.2]), 0.0, 0.05, np.array([0.5, 0.1, 0.2]), 0.0)
    assert cell.execute(action, lambda: next(polls, None) is None).code == ExecutionCode.CANCELED
    assert np.abs(cell.observe().joint_positions - before).max() < 0.02


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="0 or greater"):
        SimWorkcell(seed=-1)
    with pytest.raises(ValueError, match="not known; registered"):
        SimWorkcell("juggling")
    with pytest.raises(RuntimeError, match="call reset"):
        SimWorkcell().observe()
    with pytest.raises(RuntimeError, match="call reset"):
        _ = SimWorkcell().episode
