"""Random scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TITLE = "random"
SOURCE = "baseline"
VERSION = 1
BUDGET = 0


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """Independent uniform numbers, by torch's global generator: (N, H, W)."""
    return torch.rand(len(images), *images.shape[-2:], device=images.device)
