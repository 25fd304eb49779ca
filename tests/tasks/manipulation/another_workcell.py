"""Somebody else's world as a `Workcell`: all that has to be written to run the policy on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from another_world import CAMERAS, FAR, HALF, NEAR, OPEN, PARK, RATE, TABLE, AnotherWorld
from scipy.spatial.transform import Rotation

from pcm_ros.tasks.manipulation.workcell import ExecutionCode, ExecutionResult, Gripper, Observation, PickPlace, View, WorkcellLimits

OPENGL_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0])  # OpenGL cameras look along -z with y up


class AnotherWorkcell:
    """The gantry over the brown table. The person who gives instructions looks along -y, so their left is +x."""

    limits = WorkcellLimits(
        workspace_min=(TABLE[0] - HALF[0] + 0.06, TABLE[1] - HALF[1] + 0.06, TABLE[2] - 0.05),
        workspace_max=(TABLE[0] + HALF[0] - 0.06, TABLE[1] + HALF[1] - 0.06, TABLE[2] + 0.30),
        base_position=(float(TABLE[0]), float(TABLE[1]), float(TABLE[2])),
        forward=(0.0, -1.0),
        left=(1.0, 0.0),
        gripper=Gripper("parallel", 2 * OPEN, finger_thickness=0.012, finger_width=0.024, finger_length=0.06, palm_size=(0.14, 0.05)),
    )

    def __init__(self, world: AnotherWorld) -> None:
        self.world = world

    def observe(self) -> Observation:
        return Observation(tuple(self._view(name) for name in CAMERAS))

    def _view(self, name: str) -> View:
        rgb, buffer, matrix = self.world.picture(name)
        height, width = buffer.shape
        focal = height / 2 / np.tan(np.radians(CAMERAS[name][4]) / 2)
        world_from_camera = np.linalg.inv(np.reshape(matrix, (4, 4)).T)
        depth = np.where(buffer < 1.0, FAR * NEAR / (FAR - (FAR - NEAR) * buffer), 0.0)
        return View(
            name,
            rgb,
            depth.astype(np.float32),
            np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]),
            world_from_camera[:3, 3],
            Rotation.from_matrix(world_from_camera[:3, :3] @ OPENGL_FROM_OPTICAL).as_quat(),
            self.world.steps * 1_000_000_000 // RATE,
        )

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        world, pick, place = self.world, action.pick_position, action.place_position
        high = max(pick[2], place[2]) + 0.14
        world.fingers(action.pick_width / 2)
        if not (world.go(*pick[:2], high, action.pick_yaw, should_stop) and world.go(*pick, action.pick_yaw, should_stop, 0.2)):
            return self._home(should_stop, "did not get to the object")
        world.fingers(0.0)
        world.go(*pick[:2], high, action.pick_yaw, speed=0.2)
        if world.gap() < 0.002:
            return self._home(should_stop, "nothing between the fingers")
        if not (world.go(*place[:2], high, action.place_yaw, should_stop) and world.go(*place, action.place_yaw, should_stop, 0.15)):
            return self._home(should_stop, "did not get to the target")
        world.fingers(world.gap() / 2 + 0.006)
        world.go(*place[:2], high, action.place_yaw, speed=0.15)
        return self._home(should_stop, "")

    def _home(self, should_stop: Callable[[], bool], failure: str) -> ExecutionResult:
        if should_stop():
            return ExecutionResult(ExecutionCode.CANCELED, "stopped")
        x, y, z, yaw = self.world.pose()
        self.world.go(x, y, z + 0.1, yaw, speed=0.3)
        self.world.go(*(PARK + TABLE), 0.0)
        self.world.fingers(OPEN)
        return ExecutionResult(ExecutionCode.GRASP_FAILED if failure else ExecutionCode.OK, failure)
