"""The planner's process: the same ManipulationPolicy as `pcm run`, with perception, generator, scorers and cell in other processes.

Action `~/manipulate`; topic `~/markers` out. Everything else it uses is named in the parameters `cameras`, `scorers`, `generator`.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rclpy.action import GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.publisher import Publisher
from visualization_msgs.msg import MarkerArray

from pcm_ros import msg
from pcm_ros.action import Manipulate
from pcm_ros.configuration import manipulation_config
from pcm_ros.nodes import conversions, displays
from pcm_ros.nodes.feedback import read_message, state_message
from pcm_ros.nodes.lifecycle import INACTIVE, ConfigurationError, Node, Parameter, run
from pcm_ros.nodes.remote import RemoteGenerator, RemoteGoalPictureReader, RemotePerception, RemoteScorer, SceneMessages
from pcm_ros.nodes.ros_workcell import RosWorkcell
from pcm_ros.nodes.waiting import RemoteError, Stopped
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig, build_consensus
from pcm_ros.tasks.manipulation.generator import MOST_PROPOSALS, NothingToGrasp
from pcm_ros.tasks.manipulation.goal import Goal
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.policy_events import Event, Executed, Finished, Observed, Outcome, Planning
from pcm_ros.tasks.manipulation.recording import EpisodeRecorder
from pcm_ros.tasks.manipulation.workcell import InvalidObservation

_DEFAULTS = ManipulationConfig()
CONFIG_PARAMETERS = (
    Parameter("proposals", _DEFAULTS.proposals, "candidate actions in each iteration", low=1, high=MOST_PROPOSALS),
    Parameter("iterations", _DEFAULTS.iterations, "iterations of the consensus at most", low=1, high=1000),
    Parameter("agreement", _DEFAULTS.agreement, "agreement of the scorers at which the iterations end early", low=0.01, high=1.0),
    Parameter(
        "elite_fraction", _DEFAULTS.elite_fraction, "share of the proposals that the cross-entropy method refits to", low=0.001, high=1.0
    ),
    Parameter("smoothing", _DEFAULTS.smoothing, "share of the old distribution that stays in a refit", low=0.0, high=0.99),
    Parameter("minimum_std", _DEFAULTS.minimum_std, "least standard deviation of x, y (metres) and yaw (radians) of the proposals"),
    Parameter(
        "normalise", _DEFAULTS.normalise, "how energies of different scorers are brought together", choices=("none", "zscore", "rank")
    ),
    Parameter("aggregate", _DEFAULTS.aggregate, "how they are added up", choices=("sum", "median", "trimmed_mean")),
    Parameter("quorum", _DEFAULTS.quorum, "share of the scorers that must answer", low=0.01, high=1.0),
    Parameter("timeout", _DEFAULTS.timeout, "seconds that a scorer may take", low=0.1, high=600.0),
    Parameter("gain", _DEFAULTS.gain, "nats that an iteration must gain for another to follow; 0: however little", low=0.0, high=100.0),
    Parameter("finalists", _DEFAULTS.finalists, "proposals that the last stage sees in each iteration", low=1, high=10_000),
    Parameter("last_stage", _DEFAULTS.last_stage, "dear scorers of the finalists: twin, appearance"),
    Parameter("grounders", _DEFAULTS.grounders, "vision-language experts that 'appearance' asks (the scorer nodes have their own)"),
    Parameter("pictured", _DEFAULTS.pictured, "finalists whose predicted views are looked at, by 'appearance'", low=1, high=10_000),
    Parameter("weights", (), "weights of scorers, 'name=weight' each; 1 where nothing is said"),
    Parameter("extra_scorers", (), "scorers in this process, 'module:Class' each"),
    Parameter("attempts", _DEFAULTS.attempts, "actions spent on one relation before giving up", low=1, high=20),
    Parameter("holds", _DEFAULTS.holds, "probability from which a relation counts as true", low=0.01, high=0.99),
    Parameter("present", _DEFAULTS.present, "log-odds below which an object counts as not there", low=-30.0, high=30.0),
)

_SAFE_END = 45.0  # seconds that a goal may take to end when the node is deactivated: a motion has to end safely first
Remote = RemoteScorer | RemoteGenerator | RemotePerception | RemoteGoalPictureReader
_Part = TypeVar("_Part")


class Video:
    """The video of one goal. What goes wrong with it is told, ends the recording, and costs the goal nothing.

    Args:
        folder: for the file; empty: no video is made.
        complain: called with what went wrong.
    """

    def __init__(self, folder: str, complain: Callable[[str], object]) -> None:
        self._folder, self._complain = folder, complain
        self._recorder: EpisodeRecorder | None = None

    def begin(self, instruction: str) -> None:
        """Record from now on."""
        name = re.sub(r"[^a-z0-9]+", "-", instruction.lower()).strip("-")[:40] or "episode"
        if self._folder:
            with self._told():
                path = Path(self._folder) / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}.mp4"
                self._recorder = EpisodeRecorder(path, instruction[:200])

    def record(self, event: Event) -> None:
        """Add what an event shows."""
        if self._recorder is not None:
            with self._told():
                self._recorder.record(event)

    def end(self) -> str:
        """Finish the file. Returns its path; empty: none was made, or not to the end."""
        if self._recorder is not None:
            with self._told():
                self._recorder.close()
        return str(self._recorder.path) if self._recorder is not None and self._recorder.path.exists() else ""

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk, no right to write, no encoder, a defect in drawing
            broken, self._recorder = self._recorder, None
            self._complain(f"no video is made in '{self._folder}': {type(error).__name__}: {error}")
            with contextlib.suppress(Exception):
                if broken is not None:
                    broken.close()


class ConsensusNode(Node):
    """Action server of the manipulation system; one goal at a time."""

    PARAMETERS = (
        Parameter("cameras", ("front", "left", "right", "back", "top"), "cameras that should deliver views"),
        Parameter("scorers", ("scorer_front",), "names of the scorer nodes"),
        Parameter("scorer_names", ("relation:front",), "what each scorer is called in reports and in 'weights'; same length as 'scorers'"),
        Parameter("scorer_views", ("front",), "the camera that each scorer looks through; same length as 'scorers'"),
        Parameter("judges", ("scorer_front",), "which of the scorer nodes also say whether a relation holds"),
        Parameter("generator", "generator", "name of the generator node"),
        Parameter("generator_timeout", 60.0, "seconds that perception, or a batch of proposals, may take", low=0.1, high=600.0),
        Parameter(
            "view_timeout", 5.0, "seconds to wait for new images; cameras that did not deliver by then are left out", low=0.1, high=600.0
        ),
        Parameter("view_age", 3.0, "seconds; a first look takes no older images", low=0.1, high=3600.0),
        Parameter("motion_timeout", 300.0, "seconds that one pick and place may take", low=1.0, high=3600.0),
        Parameter("startup_timeout", 60.0, "seconds that the first goal waits for the other nodes", low=0.0, high=600.0),
        Parameter("output", "", "folder for the videos; empty: none are made"),
        *CONFIG_PARAMETERS,
    )

    def __init__(self) -> None:
        super().__init__("consensus")
        self._goal: ServerGoalHandle | None = None
        self._one_at_a_time = threading.Lock()
        self._ended = self.ended  # the activation in which the goal began
        self._met: set[Remote] = set()
        self._others: set[Remote] = set()
        self._last = "none yet"
        self._parts: list[Any] = []
        self._markers: Publisher | None = None
        self._server = self.serve(Manipulate, "~/manipulate", self._manipulate, self._consider)

    def configure(self) -> None:
        try:
            config = manipulation_config({parameter.name: self.value(parameter.name) for parameter in CONFIG_PARAMETERS})
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        nodes, names, views = self.value("scorers"), self.value("scorer_names"), self.value("scorer_views")
        if not nodes or not len(nodes) == len(names) == len(views):
            raise ConfigurationError(
                f"parameters 'scorers', 'scorer_names', 'scorer_views' have {len(nodes)}, {len(names)}, {len(views)} entries; "
                "the same number, at least one, is needed"
            )
        group, scenes = self.free_group, SceneMessages()
        self._workcell = self._part(
            RosWorkcell(
                self,
                self.value("cameras"),
                self.value("view_timeout"),
                self.value("view_age"),
                self.value("motion_timeout"),
                group,
                self._should_stop,
            )
        )
        source, patience = self.value("generator"), self.value("generator_timeout")
        perception = self._part(RemotePerception(self, source, self._workcell, patience, group, self._should_stop))
        self._pictures = self._part(RemoteGoalPictureReader(self, source, self._workcell, patience, group, self._should_stop))
        generator = self._part(RemoteGenerator(self, source, config.proposals, patience, scenes, group, self._should_stop))
        self._scorers = {
            node: self._part(RemoteScorer(self, node, name, view, config.timeout, scenes, group, self._should_stop))
            for node, name, view in zip(nodes, names, views, strict=True)
        }
        judges = [self._scorers[node] for node in self.value("judges") if node in self._scorers]
        try:
            consensus = build_consensus(config, generator, list(self._scorers.values()))
            self._part(consensus.ensemble)
            self._policy = ManipulationPolicy(self._workcell, perception, consensus, judges, config.policy)
        except ValueError as error:
            raise ConfigurationError(f"parameters: {error}") from error
        self._met = set()
        self._others = {perception, self._pictures, generator, *self._scorers.values()}
        self._markers = self.create_publisher(MarkerArray, "~/markers", 1)

    def _part(self, part: _Part) -> _Part:
        """The same, to be closed at cleanup."""
        self._parts.append(part)
        return part

    def deactivate(self) -> None:
        super().deactivate()
        self.wait_for_end(self._one_at_a_time, _SAFE_END, "the goal that was running")

    def cleanup(self) -> None:
        super().cleanup()
        for part in reversed(self._parts):
            part.close()
        self._parts = []
        if self._markers is not None:
            self.destroy_publisher(self._markers)
        self._markers = None

    def busy(self) -> bool:
        return super().busy() or self._one_at_a_time.locked()

    def report(self) -> dict[str, str]:
        goal = self._goal
        running = _named(goal.request) if goal is not None else ""
        details = {"running": running, "last result": self._last}
        absent = sorted(node for node, scorer in self._scorers.items() if not scorer.ready)
        if self.active and absent:
            details["warning"] = f"scorers not there or not active: {', '.join(absent)}"
        elif reasons := self._workcell.reasons:
            details["warning"] = "; ".join(f"camera '{camera}': {reason}" for camera, reason in reasons.items())
        return details

    def _should_stop(self) -> bool:
        goal = self._goal
        return self.stopping.is_set() or self._ended.is_set() or (goal is not None and goal.is_cancel_requested)

    def _consider(self, _: Manipulate.Goal) -> GoalResponse:
        if not self.active:
            self.get_logger().warning(f"goal rejected: {INACTIVE}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _manipulate(self, goal: ServerGoalHandle) -> Manipulate.Result:
        if not self._one_at_a_time.acquire(blocking=False):
            running = _named(self._goal.request) if self._goal is not None else ""
            goal.abort()
            text = f"another goal is running ({running}): cancel it, or wait for its end"
            return Manipulate.Result(error_code=int(Outcome.BUSY), error_msg=text)
        try:
            self._goal, self._ended = goal, self.ended
            return self._end(goal, *self._carry_out(goal))
        finally:
            self._goal = None
            self._one_at_a_time.release()

    def _end(self, goal: ServerGoalHandle, outcome: Outcome, message: str, result: Manipulate.Result) -> Manipulate.Result:
        result.error_code, result.error_msg = int(outcome), "" if outcome == Outcome.SUCCESS else message
        self._last = f"{outcome.name}: {message}"
        self.get_logger().info(f"{_named(goal.request)}: {self._last}")
        if outcome == Outcome.SUCCESS:
            goal.succeed()
        elif outcome == Outcome.CANCELED and goal.is_cancel_requested:
            goal.canceled()
        elif self.context.ok():
            goal.abort()
        return result

    def _carry_out(self, goal: ServerGoalHandle) -> tuple[Outcome, str, Manipulate.Result]:
        result = Manipulate.Result()
        finished = Finished(Outcome.ERROR, "the run ended without a result", 0, ())
        video = Video(self.value("output"), self.get_logger().warning)
        try:
            asked = self._asked(goal)
            video.begin(asked.text if isinstance(asked, Goal) else asked)
            self._wait_for_others()
            for event in self._policy.run(asked, int(goal.request.seed), self._should_stop):
                if isinstance(event, Finished):
                    finished = event
                if isinstance(event, Executed):
                    result.actions = [*result.actions, conversions.pick_place_message(event.action)]
                self._tell(goal, event)
                video.record(event)
        except GoalPictureError as error:
            finished = Finished(Outcome.INVALID_INSTRUCTION, str(error), 0, ())
        except InvalidObservation as error:
            finished = Finished(Outcome.OBSERVATION, str(error), len(result.actions), ())
        except NothingToGrasp as error:
            finished = Finished(Outcome.IMPOSSIBLE, str(error), len(result.actions), ())
        except Stopped as error:
            finished = Finished(Outcome.CANCELED, str(error), len(result.actions), ())
        except RemoteError as error:
            finished = Finished(Outcome.ERROR, str(error), len(result.actions), ())
        except Exception as error:  # a defect must end as a result that says so, not as a goal without an answer
            self.get_logger().error(traceback.format_exc())
            finished = Finished(Outcome.ERROR, f"{type(error).__name__}: {error}", len(result.actions), ())
        finally:
            result.video = video.end()
        outcome, message = finished.outcome, finished.message
        if outcome != Outcome.SUCCESS and self._should_stop():
            stopped = "canceled" if goal.is_cancel_requested else "the node was deactivated or shut down"
            if outcome == Outcome.EXECUTION:  # who reads CANCELED takes the arm for stopped
                return outcome, f"{stopped}, but {message}", result
            # What was waited for when the stop came ends with errors of its own.
            outcome, message = Outcome.CANCELED, stopped
        return outcome, message, result

    def _asked(self, goal: ServerGoalHandle) -> str | Goal:
        """What a goal says, or shows: a picture is read by the generator's node, which perceives.

        Raises GoalPictureError: not one of the two, or a picture that says nothing; InvalidObservation: of the present scene; RemoteError.
        """
        request = goal.request
        try:
            shown = conversions.read_goal_picture(request)
        except conversions.InvalidMessage as error:
            raise GoalPictureError(str(error)) from error
        said = bool(request.instruction.strip())
        if said == (shown is not None):
            what = "instruction and goal_picture are both given" if said else "instruction is empty, and there is no goal_picture either"
            raise GoalPictureError(f"{what}; exactly one of instruction and goal_picture must be given")
        if shown is None:
            return str(request.instruction)
        self._wait_for_others()
        read = self._pictures.read(*shown, self._workcell.observe())
        self._publish(goal, read_message(read))
        return read

    def _wait_for_others(self) -> None:
        """Give nodes that were never met the time to start; those that were met and are gone are told of at once."""
        deadline = time.monotonic() + self.value("startup_timeout")
        newly_met = self._met != self._others
        while not self._should_stop():
            self._met |= {part for part in self._others if part.ready}
            if self._met == self._others or time.monotonic() > deadline:
                if newly_met:
                    self._workcell.forget_older_views()  # which the nodes that have just come up may not have received
                self._met = set(self._others)
                return
            time.sleep(0.05)

    def _tell(self, goal: ServerGoalHandle, event: Event) -> None:
        if (state := state_message(event)) is not None:
            self._publish(goal, state)
        if self._markers is None:
            return
        if isinstance(event, Observed):
            self._markers.publish(displays.scene_markers(event.scene))
        elif isinstance(event, Planning):
            self._markers.publish(displays.scene_markers(event.context.scene, event.iteration.batch, event.iteration.table.total))

    def _publish(self, goal: ServerGoalHandle, state: msg.ConsensusState) -> None:
        if self.context.ok():
            state.header = conversions.header(self.get_clock().now().nanoseconds)
            goal.publish_feedback(Manipulate.Feedback(state=state))


def _named(request: Manipulate.Goal) -> str:
    """A goal for people."""
    return f"'{request.instruction[:100]}'" if request.instruction.strip() else "a goal picture"


def main() -> None:
    run(ConsensusNode)


if __name__ == "__main__":
    main()
