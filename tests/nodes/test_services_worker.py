"""The queue of a served task: every request gets exactly one answer, whatever the task does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from pcm_ros.nodes.services.task import Refused, ServedTask, Work
from pcm_ros.nodes.services.worker import ANSWERED, QUEUED, STARTED, WORKING, Report, Worker

PATIENCE = 20.0


@dataclass
class Request:
    text: str = ""
    id: str = ""
    deadline: float = 0.0


@dataclass
class Response:
    error_code: int = 0
    error_msg: str = ""
    seconds: float = 0.0
    text: str = ""

    INVALID_REQUEST, MODEL, BUSY, DEADLINE, CANCELED, ERROR = 1, 2, 3, 4, 5, 6


class Obedient(ServedTask):
    """Does what the request says: says it back, waits until it is let go, fails, refuses, or hangs beyond its deadline."""

    name, service, kind = "obedient", "/obey", SimpleNamespace(Request=Request, Response=Response)

    def __init__(self) -> None:
        super().__init__(lambda name: None)
        self.go, self.begun = threading.Event(), threading.Event()
        self.broken = False

    def answer(self, request: Request, work: Work) -> Response:
        self.begun.set()
        if request.text == "fail":
            raise ZeroDivisionError("it divided")
        if request.text == "refuse":
            raise Refused("MODEL", "no model")
        if request.text == "hang":
            self.go.wait(PATIENCE)
        while request.text == "wait" and not self.go.is_set() and not work.stop() and work.left > 0:
            time.sleep(0.005)
        work.report(1, 2, "half")
        if work.stop():
            raise Refused("CANCELED", "stopped at work")
        return Response(text=request.text)

    def warm_up(self) -> None:
        if self.broken:
            raise OSError("no such file")


class Desk:
    """A worker, the answers it gave, and what it reported."""

    def __init__(self, task: Obedient, waiting: int = 3, longest: float = 60.0, grace: float = 0.2, warm_up: bool = False) -> None:
        self.task, self.answers, self.reports = task, dict[str, list[Response]](), list[Report]()
        self.complaints: list[str] = []
        self.worker = Worker(task, waiting, longest, grace, self.reports.append, self.complaints.append, warm_up)

    def ask(self, text: str, identity: str, deadline: float = 0.0) -> None:
        got: list[Response] = []
        self.answers[identity] = got
        self.worker.submit(Request(text, identity, deadline), got.append)

    def answer(self, identity: str) -> Response:
        until(lambda: bool(self.answers[identity]), self.worker.expire)
        return self.answers[identity][0]


def until(condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        meanwhile()
        time.sleep(0.005)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(Obedient())
    yield made
    made.task.go.set()
    made.worker.close()


def test_requests_are_answered_in_order_and_progress_is_told(desk: Desk) -> None:
    for name in "abc":
        desk.ask(f"say {name}", name)
    assert [desk.answer(name).text for name in "abc"] == ["say a", "say b", "say c"]
    until(lambda: [report.phase for report in desk.reports if report.id == "b"] == [QUEUED, STARTED, WORKING, ANSWERED])
    started = [report.id for report in desk.reports if report.phase == STARTED]
    assert started == ["a", "b", "c"]
    assert next((r.step, r.steps, r.message) for r in desk.reports if r.phase == WORKING) == (1, 2, "half")


def test_more_than_the_queue_holds_is_refused_at_once_and_nothing_is_lost(desk: Desk) -> None:
    desk.ask("wait", "running")
    assert desk.task.begun.wait(PATIENCE)
    for number in range(7):
        desk.ask("say", f"{number}")
    refused = [number for number in range(7) if desk.answers[f"{number}"]]
    assert refused == [3, 4, 5, 6]
    assert {desk.answer(f"{number}").error_code for number in refused} == {Response.BUSY}
    assert "3 requests are waiting" in desk.answer("6").error_msg
    desk.task.go.set()
    assert all(desk.answer(name).error_code == 0 for name in ("running", "0", "1", "2"))
    assert all(len(answers) == 1 for answers in desk.answers.values())


def test_what_a_task_raises_is_an_answer_and_the_next_request_is_worked_on(desk: Desk) -> None:
    for text in ("fail", "refuse", "say"):
        desk.ask(text, text)
    assert (desk.answer("fail").error_code, desk.answer("fail").error_msg) == (Response.ERROR, "ZeroDivisionError: it divided")
    assert (desk.answer("refuse").error_code, desk.answer("refuse").error_msg) == (Response.MODEL, "no model")
    assert desk.answer("say").error_code == 0
    assert "Traceback" in desk.complaints[0]
    assert desk.worker.state()["last failure"] == "", "the last request succeeded"
    desk.ask("fail", "again")
    assert desk.answer("again").error_code == Response.ERROR
    assert desk.worker.state()["last failure"] == "ZeroDivisionError: it divided"


@pytest.mark.parametrize("deadline", [-1.0, float("nan"), float("inf"), 61.0])
def test_deadlines_out_of_range(desk: Desk, deadline: float) -> None:
    desk.ask("say", "x", deadline)
    assert desk.answer("x").error_code == Response.INVALID_REQUEST
    assert "allowed: 0 (the node's limit) to 60 s" in desk.answer("x").error_msg


def test_a_deadline_is_kept_in_the_queue_and_behind_a_task_that_hangs(desk: Desk) -> None:
    desk.ask("hang", "running", deadline=0.05)
    assert desk.task.begun.wait(PATIENCE)
    desk.ask("say", "behind", deadline=0.1)
    desk.ask("say", "patient")
    assert desk.answer("behind").error_code == Response.DEADLINE
    assert "another request has been worked on" in desk.answer("behind").error_msg
    assert "the task does not keep it" in desk.answer("running").error_msg
    assert desk.worker.stuck
    desk.task.go.set()
    assert desk.answer("patient").error_code == 0
    assert len(desk.answers["running"]) == 1


def test_cancelling_by_id(desk: Desk) -> None:
    desk.ask("wait", "running")
    assert desk.task.begun.wait(PATIENCE)
    desk.ask("say", "queued")
    desk.ask("say", "")
    assert not desk.worker.cancel("unknown")
    assert not desk.worker.cancel("")
    assert desk.worker.cancel("queued") and desk.worker.cancel("running")
    assert desk.answer("queued").error_msg == "cancelled while it waited"
    assert desk.answer("running").error_msg == "stopped at work"
    assert desk.answer("").error_code == 0


def test_what_does_not_stop_when_it_is_cancelled_is_given_up(desk: Desk) -> None:
    desk.ask("hang", "running")
    assert desk.task.begun.wait(PATIENCE)
    assert desk.worker.cancel("running")
    assert desk.answer("running").error_code == Response.CANCELED
    assert "has not stopped" in desk.answer("running").error_msg


def test_the_end_answers_all_that_is_left() -> None:
    desk = Desk(Obedient())
    desk.ask("wait", "running")
    assert desk.task.begun.wait(PATIENCE)
    desk.ask("say", "queued")
    desk.worker.close()
    desk.ask("say", "late")
    assert [desk.answers[name][0].error_code for name in ("running", "queued", "late")] == [Response.CANCELED] * 3


def test_models_that_cannot_be_loaded_ahead_do_not_end_the_worker() -> None:
    task = Obedient()
    task.broken = True
    desk = Desk(task, warm_up=True)
    desk.ask("say", "x")
    assert desk.answer("x").error_code == 0
    assert desk.complaints == ["task 'obedient' could not load its models: OSError: no such file"]
    desk.worker.close()
