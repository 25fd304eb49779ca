"""`pcm bench maths`, with a language model of random weights: what is counted, and what is made of the records."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from pcm_ros.benchmarks import maths
from pcm_ros.benchmarks.commands import app
from pcm_ros.benchmarks.compare import compare
from pcm_ros.benchmarks.maths import bench, run_one, summarise
from pcm_ros.benchmarks.plain_samples import MOST_LOTS, merged, of_samples, samples_for, shared
from pcm_ros.benchmarks.word_problems import Item, is_right, read_items
from pcm_ros.consensus import Batch
from pcm_ros.evidence.document import content_digest
from pcm_ros.evidence.journal import Entry, Journal
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.proposals import Problem, usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, Arithmetic
from pcm_ros.tasks.mathematics.solver import Candidate, Solver
from tests.models.tiny_language import make_model
from tests.tasks.mathematics.scripted_language import QUESTION, ScriptedModel

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
        f"scorer.{n}" for n in ("agreement", "arithmetic", "likelihood", "numbers")
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
    assert all(0 < len(record["samples"]) <= record["samples_drawn"] for record in document.records)
    ratio = [record["tokens"]["majority"] / record["tokens"]["ensemble"] for record in document.records]
    assert document.results["tokens.majority / tokens.ensemble"].value == pytest.approx(sum(ratio) / 2)
    assert document.results["ensemble - majority.p"].value == 1.0
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
    precise, item = LanguageModel(model, dtype=torch.float32), next(iter(read_items(data, "speed", 1, 0).values()))
    tokens = maths.measure_speed(precise, "", item, 2, 2)["tokens"]
    assert tokens["prefix"] == tokens["naive"], "bfloat16 rounds what is read together differently, and draws part"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--data", "/nowhere.jsonl"], "'/nowhere.jsonl' does not exist; remedy: GSM8K is at https://github.com/openai/grade-school-math"),
        (["--mode", "guess"], "--mode is 'guess'; allowed: select, solve, speed"),
        (["--temperature", "0"], "--temperature is 0.0"),
        (["--temperature", "1e-5"], "--temperature is 1e-05; allowed: 0.01..5"),
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


def test_another_precision_is_another_run(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for precision in ((torch.float32, True), (torch.float32, False), (torch.bfloat16, False)):
        monkeypatch.setattr(maths, "language_precision", lambda typical, precision=precision: precision)
        found.append(bench(tmp_path / "x.json", mode="select", data=data, model=model, progress=False).config)
    assert [config["precision"] for config in found] == ["eight bits", "torch.float32", "torch.bfloat16"]
    assert len({json.dumps(config | {"precision": ""}) for config in found}) == 1


def test_a_run_is_the_same_wherever_package_and_data_lie(model: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / data.name
    copy.parent.mkdir()
    copy.write_bytes(data.read_bytes())
    configs = [bench(tmp_path / "x.json", mode="select", data=path, model=model, progress=False).config for path in (data, copy)]
    assert configs[0] == configs[1] and configs[0]["data"] == "dev.jsonl"
    assert maths._named(assembly.ADAPTER) == "maths-adapter.safetensors" and maths._named(copy) == str(copy)


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


def drawn(answer: str | None, energy: float, votes: float, numbers: float) -> Candidate:
    """Its total, which tells solutions apart, is not what answers are chosen by."""
    return Candidate(answer, str(answer), -energy, votes, {"numbers": numbers}, energy)


def test_samples() -> None:
    lot = [drawn("7", 0.0, 2.0, 1.0), drawn("8", 1.0, 3.0, 0.0), drawn(None, -9.0, 1.0, -9.0)]
    assert of_samples(lot, Fraction(7), 10) == {"sample": 0.2, "any": 1.0, "majority": 0.0, "scorer.numbers": 0.0, "samples.ensemble": 1.0}
    assert of_samples([drawn("7", 0.0, 4.0, 1.0), lot[1]], Fraction(7), 10)["majority"] == 1.0
    assert of_samples([], Fraction(7), 10) == {"sample": 0.0, "any": 0.0, "majority": 0.0}


def plain(count: int, script: Mapping[str, Sequence[str]]) -> Solver:
    model: Any = ScriptedModel(script)
    return Solver(StepGenerator(model, count, 1, by_votes=True, temperature=1.0, stop_here=False), [Agreement()], width=count)


PROBLEM = Item(QUESTION, Fraction(3), (), (), 5)


@pytest.mark.parametrize("guess", [1, 6, 15, 1000])
def test_the_majority_is_of_samples_that_cost_as_much_as_the_consensus(guess: int) -> None:
    """Each sample costs six tokens. What a lot has too many is dropped, what it has too few is drawn behind it."""
    draw = functools.partial(plain, script={"": ["#### 3", "#### 4"]})
    samples, count = samples_for(PROBLEM, draw, budget=60, guess=guess)
    assert (len(samples), sum(sample.tokens for sample in samples)) == (10, 60)
    assert count >= 10
    votes = {one.text: one.votes for one in merged(samples)}
    assert set(votes) == {"#### 3", "#### 4"} and sum(votes.values()) == 10


def test_a_sample_that_comes_to_no_end_costs_what_it_took() -> None:
    draw = functools.partial(plain, script={"": ["#### 3", "x" * 65]})
    samples, _ = samples_for(PROBLEM, draw, budget=350, guess=35)
    assert [sample.tokens for sample in samples if sample.solution is None] == [64.0] * 5
    assert 350 <= sum(sample.tokens for sample in samples) < 350 + 64


def test_at_least_one_sample_is_drawn_and_never_more_than_some_lots() -> None:
    draw = functools.partial(plain, script={"": ["#### 3"]})
    assert len(samples_for(PROBLEM, draw, budget=0, guess=0)[0]) == 1
    silent = functools.partial(plain, script={"": ["\n"]})
    samples, count = samples_for(PROBLEM, silent, budget=500_000, guess=1)
    assert len(samples) == count == MOST_LOTS * 256


class Broken:
    """A scorer that never answers."""

    name, cost, differentiable = "broken", 1.0, False

    def energy(self, batch: Batch, context: Problem) -> torch.Tensor:
        raise RuntimeError("no memory")


def test_a_scorer_that_was_dropped_takes_nothing_from_the_others() -> None:
    model: Any = ScriptedModel({})
    ensemble = Solver(StepGenerator(model, 1, 1), [Arithmetic(), Agreement(), Broken()])
    prepared: Any = SimpleNamespace(mode="select", ensemble=ensemble)
    item = Item(QUESTIONS[1], Fraction(12), (RIGHT[1], RIGHT[1], WRONG[1]), (True, True, False), 1)
    record = {"id": "a", **run_one(item, prepared)}
    ensemble.close()
    assert record["dropped"] == ["broken"] and record["ensemble"] is record["success"] is True
    assert record["credit"] == {
        "random": 2 / 3, "any": 1.0, "majority": 1.0, "scorer.arithmetic": 1.0, "scorer.agreement": 1.0, "ensemble": 1.0
    }  # fmt: skip
    results = summarise([record])
    assert (results["dropped.broken"].value, results["dropped.arithmetic"].value) == (1.0, 0.0)


def test_the_mode_says_what_is_run_and_not_what_the_problem_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maths, "measure_speed", lambda *_: {"measured": True})
    prepared: Any = SimpleNamespace(mode="speed", generating=None, preamble="", beam=1, proposals=1)
    assert run_one(Item(QUESTION, None, ("#### 3",), (True,), 1), prepared) == {"measured": True}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"question": "why?", "answer": 1, "solutions": [], "correct": []}', "has no solutions; remedy: leave such problems out"),
        ('{"question": "why?", "answer": 1, "solutions": "ab", "correct": [true, true]}', "`solutions` is a list"),
        ('{"question": "why?", "answer": 1, "solutions": ["a"], "correct": ["false"]}', "`correct` one of as many true or false"),
    ],
)
def test_solutions_that_cannot_be_selected_from(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=why):
        read_items(path, "select", None, 0)


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"question": "why\u2028so?", "answer": 1}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [item.question for item in read_items(path, "solve", None, 0).values()] == ["why\u2028so?"]


def test_runs_can_be_compared_problem_by_problem(model: Path, data: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        document = bench(path, mode="select", data=data, model=model, progress=False)
    assert math.isnan(document.results["ensemble - random.p"].low) and 0 <= document.results["ensemble - random.p"].value <= 1
    for field in ("success", "ensemble", "majority", "scorer.arithmetic"):
        _, comparison = compare(*paths, field=field)
        assert (comparison.difference.value, comparison.p_value) == (0.0, 1.0)


def test_a_hidden_state_verifier_needs_its_adapter(model: Path, data: Path, tmp_path: Path) -> None:
    done = pcm_bench_maths("--data", data, "--model", model, "--hidden", "/nowhere.safetensors", "--json", tmp_path / "x.json")
    assert done.exit_code == 2 and "--hidden belongs to an adapter" in done.output, done.output


def test_weights_of_the_package_count_and_are_in_the_configuration(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = tmp_path / "maths-weights.json"
    fitted.write_text('{"weights": {"arithmetic": 3.0, "generator": 0.5}}')
    monkeypatch.setattr(assembly, "shipped_weights", lambda adapter: fitted)
    config = bench(tmp_path / "x.json", mode="solve", data=data, model=model, limit=1, max_tokens=20, progress=False).config
    assert config["weights"] == str(fitted) and content_digest(fitted) in config["contents"]
    ensemble = maths._Prepared(config).consensus.ensemble
    counts = dict(zip(ensemble.names, ensemble.weights.tolist(), strict=True))
    assert counts["arithmetic"] == 3.0 and counts["numbers"] == 1.0 and counts["generator"] == 0.5
    config = bench(tmp_path / "y.json", mode="select", data=data, model=model, progress=False).config
    assert config["weights"] == str(fitted) and content_digest(fitted) in config["contents"]
    ensemble = maths._Prepared(config).ensemble.ensemble
    assert "generator" not in ensemble.names and dict(zip(ensemble.names, ensemble.weights.tolist(), strict=True))["arithmetic"] == 3.0


def test_the_usual_tokens_are_the_default(model: Path, data: Path, tmp_path: Path) -> None:
    config = bench(tmp_path / "x.json", mode="select", data=data, model=model, beam=8, proposals=8, progress=False).config
    assert config["max_tokens"] == usual_tokens(64) > 4000
