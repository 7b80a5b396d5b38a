"""Common corruptions at five severities, batched on the device, and where in the spectrum they act.

Each corruption is a function of pixels (B, C, H, W) in [0, 1], gray or RGB, a severity from 1 to 5 and a generator on
the images' device; it returns pixels of the same shape in [0, 1]. Corruptions and severities are those of Tiny
ImageNet-C, which is designed for 64 px (Hendrycks and Dietterich, 2019), except for elastic. Lengths scale with the
side of the image. Left out are frost (it needs photographs of frost), saturate (gray images do not show it), snow,
glass blur and spatter. Fog is spectral noise of the same roughness, not diamond-square noise; motion blur is
symmetric; brightness adds the same to all channels.

Only the Gaussian blur (torchvision) and JPEG (Pillow) come from a library: imagecorruptions does not run with current
scikit-image, and the augmentations of kornia and torchvision lack these severities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from fmlib.core.errors import require
from fmlib.core.jacobian import jafr_statistic
from fmlib.core.spectra import apply_mask, full_plane, low_share, mean_amplitude, mean_radius, radius


def gaussian_noise(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """White Gaussian noise."""
    deviation = (0.04, 0.08, 0.12, 0.15, 0.18)[severity - 1]
    return (images + deviation * _normal(images, rng)).clamp(0, 1)


def shot_noise(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Poisson noise of a photon count."""
    photons = (250, 100, 50, 30, 15)[severity - 1]
    return (torch.poisson(images * photons, rng) / photons).clamp(0, 1)


