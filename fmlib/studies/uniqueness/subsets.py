"""The true minimum of the objective over all sets of a few bands, by enumeration in order of size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.device import full_precision
from fmlib.core.masks import clipped_exp_square
from fmlib.core.spectra import angle, apply_mask, l1_share, radius

#: Subsets that are evaluated at once.
BATCH = 256


def ring_sectors(height: int, width: int) -> Tensor:
    """Bands of the half plane: four rings, an octave wide, times four directions, (H, W // 2 + 1) numbered from 0.

    There are 16, and fewer below 32 pixels, where the innermost ring lacks directions. The rings end at 1/16, 1/8 and
    1/4 cycle per pixel; directions are 45 degrees wide, and f and -f share one.
    """
    columns = width // 2 + 1
    position = radius(height, width)[:, :columns] / min(height, width)
    ring = torch.bucketize(position, torch.tensor([1 / 16, 1 / 8, 1 / 4]), right=True)
    sector = (angle(height, width)[:, :columns] / (torch.pi / 4) + 1e-5).long() % 4
    return (4 * ring + sector).unique(return_inverse=True)[1]


def excess(
    model: nn.Module, pixels: Tensor, targets: Tensor, half: Tensor, spec: MinimalMaskSpec, centre: float
) -> Tensor:
    """The objective's excess over 1, g(d) + penalty * L1 share - 1, of masks (K, H, Wh) of the images: (K,)."""
    with torch.no_grad(), full_precision():
        before = cross_entropy(model(pixels), targets, reduction="none")
        after = cross_entropy(model(apply_mask(pixels, half, centre)), targets, reduction="none")
    return clipped_exp_square(after - before, spec.clip) - 1 + spec.penalty * l1_share(half, pixels.shape[-1])


def best_subsets(
    model: nn.Module, pixels: Tensor, targets: Tensor, bands: Tensor, spec: MinimalMaskSpec, centre: float
) -> tuple[Tensor, Tensor]:
    """The lowest excess of all masks that are 1 on a subset of the bands and 0 elsewhere, for each image.

    Subsets are evaluated in ascending order of their L1 share, which bounds the excess from below. The search ends when
    no remaining subset can be better, so that the minimum over all of them is found.

    Args:
        bands: band of each frequency, (H, Wh), from 0 to B - 1.

    Returns:
        The lowest excess (K,), and how many of the 2^B subsets were evaluated (K,).
    """
    count, device = int(bands.max()) + 1, pixels.device
    member = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1 == 1  # (2^B, B)
    shares = torch.stack([l1_share((bands == band).float(), pixels.shape[-1]) for band in range(count)])
    size = member.double() @ shares.double()
    order = size.argsort()
    lowest, evaluated = torch.full((len(pixels),), torch.inf), torch.zeros(len(pixels), dtype=torch.long)
    for index in range(len(pixels)):
        for part in order.split(BATCH):
            if spec.penalty * size[part[0]] >= lowest[index]:
                break
            half = member[part][:, bands].to(device, pixels.dtype)
            image, target = pixels[index].expand(len(part), -1, -1, -1), targets[index].expand(len(part))
            found = excess(model, image, target, half, spec, centre)
            lowest[index] = min(float(lowest[index]), float(found.min()))
            evaluated[index] += len(part)
    return lowest, evaluated
