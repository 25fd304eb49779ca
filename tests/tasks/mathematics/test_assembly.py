"""Calls of `solve`, `progress` and `rank` take turns, and nobody waits for ever."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pcm_ros.tasks.mathematics.assembly import progress, rank, solve
from pcm_ros.tasks.mathematics.solver import Progress, Solution
from tests.tasks.mathematics.conftest import KNOWN

QUESTION = next(iter(KNOWN))
Told = Generator[Progress | Solution, None, None]


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def begun(model: Path) -> Told:
    """An iterator that has told of its first round."""
    told = progress(QUESTION, beam=2, proposals=2, max_tokens=400, model=model)
    assert isinstance(next(told), Progress)
    return told


def test_who_waits_looks_at_the_deadline(tiny_folder: Path, elsewhere: ThreadPoolExecutor) -> None:
    told = begun(tiny_folder)
    found = elsewhere.submit(solve, QUESTION, deadline=0.3, model=tiny_folder).result(timeout=30)
    assert (found.question, found.answer, found.steps, found.complete, found.reason) == (QUESTION, None, (), False, "deadline")
    assert 0.3 <= found.seconds < 20
    told.close()


def test_who_waits_can_be_cancelled(tiny_folder: Path, elsewhere: ThreadPoolExecutor) -> None:
    told, cancelled = begun(tiny_folder), threading.Event()
    waiting = elsewhere.submit(lambda: list(progress(QUESTION, model=tiny_folder, stop=cancelled.is_set)))
    time.sleep(0.2)
    assert not waiting.done()
    cancelled.set()
    (found,) = waiting.result(timeout=30)
    assert isinstance(found, Solution) and found.reason == "cancelled"
    told.close()


@pytest.mark.parametrize("limits", [{"deadline": 0.0}, {"deadline": float("nan")}, {"max_tokens": -1}])
def test_limits_out_of_range_are_said_before_waiting(tiny_folder: Path, elsewhere: ThreadPoolExecutor, limits: dict[str, float]) -> None:
    told = begun(tiny_folder)
    with pytest.raises(ValueError, match="allowed"):
        elsewhere.submit(lambda: solve(QUESTION, model=tiny_folder, **limits)).result(timeout=30)  # type: ignore[arg-type]
    told.close()


@pytest.mark.parametrize("end", ["closed", "collected", "finished"])
def test_an_iterator_that_is_over_lets_the_next_one_work(tiny_folder: Path, elsewhere: ThreadPoolExecutor, end: str) -> None:
    told = begun(tiny_folder)
    waiting = elsewhere.submit(solve, QUESTION, 2, 2, None, 400, model=tiny_folder)
    time.sleep(0.2)
    assert not waiting.done()
    if end == "closed":
        told.close()
    elif end == "finished":
        *_, last = told
        assert isinstance(last, Solution)
    del told
    gc.collect()
    assert waiting.result(timeout=60).tokens > 0


def test_a_thread_that_would_wait_for_itself_is_told(tiny_folder: Path) -> None:
    told = begun(tiny_folder)
    with pytest.raises(RuntimeError, match="remedy: go on to its end, or close it"):
        solve(QUESTION, model=tiny_folder)
    with pytest.raises(RuntimeError, match="not finished"):
        rank(QUESTION, ["#### 10"])
    *_, found = told  # which is none the worse for it
    assert isinstance(found, Solution)
    assert solve(QUESTION, 2, 2, max_tokens=400, model=tiny_folder).tokens == found.tokens


def test_an_iterator_may_be_gone_on_with_in_another_thread(tiny_folder: Path, elsewhere: ThreadPoolExecutor) -> None:
    told = begun(tiny_folder)
    assert elsewhere.submit(lambda: [*told][-1]).result(timeout=60) is not None
    assert solve(QUESTION, 2, 2, max_tokens=400, model=tiny_folder).tokens > 0


def test_no_limit_of_tokens_is_the_usual_one(tiny_folder: Path) -> None:
    by_default, zero, usual = (solve(QUESTION, 2, 2, max_tokens=tokens, model=tiny_folder) for tokens in (None, 0, 4000))
    assert by_default.steps == zero.steps == usual.steps
    assert by_default.tokens == zero.tokens == usual.tokens
