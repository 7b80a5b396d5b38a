"""Analysis of Fourier heat maps: errors at low and high frequencies, and their agreement with dataset masks."""

from __future__ import annotations

import numpy as np
import torch

from fmlib.core.heat_maps import rank_correlation
from fmlib.core.intervals import Measured, paired
from fmlib.core.spectra import column_weights, corner_radius, full_plane, radius
from fmlib.pipeline.results import Results
from fmlib.studies.fourier_heat_maps.experiment import NETWORKS, STRENGTH
from fmlib.studies.shared.profiles import profile


def heat_errors(results: Results, regime: str) -> torch.Tensor:
    """Whether each image is misclassified under each frequency: (N, H, W // 2 + 1) bool."""
    arrays = results.arrays("heat_maps")
    shape = arrays[f"shape.{regime}"]
    return torch.from_numpy(np.unpackbits(arrays[f"errors.{regime}"], count=shape.prod()).reshape(shape).astype(bool))


def mask_agreement(results: Results, regime: str) -> Measured:
    """Rank correlation over frequencies of a network's heat map with its dataset mask."""
    mask = torch.from_numpy(results.arrays("heat_maps")[f"mask.{regime}"])
    return rank_correlation(heat_errors(results, regime), mask, seed=0)


def band_errors(results: Results, regime: str, low: bool) -> np.ndarray:
    """Share of frequencies under which each image is misclassified: (N,).

    Args:
        results: with `heat_maps`.
        regime: of the network.
        low: whether the frequencies are those below a third of the corner radius, or the others.
    """
    errors = heat_errors(results, regime).double()
    height, width = errors.shape[1], 2 * (errors.shape[2] - 1)
    inside = radius(height, width)[:, : width // 2 + 1] < corner_radius(height, width) / 3
    weights = column_weights(width) * (inside if low else ~inside)
    return ((errors * weights).sum((1, 2)) / weights.sum()).numpy()


def error_difference(results: Results, more: str, fewer: str, low: bool) -> Measured:
    """Error rate of the network `more` minus that of `fewer`, in points, paired by image; `low` as in `band_errors`."""
    return paired(band_errors(results, more, low), band_errors(results, fewer, low))


def heat_maps(results: Results) -> dict[str, np.ndarray]:
    """Regime -> percentage of images misclassified under each frequency, full plane (H, W)."""
    halves = {regime: heat_errors(results, regime).double().mean(0) for regime in NETWORKS}
    return {regime: 100 * full_plane(half, 2 * (half.shape[1] - 1)).numpy() for regime, half in halves.items()}


def masks(results: Results) -> dict[str, np.ndarray]:
    """Regime -> dataset mask of the same network, full plane (H, W)."""
    arrays = results.arrays("heat_maps")
    halves = {regime: torch.from_numpy(arrays[f"mask.{regime}"]) for regime in NETWORKS}
    return {regime: full_plane(half, half.shape[0]).numpy() for regime, half in halves.items()}


def numbers(results: Results) -> dict[str, str]:
    """Number of images, norm of the perturbation and error rates in percent, formatted for prose.

    `clean.N` is the error rate without an added frequency, `low.N` and `high.N` those with one below and above a third
    of the corner radius.
    """
    arrays, size = results.arrays("heat_maps"), profile(results.profile).data.size
    texts = {"images": f"{len(arrays['clean.N']):,}", "norm": f"{STRENGTH * size:.1f}", "strength": f"{STRENGTH:.3f}"}
    for regime in NETWORKS:
        texts[f"clean.{regime}"] = f"{100 * arrays[f'clean.{regime}'].mean():.1f}"
        for name in ("low", "high"):
            share = band_errors(results, regime, low=name == "low").mean()
            texts[f"{name}.{regime}"] = f"{100 * share:.1f}"
    return texts
