"""Pure functions of spectra and masks: filtering, complements, radial and angular energies.

**Conventions.** A *full* mask has shape (..., H, W) with DC at (0, 0), in the order of `torch.fft.fft2`. A *half* mask
has shape (..., H, W // 2 + 1), the half plane of `torch.fft.rfft2`. A real filter acts on a real image as the
symmetrised mask (M(f) + M(-f)) / 2, so the half plane determines it. Interior columns stand for two frequencies and
count twice. Frequencies are in cycles per image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmlib.core.errors import require


def column_weights(width: int, device: torch.device | str = "cpu") -> Tensor:
    """How many columns of the full plane each half-plane column stands for, (width // 2 + 1,).

    1 for the columns of DC and Nyquist, otherwise 2.
    """
    weights = torch.full((width // 2 + 1,), 2.0, device=device)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return weights


def full_plane(half: Tensor, width: int) -> Tensor:
    """The symmetric full mask (..., H, `width`) whose half plane is `half` (..., H, `width` // 2 + 1).

    Raises:
        FmlibError: `half` has another number of columns.

    Example:
        >>> from fmlib.core.spectra import full_plane
        >>> full_plane(torch.rand(16, 9), width=16).shape
        torch.Size([16, 16])
    """
    require(half.shape[-1] == width // 2 + 1, f"a half mask of width {width} has {width // 2 + 1} columns")
    columns = torch.arange(half.shape[-1], width, device=half.device)
    mirrored = half[..., width - columns]  # (..., H, W - W // 2 - 1)
    mirrored = torch.roll(torch.flip(mirrored, (-2,)), 1, (-2,))  # row k -> row -k
    return torch.cat((half, mirrored), -1)


def half_plane(full: Tensor) -> Tensor:
    """The half mask (..., H, W // 2 + 1) that filters real images exactly as `full` (..., H, W) does."""
    reflected = torch.roll(torch.flip(full, (-2, -1)), (1, 1), (-2, -1))  # M(-f)
    return ((full + reflected) / 2)[..., : full.shape[-1] // 2 + 1]


def apply_mask(images: Tensor, half: Tensor, centre: float | Tensor = 0.0) -> Tensor:
    """Filtered images M(x) = centre + irfft2(M * rfft2(x - centre)), as in section 2.1 of the paper.

    The paper filters normalised images. With the mean that a network subtracts as `centre`, an image without DC is
    gray rather than black.

    Args:
        images: (B, C, H, W).
        half: one mask for all images (H, W // 2 + 1), one per image (B, H, W // 2 + 1), or one per image and channel
            (B, C, H, W // 2 + 1).
        centre: gray level about which the filter acts, in pixel units; one per channel has the shape (C, 1, 1).

    Returns:
        The filtered images, (B, C, H, W).

    Raises:
        FmlibError: the mask has another size or another number of channels than the images.

    Example:
        >>> bool(torch.allclose(fmlib.apply_mask(images, torch.ones(16, 9)), images, atol=1e-5))
        True
    """
    return centre + filter_spectrum(torch.fft.rfft2(images - centre), half, images.shape[-2:])


def filter_spectrum(spectrum: Tensor, half: Tensor, size: tuple[int, ...]) -> Tensor:
    """irfft2(M * spectrum): the images (B, C, H, W) with these spectra, filtered.

    Args:
        spectrum: rfft2 of the images, (B, C, H, W // 2 + 1).
        half: masks as in `apply_mask`.
        size: (H, W) of the images.

    Raises:
        FmlibError: as `apply_mask`.
    """
    require(
        half.shape[-2:] == spectrum.shape[-2:],
        f"a half mask {tuple(half.shape[-2:])} does not fit images {tuple(size)}: learn it at the size of the images",
    )
    if half.ndim < 4:
        half = half.unsqueeze(-3)  # one mask for all channels
    else:
        require(
            half.shape[1] == spectrum.shape[1],
            f"a mask of {half.shape[1]} channels does not fit images of {spectrum.shape[1]}: give one per channel",
        )
    return torch.fft.irfft2(half * spectrum, s=size)


def mean_amplitude(images: Tensor) -> Tensor:
    """Mean over images and channels of |rfft2|: (B, C, H, W) -> (H, W // 2 + 1)."""
    return torch.fft.rfft2(images).abs().mean((0, 1))


def l1_share(half: Tensor, width: int) -> Tensor:
    """L1 norm over the full plane relative to the all-ones mask, that is the mean of |M|.

    Args:
        half: half masks (..., H, `width` // 2 + 1).
        width: W of the full plane.

    Returns:
        One share per mask, (...).

    Example:
        >>> fmlib.l1_share(torch.full((16, 9), 0.25), width=16)
        tensor(0.2500)
    """
    weights = column_weights(width, half.device)
    return (half.abs() * weights).sum((-2, -1)) / (half.shape[-2] * width)


def complement(mask: Tensor, threshold: float = 1e-8) -> Tensor:
    """1 where the mask is below `threshold`, otherwise 0, as in section 3.2 of the paper; same shape as `mask`.

    Example:
        >>> fmlib.complement(torch.tensor([0.0, 0.5, 1.0]))
        tensor([1., 0., 0.])
    """
    return (mask < threshold).to(mask.dtype)


def binarize(mask: Tensor, threshold: float = 1e-8) -> Tensor:
    """1 where the mask is at least `threshold`, otherwise 0: 1 minus its `complement`."""
    return 1 - complement(mask, threshold)


def radius(height: int, width: int) -> Tensor:
    """Distance of each frequency from DC, in cycles per image: (H, W), DC at (0, 0)."""
    rows = torch.fft.fftfreq(height) * height
    columns = torch.fft.fftfreq(width) * width
    return torch.hypot(rows[:, None], columns[None, :])


def angle(height: int, width: int) -> Tensor:
    """Direction of each frequency from the horizontal axis, radians in [0, 2 pi), 0 at DC: (H, W), DC at (0, 0)."""
    rows = torch.fft.fftfreq(height) * height
    columns = torch.fft.fftfreq(width) * width
    return torch.atan2(rows[:, None], columns[None, :]).remainder(2 * math.pi)


def corner_radius(height: int, width: int) -> float:
    """The largest radius, at the corner of the plane, in cycles per image: sqrt(2) N / 2 for a square of side N."""
    return math.hypot(height / 2, width / 2)


def _band_energies(mask: Tensor, band: Tensor, bands: int) -> Tensor:
    """L2 norm within each band of the mask scaled to norm 1; `band` (H, W) holds band numbers, -1 for none."""
    flat = mask.flatten(-2)  # (..., H * W)
    squares = (flat / flat.norm(dim=-1, keepdim=True).clamp_min(1e-30)) ** 2
    member = torch.nn.functional.one_hot(band.flatten() + 1, bands + 1)[:, 1:].to(mask)  # (H * W, bands)
    return (squares @ member).sqrt()


def radial_energy(mask: Tensor, bands: int = 64) -> Tensor:
    """Energy of full masks in rings of equal width from DC to the corner, as in Fig. 4 of the paper.

    Args:
        mask: (..., H, W), DC at (0, 0).
        bands: number of rings.

    Returns:
        (..., bands); the squares of a mask sum to 1.

    Example:
        >>> fmlib.radial_energy(masks.full(), bands=8).shape
        torch.Size([1, 8])
    """
    height, width = mask.shape[-2:]
    position = radius(height, width) / corner_radius(height, width)
    return _band_energies(mask, (position * bands).long().clamp_max(bands - 1).to(mask.device), bands)


def angular_energy(mask: Tensor, bands: int = 64) -> Tensor:
    """Energy of full masks in sectors of equal angle around DC, as in Fig. 4 of the paper.

    Args:
        mask: (..., H, W), DC at (0, 0).
        bands: number of sectors, the first of which starts at the horizontal axis.

    Returns:
        (..., bands); the squares of a mask sum to 1 minus the share of DC, which has no direction and is left out.

    Example:
        >>> fmlib.angular_energy(masks.full(), bands=8).shape
        torch.Size([1, 8])
    """
    height, width = mask.shape[-2:]
    band = (angle(height, width) / (2 * math.pi) * bands + 1e-5).long() % bands
    band[0, 0] = -1
    return _band_energies(mask, band.to(mask.device), bands)


def low_share(mask: Tensor, fraction: float = 1 / 3) -> Tensor:
    """Share of the energy, the sum of M^2, at radii below `fraction` of the corner radius: (..., H, W) -> (...)."""
    height, width = mask.shape[-2:]
    low = (radius(height, width) < fraction * corner_radius(height, width)).to(mask)
    return (mask**2 * low).sum((-2, -1)) / (mask**2).sum((-2, -1)).clamp_min(1e-30)


def mean_radius(mask: Tensor) -> Tensor:
    """Mean radius of full masks, weighted by M, as a fraction of the corner radius: (..., H, W) -> (...)."""
    height, width = mask.shape[-2:]
    position = (radius(height, width) / corner_radius(height, width)).to(mask)
    return (mask * position).sum((-2, -1)) / mask.sum((-2, -1)).clamp_min(1e-30)


def ring_means(mask: Tensor) -> Tensor:
    """Mean of a full mask (N, N) over rings of radius 0, 1, ..., N // 2, one cycle per image wide: (N // 2 + 1,)."""
    ring = radius(*mask.shape).round()
    return torch.stack([mask[ring == index].mean() for index in range(len(mask) // 2 + 1)])


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson correlation of two full masks over the frequencies: (..., H, W), (..., H, W) -> (...).

    Example:
        >>> mask = torch.rand(16, 16)
        >>> round(float(fmlib.correlation(mask, 1 - mask)), 3)
        -1.0
    """
    first, second = first.flatten(-2), second.flatten(-2)
    first, second = first - first.mean(-1, keepdim=True), second - second.mean(-1, keepdim=True)
    return (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1)).clamp_min(1e-30)
