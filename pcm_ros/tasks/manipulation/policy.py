"""The closed loop on a workcell: observe, agree, act, observe again, until the ensemble says on real images that the goal holds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from pcm_ros.consensus import Consensus, Iteration, QuorumError, mixed_seed
from pcm_ros.tasks.manipulation.arrangement import SUPPORT, contradiction, in_order, mirrored, still_wanted
from pcm_ros.tasks.manipulation.context import Context, Target
from pcm_ros.tasks.manipulation.doubts import Doubts
from pcm_ros.tasks.manipulation.generator import NothingToGrasp
from pcm_ros.tasks.manipulation.goal import Goal, Relation, RelationKind
from pcm_ros.tasks.manipulation.grasps import plan_grasps
from pcm_ros.tasks.manipulation.instruction import parse
from pcm_ros.tasks.manipulation.instruction_errors import InstructionError
from pcm_ros.tasks.manipulation.memory import ObjectMemory, expected_scene, reconcile
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig
from pcm_ros.tasks.manipulation.policy_events import Checked, Chosen, Event, Executed, Finished, Observed, Outcome, Planning, action_of
from pcm_ros.tasks.manipulation.rearrangement import Placed, rearrange
from pcm_ros.tasks.manipulation.relation_scorer import (
    Assessment,
    fused_logits,
    noun_probabilities,
    probability_of,
)
from pcm_ros.tasks.manipulation.scene import Scene, SceneObject
from pcm_ros.tasks.manipulation.situation import Situation, of_same_subject
from pcm_ros.tasks.manipulation.vision import SideBySide
from pcm_ros.tasks.manipulation.workcell import Array, ExecutionCode, InvalidObservation, Observation, Workcell
from pcm_ros.tasks.manipulation.world_model import world_model

# Attempts at one relation after which an arrangement of all is looked for.
STUCK = 2
# An object that is within this of where it was before it was moved, metres, was not moved.
UNMOVED = 0.015


class Perceive(Protocol):
    """Observation -> Scene; `Perception` in one process, a service call in another."""

    def perceive(self, observation: Observation) -> Scene: ...


class RelationJudge(Protocol):
    """A scorer that can also say how things are."""

    name: str

    def assess(self, context: Context) -> Assessment: ...


@dataclass(frozen=True)
class _Move:
    """A motion that the workcell reports as done: where the object was, (3,) metres, its size (3,), how far it was to go, and the pick."""

    before: Array
    size: Array
    motion: Array
    pick: tuple[float, float, float, float]


class _Ended(Exception):
    def __init__(self, outcome: Outcome, message: str) -> None:
        super().__init__(message)
        self.outcome, self.message = outcome, message


def _assessed(judge: RelationJudge, context: Context) -> Assessment | str:
    """What a judge says, or why it counts for nothing."""
    try:
        assessment = judge.assess(context)
        if bool(torch.isnan(assessment.margins).any()) or bool(torch.isinf(assessment.logits).any()):
            raise ValueError("its assessment holds NaN or inf")
        return assessment
    except (RuntimeError, ValueError, KeyError, TimeoutError) as error:
        return str(error.args[0] if isinstance(error, KeyError) else error)


class ManipulationPolicy:
    """Turns an instruction into actions on any `Workcell`.

    Args:
        workcell: the world.
        perception: makes scenes of observations.
        consensus: generator, ensemble, strategy and stop rule; its ensemble holds the judges too.
        judges: the scorers that say whether a relation holds (one per view); two are asked at a time.
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
        self._side_by_side = SideBySide()

    def run(self, instruction: str | Goal, seed: int = 0, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Carry out an instruction. Yields events as they happen; the last is `Finished`, whatever happens but a programming error.

        Args:
            instruction: text or a parsed goal.
            seed: same seed, same world: same actions, bit for bit.
            should_stop: polled between and during all steps; True ends the run with CANCELED.
        """
        run = _Run(self._workcell, self._perception, self._consensus, self._judges, self._side_by_side, self._config, seed, should_stop)
        try:
            goal = parse(instruction) if isinstance(instruction, str) else instruction
            yield from run.goal(goal)
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
        side_by_side: SideBySide,
        config: PolicyConfig,
        seed: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._workcell, self._perception, self._consensus, self._judges = workcell, perception, consensus, judges
        self._side_by_side, self._config, self._seed, self._should_stop = side_by_side, config, seed, should_stop
        self._actions = 0
        self._failed: list[tuple[float, float, float, float]] = []
        self._degraded: dict[str, str] = {}  # who -> what was wrong with it first
        self._seen: Situation | None = None
        self._expected: Scene | None = None
        self._memory = ObjectMemory()
        self._doubts = Doubts(config, [judge.name for judge in judges])
        self._trusted: _Move | None = None
        self._placed: set[Relation] = set()  # what a motion that went well was to make true

    def finished(self, outcome: Outcome, message: str) -> Finished:
        return Finished(outcome, message, self._actions, tuple(who + what for who, what in self._degraded.items()))

    def _degrade(self, who: str, what: str) -> None:
        self._degraded.setdefault(who, what)

    def goal(self, goal: Goal) -> Iterator[Event]:
        """Make all stages true, one after the other; what an earlier one made true stays so unless a later one contradicts it."""
        for stage in goal.stages:
            if clash := contradiction(stage):
                named = " and ".join(repr(str(relation)) for relation in clash)
                raise _Ended(Outcome.IMPOSSIBLE, f"{named} exclude each other, wherever things stand")
        if len(goal.stages) > 1:  # what is asked for later must be there too, before anything is moved
            situation = yield from self._look()
            for relation in goal.relations:
                self._check(situation, relation)
        standing: tuple[Relation, ...] = ()
        for stage in goal.stages:
            standing = yield from self.stage(still_wanted(standing, stage), stage)

    def stage(self, standing: tuple[Relation, ...], stage: tuple[Relation, ...]) -> Generator[Event, None, tuple[Relation, ...]]:
        """Make the relations of a stage true, in an order in which none undoes another (see `in_order`); those of earlier stages stand.

        Returns:
            What stands afterwards: without what had to make room.
        """
        relations = (*standing, *stage)
        spent: dict[Relation, int] = {}
        steps = 0  # towards an arrangement of several objects
        while True:
            now = yield from self._look()
            holds: dict[Relation, bool] = {}
            order = in_order(relations)
            for relation in order:
                check = self._check(now, relation)
                yield check
                holds[relation] = check.holds
            if all(holds[relation] for relation in relations):
                return relations
            wanted = next(relation for relation in order if not holds[relation])
            # Each of several objects may need as many attempts as one.
            number = max(1, int((now.meant[wanted][:, 0] > 0.5).sum())) if wanted.plural else 1
            if spent.get(wanted, 0) >= self._config.attempts * number or self._actions >= self._config.most_actions:
                raise _Ended(Outcome.NOT_REACHED, f"'{wanted}' does not hold after {spent.get(wanted, 0)} attempts at it")
            if spent.get(wanted, 0) >= STUCK:
                steps = max(steps, 1)
            if steps and steps < 2 * len(now.scene.objects) and (step := self._step(relations, now)) is not None:
                doubt, last = yield from self._agreed(step, now)
                if doubt is None and last is not None:
                    steps += 1
                    yield from self._execute(step, last)
                    spent[wanted] = spent.get(wanted, 0) + bool(self._failed)
                    continue
            missing = [relation for relation in relations if not holds[relation]]
            held = [relation for relation in relations if holds[relation]]
            reason, context, last = "", None, None
            for way in self._ways(wanted, spent, stage, now):
                self._know(now, way)
                kept = now.kept_by(way, held)
                doubt = None
                together = of_same_subject(way, missing)
                for coming in (together, ()) if together else ((),):  # where there is no place for all of them: at least for one
                    context = now.context(way, (*kept, *coming), self._failed)
                    doubt, last = yield from self._agreed(context, now)
                    if doubt is None:
                        break
                if doubt is None:
                    break
                reason = reason or doubt
            else:
                if steps or self._step(relations, now) is None:
                    raise _Ended(Outcome.IMPOSSIBLE, reason)
                steps = 1
                continue
            assert context is not None and last is not None
            way = context.relation
            spent[way] = spent.get(way, 0) + 1
            if way == mirrored(wanted):
                spent[wanted] = spent.get(wanted, 0) + 1
            if wanted.kind in SUPPORT and way.kind == RelationKind.NEXT_TO and way.references == wanted.references:  # it made room
                relations = tuple(r for r in relations if r in stage or not (r.kind in SUPPORT and r.phrases == way.phrases))
            yield from self._execute(context, last)

    def _ways(self, wanted: Relation, spent: dict[Relation, int], stage: Sequence[Relation], now: Situation) -> Iterator[Relation]:
        """What to make true next, best first: what is on the object that is to be moved comes off it; the relation itself; what is where
        it is to go makes room, unless the same stage wants it there; its reference is moved instead."""
        load = None if wanted.plural else now.load(wanted, 0, RelationKind.ON)
        if load is not None and spent.get(load, 0) < self._config.attempts:
            yield load
        yield wanted
        occupant = now.occupant(wanted)
        asked = {relation.phrases for relation in stage if relation.kind in SUPPORT}
        if occupant is not None and occupant.phrases not in asked and spent.get(occupant, 0) < self._config.attempts:
            yield occupant
        if (other := mirrored(wanted)) is not None:
            yield other

    def _step(self, relations: Sequence[Relation], now: Situation) -> Context | None:
        """The first motion towards an arrangement in which all relations hold; None: there is none to be found, or it is there already."""
        if any(relation.plural for relation in relations):
            return None
        placed = [Placed(r.kind, tuple(now.likeliest(r, k) for k in range(len(r.phrases)))) for r in relations]
        world = world_model(now.context(relations[0]))
        graspable = plan_grasps(world).graspable(world.count).nonzero()[:, 0].tolist()
        plan = rearrange(now.scene, placed, graspable, now.carried(), mixed_seed(self._seed, 7000 + self._actions))
        if plan is None:
            return None
        for unloading in now.unloading(plan.first):
            self._know(now, unloading)
            return now.context(unloading, (), self._failed)
        # Any relation that speaks of the object will do to name it.
        for relation in [other for one in relations for other in (one, mirrored(one)) if other is not None]:
            self._know(now, relation)
            if now.likeliest(relation, 0) == plan.first:
                left, forward = plan.targets[plan.first]
                x, y = (left * np.array(now.scene.limits.left) + forward * np.array(now.scene.limits.forward)).tolist()
                return replace(now.context(relation, (), self._failed), target=Target(plan.first, x, y))
        return None

    def _know(self, now: Situation, relation: Relation) -> None:
        """See to it that it is known what a relation's phrases mean."""
        if relation not in now.meant:
            self._check(now, relation)

    def _agreed(self, context: Context, now: Situation) -> Generator[Event, None, tuple[str | None, Iteration | None]]:
        """The ensemble's plan and None, or why there is none worth an action (asked twice: proposals are drawn at random)."""
        if (doubt := self._doubts.ungraspable(context, now)) is not None:
            return doubt, None
        for trial in range(2):
            last = yield from self._plan(context, trial)
            self._see_that_views_judged(last)
            if (doubt := self._doubts.of_plan(context, last, now, context.relation in self._placed)) is None:
                break
        return doubt, last

    def _see_that_views_judged(self, last: Iteration) -> None:
        """A plan that satisfies geometry alone, since every view that should judge it failed, is none."""
        asked = [judge.name for judge in self._judges if judge.name in last.table.names]
        if asked and not set(asked) & set(last.leader_energies):
            reasons = "; ".join(f"{name}: {last.dropped.get(name, 'no energy')}" for name in asked)
            raise _Ended(Outcome.QUORUM, f"no view judged the plans: {reasons}")

    def _look(self) -> Generator[Event, None, Situation]:
        self._stop_if_asked()
        if self._seen is None:
            observation = self._workcell.observe()
            for name in observation.missing:
                self._degrade(f"camera '{name}'", " is missing")
            scene = self._perception.perceive(observation)
            if self._expected is not None:
                scene = reconcile(scene, self._expected, observation)
            self._notice_slip(scene)
            self._seen = Situation(observation, scene)
            yield Observed(observation, scene)
        return self._seen

    def _notice_slip(self, scene: Scene) -> None:
        """A grasp that was reported as good, but the object stands where it was: another grasp shall come first."""
        move, self._trusted = self._trusted, None
        if move is None or np.linalg.norm(move.motion) < 2 * UNMOVED:
            return

        def stands(at: Array, thing: SceneObject) -> bool:
            return bool(np.linalg.norm(thing.center - at) < UNMOVED and np.abs(thing.size - move.size).max() < 2 * UNMOVED)

        if any(stands(move.before, thing) for thing in scene.objects) and not any(
            stands(move.before + move.motion, thing) for thing in scene.objects
        ):
            self._failed.append(move.pick)
            self._memory.forget_move()

    def _check(self, now: Situation, relation: Relation) -> Checked:
        """How a relation stands; what its phrases mean is noted. Ends the run where one of them means nothing that is there."""
        context = now.context(relation)
        self._stop_if_asked()
        assessments, dropped = [], {}
        for judge, answer in zip(self._judges, self._side_by_side.map(lambda judge: _assessed(judge, context), self._judges), strict=True):
            if isinstance(answer, str):
                dropped[judge.name] = answer
                self._degrade(f"judge {judge.name}", f": {answer}")
            else:
                assessments.append(answer)
        self._stop_if_asked()
        if len(assessments) < self._config.least_judges:
            raise _Ended(
                Outcome.QUORUM,
                f"{len(assessments)} of {len(self._judges)} judges answered, {self._config.least_judges} are needed: {dropped}",
            )
        logits = self._memory.recall(context.scene, context.relation, fused_logits(assessments))
        if not len(logits):
            raise _Ended(
                Outcome.OBJECT_NOT_FOUND, f"no object was found in the workspace, so none that looks like '{context.relation.subject}'"
            )
        if (refusal := self._doubts.absent(context, logits)) is not None:
            raise _Ended(Outcome.OBJECT_NOT_FOUND, refusal)
        now.meant[relation] = noun_probabilities(relation, logits, now.scene)
        probability = probability_of(assessments, logits, context.relation, context.scene)
        best = tuple(float(x) for x in logits.amax(dim=0)[: len(context.relation.phrases)])
        return Checked(context.relation, probability, probability >= self._config.holds, best, dropped)

    def _plan(self, context: Context, trial: int) -> Generator[Event, None, Iteration]:
        """The consensus' last iteration. Yields Planning."""
        last: Iteration | None = None
        for last in self._consensus.iterate(context, mixed_seed(self._seed, self._actions + 1000 * trial)):
            for name, reason in last.dropped.items():
                self._degrade(f"scorer {name}", f": {reason}")
            yield Planning(context.relation, last, context)
            self._stop_if_asked()
        assert last is not None
        return last

    def _execute(self, context: Context, last: Iteration) -> Iterator[Event]:
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
            self._placed.add(context.relation)
            self._failed.clear()
            category = int(last.leader.category[0])
            thing, (x, y, z) = context.scene.objects[category], action.pick_position.tolist()
            self._trusted = _Move(thing.center, thing.size, np.array(motion[:3]), (x, y, z, action.pick_yaw))
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
