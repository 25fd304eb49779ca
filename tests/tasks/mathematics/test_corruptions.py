"""Corrupted copies of worked solutions are wrong, hold together, and differ from them in nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pcm_ros.tasks.mathematics.answers import final_answer
from pcm_ros.tasks.mathematics.equations import equations
from training import maths_corruptions
from training.maths_corruptions import corrupted, recalculated, worked_solution
from training.maths_labels import sampled

QUESTION = "Natalia sold 48 clips in April, and half as many in May. She sold 2 more in June. How many did she sell altogether?"
GSM8K = "In May 48/2 = <<48/2=24>>24 clips.\n48 clips + 24 clips = <<48+24=72>>72 clips until then.\nAltogether <<72+2=74>>74.\n#### 74"


def test_calculations_spelt_out_with_units_go() -> None:
    assert worked_solution(GSM8K) == "In May <<48/2=24>> clips.\n<<48+24=72>> clips until then.\nAltogether <<72+2=74>>.\n#### 74"


def test_what_follows_is_calculated_again() -> None:
    lines = worked_solution(GSM8K).splitlines()[1:3]
    assert recalculated([*lines, "so of 72 clips"], {24: "96"}) == [  # type: ignore[dict-item]
        "<<48+96=144>> clips until then.",
        "Altogether <<144+2=146>>.",
        "so of 144 clips",
    ]
    assert recalculated(["<<48-24=24>> left"], {24: "50"}) is None  # type: ignore[dict-item]


@pytest.mark.parametrize("seed", range(40))
def test_a_copy_is_wrong_and_all_its_equations_hold(seed: int) -> None:
    worked = worked_solution(GSM8K)
    copy = corrupted(QUESTION, worked, np.random.default_rng(seed))
    if copy is None:
        return
    assert copy != worked
    assert final_answer(copy) not in (None, 74)
    found = equations(copy)
    assert found
    assert all(equation.exact for equation in found)
    assert found[-1].stated == final_answer(copy)
    assert len(copy.splitlines()) <= len(worked.splitlines())


def test_the_file_is_one_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"question": QUESTION, "answer": GSM8K}, {"question": "How many?", "answer": "None at all.\n#### 0"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "worked.jsonl"
    monkeypatch.setattr(sys, "argv", ["x", "--data", str(tmp_path / "train.jsonl"), "--out", str(out), "--held-out", "0"])
    maths_corruptions.main()
    (problem,) = sampled([out], tmp_path / "train.jsonl")
    assert (problem.source, problem.held_out, problem.steps) == ("gsm8k worked", False, False)
    assert [good for _, _, good in problem.samples] == [True, False, False, False]
    assert problem.results == (24, 72, 74)
