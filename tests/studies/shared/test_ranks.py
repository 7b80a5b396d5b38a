"""Rank correlation: Spearman's, its interval, and the extremes."""

import math

import numpy as np
import pytest

from fmlib.core.intervals import Measured
from fmlib.studies.shared.ranks import rank_correlation


def test_rank_correlation_is_spearmans_with_bonett_and_wrights_interval():
    """Ranks 1 2 3 4 5 against 2 1 4 3 5 differ by one four times: rho = 1 - 6 * 4 / (5 * 24) = .8."""
    found = rank_correlation(np.array([1, 2, 3, 4, 50.0]), np.array([2, 1, 4, 3, 5.0]))
    assert (found.value, found.n) == (pytest.approx(0.8), 5)
    error, centre = 1.959964 * math.sqrt((1 + 0.32) / 2), math.atanh(0.8)
    assert (found.low, found.high) == pytest.approx((math.tanh(centre - error), math.tanh(centre + error)))


def test_orders_that_agree_or_are_reversed_have_an_interval_without_width():
    values = np.arange(6.0)
    assert rank_correlation(values, values**3) == Measured(1, 1, 1, 6)
    assert rank_correlation(values, -values) == Measured(-1, -1, -1, 6)


def test_equal_values_correlate_with_nothing():
    found = rank_correlation(np.arange(14.0), np.ones(14))
    assert found.value == 0
    assert found.low == -found.high < -0.4
