import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quadratic_bowl import Gate, Says, batch_of, reads_column

from pcm_ros.consensus import Batch, Ensemble, QuorumError, Scorer

matrices = hnp.arrays(np.float64, st.tuples(st.integers(1, 10), st.integers(2, 5)), elements=st.floats(-100, 100))


def fails(_: Batch) -> None:
    raise KeyError("weights of the text tower")


@given(matrices, st.sampled_from(["none", "zscore", "rank"]), st.sampled_from(["sum", "median", "trimmed_mean"]))
@settings(max_examples=40, deadline=None)
def test_dropping_a_scorer_equals_an_ensemble_without_it(values: np.ndarray, normalise: str, aggregate: str) -> None:
    batch = batch_of(torch.as_tensor(values.copy()))
    scorers = [reads_column(f"s{n}", n) for n in range(values.shape[1])]
    options = {"normalise": normalise, "aggregate": aggregate, "quorum": 1}
    weights = {f"s{n}": n + 1.0 for n in range(len(scorers))}
    with (
        Ensemble([Says("broken", fails), *scorers], {"broken": 3.0, **weights}, **options) as ill,
        Ensemble(scorers, weights, **options) as well,
    ):
        a, b = ill.score(batch, None), well.score(batch, None)
    assert torch.equal(a.total, b.total)
    assert a.best == b.best
    assert a.agreement(a.best) == b.agreement(b.best)
    assert a.dropped == {"broken": "KeyError: 'weights of the text tower'"}
    assert torch.isnan(a.energies[:, 0]).all()
    assert torch.equal(a.energies[:, 1:], b.energies)


