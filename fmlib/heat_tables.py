"""What the chapter on Fourier heat maps draws, and its numbers."""

from __future__ import annotations

import numpy as np
import torch

from fmlib import heat_claims, heat_recipes
from fmlib.config import profile as named_profile
from fmlib.results import Results
from fmlib.spectra import full_plane


def maps(results: Results) -> dict[str, np.ndarray]:
    """Regime -> percent of images misclassified under each frequency, full plane (H, W)."""
    found = {regime: heat_claims.heat_errors(results, regime).double().mean(0) for regime in heat_claims.NETWORKS}
    return {regime: 100 * full_plane(half, 2 * (half.shape[1] - 1)).numpy() for regime, half in found.items()}


def masks(results: Results) -> dict[str, np.ndarray]:
    """Regime -> dataset mask of the network of a heat map, full plane (H, W)."""
    arrays = results.arrays("heat_maps")
    halves = {regime: torch.from_numpy(arrays[f"mask.{regime}"]) for regime in heat_claims.NETWORKS}
    return {regime: full_plane(half, half.shape[0]).numpy() for regime, half in halves.items()}


def numbers(results: Results) -> dict[str, str]:
    """What is added to the images of the heat maps, how many they are, and errors in percent, ready for prose.

    `clean.N` is without an added frequency; `low.N` below a third of the corner radius, `high.N` above.
    """
    arrays, size = results.arrays("heat_maps"), named_profile(results.profile).data.size
    numbers = {"images": f"{len(arrays['clean.N']):,}", "norm": f"{heat_recipes.STRENGTH * size:.1f}"}
    numbers["strength"] = f"{heat_recipes.STRENGTH:.3f}"
    for regime in heat_claims.NETWORKS:
        numbers[f"clean.{regime}"] = f"{100 * arrays[f'clean.{regime}'].mean():.1f}"
        for name in ("low", "high"):
            share = heat_claims.third_errors(results, regime, low=name == "low").mean()
            numbers[f"{name}.{regime}"] = f"{100 * share:.1f}"
    return numbers
