"""The shipped verifiers do what their cards say, on samples of problems that neither they nor the generator learnt from.

`maths_held_out.jsonl.gz` holds those of GSM8K's last 300 training problems whose samples are right and wrong, as the shipped generator drew
them; made from the samples of which docs/models.md speaks:

    jq -c 'select(.held_out and .source == "gsm8k" and ([.samples[].right] | unique | length == 2))' SAMPLES |
        gzip -9n > maths_held_out.jsonl.gz
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.verifiers import SentenceVerifier
from training.maths_hidden_verifier import evaluated
from training.maths_labels import Sampled, energies_by, held_out_figures, sampled

SAMPLES = Path(__file__).parent / "maths_held_out.jsonl.gz"


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> list[Sampled]:
    plain = tmp_path_factory.mktemp("samples") / "held_out.jsonl"
    plain.write_bytes(gzip.decompress(SAMPLES.read_bytes()))
    return sampled([plain])


def promised(weights: Path) -> float:
    """How often the card says that a right sample has less energy than a wrong one of the same problem."""
    figures: dict[str, float] = json.loads(weights.with_name(f"{weights.stem}.card.json").read_text())["held_out"]
    return figures["gsm8k.within"]


def test_the_hidden_state_verifier_is_as_good_as_its_card_says(problems: list[Sampled]) -> None:
    """On processors that compute it in another precision the last digits differ."""
    adapter = assembly.shipped_adapter()
    assert adapter is not None
    found = evaluated(adapter, assembly.HIDDEN, problems)
    assert found["gsm8k.within"] == pytest.approx(promised(assembly.HIDDEN), abs=0.02)


def test_the_sentence_verifier_is_as_good_as_its_card_says(problems: list[Sampled]) -> None:
    found = held_out_figures(energies_by(SentenceVerifier(sentence_encoder(), assembly.SENTENCE), problems), problems)
    assert found["gsm8k.within"] == pytest.approx(promised(assembly.SENTENCE), abs=0.02)
