"""Where the time of a planning step goes: from an observation to the action agreed upon, by part, for several configurations in turn.

The step is that of the policy; taking the pictures and moving the arm are not in it. Wall time is what counts, and what another process on
the machine spoils: the processor time of this process (all of its threads) stands beside it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pcm_ros.benchmarks.manipulation import VIEW_ORDER
from pcm_ros.evidence import Document, Estimate, mean, quantile, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import (
    ManipulationConfig,
    build_consensus,
    build_generator,
    build_grounder,
    build_perception,
    build_relation_scorer,
    build_vision,
    clip_expert,
)
from pcm_ros.tasks.manipulation.context import Context
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy, Perceive, RelationJudge
from pcm_ros.tasks.manipulation.policy_events import Chosen, Finished, Planning
from pcm_ros.tasks.manipulation.relation_scorer import Assessment
from pcm_ros.tasks.manipulation.scene import Scene
from pcm_ros.tasks.manipulation.workcell import ExecutionResult, Observation, PickPlace, WorkcellLimits

# "all": everything but pictures of the future; "pictures": those too; "cheap": masks and geometry, and of the models only the one that
# perception needs anyway.
CONFIGURATIONS = {
    "all": ManipulationConfig(),
    "pictures": ManipulationConfig(last_stage=("twin", "appearance")),
    "cheap": ManipulationConfig(grounders=("segmenter",), naming=False, last_stage=(), proposals=128, iterations=3),
}
PARTS = ("perceive", "ground", "propose", "score", "update", "other")


@dataclass
class _Clock:
    """When each part was at work; several threads may be at one part at a time."""

    spans: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def timed(self, part: str, do: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return do()
        finally:
            self.spans[part].append((start, time.perf_counter()))

    def spent(self) -> dict[str, float]:
        """Wall seconds in which a part was at work, by part."""
        found = dict.fromkeys(self.spans, 0.0)
        for part, spans in self.spans.items():
            reached = 0.0
            for start, end in sorted(spans):
                found[part] += max(0.0, end - max(start, reached))
                reached = max(reached, end)
        return found


@dataclass(frozen=True)
class _TimedPerception:
    inner: Perceive
    clock: _Clock

    def perceive(self, observation: Observation) -> Scene:
        scene: Scene = self.clock.timed("perceive", lambda: self.inner.perceive(observation))
        return scene


class _TimedJudge:
    def __init__(self, inner: RelationJudge, clock: _Clock) -> None:
        self.name, self._inner, self._clock = inner.name, inner, clock

    def assess(self, context: Context) -> Assessment:
        assessment: Assessment = self._clock.timed("ground", lambda: self._inner.assess(context))
        return assessment


class _Photographed:
    """A workcell that has been looked at already, and does not move."""

    def __init__(self, limits: WorkcellLimits, observation: Observation) -> None:
        self.limits, self._observation = limits, observation

    def observe(self) -> Observation:
        return self._observation

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        raise RuntimeError("this bench plans and does not act")


class _Prepared:
    def __init__(self, config: Mapping[str, Any]) -> None:
        self.workcell = SimWorkcell(config["suite"])
        self.views = VIEW_ORDER[: config["views"]]
        self.names = tuple(config["configurations"])
        self.workcell.reset(0)
        for name in self.names:  # loads the models
            plan(self.workcell, "put the red block to the left of the blue block", self._observed(), CONFIGURATIONS[name], self.views, 0)

    def _observed(self) -> Observation:
        seen = self.workcell.observe()
        return replace(seen, views=tuple(view for view in seen.views if view.name in self.views))


def plan(
    cell: SimWorkcell, instruction: str, observation: Observation, settings: ManipulationConfig, views: Sequence[str], seed: int
) -> dict[str, Any]:
    """One step with parts that are new: nothing is known of the pictures. Seconds by part; "chosen" tells whether there was an action."""
    clip_expert.cache_clear()
    vision = build_vision()
    grounder = build_grounder(settings.grounders, vision)
    scorers = [build_relation_scorer(view, settings, vision, grounder) for view in views]
    consensus = build_consensus(settings, build_generator(settings), scorers)
    clock = _Clock()
    policy = ManipulationPolicy(
        # Views of their own: what was worked out for them once must not be found again.
        _Photographed(cell.limits, replace(observation, views=tuple(replace(view) for view in observation.views))),
        _TimedPerception(build_perception(cell.limits, settings, vision, grounder), clock),
        consensus,
        [_TimedJudge(scorer, clock) for scorer in scorers],
        settings.policy,
    )
    by_scorer: dict[str, float] = defaultdict(float)
    engine = dict.fromkeys(("propose", "score", "update"), 0.0)
    iterations, chosen = 0, False
    wall, processor = time.perf_counter(), time.process_time()
    for event in policy.run(instruction, seed):
        if isinstance(event, Planning):
            iterations += 1
            for part in engine:
                engine[part] += event.iteration.seconds[part]
            for name, seconds in event.iteration.table.seconds.items():
                by_scorer[name.partition(":")[0]] += seconds
        chosen = isinstance(event, Chosen)
        if isinstance(event, (Chosen, Finished)):
            break
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    consensus.ensemble.close()
    parts = clock.spent() | engine
    parts["other"] = wall - sum(parts.values())
    return {
        "wall": wall,
        "processor": processor,
        "chosen": chosen,
        "iterations": iterations,
        "parts": parts,
        "scorers": dict(by_scorer),
    }


def run_one(item: int, prepared: _Prepared) -> dict[str, Any]:
    """One scene, planned on with each configuration; the order changes from scene to scene."""
    episode = prepared.workcell.reset(item)
    observation = prepared._observed()
    turn = item % len(prepared.names)
    record: dict[str, Any] = {"instruction": episode.instruction, "objects": len(episode.placements)}
    for name in (*prepared.names[turn:], *prepared.names[:turn]):
        found = plan(prepared.workcell, episode.instruction, observation, CONFIGURATIONS[name], prepared.views, item)
        for key in ("wall", "processor", "chosen", "iterations"):
            record[f"{name}.{key}"] = found[key]
        record |= {f"{name}.part.{part}": seconds for part, seconds in found["parts"].items()}
        record |= {f"{name}.scorer.{scorer}": seconds for scorer, seconds in found["scorers"].items()}
    return record


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """Seconds of a step that ended with an action; shares of its wall time by part; thread-seconds of each kind of scorer in a step."""
    results: dict[str, Estimate] = {}
    good = [record for record in records if "error" not in record]
    for name in CONFIGURATIONS:
        steps = [record for record in good if record.get(f"{name}.chosen")]
        if not steps:
            continue
        for kind, shown in (("wall", "plan_seconds"), ("processor", "processor_seconds")):
            values = [float(record[f"{name}.{kind}"]) for record in steps]
            results[f"{name}.{shown}.median"] = quantile(values, 0.5)
            results[f"{name}.{shown}.p95"] = quantile(values, 0.95)
        results[f"{name}.iterations"] = mean([float(record[f"{name}.iterations"]) for record in steps])
        for part in PARTS:
            results[f"{name}.share.{part}"] = mean(
                [float(record.get(f"{name}.part.{part}", 0.0)) / float(record[f"{name}.wall"]) for record in steps]
            )
        prefix = f"{name}.scorer."
        for key in sorted({key for record in steps for key in record if key.startswith(prefix)}):
            results[f"{name}.scorer_seconds.{key.removeprefix(prefix)}"] = mean([float(record.get(key, 0.0)) for record in steps])
    return results


def bench(
    json_path: Path,
    *,
    suite: str = "relations-1",
    scenes: int = 20,
    views: int = 5,
    seed: int = 4000,
    configurations: Sequence[str] = tuple(CONFIGURATIONS),
    fresh: bool = False,
) -> Document:
    """`scenes` scenes of a suite, each planned on with each configuration.

    Raises:
        ValueError: an argument out of its range.
    """
    if not 1 <= views <= len(VIEW_ORDER):
        raise ValueError(f"views is {views}; allowed: 1..{len(VIEW_ORDER)} ({', '.join(VIEW_ORDER)} in this order)")
    if not configurations or not set(configurations) <= set(CONFIGURATIONS):
        raise ValueError(f"configurations are {list(configurations)}; allowed: {', '.join(CONFIGURATIONS)}, at least one")
    config = {"suite": suite, "seed": seed, "views": views, "configurations": list(configurations)}
    items = {f"{suite}-{number}": number for number in range(seed, seed + scenes)}
    return run_bench("planning", config, items, run_one, summarise, json_path, prepare=_Prepared, fresh=fresh)
