"""Measured values with intervals: rates, paired differences and repeated measurements."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

#: Quantile of the standard normal distribution for a two-sided 95% interval, rounded as in the published results. With
#: the exact quantile, as in scipy's Wilson interval, one of the published bounds changes in its sixth digit.
Z = 1.959964


class Measured(NamedTuple):
    """A value, the bounds of its interval, and the number of observations."""

    value: float
    low: float
    high: float
    n: int


def wilson(correct: np.ndarray) -> Measured:
    """Percentage of true entries of `correct` (N,) with its Wilson 95% interval."""
    n, share = correct.size, float(correct.mean())
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = max(min(centre - half, share), 0), min(max(centre + half, share), 1)  # rounding errors at 0 and 1
    return Measured(100 * share, 100 * low, 100 * high, n)


def paired(first: np.ndarray, second: np.ndarray) -> Measured:
    """Difference first - second of two rates on the same images, in percentage points, with its normal 95% interval.

    Args:
        first, second: (N,) bool, whether each image is classified correctly.
    """
    return average(100 * (first.astype(float) - second.astype(float)))


def average(values: np.ndarray) -> Measured:
    """Mean of `values` (N,) with its normal 95% interval; nan are left out, and at least one value must remain."""
    values = values[~np.isnan(values)].astype(float)
    error = Z * values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else 0.0
    return Measured(float(values.mean()), float(values.mean()) - error, float(values.mean()) + error, values.size)


def ratio_of_means(first: np.ndarray, second: np.ndarray) -> Measured:
    """Mean of `first` (N,) over mean of `second` (N,), paired, with the 95% bootstrap percentile interval."""
    resamples = np.random.default_rng(0).integers(0, len(first), (1000, len(first)))
    low, high = np.quantile(first[resamples].mean(1) / second[resamples].mean(1), (0.025, 0.975)).tolist()
    return Measured(float(first.mean() / second.mean()), low, high, len(first))


def pooled_range(parts: list[Measured]) -> Measured:
    """Mean over repetitions; the interval is the smallest that contains the interval of every repetition."""
    values = [part.value for part in parts]
    return Measured(
        sum(values) / len(values), min(p.low for p in parts), max(p.high for p in parts), sum(p.n for p in parts)
    )


def min_max(values: np.ndarray) -> Measured:
    """Mean of repeated measurements (N,) with their minimum and maximum as bounds."""
    return Measured(float(values.mean()), float(values.min()), float(values.max()), values.size)


def exact(value: float, n: int) -> Measured:
    """A value without sampling error, from n quantities; its bounds equal it."""
    return Measured(value, value, value, n)
