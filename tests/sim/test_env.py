"""The gymnasium environment."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pcm_ros.sim.env import ManipulationEnv
from pcm_ros.sim.wording import SENTENCES
from pcm_ros.sim.world import WorldConfig, cameras

SMALL = WorldConfig(cameras=cameras(1, 64, 48), vary_appearance=False)


@pytest.mark.filterwarnings("ignore")
def test_passes_the_checker() -> None:
    env = gymnasium.make("pcm_ros.sim.env:PcmManipulation-v0", config=SMALL, render_mode="rgb_array")
    check_env(env.unwrapped, skip_close_check=True)
    env.close()


def test_instructions_of_all_wordings_lie_in_the_observation_space() -> None:
    env = ManipulationEnv("words", SMALL)
    assert not [sentence for sentence in SENTENCES if sentence.format(s="red mug", r="bowl", w="on", to="on") not in space_of(env)]
    env.close()


def space_of(env: ManipulationEnv) -> gymnasium.spaces.Space[str]:
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    return env.observation_space["instruction"]


def test_episode_ends_by_truncation_and_tells_what_holds() -> None:
    env = ManipulationEnv("demo", SMALL, max_steps=2, render_mode="rgb_array")
    observation, info = env.reset(seed=4)
    assert observation["instruction"] == "put the red mug to the left of the blue bowl"
    assert info["holding"] == {"red mug left of blue bowl": False}
    unreachable = env.action_space.high
    _, reward, terminated, truncated, info = env.step(unreachable)
    assert (reward, terminated, truncated, info["code"]) == (0.0, False, False, 2)
    *_, truncated, _ = env.step(unreachable)
    assert truncated
    assert env.render().shape == (48, 64, 3)
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(again["rgb"], observation["rgb"])
    assert env.reset(options={"task": "free"})[1]["task"] == "free"
    env.close()


@pytest.mark.parametrize(("task", "why"), [("image-goal", "pictures as goals"), ("impossible", "nobody can reach")])
def test_tasks_without_a_reward_are_refused(task: str, why: str) -> None:
    env = ManipulationEnv(task, SMALL)
    with pytest.raises(ValueError, match=f"'{task}' has .*{why}"):
        env.reset(seed=0)
    env.close()


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ManipulationEnv(max_steps=0)
    env = ManipulationEnv("demo", SMALL)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"must be \(9,\)"):
        env.step(np.zeros(7, dtype=np.float32))
    env.close()
