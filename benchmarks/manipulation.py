"""Simulated benchmark episodes: success from pixels alone, judged by physics truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcm_ros.benchmarks.failures import CLASSES, Witness, classify
from pcm_ros.consensus import Iteration
from pcm_ros.evidence import Document, Estimate, quantile, rate, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.sim.disturbance import DisturbedWorkcell
from pcm_ros.sim.episodes import Episode
from pcm_ros.sim.judge import Verdict
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import (
    ManipulationConfig,
    build_goal_picture_reader,
    build_policy,
    build_vision,
    embedded_segmenter,
)
from pcm_ros.tasks.manipulation.goal import Goal
from pcm_ros.tasks.manipulation.goal_picture import GoalPictureError
from pcm_ros.tasks.manipulation.policy_events import Chosen, Event, Executed, Finished, Observed, Outcome, Planning
from pcm_ros.tasks.manipulation.recording import EpisodeRecorder
from pcm_ros.tasks.manipulation.vision import Segmenter
from pcm_ros.tasks.manipulation.workcell import ExecutionResult, Observation, PickPlace, Workcell, WorkcellLimits

# The order in which views are given up when there shall be fewer.
VIEW_ORDER = ("front", "left", "right", "back", "top")


class FewerViews:
    """A workcell that delivers some of another's views only, in the order of `names`: sums over views depend on it in their last bits."""

    def __init__(self, workcell: Workcell, names: Sequence[str]) -> None:
        self._workcell, self._names = workcell, tuple(names)

    @property
    def limits(self) -> WorkcellLimits:
        return self._workcell.limits

    def observe(self) -> Observation:
        observation = self._workcell.observe()
        views = {view.name: view for view in observation.views}
        return replace(observation, views=tuple(views[name] for name in self._names if name in views))

    def execute(self, action: PickPlace, should_stop: Callable[[], bool] = lambda: False) -> ExecutionResult:
        return self._workcell.execute(action, should_stop)


def chosen_views(views: int | Sequence[str]) -> tuple[str, ...]:
    """The names of the first `views` of VIEW_ORDER, or of the given ones, in that order. ValueError: an argument out of its range."""
    if isinstance(views, int):
        if not 1 <= views <= len(VIEW_ORDER):
            raise ValueError(f"views is {views}; allowed: 1..{len(VIEW_ORDER)} ({', '.join(VIEW_ORDER)} in this order)")
        return VIEW_ORDER[:views]
    if not views or set(views) - set(VIEW_ORDER):
        raise ValueError(f"cameras are '{', '.join(views)}'; allowed: one or more of {', '.join(VIEW_ORDER)}")
    return tuple(name for name in VIEW_ORDER if name in views)


class Prepared:
    """What episodes are run with: the simulator and the policy on it.

    Args:
        views: names of the cameras. settings: of the policy. segmenter: another one than the embedded one. clips: folder of the videos.
    """

    def __init__(
        self,
        workcell: SimWorkcell,
        views: Sequence[str],
        settings: ManipulationConfig,
        segmenter: Segmenter | None = None,
        clips: Path | None = None,
    ) -> None:
        self.workcell, self.clips = workcell, clips
        self.disturbed = DisturbedWorkcell(workcell)
        self.policy = build_policy(FewerViews(self.disturbed, views), views, settings, segmenter)
        self.pictures = build_goal_picture_reader(workcell.limits, settings, build_vision(segmenter))


def _prepare(config: Mapping[str, Any]) -> Prepared:
    segmenter = None
    if config["segmenter"] == "noise":
        from pcm_ros.benchmarks.segmenter_noise import NoiseSegmenter

        segmenter = NoiseSegmenter(embedded_segmenter())
    settings = ManipulationConfig(
        grounders=tuple(config["grounders"]),
        proposals=config["candidates"],
        iterations=config["iterations"],
        aggregate=config["aggregate"],
        normalise=config["normalise"],
    )
    clips = Path(config["clips"]) if config["clips"] else None
    return Prepared(SimWorkcell(config["suite"]), chosen_views(config["views"]), settings, segmenter, clips)


