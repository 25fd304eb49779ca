"""`pcm video`, from the command line to the table, with a language model of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pcm_ros.cli import app
from tests.conftest import MakeVideo
from tests.models.tiny_language import make_model

QUESTION = "Which object moves first?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model("llama", tmp_path_factory.mktemp("served"), context=800))


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["video", *arguments])
    return result.exit_code, result.output


def test_an_answer_with_a_table_of_energies(make_video: MakeVideo, model: str) -> None:
    code, said = run(str(make_video("told.mp4")), QUESTION, "--model", model)
    assert code == 0, said
    assert said.index("answer: ") < said.index("pcm-clip-towers") < said.index("weighted sum") < said.index("agreement of the scorers")


def test_the_same_as_json(make_video: MakeVideo, model: str) -> None:
    code, said = run(str(make_video("json.mp4")), QUESTION, "--model", model, "--json", "--scorers", "motion,language")
    assert code == 0, said
    assert set(json.loads(said[said.index("{") :])["energies"]) == {"motion", "language"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["{clip}", ""], "question"),
        (["{clip}", "why?" * 200], "500"),
        (["{clip}", QUESTION, "--policy", "best"], "uniform"),
        (["{clip}", QUESTION, "--scorers", "luck"], "luck"),
        (["{clip}.none", QUESTION], "none"),
        (["{text}", QUESTION], "text.mp4"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], why: str, make_video: MakeVideo, model: str, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video\n" * 50)
    clip = make_video("asked.mp4")
    code, said = run(*(word.format(clip=clip, text=text) for word in arguments), "--model", model)
    assert code == 2 and "error: " in said and why in said, said
