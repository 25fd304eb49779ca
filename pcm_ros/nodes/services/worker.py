"""One thread and one bounded queue for a task: every request gets exactly one answer, in time, whatever the task does."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pcm_ros.nodes.services.task import Refused, ServedTask, Work, checked_deadline

_LONGEST_ID = 100
QUEUED, STARTED, WORKING, ANSWERED = "queued", "started", "working", "answered"


@dataclass(frozen=True)
class Report:
    """How far a request is: the fields of ServiceProgress."""

    task: str
    id: str
    phase: str
    step: int
    steps: int
    seconds: float
    message: str


@dataclass(eq=False)
class _Job:
    request: Any
    send: Callable[[Any], None]
    arrived: float
    deadline: float
    cancelled: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    started: float = 0.0


class Worker:
    """Works on the requests of a task one after the other.

    Args:
        task: what is served.
        waiting: requests that may wait, >= 1; one more is answered at once with BUSY.
        longest: seconds that a request may take at most, waiting included.
        grace: seconds after its deadline at which a request that is worked on is answered without the task.
        tell: called with each report, from several threads. complain: called with what is to be logged.
    """

    def __init__(
        self,
        task: ServedTask,
        waiting: int,
        longest: float,
        grace: float,
        tell: Callable[[Report], None],
        complain: Callable[[str], None],
        warm_up: bool = False,
    ) -> None:
        self.task, self._size, self._longest, self._grace = task, waiting, longest, grace
        self._tell, self._complain, self._warm = tell, complain, warm_up
        self._queue: deque[_Job] = deque()
        self._running: _Job | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._warming = ""
        self.answered, self.failure = 0, ""
        self._thread = threading.Thread(target=self._work, name=task.name, daemon=True)
        self._thread.start()

    def submit(self, request: Any, send: Callable[[Any], None]) -> None:
        """Queue a request; `send` is called with its answer, once, from some thread. Never waits."""
        now = time.monotonic()
        job = _Job(request, send, now, now)
        try:
            if len(request.id) > _LONGEST_ID:
                raise Refused("INVALID_REQUEST", f"id has {len(request.id)} characters; allowed: at most {_LONGEST_ID}")
            job.deadline = now + checked_deadline(float(request.deadline), self._longest)
            with self._changed:
                if self._ended:
                    raise Refused("CANCELED", "the node is being deactivated")
                if len(self._queue) >= self._size:
                    raise Refused("BUSY", f"{len(self._queue)} requests are waiting, no more may (parameter 'waiting'); ask again later")
                ahead = len(self._queue) + (self._running is not None)
                self._queue.append(job)
                self._changed.notify_all()
        except Refused as refusal:
            self._refuse(job, refusal)
            return
        self._report(job, QUEUED, message=f"{ahead} ahead")

    def cancel(self, identity: str) -> bool:
        """Cancel what has this id; whether there was anything."""
        with self._changed:
            jobs = [job for job in (*self._queue, self._running) if job is not None and identity and job.request.id == identity]
            for job in jobs:
                job.cancelled.set()
                job.deadline = min(job.deadline, time.monotonic())  # a task that does not stop is given up after the grace
        self.expire()
        return bool(jobs)

    def expire(self) -> None:
        """Answer requests whose time is over or that were cancelled while they waited; to be called several times a second."""
        now = time.monotonic()
        with self._changed:
            over = [job for job in self._queue if job.cancelled.is_set() or now >= job.deadline]
            for job in over:
                self._queue.remove(job)
            running = self._running
        for job in over:
            if job.cancelled.is_set():
                self._refuse(job, Refused("CANCELED", "cancelled while it waited"))
            else:
                self._refuse(job, Refused("DEADLINE", f"the deadline came while it waited ({self._busy_with(now)})"))
        if running is not None and now >= running.deadline + self._grace:
            if running.cancelled.is_set():
                self._refuse(running, Refused("CANCELED", f"cancelled; the task has not stopped {self._grace:g} s later"))
            else:
                self._refuse(running, Refused("DEADLINE", f"no answer {self._grace:g} s after the deadline: the task does not keep it"))

    def state(self) -> dict[str, str]:
        """For diagnostics."""
        running = self._running
        told = {"waiting": str(len(self._queue)), "answered": str(self.answered), "last failure": self.failure}
        if running is not None:
            told["at work for (s)"] = f"{time.monotonic() - running.started:.1f}"
        if self._warming:
            told["loading"] = self._warming
        return told

    @property
    def stuck(self) -> bool:
        """Whether it is at work on something that was to be over long ago."""
        running = self._running
        return running is not None and running.answered.is_set()

    def close(self, patience: float = 5.0) -> None:
        """Answer all that is left with CANCELED and end the thread; a task that does not stop keeps it, for nobody."""
        with self._changed:
            self._ended = True
            left = list(self._queue)
            self._queue.clear()
            if self._running is not None:
                self._running.cancelled.set()
            self._changed.notify_all()
        for job in left:
            self._refuse(job, Refused("CANCELED", "the node was deactivated"))
        self._thread.join(patience)
        if (running := self._running) is not None:
            self._refuse(running, Refused("CANCELED", "the node was deactivated"))

    def _busy_with(self, now: float) -> str:
        running = self._running
        if self._warming:
            return f"models are loading: {self._warming}"
        return f"another request has been worked on for {now - running.started:.1f} s" if running else "its turn had just come"

    def _work(self) -> None:
        if self._warm:
            self._warming = self.task.name
            try:
                self.task.warm_up()
            except Exception as error:  # told again to whoever asks
                self.failure = f"{type(error).__name__}: {error}"
                self._complain(f"task '{self.task.name}' could not load its models: {self.failure}")
            self._warming = ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._queue)
                if self._ended:
                    return
                job = self._running = self._queue.popleft()
                job.started = time.monotonic()
            try:
                self._carry_out(job)
            finally:
                with self._changed:
                    self._running = None

    def _carry_out(self, job: _Job) -> None:
        self._report(job, STARTED)
        work = Work(
            job.deadline,
            job.arrived,
            job.started,
            lambda: job.cancelled.is_set() or self._ended,
            lambda step, steps, words: self._report(job, WORKING, step, steps, words),
        )
        try:
            response = self.task.answer(job.request, work)
        except Refused as refusal:
            self._refuse(job, refusal)
        except Exception as error:  # a defect, or whatever a model raises: it ends this request, not the node
            self._complain(traceback.format_exc())
            self._refuse(job, Refused("ERROR", f"{type(error).__name__}: {error}"))
        else:
            self._send(job, response)

    def _refuse(self, job: _Job, refusal: Refused) -> None:
        answer = self.task.kind.Response
        response = answer(error_code=getattr(answer, refusal.code), error_msg=str(refusal))
        if hasattr(response, "seconds"):
            response.seconds = time.monotonic() - job.arrived
        self._send(job, response)

    def _send(self, job: _Job, response: Any) -> None:
        with self._changed:
            if job.answered.is_set():
                return
            job.answered.set()
            self.answered += 1
        if response.error_code == self.task.kind.Response.ERROR:
            self.failure = response.error_msg
        elif response.error_code == 0:
            self.failure = ""
        job.send(response)
        self._report(job, ANSWERED, message=response.error_msg)

    def _report(self, job: _Job, phase: str, step: int = 0, steps: int = 0, message: str = "") -> None:
        seconds = time.monotonic() - job.arrived
        self._tell(Report(self.task.name, str(job.request.id)[:_LONGEST_ID], phase, step, steps, seconds, message))
