"""`pcm image`, from the command line to the file."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pcm_ros.cli import app

FAST = ["--method", "guidance", "--steps", "3"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["image", *arguments])
    return result.exit_code, result.output


def test_a_picture_is_written_and_told_about(folder: Path, tmp_path: Path) -> None:
    out, preview = tmp_path / "new" / "mug.png", tmp_path / "preview.png"
    code, said = run("a red mug", "--out", str(out), "--model", str(folder), *FAST, "--scale", "2", "--preview", str(preview), "--json")
    assert code == 0, said
    told = json.loads(said[said.index("{") :])
    assert (told["file"], told["complete"], len(told["history"])) == (str(out), True, 3)
    assert cv2.imread(str(out)).shape == cv2.imread(str(preview)).shape == (64, 64, 3)
    again = tmp_path / "again.png"
    assert run("a red mug", "--out", str(again), "--model", str(folder), *FAST, "--scale", "2")[0] == 0
    assert np.array_equal(cv2.imread(str(out)), cv2.imread(str(again)))


def test_several_pictures_lie_beside_each_other(folder: Path, tmp_path: Path) -> None:
    code, said = run("a red mug", "--out", str(tmp_path / "mug.png"), "--model", str(folder), *FAST, "--count", "3", "--every")
    assert code == 0, said
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["mug-2.png", "mug-3.png", "mug.png"]


def test_a_deadline_ends_it_with_another_code(folder: Path, tmp_path: Path) -> None:
    code, said = run("a red mug", "--out", str(tmp_path / "mug.png"), "--model", str(folder), *FAST, "--deadline", "0.000001")
    assert code == 1
    assert "not finished: deadline" in said
    assert (tmp_path / "mug.png").is_file()


def test_a_file_that_cannot_be_written_is_said_before_anything_is_painted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for out in (tmp_path / "file" / "mug.png", tmp_path / "folder.png"):
        for option in ("--out", "--preview"):
            code, said = run("a red mug", "--model", str(folder), *FAST, option, str(out))
            assert code == 2
            assert "cannot be written" in said and "remedy" in said
            assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a [bold]mug[/]", "--scheduler", "[/]"], "scheduler is '[/]'"),
        (["", "--out", "x.png"], "the prompt is empty"),
        (["m" * 10_000], "has 10000 characters"),
        (["a mug", "--out", "x.exe"], "is no picture file"),
        (["a mug", "--height", "20"], "height is 20; allowed: multiples of 8"),
        (["a mug", "--scheduler", "euler"], "scheduler is 'euler'"),
        (["a mug", "--method", "magic"], "method is 'magic'"),
        (["a mug", "--experts", "nobody", "--method", "consensus"], "are unknown; allowed"),
        (["a mug", "--model", "/nowhere"], "does not exist; remedy"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    model = [] if "--model" in arguments else ["--model", str(folder)]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x.png")]
    code, said = run(*arguments, *([] if "--method" in arguments else FAST), *model, *out)
    assert code == 2
    assert message in " ".join(said.split())
