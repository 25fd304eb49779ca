import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pcm_ros.consensus import Batch, CrossEntropy, CrossEntropyState, Mppi, ScoreTable

KINDS = [CrossEntropy(elite_fraction=0.3, minimum_std=0.01), Mppi(temperature=0.5, minimum_std=0.01)]


@st.composite
def scored(draw: st.DrawFn) -> tuple[Batch, ScoreTable]:
    count, categories, dimensions = draw(st.integers(1, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    batch = Batch(
        torch.rand(count, dimensions, generator=rng, dtype=torch.float64) * 10 - 5, torch.randint(0, categories, (count,), generator=rng)
    )
    total = torch.rand(count, generator=rng, dtype=torch.float64)
    total[torch.rand(count, generator=rng) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = torch.inf
    return batch, table(total)


def table(total: torch.Tensor) -> ScoreTable:
    return ScoreTable(("s",), total[:, None], torch.ones(1, dtype=torch.float64), total, {}, {})


@given(scored(), scored(), st.sampled_from(KINDS))
def test_the_state_is_a_distribution(first: tuple, second: tuple, strategy: CrossEntropy | Mppi) -> None:
    if first[0].parameters.shape[1] != second[0].parameters.shape[1]:
        second = first
    state = None
    for batch, scores in (first, second):
        before, state = state, strategy.update(batch, scores, state)
        if not torch.isfinite(scores.total).any():
            assert state is before
            continue
        assert float(state.category_probability.sum()) == pytest.approx(1.0)
        assert (state.category_probability >= 0).all()
        assert state.mean.shape == state.std.shape == (len(state.category_probability), batch.parameters.shape[1])
        assert (state.std >= 0.01).all()
        assert torch.isfinite(state.mean).all()
        low, high = torch.cat([b.parameters for b, _ in (first, second)]).aminmax(dim=0)
        assert ((state.mean >= low - 1e-9) & (state.mean <= high + 1e-9)).all()
        alive = torch.bincount(batch.category, minlength=len(state.category_probability)) > 0
        assert (state.category_probability[alive] > 0).all()


@given(scored(), st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_the_order_of_proposals_does_not_matter(pair: tuple, strategy: CrossEntropy | Mppi, random: object) -> None:
    batch, scores = pair
    order = list(range(len(batch)))
    random.shuffle(order)
    a = strategy.update(batch, scores, None)
    b = strategy.update(batch.select(order), table(scores.total[order]), None)
    if a is None:
        assert b is None
        return
    torch.testing.assert_close(a.category_probability, b.category_probability)
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.std, b.std)


@given(scored(), st.floats(0.01, 1.0))
def test_elites_are_the_least_and_feasible(pair: tuple, fraction: float) -> None:
    batch, scores = pair
    elites = CrossEntropy(elite_fraction=fraction).elites(scores)
    feasible = int(torch.isfinite(scores.total).sum())
    assert len(elites) == min(int(np.ceil(fraction * len(batch) - 1e-9)), feasible)
    assert torch.isfinite(scores.total[elites]).all()
    others = torch.ones(len(batch), dtype=torch.bool)
    others[elites] = False
    if len(elites) and others.any():
        assert scores.total[elites].max() <= scores.total[others].min()


def test_cross_entropy_is_the_moments_of_the_elites() -> None:
    batch = Batch(torch.tensor([[0.0], [2.0], [10.0], [7.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1]))
    state = CrossEntropy(elite_fraction=0.75, smoothing=0.0, minimum_std=0.5, exploration=0.0).update(
        batch, table(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)), None
    )
    torch.testing.assert_close(state.category_probability, torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))
    assert state.mean.tolist() == [[1.0], [10.0]]
    assert state.std.tolist() == [[1.0], [0.5]]


def test_smoothing_keeps_its_share_of_the_old() -> None:
    old = CrossEntropyState(*(torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.5], [[0.0], [4.0]], [[1.0], [2.0]])))
    batch = Batch(torch.tensor([[2.0], [3.0]], dtype=torch.float64), torch.tensor([0, 0]))
    new = CrossEntropy(elite_fraction=0.5, smoothing=0.25, minimum_std=0.0, exploration=0.0).update(
        batch, table(torch.tensor([1.0, 2.0], dtype=torch.float64)), old
    )
    torch.testing.assert_close(new.category_probability, torch.tensor([0.875, 0.125], dtype=torch.float64))
    assert new.mean.tolist() == [[1.5], [4.0]]  # category 1 had no elite: nothing learnt
    assert new.std.tolist() == [[0.25], [2.0]]


