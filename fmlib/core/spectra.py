"""Pure functions of spectra and masks: filters, complements, radial and angular energies.

Conventions. A *full* mask has shape (..., H, W) with DC at index (0, 0), as `torch.fft.fft2` orders it.
A *half* mask has shape (..., H, W // 2 + 1), the half plane of `torch.fft.rfft2`. A real filter acts on a real
image as the symmetrised mask (M(f) + M(-f)) / 2, so the half plane carries everything; interior columns stand
for two frequencies and count twice. Frequencies are in cycles per image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmlib.core.errors import require


def column_weights(width: int, device: torch.device | str = "cpu") -> Tensor:
    """How many columns of the full plane each half-plane column stands for: 1 for DC and Nyquist, else 2.

    Returns (width // 2 + 1,).
    """
    weights = torch.full((width // 2 + 1,), 2.0, device=device)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def full_plane(half: Tensor, width: int) -> Tensor:
    """The full mask (..., H, W) whose half plane is `half`; the rest follows from M(-f) = M(f)."""
    require(half.shape[-1] == width // 2 + 1, f"a half mask of width {width} has {width // 2 + 1} columns")
    columns = torch.arange(half.shape[-1], width, device=half.device)
    mirrored = half[..., width - columns]  # (..., H, W - W // 2 - 1)
    mirrored = torch.roll(torch.flip(mirrored, (-2,)), 1, (-2,))  # row k -> row -k
    return torch.cat((half, mirrored), -1)


def half_plane(full: Tensor) -> Tensor:
    """The half mask (..., H, W // 2 + 1) that filters real images exactly as `full` (..., H, W) does."""
    reflected = torch.roll(torch.flip(full, (-2, -1)), (1, 1), (-2, -1))  # M(-f)
    return ((full + reflected) / 2)[..., : full.shape[-1] // 2 + 1]


def apply_mask(images: Tensor, half: Tensor, centre: float = 0.0) -> Tensor:
    """Filtered images M(x) = centre + irfft2(M * rfft2(x - centre)): the paper, section 2.1.

    images: (B, C, H, W); half: (H, W // 2 + 1), (B, H, W // 2 + 1) for one mask an image, or
    (B, C, H, W // 2 + 1) for one a channel of each image. The paper filters normalised images: with `centre` the mean
    that a network subtracts, dropping DC leaves gray, not black.
    Raises `FmlibError` if the mask is of another size than the images, or of another number of channels.
    """
    return centre + filter_spectrum(torch.fft.rfft2(images - centre), half, images.shape[-2:])


def filter_spectrum(spectrum: Tensor, half: Tensor, size: tuple[int, ...]) -> Tensor:
    """irfft2(M * spectrum): spectrum (B, C, H, W // 2 + 1) of images of `size` (H, W), masks as in `apply_mask`."""
    require(
        half.shape[-2:] == spectrum.shape[-2:],
        f"a half mask {tuple(half.shape[-2:])} does not fit images {tuple(size)}: learn it at the images' size",
    )
    if half.ndim < 4:
        half = half.unsqueeze(-3)  # one mask for all channels
    else:
        require(
            half.shape[1] == spectrum.shape[1],
            f"a mask of {half.shape[1]} channels does not fit images of {spectrum.shape[1]}: give one a channel",
        )
    return torch.fft.irfft2(half * spectrum, s=size)


def mean_amplitude(images: Tensor) -> Tensor:
    """Mean over images and channels of |rfft2|, a half plane: (B, C, H, W) -> (H, W // 2 + 1)."""
    return torch.fft.rfft2(images).abs().mean((0, 1))


def l1_share(half: Tensor, width: int) -> Tensor:
    """||M||_1 over the full plane, divided by that of the all-ones mask: the mean of M. (..., H, Wh) -> (...)."""
    weights = column_weights(width, half.device)
    return (half.abs() * weights).sum((-2, -1)) / (half.shape[-2] * width)


def complement(mask: Tensor, threshold: float = 1e-8) -> Tensor:
    """1 where the mask is below `threshold`, else 0 (the paper, section 3.2)."""
    return (mask < threshold).to(mask.dtype)


def binarize(mask: Tensor, threshold: float = 1e-8) -> Tensor:
    """1 where the mask is at least `threshold`, else 0: what `complement` leaves out."""
    return 1 - complement(mask, threshold)


def pooled(full: Tensor, factor: int) -> Tensor:
    """The largest entry of each block of `factor` x `factor` frequencies of full masks (..., H, W), DC at (0, 0).

    Returns (..., H // factor, W // factor), DC in the middle: the plane is centred first, as Basile et al. store their
    maps, so that a block holds neighbouring frequencies. Where `factor` divides H / 2 and W / 2, as their 7 does 112,
    the blocks of the plane as it is are the same ones in another order. Raises `FmlibError` if the blocks leave a rest.
    """
    height, width = full.shape[-2:]
    require(
        factor >= 1 and height % factor == 0 and width % factor == 0,
        f"blocks of {factor} do not tile a mask of {height} x {width}: choose a factor that divides both",
    )
    centred = torch.fft.fftshift(full, dim=(-2, -1))
    return centred.unflatten(-2, (-1, factor)).unflatten(-1, (-1, factor)).amax((-3, -1))


def radius(height: int, width: int) -> Tensor:
    """Distance from DC of each frequency, cycles per image: (H, W), DC at (0, 0)."""
    rows = torch.fft.fftfreq(height) * height
    columns = torch.fft.fftfreq(width) * width
    return torch.hypot(rows[:, None], columns[None, :])


def angle(height: int, width: int) -> Tensor:
    """Direction of each frequency, in [0, 2 pi), measured from the horizontal axis; 0 at DC. (H, W)."""
    rows = torch.fft.fftfreq(height) * height
    columns = torch.fft.fftfreq(width) * width
    return torch.atan2(rows[:, None], columns[None, :]).remainder(2 * math.pi)


def corner_radius(height: int, width: int) -> float:
    """The largest radius, at the corner of the plane: sqrt(2) N / 2 for a square of side N."""
    return math.hypot(height / 2, width / 2)


def _band_energies(mask: Tensor, band: Tensor, bands: int) -> Tensor:
    """L2 norm of the mask, scaled to norm 1, within each band; `band` (H, W) holds band numbers, -1 for none."""
    flat = mask.flatten(-2)  # (..., H * W)
    squares = (flat / flat.norm(dim=-1, keepdim=True).clamp_min(1e-30)) ** 2
    member = torch.nn.functional.one_hot(band.flatten() + 1, bands + 1)[:, 1:].to(mask)  # (H * W, bands)
    return (squares @ member).sqrt()


def radial_energy(mask: Tensor, bands: int = 64) -> Tensor:
    """Energy of a full mask (..., H, W) in `bands` rings of equal width from DC to the corner: (..., bands).

    The squares sum to 1. Source: the paper, figure 4.
    """
    height, width = mask.shape[-2:]
    position = radius(height, width) / corner_radius(height, width)
    return _band_energies(mask, (position * bands).long().clamp_max(bands - 1).to(mask.device), bands)


def angular_energy(mask: Tensor, bands: int = 64) -> Tensor:
    """Energy of a full mask (..., H, W) in `bands` sectors of equal angle around DC: (..., bands).

    DC has no direction and is left out, so the squares sum to 1 minus DC's share. Source: the paper, figure 4.
    """
    height, width = mask.shape[-2:]
    band = (angle(height, width) / (2 * math.pi) * bands + 1e-5).long() % bands
    band[0, 0] = -1
    return _band_energies(mask, band.to(mask.device), bands)


def low_share(mask: Tensor, fraction: float = 1 / 3) -> Tensor:
    """Share of a full mask's energy (sum of M^2) at radii below `fraction` of the corner radius: (...)."""
    height, width = mask.shape[-2:]
    low = (radius(height, width) < fraction * corner_radius(height, width)).to(mask)
    return (mask**2 * low).sum((-2, -1)) / (mask**2).sum((-2, -1)).clamp_min(1e-30)


def mean_radius(mask: Tensor) -> Tensor:
    """Centre of mass of a full mask in radius, as a fraction of the corner radius: (..., H, W) -> (...)."""
    height, width = mask.shape[-2:]
    position = (radius(height, width) / corner_radius(height, width)).to(mask)
    return (mask * position).sum((-2, -1)) / mask.sum((-2, -1)).clamp_min(1e-30)


def ring_means(mask: Tensor) -> Tensor:
    """Mean of a full mask (N, N) on rings one cycle per image wide, of radius 0, 1, ..., N // 2: (N // 2 + 1,)."""
    ring = radius(*mask.shape).round()
    return torch.stack([mask[ring == number].mean() for number in range(len(mask) // 2 + 1)])


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation over the frequencies of two full masks (..., H, W): (...)."""
    first, second = first.flatten(-2), second.flatten(-2)
    first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1)).clamp_min(1e-30)
