"""How much each expert counts, fitted to solutions of training problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.scorers import Agreement, Arithmetic
from pcm_ros.tasks.mathematics.solver import Solver
from tests.tasks.mathematics.conftest import KNOWN
from training import maths_weights
from training.maths_candidates import candidate_solver, line_of
from training.maths_samples import Labelled, whole_lines
from training.maths_weights import Choice, choices, chosen, fitted, strongest_penalty, worth

QUESTION, (_, ANSWER) = next(iter(KNOWN.items()))


def made_up(count: int, seed: int = 0) -> list[Choice]:
    """Problems of eight solutions: of three experts one knows much, one little, and one the contrary. Mistakes differ from each other."""
    rng = np.random.default_rng(seed)
    problems = []
    for _ in range(count):
        right = torch.tensor(rng.random(8) < 0.4)
        truth = (~right).double()
        scores = torch.stack([truth * gain + torch.tensor(rng.normal(size=8)) for gain in (2.5, 0.5, -1.0)], dim=1)
        answers = tuple("right" if good else str(row) for row, good in enumerate(right.tolist()))
        problems.append(Choice(scores, right, answers, (1.0,) * 8))
    return problems


def test_weights_tell_who_knows() -> None:
    much, little, contrary = fitted(made_up(300), 1e-3).tolist()
    assert much > 1.5
    assert 0.1 < little < 1.0
    assert contrary == pytest.approx(0, abs=1e-3), "no weight is negative"
    assert fitted(made_up(300), 1e3).tolist() == pytest.approx([1, 1, 1], abs=0.01), "the penalty draws them to the plain sum"


def test_what_is_fitted_is_measured_on_other_problems() -> None:
    figures = worth(("much", "little", "contrary"), made_up(200), 1e-2)
    assert figures["fitted"] >= figures["much"] - 0.03
    assert figures["fitted"] > figures["sum"] > figures["contrary"]
    assert figures["any"] > figures["fitted"]
    others = fitted(made_up(200, 1), 1e-2)
    apart = np.mean([chosen(problem, others) for problem in made_up(200)])
    assert figures["fitted"] > apart, "solutions of an answer count together"
    assert figures["nats"] < worth(("much", "little", "contrary"), made_up(200), 1e3)["nats"], "the plain sum"


def test_the_penalty_is_the_strongest_that_is_not_clearly_worse() -> None:
    nats = {1e-3: 1.10, 1e-2: 1.00, 1e-1: 1.04, 1.0: 1.06, 10.0: 1.50}
    assert strongest_penalty({penalty: {"nats": value, "nats_error": 0.05} for penalty, value in nats.items()}) == 1e-1
    assert strongest_penalty({penalty: {"nats": value, "nats_error": 0.0} for penalty, value in nats.items()}) == 1e-2


def test_energies_as_they_are_are_weighed_in_their_usual_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experts say the same in other units, a third says nothing: the file's weights bring them to one scale."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(60):
        right = rng.random(6) < 0.4
        energies = np.where(right, 0.0, 2.0) + rng.normal(size=6)
        each = [
            {"answer": "7", "votes": 1.0, "right": bool(good), "energies": {"agreement": value, "hidden": 10 * value, "numbers": 0.0}}
            for good, value in zip(right, energies.tolist(), strict=True)
        ]
        lines.append({"source": "gsm8k", "index": number, "candidates": each})
    path, out = tmp_path / "candidates.jsonl", tmp_path / "maths-weights.json"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    _, units, problems = choices(path, "none")
    assert units[1] == pytest.approx(10 * float(units[0]))
    assert units[2] == 1
    assert problems[0].scores[:, 0].tolist() == pytest.approx(problems[0].scores[:, 1].tolist())
    monkeypatch.setattr(sys, "argv", ["x", "--candidates", str(path), "--out", str(out)])
    maths_weights.main()
    made = json.loads(out.read_text())
    assert made["normalise"] == "none", "the size of a difference says how sure the expert is"
    assert made["weights"]["agreement"] == pytest.approx(10 * made["weights"]["hidden"], rel=0.01)
    weighing = assembly.expert_weighing(out, [Agreement()])
    assert weighing.normalise == "none"
    assert dict(weighing.weights) == {"agreement": made["weights"]["agreement"]}


def test_nothing_to_choose_from_is_an_error() -> None:
    all_right = Choice(torch.zeros(2, 3, dtype=torch.float64), torch.tensor([True, True]), ("7", "7"), (1.0, 1.0))
    with pytest.raises(ValueError, match="right and wrong"):
        fitted([all_right], 0.1)


def test_a_line_that_was_cut_off_is_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "lines.jsonl"
    assert whole_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert whole_lines(path) == [{"a": 1}, {"a": 2}]
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_candidates_of_the_solver_are_choices(tiny: LanguageModel, tiny_folder: Path, tmp_path: Path) -> None:
    drawing = candidate_solver(None, tiny_folder, None, None, 12)
    drawing.close()
    # without the worked examples that a model without an adapter gets: this one knows its problems by heart
    solver = Solver(StepGenerator(tiny, 12, 1, by_votes=True, temperature=1.0, stop_here=False), drawing.ensemble.scorers, width=12)
    found = solver.solve(QUESTION, seed=1, max_tokens=2000)
    solver.close()
    path = tmp_path / "candidates.jsonl"
    path.write_text(json.dumps(line_of(Labelled("gsm8k", 0, QUESTION, ANSWER, True), found)) + "\n")
    names, units, problems = choices(path)
    assert units.tolist() == [1.0] * 5
    assert names == ("agreement", "arithmetic", "generator", "likelihood", "numbers")
    (problem,) = problems
    assert problem.scores.shape == (len(problem.right), 5)
    assert bool(torch.isfinite(problem.scores).all())
    entry = json.loads(path.read_text())
    assert problem.right.tolist() == [candidate["answer"] == ANSWER for candidate in entry["candidates"]]
    assert sum(candidate["votes"] for candidate in entry["candidates"]) <= 12 + 1e-9
    del entry["candidates"][0]["energies"]["numbers"]
    path.write_text(json.dumps(entry) + "\n")
    with pytest.raises(ValueError, match="energies"):
        choices(path)


def test_weights_that_come_with_the_package_count(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As verifiers do, they belong to the shipped adapter."""
    adapter, fitted = tmp_path / "maths-adapter.safetensors", tmp_path / "maths-weights.json"
    adapter.touch()
    monkeypatch.setattr(assembly, "ADAPTER", adapter)
    monkeypatch.setattr(assembly, "FITTED", fitted)
    assert assembly.shipped_weights(adapter) is None, "there is no file"
    fitted.write_text(json.dumps({"weights": {"arithmetic": 2.5, "agreement": 0, "hidden": 4.0}}))
    assert assembly.shipped_weights(adapter) == fitted
    assert assembly.shipped_weights(None) is None and assembly.shipped_weights(tmp_path / "another") is None
    solving = assembly.solver("consensus", 2, 2, model=tiny_folder, weights=fitted)
    ensemble = solving.ensemble
    counts = dict(zip(ensemble.names, ensemble.weights.tolist(), strict=True))
    assert (counts["arithmetic"], counts["agreement"], counts["numbers"]) == (2.5, 0.0, 1.0)
    table = solving.rank("What are 2 and 3?", ["2+3=5\n#### 5", "2+3=6\n#### 6"]).table
    assert torch.equal(table.weights, ensemble.weights), "given solutions are ranked by the same ensemble"
    solving.close()
    given: dict[str, object] = {}
    monkeypatch.setattr(assembly, "solver", lambda *_, **named: given.update(named))
    assembly.shared_solver.__wrapped__("consensus", 2, 2, 0.7, None, adapter)
    assert given["weights"] == fitted


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "holds no weights"),
        ("[]", "holds no weights"),
        ('{"weights": [1]}', "holds no weights"),
        ('{"weights": {"arithmetic": -1}}', "'arithmetic': -1"),
        ('{"weights": {"arithmetic": NaN}}', "'arithmetic': nan"),
        ('{"weights": {"arithmetic": Infinity}}', "'arithmetic': inf"),
        ('{"weights": {"arithmetic": true}}', "'arithmetic': True"),
        ('{"weights": {"oracle": 1}}', "'oracle': 1"),
        ('{"weights": {"arithmetic": 1}, "normalise": "softmax"}', "normalise 'softmax'; allowed: none, zscore, rank"),
        ('{"weights": {"arithmetic": 1}, "normalise": []}', "normalise"),
        ('{"weights": {"arithmetic": 0, "agreement": 0}}', "leaves none of arithmetic, agreement a weight above 0"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "maths-weights.json"
    path.write_text(content)
    with pytest.raises(ModelUnavailable, match=rf"{why}.*remedy: a file made by training/maths_weights.py"):
        assembly.expert_weighing(path, [Arithmetic(), Agreement()])


def test_the_names_of_all_experts_are_known(tiny_folder: Path) -> None:
    assert {expert.name for expert in assembly.scorers(tiny_folder, None)} <= set(assembly.EXPERTS)