def test_a_category_never_proposed_stays_dead_and_a_new_one_is_taken_in() -> None:
    strategy = CrossEntropy(elite_fraction=1.0, smoothing=0.0, exploration=0.3)
    batch = Batch(torch.zeros(4, 1, dtype=torch.float64), torch.tensor([0, 0, 2, 2]))
    state = strategy.update(batch, table(torch.zeros(4, dtype=torch.float64)), None)
    assert state.category_probability.tolist() == pytest.approx([0.5, 0.0, 0.5])
    state = strategy.update(
        Batch(torch.ones(1, 1, dtype=torch.float64), torch.tensor([4])), table(torch.zeros(1, dtype=torch.float64)), state
    )
    assert state.category_probability.tolist() == pytest.approx([0.1, 0.0, 0.1, 0.0, 0.8])
    assert state.mean.tolist() == [[0.0], [0.0], [0.0], [1.0], [1.0]]


@given(scored())
def test_mppi_weights_are_a_softmax(pair: tuple) -> None:
    _, scores = pair
    weights = Mppi(temperature=0.7).weights(scores)
    total = scores.total.numpy()
    expected = np.where(np.isfinite(total), np.exp(-np.where(np.isfinite(total), total, 0.0) / 0.7), 0.0)
    expected = expected / max(expected.sum(), 1e-300)
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-12)


def test_mppi_temperature_goes_from_the_best_to_the_mean() -> None:
    batch = Batch(torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    scores = table(torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64))
    cold, hot = Mppi(temperature=1e-3).update(batch, scores, None), Mppi(temperature=1e6).update(batch, scores, None)
    assert float(cold.mean) == pytest.approx(1.0)
    assert float(hot.mean) == pytest.approx(2.0, abs=1e-4)


def test_minimum_std_may_differ_by_parameter() -> None:
    batch = Batch(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    state = CrossEntropy(minimum_std=(0.01, 0.2)).update(batch, table(torch.zeros(3, dtype=torch.float64)), None)
    assert state.std.tolist() == [[0.01, 0.2]]


def test_angles_about_half_a_turn_do_not_average_to_none() -> None:
    angles = torch.tensor([[3.1], [-3.1], [3.0], [0.0]], dtype=torch.float64)
    batch = Batch(torch.cat([angles, angles], dim=1), torch.zeros(4, dtype=torch.int64))
    strategy = CrossEntropy(elite_fraction=0.75, smoothing=0.0, periods=(0.0, 2 * math.pi))
    state = strategy.update(batch, table(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)), None)
    assert float(state.mean[0, 0]) == pytest.approx(1.0)
    assert float(state.mean[0, 1]) == pytest.approx((3.1 + (2 * math.pi - 3.1) + 3.0) / 3)
    assert float(state.std[0, 0]) > 2
    assert float(state.std[0, 1]) < 0.1


@given(st.floats(-3.0, 3.0), st.floats(-10.0, 10.0), st.sampled_from(["cross_entropy", "mppi"]))
def test_turning_all_angles_turns_the_mean(center: float, turn: float, kind: str) -> None:
    options = {"smoothing": 0.3, "minimum_std": 0.0, "periods": (2 * math.pi,)}
    strategy = CrossEntropy(0.5, **options) if kind == "cross_entropy" else Mppi(0.5, **options)
    rng = torch.Generator().manual_seed(1)
    angles = center + 0.4 * torch.randn(20, 1, generator=rng, dtype=torch.float64)
    category, scores = torch.zeros(20, dtype=torch.int64), table(torch.rand(20, generator=rng, dtype=torch.float64))
    a, b = (strategy.update(Batch(x, category), scores, None) for x in (angles, angles + turn))
    difference = float(b.mean - a.mean) - turn
    assert math.cos(difference) == pytest.approx(1.0)
    assert float(b.std) == pytest.approx(float(a.std))
    assert -math.pi <= float(b.mean) < math.pi


def test_floors_and_periods_must_fit_the_parameters() -> None:
    batch = Batch(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))
    for options in ({"minimum_std": (0.1, 0.1, 0.1)}, {"periods": (1.0,)}):
        with pytest.raises(ValueError, match="for each of 2 parameters"):
            CrossEntropy(**options).update(batch, table(torch.zeros(3, dtype=torch.float64)), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(elite_fraction=0.0), "elite_fraction is 0.0"),
        (lambda: CrossEntropy(smoothing=1.0), "smoothing is 1.0"),
        (lambda: CrossEntropy(minimum_std=-1.0), "minimum_std is \\(-1.0,\\)"),
        (lambda: CrossEntropy(minimum_std=()), "minimum_std"),
        (lambda: CrossEntropy(exploration=1.0), "exploration is 1.0"),
        (lambda: CrossEntropy(periods=(-1.0,)), "periods is"),
        (lambda: Mppi(temperature=0.0), "temperature is 0.0"),
        (lambda: Mppi(smoothing=-0.1), "smoothing is -0.1"),
    ],
)
def test_arguments_out_of_range_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
