import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from counting_bench import bench, run_one, summarise, times_run

from pcm_ros.evidence import BenchError, Document, run_bench

PROGRAM = Path(__file__).with_name("counting_bench.py")


def test_the_json_holds_all_that_the_design_asks_for(tmp_path: Path) -> None:
    document = bench(tmp_path, 9, command="pcm bench counting")
    data = json.loads((tmp_path / "result.json").read_text())
    assert {"command", "config", "versions", "machine", "seconds", "results", "records"} <= set(data)
    assert data["command"] == "pcm bench counting"
    assert data["config"] == {"folder": str(tmp_path), "count": 9}
    assert data["results"]["success"]["value"] == pytest.approx(6 / 9)
    assert data["results"]["success"]["low"] == pytest.approx(0.3542, abs=1e-4)
    assert data["results"]["errors"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.2991, abs=1e-4), "n": 9, "share": True}
    assert [record["id"] for record in data["records"]] == [f"item-{n}" for n in range(9)]
    assert all(record["seconds"] >= 0 for record in data["records"])
    assert data["seconds"] > 0
    assert data["machine"]["cores"] == os.cpu_count()
    assert "commit" in data["versions"]
    assert Document.load(tmp_path / "result.json").results == document.results
    assert not list(tmp_path.glob("*.journal"))
    assert not list(tmp_path.glob(".result*"))


