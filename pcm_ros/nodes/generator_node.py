"""Perception and the generator of proposals in one process.

Topics `workcell/views/<camera>` in; services `~/perceive`, `~/propose` and `~/read_goal_picture`, which exist while the node is active;
topic `~/markers` out.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

import torch
from builtin_interfaces.msg import Time
from visualization_msgs.msg import MarkerArray

from pcm_ros import msg, srv
from pcm_ros.nodes import conversions, displays
from pcm_ros.nodes.lifecycle import ConfigurationError, Node, Parameter, run
from pcm_ros.nodes.views import ViewBuffer
from pcm_ros.nodes.warm_up import warm_up
from pcm_ros.sight.words import VOCABULARY
from pcm_ros.tasks.manipulation import assembly
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.generator import GeneratorConfig, NothingToGrasp, PickPlaceGenerator
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError, GoalPictureReader
from pcm_ros.tasks.manipulation.perception import Perception
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation, WorkcellLimits

KEPT_SCENES = 4


class GeneratorNode(Node):
    """Finds objects in the newest views, and draws candidate actions."""

    PARAMETERS = (
        Parameter("cameras", ("front", "left", "right", "back", "top"), "cameras whose views it keeps"),
        Parameter("grounders", assembly.ManipulationConfig.grounders, "vision-language experts that name the objects for people"),
        Parameter("view_timeout", 5.0, "seconds to wait for an image that is asked for", low=0.0, high=60.0, fixed=False),
    )
    EXPECTED = (InvalidObservation, conversions.InvalidMessage)

    def __init__(self) -> None:
        super().__init__("generator")
        self._views: ViewBuffer | None = None
        self._perceptions: dict[WorkcellLimits, Perception] = {}
        self._scenes: deque[tuple[msg.Scene, Scene, Observation]] = deque(maxlen=KEPT_SCENES)

    def configure(self) -> None:
        from pcm_ros.models.loading import ModelUnavailable

        try:
            self._config = assembly.ManipulationConfig(grounders=tuple(self.value("grounders")))
            warm_up(self._config.grounders)
            self._vision = assembly.build_vision()
            self._grounder = assembly.build_grounder(self._config.grounders, self._vision)
        except (ModelUnavailable, ValueError) as error:
            raise ConfigurationError(str(error)) from error
        self._generator_config = assembly.build_generator(self._config).config
        self._views = ViewBuffer(self, self.value("cameras"))
        self._markers = self.create_publisher(MarkerArray, "~/markers", 1)

    def activate(self) -> None:
        self.offer(srv.PerceiveScene, "~/perceive", self._perceive)
        self.offer(srv.Propose, "~/propose", self._propose)
        self.offer(srv.ReadGoalPicture, "~/read_goal_picture", self._read_goal_picture)

    def cleanup(self) -> None:
        super().cleanup()
        if self._views is not None:
            self._views.close()
            self.destroy_publisher(self._markers)
        self._views = None
        self._perceptions.clear()
        self._scenes.clear()

    def report(self) -> dict[str, str]:
        return {"scenes perceived and kept": str(len(self._scenes))}

    def _perceive(self, request: srv.PerceiveScene.Request, response: srv.PerceiveScene.Response) -> srv.PerceiveScene.Response:
        try:
            observation = self._seen(request.views, request.stamps)
            scene = self._perception_in(request.limits).perceive(observation)
            response.scene = conversions.scene_message(scene)
            self._scenes.append((response.scene, scene, observation))
            self._markers.publish(displays.scene_markers(scene))
            self.succeeded()
        except InvalidObservation as error:
            response.error_code, response.error_msg = srv.PerceiveScene.Response.OBSERVATION, self.failed(error)
        except Exception as error:  # whatever a model raises must reach the one who asked
            response.error_code, response.error_msg = srv.PerceiveScene.Response.ERROR, self.failed(error)
        return response

    def _seen(self, views: Sequence[str], stamps: Sequence[Time]) -> Observation:
        """The images of these cameras and stamps. Raises InvalidMessage, InvalidObservation: one did not arrive or cannot be used."""
        assert self._views is not None
        if not views or len(views) != len(stamps):
            raise conversions.InvalidMessage(
                f"views and stamps have {len(views)}, {len(stamps)} entries; the same number, at least one, is needed"
            )
        if unknown := set(views) - set(self._views.cameras):
            raise conversions.InvalidMessage(
                f"views {sorted(unknown)} are not kept here; parameter 'cameras' is {list(self._views.cameras)}"
            )
        timeout, asked = self.value("view_timeout"), zip(views, stamps, strict=True)
        return Observation(
            tuple(self._views.at(name, conversions.nanoseconds_of(stamp), timeout, self.should_stop) for name, stamp in asked)
        )

    def _perception_in(self, message: msg.WorkcellLimits) -> Perception:
        """The perception of a cell. Raises InvalidMessage."""
        limits = conversions.limits_from_message(message)
        if limits not in self._perceptions:
            self._perceptions[limits] = assembly.build_perception(limits, self._config, self._vision, self._grounder)
        return self._perceptions[limits]

    def _read_goal_picture(
        self, request: srv.ReadGoalPicture.Request, response: srv.ReadGoalPicture.Response
    ) -> srv.ReadGoalPicture.Response:
        try:
            shown = conversions.read_goal_picture(request)
            if shown is None:
                raise conversions.InvalidMessage("goal_picture is empty; an image with depth is needed")
            reader = GoalPictureReader(self._perception_in(request.limits), self._grounder, VOCABULARY)
            goal = reader.read(*shown, self._seen(request.views, request.stamps))
            response.relations = [conversions.relation_message(relation) for relation in goal.relations]
            response.text = goal.text
            self.succeeded()
        except GoalPictureError as error:
            response.error_code, response.error_msg = srv.ReadGoalPicture.Response.PICTURE, str(error)
        except InvalidObservation as error:
            response.error_code, response.error_msg = srv.ReadGoalPicture.Response.OBSERVATION, self.failed(error)
        except Exception as error:  # as above
            response.error_code, response.error_msg = srv.ReadGoalPicture.Response.ERROR, self.failed(error)
        return response

    def _propose(self, request: srv.Propose.Request, response: srv.Propose.Response) -> srv.Propose.Response:
        try:
            scene, observation = self._known(request.scene)
            relation, held = conversions.relation_from_message(request.relation), conversions.relations_from_messages(request.held)
            generator = PickPlaceGenerator(self._counted(request.count))
            rng = torch.Generator().manual_seed(request.seed)
            with torch.no_grad():
                batch = generator.propose(Context(relation, held, scene, observation), conversions.read_state(request), rng)
            response.proposals = conversions.proposals_message(batch, request.scene)
            self.succeeded()
        except NothingToGrasp as error:
            response.error_code, response.error_msg = srv.Propose.Response.NOTHING_TO_GRASP, str(error)
        except Exception as error:  # as above
            response.error_code, response.error_msg = srv.Propose.Response.ERROR, self.failed(error)
        return response

    def _counted(self, count: int) -> GeneratorConfig:
        try:
            return dataclasses.replace(self._generator_config, count=count)
        except ValueError as error:
            raise conversions.InvalidMessage(str(error)) from error

    def _known(self, message: msg.Scene) -> tuple[Scene, Observation]:
        """Scene and images of a scene of images perceived here; what is kept for them (heights, grasps) is found again."""
        for kept, scene, observation in reversed(self._scenes):
            if kept == message:
                return scene, observation
        for kept, _, observation in reversed(self._scenes):
            if kept.header.stamp == message.header.stamp:  # the planner has added what it remembers to what was perceived here
                self._scenes.append((message, conversions.scene_from_message(message), observation))
                return self._scenes[-1][1:]
        stamp = conversions.nanoseconds_of(message.header.stamp) / 1e9
        raise conversions.InvalidMessage(
            f"the images of the scene stamped {stamp:.3f} s are none of the last {KEPT_SCENES} that ~/perceive was asked for; ask it first"
        )


def main() -> None:
    run(GeneratorNode)


if __name__ == "__main__":
    main()