def impulse_noise(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Salt-and-pepper noise: a share of the values becomes black or white."""
    share = (0.01, 0.02, 0.05, 0.08, 0.14)[severity - 1]
    uniform = _uniform(images, rng, 0, 1)
    return images.masked_fill(uniform < share / 2, 0.0).masked_fill(uniform > 1 - share / 2, 1.0)


def speckle_noise(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Gaussian noise proportional to the pixel value."""
    deviation = (0.15, 0.2, 0.25, 0.3, 0.35)[severity - 1]
    return (images + images * deviation * _normal(images, rng)).clamp(0, 1)


def gaussian_blur(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Convolution with a Gaussian kernel."""
    return _blurred(images, (0.5, 0.75, 1, 1.25, 1.5)[severity - 1] * _scale(images)).clamp(0, 1)


def defocus_blur(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Convolution with a disc of radius r, by its transfer function 2 J1(u) / u with u = 2 pi r f.

    The transfer function allows radii of a fraction of a pixel.
    """
    disc = (0.5, 1, 1.5, 2.5, 3)[severity - 1] * _scale(images)  # radius, pixels
    margin = math.ceil(2 * disc)
    padded = pad(images, [margin] * 4, mode="reflect")
    rows, columns = (torch.fft.fftfreq(side) for side in padded.shape[-2:])  # cycles per pixel
    u = 2 * math.pi * disc * torch.hypot(rows[:, None], columns[: len(columns) // 2 + 1]).clamp_min(1e-6)
    filtered = apply_mask(padded, (2 * torch.special.bessel_j1(u) / u).to(images))
    return filtered[..., margin:-margin, margin:-margin].clamp(0, 1)


def motion_blur(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Gaussian blur along a line within 45 degrees of the horizontal, at a random angle for each image."""
    reach, deviation = ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3))[severity - 1]
    angle = _uniform(images[:, :1, :1, :1], rng, -math.pi / 4, math.pi / 4)
    along = torch.cat((torch.cos(angle), torch.sin(angle)), -1) * 2 / 64  # (B, 1, 1, 2), a 64th of the side
    offset = torch.arange(-reach, reach + 1)
    weight = torch.exp(-((offset / deviation) ** 2) / 2)
    total = torch.zeros_like(images)
    for step, share in zip(offset.tolist(), (weight / weight.sum()).tolist(), strict=True):
        total += share * _sampled(images, _zoomed(images, 1) + step * along)
    return total.clamp(0, 1)


def zoom_blur(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Mean of the image and its enlargements by 0, 1, 2, ... percent."""
    largest = (5, 10, 15, 20, 25)[severity - 1]
    total = images.clone()
    for percent in range(largest + 1):
        total += _sampled(images, _zoomed(images, 1 + percent / 100))
    return (total / (largest + 2)).clamp(0, 1)


def fog(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Adds a rough bright layer, then dims the image to its old maximum.

    Diamond-square noise whose height falls by a factor d with each halving of the step has amplitudes that fall as
    f^-(1 + log2 d); the layer is noise of that spectrum, scaled to [0, 1].
    """
    height, decay = ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75))[severity - 1]
    rows, columns = images.shape[-2:]
    falloff = radius(rows, columns)[:, : columns // 2 + 1].to(images).clamp_min(1) ** -(1 + math.log2(decay))
    falloff[0, 0] = 0
    layer = torch.fft.irfft2(torch.fft.rfft2(_normal(images[:, :1], rng)) * falloff, s=(rows, columns))
    layer -= layer.amin((2, 3), keepdim=True)
    layer /= layer.amax((2, 3), keepdim=True)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return ((images + height * layer) * brightest / (brightest + height)).clamp(0, 1)


def brightness(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Adds a constant."""
    return (images + (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]).clamp(0, 1)


def contrast(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Moves each channel towards its mean."""
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    return images.mean((2, 3), keepdim=True).lerp(images, factor)


def pixelate(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Reduces the resolution by averaging areas, and enlarges the result again."""
    share, size = (0.9, 0.8, 0.7, 0.6, 0.5)[severity - 1], images.shape[-2:]
    down, across = (_areas(side, int(side * share)).to(images) for side in size)
    return interpolate(down @ images @ across.T, list(size), mode="nearest-exact").clamp(0, 1)


def jpeg(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Eight-bit JPEG compression, on the CPU, by Pillow (torchvision's is deprecated)."""
    from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

    quality, decoded = (65, 58, 50, 40, 25)[severity - 1], []
    for image in (images * 255).round().to("cpu", torch.uint8):
        file = BytesIO()
        to_pil_image(image).save(file, "JPEG", quality=quality)
        decoded.append(pil_to_tensor(Image.open(file)))
    return torch.stack(decoded).to(images) / 255


def elastic(images: Tensor, severity: int, rng: Generator) -> Tensor:
    """Shifts every pixel along both axes by noise that is smooth over three pixels.

    The size of the shifts is not that of Tiny ImageNet-C, whose elastic transform includes a random affine map that
    outweighs them and weakens with severity.
    """
    shift = (0.3, 0.5, 0.8, 1.1, 1.5)[severity - 1] * _scale(images)  # pixels, root mean square
    count, _, rows, columns = images.shape
    noise = _blurred(_normal(images.new_empty(count, 2, rows, columns), rng), 3 * _scale(images))
    noise = noise / noise.square().mean((1, 2, 3), keepdim=True).sqrt() * 2 * shift / columns
    return _sampled(images, _zoomed(images, 1) + noise.permute(0, 2, 3, 1))


#: Name -> corruption.
CORRUPTIONS: dict[str, Callable[[Tensor, int, Generator], Tensor]] = {
    function.__name__.replace("_", " "): function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        speckle_noise,
        gaussian_blur,
        defocus_blur,
        motion_blur,
        zoom_blur,
        fog,
        brightness,
        contrast,
        pixelate,
        jpeg,
        elastic,
    )
}


def corrupt(images: Tensor, name: str, severity: int, rng: Generator) -> Tensor:
    """Apply a corruption.

    Args:
        images: pixels (B, C, H, W) in [0, 1].
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        rng: on the images' device.

    Returns:
        Corrupted pixels (B, C, H, W) in [0, 1].

    Raises:
        FmlibError: an unknown name or severity, or pixels outside [0, 1].
    """
    require(name in CORRUPTIONS, f"unknown corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}")
    require(severity in range(1, 6), f"severity must be 1, 2, 3, 4 or 5, not {severity}")
    require(bool(((images >= 0) & (images <= 1)).all()), "corruptions need pixels in [0, 1]")
    return CORRUPTIONS[name](images, severity, rng)


class Frequencies(NamedTuple):
    """Where in the spectrum a corruption acts, by the mean of |rfft2| of its change to the images."""

    amplitude: Tensor  # (H, W // 2 + 1)
    mean_radius: float  # of its energy, as a fraction of the corner radius
    low_share: float  # of its energy below a third of the corner radius
    statistic: float  # JaFR's S, by which Chan et al. (2022) order corruptions: see jacobian.jafr_statistic


def frequencies(images: Tensor, corrupted: Tensor) -> Frequencies:
    """The spectrum of the change `corrupted - images`, both (B, C, H, W)."""
    amplitude = mean_amplitude(corrupted - images)
    whole = full_plane(amplitude, images.shape[-1])
    return Frequencies(
        amplitude, float(mean_radius(whole**2)), float(low_share(whole)), float(jafr_statistic(amplitude))
    )


def _normal(like: Tensor, rng: Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=like.device, dtype=like.dtype)


def _uniform(like: Tensor, rng: Generator, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(like.shape, generator=rng, device=like.device, dtype=like.dtype)


def _scale(images: Tensor) -> float:
    """Side of the images over 64 px."""
    return images.shape[-1] / 64


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur; the kernel reaches four deviations either way, or as far as the border's reflection allows."""
    reach = min(math.ceil(4 * deviation), min(images.shape[-2:]) - 1)
    from torchvision.transforms.v2.functional import gaussian_blur as blur

    return blur(images, [2 * reach + 1] * 2, [deviation] * 2)


def _areas(many: int, few: int) -> Tensor:
    """The matrix (few, many) that maps `many` pixels to their means over `few` equal lengths."""
    edges, pixel = torch.arange(few + 1)[:, None] * many / few, torch.arange(many)
    overlap = torch.minimum(edges[1:], pixel + 1) - torch.maximum(edges[:-1], pixel)
    return overlap.clamp_min(0) * few / many


def _zoomed(images: Tensor, factor: float) -> Tensor:
    """Sampling grid (B, H, W, 2) in [-1, 1]^2 that enlarges images about their centre."""
    affine = torch.eye(2, 3, device=images.device, dtype=images.dtype) / factor
    return affine_grid(affine.expand(len(images), 2, 3), list(images.shape), align_corners=False)


def _sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Images sampled at a grid (B, H, W, 2) in [-1, 1]^2: bilinear, reflected at the border."""
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)
