"""What happens in a run of the policy, for whoever watches: recordings, feedback of an action, the terminal."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pcm_ros.consensus import Batch, Iteration
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.goal import Relation
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import ExecutionResult, Observation, PickPlace


class Outcome(enum.IntEnum):
    """How a run ended. The numbers are the error codes of Manipulate.action."""

    SUCCESS = 0
    INVALID_INSTRUCTION = 1
    OBJECT_NOT_FOUND = 2
    IMPOSSIBLE = 3
    QUORUM = 4
    OBSERVATION = 5
    EXECUTION = 6
    NOT_REACHED = 7
    CANCELED = 8
    BUSY = 9
    ERROR = 10


@dataclass(frozen=True)
class Observed:
    """A new observation and the scene in it."""

    observation: Observation
    scene: Scene


@dataclass(frozen=True)
class Checked:
    """The ensemble's judgement of one relation on real images: probability that it holds, and log-odds of each phrase's best object."""

    relation: Relation
    probability: float
    holds: bool
    best_logits: tuple[float, ...]
    dropped: dict[str, str]


@dataclass(frozen=True)
class Planning:
    """One consensus iteration for one relation."""

    relation: Relation
    iteration: Iteration
    context: Context


@dataclass(frozen=True)
class Chosen:
    """The action agreed upon and what it is predicted to do: motion = (dx, dy, dz, dyaw) of scene object `category`."""

    relation: Relation
    action: PickPlace
    category: int
    motion: tuple[float, float, float, float]
    context: Context


@dataclass(frozen=True)
class Executed:
    """What the workcell said of the action."""

    action: PickPlace
    result: ExecutionResult


@dataclass(frozen=True)
class Finished:
    """The last event of a run."""

    outcome: Outcome
    message: str
    actions: int
    degraded: tuple[str, ...]

    @property
    def success(self) -> bool:
        return self.outcome == Outcome.SUCCESS


Event = Observed | Checked | Planning | Chosen | Executed | Finished


def action_of(leader: Batch) -> PickPlace:
    """The pick and place of a batch of one."""
    pick, place = leader.extras["pick"][0].numpy(), leader.extras["place"][0].numpy()
    return PickPlace(pick[:3].copy(), float(pick[3]), float(pick[4]), place[:3].copy(), float(place[3]))
