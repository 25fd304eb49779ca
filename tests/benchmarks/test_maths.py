"""`pcm bench maths`, with a language model of random weights: what is counted, and what is made of the records."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pcm_ros.benchmarks.commands import app
from pcm_ros.benchmarks.maths import bench, is_right, of_samples, read_items, shared
from pcm_ros.evidence.journal import Entry, Journal
from pcm_ros.tasks.mathematics.solver import Candidate
from tests.models.tiny_language import make_model

QUESTIONS = ("Tom has 3 boxes of 4 eggs and eats 2. How many eggs are left?", "Ann has 5 cups and Ben 7 cups. How many cups are there?")
RIGHT = ("<<3*4=12>> eggs\n<<12-2=10>> eggs are left\n#### 10", "<<5+7=12>> cups\n#### 12")
WRONG = ("<<3*4=13>> eggs\n<<13-2=12>> eggs\n#### 12", "<<5+8=14>> cups\n#### 14")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama", tmp_path_factory.mktemp("model"), context=1200)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "dev.jsonl"
    rows = [
        {"id": f"p{n}", "question": q, "answer": a, "solutions": [wrong, right, right, "#### 3"], "correct": [False, True, True, False]}
        for n, (q, a, right, wrong) in enumerate(zip(QUESTIONS, ("#### 10", 12.0), RIGHT, WRONG, strict=True))
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def pcm_bench_maths(*words: object) -> Result:
    return CliRunner().invoke(app, ["maths", *map(str, words)])


def test_select_ranks_the_given_solutions(model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "select.json"
    done = pcm_bench_maths("--mode", "select", "--data", data, "--model", model, "--json", path)
    assert done.exit_code == 0, done.output
    results = {name: estimate["value"] for name, estimate in json.loads(path.read_text())["results"].items()}
    assert results["random"] == 0.5 and results["any"] == 1 and results["errors"] == 0
    assert results["majority"] == results["scorer.agreement"] == results["scorer.arithmetic"] == 1
    assert results["ensemble - random"] == results["ensemble"] - 0.5
    assert {name for name in results if name.startswith("scorer.")} == {
        f"scorer.{n}" for n in ("agreement", "arithmetic", "likelihood", "numbers", "reproduction")
    }
    assert path.with_suffix(".html").is_file()


def test_solve_counts_every_way_and_goes_on_where_it_was_cut_off(model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "solve.json"
    options = {"mode": "solve", "data": data, "model": model, "beam": 2, "proposals": 2, "max_tokens": 120, "progress": False}
    document = bench(path, **options)
    ways = {"greedy", "sample", "any", "majority", "beam_1", "ensemble"}
    assert ways <= document.results.keys()
    assert {f"ensemble - {name}" for name in ways - {"any", "ensemble"}} <= document.results.keys()
    assert document.results["tokens_per_second"].value > 0 and document.results["errors"].value == 0
    assert all(record["samples"] % 4 == 0 and record["samples"] > 0 for record in document.records)
    with Journal(path.with_name("solve.json.journal"), "maths", document.config, False) as journal:
        journal.append(Entry({**document.records[1], "answers": "from the journal"}, "earlier", 1.0, "commit"))
    again = bench(path, **options)
    assert [record["id"] for record in again.records] == ["p0", "p1"]
    assert again.records[1]["answers"] == "from the journal"
    assert again.records[0]["answers"] == document.records[0]["answers"], "the same seed, the same answers"
    assert again.records[0]["tokens"] == document.records[0]["tokens"]


def test_speed_compares_the_same_work(model: Path, data: Path, tmp_path: Path) -> None:
    document = bench(tmp_path / "speed.json", mode="speed", data=data, model=model, beam=2, proposals=2, progress=False)
    assert {"ratio", "tokens_per_second", "tokens_per_second.naive"} <= document.results.keys()
    assert all(min(record["tokens"].values()) > 0 for record in document.records)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--data", "/nowhere.jsonl"], "'/nowhere.jsonl' does not exist; remedy: GSM8K is at https://github.com/openai/grade-school-math"),
        (["--mode", "guess"], "--mode is 'guess'; allowed: select, solve, speed"),
        (["--temperature", "0"], "--temperature is 0.0"),
        (["--beam", "64", "--proposals", "64"], "4096; allowed: at most 256"),
        (["--sentence", "/nowhere.safetensors"], "'/nowhere.safetensors' does not exist"),
        (["--sentence", "/nowhere.safetensors", "--no-verifiers"], "--no-verifiers leaves out what --sentence and --hidden bring in"),
    ],
)
def test_what_cannot_be_run_is_said(data: Path, tmp_path: Path, words: list[str], why: str) -> None:
    given = words if "--data" in words else ["--data", str(data), *words]
    done = pcm_bench_maths(*given, "--json", tmp_path / "x.json")
    assert done.exit_code == 2 and why in done.output, done.output


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"question": "why?"}',
        '{"question": "why?", "answer": 1e999, "solutions": ["a"], "correct": [true]}',
        '{"question": "why?", "answer": 1, "solutions": ["a"], "correct": []}',
        "\n".join(['{"id": "twice", "question": "why?", "answer": 1, "solutions": ["a"], "correct": [true]}'] * 2),
        "",
    ],
)
def test_damaged_data(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=r"remedy|as many are needed"):
        read_items(path, "select", None, 0)


def test_an_answer_that_is_no_number_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "words.jsonl"
    path.write_text('{"question": "why?", "answer": "because"}')
    with pytest.raises(ValueError, match="'because', which ends in no number"):
        read_items(path, "solve", None, 0)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("1/2", Fraction(1, 2)),
        ("-3/4", Fraction(-3, 4)),
        ("-$5", -5),
        ("\u22125", -5),
        ("1e3", 1000),
        ("3 1/2", Fraction(7, 2)),
        ("1,200", 1200),
        ("50%", 50),
        ("12 (eggs)", 12),
        ("a\n#### 1/2", Fraction(1, 2)),
        ("<<10-5=5>> are left\n#### 5", 5),
    ],
)
def test_recorded_answers(tmp_path: Path, answer: str, number: Fraction | int) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"question": "why?", "answer": answer}))
    (item,) = read_items(path, "solve", None, 0).values()
    assert item.answer == number


def test_changed_data_is_another_run(model: Path, data: Path, tmp_path: Path) -> None:
    """A journal is gone on from by what was read, not by what it was called."""
    copy = tmp_path / "copy.jsonl"
    found = []
    for question in ("Ann", "Eve"):
        copy.write_text(data.read_text().replace("Ann", question))
        found.append(bench(tmp_path / "x.json", mode="select", data=copy, model=model, progress=False).config["contents"])
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]


def test_outcomes_that_are_all_alike_have_an_interval(model: Path, data: Path, tmp_path: Path) -> None:
    results = bench(tmp_path / "x.json", mode="select", data=data, model=model, progress=False).results
    assert results["any"].value == 1 and results["any"].low < 0.5


def test_a_json_file_that_cannot_be_written(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = pcm_bench_maths("--mode", "select", "--data", data, "--model", model, "--json", tmp_path / "file" / "x.json")
    assert done.exit_code == 2 and "remedy: another --json" in done.output, done.output


def test_the_seed_chooses_the_problems(data: Path) -> None:
    chosen = {seed: tuple(read_items(data, "solve", 1, seed)) for seed in range(8)}
    assert set(chosen.values()) == {("p0",), ("p1",)}
    assert chosen[3] == tuple(read_items(data, "solve", 1, 3))
    assert read_items(data, "solve", None, 0)["p1"].answer == 12


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("10", 10, True),
        ("10.0", 10, True),
        ("10.004", 10, False),
        ("0.333", Fraction(1, 3), True),
        ("0.3", Fraction(1, 3), False),
        ("0.01", Fraction(1, 80), False),
        ("0.0125", Fraction(1, 80), True),
        ("-0.3333", Fraction(-1, 3), True),
        ("16.67", Fraction(50, 3), True),
        ("1/3", Fraction(1, 3), True),
        (None, 1, False),
    ],
)
def test_answers(answer: str | None, expected: int | Fraction, right: bool) -> None:
    assert is_right(answer, Fraction(expected)) == right


@pytest.mark.parametrize(
    ("energies", "votes", "worth"),
    [
        ([1.0, 0.0, 2.0], None, 0.0),
        ([0.0, 0.0, 1.0], None, 0.5),
        ([0.0, 0.0, 1.0], [3.0, 1.0, 9.0], 0.75),
        ([0.0, 0.0, 1.0], [0.0, 0.0, 1.0], 0.5),
    ],
)
def test_ties_are_shared(energies: Sequence[float], votes: Sequence[float] | None, worth: float) -> None:
    assert shared(energies, [1.0, 0.0, 1.0], votes) == worth


def test_samples() -> None:
    def drawn(answer: str | None, total: float, votes: float, numbers: float) -> Candidate:
        return Candidate(answer, str(answer), total, votes, {"numbers": numbers})

    first = [drawn("7", 0.0, 2.0, 1.0), drawn("8", 1.0, 3.0, 0.0), drawn(None, -9.0, 1.0, -9.0)]
    second = [drawn("7", 0.0, 2.0, 0.0)]
    credit = of_samples([first, second], Fraction(7), 20)
    assert credit == {"sample": 4 / 20, "any": 1.0, "majority": 1.0, "scorer.numbers": 0.0, "samples.ensemble": 1.0}
    assert of_samples([first], Fraction(7), 10)["majority"] == 0.0
    assert of_samples([[]], Fraction(7), 10) == {"sample": 0.0, "any": 0.0, "majority": 0.0}
    assert not math.isnan(sum(credit.values()))
