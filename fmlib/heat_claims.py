"""The claims on Fourier heat maps: who errs under which frequencies, and whether heat maps and masks agree."""

from __future__ import annotations

import numpy as np
import torch

from fmlib.claim import CONTROL, Claim, Measure, at_least, positive
from fmlib.heatmaps import rank_correlation
from fmlib.intervals import Measured, paired
from fmlib.results import Results
from fmlib.spectra import column_weights, corner_radius, radius

CHAPTER = "fourier_heat_maps"
YIN = "Yin et al. (2019)"
NETWORKS = {"N": "plain", "A": "adversarially trained", "N+": "low-biased", "N-": "high-biased"}


def heat_errors(results: Results, regime: str) -> torch.Tensor:
    """Whether each image is misclassified under each frequency: (N, H, W // 2 + 1) bool."""
    arrays = results.arrays("heat_maps")
    shape = arrays[f"shape.{regime}"]
    return torch.from_numpy(np.unpackbits(arrays[f"errors.{regime}"], count=shape.prod()).reshape(shape).astype(bool))


def _agreement(regime: str) -> Measure:
    """Rank correlation of a network's heat map with its dataset mask."""

    def measure(results: Results) -> Measured:
        mask = torch.from_numpy(results.arrays("heat_maps")[f"mask.{regime}"])
        return rank_correlation(heat_errors(results, regime), mask, seed=0)

    return measure


def third_errors(results: Results, regime: str, low: bool) -> np.ndarray:
    """Each image's share of frequencies that mislead the network, below a third of the corner radius or above: (N,)."""
    found = heat_errors(results, regime).double()
    height, width = found.shape[1], 2 * (found.shape[2] - 1)
    inside = radius(height, width)[:, : width // 2 + 1] < corner_radius(height, width) / 3
    weights = column_weights(width) * (inside if low else ~inside)
    return ((found * weights).sum((1, 2)) / weights.sum()).numpy()


def _more(more: str, fewer: str, low: bool) -> Measure:
    """By how many points more often the first network errs than the second, paired over images."""

    def measure(results: Results) -> Measured:
        return paired(third_errors(results, more, low), third_errors(results, fewer, low))

    return measure


CLAIMS: list[Claim] = [
    positive(
        "H.A.high",
        YIN,
        CHAPTER,
        "Adversarial training makes a network err less when a high frequency is added.",
        _more("N", "A", low=False),
        "points",
    ),
    positive(
        "H.A.low",
        YIN,
        CHAPTER,
        "Adversarial training makes a network err more when a low frequency is added.",
        _more("A", "N", low=True),
        "points",
    ),
    positive(
        "H.N+.high",
        CONTROL,
        CHAPTER,
        "JaFR's bias to low frequencies makes a network err less when a high frequency is added.",
        _more("N", "N+", low=False),
        "points",
    ),
    positive(
        "H.N+.low",
        CONTROL,
        CHAPTER,
        "JaFR's bias to low frequencies makes a network err more when a low frequency is added.",
        _more("N+", "N", low=True),
        "points",
    ),
    positive(
        "H.N-.low",
        CONTROL,
        CHAPTER,
        "JaFR's bias to high frequencies makes a network err less when a low frequency is added.",
        _more("N", "N-", low=True),
        "points",
    ),
    positive(
        "H.N-.high",
        CONTROL,
        CHAPTER,
        "JaFR's bias to high frequencies makes a network err more when a high frequency is added.",
        _more("N-", "N", low=False),
        "points",
    ),
    *(
        at_least(
            f"H.{regime}.agreement",
            CONTROL,
            CHAPTER,
            f"The {name} network errs most under the frequencies that its dataset mask keeps.",
            _agreement(regime),
            near=0.5,
            far=0.3,
            unit="rank correlation",
        )
        for regime, name in NETWORKS.items()
    ),
]
