"""Values with 95% intervals, and exact tests of paired outcomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
RESAMPLES = 5000
_Z = 1.959963984540054  # of the standard normal distribution, 97.5 %
_ALIKE = 1e-9
"""Worths that differ by less are the same."""


@dataclass(frozen=True)
class Estimate:
    """A number, its 95% interval, and from how many independent observations it comes. NaN (null in JSON) = unknown. `share`: it is a share
    of outcomes, 0..1, such as others can be drawn beside."""

    value: float
    low: float
    high: float
    n: int
    share: bool = False

    def as_json(self) -> dict[str, float | int | None]:
        """{"value", "low", "high", "n", "share"} with null for what is not a finite number."""
        numbers = {name: float(getattr(self, name)) for name in ("value", "low", "high")}
        return {**{name: number if math.isfinite(number) else None for name, number in numbers.items()}, "n": self.n, "share": self.share}

    @classmethod
    def from_json(cls, data: Mapping[str, float | int | None]) -> Estimate:
        """The inverse of `as_json`. Raises KeyError if one of the first four is missing."""
        value, low, high = (math.nan if (number := data[name]) is None else float(number) for name in ("value", "low", "high"))
        return cls(value, low, high, int(data["n"] or 0), bool(data.get("share")))

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g}, n = {self.n})"


def rate(outcomes: Sequence[float]) -> Estimate:
    """Share of True with the Wilson score interval (Wilson 1927): right for small n and for shares near 0 or 1.

    An outcome may also be worth a part, 0..1 (a tie of two answers of which one is right: 1/2). The interval is then a little too wide:
    such a sum varies less than a count.
    """
    return _rate(float(sum(outcomes)), len(outcomes))


def _rate(hits: float, n: int) -> Estimate:
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, share=True)
    p = hits / n
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(max(p * (1 - p), 0.0) / n + _Z**2 / (4 * n**2))
    low, high = (0.0 if hits <= 0 else middle - half), (1.0 if hits >= n else middle + half)  # to the last bit
    return Estimate(p, max(0.0, low), min(1.0, high), n, share=True)


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Arithmetic mean with a bootstrap interval; see `rate` and `paired` for outcomes."""
    return _bootstrapped([np.asarray(values, dtype=np.float64)], lambda sample: sample[0].mean(axis=-1), seed, paired_samples=True)


def quantile(values: Sequence[float], q: float, seed: int = 0) -> Estimate:
    """Quantile q (0..1; 0.5 = median) with a bootstrap interval. Far quantiles of few values have intervals that are too short."""
    if not 0 <= q <= 1:
        raise ValueError(f"q is {q}; allowed: 0 <= q <= 1")
    data = np.asarray(values, dtype=np.float64)
    return _bootstrapped([data], lambda sample: np.quantile(sample[0], q, axis=-1), seed, paired_samples=True)


def ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Estimate:
    """median(numerators) / median(denominators), for speed claims. Pairs are resampled together if there are equally many of both."""
    data = [np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)]
    return _bootstrapped(
        data, lambda s: np.median(s[0], axis=-1) / np.median(s[1], axis=-1), seed, paired_samples=len(data[0]) == len(data[1])
    )


def _bootstrapped(data: list[Values], statistic: Callable[[list[Values]], Values], seed: int, paired_samples: bool) -> Estimate:
    """Percentile bootstrap (Efron 1979). The interval of fewer than two observations is unknown."""
    n = min(len(values) for values in data)
    for values in data:
        if not np.isfinite(values).all():
            raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite: decide how to count them first")
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(statistic(data))
    if n == 1:
        return Estimate(value, math.nan, math.nan, 1)
    rng = np.random.default_rng(seed)
    statistics = []
    for _ in range(0, RESAMPLES, 500):  # in blocks, so that many values need little memory
        rows = rng.integers(0, n, (500, n)) if paired_samples else None
        sample = [values[rows if rows is not None else rng.integers(0, len(values), (500, len(values)))] for values in data]
        statistics.append(statistic(sample))
    low, high = np.quantile(np.concatenate(statistics), [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing the same items.

    Attributes:
        difference: rate of a - rate of b, with Newcombe's score interval for paired differences.
        only_a / only_b: items that one of them did better, which of outcomes True and False means that it alone did them right.
        p_value: two-sided. Where the differences have one size, as those of outcomes True and False, the exact sign test (McNemar, 1947):
            under "no difference" only_a is Binomial(only_a + only_b, 1/2). Else Fisher's (1935) of the mean difference, whose signs are
            changed at random: an expectation of 0.2 is more often above the outcome than below, and not better for it.
    """

    difference: Estimate
    only_a: int
    only_b: int
    p_value: float


def paired(a: Mapping[str, float], b: Mapping[str, float]) -> Comparison:
    """Compare outcomes of the same items, True and False or worth a part (see `rate`).

    Raises:
        ValueError: the ids differ. Select the common ones first, and say so.
    """
    from scipy.stats import binomtest, permutation_test

    if a.keys() != b.keys():
        alone = len(a.keys() - b.keys()), len(b.keys() - a.keys())
        raise ValueError(f"paired outcomes need the same ids: {alone[0]} only in the first, {alone[1]} only in the second")
    only_a, only_b = (sum(first[key] > second[key] + _ALIKE for key in a) for first, second in ((a, b), (b, a)))
    differences = np.array([a[key] - b[key] for key in a], dtype=float)
    differences = differences[np.abs(differences) > _ALIKE]
    if len(differences) == 0 or float(np.ptp(np.abs(differences))) <= _ALIKE:
        p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    else:
        changed = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=9999, batch=1000, rng=0)
        p_value = float(changed.pvalue)
    both = float(sum(min(a[key], b[key]) for key in a))  # what an item is worth in common
    return Comparison(_paired_difference(both, float(sum(a.values())), float(sum(b.values())), len(a)), only_a, only_b, p_value)


def _paired_difference(both: float, hits_a: float, hits_b: float, n: int) -> Estimate:
    """Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650: Wilson's limits of both rates, put together with their
    correlation. Unlike a bootstrap it has a width where all pairs are alike."""
    if n == 0:
        return Estimate(math.nan, -1.0, 1.0, 0)
    first, second = _rate(hits_a, n), _rate(hits_b, n)
    only_a, only_b = hits_a - both, hits_b - both
    product = hits_a * (n - hits_a) * hits_b * (n - hits_b)
    cross = both * (n - both - only_a - only_b) - only_a * only_b
    if cross > 0:
        cross = max(cross - n / 2, 0.0)  # corrected for continuity
    correlation = cross / math.sqrt(product) if product > _ALIKE else 0.0

    def spread(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    value = (only_a - only_b) / n
    low = value - spread(first.value - first.low, second.high - second.value)
    high = value + spread(first.high - first.value, second.value - second.low)
    return Estimate(value, low, high, n)
