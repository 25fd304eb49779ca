"""Calibrated RGB-D cameras rendered by PyBullet's software renderer (TinyRenderer): no GPU, no display, reproducible bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pybullet

from pcm_ros.sim.appearance import Light
from pcm_ros.tasks.manipulation.workcell import Array, View

NEAR, FAR = 0.05, 5.0
DEFAULT_LIGHT = Light()


@dataclass(frozen=True)
class CameraSpec:
    """A pinhole camera. `eye` and `target` are world metres; `fov_y` is the vertical field of view in degrees; pixels are square."""

    name: str
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    width: int = 320
    height: int = 240
    fov_y: float = 42.0

    @property
    def intrinsics(self) -> Array:
        """(3, 3) pinhole matrix, pixels."""
        focal = self.height / 2 / np.tan(np.radians(self.fov_y) / 2)
        return np.array([[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]])

    @property
    def rotation(self) -> Array:
        """(3, 3) rotation world_from_optical (x right, y down, z forward). Looking straight down, image-up is world +x."""
        forward = np.subtract(self.target, self.eye).astype(np.float64)
        forward /= np.linalg.norm(forward)
        up = np.array([0.0, 0.0, 1.0]) if abs(forward[2]) < 0.999 else np.array([1.0, 0.0, 0.0])
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward], axis=1)

    @property
    def orientation(self) -> Array:
        """(4,) unit quaternion x, y, z, w of `rotation`."""
        from scipy.spatial.transform import Rotation

        return np.asarray(Rotation.from_matrix(self.rotation).as_quat(), dtype=np.float64)


def render(client: int, camera: CameraSpec, light: Light = DEFAULT_LIGHT, stamp_ns: int = 0) -> tuple[View, npt.NDArray[np.int32]]:
    """One RGB-D image and its segmentation (H, W) int32 of body ids, -1 where nothing is.

    The segmentation is truth: for training and judging only.
    """
    rotation = camera.rotation
    eye = np.asarray(camera.eye)
    view = pybullet.computeViewMatrix(camera.eye, (eye + rotation[:, 2]).tolist(), (-rotation[:, 1]).tolist())
    projection = pybullet.computeProjectionMatrixFOV(camera.fov_y, camera.width / camera.height, NEAR, FAR)
    _, _, rgba, buffer, segmentation = pybullet.getCameraImage(
        camera.width,
        camera.height,
        view,
        projection,
        lightDirection=light.direction,
        lightColor=light.color,
        lightDistance=3.0,
        shadow=int(light.shadow),
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        renderer=pybullet.ER_TINY_RENDERER,
        physicsClientId=client,
    )
    shape = (camera.height, camera.width)
    buffer = np.asarray(buffer, dtype=np.float64).reshape(shape)
    depth = FAR * NEAR / (FAR - (FAR - NEAR) * buffer)
    depth[buffer >= 0.9999] = 0.0  # nothing there
    rgb = np.ascontiguousarray(np.asarray(rgba, dtype=np.uint8).reshape(*shape, 4)[..., :3])
    segmentation = np.asarray(segmentation, dtype=np.int32).reshape(shape)
    segmentation = np.where(segmentation < 0, -1, segmentation & ((1 << 24) - 1))
    return View(
        camera.name, rgb, depth.astype(np.float32), camera.intrinsics, eye.astype(np.float64), camera.orientation, stamp_ns
    ), segmentation