def run_episode(item: int, prepared: Prepared) -> dict[str, Any]:
    """One episode of the given seed; the record of it.

    `first_...` is of the first planning step: how many iterations it took, and the total energy of the proposal that came out of it (null
    in the JSON if it was not feasible). Scene and context are then the same whatever the optimiser is.
    """
    episode = prepared.workcell.reset(item)
    witness = Witness(prepared.workcell)
    recorder = EpisodeRecorder(prepared.clips / f"{item}.mp4", episode.instruction) if prepared.clips else None
    plan_seconds: list[float] = []
    perceived: list[int] = []
    actions: list[list[float]] = []
    iterations = 0
    first: Iteration | None = None  # the last one of the first planning step
    finished: Finished | None = None
    started, begun = time.perf_counter(), time.perf_counter()
    for event in _run(prepared, episode, item):
        paused = time.perf_counter()
        witness.see(event)
        if recorder is not None:
            recorder.record(event)
        started += time.perf_counter() - paused
        if isinstance(event, Observed):
            perceived.append(len(event.scene.objects))
        elif isinstance(event, Planning):
            iterations += 1
            first = event.iteration if first is None or not first.stopped else first
        elif isinstance(event, Chosen):
            plan_seconds.append(time.perf_counter() - started)
            action = event.action
            actions.append([*action.pick_position, action.pick_yaw, action.pick_width, *action.place_position, action.place_yaw])
        elif isinstance(event, Executed):
            started = time.perf_counter()
        elif isinstance(event, Finished):
            finished = event
    if recorder is not None:
        recorder.close()
    assert finished is not None
    happened = prepared.disturbed.happened
    truth = verdict = prepared.workcell.judge_all()
    if episode.refusal:
        verdict = refused_or_done(episode.refusal, finished, witness.displaced(), truth)
    failure = "" if verdict else classify(episode, witness.course(prepared.disturbed.disturbed), prepared.workcell.limits)
    return {
        "instruction": episode.instruction,
        "success": bool(verdict),
        "reason": verdict.reason,
        "failure": failure,
        "outcome": finished.outcome.name,
        "message": finished.message,
        "actions": actions,
        "action_count": finished.actions,
        "iterations": iterations,
        "first_iterations": first.index + 1 if first else 0,
        "first_energy": first.leader_energy if first else None,
        "first_feasible": first is not None and math.isfinite(first.leader_energy),
        "objects": len(episode.placements),
        "perceived": perceived,
        "degraded": list(finished.degraded),
        "plan_seconds": plan_seconds,
        "wall_seconds": time.perf_counter() - begun,
        **({"disturbance": happened, "disturbance_happened": bool(happened)} if episode.disturbance else {}),
        **({"refusal": episode.refusal, "accomplished": accomplished(finished, truth)} if episode.refusal else {}),
        **{f"note_{name}": value for name, value in episode.notes.items()},
        **({"clip": str(recorder.path.resolve())} if recorder is not None else {}),
    }


def _run(prepared: Prepared, episode: Episode, seed: int) -> Iterator[Event]:
    """The policy's events; a picture from which no goal can be read ends the run as a sentence would that is not understood."""
    picture = prepared.workcell.picture
    goal: str | Goal = episode.instruction
    if picture is not None:
        try:
            goal = prepared.pictures.read(picture, episode.pictured, prepared.workcell.observe())
        except GoalPictureError as error:
            yield Finished(Outcome.INVALID_INSTRUCTION, str(error), 0, ())
            return
    yield from prepared.policy.run(goal, seed=seed)


def refused_or_done(refusal: str, finished: Finished, displaced: int, truth: Verdict) -> Verdict:
    """Whether a run ended as it should where what is asked should not be possible.

    Right is the refusal with the right reason, no more than one object having been touched; or the deed itself, when the robot says that
    it is done and physics truth says so too: who balances a can on a duck's head and sees it stand there has not answered wrongly.

    Args:
        refusal: name of the right Outcome. displaced: number of objects that are not where they were.
        truth: whether all relations of the episode hold in the end.
    """
    if accomplished(finished, truth):
        return Verdict(True)
    if finished.outcome.name != refusal:
        untrue = f" ({truth.reason})" if finished.success else ""
        return Verdict(False, f"the right answer is {refusal}, not {finished.outcome.name}{untrue}")
    if finished.actions > 1 or displaced > finished.actions:
        return Verdict(False, f"refused, but only after {finished.actions} actions; {displaced} objects are not where they were")
    return Verdict(True)


def accomplished(finished: Finished, truth: Verdict) -> bool:
    """Whether the robot says that it is done, and physics truth says so too."""
    return finished.success and bool(truth)


