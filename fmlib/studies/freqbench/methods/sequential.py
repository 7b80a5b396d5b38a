"""Minimal masks by sequential convex steps, the new solver: sixty passes instead of a thousand."""

from __future__ import annotations

from torch import Tensor, nn

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.minimal_masks import minimal_masks

TITLE = "Fourier masks, sequential convex steps"
SOURCE = "this book, chapter uniqueness"
VERSION = 1
BUDGET = 60


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The minimal mask of each image after `budget` forward and backward passes, from M = 1: (N, H, W)."""
    spec = MinimalMaskSpec(steps=budget)
    return minimal_masks(model, images, target, spec, progress=False).full()
