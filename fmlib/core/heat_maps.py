"""Fourier heat maps: a network's error rate when noise of a single frequency is added to its images.

The noise of frequency (i, j) of the half plane is the real image U_ij ~ cos(2 pi (i y / H + j x / W)) of unit l2 norm.
In the columns of DC and Nyquist, rows i and -i give the same image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fmlib.core.checks import PROBES, check_classifier
from fmlib.core.data import Split
from fmlib.core.device import generator
from fmlib.core.errors import require
from fmlib.core.evaluation import evaluate


def basis(frequencies: Tensor, size: tuple[int, int]) -> Tensor:
    """The images U_ij of l2 norm 1.

    Args:
        frequencies: (K, 2), pairs (i, j) in cycles per image.
        size: (H, W) in pixels.

    Returns:
        (K, H, W).
    """
    height, width = size
    down = torch.arange(height, device=frequencies.device) / height
    across = torch.arange(width, device=frequencies.device) / width
    phase = frequencies[:, 0, None, None] * down[:, None] + frequencies[:, 1, None, None] * across
    waves = torch.cos(2 * math.pi * phase)
    return waves / waves.flatten(1).norm(dim=1)[:, None, None]


def errors(
    model: nn.Module, data: Split, norm: float, *, seed: int, chunk: int = 128, frequencies: Tensor | None = None
) -> Tensor:
    """Whether each image is misclassified with noise of each frequency.

    An image x becomes x + s * norm * U_ij, clamped to [0, 1], with a random sign s = +-1 per image, channel and
    frequency. Source: Yin et al. (2019).

    Args:
        model: a classifier that returns logits (B, classes). It is evaluated in eval mode and left as it was.
        data: N images and their labels.
        norm: l2 norm of the noise in each channel, pixel units.
        seed: seed of the signs.
        chunk: largest number of noisy images at a time.
        frequencies: (K, 2), pairs (i, j) as in `basis`, if only these are wanted (default: the half plane).

    Returns:
        (N, H, W // 2 + 1) bool, or (N, K) for chosen frequencies, on the CPU.

    Raises:
        FmlibError: `norm` or `chunk` is not positive.
    """
    require(norm > 0 and chunk >= 1, f"norm and chunk must be positive, not {norm} and {chunk}")
    count, channels, height, width = data.images.shape
    shape = (height, width // 2 + 1) if frequencies is None else (len(frequencies),)
    if frequencies is None:
        frequencies = torch.cartesian_prod(torch.arange(height), torch.arange(width // 2 + 1))  # (F, 2)

    def signs(index: int) -> Tensor:
        """-1 or 1 for frequency `index`, (N, C, 1, 1)."""
        rng = generator(seed, f"signs {index}")
        return 2 * torch.randint(0, 2, (count, channels, 1, 1), generator=rng) - 1

    def noisy_batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.arange(len(frequencies)).split(max(chunk // count, 1)):
            waves = norm * basis(frequencies[indices].to(data.images.device), (height, width))  # (K, H, W)
            sign = torch.stack([signs(index) for index in indices.tolist()]).to(waves)  # (K, N, C, 1, 1)
            for start in range(0, count, chunk):
                part = slice(start, start + chunk)
                noisy = data.pixels(part) + sign[:, part] * waves[:, None, None]  # (K, B, C, H, W)
                yield noisy.clamp(0, 1).flatten(0, 1), data.labels[part].repeat(len(indices))

    correct = evaluate(model, noisy_batches())[1]  # (F * N,)
    return ~correct.view(*shape, count).movedim(-1, 0).cpu()


def heat_map(model: nn.Module, data: Split, norm: float, *, seed: int, chunk: int = 128) -> Tensor:
    """Share of images misclassified with noise of each frequency, (H, W // 2 + 1); arguments as of `errors`.

    Example:
        >>> fmlib.heat_map(network, data.validation, norm=1.0, seed=0).shape
        torch.Size([16, 9])
    """
    check_classifier(model, data.pixels(slice(PROBES)), data.labels)
    return errors(model, data, norm, seed=seed, chunk=chunk).float().mean(0)
