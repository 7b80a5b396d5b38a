"""The claims on Fourier heat maps: who errs under which frequencies, and whether heat maps and masks agree."""

from __future__ import annotations

import numpy as np
import torch

from fmlib.core.heat_maps import rank_correlation
from fmlib.core.intervals import Measured, paired
from fmlib.core.spectra import column_weights, corner_radius, full_plane, radius
from fmlib.pipeline.results import Results
from fmlib.studies.fourier_heat_maps import experiment
from fmlib.studies.shared.profiles import profile


def heat_errors(results: Results, regime: str) -> torch.Tensor:
    """Whether each image is misclassified under each frequency: (N, H, W // 2 + 1) bool."""
    arrays = results.arrays("heat_maps")
    shape = arrays[f"shape.{regime}"]
    return torch.from_numpy(np.unpackbits(arrays[f"errors.{regime}"], count=shape.prod()).reshape(shape).astype(bool))


def mask_agreement(results: Results, regime: str) -> Measured:
    """Rank correlation of a network's heat map with its dataset mask."""
    mask = torch.from_numpy(results.arrays("heat_maps")[f"mask.{regime}"])
    return rank_correlation(heat_errors(results, regime), mask, seed=0)


def third_errors(results: Results, regime: str, low: bool) -> np.ndarray:
    """Each image's share of frequencies that mislead the network, below a third of the corner radius or above: (N,)."""
    found = heat_errors(results, regime).double()
    height, width = found.shape[1], 2 * (found.shape[2] - 1)
    inside = radius(height, width)[:, : width // 2 + 1] < corner_radius(height, width) / 3
    weights = column_weights(width) * (inside if low else ~inside)
    return ((found * weights).sum((1, 2)) / weights.sum()).numpy()


def error_difference(results: Results, more: str, fewer: str, low: bool) -> Measured:
    """By how many points more often the first network errs than the second, paired over images."""
    return paired(third_errors(results, more, low), third_errors(results, fewer, low))


def maps(results: Results) -> dict[str, np.ndarray]:
    """Regime -> percent of images misclassified under each frequency, full plane (H, W)."""
    found = {regime: heat_errors(results, regime).double().mean(0) for regime in experiment.NETWORKS}
    return {regime: 100 * full_plane(half, 2 * (half.shape[1] - 1)).numpy() for regime, half in found.items()}


def masks(results: Results) -> dict[str, np.ndarray]:
    """Regime -> dataset mask of the network of a heat map, full plane (H, W)."""
    arrays = results.arrays("heat_maps")
    halves = {regime: torch.from_numpy(arrays[f"mask.{regime}"]) for regime in experiment.NETWORKS}
    return {regime: full_plane(half, half.shape[0]).numpy() for regime, half in halves.items()}


def numbers(results: Results) -> dict[str, str]:
    """What is added to the images of the heat maps, how many they are, and errors in percent, ready for prose.

    `clean.N` is without an added frequency; `low.N` below a third of the corner radius, `high.N` above.
    """
    arrays, size = results.arrays("heat_maps"), profile(results.profile).data.size
    numbers = {"images": f"{len(arrays['clean.N']):,}", "norm": f"{experiment.STRENGTH * size:.1f}"}
    numbers["strength"] = f"{experiment.STRENGTH:.3f}"
    for regime in experiment.NETWORKS:
        numbers[f"clean.{regime}"] = f"{100 * arrays[f'clean.{regime}'].mean():.1f}"
        for name in ("low", "high"):
            share = third_errors(results, regime, low=name == "low").mean()
            numbers[f"{name}.{regime}"] = f"{100 * share:.1f}"
    return numbers
