"""Essential frequency maps: the few frequencies from which a network predicts the class, one map per channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.config import FrequencyMapSpec
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.masks import learn_masks

TITLE = "frequency maps"
SOURCE = "Basile et al. (2024)"
VERSION = 1
BUDGET = 500


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The mean over channels of the map that minimises L + 0.01 sum(M), by Adam in `budget` steps: (N, H, W)."""
    index = torch.arange(len(images), device=images.device)
    spec = FrequencyMapSpec(penalty=0.01, epochs=budget, min_epochs=max(budget, 21))
    common: dict[str, Any] = {"seed": 0, "objective": FrequencyMaps, "batch_size": len(images), "progress": False}
    return learn_masks(model, images, target, index, spec, **common).full().mean(1)
