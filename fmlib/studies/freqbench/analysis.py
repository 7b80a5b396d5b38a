"""Measures of the claims about FreqBench, and its tables: the leaderboard and the methods by task."""

from __future__ import annotations

import numpy as np

from fmlib.core.intervals import Measured, average
from fmlib.pipeline.results import NotComputed, Results
from fmlib.studies.freqbench.measure import METHODS

TONES = ["plain", "redundant", "phase", "two-channel"]
NETWORKS = ["N", "A", "JaFR", "ResNet"]
#: Folder of further methods' files, besides the published one.
FURTHER = "FMLIB_FREQBENCH"


def _values(results: Results, tasks: list[str], method: str, score: str) -> np.ndarray:
    """The values of all images of some tasks, one after the other."""
    arrays = results.arrays("freqbench")
    found = np.concatenate([arrays[f"{task}/{method}/{score}"] for task in tasks]).astype(float)
    if np.isnan(found).all():
        raise NotComputed(f"{score} of {method} has no value on {', '.join(tasks)}")
    return found


def mean_score(results: Results, tasks: list[str], method: str, score: str, scale: float = 1) -> Measured:
    """Mean over the images of these tasks of a method's score, times `scale`."""
    return average(scale * _values(results, tasks, method, score))


def difference(results: Results, tasks: list[str], first: str, second: str, score: str, scale: float = 1) -> Measured:
    """Mean difference of two methods' scores, first - second, paired by image, times `scale`."""
    pair = [_values(results, tasks, method, score) for method in (first, second)]
    return average(scale * (pair[0] - pair[1]))


def net(results: Results, tasks: list[str], first: str, second: str) -> Measured:
    """Mean difference of insertion minus deletion between two methods, paired by image."""
    one, other = (
        _values(results, tasks, method, "insertion") - _values(results, tasks, method, "deletion")
        for method in (first, second)
    )
    return average(one - other)


def best_rival(results: Results, tasks: list[str], method: str, score: str) -> Measured:
    """The smallest difference of a method's score to that of any other method, paired by image."""
    rivals = [other for other in METHODS if other != method]
    return min((difference(results, tasks, method, other, score) for other in rivals), key=lambda one: one.value)


def fewest_ratio(results: Results, tasks: list[str], first: str, second: str) -> Measured:
    """The geometric mean over images of the ratio of the fewest frequencies, first / second."""
    logs = [np.log(_values(results, tasks, method, "fewest")) for method in (first, second)]
    return Measured(*(float(np.exp(value)) for value in average(logs[0] - logs[1])[:3]), len(logs[0]))


def between_tasks(results: Results, method: str, score: str, first: list[str], second: list[str]) -> Measured:
    """Mean of a method's score over the images of some tasks minus that over the images of others (Welch's interval)."""
    one, other = (average(_values(results, tasks, method, score)) for tasks in (first, second))
    error = np.hypot(one.high - one.value, other.high - other.value)
    value = one.value - other.value
    return Measured(value, value - float(error), value + float(error), one.n + other.n)
