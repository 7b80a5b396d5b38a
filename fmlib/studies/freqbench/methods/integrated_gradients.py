"""Integrated gradients in the spectrum: the effect of each frequency, along the path from the gray image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.studies.freqbench.methods.gradient_spectrum import product

TITLE = "integrated gradients"
SOURCE = "Sundararajan et al. (2017), in the spectrum"
VERSION = 1
BUDGET = 50


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The integral over t from 0 to 1 of d log p / dM at M = t, by `budget` midpoints: (N, H, W).

    It sums over the plane to the difference of log p between the image and gray.
    """
    total = torch.zeros_like(images)
    for step in range(budget):
        leaf = ((step + 0.5) / budget * images).detach().requires_grad_()
        (grad,) = torch.autograd.grad(-cross_entropy(model(leaf), target, reduction="sum"), leaf)
        total += grad / budget
    return product(total, images)
