"""Nodes that are at work when their process is told to end: `hangs` in a call, `moves` the arm, `meddles` with what is gone. They activate
themselves."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from std_msgs.msg import Empty

from pcm_ros import srv
from pcm_ros.nodes.lifecycle import Node, run
from pcm_ros.nodes.ros_workcell import RosWorkcell
from pcm_ros.tasks.manipulation.workcell import PickPlace


class Hangs(Node):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__("ending")
        self.trigger_configure()
        self.trigger_activate()

    def activate(self) -> None:
        self.offer(srv.JudgeScene, "~/work", self._work)

    def _work(self, _: srv.JudgeScene.Request, response: srv.JudgeScene.Response) -> srv.JudgeScene.Response:
        print("begun", flush=True)
        self.at_work()
        return response

    def at_work(self) -> None:
        time.sleep(600.0)


class Moves(Hangs):
    """Has the arm moved."""

    def configure(self) -> None:
        self._cell = RosWorkcell(self, ["front"], 1.0, 1.0, 600.0, self.free_group, self.stopping.is_set)

    def at_work(self) -> None:
        self._cell.execute(PickPlace(np.array([0.5, 0.0, 0.1]), 0.0, 0.05, np.array([0.5, 0.1, 0.1]), 0.0))


class Meddles(Hangs):
    """Uses what was destroyed meanwhile, as a transition may do to it."""

    def at_work(self) -> None:
        publisher = self.create_publisher(Empty, "~/nothing", 1)
        self.destroy_publisher(publisher)
        publisher.publish(Empty())


if __name__ == "__main__":
    kinds: dict[str, Any] = {"hangs": Hangs, "moves": Moves, "meddles": Meddles}
    run(kinds[sys.argv[1]], [])
