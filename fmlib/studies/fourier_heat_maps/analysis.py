"""Analysis of Fourier heat maps: errors at low and high frequencies, and their agreement with dataset masks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from fmlib.core.intervals import Measured, average, paired
from fmlib.core.spectra import column_weights, corner_radius, full_plane, radius
from fmlib.pipeline.results import Results
from fmlib.studies.fourier_heat_maps.experiment import NETWORKS


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


def error_table(results: Results) -> pd.DataFrame:
    """Error rates in percent with 95% intervals over images, as text: one row per network.

    The columns are images without an added frequency, and with one below and above a third of the corner radius.
    """
    names = [f"{name} ({regime})".replace("-", "\N{MINUS SIGN}") for regime, name in NETWORKS.items()]
    columns: dict[str, list[str]] = {}
    for title, shares in (
        ("no added frequency", lambda regime: results.arrays("heat_maps")[f"clean.{regime}"].astype(float)),
        ("low frequency added", lambda regime: band_errors(results, regime, low=True)),
        ("high frequency added", lambda regime: band_errors(results, regime, low=False)),
    ):
        means = [average(100 * shares(regime)) for regime in NETWORKS]
        columns[title] = [f"{mean.value:.1f}% ({mean.low:.1f} to {mean.high:.1f})" for mean in means]
    return pd.DataFrame(columns, index=pd.Index(names)).rename_axis(columns="network")


def ring_errors(results: Results, regime: str, rings: int = 15) -> list[Measured]:
    """Error rate in percent, averaged over the frequencies of each ring of equal width, from DC to the corner."""
    errors = heat_errors(results, regime).double()
    height, width = errors.shape[1], 2 * (errors.shape[2] - 1)
    position = radius(height, width)[:, : width // 2 + 1] / corner_radius(height, width)
    ring = (position * rings).long().clamp_max(rings - 1)
    weights = torch.stack([column_weights(width) * (ring == index) for index in range(rings)]).double()
    shares = errors.flatten(1) @ weights.flatten(1).T / weights.sum((1, 2))  # (N, rings)
    return [average(100 * share) for share in shares.T.numpy()]


def rank_correlation(misclassified: Tensor, half: Tensor, *, seed: int, resamples: int = 1000) -> Measured:
    """Spearman's correlation of a heat map with a half mask over the full plane, with a bootstrap interval over images.

    The interval holds the 2.5 to 97.5 percentiles of the resamples, widened to contain the value: resampling the images
    adds noise to the map, which biases every resample towards zero.

    Args:
        misclassified: (N, H, W // 2 + 1) bool, as `errors` returns.
        half: (H, W // 2 + 1), of images with an even width.
        seed: seed of the resamples.
        resamples: number of bootstrap resamples.

    Returns:
        The correlation, its 95% interval and N. The correlation of a constant map is 0.
    """
    count, width = len(misclassified), 2 * (half.shape[-1] - 1)
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    weights = np.concatenate((np.ones((1, count)), counts)) / count  # the images themselves, then the resamples
    maps = torch.from_numpy(weights) @ misclassified.flatten(1).double()
    full = full_plane(maps.view(-1, *half.shape), width).flatten(1).numpy()
    ranks = _standardized(rankdata(full, axis=1))
    values = ranks @ _standardized(rankdata(full_plane(half, width).numpy().flatten()))
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return Measured(float(values[0]), float(min(low, values[0])), float(max(high, values[0])), count)


def _standardized(ranks: np.ndarray) -> np.ndarray:
    """Ranks (..., F) minus their mean, scaled to norm 1; equal ranks give zeros."""
    centred = ranks - ranks.mean(-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-30)