_SPLIT = ("refusal_reason", "disturbance", "relations")  # notes of few values, each of which gets its own result
_MOST_VALUES = 10


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """success, also by the notes of the episodes; what the robot itself said; why episodes failed; planning seconds per step.

    `failures.NAME` are counts, without an interval; perception is included in the planning seconds. `accomplished`: share of the episodes
    to be refused in which the robot did what is asked all the same.
    """
    results = {"success": rate([bool(record.get("success", False)) for record in records])}
    good = [record for record in records if "error" not in record]
    if good:
        # an episode that raised is none of either
        results["claimed_success"] = rate([record.get("outcome") == "SUCCESS" for record in records])
        # success that the robot saw too: an episode may end well by truth while the robot gives up
        results["success_and_known"] = rate([bool(r.get("success")) and (r.get("outcome") == "SUCCESS" or "refusal" in r) for r in records])
        results |= _by_note(good)
        if refusable := [record for record in good if "accomplished" in record]:
            results["accomplished"] = rate([bool(record["accomplished"]) for record in refusable])
        if any("disturbance_happened" in record for record in good):
            results["disturbance_happened"] = rate([bool(record.get("disturbance_happened")) for record in good])
            results["success.disturbance_happened"] = rate([bool(r["success"]) for r in good if r.get("disturbance_happened")])
        failed = [record.get("failure", "") for record in good if not record["success"]]
        for name in CLASSES:
            if name in failed:
                results[f"failures.{name}"] = Estimate(failed.count(name), math.nan, math.nan, len(records))
        seconds = [second for record in good for second in record["plan_seconds"]]
        if seconds:
            results["plan_seconds.median"] = quantile(seconds, 0.5)
            results["plan_seconds.p95"] = quantile(seconds, 0.95)
    return results


def _by_note(records: Sequence[Record]) -> dict[str, Estimate]:
    """Success of the episodes for which a note is true, and for each value of a note of _SPLIT."""
    results = {}
    notes = dict.fromkeys(name.removeprefix("note_") for record in records for name in record if name.startswith("note_"))
    for note in notes:
        values = [record.get(f"note_{note}") for record in records]
        texts = sorted({value for value in values if isinstance(value, str)})
        if note in _SPLIT and len(texts) <= _MOST_VALUES:
            for text in texts:
                marked = [bool(record["success"]) for record, value in zip(records, values, strict=True) if value == text]
                results[f"success.{note}.{text.replace(' ', '_')}"] = rate(marked)
        elif any(value is True for value in values):
            results[f"success.{note}"] = rate(
                [bool(record["success"]) for record, value in zip(records, values, strict=True) if value is True]
            )
    return results


def headline(records: Sequence[Record]) -> str:
    return f"{sum(bool(record.get('success')) for record in records)} of {len(records)} succeeded"


def bench(
    suite: str,
    episodes: int,
    seed: int,
    json_path: Path,
    *,
    views: int | Sequence[str] = 5,
    grounders: Sequence[str] = ManipulationConfig.grounders,
    segmenter: str = "embedded",
    candidates: int = ManipulationConfig.proposals,
    iterations: int = ManipulationConfig.iterations,
    aggregate: str = ManipulationConfig.aggregate,
    normalise: str = ManipulationConfig.normalise,
    clips: Path | None = None,
    jobs: int = 1,
    ray_address: str | None = None,
    fresh: bool = False,
) -> Document:
    """Run `episodes` episodes of a suite with the seeds seed, seed + 1, ...

    An episode succeeds if all its relations hold in the end; one with a `refusal` as `refused_or_done` says.

    Args:
        views: how many of VIEW_ORDER, or the names of some of them.

    Raises:
        ValueError: an argument out of its range; the message names it.
    """
    names = chosen_views(views)
    if segmenter not in ("embedded", "noise"):
        raise ValueError(f"segmenter is '{segmenter}'; allowed: embedded, noise")
    config = {
        "suite": suite,
        "seed": seed,
        "views": len(names) if names == VIEW_ORDER[: len(names)] else list(names),
        "grounders": list(grounders),
        "segmenter": segmenter,
        "candidates": candidates,
        "iterations": iterations,
        "aggregate": aggregate,
        "normalise": normalise,
        "clips": str(clips) if clips else "",
    }
    items = {f"{suite}-{number}": number for number in range(seed, seed + episodes)}
    return run_bench(
        "manipulation",
        config,
        items,
        run_episode,
        summarise,
        json_path,
        prepare=_prepare,
        jobs=jobs,
        ray_address=ray_address,
        headline=headline,
        fresh=fresh,
    )
