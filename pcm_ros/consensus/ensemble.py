"""Many scorers as one: run side by side, brought to one scale, added up; those that fail are left out and named."""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from pcm_ros.consensus.batch import Batch
from pcm_ros.consensus.energies import AGGREGATES, NORMALISATIONS, Aggregate, Normalise, ScoreTable, aggregated, normalised

log = logging.getLogger(__name__)


@runtime_checkable
class Scorer(Protocol):
    """One expert. Write a class with these four members and it takes part.

    Attributes:
        name: unique in its ensemble.
        cost: seconds per proposal, as an order of magnitude: the dearest is started first.
        differentiable: whether gradients of the energy flow back to `batch.parameters`.
    """

    name: str
    cost: float
    differentiable: bool

    def energy(self, batch: Batch, context: Any) -> Tensor:
        """(N,) real tensor, lower is better; +inf = infeasible; NaN and -inf are errors. The same input gives the same energies.

        Called from a thread of its own, without gradients unless the batch's parameters require them and the scorer is differentiable. It
        must not change the batch.
        """
        ...


class QuorumError(RuntimeError):
    """Too few scorers gave energies. `dropped` maps the names of those that failed to the reasons."""

    def __init__(self, present: int, needed: int, total: int, dropped: Mapping[str, str]) -> None:
        self.dropped = dict(dropped)
        reasons = "; ".join(f"{name}: {why}" for name, why in dropped.items())
        super().__init__(
            f"{present} of {total} scorers gave energies, the quorum is {needed}. Failed: {reasons}. "
            "Remedy: repair or restart them, give them more time (timeout), or lower the quorum."
        )


class InvalidEnergies(ValueError):
    """A scorer's answer that is not (N,) numbers without NaN and -inf."""


class _Answer(NamedTuple):
    """energies: (N,) float64 on the CPU."""

    energies: Tensor
    gradient: Tensor | None
    seconds: float


class _Worker:
    """A daemon thread that calls one scorer. It lives as long as the ensemble: the thread pools of torch are made once per thread."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._inbox: queue.SimpleQueue[tuple[Batch, Any, Future[_Answer]] | None] = queue.SimpleQueue()
        self._pending: Future[_Answer] | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()
        self._closed = False

    @property
    def busy(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def submit(self, batch: Batch, context: Any) -> Future[_Answer]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"scorer {self.scorer.name}", daemon=True)
            self._thread.start()
        self._pending = Future()
        with self._closing:  # behind the end of the inbox nobody would answer
            if self._closed:
                self._pending.set_exception(RuntimeError("the ensemble was closed meanwhile"))
            else:
                self._inbox.put((batch, context, self._pending))
        return self._pending

    def close(self) -> None:
        with self._closing:
            self._closed = True
            self._inbox.put(None)

    def wait(self, seconds: float) -> None:
        """Wait for an idle thread to end: one that is still ending while the interpreter shuts down may abort the process."""
        if self._thread is not None and self._thread is not threading.current_thread() and not self.busy:
            self._thread.join(seconds)

    def _serve(self) -> None:
        while (job := self._inbox.get()) is not None:
            batch, context, answer = job
            try:
                answer.set_result(_answer(self.scorer, batch, context))
            except BaseException as error:
                log.info("scorer '%s' failed", self.scorer.name, exc_info=error)
                _forget_frames(error)
                answer.set_exception(error)
            del job, batch, context, answer  # an idle thread must not keep images alive


def _forget_frames(error: BaseException) -> None:
    """Let go of what the frames of an error hold, images and models among it: whoever keeps the error keeps its text."""
    met: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in met:
            met.add(id(one))
            traceback.clear_frames(one.__traceback__)
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]


def _close_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.close()
    for worker in workers:
        worker.wait(1.0)


def _answer(scorer: Scorer, batch: Batch, context: Any) -> _Answer:
    start = time.perf_counter()
    wanted = scorer.differentiable and batch.parameters.requires_grad
    with torch.set_grad_enabled(wanted):  # the gradient mode is per thread
        energies = scorer.energy(batch, context)
        gradient = _gradient(energies, batch) if wanted else None
    checked = _checked(energies, len(batch))  # here, so that what a device still computes is waited for in this scorer's time
    return _Answer(checked, gradient, time.perf_counter() - start)


def _gradient(energies: object, batch: Batch) -> Tensor | None:
    """(N, D) of the energies' sum with respect to the parameters; None if the energies are no tensor, which `_checked` complains of.

    Several scorers may share a part of the graph (a decoder), so it is kept.
    """
    if not isinstance(energies, Tensor):
        return None
    if not energies.requires_grad:
        raise InvalidEnergies("the energies do not depend on the parameters in a way that gradients follow; set differentiable = False")
    (gradient,) = torch.autograd.grad(energies.sum(), batch.parameters, retain_graph=True)
    if not torch.isfinite(gradient).all():
        bad = int((~torch.isfinite(gradient)).any(dim=1).sum())
        raise InvalidEnergies(f"{bad} of {len(batch)} gradients are NaN or infinite")
    return gradient


def _checked(energies: object, count: int) -> Tensor:
    """(N,) float64 on the CPU, or InvalidEnergies that says what is wrong with a scorer's answer."""
    if not isinstance(energies, Tensor):
        raise InvalidEnergies(f"returned {type(energies).__name__}; a torch.Tensor of shape ({count},) is needed")
    if energies.layout != torch.strided:
        raise InvalidEnergies(f"returned a tensor of layout {energies.layout}; a dense one of shape ({count},) is needed")
    if energies.shape != (count,) or energies.is_complex():
        raise InvalidEnergies(f"returned {energies.dtype} {tuple(energies.shape)}; real numbers of shape ({count},) are needed")
    result = energies.detach().to(device="cpu", dtype=torch.float64, copy=True)
    for what, wrong in (("NaN", torch.isnan(result)), ("-inf", torch.isneginf(result))):
        if wrong.any():
            raise InvalidEnergies(f"{int(wrong.sum())} of {count} energies are {what}")
    return result


