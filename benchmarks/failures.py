"""Why an episode failed: told from the simulator's truth after the fact, for reports alone.

Each failed episode gets one class, the first cause that truth shows:

- language: a sentence was refused as meaningless though it is not, or taken for an order though it means nothing;
- perception: an object that the instruction names was missing in the perceived scene, or merged with another;
- grounding: the wrong object was moved or taken as reference, or one was called absent or present wrongly;
- optimiser: no feasible proposal was found, or none was expected to help, though the task is possible;
- execution: a pick or a place failed, or the object ended elsewhere than predicted;
- world_model: the right object went where it was predicted to go, but the relation does not hold (or something was tried that cannot be);
- judge: the robot says that the goal holds, and truth does not;
- disturbance: what somebody did to the scene was not put right;
- other: none of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from pcm_ros.sim.episodes import Episode
from pcm_ros.sim.feasibility import direction
from pcm_ros.sim.judge import Judge, in_direction
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import Body
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.policy_events import Chosen, Event, Executed, Finished, Observed
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import Array, ExecutionCode, WorkcellLimits

CLASSES = ("language", "perception", "grounding", "optimiser", "execution", "world_model", "judge", "disturbance", "other")
SAME = 0.04  # metres between a perceived and a true centre that count as the same object
ASTRAY = 0.03  # metres between the predicted and the true place of a moved object that are more than inaccuracy


@dataclass(frozen=True)
class Step:
    """One action and its truth.

    Attributes:
        relation: number of the episode's relation that it was for; -1: another one (something had to go out of the way).
        moved: phrase of the true object that was to be moved; "" if there was none where the robot saw one.
        predicted: (2,) metres, where its centre was to be. landed: (2,) where it was afterwards.
        reference: (2,) centre of the relation's true reference at that time; None for other relations.
        code: of the execution.
        held: numbers of the episode's relations that held afterwards.
    """

    relation: int
    moved: str
    predicted: Array
    landed: Array
    reference: Array | None
    code: ExecutionCode
    held: frozenset[int]


@dataclass(frozen=True)
class Course:
    """What truth says of an episode's course.

    Attributes:
        missing: by look, phrases of the true objects that no perceived object stands for.
        steps: the actions. outcome: name of the policy's Outcome. unmet: numbers of the relations that do not hold at the end.
        disturbed: phrase of the object that somebody moved or that slipped, "" if nothing happened.
    """

    missing: tuple[frozenset[str], ...]
    steps: tuple[Step, ...]
    outcome: str
    unmet: tuple[int, ...]
    disturbed: str = ""


def classify(episode: Episode, course: Course, limits: WorkcellLimits) -> str:
    """The class of a failed episode, one of CLASSES."""
    if "INVALID_INSTRUCTION" in (course.outcome, episode.refusal):
        return "language"
    named = {phrase for relation in episode.relations for phrase in relation.phrases}
    if course.missing and named & course.missing[0]:
        return "perception"
    if "OBJECT_NOT_FOUND" in (course.outcome, episode.refusal):
        lost = named & course.missing[-1] if course.missing and not episode.refusal else frozenset()
        return "perception" if lost else "grounding"
    if episode.refusal:
        return "judge" if course.outcome == "SUCCESS" else "world_model"
    step = next((step for step in reversed(course.steps) if step.relation in course.unmet), None)
    if step is not None and step.moved != episode.relations[step.relation].subject:
        return "grounding" if step.moved else "perception"
    if course.outcome == "IMPOSSIBLE" and (step is None or step.relation in step.held):
        return "optimiser"
    if step is None:
        return "judge" if course.outcome == "SUCCESS" else "other"
    if step.relation in step.held:  # true once, spoilt later
        spoilt = course.disturbed and course.disturbed in episode.relations[step.relation].phrases
        return "disturbance" if spoilt else "execution"
    if step.code != ExecutionCode.OK:
        return "execution"
    axis = direction(episode.relations[step.relation].kind, limits)
    if axis is not None and step.reference is not None and not in_direction(step.predicted - step.reference, axis):
        return "grounding"  # of the reference: this place would have been right for nothing that is named
    if np.linalg.norm(step.landed - step.predicted) > ASTRAY:
        return "execution"
    return "judge" if course.outcome == "SUCCESS" else "world_model"


def matched(scene: Scene, bodies: Sequence[Body]) -> dict[int, Body]:
    """Perceived object -> the true one that it stands for, one to one; heights count half, since undersides are hidden."""
    if not scene.objects or not bodies:
        return {}
    weights = np.array([1.0, 1.0, 0.5])
    cost = np.array([[np.linalg.norm((thing.center - _middle(body)) * weights) for body in bodies] for thing in scene.objects])
    rows, columns = linear_sum_assignment(np.minimum(cost, 2 * SAME))
    return {int(i): bodies[j] for i, j in zip(rows, columns, strict=True) if cost[i, j] < SAME}


def _middle(body: Body) -> Array:
    return np.asarray((body.low + body.high) / 2)


@dataclass
class Witness:
    """Follows a run and notes what was true meanwhile. It reads the simulator; nothing that it knows reaches the policy.

    Args:
        workcell: after its reset, before the run.
    """

    workcell: SimWorkcell
    _missing: list[frozenset[str]] = field(default_factory=list)
    _steps: list[Step] = field(default_factory=list)
    _chosen: tuple[Chosen, Body | None, Array | None] | None = None
    _outcome: str = ""
    _start: Mapping[int, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._start = {body.number: body.position for body in self.workcell.world.bodies()}

    def see(self, event: Event) -> None:
        """Note what an event means; call it before the run goes on."""
        bodies = self.workcell.world.bodies()
        if isinstance(event, Observed):
            found = {body.number for body in matched(event.scene, bodies).values()}
            self._missing.append(frozenset(body.spec.phrase for body in bodies if body.number not in found))
        elif isinstance(event, Chosen):
            body = matched(event.context.scene, bodies).get(event.category)
            number = self._number(event.relation)
            reference = self.workcell.episode.relations[number].references[0] if number >= 0 else ""
            places = [np.asarray(_middle(other)[:2]) for other in bodies if other.spec.phrase == reference]
            self._chosen = (event, body, places[0] if places else None)
        elif isinstance(event, Executed) and self._chosen is not None:
            chosen, moved, place = self._chosen
            predicted = chosen.context.scene.objects[chosen.category].center[:2] + np.array(chosen.motion[:2])
            after = next((_middle(body)[:2] for body in bodies if moved is not None and body.number == moved.number), predicted)
            phrase = moved.spec.phrase if moved is not None else ""
            held = frozenset(i for i, holds in enumerate(self.holding()) if holds)
            self._steps.append(Step(self._number(chosen.relation), phrase, predicted, after, place, event.result.code, held))
        elif isinstance(event, Finished):
            self._outcome = event.outcome.name

    def holding(self) -> list[bool]:
        """Which relations of the episode hold now. The world is not stepped."""
        judge = Judge(self.workcell.world)
        return [bool(judge.relation(relation)) for relation in self.workcell.episode.relations]

    def displaced(self, least: float = 0.02) -> int:
        """How many objects are not where they were at the start (metres), fallen ones included."""
        bodies = self.workcell.world.bodies()
        return sum(float(np.linalg.norm(body.position - self._start[body.number])) > least for body in bodies)

    def course(self, disturbed: str = "") -> Course:
        """What happened, once the run has ended and the world is at rest. `disturbed`: phrase of the object, as in Course."""
        unmet = tuple(i for i, holds in enumerate(self.holding()) if not holds)
        return Course(tuple(self._missing), tuple(self._steps), self._outcome, unmet, disturbed)

    def _number(self, relation: Relation) -> int:
        """Which of the episode's relations a relation of the policy is; -1 if none."""
        said = self.workcell.episode.said
        return next((i for i, other in enumerate(said) if other.kind == relation.kind and other.phrases == relation.phrases), -1)
