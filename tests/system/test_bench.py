"""`pcm bench ros` as it is typed: interrupted, then run to the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from system_bench import RELATION_SCORER, write_parameters

pytestmark = pytest.mark.timeout(900)
EPISODES = 3


def test_interrupted_then_run_to_the_end(tmp_path: Path) -> None:
    """Ctrl-C ends all processes of the system; the next run says that it starts anew, and counts each episode once."""
    scorers = {f"scorer_{view}": {**RELATION_SCORER, "view": view} for view in ("front", "top")}
    parameters = write_parameters(tmp_path / "parameters.yaml", scorers, attempts=1, iterations=3)
    path = tmp_path / "ros.json"
    command = [sys.executable, "-m", "pcm_ros.cli", "bench", "ros", "--episodes", str(EPISODES), "--compare", "2", "--seed", "7"]
    command += ["--suite", "demo", "--config", str(parameters), "--json", str(path)]
    variables = {**os.environ, "PYTHONUNBUFFERED": "1"}

    process = subprocess.Popen(command, env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    journal, children = path.with_name("ros.json.journal"), list[psutil.Process]()
    while process.poll() is None and not (journal.exists() and journal.read_text().count("\n") == 1):
        children = psutil.Process(process.pid).children(recursive=True) or children
        with_timeout(process)
    assert len(children) >= 5, process.communicate()[0]  # simulator, generator, two scorers, consensus
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 130 and "interrupted: all processes of the system ended" in output, output
    assert not psutil.wait_procs(children, timeout=60)[1]
    assert not path.exists()

    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the count starts anew" in done.stderr
    assert path.with_suffix(".html").is_file() and not journal.exists()
    data = json.loads(path.read_text())
    assert [record["id"] for record in data["records"]] == [f"demo-{seed}" for seed in range(7, 7 + EPISODES)]
    results = {name: estimate["value"] for name, estimate in data["results"].items()}
    assert results["same_plan"] == 1
    assert results["overhead"] > 0
    assert (results["lost_messages"], results["died"], results["errors"]) == (0, 0, 0)
    nodes = {"sim", "generator", "scorer_front", "scorer_top", "consensus"}
    for record in data["records"]:
        assert record["alive"] == len(nodes)
        assert set(record["megabytes"]) == nodes | {"client"}
        assert len(record["plan_seconds"]) >= record["action_count"]
    assert all(results[f"memory.{name}.last"] > 50 for name in nodes)


def with_timeout(process: subprocess.Popen[str]) -> None:
    """A short wait that ends early when the process does."""
    try:
        process.wait(0.1)
    except subprocess.TimeoutExpired:
        return
