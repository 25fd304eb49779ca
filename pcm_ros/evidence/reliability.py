"""Are probabilities what they say? Reliability diagrams and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pcm_ros.evidence.intervals import Estimate

Floats = npt.NDArray[np.float64]
BINS = 10
RESAMPLES = 400


def calibration_error(probabilities: Floats, outcomes: npt.NDArray[np.bool_], bins: int = BINS, seed: int = 0) -> Estimate:
    """Expected calibration error: mean |share that came true - mean probability| over bins of equal counts, weighted by their counts.

    The interval is a percentile bootstrap; as every error is positive, few observations make it lie too high.

    Args:
        probabilities: (N,) of 0..1. outcomes: (N,) whether it came true.

    Raises:
        ValueError: arrays of different lengths, or a probability outside 0..1.
    """
    probabilities, outcomes = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=bool)
    if probabilities.shape != outcomes.shape or probabilities.ndim != 1:
        raise ValueError(f"probabilities {probabilities.shape} and outcomes {outcomes.shape} must be two arrays (N,) of the same length")
    if len(probabilities) and not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
        raise ValueError(f"probabilities must be 0..1, got {np.min(probabilities)}..{np.max(probabilities)}")

    def error(index: npt.NDArray[np.int64]) -> float:
        p, hit = probabilities[index], outcomes[index]
        order = np.argsort(p, kind="stable")
        parts = np.array_split(order, min(bins, len(order)))
        return float(sum(len(part) * abs(hit[part].mean() - p[part].mean()) for part in parts) / len(order))

    n = len(probabilities)
    if n < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), n)
    rng = np.random.default_rng(seed)
    low, high = np.quantile([error(rng.integers(0, n, n)) for _ in range(RESAMPLES)], [0.025, 0.975])
    return Estimate(error(np.arange(n)), float(low), float(high), n)


def reliability_plot(curves: Mapping[str, tuple[Floats, npt.NDArray[np.bool_]]], title: str, bins: int = BINS) -> Any:
    """A matplotlib figure: for each name, the share that came true against the mean probability, in bins of equal counts.

    Args:
        curves: name -> (probabilities (N,), outcomes (N,)).
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--")
    for name, (probabilities, outcomes) in curves.items():
        order = np.argsort(probabilities, kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        axes.plot([probabilities[part].mean() for part in parts], [outcomes[part].mean() for part in parts], "o-", label=name, markersize=4)
    axes.set(xlabel="probability given", ylabel="share that came true", title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
