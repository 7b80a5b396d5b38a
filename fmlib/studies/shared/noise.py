"""Noise of known frequencies."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from fmlib.core.errors import require
from fmlib.core.spectra import radius

#: Root mean square of a heat map's noise, per pixel: Yin et al.'s norm of 4 for 3 x 32 x 32 values in [0, 1].
STRENGTH = 4 / (3 * 32 * 32) ** 0.5


def band_noise(images: Tensor, low: float, high: float, norm: float, rng: Generator) -> Tensor:
    """Gaussian noise in one band of frequencies, to be added to images as a controlled corruption.

    Args:
        images: pixels (B, C, H, W); only their shape, type and device count.
        low, high: the band, low <= radius < high, in cycles per image.
        norm: l2 norm of each image's noise, in pixel units.
        rng: on the images' device.

    Returns:
        Noise (B, C, H, W), not clamped.

    Raises:
        FmlibError: the band holds no frequency.
    """
    rows, columns = images.shape[-2:]
    distance = radius(rows, columns)[:, : columns // 2 + 1].to(images.device)
    band = (distance >= low) & (distance < high)
    require(bool(band.any()), f"no frequency of {rows} x {columns} images lies at radius {low} to {high}")
    noise = torch.randn(images.shape, generator=rng, device=images.device, dtype=images.dtype)
    noise = torch.fft.irfft2(torch.fft.rfft2(noise) * band, s=(rows, columns))
    return norm * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
