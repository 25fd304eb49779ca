"""Two runs paired by episode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from pcm_ros.benchmarks.commands import app
from pcm_ros.benchmarks.compare import compare
from pcm_ros.evidence import Document


def run(path: Path, outcomes: dict[str, bool], views: int = 5, error: str = "") -> Path:
    records = [{"id": name, "seconds": 1.0, "success": good, "claimed": True} for name, good in outcomes.items()]
    if error:
        records.append({"id": error, "seconds": 1.0, "error": "it fell over"})
    Document("manipulation", "pcm bench manipulation", {"suite": "clutter", "views": views}, {}, {}, 1.0, {}, records).save(path)
    return path


def test_the_difference_is_paired(tmp_path: Path) -> None:
    first = run(tmp_path / "a.json", {f"e{n}": n < 18 for n in range(20)})
    second = run(tmp_path / "b.json", {f"e{n}": n < 9 or n == 19 for n in range(1, 21)}, views=1)
    document, comparison = compare(first, second)
    assert document.results["first"].value == pytest.approx(17 / 19)
    assert document.results["second"].value == pytest.approx(9 / 19)
    assert document.results["difference"].value == pytest.approx(8 / 19)
    assert document.results["difference"].low < 8 / 19 < document.results["difference"].high
    assert (comparison.only_a, comparison.only_b) == (9, 1)
    assert comparison.p_value == pytest.approx(binomtest(9, 10, 0.5).pvalue)
    assert document.config["left_out"] == [1, 1]
    assert document.config["differs.views"] == [5, 1]
    assert len(document.records) == 19


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    first = run(tmp_path / "a.json", {f"e{n}": True for n in range(6)}, error="e6")
    second = run(tmp_path / "b.json", {f"e{n}": n == 6 for n in range(7)})
    written = tmp_path / "c.json"
    result = CliRunner().invoke(app, ["compare", str(first), str(second), "--json", str(written)])
    assert result.exit_code == 0, result.output
    assert "only the first succeeds: 6, only the second: 1, exact McNemar p = 0.125" in result.output.replace("\n", " ")
    data = json.loads(written.read_text())
    assert data["results"]["p_value"]["value"] == pytest.approx(0.125)
    assert data["results"]["difference"]["n"] == 7, "an episode that raised counts as failed"
    assert {"id": "e6", "seconds": 0.0, "first": False, "second": True} in data["records"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first, second = run(tmp_path / "a.json", {"e1": True}), run(tmp_path / "b.json", {"f1": True})
    with pytest.raises(ValueError, match="no record in common"):
        compare(first, second)
    with pytest.raises(ValueError, match="true-or-false fields there: claimed, success"):
        compare(first, first, "sucess")
    (tmp_path / "x.json").write_text("{}")
    result = CliRunner().invoke(app, ["compare", str(first), str(tmp_path / "x.json")])
    assert result.exit_code == 2
    assert CliRunner().invoke(app, ["compare", str(first), str(tmp_path / "gone.json")]).exit_code == 2
