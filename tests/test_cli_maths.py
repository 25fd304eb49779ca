"""`pcm maths`, with a language model of random weights: what is shown, and what is said when it can't be done."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from pcm_ros.cli import app
from pcm_ros.maths_command import printable, show
from pcm_ros.tasks.mathematics.assembly import EXPERTS
from pcm_ros.tasks.mathematics.solver import Candidate, Solution, Step
from tests.models.tiny_language import make_model

QUESTION = "Tom has 3 boxes of 4 eggs and eats 2 eggs. How many eggs are left?"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama", tmp_path_factory.mktemp("model"), context=1200)


def pcm_maths(*words: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["maths", *map(str, words)], input=text)


def test_what_is_no_text_is_refused() -> None:
    result = pcm_maths("How many \udce4 are 3 + 4?")
    assert result.exit_code == 2
    assert "is no UTF-8 text" in result.output
    named = pcm_maths("How many?", "--model", "\udce4.gguf")
    assert named.exit_code == 2
    assert "does not exist" in named.output


def test_json_holds_all_and_the_same_seed_gives_the_same(model: Path) -> None:
    options = ["--model", model, "--beam", 2, "--proposals", 2, "--max-tokens", 1000, "--seed", 3, "--json"]
    first, second = (pcm_maths(QUESTION, *options) for _ in range(2))
    found, again = json.loads(first.stdout), json.loads(second.stdout)
    assert first.exit_code == (0 if found["answer"] is not None else 1)
    assert found["question"] == QUESTION and found["tokens"] > 0
    assert found["options"]["seed"] == 3 and found["options"]["model"] == str(model) and found["options"]["adapter"] is None
    assert set(found["steps"][0]["energies"]) == {"agreement", "arithmetic", "generator", "likelihood", "numbers"}
    assert {name: found[name] for name in found if "seconds" not in name and name != "options"} == {
        name: again[name] for name in again if "seconds" not in name and name != "options"
    }


@pytest.mark.parametrize(("words", "tokens"), [((), 4000), (("--max-tokens", 0), 4000), (("--max-tokens", 300), 300)])
def test_the_limit_of_tokens_is_told(model: Path, words: tuple[object, ...], tokens: int) -> None:
    result = pcm_maths(QUESTION, "--model", model, "--beam", 2, "--proposals", 2, "--deadline", 0.001, "--json", *words)
    assert json.loads(result.stdout)["options"]["max_tokens"] == tokens
    many = pcm_maths(QUESTION, "--model", model, "--beam", 10, "--proposals", 10, "--deadline", 0.001, "--json")
    assert json.loads(many.stdout)["options"]["max_tokens"] == 20_000


@pytest.mark.parametrize("method", ["consensus", "greedy", "majority"])
def test_every_method_ends_with_or_without_an_answer(model: Path, method: str) -> None:
    result = pcm_maths("-", "--model", model, "--method", method, "--beam", 2, "--proposals", 2, "--max-tokens", 200, text=QUESTION)
    assert result.exit_code in (0, 1), result.output
    assert result.stdout.startswith("answer: " if result.exit_code == 0 else "no answer: ")
    assert "tokens in" in result.stdout


def test_a_deadline_gives_what_there_is(model: Path) -> None:
    result = pcm_maths(QUESTION, "--model", model, "--deadline", 0.001)
    assert result.exit_code == 1
    assert "no answer" in result.stdout and "the deadline came" in result.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["  "], "the question is empty; allowed: 1..4000 characters"),
        (["why? " * 10_000], "49999 characters; allowed: 1..4000"),
        ([QUESTION, "--method", "guess"], "method is 'guess'; allowed: consensus, greedy, majority"),
        ([QUESTION, "--beam", "64", "--proposals", "64"], "beam * proposals is 4096; allowed: at most 256"),
        ([QUESTION, "--temperature", "0"], "--temperature is 0.0; allowed: 0.01 to 5"),
        ([QUESTION, "--temperature", "nan"], "--temperature is nan"),
        ([QUESTION, "--beam", "0"], "--beam"),
        ([QUESTION, "--model", "/no[where]"], "'/no[where]' is neither a .gguf file nor a folder with config.json"),
        ([QUESTION, "--adapter", "/nowhere.safetensors"], "'/nowhere.safetensors' does not exist"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], why: str) -> None:
    result = pcm_maths(*words)
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_damaged_models_pickles_and_foreign_adapters_are_refused(model: Path, tmp_path: Path) -> None:
    truncated = make_model("llama", tmp_path / "truncated")
    (truncated / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:5000])
    pickled = make_model("llama", tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\x00\x00\x00")
    cases = [
        (["--model", truncated], "can't be loaded"),
        (["--model", pickled], "pickle formats can run code"),
        (["--model", cut], "truncated files fail like this"),
        (["--model", model, "--adapter", pickled / "pytorch_model.bin"], "only .safetensors weights are loaded"),
        (["--model", model, "--adapter", model / "model.safetensors"], "says neither rank nor alpha"),
    ]
    for words, why in cases:
        result = pcm_maths(QUESTION, *words)
        assert result.exit_code == 2 and why in " ".join(result.output.split()), result.output


def test_what_a_model_writes_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[31mb") == "a\ufffd[31mb"
    hostile = "[bold]3\x1b]0;title\x07 eggs[/]"
    candidate = Candidate("4", hostile, 1.0, 1.0, {"arithmetic": 1.0}, 1.0)
    solution = Solution(QUESTION, "3", (Step(hostile, hostile, {"arithmetic": 0.0}),), -1.0, (candidate,), 0.5, 0.5, True, "", 10, 1.0)
    show(solution, Console(width=120))
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\x07" not in output
    assert output.count("[bold]3") == 2


@pytest.mark.parametrize("count", [1, 7, 13])
def test_all_steps_and_scorers_fit_a_terminal(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    energies = dict.fromkeys(EXPERTS, 1.25)
    steps = tuple(Step(f"Step {number} of the solution.", "", energies) for number in range(1, count + 1))
    weights = dict.fromkeys(EXPERTS, 0.75)
    show(Solution(QUESTION, "3", steps, -1.0, (), 0.5, 0.5, True, "", 10, 1.0, weights=weights), Console(width=80))
    output = capsys.readouterr().out
    assert all(f"{step.text}\n" in output for step in steps)
    assert output.count("1.25") == count * len(EXPERTS)
    assert output.count("0.75") == len(EXPERTS) * output.count("weight ")
    assert all(name in output for name in EXPERTS)
    assert max(map(len, output.splitlines())) <= 80


def test_interrupted(model: Path) -> None:
    command = [sys.executable, "-m", "pcm_ros.cli", "maths", QUESTION, "--model", str(model), "--beam", "16", "--proposals", "16"]
    process = subprocess.Popen(
        [*command, "--max-tokens", "100000000", "--json"], env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while psutil.Process(process.pid).memory_info().rss < 3e8:  # by then torch is there, and models are loading or it is at work
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    # A shell sees 130 for both: Python ends by the signal itself if the interrupt met it in an exec() of the models' packages.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "Traceback" not in errors
    assert json.loads(output)["reason"] == "cancelled" if output else "interrupted" in errors
