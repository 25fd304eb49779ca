"""What becomes of the lines that a model draws: whose votes they get, and what too few tokens do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.consensus import Batch, Beam, BeamState, Ensemble
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.proposals import OutOfTime, Problem, texts_of, usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, GeneratorLikelihood
from pcm_ros.tasks.mathematics.solver import Solution, Solver
from tests.tasks.mathematics.scripted_language import QUESTION, ScriptedModel

STEP = "He needs <<45/20=2.25>> boxes.\n"


def generator(script: Mapping[str, Sequence[str]], stopping: float = 0.25, **options: Any) -> StepGenerator:
    model: Any = ScriptedModel(script, stopping)
    return StepGenerator(model, **{"first": 4, "each": 4, "temperature": 1.0, **options})


def second_round(proposing: StepGenerator, max_tokens: int = 4000) -> Batch:
    """What is proposed behind all that the first round proposed."""
    problem, rng = Problem(QUESTION, max_tokens=max_tokens), torch.Generator().manual_seed(0)
    batch = proposing.propose(problem, None, rng)
    ensemble = Ensemble([GeneratorLikelihood()])
    state = Beam(20).update(batch, ensemble.score(batch, problem), None)
    ensemble.close()
    assert isinstance(state, BeamState)
    return proposing.propose(problem, state, rng)


def votes_of(batch: Batch) -> dict[str, float]:
    """By text, without the first step."""
    votes = batch.extras["votes"].tolist()
    return {text.removeprefix(STEP): number for text, number in zip(texts_of(batch), votes, strict=True)}


def test_the_models_own_answer_is_a_proposal_beside_the_last_result() -> None:
    batch = second_round(generator({"": [STEP], STEP: ["#### 3", "#### 3", "#### 2.250", "<<2+1=3>>\n"]}))
    assert votes_of(batch) == pytest.approx({"#### 2.25": 4 * 0.25 / 3, "#### 3": 4 * 0.25 * 2 / 3, "<<2+1=3>>\n": 3.0})
    shares = dict(zip(texts_of(batch), batch.extras["reproduced"].tolist(), strict=True))
    assert shares[STEP + "#### 3"] == pytest.approx([1 + 0.25 * 2 / 3, 2])
    assert shares[STEP + "#### 2.25"] == pytest.approx([1 + 0.25 / 3, 2])
    assert shares[STEP + "<<2+1=3>>\n"] == pytest.approx([1 + 1 / 4, 2])


def test_where_no_answer_is_drawn_the_last_result_has_all_its_votes() -> None:
    assert votes_of(second_round(generator({"": [STEP], STEP: ["<<2+1=3>>\n"]}))) == pytest.approx({"#### 2.25": 1.0, "<<2+1=3>>\n": 3.0})


def test_where_nothing_else_is_drawn_answers_have_all_votes() -> None:
    assert votes_of(second_round(generator({"": [STEP], STEP: ["#### 3"]}))) == pytest.approx({"#### 2.25": 0.0, "#### 3": 4.0})


def test_a_model_that_always_rounds_up_is_believed() -> None:
    solver = Solver(generator({"": [STEP], STEP: ["#### 3"]}, 0.9), [Agreement()], width=3)
    found = solver.solve(QUESTION)
    assert (found.answer, found.complete) == ("3", True)
    solver.close()


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["#### 3", "#### 2.25", "#### 2.250\n", "#### none", "<<2+1=3>>\n", "So it is.\n", "\n", "x" * 100]),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.01, 0.99),
)
def test_votes_are_kept(lines: list[str], stopping: float) -> None:
    proposing = generator({"": [STEP], STEP: lines}, stopping, each=len(lines))
    batch = second_round(proposing)
    votes = batch.extras["votes"]
    assert len(set(texts_of(batch))) == len(batch)
    assert bool((votes >= 0).all())
    usable = [line for line in lines if line.strip() and len(line) <= proposing.longest]
    assert float(votes.sum()) == pytest.approx(4.0 if usable else 4 * stopping, rel=1e-5)


@settings(deadline=None)
@given(st.integers(1, 600), st.integers(1, 60))
def test_no_more_tokens_are_spent_than_allowed_and_lines_are_whole(allowed: int, first: int) -> None:
    proposing = generator({"": ["He has <<2*3=6>> eggs.\n", "#### 6"]}, first=first)
    proposing.propose(Problem(QUESTION, max_tokens=allowed), None, torch.Generator())
    model: Any = proposing.model
    assert proposing.spent <= allowed
    assert len(model.drawn) == max(1, min(first, allowed // proposing.longest))
    assert allowed < proposing.longest or all(ended != "limit" for *_, ended in model.drawn)


def test_the_best_beams_come_first_where_tokens_are_few() -> None:
    """All characters are as likely, so that beams stay in order; behind the first round there is room for two whole lines."""
    steps = [f"<<{n}*1={n}>>" + "." * n + "\n" for n in (2, 3, 4)]
    proposing = generator({"": steps, **{step: ["#### 7"] for step in steps}}, first=3)
    batch = second_round(proposing, sum(map(len, steps)) + 3 * proposing.longest - 1)
    model: Any = proposing.model
    begun = [solution for solution, *_ in model.drawn if solution]
    assert begun == steps[:2], "one each, and none for the last"
    assert proposing.limited
    for number, step in zip((2, 3, 4), steps, strict=True):  # each may stop, whether drawn for or not
        assert f"{step}#### {number}" in texts_of(batch)


def test_many_proposals_come_to_an_answer_with_few_tokens() -> None:
    solver = Solver(generator({"": [STEP], STEP: ["#### 3"]}, first=100, each=10), [Agreement()], width=10)
    assert solver.solve(QUESTION, max_tokens=4000).answer == "3"
    solver.close()


def test_a_search_that_tokens_cut_short_says_so() -> None:
    """The line behind the step is longer than what is left: only stopping remains."""
    solver = Solver(generator({"": [STEP], STEP: ["a long line\n"]}, first=1, each=1), [Agreement()], width=1)
    found = solver.solve(QUESTION, max_tokens=len(STEP) + 5)
    assert (found.answer, found.complete, found.reason) == ("2.25", False, "tokens")
    solver.close()


class SeesTheLimit:
    """A scorer that remembers how many tokens were allowed."""

    name, cost, differentiable = "limit", 1.0, False
    allowed = 0

    def energy(self, batch: Batch, context: Problem) -> torch.Tensor:
        self.allowed = context.max_tokens
        return torch.zeros(len(batch), dtype=torch.float64)


@pytest.mark.parametrize(("first", "tokens"), [(1, 4000), (20, 4000), (21, 4200), (100, 20_000)])
def test_many_draws_may_cost_many_tokens(first: int, tokens: int) -> None:
    assert usual_tokens(first) == tokens
    scorer = SeesTheLimit()
    solver = Solver(generator({"": ["#### 3"]}, first=first), [scorer], width=1)
    solver.solve(QUESTION)
    assert scorer.allowed == tokens
    solver.close()


def test_tokens_of_an_earlier_run_are_not_counted_again() -> None:
    proposing = generator({"": ["#### 3"]})
    proposing.propose(Problem(QUESTION), None, torch.Generator())
    assert proposing.spent > 0
    with pytest.raises(OutOfTime):
        proposing.propose(Problem(QUESTION, stop=lambda: True), None, torch.Generator())
    assert proposing.spent == 0
    solver = Solver(proposing, [Agreement()])
    assert solver.solve(QUESTION).tokens > 0
    *_, found = solver.iterate(QUESTION, stop=lambda: True)
    assert isinstance(found, Solution)
    assert (found.tokens, found.reason) == (0, "cancelled")
    solver.close()
