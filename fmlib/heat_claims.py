"""The claims on Fourier heat maps: Yin et al.'s on adversarial training, and whether heat maps and masks agree."""

from __future__ import annotations

import numpy as np
import torch

from fmlib.claim import CONTROL, Claim, Measure, at_least, positive
from fmlib.heatmaps import rank_correlation
from fmlib.intervals import Measured, paired
from fmlib.results import Results
from fmlib.spectra import column_weights, corner_radius, half_plane, radius

CHAPTER = "fourier_heat_maps"
YIN = "Yin et al. (2019)"


def heat_errors(results: Results, regime: str) -> torch.Tensor:
    """Whether each image is misclassified under each frequency: (N, H, W // 2 + 1) bool."""
    arrays = results.arrays("heat_maps")
    shape = arrays[f"shape.{regime}"]
    return torch.from_numpy(np.unpackbits(arrays[f"errors.{regime}"], count=shape.prod()).reshape(shape).astype(bool))


def _agreement(regime: str) -> Measure:
    """Rank correlation of a network's heat map with its dataset mask."""

    def measure(results: Results) -> Measured:
        mask = torch.from_numpy(results.arrays("dataset_masks")[regime][0])
        return rank_correlation(heat_errors(results, regime), half_plane(mask), seed=0)

    return measure


def third_errors(results: Results, regime: str, low: bool) -> np.ndarray:
    """Each image's share of frequencies that mislead the network, below a third of the corner radius or above: (N,)."""
    found = heat_errors(results, regime).double()
    height, width = found.shape[1], 2 * (found.shape[2] - 1)
    inside = radius(height, width)[:, : width // 2 + 1] < corner_radius(height, width) / 3
    weights = column_weights(width) * (inside if low else ~inside)
    return ((found * weights).sum((1, 2)) / weights.sum()).numpy()


def _change(low: bool, sign: int) -> Measure:
    """By how many points more (sign 1) or less (-1) often A errs than N, paired over images."""

    def measure(results: Results) -> Measured:
        first, second = (third_errors(results, regime, low) for regime in ("AN" if sign > 0 else "NA"))
        return paired(first, second)

    return measure


CLAIMS: list[Claim] = [
    positive(
        "H.A.high",
        YIN,
        CHAPTER,
        "Adversarial training makes a network err less when a high frequency is added.",
        _change(low=False, sign=-1),
        "points",
    ),
    positive(
        "H.A.low",
        YIN,
        CHAPTER,
        "Adversarial training makes a network err more when a low frequency is added.",
        _change(low=True, sign=1),
        "points",
    ),
    at_least(
        "H.N.agreement",
        CONTROL,
        CHAPTER,
        "The plain network errs most under the frequencies that its dataset mask keeps.",
        _agreement("N"),
        near=0.5,
        far=0.3,
        unit="rank correlation",
    ),
    at_least(
        "H.A.agreement",
        CONTROL,
        CHAPTER,
        "The adversarially trained network errs most under the frequencies that its dataset mask keeps.",
        _agreement("A"),
        near=0.5,
        far=0.3,
        unit="rank correlation",
    ),
]
