import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pcm_ros.evidence import Estimate, mean, paired, quantile, rate, ratio


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_published_values(successes: int, n: int, low: float, high: float) -> None:
    estimate = rate([True] * successes + [False] * (n - successes))
    assert estimate.value == pytest.approx(successes / n)
    assert estimate.low == pytest.approx(low, abs=5e-5)
    assert estimate.high == pytest.approx(high, abs=5e-5)
    assert estimate.n == n


def test_nothing_seen_is_unknown() -> None:
    assert math.isnan(rate([]).value)
    assert (rate([]).low, rate([]).high, rate([]).n) == (0.0, 1.0, 0)
    assert math.isnan(mean([]).value)
    assert mean([3.0]).value == 3.0
    assert math.isnan(mean([3.0]).low)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_bootstrap_intervals_hold_the_value_range_and_repeat(values: list[float]) -> None:
    estimate = mean(values, seed=3)
    slack = 1e-9 * max(map(abs, values))
    assert estimate == mean(values, seed=3)
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack
    assert estimate.value == pytest.approx(np.mean(values), abs=1e-6)


def test_bootstrap_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [(e := mean(rng.normal(5.0, 2.0, 40).tolist(), seed=n)).low <= 5.0 <= e.high for n in range(200)]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_quantiles_and_ratios() -> None:
    values = list(range(101))
    assert quantile(values, 0.5).value == 50
    assert quantile(values, 0.95).value == 95
    assert quantile(values, 0.5).low < 50 < quantile(values, 0.5).high
    speed_up = ratio([40.0, 44.0, 36.0], [2.0, 2.2, 1.8])
    assert speed_up.value == pytest.approx(20.0)
    assert speed_up.low == pytest.approx(20.0)  # pairs are resampled together
    assert ratio([40.0, 44.0], [2.0, 2.2, 1.8]).n == 2
    with pytest.raises(ValueError, match="q is 95"):
        quantile(values, 95)
    with pytest.raises(ValueError, match="1 of 2 values are not finite"):
        mean([1.0, math.inf])


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[dict[str, bool], dict[str, bool]]:
    pairs = [(True, True)] * both + [(True, False)] * only_a + [(False, True)] * only_b + [(False, False)] * neither
    return {str(n): a for n, (a, _) in enumerate(pairs)}, {str(n): b for n, (_, b) in enumerate(pairs)}


def test_mcnemar_matches_published_values() -> None:
    # Fay, exact2x2 vignette (mcnemar.exact): 21 and 9 discordant pairs
    result = paired(*outcomes(51, 21, 9, 43))
    assert (result.only_a, result.only_b) == (21, 9)
    assert result.p_value == pytest.approx(0.04277, abs=5e-6)
    assert result.difference.value == pytest.approx(12 / 124)
    assert result.difference.low < 12 / 124 < result.difference.high
    assert paired(*outcomes(5, 0, 5, 5)).p_value == pytest.approx(2 / 2**5)
    assert paired(*outcomes(5, 0, 0, 5)).p_value == 1.0


@given(st.integers(0, 5), st.integers(0, 8), st.integers(0, 8), st.integers(0, 5))
def test_mcnemar_ignores_ties_and_is_symmetric(both: int, only_a: int, only_b: int, neither: int) -> None:
    a, b = outcomes(both, only_a, only_b, neither)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert paired(a, b).p_value == pytest.approx(expected)
    assert paired(b, a).p_value == pytest.approx(expected)


def test_a_difference_has_an_interval_even_where_all_pairs_are_alike() -> None:
    alike = paired(*outcomes(20, 0, 0, 0)).difference
    assert (alike.value, alike.n) == (0.0, 20)
    assert -0.2 < alike.low < -0.1 < 0.1 < alike.high < 0.2
    always = paired(*outcomes(0, 20, 0, 0)).difference
    assert always.value == 1.0 and 0.7 < always.low < 0.9 and always.high == pytest.approx(1.0)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_intervals_of_differences_are_symmetric_and_hold_the_difference(both: int, only_a: int, only_b: int, neither: int) -> None:
    a, b = outcomes(both, only_a, only_b, neither)
    one, other = paired(a, b).difference, paired(b, a).difference
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (one.low, one.high) == (pytest.approx(-other.high), pytest.approx(-other.low))


def test_intervals_of_differences_cover_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    chances = [0.5, 0.2, 0.1, 0.2]  # both, only a, only b, neither
    covered = [(d := paired(*outcomes(*rng.multinomial(50, chances).tolist())).difference).low <= 0.1 <= d.high for _ in range(400)]
    assert 0.92 <= np.mean(covered) <= 0.99


@given(st.integers(0, 60), st.integers(0, 60))
def test_wilson_intervals_are_those_of_scipy(hits: int, misses: int) -> None:
    if hits + misses:
        known = binomtest(hits, hits + misses).proportion_ci(0.95, method="wilson")
        ours = rate([True] * hits + [False] * misses)
        assert (ours.low, ours.high) == (pytest.approx(float(known.low), abs=1e-12), pytest.approx(float(known.high), abs=1e-12))


def test_outcomes_that_are_worth_a_part_have_intervals_and_tests_too() -> None:
    half = rate([0.5] * 4)
    assert half.value == 0.5 and half.low < 0.2 and half.high > 0.8 and half.share
    halves, wholes = ({str(n): worth for n in range(6)} for worth in (0.5, 1.0))
    same = paired(halves, halves)
    assert same.difference.value == 0 and same.difference.low < -0.1 and same.difference.high > 0.1
    assert (same.p_value, same.only_a, same.only_b) == (1.0, 0, 0)
    better = paired(wholes, halves)
    assert (better.p_value, better.only_a, better.difference.value) == (pytest.approx(2 / 2**6), 6, 0.5)


def test_an_expectation_is_no_worse_or_better_than_what_it_is_the_expectation_of() -> None:
    rng = np.random.default_rng(0)
    chances = rng.choice([0.1, 0.2, 0.3], 400)
    expected = {str(n): float(chance) for n, chance in enumerate(chances)}
    p_values = []
    for _ in range(40):
        outcome = {str(n): bool(hit) for n, hit in enumerate(rng.random(400) < chances)}
        p_values.append(paired(outcome, expected).p_value)
    assert sum(p < 0.05 for p in p_values) <= 6, "2 of 40 by chance; the sign test found a difference in all of them"
    better = {key: value + 0.08 * (n % 2) for n, (key, value) in enumerate(expected.items())}
    assert paired(better, expected).p_value < 0.01
    outcome = {str(n): bool(hit) for n, hit in enumerate(rng.random(400) < chances + 0.12)}
    assert paired(outcome, expected).p_value < 0.01


def test_pairs_need_the_same_items() -> None:
    with pytest.raises(ValueError, match="2 only in the first, 1 only in the second"):
        paired({"1": True, "2": True, "3": False}, {"1": True, "4": True})


def test_estimates_survive_json() -> None:
    estimate = Estimate(0.5, math.nan, 0.75, 3)
    data = estimate.as_json()
    assert data == {"value": 0.5, "low": None, "high": 0.75, "n": 3, "share": False}
    back = Estimate.from_json(data)
    assert math.isnan(back.low)
    assert (back.value, back.high, back.n) == (0.5, 0.75, 3)
