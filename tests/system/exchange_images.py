"""Two processes for one test: `talk` sends numbered 640x480 views, `listen` prints the numbers of those that arrive.

The listener confirms each over a reliable topic, and the talker waits for that before it sends the next: what counts is whether an
image can get through, not how busy the machine is.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from std_msgs.msg import Header

from pcm_ros import msg
from pcm_ros.nodes.conversions import header, nanoseconds_of, view_message
from pcm_ros.tasks.manipulation.workcell import View

COUNT = 40
READY = 1000  # what the listener confirms first: that it has found the talker
CONFIRMATIONS = QoSProfile(depth=COUNT + 1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LATE = 3.0  # seconds after which an image counts as lost


def numbered(number: int) -> msg.View:
    image = np.full((480, 640, 3), number, dtype=np.uint8)
    depth = np.ones((480, 640), dtype=np.float32)
    pose = np.array([0.0, 0.0, 0.0, 1.0])
    return view_message(View("front", image, depth, np.diag([500.0, 500.0, 1.0]), np.zeros(3), pose, number))


def talk() -> None:
    node = rclpy.create_node("talker")
    publisher = node.create_publisher(msg.View, "images", qos_profile_sensor_data)
    confirmed: set[int] = set()
    node.create_subscription(Header, "confirmed", lambda head: confirmed.add(nanoseconds_of(head.stamp)), CONFIRMATIONS)
    while READY not in confirmed or publisher.get_subscription_count() == 0:
        rclpy.spin_once(node, timeout_sec=0.1)
    for number in range(COUNT):
        publisher.publish(numbered(number))
        late = time.monotonic() + LATE
        while number not in confirmed and time.monotonic() < late:
            rclpy.spin_once(node, timeout_sec=0.1)


def listen() -> None:
    node = rclpy.create_node("listener")
    confirmations = node.create_publisher(Header, "confirmed", CONFIRMATIONS)
    got: list[int] = []

    def receive(view: msg.View) -> None:
        got.append(int(view.image.data[0]))
        confirmations.publish(header(got[-1]))

    found = SubscriptionEventCallbacks(matched=lambda _: confirmations.publish(header(READY)))
    node.create_subscription(msg.View, "images", receive, qos_profile_sensor_data, event_callbacks=found)
    deadline = time.monotonic() + 60.0 + COUNT * LATE
    while time.monotonic() < deadline and (not got or got[-1] != COUNT - 1):
        rclpy.spin_once(node, timeout_sec=0.2)
    print(*got)


if __name__ == "__main__":
    rclpy.init()
    talk() if sys.argv[1] == "talk" else listen()
