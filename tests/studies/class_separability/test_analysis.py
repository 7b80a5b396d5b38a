"""Measures of class separability, on arrays made here."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import FakeResults

from fmlib.core.intervals import wilson
from fmlib.studies.class_separability import analysis

ARRAYS = {
    "splits": np.arange(80.0).reshape(20, 4),
    "p": np.array(0.02),
    "permuted": np.zeros(99),
    "neighbours.masks": np.arange(10) < 7,
}


def test_accuracy_over_splits_has_the_central_95_percent_of_them():
    found = analysis.split_accuracy(FakeResults(separability=ARRAYS), 1)
    assert (found.value, found.n) == (39, 20)
    assert (found.low, found.high) == pytest.approx((1 + 4 * 19 * 0.025, 1 + 4 * 19 * 0.975))


def test_a_p_value_has_no_interval_and_counts_permutations():
    assert analysis.p_value(FakeResults(separability=ARRAYS)) == (0.02, 0.02, 0.02, 99)


def test_neighbour_accuracy_is_a_rate_of_held_out_points():
    found = analysis.neighbour_accuracy(FakeResults(separability=ARRAYS), "masks")
    assert found == wilson(ARRAYS["neighbours.masks"])
    assert found.value == pytest.approx(70)
