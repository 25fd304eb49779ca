"""Two processes for one test: `talk` sends numbered 640x480 views, `listen` prints the numbers of those that arrive."""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data

from pcm_ros import msg
from pcm_ros.nodes.conversions import view_message
from pcm_ros.tasks.manipulation.workcell import View

COUNT = 40


def numbered(number: int) -> msg.View:
    image = np.full((480, 640, 3), number, dtype=np.uint8)
    depth = np.ones((480, 640), dtype=np.float32)
    pose = np.array([0.0, 0.0, 0.0, 1.0])
    return view_message(View("front", image, depth, np.diag([500.0, 500.0, 1.0]), np.zeros(3), pose, number))


def talk() -> None:
    node = rclpy.create_node("talker")
    publisher = node.create_publisher(msg.View, "images", qos_profile_sensor_data)
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(0.5)  # until the other side has found this one too
    for number in range(COUNT):
        publisher.publish(numbered(number))
        time.sleep(0.1)
    time.sleep(30.0)


def listen() -> None:
    node = rclpy.create_node("listener")
    got: list[int] = []
    node.create_subscription(msg.View, "images", lambda view: got.append(int(view.image.data[0])), qos_profile_sensor_data)
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and (not got or got[-1] != COUNT - 1):
        rclpy.spin_once(node, timeout_sec=0.2)
    print(*got)


if __name__ == "__main__":
    rclpy.init()
    talk() if sys.argv[1] == "talk" else listen()
