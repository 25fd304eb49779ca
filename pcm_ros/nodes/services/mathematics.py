"""/pcm/solve_math: word problems, solved by `pcm_ros.tasks.mathematics`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pcm_ros import msg, srv
from pcm_ros.consensus import QuorumError
from pcm_ros.models.causal_loading import embedded_language_model
from pcm_ros.models.language import COLDEST
from pcm_ros.models.loading import ModelUnavailable
from pcm_ros.nodes import conversions
from pcm_ros.nodes.lifecycle import ConfigurationError, Parameter
from pcm_ros.nodes.services.task import Refused, ServedTask, Work, check_path
from pcm_ros.tasks.mathematics import assembly
from pcm_ros.tasks.mathematics.solver import MOST_STEPS, Candidate, Progress, Solution, Step, UnusableQuestion

SHIPPED, NO_ADAPTER = "shipped", "none"


class Mathematics(ServedTask):
    """Word problems. One at a time: the generator keeps what it has read of a question."""

    name, service, kind = "mathematics", "pcm/solve_math", srv.SolveMath
    PARAMETERS = (
        Parameter("mathematics.beam", 5, "partial solutions kept, where the request says 0", low=1, high=64),
        Parameter("mathematics.proposals", 4, "steps drawn for each of them, where the request says 0", low=1, high=64),
        Parameter("mathematics.temperature", 0.7, "of the draws, where the request says 0", low=0.01, high=5.0),
        Parameter(
            "mathematics.max_tokens",
            0,
            "tokens that a request may cost, where it says 0; 0: 200 * beam * proposals, at least 4000",
            low=0,
            high=1_000_000,
        ),
        Parameter("mathematics.model", "", "GGUF file or folder of the language model; empty: the embedded one"),
        Parameter(
            "mathematics.adapter",
            SHIPPED,
            "low-rank adapter (.safetensors) of the model; 'shipped': the package's own, for the embedded model; 'none'",
        ),
    )

    def check(self) -> None:
        """Raises ConfigurationError: files that are not there, or more draws than a round may have."""
        check_path("mathematics.model", self.value("mathematics.model"))
        if (adapter := self.value("mathematics.adapter")) not in (SHIPPED, NO_ADAPTER):
            check_path("mathematics.adapter", adapter)
        beam, proposals = self.value("mathematics.beam"), self.value("mathematics.proposals")
        if beam * proposals > assembly.MOST_DRAWS:
            raise ConfigurationError(
                f"parameters 'mathematics.beam' and 'mathematics.proposals' are {beam} and {proposals}; allowed: a product of at most "
                f"{assembly.MOST_DRAWS}"
            )

    def answer(self, request: Any, work: Work) -> Any:
        """Raises Refused."""
        beam, proposals, tokens = (
            getattr(request, name) or self.value(f"mathematics.{name}") for name in ("beam", "proposals", "max_tokens")
        )
        temperature = request.temperature or self.value("mathematics.temperature")
        if not (math.isfinite(temperature) and COLDEST <= temperature <= 5):
            raise Refused("INVALID_REQUEST", f"temperature is {temperature}; allowed: {COLDEST} to 5; 0: the node's parameter")
        if request.seed >= 2**63:
            raise Refused("INVALID_REQUEST", f"seed is {request.seed}; allowed: 0 to 2**63 - 1")
        model, adapter = self._models(request.model, request.adapter)
        method: Any = request.method or "consensus"
        if (left := work.left) <= 0:
            raise Refused("DEADLINE", "the deadline came before work began")
        try:
            rounds = assembly.progress(
                request.question, beam, proposals, left, tokens, request.seed, method, model, adapter, temperature, work.stop
            )
            with contextlib.closing(rounds):  # whatever happens here, the next one's turn comes
                for found in rounds:
                    if isinstance(found, Solution):
                        return response_of(found, work)
                    work.report(found.round + 1, MOST_STEPS, _told(found))
        except (UnusableQuestion, ValueError) as error:
            raise Refused("INVALID_REQUEST", str(error)) from error
        except ModelUnavailable as error:
            raise Refused("MODEL", str(error)) from error
        except QuorumError as error:
            raise Refused("QUORUM", str(error)) from error
        raise AssertionError("progress ends with a Solution")

    def warm_up(self) -> None:
        """Raises ModelUnavailable."""
        model, adapter = self._models("", "")
        if adapter is None and model is None:
            adapter = assembly.shipped_adapter()
        assembly.language_model(model, adapter)
        assembly.language_model(model, None)

    def _models(self, model: str, adapter: str) -> tuple[Path | None, Path | None]:
        """Of a request, completed by the node's; None and None: the embedded one with the shipped adapter."""
        if model:
            return Path(model), Path(adapter) if adapter else None
        own = Path(found) if (found := self.value("mathematics.model")) else None
        if adapter:
            return own, Path(adapter)
        configured = self.value("mathematics.adapter")
        if configured == SHIPPED:
            return own, None
        if configured == NO_ADAPTER:
            return own or embedded_language_model(), None
        return own, Path(configured)


