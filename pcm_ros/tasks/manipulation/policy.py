"""The closed loop on a workcell: observe, agree, act, observe again, until the ensemble says on real images that the goal holds."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from pcm_ros.consensus import Batch, Consensus, Iteration, QuorumError, mixed_seed
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.generator import NothingToGrasp
from pcm_ros.tasks.manipulation.goal import Goal, Relation
from pcm_ros.tasks.manipulation.instruction import InstructionError, parse
from pcm_ros.tasks.manipulation.memory import ObjectMemory, expected_scene, reconcile
from pcm_ros.tasks.manipulation.relation_scorer import Assessment, fused_logits, probability_of
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, ExecutionResult, InvalidObservation, Observation, PickPlace, Workcell


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


class Perceive(Protocol):
    """Observation -> Scene; `Perception` in one process, a service call in another."""

    def perceive(self, observation: Observation) -> Scene: ...


class RelationJudge(Protocol):
    """A scorer that can also say how things are."""

    name: str

    def assess(self, context: Context) -> Assessment: ...


@dataclass(frozen=True)
class PolicyConfig:
    """Bounds and thresholds of the closed loop.

    Attributes:
        attempts: actions spent on one relation before giving up, 1..20. most_actions: in a whole run, 1..200.
        holds: probability from which a relation counts as true, 0..1. Below one half, because margins are stricter than the relations (see
            relation_margin): what is planned shall be clear, what is found may be close.
        present: log-odds below which a phrase's best object counts as not there. contrast: it does so too if perception's own name for that
            object has log-odds higher by more than this.
        expected: mean energy of the judges, nats, above which the best proposal is not worth an action, > 0.
        least_judges: views that must answer for a relation to be checked, >= 1.
    """

    attempts: int = 4
    most_actions: int = 40
    holds: float = 0.3
    present: float = -1.0
    contrast: float = 2.0
    expected: float = 4.0
    least_judges: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 20 or not 1 <= self.most_actions <= 200:
            raise ValueError(f"attempts {self.attempts} must be 1..20 and most_actions {self.most_actions} 1..200")
        if not 0 < self.holds < 1 or self.least_judges < 1:
            raise ValueError(f"holds {self.holds} must be between 0 and 1, least_judges {self.least_judges} at least 1")


def is_there(logit: float, confidence: float, config: PolicyConfig) -> bool:
    """Whether the object that fits a phrase best is what the phrase says.

    Args:
        logit: fused log-odds of the phrase for that object.
        confidence: 0..1, perception's for its own name of it (SceneObject.label_confidence); 0: it has none.
    """
    named = _log_odds(confidence)
    return logit >= config.present and named - logit <= config.contrast


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability)) if 0 < probability < 1 else math.copysign(math.inf, probability - 0.5)


class _Ended(Exception):
    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message


def action_of(leader: Batch) -> PickPlace:
    """The pick and place of a batch of one."""
    pick, place = leader.extras["pick"][0].numpy(), leader.extras["place"][0].numpy()
    return PickPlace(pick[:3].copy(), float(pick[3]), float(pick[4]), place[:3].copy(), float(place[3]))


class ManipulationPolicy:
    """Turns an instruction into actions on any `Workcell`.

    Args:
        workcell: the world.
        perception: makes scenes of observations.
        consensus: generator, ensemble, strategy and stop rule; its ensemble holds the judges too.
        judges: the scorers that say whether a relation holds (one per view).
    """

    def __init__(
        self,
        workcell: Workcell,
        perception: Perceive,
        consensus: Consensus,
        judges: Sequence[RelationJudge],
        config: PolicyConfig = PolicyConfig(),
    ) -> None:
        if not judges:
            raise ValueError("at least one judge (a relation scorer of one view) is needed")
        self._workcell, self._perception, self._consensus = workcell, perception, consensus
        self._judges, self._config = tuple(judges), config

    def run(self, instruction: str | Goal, seed: int = 0, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Carry out an instruction. Yields events as they happen; the last is `Finished`, whatever happens but a programming error.

        Args:
            instruction: text or a parsed goal.
            seed: same seed, same world: same actions, bit for bit.
            should_stop: polled between and during all steps; True ends the run with CANCELED.
        """
        run = _Run(self._workcell, self._perception, self._consensus, self._judges, self._config, seed, should_stop)
        try:
            goal = parse(instruction) if isinstance(instruction, str) else instruction
            for stage in goal.stages:
                yield from run.stage(stage)
            yield run.finished(Outcome.SUCCESS, "the ensemble sees that the goal holds")
        except InstructionError as error:
            yield run.finished(Outcome.INVALID_INSTRUCTION, str(error))
        except _Ended as end:
            yield run.finished(end.outcome, end.message)
        except InvalidObservation as error:
            yield run.finished(Outcome.OBSERVATION, str(error))
        except QuorumError as error:
            yield run.finished(Outcome.QUORUM, str(error))
        except NothingToGrasp as error:
            yield run.finished(Outcome.IMPOSSIBLE, str(error))


