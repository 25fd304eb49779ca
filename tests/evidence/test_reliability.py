"""Reliability: probabilities that are what they say have no error; those that are not have the error they were given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcm_ros.evidence.reliability import calibration_error, reliability_plot


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_honest_probabilities_have_little_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(0, 1, 3000)
    error = calibration_error(probabilities, rng.uniform(0, 1, 3000) < probabilities)
    assert error.value < 0.05


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.5))
def test_a_shift_is_found(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(0, 1 - shift, 3000)
    error = calibration_error(probabilities + shift, rng.uniform(0, 1, 3000) < probabilities)
    assert error.low <= error.value <= error.high
    assert abs(error.value - shift) < 0.06


@pytest.mark.parametrize("probabilities", [[0.5, 1.2], [0.5, np.nan], [0.5]])
def test_what_is_no_forecast_is_refused(probabilities: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        calibration_error(np.array(probabilities), np.array([True, False]))


def test_nothing_is_unknown() -> None:
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, dtype=bool)).value)


def test_plot_has_a_curve_for_each() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 100)
    figure = reliability_plot({"a": (p, p > 0.5), "b": (p, p > 0.2)}, "title")
    assert len(figure.axes[0].lines) == 3