def _told(found: Progress) -> str:
    return found.beams[0].strip().replace("\n", " | ") if found.beams else ""


def response_of(solution: Solution, work: Work) -> Any:
    """The response that says what was found."""
    response = srv.SolveMath.Response()
    if not solution.steps and solution.reason == "deadline":
        response.error_code, response.error_msg = response.DEADLINE, "the deadline came before a step was found; remedy: a later one"
    if solution.reason == "cancelled":
        response.error_code, response.error_msg = response.CANCELED, "cancelled"
    response.partial, response.reason = not solution.complete, solution.reason
    response.answer = solution.answer or ""
    response.steps = [step.text for step in solution.steps]
    response.scores = conversions.score_messages([step.energies for step in solution.steps])
    response.weights = [solution.weights[score.scorer] for score in response.scores]
    response.energy = float(solution.energy)
    response.runner_up_answers = [candidate.answer or "" for candidate in solution.runners_up]
    response.runner_up_solutions = [candidate.text for candidate in solution.runners_up]
    response.runner_up_energies = [float(candidate.answer_energy) for candidate in solution.runners_up]
    response.runner_up_scores = conversions.score_messages([candidate.energies for candidate in solution.runners_up])
    response.agreement, response.votes = float(solution.agreement), float(solution.votes)
    response.seconds, response.waited = work.started - work.arrived + solution.seconds, work.started - work.arrived
    response.tokens = int(solution.tokens)
    response.dropped = sorted(solution.dropped)
    response.dropped_reasons = [solution.dropped[name] for name in sorted(solution.dropped)]
    return response


def solution_of(question: str, response: Any) -> Solution:
    """The inverse of `response_of`; steps are in the words for people."""
    rows = [_row(response.scores, index) for index in range(len(response.steps))]
    others = zip(response.runner_up_answers, response.runner_up_solutions, response.runner_up_energies, strict=True)
    return Solution(
        question,
        response.answer or None,
        tuple(Step(text, text, row) for text, row in zip(response.steps, rows, strict=True)),
        response.energy,
        tuple(
            Candidate(answer or None, text, math.nan, math.nan, _row(response.runner_up_scores, index), energy)
            for index, (answer, text, energy) in enumerate(others)
        ),
        response.agreement,
        response.votes,
        not response.partial,
        response.reason,
        response.tokens,
        response.seconds,
        dict(zip(response.dropped, response.dropped_reasons, strict=True)),
        weights={score.scorer: weight for score, weight in zip(response.scores, response.weights, strict=True)},
    )


def _row(scores: Sequence[msg.Score], index: int) -> dict[str, float]:
    return {score.scorer: score.energies[index] for score in scores if not math.isnan(score.energies[index])}
