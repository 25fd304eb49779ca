"""What people look at: markers for RViz, and the images of a view with objects and proposals drawn in."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Pose, Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, Header
from torch import Tensor
from visualization_msgs.msg import Marker, MarkerArray

from pcm_ros.consensus import Batch
from pcm_ros.nodes.conversions import flat, header, point_message
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Array, View

SHOWN = 10
_LIFETIME = Duration(sec=60)


def _best(energies: Tensor) -> list[int]:
    """Rows of the SHOWN least finite energies, best first."""
    order = torch.argsort(torch.nan_to_num(energies, nan=torch.inf), stable=True)[:SHOWN]
    return [int(row) for row in order if torch.isfinite(energies[row])]


def _heat(rank: int) -> tuple[float, float, float]:
    """Green for the best proposal, towards red for the others; red, green, blue 0..1."""
    share = rank / max(SHOWN - 1, 1)
    return (share, 1.0 - share, 0.0)


def targets(scene: Scene, batch: Batch) -> tuple[Array, Array]:
    """(N, 3) present and (N, 3) predicted centres of the objects that the proposals move, metres, world frame."""
    centers = np.stack([thing.center for thing in scene.objects])[batch.category.numpy()]
    return centers, centers + batch.extras["motion"].numpy()[:, :3]


def scene_markers(scene: Scene, batch: Batch | None = None, energies: Tensor | None = None) -> MarkerArray:
    """Boxes and labels of the objects; arrows of the best proposals, green to red, where a batch and its (N,) energies are given."""
    head = header(scene.stamp_ns)
    markers = [Marker(header=head, action=Marker.DELETEALL)]
    for number, thing in enumerate(scene.objects):
        red, green, blue = (float(value) / 255 for value in thing.colors.mean(axis=0))
        pose = Pose(position=point_message(thing.center))
        size = Vector3(x=float(thing.size[0]) + 1e-3, y=float(thing.size[1]) + 1e-3, z=float(thing.size[2]) + 1e-3)
        markers.append(_marker(head, "objects", number, Marker.CUBE, pose, size, ColorRGBA(r=red, g=green, b=blue, a=0.5)))
        above = point_message(thing.center + np.array([0, 0, thing.size[2] / 2 + 0.03]))
        text = _marker(
            head, "labels", number, Marker.TEXT_VIEW_FACING, Pose(position=above), Vector3(z=0.025), ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        )
        text.text = f"{thing.label} ({thing.label_confidence:.2f})"
        markers.append(text)
    if batch is not None and energies is not None:
        start, end = targets(scene, batch)
        for rank, row in enumerate(_best(energies)):
            red, green, blue = _heat(rank)
            arrow = _marker(
                head, "proposals", rank, Marker.ARROW, Pose(), Vector3(x=0.005, y=0.012, z=0.0), ColorRGBA(r=red, g=green, b=blue, a=0.9)
            )
            arrow.points = [point_message(start[row]), point_message(end[row])]
            markers.append(arrow)
    return MarkerArray(markers=markers)


def _marker(head: Header, namespace: str, number: int, kind: int, pose: Pose, scale: Vector3, color: ColorRGBA) -> Marker:
    return Marker(
        header=head, ns=namespace, id=number, type=kind, action=Marker.ADD, pose=pose, scale=scale, color=color, lifetime=_LIFETIME
    )


def annotated(view: View, scene: Scene, batch: Batch, energies: Tensor) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: the view with labelled objects and the best proposals by these (N,) energies, best in green."""
    image = np.ascontiguousarray(view.rgb).copy()
    for thing in scene.objects:
        uv, depth = view.project(thing.points)
        if (depth > 0).any():
            low, high = uv[depth > 0].min(axis=0).round().astype(int), uv[depth > 0].max(axis=0).round().astype(int)
            cv2.rectangle(image, tuple(map(int, low)), tuple(map(int, high)), (255, 255, 255), 1)
            cv2.putText(image, thing.label, (int(low[0]), int(low[1]) - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    start, end = targets(scene, batch)
    for rank, row in reversed(list(enumerate(_best(energies)))):
        (tail, head), depth = view.project(np.stack([start[row], end[row]]))
        if (depth > 0).all():
            color = tuple(int(255 * value) for value in _heat(rank))
            cv2.arrowedLine(
                image, tuple(tail.round().astype(int).tolist()), tuple(head.round().astype(int).tolist()), color, 2, cv2.LINE_AA
            )
    return image


def image_message(rgb: npt.NDArray[np.uint8], stamp_ns: int, frame: str) -> Image:
    height, width, _ = rgb.shape
    head = header(stamp_ns)
    head.frame_id = frame
    return Image(header=head, height=height, width=width, encoding="rgb8", step=3 * width, data=flat(rgb))
