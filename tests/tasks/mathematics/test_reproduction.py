"""The expert that asks whether the generator would write a step itself."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch

from pcm_ros.consensus import Batch, Beam, Ensemble
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.proposals import OutOfTime, Problem, solutions_batch, texts_of
from pcm_ros.tasks.mathematics.reading import outcome
from pcm_ros.tasks.mathematics.scorers import Reproduction
from tests.tasks.mathematics.conftest import KNOWN

QUESTION, (STEPS, ANSWER) = next(iter(KNOWN.items()))
RIGHT = "\n".join([*STEPS, f"#### {ANSWER}"])


def given(*texts: str) -> Batch:
    count = len(texts)
    return solutions_batch(texts, [True] * count, [1.0] * count, [0.0] * count, [0] * count)


@pytest.mark.parametrize(
    ("line", "comes_to"),
    [
        ("Tom has <<3*4=12>> eggs.", (False, frozenset({Fraction(12)}))),
        ("<<3*4=12>> and $<<1/2=0.5>>", (False, frozenset({Fraction(12), Fraction(1, 2)}))),
        ("#### 1,200", (True, frozenset({Fraction(1200)}))),
        ("He is hungry.", None),
        ("#### none", None),
    ],
)
def test_what_a_line_comes_to(line: str, comes_to: object) -> None:
    assert outcome(line) == comes_to


def test_what_the_generator_knows_is_reproduced_in_whatever_words(tiny: LanguageModel) -> None:
    wrong = RIGHT.replace("12-2=10", "12*2=24").replace("#### 10", "#### 24")
    other_words = RIGHT.replace("Tom has <<3*4=12>> eggs.", "Tom has <<3*4=12>> of them.")
    energies = Reproduction(tiny).energy(given(RIGHT, wrong, other_words, "He is hungry.\n"), Problem(QUESTION)).tolist()
    assert energies[0] == pytest.approx(0, abs=0.1), "it knows this one by heart"
    # two of three lines it never writes; the last stands behind a beginning that it does not know, and may come to anything
    assert energies[1] >= 1 / 3
    assert energies[2] < energies[1]
    assert energies[3] == 1.0


def test_the_same_solutions_have_the_same_energies(tiny: LanguageModel) -> None:
    texts = [RIGHT.replace("10", str(number)) for number in range(10, 26)]  # more than are drawn for at a time
    expert = Reproduction(tiny, draws=16)
    first, again = (expert.energy(given(*texts), Problem(QUESTION)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (16,) and bool(((first >= 0) & (first <= 1)).all())


def test_proposals_bring_their_shares_with_them(tiny: LanguageModel) -> None:
    generator, problem, rng = StepGenerator(tiny, first=12, each=4, temperature=1.0), Problem(QUESTION), torch.Generator().manual_seed(1)
    beam, ensemble = Beam(3), Ensemble([Reproduction(tiny)])
    state = None
    for depth in range(1, 4):
        batch = generator.propose(problem, state, rng)
        shares, steps = batch.extras["reproduced"].T
        judged = [sum(outcome(line) is not None for line in text.splitlines()) for text in texts_of(batch)]
        assert steps.tolist() == judged
        assert bool(((shares >= 0) & (shares <= steps + 1e-9)).all())
        if depth == 1:  # of the lines that come to the same each has the share of all of them
            lines: dict[object, tuple[float, float]] = {}
            for text, share, votes in zip(texts_of(batch), shares.tolist(), batch.extras["votes"].tolist(), strict=True):
                known, total = lines.get(outcome(text.strip()), (share, 0.0))
                assert share == known
                lines[outcome(text.strip())] = (share, total + votes)
            assert all(share == pytest.approx(total / 12) for key, (share, total) in lines.items() if key is not None)
        table = ensemble.score(batch, problem)
        assert torch.equal(table.energies[:, 0], 1 - shares / steps.clamp_min(1)), "nothing is drawn again"
        state = beam.update(batch, table, state)
    ensemble.close()


def test_it_ends_at_the_deadline(tiny: LanguageModel) -> None:
    with pytest.raises(OutOfTime):
        Reproduction(tiny).energy(given(RIGHT), Problem(QUESTION, deadline=time.monotonic()))
