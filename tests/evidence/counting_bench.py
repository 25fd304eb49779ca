"""A bench whose items leave a trace in a folder each time they are run. Also a program: counting_bench.py FOLDER COUNT JOBS."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcm_ros.evidence import Document, Estimate, mean, rate, run_bench


def prepare(config: Mapping[str, Any]) -> Path:
    folder = Path(config["folder"])
    with (folder / "prepared.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if config.get("broken"):
        raise FileNotFoundError("weights.safetensors")
    return folder


def run_one(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "runs").mkdir(exist_ok=True)
    with (folder / "runs" / str(item["number"])).open("a") as file:
        file.write("x")
    if item.get("wait"):
        time.sleep(item["wait"])
    if item.get("raises"):
        raise ValueError("no grasp found")
    if item.get("dies"):
        os._exit(11)
    return {"success": item["number"] % 3 > 0, "square": item["number"] ** 2}


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    return {
        "success": rate([record.get("success", False) for record in records]),
        "square.mean": mean([record["square"] for record in records if "square" in record]),
    }


def bench(folder: Path, count: int, jobs: int = 1, special: Mapping[int, dict[str, Any]] | None = None, **options: Any) -> Document:
    items = {f"item-{n}": {"number": n, **(special or {}).get(n, {})} for n in range(count)}
    config = {"folder": str(folder), "count": count, **options.pop("config", {})}
    return run_bench(
        "counting", config, items, run_one, summarise, folder / "result.json", prepare=prepare, jobs=jobs, **{"progress": False, **options}
    )


def times_run(folder: Path) -> dict[int, int]:
    return {int(path.name): len(path.read_text()) for path in (folder / "runs").iterdir()}


if __name__ == "__main__":
    number = int(sys.argv[2])
    bench(Path(sys.argv[1]), number, int(sys.argv[3]), {n: {"wait": 0.1} for n in range(number)})
