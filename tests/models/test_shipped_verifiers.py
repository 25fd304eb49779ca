"""The shipped verifiers do what their cards say, on samples of problems that neither they nor the generator learnt from.

They are measured where there is something to tell: on those of GSM8K's last 300 training problems of which the shipped generator drew right
and wrong samples (`training/maths_samples.jsonl.xz`).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pcm_ros.tasks.mathematics import assembly
from training.maths_hidden_verifier import evaluated
from training.maths_labels import Sampled, sampled
from training.maths_sentence_verifier import figures_of
from training.maths_weights import choices, fitted, fitted_alone, worth

TRAINING = Path(__file__).parents[2] / "training"
SAMPLES = TRAINING / "maths_samples.jsonl.xz"


@pytest.fixture(scope="module")
def problems() -> list[Sampled]:
    held_out = [problem for problem in sampled([SAMPLES]) if problem.held_out and problem.source == "gsm8k"]
    return [problem for problem in held_out if len({right for _, _, right in problem.samples}) == 2]


def promised(weights: Path) -> float:
    """How often the card says that a right sample has less energy than a wrong one of the same problem."""
    figures: dict[str, float] = json.loads(weights.with_name(f"{weights.stem}.card.json").read_text())["held_out"]
    return figures["gsm8k.within"]


def test_the_hidden_state_verifier_is_as_good_as_its_card_says(problems: list[Sampled]) -> None:
    """Processors compute it in other precisions; of earlier weights eight-bit integers told 0.681 apart, bfloat16 0.668."""
    adapter = assembly.shipped_adapter()
    assert adapter is not None
    found = evaluated(adapter, assembly.HIDDEN, problems)
    assert found["gsm8k.within"] == pytest.approx(promised(assembly.HIDDEN), abs=0.03)


def test_the_sentence_verifier_is_as_good_as_its_card_says(problems: list[Sampled]) -> None:
    found = figures_of(assembly.SENTENCE, problems)
    assert found["gsm8k.within"] == pytest.approx(promised(assembly.SENTENCE), abs=0.02)


def test_the_experts_count_as_fitted_to_what_lies_beside_the_trainer() -> None:
    """And the file's own figures, of problems left out of the fit, are what they give."""
    made = json.loads(assembly.FITTED.read_text())
    names, units, problems = choices(TRAINING / "maths_candidates.jsonl.xz", made["normalise"])
    weights = dict(zip(names, (fitted(problems, made["penalty"]) / units).tolist(), strict=True))
    assert weights == pytest.approx(made["weights"], abs=0.02)
    figures = worth(names, problems, made["penalty"])
    assert figures == pytest.approx(made["cross_validated"], abs=0.01)
    assert figures["fitted"] > max(figures["sum"], figures["agreement"])
    alone = fitted_alone(names, problems, made["penalty"])
    assert alone == {name: pytest.approx(each, abs=0.01) for name, each in made["cross_validated_alone"].items()}
    assert figures["nats"] < min(each["nats"] for each in alone.values()) + figures["nats_error"], "no single expert is clearly better"
