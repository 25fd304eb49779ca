"""Solvers by the name of their method, and the two functions that most people need: `solve` and `rank`."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from pcm_ros.consensus import Scorer
from pcm_ros.consensus.energies import NORMALISATIONS
from pcm_ros.models.causal_loading import embedded_language_model
from pcm_ros.models.language import LanguageModel
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.models.registry import WEIGHTS
from pcm_ros.models.sentence import sentence_encoder
from pcm_ros.tasks.mathematics.generator import StepGenerator
from pcm_ros.tasks.mathematics.notation import EXAMPLES
from pcm_ros.tasks.mathematics.proposals import Problem, never, usual_tokens
from pcm_ros.tasks.mathematics.scorers import Agreement, Arithmetic, GeneratorLikelihood, Likelihood, QuestionNumbers
from pcm_ros.tasks.mathematics.solver import (
    Progress,
    Ranking,
    Solution,
    Solver,
    Weighing,
    check_limits,
    checked_question,
    unsolved,
    why_it_ended,
)
from pcm_ros.tasks.mathematics.verifiers import HiddenStateVerifier, SentenceVerifier
from pcm_ros.turns import acquired

ADAPTER = WEIGHTS / "maths-adapter.safetensors"
SENTENCE = WEIGHTS / "maths-sentence-verifier.safetensors"
HIDDEN = WEIGHTS / "maths-hidden-verifier.safetensors"
FITTED = WEIGHTS / "maths-weights.json"
EXPERTS = ("arithmetic", "numbers", "agreement", "generator", "likelihood", "sentence", "hidden")
"""Names of all experts that an ensemble of this task may have."""
Method = Literal["consensus", "greedy", "majority"]
MOST_DRAWS = 256
METHODS: tuple[str, ...] = get_args(Method)
_loading = threading.Lock()


def shipped_adapter() -> Path | None:
    """The adapter that comes with the package; None where there is none: the embedded model then works from worked examples."""
    return ADAPTER if ADAPTER.is_file() else None


def chosen_adapter(model: Path | None, adapter: Path | None) -> Path | None:
    """The adapter that was asked for, by the path that `shipped_adapter` gives if it is that one; else the shipped one where the embedded
    model works."""
    shipped = shipped_adapter()
    if adapter is None:
        return shipped if model is None else None
    return shipped if shipped is not None and adapter.resolve() == shipped.resolve() else adapter


def shipped_verifiers(adapter: Path | None) -> tuple[Path | None, Path | None]:
    """Weights of the sentence verifier and of the hidden-state verifier that come with the package, (None, None) with another adapter.

    They learnt from solutions that the embedded model with the shipped adapter drew; of others' notation and mistakes they know nothing.
    """
    if adapter is None or adapter != shipped_adapter():
        return None, None
    return SENTENCE if SENTENCE.is_file() else None, HIDDEN if HIDDEN.is_file() else None


def shipped_weights(adapter: Path | None) -> Path | None:
    """The file of the experts' weights that comes with the package; None where there is none, and with another adapter, as above."""
    return FITTED if adapter is not None and adapter == shipped_adapter() and FITTED.is_file() else None


