"""The ROS system over many episodes without a restart, and what its processes cost against one process.

Planning seconds of a step run from the instruction (or the end of the last motion) until an action is agreed upon, as the client of
the action sees it: sending the goal, waiting for images, perception, consensus, feedback. Rendering is in neither figure: the simulator's
node renders before a motion counts as ended, and the one process is timed without it.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from pcm_ros import bringup, msg
from pcm_ros.benchmarks.manipulation import FewerViews
from pcm_ros.client import ManipulationClient, NotAvailable
from pcm_ros.configuration import manipulation_config_of
from pcm_ros.evidence import Document, Estimate, Journal, mean, quantile, rate, ratio, run_bench
from pcm_ros.evidence.document import Record
from pcm_ros.nodes.conversions import numbers_of
from pcm_ros.nodes.views import SENT_AGAIN
from pcm_ros.processes import RunningSystem
from pcm_ros.sim.disturbance import DisturbedWorkcell
from pcm_ros.sim.impossible import ImpossibleTask
from pcm_ros.sim.picture_goal import PictureTask
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.tasks.manipulation.assembly import build_policy
from pcm_ros.tasks.manipulation.policy import ManipulationPolicy
from pcm_ros.tasks.manipulation.policy_events import Chosen, Executed
from pcm_ros.tasks.manipulation.workcell import Observation

WARM = 10  # episodes after which caches are full and memory should stand still
CLIENT = "client"  # the process of the bench itself
# What is said of somebody whose message did not come, as opposed to one that answered with an error.
LOST = re.compile(r"no answer|is gone|is not there|still busy|did not arrive|no new view|no usable view|is missing")
_PATIENCE = 600.0  # seconds for one episode


def own_domain() -> int:
    """A ROS domain that a system of the user is unlikely to use: 0, 1 and those of the ephemeral ports are left alone."""
    return 2 + os.getpid() % 98


@dataclass
class Feedback:
    """What the feedback of one goal said.

    Attributes:
        plan_seconds: of each step. degraded: who was left out or missing, and why. gaps: messages that were sent and did not come.
    """

    started: float
    plan_seconds: list[float] = field(default_factory=list)
    iterations: int = 0
    executed: int = 0
    gaps: int = 0
    degraded: dict[str, str] = field(default_factory=dict)
    _next_iteration: int = 0

    def receive(self, state: msg.ConsensusState) -> None:
        now = time.perf_counter()
        for who, why in zip(state.dropped, state.dropped_reasons, strict=True):
            self.degraded.setdefault(who, why)
        if state.phase == state.OBSERVED:
            for camera in re.findall(r"camera '([^']*)' is missing", state.message):
                self.degraded.setdefault(f"camera {camera}", "is missing")
        elif state.phase == state.PLANNING:
            self.gaps += max(0, state.iteration - self._next_iteration)
            self._next_iteration = state.iteration + 1
            self.iterations += 1
        elif state.phase == state.CHOSEN:
            self.gaps += self._next_iteration == 0  # an action without any iteration before it
            self._next_iteration = 0
            self.plan_seconds.append(now - self.started)
        elif state.phase == state.EXECUTED:
            self.gaps += len(self.plan_seconds) <= self.executed
            self.executed += 1
            self.started = now


class _TimedWorkcell(FewerViews):
    """Some views of a simulator, and the seconds that rendering them took."""

    rendering = 0.0

    def observe(self) -> Observation:
        start = time.perf_counter()
        try:
            return super().observe()
        finally:
            self.rendering += time.perf_counter() - start


class OneProcess:
    """The same policy with the same configuration on a simulator in this process."""

    def __init__(self, suite: str, views: Sequence[str], parameter_file: Path) -> None:
        self._simulator = SimWorkcell(suite)
        self._cell = _TimedWorkcell(DisturbedWorkcell(self._simulator), views)
        self._policy: ManipulationPolicy = build_policy(self._cell, views, manipulation_config_of(parameter_file))

    def episode(self, seed: int) -> dict[str, Any]:
        """Actions and planning seconds of an episode, rendering left out."""
        instruction = self._simulator.reset(seed).instruction
        actions, plan_seconds = [], []
        started, self._cell.rendering = time.perf_counter(), 0.0
        for event in self._policy.run(instruction, seed):
            if isinstance(event, Chosen):
                plan_seconds.append(time.perf_counter() - started - self._cell.rendering)
            elif isinstance(event, Executed):
                actions.append(numbers_of(event.action))
                started, self._cell.rendering = time.perf_counter(), 0.0
        return {"alone_actions": actions, "alone_plan_seconds": plan_seconds, "alone_success": bool(self._simulator.judge_all())}

    def close(self) -> None:
        self._simulator.close()


def memory_of(pids: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """Name -> resident memory, and that part of it that no file and no shared memory (libraries, images under way) backs; 1e6 bytes.

    Processes that are gone are left out.
    """
    found = {}
    for name, pid in pids.items():
        try:
            info = psutil.Process(pid).memory_info()
            found[name] = (info.rss / 1e6, (info.rss - getattr(info, "shared", 0)) / 1e6)
        except psutil.NoSuchProcess:
            continue
    return found


class LogCounter:
    """Counts the lines of the nodes' logs that say that a lost image was sent again."""

    def __init__(self) -> None:
        self.sent_again = 0

    def read(self, _: str, line: str) -> None:
        self.sent_again += SENT_AGAIN in line


