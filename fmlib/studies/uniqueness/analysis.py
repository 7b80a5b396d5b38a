"""Analysis of uniqueness: agreement of masks, the necessary core, transfer to other networks, the optimality gap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmlib.core.intervals import Measured, average, paired
from fmlib.core.spectra import correlation, full_plane
from fmlib.pipeline.results import NotComputed, Results


def _full(results: Results, name: str) -> Tensor:
    """Minimal masks of a network from all its starts: (starts, K, H, W)."""
    half = torch.from_numpy(results.arrays("restarts")[name].astype(np.float32))
    return full_plane(half, 2 * (half.shape[-1] - 1))


def restart_correlations(results: Results, name: str) -> np.ndarray:
    """Mean correlation of an image's masks over all pairs of starts: (K,)."""
    full = _full(results, name)
    pairs = [(first, second) for first in range(len(full)) for second in range(first)]
    return torch.stack([correlation(full[first], full[second]) for first, second in pairs]).mean(0).numpy()


def network_correlations(results: Results, name: str) -> np.ndarray:
    """Correlation of N's mask of each image with that of another network of the study, both from M = 1: (K,)."""
    return correlation(_full(results, "N")[0], _full(results, name)[0]).numpy()


def restart_agreement(results: Results, name: str) -> Measured:
    """Mean over images of `restart_correlations`."""
    return average(restart_correlations(results, name))


def better_determined(results: Results) -> Measured:
    """Agreement between A's restarts minus that between N's, paired by image."""
    return average(restart_correlations(results, "A") - restart_correlations(results, "N"))


def network_agreement(results: Results, name: str) -> Measured:
    """Mean over images of `network_correlations`."""
    return average(network_correlations(results, name))


def below_floor(results: Results) -> Measured:
    """Agreement between N's restarts minus that between two seeds, paired by image."""
    return average(restart_correlations(results, "N") - network_correlations(results, "seed"))


def below_seeds(results: Results) -> Measured:
    """Agreement between two seeds minus that between two architectures, paired by image."""
    return average(network_correlations(results, "seed") - network_correlations(results, "architecture"))


def core_shares(results: Results, name: str) -> np.ndarray:
    """For each image, the size of the core relative to the mean size of its masks, in frequencies of the full plane."""
    support = _full(results, name) > 0
    return (support.all(0).sum((1, 2)) / support.sum((2, 3)).float().mean(0)).numpy()


def core_share(results: Results, name: str) -> Measured:
    """Mean over images of `core_shares`, in percent."""
    return average(100 * core_shares(results, name))


def removal_difference(results: Results, first: str, second: str, larger: bool = False) -> Measured:
    """Difference of two rates of `removal.npz` on the same images, in points.

    Args:
        larger: whether only images count that have at least as many optional frequencies as core ones.
    """
    arrays = results.arrays("removal")
    chosen = arrays["larger"] if larger else slice(None)
    if larger and not arrays["larger"].any():
        raise NotComputed("no image has as many optional frequencies as core ones")
    return paired(arrays[first][chosen], arrays[second][chosen])


def optimality_gap(results: Results, name: str) -> Measured:
    """The solver's mean excess relative to the mean of the lowest over all subsets, with a bootstrap interval."""
    arrays = results.arrays("optimality")
    solver, subset = (arrays[f"{name}.{kind}"].astype(float) for kind in ("solver", "subset"))
    resamples = np.random.default_rng(0).integers(0, len(solver), (1000, len(solver)))
    low, high = np.quantile(solver[resamples].mean(1) / subset[resamples].mean(1), (0.025, 0.975)).tolist()
    return Measured(float(solver.mean() / subset.mean()), low, high, len(solver))


def agreement(results: Results) -> dict[str, np.ndarray]:
    """Label -> correlation between masks of each image, (K,): between starts, and between networks."""
    return {
        "N, between starts": restart_correlations(results, "N"),
        "A, between starts": restart_correlations(results, "A"),
        "N and another seed": network_correlations(results, "seed"),
        "N and another architecture": network_correlations(results, "architecture"),
    }


def agreement_table(results: Results) -> pd.DataFrame:
    """Mean, median and quartiles over images of the `agreement` of masks."""
    rows = {
        label: {
            "mean": f"{values.mean():.3f}",
            "median": f"{np.median(values):.3f}",
            "quartiles": " to ".join(f"{quartile:.3f}" for quartile in np.quantile(values, (0.25, 0.75))),
            "images": len(values),
        }
        for label, values in agreement(results).items()
    }
    return pd.DataFrame(rows).T