def expert_weighing(path: Path | None, experts: Sequence[Scorer]) -> Weighing:
    """What a file of training/maths_weights.py says of these experts; those that it leaves out count once. None: no file, see `Weighing`.

    Raises:
        ModelUnavailable: it is no such file, names an expert that does not exist, or has a weight that is not a finite number >= 0.
    """
    if path is None:
        return Weighing()
    remedy = "remedy: a file made by training/maths_weights.py, or none"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights, normalise = content["weights"], content.get("normalise", "zscore")
        wrong = {
            name: value
            for name, value in weights.items()
            if name not in EXPERTS or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnavailable(f"'{path}' holds no weights of experts ({error!r}); {remedy}") from error
    if wrong:
        raise ModelUnavailable(f"'{path}' has the weights {wrong}; allowed: finite numbers >= 0 for {', '.join(EXPERTS)}; {remedy}")
    if normalise not in NORMALISATIONS:
        raise ModelUnavailable(f"'{path}' has normalise '{normalise}'; allowed: {', '.join(NORMALISATIONS)}; {remedy}")
    names = [expert.name for expert in experts]
    if all(weights.get(name, 1.0) == 0 for name in names):
        raise ModelUnavailable(f"'{path}' leaves none of {', '.join(names)} a weight above 0; {remedy}")
    return Weighing({name: float(weights[name]) for name in names if name in weights}, normalise, fitted=True)


def language_model(path: Path | None = None, adapter: Path | None = None) -> LanguageModel:
    """A model with an adapter, loaded once a process. None = the embedded model, none. Raises ModelUnavailable."""
    with _loading:
        return _loaded(path or embedded_language_model(), adapter)


@functools.lru_cache(maxsize=4)  # whoever asks for ever new models must not fill the memory
def _loaded(path: Path, adapter: Path | None) -> LanguageModel:
    return LanguageModel(path, adapter, typical=EXAMPLES)


def preamble(adapter: Path | None) -> str:
    """What stands in front of a question: worked examples for a model without an adapter."""
    return EXAMPLES if adapter is None else ""


def scorers(model: Path | None, adapter: Path | None, sentence: Path | None = None, hidden: Path | None = None) -> list[Scorer]:
    """The experts of the ensemble on what a model with an adapter proposes. Arguments: see `solver`.

    Raises:
        ModelUnavailable: a file is missing or damaged.
        ValueError: hidden without an adapter.
    """
    if hidden is not None and adapter is None:
        raise ValueError(f"hidden is '{hidden}' without an adapter; remedy: give the adapter that the verifier was trained with, too")
    base = language_model(model, None)
    experts: list[Scorer] = [Arithmetic(), QuestionNumbers(), Agreement(), GeneratorLikelihood(), Likelihood(base)]
    if sentence is not None:
        experts.append(SentenceVerifier(sentence_encoder(), sentence))
    if hidden is not None:
        experts.append(HiddenStateVerifier(LanguageModel(model, adapter=adapter, pack=False, typical=EXAMPLES), hidden))
    return experts


def solver(
    method: Method = "consensus",
    beam: int = 5,
    proposals: int = 4,
    temperature: float = 0.7,
    model: Path | None = None,
    adapter: Path | None = None,
    stop_here: bool = True,
    calculate: bool = True,
    sentence: Path | None = None,
    hidden: Path | None = None,
    weights: Path | None = None,
) -> Solver:
    """A solver, all baselines included.

    Args:
        method: "consensus" = beam search over steps with all experts; "greedy" = the likeliest step each time, no experts;
            "majority" = beam * proposals plain samples, and the answer that most of them give.
        beam: partial solutions kept. proposals: steps drawn for each; beam * proposals at the first step.
        model: another language model, a GGUF file or a folder; None = the embedded one.
        adapter: merged into the model; None = none: the model then works from worked examples in the prompt. See `shipped_adapter`.
        stop_here, calculate: see `StepGenerator`.
        sentence, hidden: weights of the trained verifiers; None = the ensemble does without. hidden belongs to the adapter.
        weights: file of the experts' weights, see `expert_weighing`; None = each counts once.

    Raises:
        ModelUnavailable: a model or the adapter is missing or damaged.
        ValueError: an argument out of its range.
    """
    if method not in METHODS:
        raise ValueError(f"method is '{method}'; allowed: {', '.join(METHODS)}")
    for name, value in (("beam", beam), ("proposals", proposals)):
        if not 1 <= value <= 64:
            raise ValueError(f"{name} is {value}; allowed: 1..64")
    if beam * proposals > MOST_DRAWS:
        raise ValueError(f"beam * proposals is {beam * proposals}; allowed: at most {MOST_DRAWS} draws a round (memory)")
    if adapter is not None and not Path(adapter).is_file():
        raise ModelUnavailable(f"'{adapter}' does not exist; remedy: make it with training/maths_adapter.py, or do without")
    generating = language_model(model, adapter)
    examples = preamble(adapter)
    if method == "greedy":
        generator = StepGenerator(generating, 1, 1, temperature=0, stop_here=False, calculate=calculate, preamble=examples)
        return Solver(generator, [GeneratorLikelihood()], width=1)
    count = beam * proposals
    if method == "majority":
        generator = StepGenerator(
            generating, count, 1, by_votes=True, temperature=temperature, stop_here=False, calculate=calculate, preamble=examples
        )
        return Solver(generator, [Agreement()], width=count)
    generator = StepGenerator(
        generating, count, proposals, temperature=temperature, stop_here=stop_here, calculate=calculate, preamble=examples
    )
    experts = scorers(model, adapter, sentence, hidden)
    return Solver(generator, experts, expert_weighing(weights, experts), width=beam)


class _Turns:
    """Who may use the shared solvers: one at a time, since their generators keep what they read of one problem."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    @contextlib.contextmanager
    def taken(self, late: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a turn, and give it back at the end; any thread may do that. False where it became late before it was one's turn.

        Raises:
            RuntimeError: the turn is this thread's own, and it will never come to give it back while it waits here.
        """

        def given_up() -> bool:
            if self._thread == threading.get_ident():
                raise RuntimeError(
                    "an earlier `progress` of this thread is not finished, and this call would wait for it for ever; "
                    "remedy: go on to its end, or close it"
                )
            return late()

        if not acquired(self._lock, given_up):
            yield False
            return
        try:
            self.used()
            yield True
        finally:
            self._thread = None
            self._lock.release()

    def used(self) -> None:
        """Whoever has the turn says that this thread is the one that goes on with it."""
        self._thread = threading.get_ident()


_turns = _Turns()


@functools.lru_cache(maxsize=4)  # as above
def shared_solver(method: Method, beam: int, proposals: int, temperature: float, model: Path | None, adapter: Path | None) -> Solver:
    """`solver` with what is shipped (`chosen_adapter`, `shipped_verifiers`, `shipped_weights`), made once for the same arguments; it solves
    one at a time."""
    tuned = chosen_adapter(model, adapter)
    sentence, hidden = shipped_verifiers(tuned)
    return solver(method, beam, proposals, temperature, model, tuned, sentence=sentence, hidden=hidden, weights=shipped_weights(tuned))


def solve(
    question: str,
    beam: int = 5,
    proposals: int = 4,
    deadline: float | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    method: Method = "consensus",
    model: Path | None = None,
    adapter: Path | None = None,
    temperature: float = 0.7,
) -> Solution:
    """Solve a word problem. Calls from several threads take turns. Arguments and errors: `solver`, `Solver.iterate` and `progress`.

    Args:
        adapter: None = the shipped one, if there is one, for the embedded model (to do without, give `embedded_language_model()`).
    """
    told = progress(question, beam, proposals, deadline, max_tokens, seed, method, model, adapter, temperature)
    with contextlib.closing(told):
        for result in told:
            if isinstance(result, Solution):
                return result
    raise AssertionError("progress ends with a Solution")


def progress(
    question: str,
    beam: int = 5,
    proposals: int = 4,
    deadline: float | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    method: Method = "consensus",
    model: Path | None = None,
    adapter: Path | None = None,
    temperature: float = 0.7,
    stop: Callable[[], bool] = never,
) -> Generator[Progress | Solution]:
    """`solve`, with what is found after each round.

    Calls take turns: from its first result to its last, the iterator keeps all others waiting, `solve` and `rank` too. One that is not
    gone on with to its end lets them go on once it is closed (`close()`, `contextlib.closing`) or garbage collected. Whoever waits looks
    at its own deadline and at `stop`, and is then given a solution without steps, marked.

    Args:
        deadline: counts from the first request of a result, waiting included; what loading takes of it is not torn apart.
        max_tokens: None or 0 = `usual_tokens` of beam * proposals.

    Raises:
        RuntimeError: this thread itself has an unfinished iterator, which it would wait for for ever.
    """
    started = time.monotonic()
    text = checked_question(question)
    max_tokens = max_tokens or usual_tokens(beam * proposals)
    check_limits(deadline, max_tokens)
    problem = Problem(text, None if deadline is None else started + deadline, max_tokens, stop)
    with _turns.taken(lambda: problem.late) as mine:
        if not mine:
            yield unsolved(question, why_it_ended(problem), time.monotonic() - started)
            return
        solving = shared_solver(method, beam, proposals, temperature, model, adapter)
        left = None if problem.deadline is None else max(1e-9, problem.deadline - time.monotonic())
        for result in solving.iterate(question, seed, left, max_tokens, stop):
            yield result
            _turns.used()


def rank(question: str, solutions: Sequence[str]) -> Ranking:
    """Order given solutions of a word problem, best first, by the same ensemble.

    It waits for its turn, see `progress`.

    Arguments and errors: `Solver.rank`; also RuntimeError, as `progress`.
    """
    with _turns.taken(never):
        return shared_solver("consensus", 5, 4, 0.7, None, None).rank(question, solutions)
