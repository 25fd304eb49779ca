"""GSM8K's recorded solutions become problems that the selection bench reads; what they are not is refused."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from benchmarks import given_solutions
from pcm_ros.benchmarks.word_problems import read_items

RECORDED = [
    {
        "question": f"Tom has {boxes} boxes of 12 eggs. How many eggs?",
        "ground_truth": f"Tom has {boxes}*12=<<{boxes}*12={boxes * 12}>>{boxes * 12} eggs.\nA: {boxes * 12}",
        **{
            f"model {number}": {"is_correct": number == 2, "solution": f"So {boxes}.\nA: {12 * boxes if number == 2 else number}"}
            for number in range(4)
        },
    }
    for boxes in (3, 5, 7)
]


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["given_solutions.py", *arguments])
    return given_solutions.main()


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "example_model_solutions.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in RECORDED))
    return path


def test_what_is_written_is_what_the_bench_reads(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "given.jsonl"
    assert called(monkeypatch, "--data", str(recorded), "--to", str(out)) == 0
    items = list(read_items(out, "select", None, 0).values())
    assert [item.answer for item in items] == [Fraction(36), Fraction(60), Fraction(84)]
    for item, problem in zip(items, RECORDED, strict=True):
        marks = {made["solution"]: made["is_correct"] for made in problem.values() if isinstance(made, dict)}
        assert dict(zip(item.solutions, item.correct, strict=True)) == marks
    assert "model" not in out.read_text(), "who made a solution is not told"
    places = [item.correct.index(True) for item in items]
    assert places != [2, 2, 2], "nor does its place tell it"


def test_only_the_problems_of_a_file(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only, out = tmp_path / "dev.jsonl", tmp_path / "new" / "given.jsonl"
    only.write_text(json.dumps({"question": RECORDED[1]["question"], "answer": "60"}) + "\n")
    assert called(monkeypatch, "--data", str(recorded), "--to", str(out), "--only", str(only)) == 0
    assert [json.loads(line)["answer"] for line in out.read_text().splitlines()] == ["60"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "line 4 of"),
        ('["a list"]', "line 4 of"),
        ('{"question": "?", "ground_truth": "none", "m": {"solution": "A: 1", "is_correct": true}}', "ends in no number"),
        ('{"question": "?", "ground_truth": "A: 1", "m": {"solution": "A: 1", "is_correct": "yes"}}', "is_correct"),
        ('{"question": "?", "ground_truth": "A: 1"}', "each model has"),
    ],
)
def test_lines_that_are_no_recorded_solutions_are_refused(
    line: str, message: str, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_text(recorded.read_text() + line + "\n")
    out = tmp_path / "given.jsonl"
    with pytest.raises(SystemExit):
        called(monkeypatch, "--data", str(recorded), "--to", str(out))
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "same.jsonl", "--data", "same.jsonl"), "allowed: another file"),
        (("--data", "nothing.jsonl"), "does not exist; remedy"),
        (("--seed", "-1"), "allowed: >= 0"),
        (("--only", "nothing.jsonl"), "--only: 'nothing.jsonl' does not exist"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[str, ...],
    message: str,
    recorded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        called(monkeypatch, "--data", str(recorded), "--to", str(tmp_path / "given.jsonl"), *arguments)
    assert message in capsys.readouterr().err
