"""Rank correlation with its interval."""

from __future__ import annotations

import math

import numpy as np

from fmlib.core.intervals import Measured, Z


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Measured:
    """Spearman's correlation of two samples (n,), n > 3, with its 95% interval; 0 if all values of a sample are equal.

    Source of the interval: Bonett and Wright (2000).
    """
    from scipy.stats import spearmanr

    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    value = 0.0 if constant else float(np.clip(spearmanr(first, second).statistic, -1, 1))
    if abs(value) > 1 - 1e-9:
        return Measured(round(value), round(value), round(value), len(first))
    error = Z * math.sqrt((1 + value**2 / 2) / (len(first) - 3))
    centre = math.atanh(value)
    return Measured(value, math.tanh(centre - error), math.tanh(centre + error), len(first))
