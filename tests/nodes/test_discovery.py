"""Clients made while an executor is at work on their node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from pcm_ros.action import Manipulate
from pcm_ros.nodes.discovery import ActionClientWhileSpinning


class LookedAtOnce(Node):
    """A node whose executor looks at each waitable in the moment in which it is added: the worst moment of a spinning thread."""

    def add_waitable(self, waitable: Any) -> None:
        super().add_waitable(waitable)
        waitable.get_num_entities()


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = LookedAtOnce("looked_at_once", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def test_an_action_client_can_be_looked_at_as_soon_as_it_is_added(node: Node) -> None:
    client = ActionClientWhileSpinning(node, Manipulate, "manipulate")
    assert not client.server_is_ready()
