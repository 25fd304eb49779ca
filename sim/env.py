"""The workcell as a gymnasium environment: `gymnasium.make("pcm_ros.sim.env:PcmManipulation-v0")`."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from pcm_ros.sim.benchmark_tasks import Task
from pcm_ros.sim.cameras import FAR
from pcm_ros.sim.disturbance import DisturbedWorkcell
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import WorldConfig
from pcm_ros.tasks.manipulation.workcell import ExecutionResult, Observation, PickPlace

ENV_ID = "PcmManipulation-v0"
_LETTERS = string.ascii_letters + string.digits + string.punctuation + " "


class ManipulationEnv(gymnasium.Env[dict[str, Any], npt.NDArray[np.float32]]):
    """One step is one whole pick and place.

    Action: Box (9,) float32: pick x, y, z, yaw, width, place x, y, z, yaw, in the units and frames of `PickPlace`.

    Observation: `rgb` (V, H, W, 3) uint8; `depth` (V, H, W) float32 metres, 0 where there is none; `intrinsics` (V, 3, 3) float32 pixels;
    `camera_pose` (V, 7) float32 position and quaternion x, y, z, w, world from optical frame; `joints` (9,) float32; `instruction` text.

    Reward: 1 when all relations of the episode hold after the step, else 0 (physics truth).

    Terminated: when all relations hold. A lost object does not terminate: the episode can then no longer succeed and ends by truncation.
    Truncated: after `max_steps` actions.

    Info: `success`, `holding` (relation -> bool), `code` and `message` of the execution (absent after reset), `task`.

    Args:
        task: name of a registered task, or a Task; `reset(options={"task": ...})` changes it.
        config: of the world.
        max_steps: actions in an episode.
        render_mode: None or "rgb_array" (the first camera).

    Raises:
        ValueError: max_steps below 1, or an unknown task.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}

    def __init__(
        self, task: str | Task = "relations-1", config: WorldConfig | None = None, max_steps: int = 8, render_mode: str | None = None
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}; it must be at least 1")
        self.render_mode = render_mode
        self._cell = SimWorkcell(task, config)
        self._hands = DisturbedWorkcell(self._cell)
        self._max_steps = max_steps
        self._taken = 0
        self._observation: Observation | None = None
        limits = self._cell.limits
        low, high = limits.workspace_min, limits.workspace_max
        self.action_space = spaces.Box(
            np.array([*low, -np.pi, 0.0, *low, -np.pi], dtype=np.float32),
            np.array([*high, np.pi, limits.gripper.max_opening, *high, np.pi], dtype=np.float32),
        )
        nominal = self._cell.world.config.cameras
        if len({(camera.width, camera.height) for camera in nominal}) != 1:
            raise ValueError("the environment stacks its images: all cameras must have the same width and height")
        views, height, width = len(nominal), nominal[0].height, nominal[0].width
        self.observation_space = spaces.Dict(
            {
                "rgb": spaces.Box(0, 255, (views, height, width, 3), np.uint8),
                "depth": spaces.Box(0.0, FAR, (views, height, width), np.float32),
                "intrinsics": spaces.Box(-np.inf, np.inf, (views, 3, 3), np.float32),
                "camera_pose": spaces.Box(-np.inf, np.inf, (views, 7), np.float32),
                "joints": spaces.Box(-np.inf, np.inf, (9,), np.float32),
                "instruction": spaces.Text(max_length=1000, min_length=0, charset=_LETTERS),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """A new episode; the scene is drawn from the environment's random numbers, which `seed` starts anew.

        Raises:
            ValueError: a task whose goals are pictures, or cannot be reached.
        """
        super().reset(seed=seed)
        self._taken = 0
        episode = self._cell.reset(int(self.np_random.integers(2**31)), (options or {}).get("task"))
        if episode.refusal or episode.shown:
            what = "pictures as goals" if episode.shown else "goals that nobody can reach"
            raise ValueError(f"the task '{episode.task}' has {what}, which no reward is defined for; allowed: the other tasks")
        return self._observe(), self._info(None)

    def step(self, action: npt.NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Carry out one pick and place."""
        values = np.asarray(action, dtype=np.float64)
        if values.shape != (9,):
            raise ValueError(f"action has shape {values.shape}; it must be (9,): pick x, y, z, yaw, width, place x, y, z, yaw")
        result = self._hands.execute(PickPlace(values[:3], float(values[3]), float(values[4]), values[5:8], float(values[8])))
        self._taken += 1
        info = self._info(result)
        success = bool(info["success"])
        return self._observe(), float(success), success, not success and self._taken >= self._max_steps, info

    def render(self) -> npt.NDArray[np.uint8] | None:  # type: ignore[override]
        """(H, W, 3) uint8 picture of the first camera as last observed; None without a render mode."""
        if self.render_mode is None or self._observation is None:
            return None
        return self._observation.views[0].rgb

    def close(self) -> None:
        self._cell.close()

    def _observe(self) -> dict[str, Any]:
        self._observation = observation = self._cell.observe()
        views = observation.views
        return {
            "rgb": np.stack([view.rgb for view in views]),
            "depth": np.stack([view.depth for view in views]),
            "intrinsics": np.stack([view.intrinsics for view in views]).astype(np.float32),
            "camera_pose": np.stack([np.concatenate([view.position, view.orientation]) for view in views]).astype(np.float32),
            "joints": observation.joint_positions.astype(np.float32),
            "instruction": self._cell.episode.instruction,
        }

    def _info(self, result: ExecutionResult | None) -> dict[str, Any]:
        holding = {str(relation): bool(self._cell.judge(relation)) for relation in self._cell.episode.relations}
        info: dict[str, Any] = {"success": bool(holding) and all(holding.values()), "holding": holding, "task": self._cell.episode.task}
        if result is not None:
            info |= {"code": int(result.code), "message": result.message}
        return info


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="pcm_ros.sim.env:ManipulationEnv")
