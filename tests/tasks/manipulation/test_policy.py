"""The closed loop on the simulator with the truth in the place of the models: what it does, and how it ends when things go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import unruly_scorers
from truth import truth_of, truth_policy

from pcm_ros.sim.benchmark_tasks import FreeTask
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import WorldConfig, cameras
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.policy_config import PolicyConfig
from pcm_ros.tasks.manipulation.policy_events import Checked, Chosen, Event, Executed, Finished, Observed, Outcome, Planning
from pcm_ros.tasks.manipulation.relation_scorer import RelationScorer
from pcm_ros.tasks.manipulation.workcell import ExecutionCode, ExecutionResult, Observation, PickPlace, Workcell, WorkcellLimits

VIEWS = ("front", "left", "right")
QUICK = ManipulationConfig(proposals=96, iterations=3, finalists=6)
SEED = 1000


@pytest.fixture(scope="module")
def cell() -> Iterator[SimWorkcell]:
    cell = SimWorkcell("relations-1", WorldConfig(cameras=cameras(3)))
    yield cell
    cell.close()


@dataclass
class Changed:
    """Another world: the simulator with cameras that fail, or a hand that never holds. `executed` counts what it was asked to do."""

    cell: SimWorkcell
    seen: Callable[[Observation], Observation] = lambda observation: observation
    hand: ExecutionCode | None = None
    executed: list[PickPlace] = field(default_factory=list)
    looks: int = 0
    limits_: WorkcellLimits | None = None

    @property
    def limits(self) -> WorkcellLimits:
        return self.limits_ or self.cell.limits

    def observe(self) -> Observation:
        self.looks += 1
        return self.seen(self.cell.observe())

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        self.executed.append(action)
        if self.hand is not None:
            return ExecutionResult(self.hand, "as it always ends here")
        return self.cell.execute(action, should_stop)


def policy_on(cell: SimWorkcell, workcell: Workcell | None = None, config: ManipulationConfig = QUICK) -> ManipulationPolicy:
    return truth_policy(workcell or cell, truth_of(cell), VIEWS, config)


def last(events: Sequence[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    assert not any(isinstance(event, Finished) for event in events[:-1])
    return events[-1]


@pytest.mark.parametrize("seed", [1000, 1001])
def test_an_instruction_is_carried_out(cell: SimWorkcell, seed: int) -> None:
    episode = cell.reset(seed)
    events = list(policy_on(cell).run(episode.instruction, seed))
    finished = last(events)
    assert finished.success, finished
    assert cell.judge_all()
    assert finished.degraded == ()
    kinds = [type(event) for event in events if not isinstance(event, Planning)]
    assert kinds[:4] == [Observed, Checked, Chosen, Executed]
    assert kinds[-3:] == [Observed, Checked, Finished]
    assert finished.actions == kinds.count(Executed)
    assert any(isinstance(event, Planning) for event in events)


def test_several_relations_in_order() -> None:
    cell = SimWorkcell("relations-2", WorldConfig(cameras=cameras(3)), seed=1002)
    finished = last(list(policy_on(cell).run(cell.episode.instruction, 1)))
    assert finished.success, finished
    assert cell.judge_all()
    cell.close()


def test_what_holds_already_needs_no_action(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    first, second = (
        placement.spec.phrase for placement in sorted(episode.placements, key=lambda p: p.xy[1])[:: len(episode.placements) - 1]
    )
    low, high = sorted(episode.placements, key=lambda p: p.xy[1])[:: len(episode.placements) - 1]
    if abs(low.xy[0] - high.xy[0]) > 0.7 * (high.xy[1] - low.xy[1]):
        pytest.skip("the outermost objects stand at an angle")
    finished = last(list(policy_on(cell).run(f"put the {second} to the left of the {first}", 0)))
    assert finished.success
    assert finished.actions == 0


@pytest.mark.parametrize(
    "instruction",
    ["", "   ", "sing a song", "put the mug", "put the red mug under the bowl", "a" * 10_000, "\u200b\u4e2d\u6587 \U0001f600", "\0"],
)
def test_what_is_outside_of_the_grammar_is_refused_before_anything_is_looked_at(cell: SimWorkcell, instruction: str) -> None:
    cell.reset(SEED)
    world = Changed(cell)
    (finished,) = policy_on(cell, world).run(instruction, 0)
    assert isinstance(finished, Finished)
    assert finished.outcome == Outcome.INVALID_INSTRUCTION
    assert 20 < len(finished.message) < 2000
    assert world.looks == 0
    assert world.executed == []


def test_an_object_that_is_not_there(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    there = {placement.spec.phrase for placement in episode.placements}
    absent = next(f"{color} duck" for color in ("purple", "pink", "cyan", "brown") if f"{color} duck" not in there)
    world = Changed(cell)
    reference = episode.relations[0].references[0]
    finished = last(list(policy_on(cell, world).run(f"put the {absent} to the left of the {reference}", 0)))
    assert finished.outcome == Outcome.OBJECT_NOT_FOUND
    assert absent in finished.message
    assert world.executed == []
    finished = last(list(policy_on(cell, world).run(f"put the {reference} to the left of the {absent}", 0)))
    assert finished.outcome == Outcome.OBJECT_NOT_FOUND


@pytest.mark.parametrize("stage", [None, Observed, Checked, Planning, Chosen])
def test_cancelled_between_the_steps(cell: SimWorkcell, stage: type | None) -> None:
    episode = cell.reset(SEED)
    world = Changed(cell)
    events: list[Event] = []

    def stop() -> bool:
        return stage is None or any(isinstance(event, stage) for event in events)

    for event in policy_on(cell, world).run(episode.instruction, 0, stop):
        events.append(event)  # noqa: PERF402 - stop() reads it meanwhile
    assert last(events).outcome == Outcome.CANCELED
    assert last(events).actions == 0
    assert world.executed == []
    # Nothing was begun after the word came: no second iteration, no further look.
    assert [type(event) for event in events[:-1]].count(Planning) <= (1 if stage is Planning else 3)
    assert stage is not None or world.looks == 0


def test_cancelled_while_moving(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    polls = 0
    moving = False

    def stop() -> bool:
        nonlocal polls
        polls += moving
        return polls > 12

    events = []
    for event in policy_on(cell).run(episode.instruction, 0, stop):
        events.append(event)
        moving = moving or isinstance(event, Chosen)
    assert last(events).outcome == Outcome.CANCELED
    assert last(events).actions == 1
    executed = next(event for event in events if isinstance(event, Executed))
    assert executed.result.code == ExecutionCode.CANCELED
    assert len(cell.observe().views) == 3  # and the cell goes on


@pytest.mark.parametrize("code", [ExecutionCode.GRASP_FAILED, ExecutionCode.UNREACHABLE, ExecutionCode.COLLISION, ExecutionCode.TIMEOUT])
def test_a_hand_that_never_holds_is_given_up(cell: SimWorkcell, code: ExecutionCode) -> None:
    episode = cell.reset(SEED)
    world = Changed(cell, hand=code)
    events = list(policy_on(cell, world, replace(QUICK, attempts=3)).run(episode.instruction, 0))
    assert last(events).outcome == Outcome.NOT_REACHED
    assert last(events).actions == len(world.executed) == 3
    assert world.looks == 4  # it looks again each time
    assert len({tuple(action.pick_position) for action in world.executed}) == 3  # and tries another grasp


def test_a_workcell_that_reports_an_error_is_not_asked_again(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    world = Changed(cell, hand=ExecutionCode.ERROR)
    finished = last(list(policy_on(cell, world).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.EXECUTION
    assert "as it always ends here" in finished.message
    assert len(world.executed) == 1


def without(name: str) -> Callable[[Observation], Observation]:
    return lambda observation: replace(observation, views=tuple(view for view in observation.views if view.name != name), missing=(name,))


def test_a_camera_that_is_missing_is_stated(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    finished = last(list(policy_on(cell, Changed(cell, without("left"))).run(episode.instruction, 0)))
    assert finished.success, finished
    assert "camera 'left' is missing" in finished.degraded
    assert any(reason.startswith("judge relation:left") for reason in finished.degraded)
    assert any(reason.startswith("scorer relation:left") for reason in finished.degraded)


def test_without_any_judging_camera_nothing_is_done(cell: SimWorkcell) -> None:
    """A world whose cameras have other names than the scorers' views."""
    episode = cell.reset(SEED)
    world = Changed(
        cell, lambda observation: replace(observation, views=tuple(replace(view, name=f"x-{view.name}") for view in observation.views))
    )
    finished = last(list(policy_on(cell, world).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.QUORUM
    assert "no view 'front'" in finished.message
    assert world.executed == []


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 1000.0])
def test_without_depth_nothing_is_done(cell: SimWorkcell, value: float) -> None:
    episode = cell.reset(SEED)

    def blind(observation: Observation) -> Observation:
        return replace(observation, views=tuple(replace(view, depth=np.full_like(view.depth, value)) for view in observation.views))

    world = Changed(cell, blind)
    finished = last(list(policy_on(cell, world).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.OBSERVATION
    assert "depth" in finished.message
    assert world.executed == []


def test_one_camera_without_depth_does_not_stop_the_others(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)

    def half_blind(observation: Observation) -> Observation:
        first, *others = observation.views
        return replace(observation, views=(replace(first, depth=np.full_like(first.depth, np.nan)), *others))

    finished = last(list(policy_on(cell, Changed(cell, half_blind)).run(episode.instruction, 0)))
    assert finished.success, finished
    assert cell.judge_all()


def actions_of(cell: SimWorkcell, seed: int) -> list[bytes]:
    episode = cell.reset(SEED)
    found = []
    for event in policy_on(cell).run(episode.instruction, seed):
        if isinstance(event, Chosen):
            action = event.action
            numbers = [*action.pick_position, action.pick_yaw, action.pick_width, *action.place_position, action.place_yaw, *event.motion]
            found.append(np.array(numbers).tobytes())
    return found


def test_the_same_seed_gives_the_same_actions(cell: SimWorkcell) -> None:
    first, again, other = actions_of(cell, 5), actions_of(cell, 5), actions_of(cell, 6)
    assert first
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("scorer", "reason"), [("Raising", "the model fell over"), ("Nan", "NaN"), ("Misshapen", "shape"), ("Hanging", "no answer within")]
)
def test_a_scorer_that_fails_is_left_out_and_named(cell: SimWorkcell, scorer: str, reason: str) -> None:
    episode = cell.reset(SEED)
    unruly_scorers.RELEASE.clear()
    config = replace(QUICK, extra_scorers=(f"unruly_scorers:{scorer}",), timeout=6.0)
    try:
        events = list(policy_on(cell, config=config).run(episode.instruction, 0))
    finally:
        unruly_scorers.RELEASE.set()
    assert last(events).success, last(events)
    (stated,) = {text for text in last(events).degraded if reason in text}
    assert stated.startswith(f"scorer {scorer.lower()}: ")
    plans = [event.iteration for event in events if isinstance(event, Planning)]
    assert all(scorer.lower() in plan.dropped for plan in plans)
    assert all(scorer.lower() not in plan.leader_energies or np.isnan(plan.leader_energies[scorer.lower()]) for plan in plans)


def test_too_few_scorers(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    config = replace(QUICK, quorum=0.95, extra_scorers=("unruly_scorers:Raising", "unruly_scorers:Nan"))
    finished = last(list(policy_on(cell, config=config).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.QUORUM
    assert "raising: ZeroDivisionError: the model fell over" in finished.message
    assert "Remedy" in finished.message
    assert finished.actions == 0


def test_plans_that_no_view_judged_are_not_carried_out(cell: SimWorkcell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The views see how things are, and fail when they are asked about plans: geometry alone meets the quorum."""

    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    episode = cell.reset(SEED)
    world = Changed(cell)
    monkeypatch.setattr(RelationScorer, "_energy", fails)
    finished = last(list(policy_on(cell, world, replace(QUICK, quorum=0.5)).run(episode.instruction, 0)))
    assert (finished.outcome, world.executed) == (Outcome.QUORUM, [])
    assert "no view judged the plans: relation:front: RuntimeError: out of memory; relation:left" in finished.message


def test_what_an_expert_forbids_is_not_done(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    world = Changed(cell)
    finished = last(list(policy_on(cell, world, replace(QUICK, extra_scorers=("unruly_scorers:Forbidding",))).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.IMPOSSIBLE
    assert "forbidding" in finished.message
    assert world.executed == []


def test_a_gripper_that_is_too_small_for_everything(cell: SimWorkcell) -> None:
    episode = cell.reset(SEED)
    tiny = replace(cell.limits, gripper=replace(cell.limits.gripper, max_opening=0.004))
    world = Changed(cell, limits_=tiny)
    finished = last(list(policy_on(cell, world).run(episode.instruction, 0)))
    assert finished.outcome == Outcome.IMPOSSIBLE
    assert "gripper" in finished.message
    assert world.executed == []


# What the goal and the geometry say

BLOCKS = FreeTask((("block", "red"), ("block", "blue"), ("block", "yellow"), ("can", "green"), ("bowl", "cyan")))


def moves_of(events: Sequence[Event]) -> list[str]:
    return [str(event.relation) for event in events if isinstance(event, Chosen)]


def run_on(cell: SimWorkcell, task: FreeTask, instruction: str, seed: int, world: Changed | None = None) -> list[Event]:
    cell.reset(seed, task)
    return list(policy_on(cell, world).run(instruction, seed))


@pytest.mark.parametrize(
    "instruction",
    [
        "put the red block left of the blue block and the blue block left of the red block",
        "put the red block on the blue block and the blue block on the red block",
        "put the red block left of the blue block, then put the can left of the bowl and behind the bowl",
    ],
)
def test_a_contradiction_is_refused_before_anything_is_looked_at(cell: SimWorkcell, instruction: str) -> None:
    world = Changed(cell)
    finished = last(run_on(cell, BLOCKS, instruction, SEED, world))
    assert finished.outcome == Outcome.IMPOSSIBLE
    assert "exclude each other" in finished.message
    assert world.looks == 0


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("put the red block in the blue block", "does not go into 'blue block'"),
        ("put the cyan bowl in the green can", "does not go into 'green can'"),
    ],
)
def test_what_does_not_go_in_is_left_where_it_is(cell: SimWorkcell, instruction: str, reason: str) -> None:
    world = Changed(cell)
    finished = last(run_on(cell, BLOCKS, instruction, SEED, world))
    assert finished.outcome == Outcome.IMPOSSIBLE
    assert reason in finished.message
    assert world.executed == []


def test_what_carries_is_put_down_first(cell: SimWorkcell) -> None:
    events = run_on(cell, BLOCKS, "put the red block on the blue block and the blue block on the yellow block", 1003)
    assert last(events).success, last(events)
    assert moves_of(events) == ["blue block on yellow block", "red block on blue block"]
    red, blue, yellow = (next(b for b in cell.world.bodies() if b.spec.phrase == f"{color} block") for color in ("red", "blue", "yellow"))
    assert red.low[2] > blue.low[2] + 0.02 > yellow.low[2] + 0.04


def test_what_is_in_the_way_makes_room(cell: SimWorkcell) -> None:
    """No two blocks stand on one: the first comes down again before the second goes up."""
    events = run_on(cell, BLOCKS, "put the red block on the blue block, then put the yellow block on the blue block", 1003)
    assert last(events).success, last(events)
    assert moves_of(events) == ["red block on blue block", "red block next to blue block", "yellow block on blue block"]


def test_all_of_a_kind(cell: SimWorkcell) -> None:
    events = run_on(cell, BLOCKS, "put all the blocks left of the green can", 1003)
    assert last(events).success, last(events)
    places = {body.spec.phrase: float(body.position[1]) for body in cell.world.bodies()}
    assert min(places[f"{color} block"] for color in ("red", "blue", "yellow")) > places["green can"] + 0.03
    assert 2 <= last(events).actions <= 4


def test_the_other_one_is_not_the_one_meant_before(cell: SimWorkcell) -> None:
    task = FreeTask((("block", "red"), ("block", "blue"), ("can", "green")))
    events = run_on(cell, task, "put the red block behind the green can, then put the other block in front of the green can", 1006)
    assert last(events).success, last(events)
    depth = {body.spec.phrase: float(body.position[0]) for body in cell.world.bodies()}
    assert depth["red block"] > depth["green can"] + 0.03 > depth["blue block"] + 0.06


@pytest.mark.parametrize(("number", "there"), [("four blocks", 3), ("both blocks", 3), ("three cans", 1)])
def test_a_number_of_objects_that_are_not_there(cell: SimWorkcell, number: str, there: int) -> None:
    world = Changed(cell)
    finished = last(run_on(cell, BLOCKS, f"put {number} behind the cyan bowl", SEED, world))
    assert finished.outcome == Outcome.OBJECT_NOT_FOUND
    assert f"but {there} look like" in finished.message
    assert world.executed == []


def test_what_is_asked_for_later_must_be_there_before_anything_moves(cell: SimWorkcell) -> None:
    world = Changed(cell)
    finished = last(run_on(cell, BLOCKS, "put the red block left of the green can, then put the pink duck behind it", 1003, world))
    assert finished.outcome == Outcome.OBJECT_NOT_FOUND
    assert "pink duck" in finished.message
    assert world.executed == []


@dataclass
class Slippery(Changed):
    """The first grasp slips, and nobody notices."""

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        if not self.executed:
            self.executed.append(action)
            return ExecutionResult(ExecutionCode.OK, "")
        return super().execute(action, should_stop)


def test_a_slip_that_nobody_reports_is_seen(cell: SimWorkcell) -> None:
    world = Slippery(cell)
    finished = last(run_on(cell, BLOCKS, "put the yellow block left of the green can", 1003, world))
    assert finished.success, finished
    first, second = world.executed
    turn = abs((first.pick_yaw - second.pick_yaw + np.pi / 2) % np.pi - np.pi / 2)
    assert np.linalg.norm(first.pick_position - second.pick_position) > 0.008 or turn > 0.2  # another grasp


@pytest.mark.parametrize(
    "values", [{"attempts": 0}, {"attempts": 21}, {"most_actions": 0}, {"holds": 0.0}, {"holds": 1.0}, {"least_judges": 0}]
)
def test_configuration_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PolicyConfig(**values)  # type: ignore[arg-type]