class _Run:
    """The state of one run."""

    def __init__(
        self,
        workcell: Workcell,
        perception: Perceive,
        consensus: Consensus,
        judges: Sequence[RelationJudge],
        config: PolicyConfig,
        seed: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._workcell, self._perception, self._consensus, self._judges = workcell, perception, consensus, judges
        self._config, self._seed, self._should_stop = config, seed, should_stop
        self._actions = 0
        self._failed: list[tuple[float, float, float, float]] = []
        self._degraded: dict[str, str] = {}  # who -> what was wrong with it first
        self._seen: tuple[Observation, Scene] | None = None
        self._expected: Scene | None = None
        self._memory = ObjectMemory()
        self._found: set[str] = set()

    def finished(self, outcome: Outcome, message: str) -> Finished:
        return Finished(outcome, message, self._actions, tuple(who + what for who, what in self._degraded.items()))

    def _degrade(self, who: str, what: str) -> None:
        self._degraded.setdefault(who, what)

    def stage(self, relations: Sequence[Relation]) -> Iterator[Event]:
        """Make all relations of a stage true together."""
        spent = dict.fromkeys(relations, 0)
        while True:
            observation, scene = yield from self._look()
            held, wanted = [], None
            for relation in relations:
                context = Context(relation, (), scene, observation)
                check = self._check(context)
                yield check
                if check.holds:
                    held.append(relation)
                elif wanted is None:
                    wanted = relation
            if wanted is None:
                return
            if spent[wanted] >= self._config.attempts or self._actions >= self._config.most_actions:
                raise _Ended(Outcome.NOT_REACHED, f"'{wanted}' does not hold after {spent[wanted]} attempts at it")
            spent[wanted] += 1
            yield from self._act(Context(wanted, tuple(held), scene, observation, tuple(self._failed)))

    def _look(self) -> Generator[Event, None, tuple[Observation, Scene]]:
        self._stop_if_asked()
        if self._seen is None:
            observation = self._workcell.observe()
            for name in observation.missing:
                self._degrade(f"camera '{name}'", " is missing")
            scene = self._perception.perceive(observation)
            if self._expected is not None:
                scene = reconcile(scene, self._expected, observation)
            self._seen = (observation, scene)
            yield Observed(observation, scene)
        return self._seen

    def _check(self, context: Context) -> Checked:
        assessments, dropped = [], {}
        for judge in self._judges:
            self._stop_if_asked()
            try:
                assessment = judge.assess(context)
                if bool(torch.isnan(assessment.margins).any()) or bool(torch.isinf(assessment.logits).any()):
                    raise ValueError("its assessment holds NaN or inf")
                assessments.append(assessment)
            except (RuntimeError, ValueError, KeyError, TimeoutError) as error:
                dropped[judge.name] = reason = str(error.args[0] if isinstance(error, KeyError) else error)
                self._degrade(f"judge {judge.name}", f": {reason}")
        if len(assessments) < self._config.least_judges:
            raise _Ended(
                Outcome.QUORUM,
                f"{len(assessments)} of {len(self._judges)} judges answered, {self._config.least_judges} are needed: {dropped}",
            )
        logits = self._memory.recall(context.scene, context.relation, fused_logits(assessments))
        probability = probability_of(assessments, logits)
        if not len(logits):
            raise _Ended(
                Outcome.OBJECT_NOT_FOUND, f"no object was found in the workspace, so none that looks like '{context.relation.subject}'"
            )
        best = tuple(float(x) for x in logits.amax(dim=0))
        self._refuse_absent(context, best, tuple(logits.argmax(dim=0).tolist()))
        return Checked(context.relation, probability, probability >= self._config.holds, best, dropped)

    def _refuse_absent(self, context: Context, best_logits: Sequence[float], best: Sequence[int]) -> None:
        """End the run if a phrase fits nothing. What was once found is not refused later: something may hide it now."""
        for phrase, logit, number in zip(context.relation.phrases, best_logits, best, strict=True):
            thing = context.scene.objects[number]
            if phrase in self._found or is_there(logit, thing.label_confidence, self._config):
                self._found.add(phrase)
                continue
            there = ", ".join(sorted(thing.label for thing in context.scene.objects))
            raise _Ended(
                Outcome.OBJECT_NOT_FOUND,
                f"no object looks like '{phrase}': the nearest is rather a {thing.label} (log-odds {logit:.1f}, as a {thing.label} "
                f"{_log_odds(thing.label_confidence):.1f}); on the table: {there}",
            )

    def _act(self, context: Context) -> Iterator[Event]:
        last: Iteration | None = None
        for last in self._consensus.iterate(context, mixed_seed(self._seed, self._actions)):
            for name, reason in last.dropped.items():
                self._degrade(f"scorer {name}", f": {reason}")
            yield Planning(context.relation, last, context)
            self._stop_if_asked()
        assert last is not None
        if not last.leader_energy < float("inf"):
            blocking = sorted(name for name, energy in last.leader_energies.items() if energy == float("inf"))
            raise _Ended(
                Outcome.IMPOSSIBLE,
                f"no feasible way to make '{context.relation}' true was found; ruled out by: {', '.join(blocking) or 'the generator'}",
            )
        votes = [energy for judge in self._judges if (energy := last.leader_energies.get(judge.name)) is not None and energy == energy]
        if votes and sum(votes) / len(votes) > self._config.expected:
            raise _Ended(
                Outcome.IMPOSSIBLE,
                f"not even the best proposal is expected to make '{context.relation}' true: mean energy of the views "
                f"{sum(votes) / len(votes):.1f} nats > {self._config.expected:g}",
            )
        action = action_of(last.leader)
        dx, dy, dz, turn = (float(x) for x in last.leader.extras["motion"][0])
        motion = (dx, dy, dz, turn)
        yield Chosen(context.relation, action, int(last.leader.category[0]), motion, context)
        self._stop_if_asked()
        result = self._workcell.execute(action, self._should_stop)
        self._actions += 1
        self._seen = None
        yield Executed(action, result)
        self._expected = context.scene
        if result.ok:
            self._failed.clear()
            category = int(last.leader.category[0])
            self._expected = expected_scene(context.scene, category, motion)
            self._memory.move(category, motion)
        else:
            x, y, z = action.pick_position.tolist()
            self._failed.append((x, y, z, action.pick_yaw))
        if result.code == ExecutionCode.CANCELED:
            raise _Ended(Outcome.CANCELED, result.message or "canceled while moving")
        if result.code == ExecutionCode.ERROR:
            raise _Ended(Outcome.EXECUTION, f"the workcell reports an error: {result.message}")

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise _Ended(Outcome.CANCELED, "canceled")
