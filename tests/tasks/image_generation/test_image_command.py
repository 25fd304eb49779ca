"""`pcm image`, from the command line to the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pcm_ros.cli import app
from pcm_ros.image_command import FORMATS
from pcm_ros.tasks.image_generation import Painter

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


def test_a_name_that_looks_like_markup(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("a red mug", "--out", "a[/b].png", "--model", str(folder), *FAST)
    assert code == 0, said
    assert "a[/b].png: 32 x 32" in said and (tmp_path / "a[" / "b].png").is_file()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_name_that_is_no_utf8(folder: Path, tmp_path: Path, suffix: str) -> None:
    """In a process of its own: cv2.imwrite ends it."""
    out = os.fsencode(tmp_path) + b"/\xff" + suffix.encode()
    picture = "numpy.zeros((8, 8, 3), numpy.uint8)"
    code = f"import numpy, pathlib, sys; from pcm_ros.image_command import _write; _write(pathlib.Path(sys.argv[1]), {picture}, 2)"
    subprocess.run([sys.executable, "-c", code, out], check=True, timeout=100)
    read = cv2.imdecode(np.frombuffer(Path(os.fsdecode(out)).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None and read.shape == (16, 16, 3)


def test_a_name_that_is_no_utf8_is_told(folder: Path, tmp_path: Path) -> None:
    code, said = run("a red mug", "--out", os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"), "--model", str(folder), *FAST)
    assert code == 0, said
    assert "\\xff.png: 32 x 32" in said
    code, said = run("a red mug", "--out", os.fsdecode(b"\xff.exe"), "--model", str(folder), *FAST)
    assert code == 2 and "is no picture file" in said


def test_a_side_that_the_format_cannot_hold_is_said_before_anything_is_painted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Painter, "paint", lambda *_: pytest.fail("it was painted"))
    for option, other in (("--out", "--preview"), ("--preview", "--out")):
        names = [option, str(tmp_path / "x.webp"), other, str(tmp_path / "x.png")]
        code, said = run("a red mug", *names, "--model", str(folder), *FAST, "--width", "1024", "--scale", "16")
        assert code == 2
        assert "a side of 16384 pixels; allowed: up to 16383 in .webp; remedy: a lower --scale, or .png" in " ".join(said.split())


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
        (["a mug", "--out", "x" * 300 + ".png"], "cannot be written: File name too long; remedy"),
        (["a mug and no bowl"], "exclude by AND NOT in capitals"),
        (["a " + "very " * 30 + "tall mug"], "longer than what the model reads of a concept; remedy: say less"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    model = [] if "--model" in arguments else ["--model", str(folder)]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x.png")]
    code, said = run(*arguments, *([] if "--method" in arguments else FAST), *model, *out)
    assert code == 2
    assert message in " ".join(said.split())
