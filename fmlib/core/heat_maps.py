"""Fourier heat maps: how often a network errs when one frequency is added to its images.

The frequency (i, j) of the half plane is the real image U_ij ~ cos(2 pi (i y / H + j x / W)) of unit l2 norm. In the
columns of DC and Nyquist, rows i and -i are the same image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from fmlib.core.data import Split
from fmlib.core.device import generator
from fmlib.core.errors import require
from fmlib.core.evaluation import evaluate
from fmlib.core.intervals import Measured
from fmlib.core.spectra import full_plane


def basis(frequencies: Tensor, size: tuple[int, int]) -> Tensor:
    """U_ij of the frequencies (i, j), (K, 2) cycles an image: (K, H, W), each of l2 norm 1."""
    height, width = size
    down = torch.arange(height, device=frequencies.device) / height
    across = torch.arange(width, device=frequencies.device) / width
    turns = frequencies[:, 0, None, None] * down[:, None] + frequencies[:, 1, None, None] * across
    waves = torch.cos(2 * math.pi * turns)
    return waves / waves.flatten(1).norm(dim=1)[:, None, None]


def errors(model: nn.Module, data: Split, norm: float, *, seed: int, chunk: int = 128) -> Tensor:
    """Whether each image is misclassified under each frequency: (N, H, W // 2 + 1) bool, on the CPU.

    An image x becomes x + s norm U_ij, clamped to [0, 1]; norm is in pixel units, of each channel; the sign s = +-1 is
    drawn for each image, channel and frequency. `chunk` images at a time are on the device, whatever their number and
    that of the frequencies. The model is evaluated in eval mode and left as it was. Source: Yin et al. (2019).
    """
    require(norm > 0 and chunk >= 1, "a heat map needs a positive norm and chunk")
    count, channels, height, width = data.images.shape
    frequencies = torch.cartesian_prod(torch.arange(height), torch.arange(width // 2 + 1))  # (F, 2)

    def signs(number: int) -> Tensor:
        """-1 or 1 of frequency `number`, (N, C, 1, 1)."""
        rng = generator(seed, f"signs {number}")
        return 2 * torch.randint(0, 2, (count, channels, 1, 1), generator=rng) - 1

    def perturbed() -> Iterator[tuple[Tensor, Tensor]]:
        for numbers in torch.arange(len(frequencies)).split(max(chunk // count, 1)):
            waves = norm * basis(frequencies[numbers].to(data.images.device), (height, width))  # (K, H, W)
            sign = torch.stack([signs(number) for number in numbers.tolist()]).to(waves)  # (K, N, C, 1, 1)
            for start in range(0, count, chunk):
                part = slice(start, start + chunk)
                moved = data.pixels(part) + sign[:, part] * waves[:, None, None]  # (K, B, C, H, W)
                yield moved.clamp(0, 1).flatten(0, 1), data.labels[part].repeat(len(numbers))

    right = evaluate(model, perturbed())[1]  # (F * N,)
    return ~right.view(height, width // 2 + 1, count).movedim(-1, 0).cpu()


def heat_map(model: nn.Module, data: Split, norm: float, *, seed: int, chunk: int = 128) -> Tensor:
    """Share of images misclassified under each frequency: (H, W // 2 + 1), see `errors`."""
    return errors(model, data, norm, seed=seed, chunk=chunk).float().mean(0)


def rank_correlation(found: Tensor, half: Tensor, *, seed: int, resamples: int = 1000) -> Measured:
    """Spearman's correlation, over the full plane, of a heat map with a half mask (H, W // 2 + 1), and its interval.

    found: (N, H, W // 2 + 1), as `errors` returns. Interior columns stand for two frequencies and count twice. The
    interval is the 95% bootstrap percentile one over images, widened to hold the value: drawing images anew adds noise
    to the map, which pulls every resample towards zero.
    """
    count, width = len(found), 2 * (half.shape[-1] - 1)
    rng = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    weights = np.concatenate((np.ones((1, count)), rng)) / count  # the images themselves, then the resamples
    maps = torch.from_numpy(weights) @ found.flatten(1).double()
    whole = full_plane(maps.view(-1, *half.shape), width).flatten(1).numpy()
    ranks = _standardized(rankdata(whole, axis=1))
    values = ranks @ _standardized(rankdata(full_plane(half, width).numpy().flatten()))
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return Measured(float(values[0]), float(min(low, values[0])), float(max(high, values[0])), count)


def _standardized(ranks: np.ndarray) -> np.ndarray:
    """Ranks (..., F) less their mean, to norm 1; equal ranks give zero."""
    centred = ranks - ranks.mean(-1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-30)
