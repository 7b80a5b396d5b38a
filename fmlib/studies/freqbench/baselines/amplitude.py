"""The amplitude spectrum of the image, whatever the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TITLE = "amplitude of the image"
SOURCE = "baseline"
VERSION = 1
BUDGET = 0


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """|fft2(x)|, the root of the sum of squares over channels: (N, H, W)."""
    return torch.fft.fft2(images).abs().square().sum(1).sqrt()
