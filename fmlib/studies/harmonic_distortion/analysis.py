"""TODO"""

from __future__ import annotations

from fmlib.core.intervals import Measured, exact
from fmlib.pipeline.results import Results

FIGURE_1 = ("softplus", "tanh", "relu", "hardtanh")


def distortion(results: Results) -> Measured:
    """Power above the first harmonic, in percent of all but the mean's; the least of figure 1's activations."""
    table = results.table("harmonics").pivot(index="harmonic", columns="activation", values="measured") ** 2
    shares = 100 * table.loc[2:, list(FIGURE_1)].sum() / table.loc[1:, list(FIGURE_1)].sum()
    return exact(float(shares.min()), len(FIGURE_1))


def series_error(results: Results) -> Measured:
    """Largest distance of a measured coefficient from its Fourier series."""
    errors = results.table("harmonics")["error"].dropna()
    return exact(float(errors.max()), len(errors))


def square_error(results: Results) -> Measured:
    """Largest distance of a product of two squared tones from its exact amplitude."""
    rows = results.table("intermodulation").dropna(subset=["exact"])
    return exact(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))
