"""What becomes of the lines that a model draws: whose votes they get, and what too few tokens do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.consensus import Batch, Beam, BeamState, Ensemble
from pcm_ros.models.key_value_cache import Branches, Grown
from pcm_ros.models.language import LanguageModel
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import prompt
from pcm_ros.tasks.mathematics.proposals import OutOfTime, Problem, texts_of, usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, GeneratorLikelihood
from pcm_ros.tasks.mathematics.solver import Solution, Solver
from tests.tasks.mathematics.conftest import KNOWN
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


def test_where_no_answer_is_drawn_the_last_result_has_all_its_votes() -> None:
    assert votes_of(second_round(generator({"": [STEP], STEP: ["<<2+1=3>>\n"]}))) == pytest.approx({"#### 2.25": 1.0, "<<2+1=3>>\n": 3.0})


def test_where_nothing_else_is_drawn_answers_have_all_votes() -> None:
    assert votes_of(second_round(generator({"": [STEP], STEP: ["#### 3"]}))) == pytest.approx({"#### 2.25": 0.0, "#### 3": 4.0})


def test_nothing_is_written_behind_the_end() -> None:
    """A line that ends with the end token is the last one, whether it states an answer or not, and what it comes to is not its answer."""
    batch = second_round(generator({"": [STEP], STEP: ["So <<2+1=3>> boxes.", "<<2+1=3>>\n"]}))
    complete = dict(zip(votes_of(batch), batch.extras["complete"].tolist(), strict=True))
    assert complete == {"#### 2.25": True, "So <<2+1=3>> boxes.": True, "<<2+1=3>>\n": False}
    assert votes_of(batch) == pytest.approx({"#### 2.25": 1.0, "So <<2+1=3>> boxes.": 1.5, "<<2+1=3>>\n": 1.5})


def test_a_solution_that_ends_without_an_answers_line_has_its_last_number() -> None:
    solver = Solver(generator({"": ["So there are 3."]}, stop_here=False), [Agreement()], width=2)
    found = solver.solve(QUESTION)
    solver.close()
    assert (found.answer, found.complete, len(found.steps)) == ("3", True, 1)


def test_what_stands_behind_the_line_break_is_cut_off() -> None:
    proposing = generator({"": ["<<2*3=6>> eggs.\n\n", "<<2*3=6>> eggs.\n", "<<3*3=9>> cups.\n So\n"]})
    batch = proposing.propose(Problem(QUESTION), None, torch.Generator())
    assert votes_of(batch) == {"<<2*3=6>> eggs.\n": 3.0, "<<3*3=9>> cups.\n": 1.0}


class Says:
    """A language model whose next lines are given, in turn; "<end>" behind one is its end token."""

    def __init__(self, model: LanguageModel, lines: Sequence[str]) -> None:
        self.model, self.lines, self.read_again = model, lines, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def feed(self, *arguments: Any, **named: Any) -> Any:
        self.read_again += 1
        return self.model.feed(*arguments, **named)

    def write(self, branches: Branches, rows: Sequence[int], *_: object) -> Grown:
        said = [self.lines[row % len(self.lines)] for row in range(len(rows))]
        ended = tuple("end" if line.endswith("<end>") else "line" for line in said)
        pieces = [self.model.encode(line.removesuffix("<end>")) for line in said]
        tokens = [[*piece, *self.model.end] if end == "end" else piece for piece, end in zip(pieces, ended, strict=True)]
        fed, likelihoods = self.model.feed(branches, rows, tokens)
        return Grown(tuple(map(tuple, tokens)), likelihoods, ended, fed)


@pytest.mark.parametrize(("line", "again"), [("a cat <<1+1=2>>\n", 0), ("a cat <<1+1=2>>\n\n", 1), ("a cat <<1+1=2>>\n a", 1)])
def test_the_model_goes_on_from_the_text_of_a_beam(tiny: LanguageModel, line: str, again: int) -> None:
    """What it wrote itself is not read again, unless the text is not quite that."""
    says: Any = Says(tiny, [line])
    proposing = StepGenerator(says, first=2, each=1)
    batch = proposing.propose(Problem(QUESTION), None, torch.Generator())
    (text,) = texts_of(batch)
    assert text == "a cat <<1+1=2>>\n"
    branches, (row,) = proposing._branches([text])
    assert says.read_again == again
    fresh = tiny.read([tiny.encode(prompt(QUESTION)) + tiny.encode(text)])
    assert torch.allclose(branches.logits[row], fresh.logits[0], atol=1e-4)
    assert int(branches.lengths[row]) == int(fresh.lengths[0])


def test_no_step_is_read_again_in_a_usual_search(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "feed", lambda *_, **__: pytest.fail("a step was read again"))
    solver = Solver(StepGenerator(tiny, first=6, each=2, temperature=0.3), [GeneratorLikelihood()], width=3)
    assert solver.solve(next(iter(KNOWN))).answer == "10"
    assert not solver.generator._open, "and nothing is kept at the end"
    solver.close()


def test_the_end_token_is_not_read_on_from(tiny: LanguageModel) -> None:
    says: Any = Says(tiny, ["a cat <<1+1=2>><end>", "a mat <<2+2=4>>\n"])
    proposing = StepGenerator(says, first=2, each=1)
    batch = proposing.propose(Problem(QUESTION), None, torch.Generator())
    complete = dict(zip(texts_of(batch), batch.extras["complete"].tolist(), strict=True))
    assert complete == {"a cat <<1+1=2>>": True, "a mat <<2+2=4>>\n": False}
    assert set(proposing._open) == {"a mat <<2+2=4>>\n"}


@pytest.mark.parametrize("temperature", [-1.0, 1e-40, 0.009, 5.1, float("nan")])
def test_temperatures_that_cannot_be_drawn_at(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*; allowed: 0, or 0\.01\.\.5"):
        generator({}, temperature=temperature)


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
