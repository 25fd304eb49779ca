"""A lifecycle node whose first answer to each kind of lifecycle request is lost, as DDS loses it before its reader was discovered."""

from __future__ import annotations

from typing import Any

from rclpy.service import Service

from pcm_ros.nodes.lifecycle import Node, run


class LosingNode(Node):
    def __init__(self) -> None:
        super().__init__("losing")
        self.configured = 0
        for service in (self._service_change_state, self._service_get_state):
            lose_first_answer(service)

    def configure(self) -> None:
        self.configured += 1
        self.get_logger().info(f"configured {self.configured} times")


def lose_first_answer(service: Service) -> None:
    send, lost = service.send_response, False

    def send_or_lose(response: Any, header: Any) -> None:
        nonlocal lost
        if lost:
            send(response, header)
        lost = True

    service.send_response = send_or_lose


if __name__ == "__main__":
    run(LosingNode)
