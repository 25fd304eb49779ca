"""The manipulation bench end to end on an episode, with the embedded segmenter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pcm_ros.benchmarks.commands import app
from pcm_ros.benchmarks.manipulation import VIEW_ORDER, FewerViews, bench, chosen_views, refused_or_done, summarise
from pcm_ros.sim.benchmark_tasks import ImpossibleTask, get_task, task_names
from pcm_ros.sim.feasibility import find
from pcm_ros.sim.judge import Judge, Verdict
from pcm_ros.sim.workcell import SimWorkcell
from pcm_ros.sim.world import World, WorldConfig, cameras
from pcm_ros.tasks.manipulation.policy_events import Finished, Outcome

QUICK = ["--scorers", "segmenter", "--candidates", "48", "--iterations", "2", "--views", "2"]


def run(path: Path, *arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["manipulation", "--suite", "relations-1", "--json", str(path), *QUICK, *arguments])
    assert result.exit_code == 0, result.output
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "result.json"
    run(path, "--episodes", "1", "--seed", "1000")
    return path


def test_the_json(written: Path) -> None:
    data = json.loads(written.read_text())
    assert {"command", "config", "versions", "machine", "seconds", "results", "records"} <= set(data)
    assert data["config"]["suite"] == "relations-1"
    assert data["config"]["views"] == 2
    assert not [record["error"] for record in data["records"] if "error" in record]
    assert {"success", "claimed_success", "errors"} <= set(data["results"])
    assert data["results"]["errors"]["value"] == 0
    for estimate in data["results"].values():
        assert set(estimate) == {"value", "low", "high", "n", "share"}
    (record,) = data["records"]
    assert record["id"] == "relations-1-1000"
    assert isinstance(record["success"], bool)
    assert record["instruction"]
    assert record["action_count"] == len(record["actions"])
    assert len(record["plan_seconds"]) >= len(record["actions"])
    assert record["first_iterations"] <= 2 and record["first_feasible"] == (record["first_energy"] is not None)
    assert all(len(action) == 9 for action in record["actions"])
    assert {"note_same_color", "note_same_kind", "outcome", "message", "perceived", "objects", "degraded"} <= set(record)


def test_the_report_lies_beside_it(written: Path) -> None:
    page = written.with_suffix(".html").read_text()
    assert "<html" in page
    assert "relations-1" in page
    assert not list(written.parent.glob("*.journal"))


def test_the_same_seed_gives_the_same_episode(written: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again.json", "--episodes", "1", "--seed", "1000")
    timing = {"seconds", "plan_seconds", "wall_seconds"}
    first = json.loads(written.read_text())["records"][0]
    second = again["records"][0]  # type: ignore[index]
    assert {k: v for k, v in first.items() if k not in timing} == {k: v for k, v in second.items() if k not in timing}


def test_an_unfinished_run_goes_on(written: Path, tmp_path: Path) -> None:
    """A run that was killed after its first episode: the record in the journal is kept, not run again."""
    path = tmp_path / "result.json"
    data = json.loads(written.read_text())
    config = {**data["config"]}
    kept = {**data["records"][0], "instruction": "from the journal"}
    from pcm_ros.evidence.journal import Entry, Journal

    with Journal(path.with_name("result.json.journal"), "manipulation", config, False) as journal:
        journal.append(Entry(kept, "earlier", 1.0, "commit"))
    resumed = run(path, "--episodes", "2", "--seed", "1000")
    records = resumed["records"]
    assert [record["id"] for record in records] == ["relations-1-1000", "relations-1-1001"]  # type: ignore[attr-defined]
    assert records[0]["instruction"] == "from the journal"  # type: ignore[index]
    assert resumed["machine"]["sessions"] == 2  # type: ignore[index]


def test_noise_in_the_place_of_the_segmenter(tmp_path: Path) -> None:
    data = run(tmp_path / "noise.json", "--episodes", "1", "--seed", "1000", "--segmenter", "noise")
    assert data["config"]["segmenter"] == "noise"  # type: ignore[index]
    assert data["results"]["errors"]["value"] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--views", "6"], "views"),
        (["--cameras", "front,side"], "front, left, right, back, top"),
        (["--cameras", "front", "--views", "1"], "exclude each other"),
        (["--segmenter", "guess"], "allowed: embedded, noise"),
        (["--suite", "relations-99"], "relations-99"),
        (["--scorers", "clip-of-dreams"], "clip-of-dreams"),
        (["--episodes", "0"], "episodes"),
        (["--aggregate", "mode", "--scorers", "segmenter"], "aggregate"),
    ],
)
def test_arguments_out_of_range(arguments: list[str], word: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["manipulation", "--episodes", "1", "--json", str(tmp_path / "x.json"), *arguments])
    assert result.exit_code == 2
    assert word in result.output
    assert not (tmp_path / "x.json").exists()


def test_the_python_function_checks_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="views is 0; allowed: 1"):
        bench("relations-1", 1, 0, tmp_path / "x.json", views=0)


def test_fewer_views() -> None:
    cell = SimWorkcell("relations-1", WorldConfig(cameras=cameras(5, 64, 48)), seed=1)
    for count in (1, 3, 5):
        names = [view.name for view in FewerViews(cell, VIEW_ORDER[:count]).observe().views]
        assert sorted(names) == sorted(VIEW_ORDER[:count])
    cell.close()


def test_cameras_by_name(tmp_path: Path) -> None:
    """In the order of VIEW_ORDER whatever the order in which they are named; a run can be compared with one of --views."""
    path = tmp_path / "top.json"
    arguments = ["--suite", "impossible", "--episodes", "1", "--seed", "0", "--scorers", "segmenter", "--candidates", "8"]
    result = CliRunner().invoke(app, ["manipulation", *arguments, "--cameras", "top, left", "--json", str(path)])
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["config"]["views"] == ["left", "top"]
    assert chosen_views(("right", "front", "left")) == chosen_views(3) == ("front", "left", "right")


def test_an_episode_that_raised_counts_as_failed() -> None:
    good = {"success": True, "outcome": "SUCCESS", "plan_seconds": [1.0, 3.0], "note_same_color": True, "note_same_kind": False}
    results = summarise([good, {"error": "it fell over"}])
    assert results["success"].value == 0.5
    assert results["claimed_success"].value == 0.5
    assert results["plan_seconds.median"].value == 2
    assert results["success.same_color"].n == 1


def test_help_lists_the_registered_suites() -> None:
    for _ in range(2):
        output = CliRunner().invoke(app, ["manipulation", "--help"], env={"COLUMNS": "200"}).output
        assert all(output.count(name) >= 1 for name in task_names())


UNTRUE = Verdict(False, "not true: red can on blue duck")


def ended(outcome: Outcome, actions: int) -> Finished:
    return Finished(outcome, "", actions, ())


def test_a_refusal_is_right_by_its_reason_and_by_what_was_left_alone() -> None:
    assert refused_or_done("IMPOSSIBLE", ended(Outcome.IMPOSSIBLE, 0), 0, UNTRUE)
    assert refused_or_done("IMPOSSIBLE", ended(Outcome.IMPOSSIBLE, 1), 1, UNTRUE)
    claimed = refused_or_done("IMPOSSIBLE", ended(Outcome.SUCCESS, 0), 0, UNTRUE)
    assert not claimed and "not SUCCESS (not true: red can on blue duck)" in claimed.reason
    assert not refused_or_done("OBJECT_NOT_FOUND", ended(Outcome.IMPOSSIBLE, 0), 0, UNTRUE)
    assert not refused_or_done("IMPOSSIBLE", ended(Outcome.IMPOSSIBLE, 2), 1, UNTRUE)
    assert not refused_or_done("IMPOSSIBLE", ended(Outcome.IMPOSSIBLE, 1), 2, UNTRUE)


def test_what_was_done_though_it_should_be_impossible_is_right_if_the_robot_knows_it() -> None:
    assert refused_or_done("IMPOSSIBLE", ended(Outcome.SUCCESS, 3), 2, Verdict(True))
    assert not refused_or_done("IMPOSSIBLE", ended(Outcome.NOT_REACHED, 3), 2, Verdict(True)), "it stands there, but the robot gave up"
    assert not refused_or_done("IMPOSSIBLE", ended(Outcome.IMPOSSIBLE, 2), 1, Verdict(True)), "it stands there, and the robot denies it"


def test_physics_says_whether_a_thing_stands_where_nothing_should() -> None:
    """An episode of the suite, and the same with the block balanced on the bottle by hand."""
    task = ImpossibleTask(reasons=("nothing_stands_on_it",))
    for seed in range(999):
        episode = task.sample(np.random.default_rng([seed, 0]))
        (relation,) = episode.relations
        upper, lower = (find(episode.placements, phrase) for phrase in relation.phrases)
        if (episode.placements[upper].spec.kind, episode.placements[lower].spec.kind) == ("block", "bottle"):
            break
    world = World(WorldConfig(cameras=cameras(1, 64, 48), vary_appearance=False))
    success = ended(Outcome.SUCCESS, 1)
    world.reset(episode.placements, seed)
    assert not refused_or_done(episode.refusal, success, 1, Judge(world).relation(relation))
    host = episode.placements[lower]
    balanced = list(episode.placements)
    balanced[upper] = replace(balanced[upper], xy=host.xy, above=host.spec.height + 0.001)
    world.reset(tuple(balanced), seed)
    truth = Judge(world).relation(relation)
    assert refused_or_done(episode.refusal, success, 1, truth), truth.reason
    world.close()


def test_a_refused_episode_is_recorded_by_its_reason(tmp_path: Path) -> None:
    """A sentence that means nothing: refused at once, by the real policy; success, and a result for its reason."""
    seed = next(
        seed
        for seed in range(50)
        if get_task("impossible").sample(np.random.default_rng([seed, 0])).notes["refusal_reason"] == "no_meaning"
    )
    path = tmp_path / "impossible.json"
    result = CliRunner().invoke(
        app, ["manipulation", "--suite", "impossible", "--episodes", "1", "--seed", str(seed), "--json", str(path), *QUICK]
    )
    assert result.exit_code == 0, result.output
    data = json.loads(path.read_text())
    (record,) = data["records"]
    assert (record["outcome"], record["refusal"], record["success"], record["failure"]) == ("INVALID_INSTRUCTION",) * 2 + (True, "")
    assert data["results"]["success.refusal_reason.no_meaning"]["value"] == 1
    assert (record["accomplished"], data["results"]["accomplished"]["value"]) == (False, 0), "a sentence without relations has no truth"


def test_results_by_note_and_failures_are_counted() -> None:
    base = {"outcome": "SUCCESS", "plan_seconds": [1.0]}
    records = [
        {**base, "success": True, "failure": "", "note_held_out_words": True, "note_relations": "on", "disturbance_happened": True},
        {**base, "success": False, "failure": "judge", "note_held_out_words": True, "note_relations": "in", "disturbance_happened": True},
        {**base, "success": False, "failure": "judge", "note_held_out_words": False, "note_relations": "on", "disturbance_happened": False},
    ]
    gave_up = {**base, "success": True, "failure": "", "outcome": "OBJECT_NOT_FOUND"}
    assert summarise([*records, gave_up])["success"].value == 0.5
    assert summarise([*records, gave_up])["success_and_known"].value == 0.25
    assert summarise([{**gave_up, "refusal": "OBJECT_NOT_FOUND"}])["success_and_known"].value == 1
    raised = summarise([gave_up, records[0], {"error": "KeyError"}])
    assert (raised["success"].value, raised["claimed_success"].value, raised["success_and_known"].value) == tuple(
        pytest.approx(share) for share in (2 / 3, 1 / 3, 1 / 3)
    )
    results = summarise(records)
    assert results["success.held_out_words"].n == 2
    assert results["success.relations.on"].value == 0.5
    assert results["failures.judge"].value == 2
    assert not [name for name in results if name.startswith("failures.") and name != "failures.judge"]
    assert results["disturbance_happened"].value == pytest.approx(2 / 3)
    assert results["success.disturbance_happened"].value == 0.5


def test_a_disturbed_episode_says_what_happened(tmp_path: Path) -> None:
    data = run(tmp_path / "disturbed.json", "--suite", "disturbed", "--episodes", "1", "--seed", "100")
    (record,) = data["records"]  # type: ignore[misc]
    assert "error" not in record
    assert record["disturbance_happened"] == bool(record["disturbance"])
    assert record["note_disturbance"] in ("slip", "placed moved", "reference moved", "next moved")
    assert "disturbance_happened" in data["results"]  # type: ignore[operator]
