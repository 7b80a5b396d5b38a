"""A low-pass disc: the lower a frequency, the higher its score, whatever the image and the network."""

from __future__ import annotations

from torch import Tensor, nn

from fmlib.core.spectra import radius

TITLE = "low-pass disc"
SOURCE = "baseline"
VERSION = 1
BUDGET = 0


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """Minus the radius in cycles per image, the same for every image: (N, H, W)."""
    height, width = images.shape[-2:]
    return -radius(height, width).to(images).expand(len(images), -1, -1)
