"""Measured values and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fmlib.core import intervals
from fmlib.core.intervals import Measured


def test_wilson_against_published_values():
    """10 of 10 and 5 of 10 correct: textbook values of the Wilson interval."""
    full = intervals.wilson(np.ones(10, bool))
    assert full.value == 100
    assert full.low == pytest.approx(72.25, abs=0.01)
    assert full.high == pytest.approx(100, abs=1e-6)
    half = intervals.wilson(np.arange(10) < 5)
    assert (half.low, half.high) == pytest.approx((23.66, 76.34), abs=0.01)


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_wilson_lies_within_bounds(correct):
    measured = intervals.wilson(np.array(correct))
    assert -1e-9 <= measured.low <= measured.value + 1e-9
    assert measured.value - 1e-9 <= measured.high <= 100 + 1e-9


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_agrees_with_scipys(correct, wrong):
    measured = intervals.wilson(np.arange(correct + wrong) < correct)
    expected = binomtest(correct, correct + wrong).proportion_ci(0.95, method="wilson")
    assert (measured.low, measured.high) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-4)


def test_paired_difference_of_equal_arrays_is_exactly_zero():
    correct = np.random.default_rng(0).random(50) < 0.7
    assert intervals.paired(correct, correct)[:3] == (0, 0, 0)


def test_paired_uses_the_pairing():
    """One image of a hundred changes: the interval is far narrower than that of independent rates."""
    before = np.arange(100) < 50
    after = before.copy()
    after[0] = False
    measured = intervals.paired(after, before)
    assert measured.value == pytest.approx(-1)
    assert measured.high - measured.low < 5


def test_average_against_known_values():
    """1, 2, 3, 4 have the standard deviation sqrt(5 / 3), so their mean has half of it as standard error."""
    measured = intervals.average(np.array([1, 2, 3, 4]))
    assert (measured.value, measured.n) == (2.5, 4)
    half = 1.959964 * math.sqrt(5 / 3) / 2
    assert (measured.low, measured.high) == pytest.approx((2.5 - half, 2.5 + half))


def test_average_leaves_nan_out():
    values = np.array([np.nan, 1.0, 2.0, np.nan, 4.0])
    assert intervals.average(values) == intervals.average(np.array([1.0, 2.0, 4.0]))
    assert intervals.average(values).n == 3


@pytest.mark.parametrize("values", [[3.5], [np.nan, 3.5, np.nan]])
def test_average_of_one_value_has_an_interval_without_width(values):
    assert intervals.average(np.array(values)) == Measured(3.5, 3.5, 3.5, 1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(-10, 10), st.floats(-100, 100))
def test_interval_of_an_average_holds_it_in_the_middle_and_scales_with_the_values(values, factor, offset):
    values = np.array(values)
    measured, moved = intervals.average(values), intervals.average(factor * values + offset)
    assert measured.low <= measured.value <= measured.high
    assert measured.value == pytest.approx((measured.low + measured.high) / 2, abs=1e-9)
    assert moved.value == pytest.approx(factor * measured.value + offset, abs=1e-6)
    assert moved.high - moved.low == pytest.approx(abs(factor) * (measured.high - measured.low), abs=1e-6)


def test_a_hundred_times_the_values_narrows_the_interval_tenfold():
    values = np.tile([0.0, 1.0], 10)
    few, many = intervals.average(values), intervals.average(np.tile(values, 100))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.03)


def test_pooled_range_holds_the_interval_of_every_part():
    parts = [Measured(1, 0, 2, 10), Measured(3, 2, 5, 10)]
    assert intervals.pooled_range(parts) == Measured(2, 0, 5, 20)


def test_min_max_are_the_extremes_of_repeated_measurements():
    assert intervals.min_max(np.array([1.0, 4.0, 2.5])) == Measured(2.5, 1, 4, 3)


def test_an_exact_value_has_no_interval():
    assert intervals.exact(0.25, 7) == Measured(0.25, 0.25, 0.25, 7)
