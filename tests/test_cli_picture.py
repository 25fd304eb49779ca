"""`pcm picture`, `pcm run --picture`, `pcm send --picture` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pcm_ros.cli import app
from pcm_ros.picture_file import load_picture, save_picture
from pcm_ros.sim.workcell import SimWorkcell

SCENE = 126


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file that `pcm picture` wrote, and what it printed."""
    path = tmp_path_factory.mktemp("cli") / "goal.npz"
    result = CliRunner().invoke(app, ["picture", "--scene", str(SCENE), "--out", str(path)])
    assert result.exit_code == 0, result.output
    return path, result.stdout


@pytest.mark.parametrize(("out", "why"), [("goal.png", "names that end in .npz"), ("file/goal.npz", "cannot be written")])
def test_a_file_that_cannot_be_written(tmp_path: Path, out: str, why: str) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["picture", "--scene", str(SCENE), "--out", str(tmp_path / out)])
    assert result.exit_code == 2
    assert why in result.output
    assert "Traceback" not in result.output


def test_the_picture_is_the_goal_of_the_episode(made: tuple[Path, str]) -> None:
    path, said = made
    cell = SimWorkcell("image-goal", seed=SCENE)
    assert cell.picture is not None
    view = load_picture(path)
    assert np.array_equal(view.rgb, cell.picture.rgb) and np.array_equal(view.depth, cell.picture.depth, equal_nan=True)
    assert np.array_equal(cv2.imread(str(path.with_suffix(".png")))[..., ::-1], view.rgb)
    assert cell.episode.pictured
    for pictured, present in cell.episode.pictured.items():
        assert f'--means "{pictured}={present}"' in said
    cell.close()


def test_run_makes_true_what_the_picture_shows(made: tuple[Path, str], tmp_path: Path) -> None:
    path, said = made
    means = said.split('--means "')[1:]
    words = [word for part in means for word in ("--means", part.partition('"')[0])]
    plan = tmp_path / "plan.json"
    command = ["run", "--picture", str(path), "--task", "image-goal", "--scene", str(SCENE), *words, "--no-video", "--actions", str(plan)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "read" in result.stdout and "as in the picture: " in result.stdout
    assert json.loads(plan.read_text())["actions"]


def test_a_task_that_says_its_goals(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["picture", "--task", "demo", "--out", str(tmp_path / "goal.npz")])
    assert result.exit_code == 2 and "shows no pictures" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["run", "send"])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "neither is"),
        (["put the red mug behind the can", "--picture", "PICTURE"], "both are"),
        (["put the red mug behind the can", "--means", "red mug=can"], "needs --picture"),
        (["--picture", "nowhere.npz"], "picture 'nowhere.npz' does not exist"),
        (["--picture", "PICTURE", "--means", "red mug"], "does not say who is who"),
        (["--picture", "BLIND"], "depth has no return at all"),
    ],
)
def test_goals_that_are_not_one(made: tuple[Path, str], tmp_path: Path, command: str, words: list[str], text: str) -> None:
    blind = tmp_path / "blind.npz"
    view = load_picture(made[0])
    view.depth[:] = np.nan
    save_picture(blind, view)
    files = {"PICTURE": str(made[0]), "BLIND": str(blind)}
    result = CliRunner().invoke(app, [command, *(files.get(word, word) for word in words)])
    assert result.exit_code == 2 and text in " ".join(result.stderr.split())
