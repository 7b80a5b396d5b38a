"""Random masks in the spectrum, after FreqRISE: the mean of the masks, weighted by the probability of the class.

A mask is a grid of zeros and ones, each 1 with probability 1/2, enlarged to the plane by linear interpolation with a
random shift. Images share the masks. No gradients are needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fmlib.core.spectra import filter_spectrum, full_plane

TITLE = "random masks (FreqRISE)"
SOURCE = "Bruesch et al. (2024)"
VERSION = 1
BUDGET = 1000

#: Cells of the grid along the rows of the plane, and the probability of a one.
CELLS, KEPT = 16, 0.5


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """sum of p(M(x)) M over `budget` masks, divided by their number and 1/2: (N, H, W)."""
    height, width = images.shape[-2:]
    spectrum, half = torch.fft.rfft2(images), torch.zeros(len(images), height, width // 2 + 1, device=images.device)
    with torch.no_grad():
        for _ in range(budget):
            mask = drawn(height, width, images.device)
            logits = model(filter_spectrum(spectrum, mask, (height, width)))
            share = logits.softmax(1).gather(1, target[:, None])  # (N, 1)
            half += share[..., None] * mask / (budget * KEPT)
    return full_plane(half, width)


def drawn(height: int, width: int, device: torch.device) -> Tensor:
    """A random half mask in [0, 1], (H, W // 2 + 1), by torch's global generator."""
    cell = -(-height // CELLS)  # frequencies per cell
    columns = width // 2 + 1
    grid = (torch.rand(1, 1, CELLS + 1, -(-columns // cell) + 1, device=device) < KEPT).float()
    large = interpolate(grid, scale_factor=cell, mode="bilinear", align_corners=False)[0, 0]
    down, across = torch.randint(cell, (2,)).tolist()
    centred = large[down : down + height, across : across + columns]
    return torch.fft.ifftshift(centred, 0)
