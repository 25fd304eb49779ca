"""Messages to arrays and back. Numbers travel as they are: a round trip gives the same bits.

Errors are `InvalidObservation` for what cameras send and `InvalidMessage` for the rest; both name the field, what it holds and what it must
hold.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from pcm_ros import msg, srv
from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.tasks.manipulation.goal import Relation, RelationKind
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.workcell import Array, Gripper, InvalidObservation, PickPlace, View, WorkcellLimits

WORLD_FRAME = "world"
PARAMETERS = 3
EXTRAS = {"pick": 5, "place": 4, "motion": 4}
_COLOR_ENCODINGS = ("rgb8", "bgr8")
_DEPTH_ENCODINGS: dict[str, tuple[np.dtype[Any], float]] = {"32FC1": (np.dtype(np.float32), 1.0), "16UC1": (np.dtype(np.uint16), 0.001)}
_TYPE_CODES = {np.dtype(np.float64): "d", np.dtype(np.float32): "f", np.dtype(np.int64): "q", np.dtype(np.uint8): "B"}


class InvalidMessage(ValueError):
    """A message whose fields do not fit together. The text names the field and what it must hold."""


def flat(values: npt.NDArray[Any] | torch.Tensor) -> array[Any]:
    """All numbers of an array in row-major order, as message fields take them fastest (no loop over elements)."""
    numbers = np.ascontiguousarray(values.numpy() if isinstance(values, torch.Tensor) else values)
    result = array(_TYPE_CODES[numbers.dtype])
    result.frombytes(numbers.tobytes())
    return result


def rows(values: Sequence[float], width: int, field: str, count: int | None = None) -> Array:
    """A flat field as (count, width) float64. Raises InvalidMessage unless it has count * width numbers (count None: any multiple)."""
    numbers = np.array(values, dtype=np.float64)
    if numbers.size % width or (count is not None and numbers.size != count * width):
        wanted = f"{count} x {width} = {count * width}" if count is not None else f"a multiple of {width}"
        raise InvalidMessage(f"{field} has {numbers.size} numbers; it must have {wanted}")
    return numbers.reshape(-1, width)


# --- time -----------------------------------------------------------------------------------------------------------------------------


def time_message(nanoseconds: int) -> Time:
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def nanoseconds_of(time: Time) -> int:
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def header(stamp_ns: int) -> Header:
    return Header(stamp=time_message(stamp_ns), frame_id=WORLD_FRAME)


# --- vectors --------------------------------------------------------------------------------------------------------------------------


def point_message(xyz: npt.ArrayLike) -> Point:
    x, y, z = (float(value) for value in np.asarray(xyz))
    return Point(x=x, y=y, z=z)


def vector_of(point: Point | Vector3) -> Array:
    return np.array([point.x, point.y, point.z], dtype=np.float64)


# --- views ----------------------------------------------------------------------------------------------------------------------------


def view_message(view: View) -> msg.View:
    height, width = view.depth.shape
    head = header(view.stamp_ns)
    x, y, z, w = (float(value) for value in view.orientation)
    k = view.intrinsics
    projection = [k[0, 0], k[0, 1], k[0, 2], 0.0, k[1, 0], k[1, 1], k[1, 2], 0.0, k[2, 0], k[2, 1], k[2, 2], 0.0]
    optical = Header(stamp=head.stamp, frame_id=f"{view.name}_optical_frame")
    return msg.View(
        header=head,
        name=view.name,
        image=Image(header=optical, height=height, width=width, encoding="rgb8", step=3 * width, data=flat(view.rgb)),
        depth=Image(header=optical, height=height, width=width, encoding="32FC1", step=4 * width, data=flat(view.depth.view(np.uint8))),
        camera_info=CameraInfo(
            header=optical,
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
            k=k.astype(np.float64).ravel(),
            r=np.eye(3).ravel(),
            p=np.array(projection, dtype=np.float64),
        ),
        pose=Pose(position=point_message(view.position), orientation=Quaternion(x=x, y=y, z=z, w=w)),
    )


def view_from_message(message: msg.View, unnamed: str = "") -> View:
    """The view; one without a name is called `unnamed`.

    Raises InvalidObservation: no name at all, encoding, sizes, distortion or calibration that cannot be used, or no depth at all.
    """
    name = message.name or unnamed
    if not name:
        raise InvalidObservation("a view has an empty name; it must name its camera")
    if message.header.frame_id not in ("", WORLD_FRAME):
        raise InvalidObservation(
            f"view '{name}': header.frame_id is '{message.header.frame_id}'; allowed: '{WORLD_FRAME}', in which pose has to be given"
        )
    if message.camera_info.d and any(message.camera_info.d):
        raise InvalidObservation(
            f"view '{name}': camera_info.d is {list(message.camera_info.d)}; rectify the image: it must be empty or zero"
        )
    encoding = message.image.encoding
    if encoding not in _COLOR_ENCODINGS:
        raise InvalidObservation(f"view '{name}': image encoding is '{encoding}'; allowed: {', '.join(_COLOR_ENCODINGS)}")
    rgb = _pixels(message.image, np.dtype(np.uint8), 3, f"view '{name}': image")
    if encoding == "bgr8":
        rgb = np.ascontiguousarray(rgb[..., ::-1])
    calibrated = (message.camera_info.width, message.camera_info.height)
    if calibrated not in ((0, 0), (message.image.width, message.image.height)):
        raise InvalidObservation(
            f"view '{name}': camera_info is of {calibrated[0]} x {calibrated[1]} pixels, the image has {message.image.width} x "
            f"{message.image.height}; the calibration must be that of the image"
        )
    if message.depth.encoding not in _DEPTH_ENCODINGS:
        allowed = ", ".join(_DEPTH_ENCODINGS)
        raise InvalidObservation(f"view '{name}': depth encoding is '{message.depth.encoding}'; allowed: {allowed} (metres, millimetres)")
    dtype, unit = _DEPTH_ENCODINGS[message.depth.encoding]
    raw = _pixels(message.depth, dtype, 1, f"view '{name}': depth")[..., 0]
    depth = raw if dtype == np.float32 else (raw * unit).astype(np.float32)
    pose = message.pose
    view = View(
        name=name,
        rgb=rgb,
        depth=depth,
        intrinsics=np.array(message.camera_info.k, dtype=np.float64).reshape(3, 3),
        position=vector_of(pose.position),
        orientation=np.array([pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]),
        stamp_ns=nanoseconds_of(message.header.stamp),
    )
    if not view.valid_depth.any():
        raise InvalidObservation(
            f"view '{name}': depth has no return at all (0, NaN or inf everywhere); check the depth camera and its driver"
        )
    return view


def _pixels(image: Image, dtype: np.dtype[Any], channels: int, what: str) -> npt.NDArray[Any]:
    """(height, width, channels) of an image; rows may be padded."""
    row = image.width * channels * dtype.itemsize
    if image.height == 0 or image.width == 0:
        raise InvalidObservation(f"{what} is {image.width} x {image.height} pixels; it must not be empty")
    if image.is_bigendian and dtype.itemsize > 1:
        raise InvalidObservation(f"{what} is big-endian; it must be little-endian")
    if image.step < row or len(image.data) != image.step * image.height:
        raise InvalidObservation(
            f"{what} has {len(image.data)} bytes with step {image.step}; {image.width} x {image.height} '{image.encoding}' needs "
            f"step >= {row} and step * height bytes"
        )
    data = np.frombuffer(image.data, dtype=np.uint8).reshape(image.height, image.step)[:, :row]
    return np.ascontiguousarray(data).view(dtype).reshape(image.height, image.width, channels)


# --- goals that are shown ---------------------------------------------------------------------------------------------------------------

GOAL_PICTURE = "goal picture"
_MOST_NAMES, _LONGEST_NAME = 6, 100


class ShowsGoal(Protocol):
    """The fields that Manipulate.Goal, ReadGoalPicture.Request and ResetScene.Response have in common."""

    goal_picture: msg.View
    pictured: list[str]
    present: list[str]


def write_goal_picture(message: ShowsGoal, picture: View | None, correspondence: Mapping[str, str]) -> None:
    """Put a picture (None: leave it empty) and who is who (name in the picture -> name in the present scene) into a message."""
    if picture is not None:
        message.goal_picture = view_message(picture)
    message.pictured, message.present = list(correspondence), list(correspondence.values())


def read_goal_picture(message: ShowsGoal) -> tuple[View, dict[str, str]] | None:
    """The picture and the correspondence, name in the picture -> name in the present scene; None: there is no picture.

    Raises InvalidMessage: a picture that cannot be used; names of different number, empty, too long, twice, or for several objects.
    """
    image, pictured, present = message.goal_picture.image, list(message.pictured), list(message.present)
    if len(pictured) != len(present) or len(pictured) > _MOST_NAMES:
        raise InvalidMessage(
            f"pictured and present have {len(pictured)} and {len(present)} names; they must have the same number, at most {_MOST_NAMES}"
        )
    for field, names in (("pictured", pictured), ("present", present)):
        for i, name in enumerate(names):
            if not 1 <= len(name.strip()) <= _LONGEST_NAME:
                raise InvalidMessage(f"{field}[{i}] has {len(name.strip())} characters; allowed: 1 to {_LONGEST_NAME}")
    if twice := sorted({name for name in pictured if pictured.count(name) > 1}):
        raise InvalidMessage(f"pictured holds '{twice[0]}' twice; each object in the picture takes one part")
    for name in present:
        try:
            Relation(RelationKind.NEXT_TO, name, (name,))
        except ValueError as error:
            raise InvalidMessage(f"present: {error}") from error
    if image.width == 0 and image.height == 0 and not image.data:
        if pictured:
            raise InvalidMessage(f"pictured names '{pictured[0]}', but there is no goal_picture")
        return None
    try:
        return view_from_message(message.goal_picture, GOAL_PICTURE), dict(zip(pictured, present, strict=True))
    except InvalidObservation as error:
        raise InvalidMessage(f"goal_picture: {error}") from error


# --- what is known of the cell ----------------------------------------------------------------------------------------------------------


def limits_message(limits: WorkcellLimits) -> msg.WorkcellLimits:
    gripper = limits.gripper
    return msg.WorkcellLimits(
        workspace_min=point_message(limits.workspace_min),
        workspace_max=point_message(limits.workspace_max),
        base_position=point_message(limits.base_position),
        reach_min=float(limits.reach[0]),
        reach_max=float(limits.reach[1]),
        forward=[float(value) for value in limits.forward],
        left=[float(value) for value in limits.left],
        gripper_kind=gripper.kind,
        gripper_max_opening=float(gripper.max_opening),
        finger_thickness=float(gripper.finger_thickness),
        finger_width=float(gripper.finger_width),
        finger_length=float(gripper.finger_length),
        palm_size=[float(value) for value in gripper.palm_size],
    )


def limits_from_message(message: msg.WorkcellLimits) -> WorkcellLimits:
    """Raises InvalidMessage: an empty box, directions that are not perpendicular, an unknown gripper."""
    low, high, base = message.workspace_min, message.workspace_max, message.base_position
    try:
        return WorkcellLimits(
            workspace_min=(low.x, low.y, low.z),
            workspace_max=(high.x, high.y, high.z),
            base_position=(base.x, base.y, base.z),
            reach=(message.reach_min, message.reach_max),
            forward=(float(message.forward[0]), float(message.forward[1])),
            left=(float(message.left[0]), float(message.left[1])),
            gripper=Gripper(
                kind=message.gripper_kind,
                max_opening=message.gripper_max_opening,
                finger_thickness=message.finger_thickness,
                finger_width=message.finger_width,
                finger_length=message.finger_length,
                palm_size=(float(message.palm_size[0]), float(message.palm_size[1])),
            ),
        )
    except ValueError as error:
        raise InvalidMessage(f"workcell limits: {error}") from error


# --- goals, scenes ----------------------------------------------------------------------------------------------------------------------


def relation_message(relation: Relation) -> msg.Relation:
    return msg.Relation(kind=str(relation.kind), subject=relation.subject, references=list(relation.references))


def relation_from_message(message: msg.Relation) -> Relation:
    """Raises InvalidMessage: an unknown kind, no subject, or a wrong number of references."""
    if message.kind not in list(RelationKind):
        raise InvalidMessage(f"relation kind is '{message.kind}'; allowed: {', '.join(RelationKind)}")
    if not message.subject:
        raise InvalidMessage("relation subject is empty; it must be a noun phrase")
    try:
        return Relation(RelationKind(message.kind), message.subject, tuple(message.references))
    except ValueError as error:
        raise InvalidMessage(str(error)) from error


def scene_message(scene: Scene) -> msg.Scene:
    return msg.Scene(
        header=header(scene.stamp_ns),
        objects=[_object_message(thing) for thing in scene.objects],
        table_height=float(scene.table_height),
        limits=limits_message(scene.limits),
    )


def _object_message(thing: SceneObject) -> msg.SceneObject:
    size = thing.size
    return msg.SceneObject(
        label=thing.label,
        label_confidence=float(thing.label_confidence),
        pose=Pose(position=point_message(thing.center)),
        size=Vector3(x=float(size[0]), y=float(size[1]), z=float(size[2])),
        points=flat(thing.points.astype(np.float32, copy=False)),
        colors=flat(thing.colors),
    )


def scene_from_message(message: msg.Scene) -> Scene:
    """Raises InvalidMessage: points or colours of a wrong length, or limits that make no sense."""
    if not math.isfinite(message.table_height):
        raise InvalidMessage(f"scene table_height is {message.table_height}; it must be finite metres")
    objects = tuple(_object_from_message(number, thing) for number, thing in enumerate(message.objects))
    return Scene(objects, message.table_height, limits_from_message(message.limits), nanoseconds_of(message.header.stamp))


def _object_from_message(number: int, message: msg.SceneObject) -> SceneObject:
    points, colors = np.array(message.points, dtype=np.float32), np.array(message.colors, dtype=np.uint8)
    if points.size == 0 or points.size % 3 or colors.size != points.size or not np.isfinite(points).all():
        raise InvalidMessage(
            f"scene object {number} ('{message.label}') has {points.size} point and {colors.size} colour numbers; both must have "
            "3 for each of at least one point, and points must be finite"
        )
    return SceneObject(points.reshape(-1, 3), colors.reshape(-1, 3), message.label, message.label_confidence)


# --- actions, proposals -----------------------------------------------------------------------------------------------------------------


def pick_place_message(action: PickPlace) -> msg.PickPlace:
    return msg.PickPlace(
        pick_position=point_message(action.pick_position),
        pick_yaw=float(action.pick_yaw),
        pick_width=float(action.pick_width),
        place_position=point_message(action.place_position),
        place_yaw=float(action.place_yaw),
    )


def pick_place_from_message(message: msg.PickPlace) -> PickPlace:
    """Raises InvalidMessage: a number that is not finite."""
    try:
        return PickPlace(
            vector_of(message.pick_position), message.pick_yaw, message.pick_width, vector_of(message.place_position), message.place_yaw
        )
    except ValueError as error:
        raise InvalidMessage(str(error)) from error


def numbers_of(action: PickPlace) -> list[float]:
    """The nine numbers of an action: pick x, y, z, yaw, width, place x, y, z, yaw."""
    pick, place = action.pick_position, action.place_position
    return [*map(float, pick), float(action.pick_yaw), float(action.pick_width), *map(float, place), float(action.place_yaw)]


def proposals_message(batch: Batch, scene: msg.Scene) -> msg.Proposals:
    """A manipulation batch; `scene` is passed as the message it was or will be sent as, since making it is the dear part."""
    return msg.Proposals(
        header=scene.header,
        scene=scene,
        category=flat(batch.category),
        parameters=flat(batch.parameters),
        **{name: flat(batch.extras[name]) for name in EXTRAS},
    )


def batch_from_message(message: msg.Proposals) -> Batch:
    """Raises InvalidMessage: no proposals, lengths that do not fit, numbers that are not finite, or objects that are not in the scene."""
    category = np.array(message.category, dtype=np.int64)
    count, objects = len(category), len(message.scene.objects)
    if count == 0:
        raise InvalidMessage("proposals.category is empty; at least one proposal is needed")
    if category.min() < 0 or category.max() >= objects:
        raise InvalidMessage(
            f"proposals.category holds {category.min()} to {category.max()}; allowed: 0 to {objects - 1} (objects of the scene)"
        )
    parameters = rows(message.parameters, PARAMETERS, "proposals.parameters", count)
    extras = {name: rows(getattr(message, name), width, f"proposals.{name}", count) for name, width in EXTRAS.items()}
    for field, numbers in {"parameters": parameters, **extras}.items():
        if not np.isfinite(numbers).all():
            raise InvalidMessage(f"proposals.{field} holds NaN or inf; all numbers must be finite")
    return Batch(
        torch.from_numpy(parameters), torch.from_numpy(category), {name: torch.from_numpy(numbers) for name, numbers in extras.items()}
    )


def write_state(state: CrossEntropyState | None, request: srv.Propose.Request) -> None:
    """Put the distribution to draw from into a request; None (the prior) leaves its fields empty."""
    if state is not None:
        request.category_probability = flat(state.category_probability)
        request.mean, request.std = flat(state.mean), flat(state.std)


def read_state(request: srv.Propose.Request) -> CrossEntropyState | None:
    """Raises InvalidMessage: lengths that do not fit together, or numbers that make no distribution."""
    categories = len(request.category_probability)
    if categories == 0 and not request.mean and not request.std:
        return None
    probability = np.array(request.category_probability, dtype=np.float64)
    mean, std = rows(request.mean, PARAMETERS, "mean", categories), rows(request.std, PARAMETERS, "std", categories)
    if not (np.isfinite(probability).all() and (probability >= 0).all() and abs(probability.sum() - 1) < 1e-6):
        raise InvalidMessage(f"category_probability is {probability.tolist()}; it must be >= 0 and sum to 1")
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
        raise InvalidMessage("mean and std must be finite, std >= 0")
    return CrossEntropyState(torch.from_numpy(probability), torch.from_numpy(mean), torch.from_numpy(std))


def relations_from_messages(messages: Iterable[msg.Relation]) -> tuple[Relation, ...]:
    return tuple(relation_from_message(message) for message in messages)


def score_messages(rows: Sequence[Mapping[str, float]]) -> list[msg.Score]:
    """One Score for each scorer that judged any of N rows (name -> energy), by name; energies[i] of row i, NaN: not judged."""
    names = sorted({name for row in rows for name in row})
    return [msg.Score(scorer=name, energies=[float(row.get(name, math.nan)) for row in rows]) for name in names]
