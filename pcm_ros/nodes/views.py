"""Camera views as they arrive: kept by stamp, decoded when somebody asks.

The newest few of each camera are kept, and those that the planner named in `ObservationTaken` until it has named others: planning on
them takes longer than cameras take to send the next ones.

Cameras send with sensor-data quality of service, so that a node may lose what others have received. The planner has every image that it
asks others about: a node that lacks one says so on `observation/missing`, and gets it on `observation/views`, reliably.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node as RosNode
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.subscription import Subscription

from pcm_ros import msg
from pcm_ros.nodes.conversions import nanoseconds_of, time_message, view_from_message
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, View

KEPT = 16
KEPT_OBSERVATIONS = 3
OBSERVATION_TOPIC = "observation"
SCENE_CHANGED_TOPIC = "workcell/scene_changed"
MISSING_TOPIC = "observation/missing"
SENT_AGAIN_TOPIC = "observation/views"
SENT_AGAIN = "was lost on its way to another node and is sent again"
LATCHED = QoSProfile(depth=KEPT_OBSERVATIONS, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_RELIABLE = QoSProfile(depth=10)
_AHEAD = 1.0  # seconds by which a camera's clock may be ahead of this node's
_BACKWARD = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
_ASK = 0.3  # seconds that an image may be late before it counts as lost, and between two requests for it


def view_topic(camera: str) -> str:
    return f"workcell/views/{camera}"


class ViewBuffer:
    """The newest few views of each camera.

    Args:
        node: subscribes with sensor-data quality of service.
        cameras: names, one topic each.
        source: whether this buffer sends images again that others lack (the planner's does); otherwise it asks for those that it lacks.
        on_restart: called when ROS time went back (a simulation or a recording began anew) and all views were forgotten.
    """

    def __init__(self, node: RosNode, cameras: Sequence[str], source: bool = False, on_restart: Callable[[], None] = lambda: None) -> None:
        self._node, self._on_restart = node, on_restart
        self._changed = threading.Condition()
        self._messages: dict[str, OrderedDict[int, msg.View]] = {camera: OrderedDict() for camera in cameras}
        self._named: deque[frozenset[tuple[str, int]]] = deque(maxlen=KEPT_OBSERVATIONS)
        self._decoded: dict[tuple[str, int], View | InvalidObservation] = {}
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Subscription] = [
            node.create_subscription(
                msg.View,
                view_topic(camera),
                lambda message, camera=camera: self._receive(camera, message),
                qos_profile_sensor_data,
                callback_group=group,
            )
            for camera in cameras
        ]
        self._subscriptions.append(
            node.create_subscription(msg.ObservationTaken, OBSERVATION_TOPIC, self._name, LATCHED, callback_group=group)
        )
        if source:
            self._exchange = node.create_publisher(msg.View, SENT_AGAIN_TOPIC, _RELIABLE)
            again = node.create_subscription(msg.ObservationTaken, MISSING_TOPIC, self._send_again, _RELIABLE, callback_group=group)
        else:
            self._exchange = node.create_publisher(msg.ObservationTaken, MISSING_TOPIC, _RELIABLE)
            again = node.create_subscription(msg.View, SENT_AGAIN_TOPIC, self._receive_again, _RELIABLE, callback_group=group)
        self._source = source
        self._subscriptions.append(again)
        self._jumps = node.get_clock().create_jump_callback(_BACKWARD, post_callback=self._restart)

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self._messages)

    def _restart(self, jump: TimeJump) -> None:
        with self._changed:
            for kept in self._messages.values():
                kept.clear()
            self._named.clear()
            self._decoded.clear()
        self._node.get_logger().warning(f"ROS time jumped by {jump.delta.nanoseconds / 1e9:.3f} s: the views of before are forgotten")
        self._on_restart()

    def _receive(self, camera: str, message: msg.View) -> None:
        with self._changed:
            kept = self._messages[camera]
            kept[nanoseconds_of(message.header.stamp)] = message
            self._drop_old(camera)
            self._changed.notify_all()

    def _receive_again(self, message: msg.View) -> None:
        if message.name in self._messages:
            self._receive(message.name, message)

    def _send_again(self, request: msg.ObservationTaken) -> None:
        for camera, stamp in zip(request.views, request.stamps, strict=False):
            with self._changed:
                kept = self._messages.get(camera)
                message = kept.get(nanoseconds_of(stamp)) if kept is not None else None
            if message is not None:
                self._node.get_logger().info(f"view '{camera}' stamped {nanoseconds_of(stamp) / 1e9:.3f} s {SENT_AGAIN}")
                self._exchange.publish(message)

    def _ask_for(self, camera: str, stamp_ns: int) -> None:
        if not self._source:
            self._exchange.publish(msg.ObservationTaken(views=[camera], stamps=[time_message(stamp_ns)]))

    def _name(self, message: msg.ObservationTaken) -> None:
        with self._changed:
            stamps = (nanoseconds_of(stamp) for stamp in message.stamps)
            self._named.append(frozenset(zip(message.views, stamps, strict=False)))
            for camera in self._messages:
                self._drop_old(camera)

    def _drop_old(self, camera: str) -> None:
        kept = self._messages[camera]
        named = {stamp for observation in self._named for name, stamp in observation if name == camera}
        for stamp in [stamp for stamp in kept if stamp not in named][:-KEPT]:
            del kept[stamp]
            self._decoded.pop((camera, stamp), None)

    def newest_stamp(self, camera: str) -> int:
        """Nanoseconds; 0: nothing has arrived yet."""
        with self._changed:
            return max(self._messages[camera], default=0)

    def optical_frame(self, camera: str, stamp_ns: int) -> str:
        """Name of the camera's optical frame, as the image of this stamp gives it."""
        with self._changed:
            message = self._messages[camera].get(stamp_ns)
        return (message.image.header.frame_id if message is not None else "") or f"{camera}_optical_frame"

    def at(self, camera: str, stamp_ns: int, timeout: float, should_stop: Callable[[], bool]) -> View:
        """The view of exactly this stamp; waits for it at most `timeout` seconds, and asks the planner for it meanwhile.

        Raises:
            InvalidObservation: it did not arrive, or cannot be used.
        """
        asked = time.monotonic()
        deadline = asked + timeout
        with self._changed:
            while stamp_ns not in self._messages[camera]:
                left = deadline - time.monotonic()
                if time.monotonic() - asked > _ASK:
                    asked = time.monotonic()
                    self._ask_for(camera, stamp_ns)
                if left <= 0 or should_stop():
                    newest = max(self._messages[camera], default=0)
                    have = f"the newest is stamped {newest / 1e9:.3f} s" if newest else "none has arrived at all"
                    raise InvalidObservation(
                        f"view '{camera}' stamped {stamp_ns / 1e9:.3f} s did not arrive within {timeout:g} s ({have}); check the camera's "
                        f"driver, topic '{view_topic(camera)}', and that FASTDDS_DEFAULT_PROFILES_FILE names config/fastdds.xml"
                    )
                self._changed.wait(min(left, 0.1))
        return self._decode(camera, stamp_ns)

    def since(
        self, not_before_ns: int, timeout: float, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[tuple[View, ...], dict[str, str]]:
        """The newest usable view of each camera, stamped at `not_before_ns` or later; waits for one at most `timeout` seconds.

        Returns:
            The usable views in the cameras' order, and camera -> reason for the others.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = {camera: self._newest_usable(camera, not_before_ns) for camera in self._messages}
            left = deadline - time.monotonic()
            if all(isinstance(view, View) for view in found.values()) or left <= 0 or should_stop():
                break
            with self._changed:
                self._changed.wait(min(left, 0.1))
        views = tuple(view for view in found.values() if isinstance(view, View))
        topic = {camera: self._node.resolve_topic_name(view_topic(camera)) for camera in found}
        silent = f"no new view arrived within {timeout:g} s on"
        reasons = {camera: str(view or f"{silent} '{topic[camera]}'") for camera, view in found.items() if not isinstance(view, View)}
        return views, reasons

    def _newest_usable(self, camera: str, not_before_ns: int) -> View | InvalidObservation | None:
        """The newest usable view; if there is none, what is wrong with the newest one; None: none has arrived."""
        now = self._node.get_clock().now().nanoseconds
        if now == 0:
            return InvalidObservation("ROS time is 0: `use_sim_time` is set, and nobody publishes /clock")
        with self._changed:
            stamps = sorted((stamp for stamp in self._messages[camera] if stamp >= max(not_before_ns, 1)), reverse=True)
        newest_fault = None
        if stamps and stamps[0] > now + _AHEAD * 1e9:
            newest_fault = InvalidObservation(
                f"view '{camera}' is stamped {(stamps[0] - now) / 1e9:.3f} s in the future: its camera's clock and this node's differ"
            )
            stamps = [stamp for stamp in stamps if stamp <= now + _AHEAD * 1e9]
        for stamp in stamps:
            try:
                return self._decode(camera, stamp)
            except InvalidObservation as error:
                newest_fault = newest_fault or error
            except KeyError:  # dropped for newer ones meanwhile
                continue
        return newest_fault

    def _decode(self, camera: str, stamp_ns: int) -> View:
        key = (camera, stamp_ns)
        with self._changed:
            if key not in self._decoded:
                try:
                    view = view_from_message(self._messages[camera][stamp_ns])
                    if view.name != camera:
                        raise InvalidObservation(f"topic '{view_topic(camera)}' carries a view named '{view.name}'; they must be the same")
                    self._decoded[key] = view
                except InvalidObservation as error:
                    self._decoded[key] = error
            result = self._decoded[key]
        if isinstance(result, InvalidObservation):
            raise result
        return result

    def close(self) -> None:
        self._jumps.unregister()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_publisher(self._exchange)
