import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pcm_ros.consensus import ScoreTable, aggregated, normalised

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
columns = hnp.arrays(np.float64, st.integers(1, 30), elements=numbers)
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 7)), elements=numbers)


def tensor(array: object) -> torch.Tensor:
    return torch.as_tensor(np.asarray(array, dtype=np.float64).copy())


@given(columns, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_zscore_ignores_scale_and_offset(values: np.ndarray, scale: float, offset: float) -> None:
    if values.std() < 1e-3 * max(1.0, np.abs(values).max()):
        return  # rounding of scale * value + offset would show
    a, b = normalised(tensor(values), "zscore"), normalised(tensor(values * scale + offset), "zscore")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a, tensor(scipy.stats.zscore(values)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e300, 1e-300])
def test_zscore_of_equal_numbers_is_zero(value: float) -> None:
    assert normalised(torch.full((7,), value, dtype=torch.float64), "zscore").tolist() == [0.0] * 7


def test_zscore_survives_huge_and_tiny_numbers() -> None:
    for scale in (1e300, 1e-300):
        z = normalised(tensor([1.0, 2.0, 3.0]) * scale, "zscore")
        torch.testing.assert_close(z, tensor(scipy.stats.zscore([1.0, 2.0, 3.0])))


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-50, 50).map(float)))
def test_rank_ignores_increasing_functions_and_matches_scipy(values: np.ndarray) -> None:
    ranks = normalised(tensor(values), "rank")
    assert torch.equal(ranks, normalised(tensor(np.exp(values / 10)), "rank"))
    expected = (scipy.stats.rankdata(values) - 1) / max(len(values) - 1, 1)
    torch.testing.assert_close(ranks, tensor(expected))


@pytest.mark.parametrize("how", ["none", "zscore", "rank"])
def test_infeasible_and_missing_stay_and_do_not_change_the_others(how: str) -> None:
    values = tensor([1.0, np.inf, 5.0, np.nan, 2.0])
    result = normalised(values, how)
    assert torch.equal(torch.isposinf(result), torch.isposinf(values))
    assert torch.equal(torch.isnan(result), torch.isnan(values))
    finite = torch.isfinite(values)
    torch.testing.assert_close(result[finite], normalised(values[finite], how))


@given(tables)
def test_aggregates_with_equal_weights_match_numpy(energies: np.ndarray) -> None:
    ones = torch.ones(energies.shape[1], dtype=torch.float64)
    torch.testing.assert_close(aggregated(tensor(energies), ones, "sum"), tensor(energies.sum(axis=1)), rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(aggregated(tensor(energies), ones, "median"), tensor(np.median(energies, axis=1)))
    for cut in range((energies.shape[1] - 1) // 2 + 1):
        trim = cut / energies.shape[1]
        expected = scipy.stats.trim_mean(energies, trim + 1e-12, axis=1)
        torch.testing.assert_close(aggregated(tensor(energies), ones, "trimmed_mean", trim), tensor(expected), rtol=1e-6, atol=1e-6)


@given(tables, st.randoms(use_true_random=False))
@pytest.mark.parametrize("how", ["sum", "median", "trimmed_mean"])
def test_aggregates_do_not_depend_on_the_order_of_scorers(how: str, energies: np.ndarray, random: object) -> None:
    order = list(range(energies.shape[1]))
    random.shuffle(order)
    weights = tensor(1.0 + np.arange(len(order)))
    a = aggregated(tensor(energies), weights, how)
    torch.testing.assert_close(a, aggregated(tensor(energies[:, order]), weights[order], how), rtol=1e-9, atol=1e-6)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 4)), elements=numbers),
    st.lists(st.integers(1, 3), min_size=4, max_size=4),
)
@pytest.mark.parametrize("how", ["median", "trimmed_mean"])
def test_a_weight_of_two_is_the_scorer_twice(how: str, energies: np.ndarray, repeats: list[int]) -> None:
    counts = repeats[: energies.shape[1]]
    repeated = np.repeat(energies, counts, axis=1)
    a = aggregated(tensor(energies), tensor(counts), how)
    b = aggregated(tensor(repeated), torch.ones(repeated.shape[1], dtype=torch.float64), how)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("how", ["sum", "median", "trimmed_mean"])
def test_missing_counts_as_absent_and_infeasible_as_veto(how: str) -> None:
    energies = tensor([[1.0, np.nan, 7.0], [1.0, np.inf, 7.0], [np.nan, np.nan, np.nan], [2.0, 3.0, 100.0]])
    weights = tensor([1.0, 1.0, 1.0])
    total = aggregated(energies, weights, how)
    torch.testing.assert_close(total[0], aggregated(energies[:1, [0, 2]], weights[:2], how)[0])
    assert total[1] == torch.inf
    assert total[2] == torch.inf
    unwatched = aggregated(energies, tensor([1.0, 0.0, 1.0]), how)
    torch.testing.assert_close(unwatched[1], unwatched[0])  # a veto of weight 0 is none


def table(energies: object, weights: list[float], dropped: dict[str, str] | None = None) -> ScoreTable:
    e = tensor(energies)
    names = tuple("abcdefg"[: e.shape[1]])
    return ScoreTable(names, e, tensor(weights), aggregated(e, tensor(weights), "sum"), dropped or {}, {})


def test_agreement_counts_ties_and_only_those_who_count() -> None:
    t = table([[0.0, 5.0, 9.0], [0.0, 6.0, 0.0], [1.0, 4.0, 0.0]], [1.0, 1.0, 0.0])
    assert t.best == 0
    assert t.agreement(0) == pytest.approx((1.0 + 2 / 3) / 2)
    assert table([[0.0, 1.0], [2.0, 1.0]], [1.0, 1.0]).agreement(0) == 1.0


def test_agreement_about_an_infeasible_best_is_none() -> None:
    t = table([[np.inf, 0.0], [np.inf, 0.0]], [1.0, 1.0])
    assert t.total.tolist() == [np.inf, np.inf]
    assert t.agreement(t.best) == 0.0


def test_energies_of_leaves_out_what_was_not_judged() -> None:
    assert table([[1.0, np.nan]], [1.0, 1.0], {"b": "late"}).energies_of(0) == {"a": 1.0}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="zscore"):
        normalised(tensor([1.0]), "minmax")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trimmed_mean"):
        aggregated(tensor([[1.0]]), tensor([1.0]), "max")  # type: ignore[arg-type]
