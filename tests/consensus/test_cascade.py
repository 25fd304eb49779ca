import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from quadratic_bowl import Says, batch_of, reads_column

from pcm_ros.consensus import Cascade, Ensemble, QuorumError

matrices = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-100, 100))


@given(matrices, st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_dear_scorers_see_only_the_best_of_the_cheap_ones(values: np.ndarray, keep: int) -> None:
    batch = batch_of(torch.as_tensor(values.copy()))
    seen = []
    dear = Says("dear", lambda b: (seen.append(b.parameters.clone()), b.parameters[:, 2])[1])
    with Cascade([(Ensemble([reads_column("a", 0), reads_column("b", 1)]), keep), (Ensemble([dear]), None)]) as cascade:
        table = cascade.score(batch, None)
    cheap = values[:, 0] + values[:, 1]
    expected = sorted(np.argsort(cheap, kind="stable")[:keep].tolist())
    assert torch.equal(seen[0], batch.parameters[expected])
    passed = torch.isfinite(table.total)
    assert passed.nonzero().flatten().tolist() == expected
    assert torch.equal(~torch.isnan(table.energies[:, 2]), passed)
    torch.testing.assert_close(table.total[passed], torch.as_tensor(values.sum(axis=1)[expected]))
    assert table.names == ("a", "b", "dear")
    assert table.best in expected


def test_keeping_all_equals_one_ensemble() -> None:
    batch = batch_of(torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    scorers = [reads_column(f"s{n}", n) for n in range(3)]
    weights = {"s0": 1.0, "s1": 2.0, "s2": 3.0}
    with (
        Ensemble(scorers, weights) as one,
        Cascade([(Ensemble(scorers[:2], {"s0": 1.0, "s1": 2.0}), None), (Ensemble(scorers[2:], {"s2": 3.0}), 1.0)]) as many,
    ):
        a, b = one.score(batch, None), many.score(batch, None)
    torch.testing.assert_close(a.total, b.total)
    assert torch.equal(a.weights, b.weights)


def test_infeasible_proposals_are_not_passed_on() -> None:
    dear = Says("dear", lambda b: b.parameters[:, 0])
    cheap = Says("cheap", lambda b: torch.where(b.parameters[:, 0] > 1, torch.inf, 0.0))
    with Cascade([(Ensemble([cheap]), 3), (Ensemble([dear]), None)]) as cascade:
        table = cascade.score(batch_of(torch.tensor([[2.0], [1.0], [3.0]])), None)
        assert table.total.tolist() == [torch.inf, 1.0, torch.inf]
        nothing_left = cascade.score(batch_of(torch.tensor([[2.0], [4.0]])), None)
    assert nothing_left.total.tolist() == [torch.inf, torch.inf]
    assert dear.calls == 1


def test_a_share_is_of_the_whole_batch_and_dropped_scorers_are_reported() -> None:
    def broken(_: object) -> None:
        raise OSError("gone")

    stages = [(Ensemble([reads_column("a", 0)]), 0.5), (Ensemble([reads_column("b", 0), Says("c", broken)]), 0.25)]
    with Cascade(stages) as cascade:
        table = cascade.score(batch_of(torch.arange(8.0)[:, None]), None)
    assert int((~torch.isnan(table.energies[:, 1])).sum()) == 4
    assert torch.isfinite(table.total).nonzero().flatten().tolist() == [0, 1]
    assert table.dropped == {"c": "OSError: gone"}
    assert table.counted == (0, 1)
    assert set(table.seconds) == {"a", "b"}


def test_a_later_stage_that_fails_as_a_whole_is_left_out() -> None:
    def broken(_: object) -> None:
        raise OSError("gone")

    twin = Ensemble([Says("twin", broken)], quorum=1)
    with Cascade([(Ensemble([reads_column("a", 0)]), 3), (twin, 2), (Ensemble([reads_column("b", 0)]), None)]) as cascade:
        table = cascade.score(batch_of(torch.arange(8.0)[:, None]), None)
    assert table.dropped == {"twin": "OSError: gone"}
    assert table.total[:2].tolist() == [0.0, 2.0]
    assert torch.isinf(table.total[2:]).all()
    assert torch.isnan(table.energies[:, 1]).all()
    assert table.counted == (0, 2)


def test_a_first_stage_without_quorum_is_an_error() -> None:
    def broken(_: object) -> None:
        raise OSError("gone")

    stages = [(Ensemble([Says("a", broken)]), 3), (Ensemble([reads_column("b", 0)]), None)]
    with Cascade(stages) as cascade, pytest.raises(QuorumError, match="gone"):
        cascade.score(batch_of(torch.arange(8.0)[:, None]), None)


def test_feasible_incumbents_pass_every_stage() -> None:
    wall = Says("wall", lambda b: torch.where(b.parameters[:, 0] > 8, torch.inf, 0.0))
    with Cascade([(Ensemble([reads_column("a", 0), wall]), 1), (Ensemble([reads_column("b", 0)]), 1)]) as cascade:
        table = cascade.score(batch_of(torch.tensor([[3.0], [1.0], [9.0], [7.0]])), None, incumbents=2)
        assert table.total.tolist() == [torch.inf, 2.0, torch.inf, 14.0]
        with pytest.raises(ValueError, match=r"incumbents is 5; allowed: 0\.\.4"):
            cascade.score(batch_of(torch.zeros(4, 1)), None, incumbents=5)


@pytest.mark.parametrize("keep", [0, -1, 0.0, 1.5, True])
def test_keep_out_of_range_is_named(keep: float) -> None:
    with pytest.raises(ValueError, match="keep of stage 0"):
        Cascade([(Ensemble([reads_column("a", 0)]), keep)])


def test_names_are_unique_over_all_stages() -> None:
    with pytest.raises(ValueError, match="unique"):
        Cascade([(Ensemble([reads_column("a", 0)]), 1), (Ensemble([reads_column("a", 0)]), None)])
    with pytest.raises(ValueError, match="at least one stage"):
        Cascade([])
