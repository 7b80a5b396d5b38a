"""Fourier masks by gradient descent, as Karantzas et al. (2022) learn them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmlib.core.config import ImageMaskSpec
from fmlib.core.masks import learn_masks

TITLE = "Fourier masks, authors' schedule"
SOURCE = "Karantzas et al. (2022)"
VERSION = 1
BUDGET = 1000


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The mask of each image that minimises exp(d^2) + 0.07 mean(M), by Adam in at most `budget` steps: (N, H, W)."""
    index = torch.arange(len(images), device=images.device)
    spec = ImageMaskSpec(epochs=budget)
    return learn_masks(model, images, target, index, spec, seed=0, batch_size=len(images), progress=False).full()