class Ensemble:
    """S scorers whose energies are combined into sum_n w_n norm_n(E_n(x, c)) or a robust mean of it.

    The scorers run concurrently, each in a daemon thread. One that raises, exceeds the timeout, or returns NaN, -inf or a wrong shape is
    left out of this call and named in `ScoreTable.dropped`; the totals are exactly those of an ensemble without it. One that is
    still busy with an earlier call is left out too rather than called again, and takes part again when it has come back. The result does
    not depend on the order in which scorers finish. It is the same bit for bit on one machine with the same number of torch threads.

    Args:
        scorers: at least one, names unique.
        weights: name -> weight >= 0, default 1 each. A scorer of weight 0 is run and shown but counts for nothing, the quorum included.
        normalise: see `energies.normalised`.
        aggregate: see `energies.aggregated`.
        quorum: fewest scorers (of weight > 0) that must answer: an int >= 1, or a float in (0, 1] = share of them, rounded up.
        timeout: seconds per call of `score`, > 0; None waits for ever.
        trim: for aggregate "trimmed_mean", share of the weight cut at either end, 0 <= trim < 0.5.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        weights: Mapping[str, float] | None = None,
        normalise: Normalise = "none",
        aggregate: Aggregate = "sum",
        quorum: int | float = 0.5,
        timeout: float | None = None,
        trim: float = 0.25,
    ) -> None:
        self.names = tuple(scorer.name for scorer in scorers)
        if not scorers or len(set(self.names)) != len(self.names):
            raise ValueError(f"an ensemble needs at least one scorer, and unique names; got {list(self.names)}")
        if unknown := set(weights or {}) - set(self.names):
            raise ValueError(f"weights for unknown scorers {sorted(unknown)}; the scorers are {list(self.names)}")
        self.weights = torch.tensor([float((weights or {}).get(name, 1.0)) for name in self.names], dtype=torch.float64)
        if not (torch.isfinite(self.weights) & (self.weights >= 0)).all() or not (self.weights > 0).any():
            raise ValueError(f"weights must be finite, >= 0 and not all zero, got {self.weights.tolist()} for {list(self.names)}")
        if normalise not in NORMALISATIONS:
            raise ValueError(f"normalise is '{normalise}'; allowed: {', '.join(NORMALISATIONS)}")
        if aggregate not in AGGREGATES:
            raise ValueError(f"aggregate is '{aggregate}'; allowed: {', '.join(AGGREGATES)}")
        if not 0 <= trim < 0.5:
            raise ValueError(f"trim is {trim}; allowed: 0 <= trim < 0.5")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is {timeout}; allowed: seconds > 0, or None to wait for ever")
        voters = int((self.weights > 0).sum())
        needed = quorum if isinstance(quorum, int) else math.ceil(quorum * voters - 1e-9)
        if isinstance(quorum, bool) or not quorum > 0 or not 1 <= needed <= voters:
            raise ValueError(f"quorum is {quorum}; allowed: an int from 1 to {voters} (scorers of weight > 0), or a share in (0, 1]")
        self.quorum, self.normalise, self.aggregate, self.timeout, self.trim = needed, normalise, aggregate, timeout, trim
        self._workers = tuple(_Worker(scorer) for scorer in scorers)
        self._dearest_first = sorted(range(len(scorers)), key=lambda n: -scorers[n].cost)
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close_all, self._workers)

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        return tuple(worker.scorer for worker in self._workers)

    def score(self, batch: Batch, context: Any, incumbents: int = 0) -> ScoreTable:
        """Ask every scorer about every proposal. Calls from several threads take turns.

        Args:
            incumbents: of no effect here, where all see all; see `Cascade.score`.

        Raises:
            QuorumError: fewer scorers than the quorum gave energies.
            RuntimeError: the ensemble was closed.
        """
        with self._lock:
            if not self._finalizer.alive:
                raise RuntimeError("this ensemble was closed; make a new one")
            return self._score(batch, context)

    def _score(self, batch: Batch, context: Any) -> ScoreTable:
        start = time.monotonic()
        answers = {n: self._workers[n].submit(batch, context) for n in self._dearest_first if not self._workers[n].busy}
        energies = torch.full((len(batch), len(self.names)), torch.nan, dtype=torch.float64)
        failures: dict[int, str] = {}
        seconds, gradients = {}, {}
        for n, name in enumerate(self.names):
            if n not in answers:
                failures[n] = "still busy with an earlier call"
                continue
            left = None if self.timeout is None else max(0.0, start + self.timeout - time.monotonic())
            try:
                error = answers[n].exception(left)
                if error is None:
                    answer = answers[n].result()
                    seconds[name] = answer.seconds
                    energies[:, n] = answer.energies
                    if answer.gradient is not None:
                        gradients[name] = answer.gradient
                elif isinstance(error, InvalidEnergies):
                    failures[n] = str(error)
                else:
                    failures[n] = f"{type(error).__name__}: {error}"
                    log.warning("scorer '%s' is left out: %s", name, failures[n])
            except TimeoutError:
                failures[n] = f"no answer within {self.timeout:g} s"
        dropped = {self.names[n]: why for n, why in failures.items()}
        voters = sum(1 for n, weight in enumerate(self.weights.tolist()) if weight > 0 and n not in failures)
        if voters < self.quorum:
            raise QuorumError(voters, self.quorum, int((self.weights > 0).sum()), dropped)
        scaled = torch.stack([normalised(column, self.normalise) for column in energies.T], dim=1)
        total = aggregated(scaled, self.weights, self.aggregate, self.trim)
        return ScoreTable(self.names, energies, self.weights.clone(), total, dropped, seconds, gradients)

    def close(self) -> None:
        """End the threads of idle scorers; one that hangs is left behind and does not keep the process alive."""
        self._finalizer()

    def __enter__(self) -> Ensemble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        weights = ", ".join(f"{name}={weight:g}" for name, weight in zip(self.names, self.weights.tolist(), strict=True))
        return f"Ensemble({weights}; {self.normalise}, {self.aggregate}, quorum={self.quorum}, timeout={self.timeout})"