def kill_when(folder: Path, count: int, jobs: int) -> None:
    """Start the program, kill -9 it when `count` records are in the journal."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(folder), "24", str(jobs)], start_new_session=True)
    journal = folder / "result.json.journal"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") >= count:
            break
        time.sleep(0.005)
    assert process.poll() is None, "ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_resumed_nothing_is_lost_and_nothing_run_twice(tmp_path: Path, jobs: int) -> None:
    whole = tmp_path / "whole"
    killed = tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    kill_when(killed, 5, jobs)
    kept = (killed / "result.json.journal").read_bytes()
    finished = [json.loads(line)["record"]["id"] for line in kept.splitlines(keepends=True) if line.endswith(b"\n")]
    assert len(finished) >= 5
    assert not (killed / "result.json").exists()
    subprocess.run([sys.executable, str(PROGRAM), str(killed), "24", str(jobs)], check=True, timeout=120)
    resumed = Document.load(killed / "result.json")
    times = times_run(killed)
    assert set(times) == set(range(24))
    assert all(times[int(identity.split("-")[1])] == 1 for identity in finished)
    assert sum(times.values()) <= 24 + jobs  # only what was under way when it was killed
    assert resumed.machine["sessions"] == 2
    fresh = bench(whole, 24)
    without_seconds = [[{k: v for k, v in r.items() if k != "seconds"} for r in d.records] for d in (resumed, fresh)]
    assert without_seconds[0] == without_seconds[1]
    assert resumed.results == fresh.results


def test_workers_of_a_killed_bench_end(tmp_path: Path) -> None:
    kill_when(tmp_path, 4, 2)
    workers = {int(pid) for pid in (tmp_path / "prepared.txt").read_text().split()}
    assert 1 <= len(workers) <= 2  # the second may not have been needed
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in workers):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = bench(tmp_path / "a", 8), bench(tmp_path / "b", 8, jobs=2)
    assert one.results == two.results
    assert [r["square"] for r in one.records] == [r["square"] for r in two.records]
    prepared = (tmp_path / "b" / "prepared.txt").read_text().split()
    assert 1 <= len(prepared) <= 2
    assert str(os.getpid()) not in prepared


def test_an_item_that_raises_is_a_record_and_counts(tmp_path: Path) -> None:
    document = bench(tmp_path, 4, special={1: {"raises": True}})
    assert "ValueError: no grasp found" in document.records[1]["error"]
    assert document.results["errors"].value == 0.25
    assert document.results["success"].n == 4
    assert document.outcomes("success") == {"item-0": False, "item-1": False, "item-2": True, "item-3": False}


def test_an_item_that_kills_its_process_does_not_take_the_others_along(tmp_path: Path) -> None:
    document = bench(tmp_path, 5, jobs=2, special={2: {"dies": True}})
    assert [("error" in record) for record in document.records] == [False, False, True, False, False]
    assert "died, twice" in document.records[2]["error"]
    assert times_run(tmp_path)[2] == 2


def test_workers_that_cannot_be_prepared_stop_the_bench(tmp_path: Path) -> None:
    for jobs in (1, 2):
        with pytest.raises(BenchError, match=r"FileNotFoundError: weights\.safetensors"):
            bench(tmp_path, 3, jobs=jobs, config={"broken": True})
    assert not (tmp_path / "result.json").exists()


def test_after_the_end_a_run_is_a_real_one(tmp_path: Path) -> None:
    bench(tmp_path, 3)
    bench(tmp_path, 3)
    assert set(times_run(tmp_path).values()) == {2}


def test_fresh_forgets_the_journal(tmp_path: Path) -> None:
    stop = {2: {"raises": True}}
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, 3, special=stop, headline=interrupt_after(2))
    assert len((tmp_path / "result.json.journal").read_bytes().splitlines()) == 2
    bench(tmp_path, 3, fresh=True)
    assert times_run(tmp_path) == {0: 2, 1: 2, 2: 1}


def test_records_of_other_code_are_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench(tmp_path, 3, special={2: {"raises": True}}, headline=interrupt_after(2))
    monkeypatch.setattr("pcm_ros.evidence.bench.installed_versions", lambda: {"commit": "another"})
    capsys.readouterr()
    document = bench(tmp_path, 3, progress=True)
    assert "made by other code" in capsys.readouterr().err
    assert document.versions["commit"].endswith(", another")


def interrupt_after(count: int) -> object:
    def headline(records: list) -> str:
        if len(records) == count:
            raise KeyboardInterrupt
        return ""

    return headline


def test_what_cannot_be_sent_to_a_process_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="module-level"):
        run_bench("b", {}, {"x": 1}, lambda item, _: {}, summarise, tmp_path / "r.json", jobs=2, progress=False)


def test_ray_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match="pip install ray"):
        bench(tmp_path, 2, ray_address="auto")


@pytest.mark.slow
def test_ray_gives_what_one_process_gives(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    special = {1: {"raises": True}}
    one, two = bench(tmp_path / "a", 6, special=special), bench(tmp_path / "b", 6, jobs=2, special=special, ray_address="local")
    assert one.results == two.results


def test_arguments_out_of_range_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one item"):
        bench(tmp_path, 0)
    with pytest.raises(ValueError, match="jobs = 0"):
        bench(tmp_path, 1, jobs=0)
    with pytest.raises(ValueError, match="leave 'id' out"):
        run_bench("b", {}, {"x": 1}, lambda item, _: {"id": "y"}, summarise, tmp_path / "r.json", progress=False)


def test_arrays_and_infinities_become_plain_json(tmp_path: Path) -> None:
    energy = {"energy": float("inf"), "flag": np.bool_(True)}
    record = {"array": np.arange(3), "number": np.float32(0.5), "path": Path("a/b"), "pair": (1, 2), **energy}
    document = run_bench("b", {"x": np.int64(3)}, {"i": 1}, lambda item, _: record, lambda records: {}, tmp_path / "r.json", progress=False)
    kept = {key: value for key, value in document.records[0].items() if key not in ("id", "seconds")}
    assert kept == {"array": [0, 1, 2], "number": 0.5, "flag": True, "energy": None, "path": "a/b", "pair": [1, 2]}
    assert document.config == {"x": 3}
    with pytest.raises(TypeError, match="holds set"):
        run_bench("b", {"x": {1}}, {"i": 1}, run_one, summarise, tmp_path / "s.json", progress=False)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    for content in ("", "[]", "{}", '{"results": 3}', "\x00"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=r"x\.json is not the JSON of a bench"):
            Document.load(tmp_path / "x.json")
