"""Ablations: real episodes under variants of the configuration, and what is made of their records."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from pcm_ros.benchmarks.ablation import AXES, DEFAULT, Plan, _Bench, bench, figures, run_one, summarise
from pcm_ros.benchmarks.commands import app
from pcm_ros.evidence.journal import Entry, Journal
from pcm_ros.tasks.manipulation.assembly import ManipulationConfig

SEED = 1000
VARIANTS = (DEFAULT, "scorers=no-twin", "scorers=relations-only")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ablation") / "result.json"
    arguments = ["--suite", "relations-1", "--episodes", "1", "--seed", str(SEED), "--axes", "scorers", "--json", str(path)]
    result = CliRunner().invoke(app, ["ablation", *arguments])
    assert result.exit_code == 0, result.output
    return path


@pytest.mark.slow  # the first to use the fixture
def test_the_same_episode_under_every_variant(written: Path) -> None:
    data = json.loads(written.read_text())
    records = data["records"]
    assert [record["id"] for record in records] == [f"{name}/relations-1-{SEED}" for name in VARIANTS]
    assert not [record["error"] for record in records if "error" in record]
    assert len({record["instruction"] for record in records}) == 1
    assert len({json.dumps(record["actions"]) for record in records}) > 1, "a variant that changes nothing is none"
    for name in VARIANTS:
        assert data["results"][f"{name}.success"]["n"] == 1
        assert data["results"][f"{name}.plan_seconds.median"]["value"] > 0
        assert (f"{name}.p_value" in data["results"]) == (name != DEFAULT)
    page = written.with_suffix(".html").read_text()
    assert f"scorers: {AXES['scorers'].description}" in page
    assert page.count("results with their intervals") == 3, "one plot each for rates, differences and seconds, not one a variant"


def test_an_unfinished_run_goes_on_by_variant_and_seed(written: Path, tmp_path: Path) -> None:
    data = json.loads(written.read_text())
    path = tmp_path / "result.json"
    with Journal(path.with_name("result.json.journal"), "ablation", data["config"], False) as journal:
        for record in data["records"][1:]:
            journal.append(Entry({**record, "instruction": "from the journal"}, "earlier", 1.0, "commit"))
    document = bench(path, suite="relations-1", episodes=1, seed=SEED, axes=("scorers",))
    asked = data["records"][0]["instruction"]
    assert [record["instruction"] for record in document.records] == [asked, "from the journal", "from the journal"]
    assert document.records[0]["actions"] == data["records"][0]["actions"], "the same seed, the same actions, whatever ran before"


def test_rounds_do_not_end_early() -> None:
    plan = Plan.of(("iterations",))
    prepared = _Bench({"suite": "relations-1", "default": plan.default, "variants": plan.variants})
    consensus = run_one(("iterations=2x64", SEED), prepared)
    one_shot = run_one(("iterations=1x128", SEED), prepared)
    assert (consensus["first_iterations"], one_shot["first_iterations"]) == (2, 1)
    assert consensus["first_energy"] != one_shot["first_energy"]


def test_variants_differ_from_the_default_in_what_they_say_and_are_run_once() -> None:
    plan = Plan.of(tuple(AXES))
    assert plan.variants[DEFAULT] == {}
    assert all(settings for name, settings in plan.variants.items() if name != DEFAULT)
    texts = [json.dumps(settings, sort_keys=True) for settings in plan.variants.values()]
    assert len(set(texts)) == len(texts)
    assert {name for labels in plan.axes.values() for name in labels.values()} == set(plan.variants)
    assert plan.axes["views"]["front"] == plan.axes["views"]["1"] and plan.axes["views"]["5"] == DEFAULT
    for count in (2, 4, 8):
        consensus, one_shot = plan.variants[f"iterations={count}x64"], {**plan.default, **plan.variants[f"iterations=1x{64 * count}"]}
        assert one_shot["proposals"] == consensus["proposals"] * consensus["iterations"]
        assert one_shot["finalists"] == plan.default["finalists"] * count
        assert one_shot["iterations"] == 1


def test_a_further_expert_shows_up_by_itself() -> None:
    plan = Plan.of(("experts",), ManipulationConfig(grounders=("segmenter", "another")))
    assert plan.variants["experts=another"] == {"grounders": ["another"]}
    assert len(plan.variants) == 3


@pytest.mark.parametrize("axes", [(), ("views", "weather")])
def test_axes_that_are_none(axes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="allowed: one or more of experts, scorers, views"):
        Plan.of(axes)


def record(variant: str, number: int, success: bool, energy: float | None = None) -> dict[str, Any]:
    first = {"first_iterations": 1, "first_energy": energy, "first_feasible": energy is not None}
    outcome = {"success": success, "outcome": "SUCCESS", "plan_seconds": [1.0 + number], "failure": "", **first}
    return {"id": f"{variant}/clutter-{number}", "variant": variant, "seconds": 1.0, **outcome}


def test_differences_are_paired_and_errors_count_as_failures() -> None:
    worse = "experts=segmenter"
    records = [record(DEFAULT, number, True) for number in range(8)] + [record(worse, number, number == 7) for number in range(1, 8)]
    records.append({"id": f"{worse}/clutter-0", "seconds": 1.0, "error": "it fell over"})
    results = summarise(records)
    assert results[f"{DEFAULT}.success"].value == 1 and f"{DEFAULT}.difference" not in results
    assert results[f"{worse}.success"].value == 1 / 8
    assert results[f"{worse}.difference"].value == pytest.approx(-7 / 8)
    assert results[f"{worse}.p_value"].value == pytest.approx(binomtest(0, 7, 0.5).pvalue)
    assert results[f"{worse}.plan_seconds.median"].n == 7


def test_energies_at_equal_compute() -> None:
    """Consensus is 1 nat lower in three scenes; in a fourth only consensus finds something, in a fifth neither does."""
    consensus, one_shot = "iterations=4x64", "iterations=1x256"
    energies = [(2.0, 3.0), (1.0, 2.0), (4.0, 5.0), (6.0, None), (None, None)]
    records = [record(name, n, True, pair[side]) for side, name in enumerate((consensus, one_shot)) for n, pair in enumerate(energies)]
    results = summarise(records)
    assert results["equal_compute=256.energy_difference"].value == -1
    assert results["equal_compute=256.energy_difference"].n == 3
    assert (results["equal_compute=256.lower_energy"].value, results["equal_compute=256.lower_energy"].n) == (1, 4)
    assert results["equal_compute=256.lower_energy_p_value"].value == pytest.approx(2 * 0.5**4)
    assert results[f"{one_shot}.first_feasible"].value == 3 / 5
    assert results["equal_compute=256.difference"].value == 0
    assert "equal_compute=128.difference" not in results
    assert math.isnan(summarise([record(consensus, 0, True), record(one_shot, 0, True)])["equal_compute=256.energy_difference"].value)
    pictures = figures({"iterations": {"4x64": consensus, "1x256": one_shot}}, records)
    assert len(pictures) == 2 and all(picture.startswith("data:image/png") for picture in pictures.values())


def test_help_says_what_the_axes_are() -> None:
    for _ in range(2):
        output = CliRunner().invoke(app, ["ablation", "--help"], env={"COLUMNS": "200"}).output
        assert all(output.count(f"{name}: {axis.description}") == 1 for name, axis in AXES.items())
        assert output.count("pcm bench ablation --axes iterations") == 1