class SystemUnderTest:
    """A running system and how to run one episode in it."""

    def __init__(
        self, running: RunningSystem, client: ManipulationClient, log: LogCounter, suite: str, alone: OneProcess | None, compare: set[int]
    ) -> None:
        self._running, self._client, self._log, self._suite = running, client, log, suite
        self._alone, self._compare = alone, compare

    def episode(self, seed: int, _: None = None) -> dict[str, Any]:
        """One episode of this seed: reset, manipulate, judge. What the system did not answer is in the record."""
        before = self._log.sent_again
        try:
            record = self._in_the_system(seed)
        except (NotAvailable, TimeoutError) as error:
            record = {"success": False, "outcome": type(error).__name__, "message": str(error), "lost": ["the system"]}
        record["images_sent_again"] = self._log.sent_again - before
        if self._alone is not None and seed in self._compare:
            record |= self._alone.episode(seed)
            ours, theirs = record.get("actions", []), record["alone_actions"]
            record["same"] = [ours[i : i + 1] == theirs[i : i + 1] for i in range(max(len(ours), len(theirs)))]
        pids = {name: node.process.pid for name, node in self._running.nodes.items() if node.process.poll() is None}
        record["alive"] = len(pids)
        record["ended"] = self._running.ended()
        memory = memory_of({**pids, CLIENT: os.getpid()})
        record["megabytes"] = {name: resident for name, (resident, _) in memory.items()}
        record["private_megabytes"] = {name: private for name, (_, private) in memory.items()}
        return record

    def _in_the_system(self, seed: int) -> dict[str, Any]:
        self._running.check()
        instruction = self._client.reset(seed, self._suite)
        begun = time.perf_counter()
        feedback = Feedback(begun)
        outcome = self._client.manipulate(instruction, seed, feedback.receive, timeout=_PATIENCE)
        wall = time.perf_counter() - begun
        actions = [numbers_of(action) for action in outcome.actions]
        return {
            "instruction": instruction,
            "success": self._client.judge(),
            "outcome": outcome.error,
            "message": outcome.message,
            "actions": actions,
            "action_count": len(actions),
            "iterations": feedback.iterations,
            "degraded": [f"{who}: {why}" for who, why in feedback.degraded.items()],
            "lost": sorted(who for who, why in feedback.degraded.items() if LOST.search(why)),
            "feedback_gaps": feedback.gaps + abs(len(actions) - feedback.executed),
            "plan_seconds": feedback.plan_seconds,
            "wall_seconds": wall,
            **({"clip": outcome.video} if outcome.video else {}),
        }


@contextmanager
def system_under_test(
    suite: str, seed: int, parameter_file: Path, compare: set[int], clips: Path | None, console: Console
) -> Iterator[SystemUnderTest]:
    """Start the system on a ROS domain of its own; it ends with the block. Raises BringupError, LaunchError."""
    words = [f"config:={parameter_file}", f"task:={suite}", f"scene:={seed}", f"output:={clips or ''}"]
    system = bringup.system("manipulation", words)
    cameras = next(node.parameters["cameras"] for node in system.nodes if node.name == "generator")
    assert isinstance(cameras, list)
    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    logs = Path(tempfile.mkdtemp(prefix="pcm-bench-ros-"))
    alone = OneProcess(suite, cameras, parameter_file) if compare else None
    log = LogCounter()
    try:
        with (
            RunningSystem(system, logs, log.read) as running,
            ManipulationClient(domain_id=own_domain()) as client,
        ):
            console.print(f"{len(running.nodes)} processes in ROS domain {own_domain()}; logs in {logs}", highlight=False)
            running.activate(client)
            yield SystemUnderTest(running, client, log, suite, alone, compare)
    finally:
        if alone is not None:
            alone.close()