@given(matrices, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_proposals_does_not_matter(values: np.ndarray, random: object) -> None:
    order = list(range(len(values)))
    random.shuffle(order)
    batch = batch_of(torch.as_tensor(values.copy()))
    with Ensemble([reads_column(f"s{n}", n) for n in range(values.shape[1])], normalise="rank") as ensemble:
        a, b = ensemble.score(batch, None), ensemble.score(batch.select(order), None)
    torch.testing.assert_close(a.total[order], b.total)


def test_the_result_does_not_depend_on_who_finishes_first() -> None:
    generator = torch.Generator().manual_seed(1)
    batch = batch_of(torch.rand(50, 4, generator=generator, dtype=torch.float64))

    def in_turn(column: int, waits_for: threading.Event, then: threading.Event) -> Says:
        def answer(b: Batch) -> torch.Tensor:
            waits_for.wait()
            then.set()
            return b.parameters[:, column]

        return Says(f"s{column}", answer)

    def totals(order: list[int]) -> torch.Tensor:
        events = [threading.Event() for _ in range(5)]
        events[0].set()
        place = {column: position for position, column in enumerate(order)}
        with Ensemble([in_turn(n, events[place[n]], events[place[n] + 1]) for n in range(4)], normalise="zscore") as ensemble:
            return ensemble.score(batch, None).total

    assert torch.equal(totals([0, 1, 2, 3]), totals([3, 1, 0, 2]))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda b: torch.full((len(b),), torch.nan), "3 of 3 energies are NaN"),
        (lambda b: torch.full((len(b),), -torch.inf), "3 of 3 energies are -inf"),
        (lambda b: torch.zeros(len(b), 1), r"(3, 1); real numbers of shape (3,)"),
        (lambda b: torch.zeros(()), "(); real"),
        (lambda b: torch.zeros(len(b), dtype=torch.complex64), "complex64"),
        (lambda b: [0.0] * len(b), "returned list"),
        (lambda b: None, "returned NoneType"),
        (lambda b: torch.zeros(len(b), device="meta"), "NotImplementedError"),
        (lambda b: torch.zeros(len(b)).to_sparse(), "layout torch.sparse_coo"),
        (fails, "KeyError"),
        (lambda b: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_bad_answers_are_left_out_and_named(answer: object, reason: str) -> None:
    with Ensemble([reads_column("good", 0), Says("bad", answer)]) as ensemble:
        table = ensemble.score(batch_of(torch.tensor([[3.0], [1.0], [2.0]])), None)
    assert reason in table.dropped["bad"]
    assert table.total.tolist() == [3.0, 1.0, 2.0]
    assert table.counted == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_any_real_type_is_welcome(dtype: torch.dtype) -> None:
    with Ensemble([Says("s", lambda b: torch.ones(len(b)).to(dtype))]) as ensemble:
        assert ensemble.score(batch_of(torch.zeros(2, 1)), None).total.tolist() == [1.0, 1.0]


def test_infeasible_is_a_veto_and_no_error() -> None:
    with Ensemble([reads_column("good", 0), Says("collision", lambda b: torch.tensor([0.0, torch.inf]))], aggregate="median") as ensemble:
        table = ensemble.score(batch_of(torch.tensor([[3.0], [1.0]])), None)
    assert not table.dropped
    assert table.total.tolist() == [1.5, torch.inf]


def test_a_hung_scorer_is_dropped_then_left_alone_then_welcomed_back() -> None:
    gate = Gate()
    slow = Says("slow", gate)
    batch = batch_of(torch.tensor([[3.0], [1.0]]))
    with Ensemble([reads_column("quick", 0), slow], timeout=1.0) as ensemble:
        assert ensemble.score(batch, None).dropped == {"slow": "no answer within 1 s"}
        assert ensemble.score(batch, None).dropped == {"slow": "still busy with an earlier call"}
        assert slow.calls == 1
        gate.event.set()
        deadline = time.monotonic() + 10
        while "slow" in (table := ensemble.score(batch, None)).dropped and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not table.dropped
    assert table.total.tolist() == [6.0, 2.0]


def test_what_a_failing_scorer_was_shown_is_let_go() -> None:
    class Picture:
        pass

    def fails(batch: Batch) -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise OSError("outer") from error

    class Fails(Says):
        def energy(self, batch: Batch, context: object) -> object:
            held = context  # noqa: F841 what a frame holds
            return super().energy(batch, context)

    shown = Picture()
    gone = weakref.ref(shown)
    with Ensemble([Fails("broken", fails), reads_column("fine", 0)]) as ensemble:
        assert ensemble.score(batch_of(torch.zeros(2, 1)), shown).dropped == {"broken": "OSError: outer"}
        del shown
        deadline = time.monotonic() + 5  # the worker's thread lets go a moment after it has answered
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert gone() is None


def test_a_hung_scorer_does_not_keep_the_process_alive() -> None:
    script = """
import threading, torch
from pcm_ros.consensus import Batch, Ensemble
class Hangs:
    name, cost, differentiable = "hangs", 1.0, False
    def energy(self, batch, context):
        threading.Event().wait()
class Works(Hangs):
    name = "works"
    def energy(self, batch, context):
        return batch.parameters[:, 0]
ensemble = Ensemble([Hangs(), Works()], timeout=1.0)
print(ensemble.score(Batch(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)), None).dropped)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "no answer within 1 s" in done.stdout


def test_below_the_quorum_is_an_error_that_says_all() -> None:
    scorers = [reads_column("view_a", 0), Says("view_b", fails), Says("view_c", lambda b: torch.zeros(1))]
    with Ensemble(scorers, quorum=2) as ensemble, pytest.raises(QuorumError) as caught:
        ensemble.score(batch_of(torch.zeros(2, 1)), None)
    text = str(caught.value)
    assert "1 of 3 scorers" in text
    assert "quorum is 2" in text
    assert "view_b: KeyError" in text
    assert "view_c: returned" in text
    assert "Remedy" in text
    assert set(caught.value.dropped) == {"view_b", "view_c"}


def test_a_share_as_quorum_is_rounded_up_and_watchers_do_not_vote() -> None:
    scorers = [reads_column("a", 0), reads_column("b", 0), reads_column("c", 0), reads_column("watcher", 0)]
    assert Ensemble(scorers, {"watcher": 0.0}, quorum=0.5).quorum == 2
    assert Ensemble(scorers, {"watcher": 0.0}, quorum=1.0).quorum == 3
    assert Ensemble(scorers, {"watcher": 0.0}, quorum=1).quorum == 1
    with Ensemble([Says("a", fails), reads_column("watcher", 0)], {"watcher": 0.0}) as ensemble, pytest.raises(QuorumError):
        ensemble.score(batch_of(torch.zeros(2, 1)), None)


def test_scorers_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def meets(batch: Batch) -> torch.Tensor:
        meeting.wait()
        return batch.parameters[:, 0]

    with Ensemble([Says(name, meets) for name in "abc"]) as ensemble:
        assert not ensemble.score(batch_of(torch.zeros(2, 1)), None).dropped


def test_no_gradient_is_recorded() -> None:
    weight = torch.ones((), requires_grad=True)
    with Ensemble([Says("s", lambda b: b.parameters[:, 0] * weight)]) as ensemble:
        assert not ensemble.score(batch_of(torch.ones(2, 1)), None).energies.requires_grad


def test_a_call_that_meets_the_closing_ends() -> None:
    """`close` comes between the look at whether the ensemble is open and the request."""
    ensemble = Ensemble([reads_column("a", 0)])
    ensemble.score(batch_of(torch.zeros(2, 1)), None)
    ensemble.close()
    with pytest.raises(QuorumError, match="closed meanwhile"):
        ensemble._score(batch_of(torch.zeros(2, 1)), None)


def test_closing_ends_the_threads() -> None:
    ensemble = Ensemble([reads_column("only_here", 0)])
    ensemble.score(batch_of(torch.zeros(2, 1)), None)
    thread = next(t for t in threading.enumerate() if t.name == "scorer only_here")
    ensemble.close()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        ensemble.score(batch_of(torch.zeros(2, 1)), None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"nobody": 1.0}}, "nobody"),
        ({"weights": {"a": -1.0}}, ">= 0"),
        ({"weights": {"a": 0.0, "b": 0.0}}, "not all zero"),
        ({"normalise": "minmax"}, "zscore"),
        ({"aggregate": "max"}, "median"),
        ({"quorum": 0}, "quorum is 0"),
        ({"quorum": 3}, "from 1 to 2"),
        ({"quorum": 1.5}, "share"),
        ({"quorum": True}, "quorum is True"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"trim": 0.5}, "trim is 0.5"),
    ],
)
def test_arguments_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble([reads_column("a", 0), reads_column("b", 0)], **options)


def test_names_must_be_unique_and_a_scorer_is_recognised() -> None:
    with pytest.raises(ValueError, match="unique"):
        Ensemble([reads_column("a", 0), reads_column("a", 1)])
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    assert isinstance(reads_column("a", 0), Scorer)
