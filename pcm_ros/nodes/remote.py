"""Scorers, generator and perception that live in other processes, behind the interfaces that the policy knows.

Their methods wait for answers: see `waiting.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np
import torch
from builtin_interfaces.msg import Time
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from torch import Tensor

from pcm_ros import msg, srv
from pcm_ros.consensus import Batch, CrossEntropyState
from pcm_ros.nodes import conversions
from pcm_ros.nodes.waiting import RemoteError, RemoteService
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.generator import NothingToGrasp
from pcm_ros.tasks.manipulation.goal import Goal
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError
from pcm_ros.tasks.manipulation.relation_scorer import Assessment
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import (
    InvalidObservation,
    Observation,
    View,
    Workcell,
)

_HOPE = 30.0  # times its timeout that a scorer which hangs is waited for: meanwhile the ensemble goes on without it, and does not ask again


class SceneMessages:
    """The message of a scene, made once and not for each scorer and iteration."""

    def __init__(self) -> None:
        self._last: tuple[Scene, msg.Scene] | None = None
        self._lock = threading.Lock()

    def of(self, scene: Scene) -> msg.Scene:
        with self._lock:
            if self._last is None or self._last[0] is not scene:
                self._last = (scene, conversions.scene_message(scene))
            return self._last[1]


class RemoteScorer:
    """A scorer node as a scorer of an ensemble; the energies are those that the same scorer gives in this process.

    But for what is not sent: a scorer over there sees a `Context` without grasps that failed and without a target of a rearrangement.

    Args:
        node_name: of the scorer node; its services are `<node_name>/score` and `<node_name>/assess`.
        name: in the ensemble.
        view: the camera whose image it scores on.
        timeout: of the ensemble, seconds; also for what the scorer says of things as they are.
    """

    differentiable = False

    def __init__(
        self,
        node: Node,
        node_name: str,
        name: str,
        view: str,
        timeout: float,
        scenes: SceneMessages,
        group: CallbackGroup,
        should_stop: Callable[[], bool] = lambda: False,
        cost: float = 1e-3,
    ) -> None:
        self.name, self.view, self.cost, self._scenes = name, view, cost, scenes
        self._scoring = RemoteService(node, srv.ScoreProposals, f"{node_name}/score", _HOPE * timeout, group, should_stop)
        self._assessing = RemoteService(node, srv.AssessRelation, f"{node_name}/assess", timeout, group, should_stop)

    def energy(self, batch: Batch, context: Context) -> Tensor:
        """(N,) energies. Raises RemoteError, or InvalidObservation where its camera delivered nothing."""
        request = srv.ScoreProposals.Request(
            proposals=conversions.proposals_message(batch, self._scenes.of(context.scene)),
            relation=conversions.relation_message(context.relation),
            held=[conversions.relation_message(relation) for relation in context.held],
            stamp=self._stamp(context),
        )
        score = self._scoring.call(request).score
        if score.error:
            raise RemoteError(score.error)
        return torch.from_numpy(np.array(score.energies, dtype=np.float64))

    def assess(self, context: Context) -> Assessment:
        """What its view says of the relation as things are. Raises as `energy`."""
        request = srv.AssessRelation.Request(
            relation=conversions.relation_message(context.relation), scene=self._scenes.of(context.scene), stamp=self._stamp(context)
        )
        response = self._assessing.call(request)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        objects, phrases = len(context.scene.objects), len(context.relation.phrases)
        logits = torch.from_numpy(conversions.rows(response.logits, len(context.relation.texts), "logits", objects))
        margins = torch.from_numpy(conversions.rows(response.margins, 1, "margins", objects**phrases))
        return Assessment(self.name, logits, margins.reshape((objects,) * phrases))

    def _stamp(self, context: Context) -> Time:
        for view in context.observation.views:
            if view.name == self.view:
                return conversions.time_message(view.stamp_ns)
        raise InvalidObservation(f"camera '{self.view}' delivered no usable view")

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._scoring.ready

    def close(self) -> None:
        self._scoring.close()
        self._assessing.close()


class RemoteGenerator:
    """A generator node's proposals; the same seed gives those of the same generator in this process."""

    def __init__(
        self,
        node: Node,
        name: str,
        count: int,
        timeout: float,
        scenes: SceneMessages,
        group: CallbackGroup,
        should_stop: Callable[[], bool],
    ) -> None:
        self._count, self._scenes = count, scenes
        self._service = RemoteService(node, srv.Propose, f"{name}/propose", timeout, group, should_stop)

    def propose(self, context: Context, state: CrossEntropyState | None, rng: torch.Generator) -> Batch:
        """A batch. Raises NothingToGrasp as the generator does, RemoteError."""
        request = srv.Propose.Request(
            relation=conversions.relation_message(context.relation),
            held=[conversions.relation_message(relation) for relation in context.held],
            scene=self._scenes.of(context.scene),
            seed=rng.initial_seed(),
            count=self._count,
        )
        conversions.write_state(state, request)
        response = self._service.call(request)
        if response.error_code == srv.Propose.Response.NOTHING_TO_GRASP:
            raise NothingToGrasp(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return conversions.batch_from_message(response.proposals)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()


class RemotePerception:
    """A generator node's perception of the views that it has received itself."""

    def __init__(
        self, node: Node, name: str, workcell: Workcell, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]
    ) -> None:
        self._workcell = workcell
        self._service = RemoteService(node, srv.PerceiveScene, f"{name}/perceive", timeout, group, should_stop)

    def perceive(self, observation: Observation) -> Scene:
        """The scene. Raises InvalidObservation as the perception does, RemoteError."""
        request = srv.PerceiveScene.Request(
            views=[view.name for view in observation.views],
            stamps=[conversions.time_message(view.stamp_ns) for view in observation.views],
            limits=conversions.limits_message(self._workcell.limits),
        )
        response = self._service.call(request)
        if response.error_code == srv.PerceiveScene.Response.OBSERVATION:
            raise InvalidObservation(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return conversions.scene_from_message(response.scene)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()


class RemoteGoalPictureReader:
    """A generator node's reading of pictures as goals: what perceives the present scene reads the picture too."""

    def __init__(
        self, node: Node, name: str, workcell: Workcell, timeout: float, group: CallbackGroup, should_stop: Callable[[], bool]
    ) -> None:
        self._workcell = workcell
        self._service = RemoteService(node, srv.ReadGoalPicture, f"{name}/read_goal_picture", timeout, group, should_stop)

    def read(self, view: View, correspondence: Mapping[str, str], present: Observation) -> Goal:
        """The goal. Raises GoalPictureError and InvalidObservation as GoalPictureReader does, RemoteError, Stopped."""
        request = srv.ReadGoalPicture.Request(
            limits=conversions.limits_message(self._workcell.limits),
            views=[seen.name for seen in present.views],
            stamps=[conversions.time_message(seen.stamp_ns) for seen in present.views],
        )
        conversions.write_goal_picture(request, view, correspondence)
        response = self._service.call(request)
        if response.error_code == srv.ReadGoalPicture.Response.PICTURE:
            raise GoalPictureError(response.error_msg)
        if response.error_code == srv.ReadGoalPicture.Response.OBSERVATION:
            raise InvalidObservation(response.error_msg)
        if response.error_msg:
            raise RemoteError(response.error_msg)
        return Goal((conversions.relations_from_messages(response.relations),), response.text)

    @property
    def ready(self) -> bool:
        """Whether the node can be reached and is active now."""
        return self._service.ready

    def close(self) -> None:
        self._service.close()