def summarise(records: Sequence[Record]) -> dict[str, Estimate]:
    """success; overhead and same_plan against one process; memory; what was lost and what died."""
    good = [record for record in records if "error" not in record]
    results = {"success": rate([bool(record.get("success", False)) for record in records])}
    same = [equal for record in good for equal in record.get("same", ())]
    if same:
        results["same_plan"] = rate(same)
    # Steps whose plans differ are different work.
    pairs = [
        (ours, theirs)
        for record in good
        for equal, ours, theirs in zip(
            record.get("same", ()), record.get("plan_seconds", ()), record.get("alone_plan_seconds", ()), strict=False
        )
        if equal
    ]
    if pairs:
        results["overhead"] = ratio([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        results["alone_plan_seconds.median"] = quantile([theirs for _, theirs in pairs], 0.5)
    seconds = [second for record in good for second in record.get("plan_seconds", ())]
    if seconds:
        results["plan_seconds.median"] = quantile(seconds, 0.5)
        results["plan_seconds.p95"] = quantile(seconds, 0.95)
    results["lost_messages"] = rate(["error" in record or bool(record["lost"] or record.get("feedback_gaps")) for record in records])
    if good:
        results["images_sent_again"] = mean([record["images_sent_again"] for record in good])
        last = good[-1]
        results["died"] = Estimate(len(last["ended"]), float("nan"), float("nan"), last["alive"] + len(last["ended"]))
        results |= memory_results(good)
    return results


def memory_results(records: Sequence[Record]) -> dict[str, Estimate]:
    """Megabytes of each process: at episode WARM, at the last one, and megabytes per 100 episodes from WARM on (Theil 1950, Sen 1968)."""
    from scipy.stats import theilslopes

    results: dict[str, Estimate] = {}
    nan = float("nan")
    for name in records[-1]["megabytes"]:
        values = [record["megabytes"].get(name, nan) for record in records]
        if len(values) >= WARM:
            results[f"memory.{name}.at_{WARM}"] = Estimate(values[WARM - 1], nan, nan, 1)
        results[f"memory.{name}.last"] = Estimate(values[-1], nan, nan, 1)
        steady = values[WARM - 1 :]
        if len(steady) >= 5:
            slope, _, low, high = theilslopes(steady, range(len(steady)), 0.95)
            results[f"memory.{name}.slope"] = Estimate(100 * float(slope), 100 * float(low), 100 * float(high), len(steady))
    return results


def headline(records: Sequence[Record]) -> str:
    good = [record for record in records if "error" not in record]
    total = sum(good[-1]["megabytes"].values()) if good else 0.0
    return f"{sum(bool(record.get('success')) for record in records)} of {len(records)} succeeded, {total:.0f} MB"


def bench(
    episodes: int,
    seed: int,
    json_path: Path,
    *,
    suite: str = "relations-1",
    compare: int = 10,
    parameter_file: Path | None = None,
    clips: Path | None = None,
) -> Document:
    """Run `episodes` episodes with the seeds seed, seed + 1, ... in one running system.

    A system that was killed cannot go on where it was: an unfinished run is counted anew from its first episode.

    Args:
        compare: how many of the first episodes are run in one process too, each right after it was run in the system.
        parameter_file: of the system; None: config/manipulation.yaml of the package.
        clips: folder for a video of each episode, made by the consensus node.

    Raises:
        BringupError, LaunchError: the system does not start.
        ValueError: a suite whose goals are pictures, which this bench does not send, or cannot be reached, which it does not judge.
    """
    if suite in (PictureTask().name, ImpossibleTask().name):
        why = "whose goals cannot be reached" if suite == ImpossibleTask().name else "whose goals are pictures"
        raise ValueError(f"suite is '{suite}', {why}; this bench sends sentences that can be fulfilled: allowed are the other suites")
    parameter_file = parameter_file or bringup.folder("config") / "manipulation.yaml"
    config = {
        "suite": suite,
        "seed": seed,
        "compare": compare,
        "parameters": bringup.read_parameters(parameter_file),
        "clips": str(clips) if clips else "",
    }
    console = Console(stderr=True)
    _tell_of_unfinished(json_path, config, console.print)
    items = {f"{suite}-{number}": number for number in range(seed, seed + episodes)}
    compared = set(list(items.values())[:compare])
    with system_under_test(suite, seed, parameter_file, compared, clips, console) as subject:
        return run_bench("ros", config, items, subject.episode, summarise, json_path, headline=headline, fresh=True)


def _tell_of_unfinished(json_path: Path, config: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    path = json_path.with_name(json_path.name + ".journal")
    if not path.exists():
        return
    with Journal(path, "ros", config) as journal:
        if journal.entries:
            tell(f"{path}: an unfinished run of {len(journal.entries)} episodes; its system is gone, so the count starts anew")
