"""One scorer in a process of its own: one camera view, or one model. The parameters say which.

Topic `workcell/views/<view>` in; services `~/score` and, where the scorer can, `~/assess`, which exist while the node is active; topic
`~/annotated` out, an image with the objects and the proposals that this scorer likes best.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from typing import Any

import torch
import yaml
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from torch import Tensor

from pcm_ros import msg, srv
from pcm_ros.bringup import RELATION_SCORER
from pcm_ros.consensus import Batch, Scorer
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.nodes import conversions, displays
from pcm_ros.nodes.lifecycle import ConfigurationError, Node, Parameter, load_class, run
from pcm_ros.nodes.views import ViewBuffer
from pcm_ros.nodes.warm_up import warm_up
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.workcell import InvalidObservation, Observation, View


class ScorerNode(Node):
    """A scorer behind a service. Any class with `energy(batch, context)` will do: name it in the parameter `scorer`."""

    PARAMETERS = (
        Parameter("scorer", RELATION_SCORER, "the scorer, as 'module:Class' or 'module:function'"),
        Parameter("view", "front", "the camera whose images are scored on"),
        Parameter("grounders", ManipulationConfig.grounders, "vision-language experts of a relation scorer"),
        Parameter("options", "{}", "further arguments of the scorer, as a YAML mapping: '{preference: 0.5}'"),
        Parameter("view_timeout", 5.0, "seconds to wait for the image that is asked for", low=0.0, high=60.0, fixed=False),
        Parameter("annotate", True, "whether to publish annotated images", fixed=False),
    )
    EXPECTED = (InvalidObservation, conversions.InvalidMessage)

    def __init__(self) -> None:
        super().__init__("scorer")
        self._scorer: Scorer | None = None
        self._views: ViewBuffer | None = None
        self._known: tuple[msg.Scene, View, Context] | None = None
        self._calls = 0

    def configure(self) -> None:
        self._view = self.value("view")
        self._scorer = make_scorer(self.value("scorer"), self._view, self.value("grounders"), self.value("options"))
        self._views = ViewBuffer(self, [self._view])
        self._annotated = self.create_publisher(Image, "~/annotated", qos_profile_sensor_data)

    def activate(self) -> None:
        self.offer(srv.ScoreProposals, "~/score", self._score)
        if hasattr(self._scorer, "assess"):
            self.offer(srv.AssessRelation, "~/assess", self._assess)

    def cleanup(self) -> None:
        super().cleanup()
        if self._views is not None:
            self._views.close()
            self.destroy_publisher(self._annotated)
        self._scorer = self._views = self._known = None

    def report(self) -> dict[str, str]:
        stamp = self._views.newest_stamp(self._view) if self._views else 0
        age = (self.get_clock().now().nanoseconds - stamp) / 1e9 if stamp else float("inf")
        details = {"scorer": self.value("scorer"), "view": self._view, "calls": str(self._calls), "age of newest image (s)": f"{age:.1f}"}
        if self.active and age > 5.0:
            details["warning"] = f"no image of camera '{self._view}' for {age:.0f} s"
        return details

    def _planning_context(self, scene: msg.Scene, relation: Relation, held: tuple[Relation, ...], stamp_ns: int) -> Context:
        """The same Scene and Observation for the same scene and image: what scorers keep for them is found again."""
        assert self._views is not None
        view = self._views.at(self._view, stamp_ns, self.value("view_timeout"), self.should_stop)
        if self._known is None or self._known[1] is not view or self._known[0] != scene:
            self._known = (scene, view, Context(relation, held, conversions.scene_from_message(scene), Observation((view,))))
        known = self._known[2]
        return Context(relation, held, known.scene, known.observation)

    def _score(self, request: srv.ScoreProposals.Request, response: srv.ScoreProposals.Response) -> srv.ScoreProposals.Response:
        start = time.monotonic()
        assert self._scorer is not None
        score = response.score
        score.scorer = self._scorer.name
        try:
            batch = conversions.batch_from_message(request.proposals)
            relation = conversions.relation_from_message(request.relation)
            held = conversions.relations_from_messages(request.held)
            context = self._planning_context(request.proposals.scene, relation, held, conversions.nanoseconds_of(request.stamp))
            with torch.no_grad():
                energies = self._scorer.energy(batch, context).detach().to(torch.float64)
            if energies.shape != (len(batch),):
                raise ValueError(f"energies of shape {tuple(energies.shape)} for {len(batch)} proposals; one number for each is needed")
            score.energies = conversions.flat(energies)
            self.succeeded()
        except Exception as error:  # a user's scorer may raise anything: it is told to the ensemble, which goes on without it
            score.error = self.failed(error)
        else:
            self._annotate(context, batch, energies)
        score.seconds = time.monotonic() - start
        self._calls += 1
        return response

    def _annotate(self, context: Context, batch: Batch, energies: Tensor) -> None:
        view = context.observation.views[0]
        try:
            if not self.value("annotate") or not self._annotated.get_subscription_count():
                return
            picture = displays.annotated(view, context.scene, batch, energies)
            assert self._views is not None
            frame = self._views.optical_frame(view.name, view.stamp_ns)
            self._annotated.publish(displays.image_message(picture, view.stamp_ns, frame))
        except Exception as error:  # a picture for people must not cost an answer
            self.get_logger().error(f"the annotated image cannot be drawn: {type(error).__name__}: {error}")

    def _assess(self, request: srv.AssessRelation.Request, response: srv.AssessRelation.Response) -> srv.AssessRelation.Response:
        scorer: Any = self._scorer
        response.scorer = scorer.name
        try:
            relation = conversions.relation_from_message(request.relation)
            context = self._planning_context(request.scene, relation, (), conversions.nanoseconds_of(request.stamp))
            assessment = scorer.assess(context)
            response.logits = conversions.flat(assessment.logits.to(torch.float64))
            response.margins = conversions.flat(assessment.margins.to(torch.float64))
            self.succeeded()
        except Exception as error:  # as above
            response.error_msg = self.failed(error)
        self._calls += 1
        return response


def make_scorer(path: str, view: str, grounders: Sequence[str], options: str) -> Scorer:
    """The scorer that "module:Class" names, made with `view` and `config` (if it takes them) and the options.

    Raises:
        ConfigurationError: no such class, wrong options, or something that is no scorer.
    """
    maker = load_class(path, "scorer")
    try:
        arguments = yaml.safe_load(options) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"parameter 'options' is not YAML: {error}") from error
    if not isinstance(arguments, dict):
        raise ConfigurationError(f"parameter 'options' is {options!r}; it must be a YAML mapping such as '{{preference: 0.5}}'")
    accepted = inspect.signature(maker).parameters
    given = {"view": view, "config": ManipulationConfig(grounders=tuple(grounders))}
    arguments = {**{name: value for name, value in given.items() if name in accepted}, **arguments}
    try:
        if "config" in accepted:
            warm_up(grounders)
        scorer = maker(**arguments)
    except ModelUnavailable as error:
        raise ConfigurationError(str(error)) from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"parameter 'scorer' = '{path}' cannot be made with options {arguments}: {error}") from error
    if not isinstance(scorer, Scorer):
        raise ConfigurationError(
            f"parameter 'scorer' = '{path}' made a {type(scorer).__name__}, which lacks name, cost, differentiable or energy()"
        )
    return scorer


def main() -> None:
    run(ScorerNode)


if __name__ == "__main__":
    main()
