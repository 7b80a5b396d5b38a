"""A measured value and its interval: rates, paired differences, repeated measurements."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

Z = 1.959964  # of a two-sided 95% interval


class Measured(NamedTuple):
    """A value, its interval, and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(hits: np.ndarray) -> Measured:
    """Percentage of hits (N,) with its Wilson 95% interval."""
    n, share = hits.size, float(hits.mean())
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    spread = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = max(min(centre - spread, share), 0), min(max(centre + spread, share), 1)  # rounding strays at 0 and 1
    return Measured(100 * share, 100 * low, 100 * high, n)


def paired(first: np.ndarray, second: np.ndarray) -> Measured:
    """Difference of two hit rates on the same images, first - second, in points, with its normal 95% interval."""
    return average(100 * (first.astype(float) - second.astype(float)))


def average(values: np.ndarray) -> Measured:
    """Mean of values (N,), not all nan, with its normal 95% interval; nan are left out."""
    values = values[~np.isnan(values)].astype(float)
    error = Z * values.std(ddof=1) / math.sqrt(values.size) if values.size > 1 else 0.0
    return Measured(float(values.mean()), float(values.mean()) - error, float(values.mean()) + error, values.size)


def pooled_range(parts: list[Measured]) -> Measured:
    """Mean over repetitions; the interval spans every repetition's own, so it holds their spread too."""
    values = [part.value for part in parts]
    return Measured(
        sum(values) / len(values), min(p.low for p in parts), max(p.high for p in parts), sum(p.n for p in parts)
    )


def min_max(values: np.ndarray) -> Measured:
    """Mean of repeated measurements with their smallest and largest."""
    return Measured(float(values.mean()), float(values.min()), float(values.max()), values.size)


def exact(value: float, n: int) -> Measured:
    """A number without sampling error, from n quantities."""
    return Measured(value, value, value, n)
