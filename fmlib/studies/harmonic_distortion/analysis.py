"""Measures on harmonic distortion and intermodulation (figure 1)."""

from __future__ import annotations

from fmlib.core.intervals import Measured, exact
from fmlib.pipeline.results import Results

FIGURE_1 = ("softplus", "tanh", "relu", "hardtanh")


def distortion(results: Results) -> Measured:
    """Smallest harmonic distortion among figure 1's activations: power above the first harmonic, in % of AC power."""
    table = results.table("harmonics").pivot(index="harmonic", columns="activation", values="measured") ** 2
    shares = 100 * table.loc[2:, list(FIGURE_1)].sum() / table.loc[1:, list(FIGURE_1)].sum()
    return exact(float(shares.min()), len(FIGURE_1))


def series_error(results: Results) -> Measured:
    """Largest error of a measured coefficient against its exact Fourier series."""
    errors = results.table("harmonics")["error"].dropna()
    return exact(float(errors.max()), len(errors))


def square_error(results: Results) -> Measured:
    """Largest error of a product of two squared tones against its exact amplitude."""
    rows = results.table("intermodulation").dropna(subset=["exact"])
    return exact(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))
