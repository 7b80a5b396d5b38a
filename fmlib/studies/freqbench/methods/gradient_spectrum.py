"""Gradient times spectrum: the first-order effect of each frequency on the log-probability of the class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

TITLE = "gradient times spectrum"
SOURCE = "gradient times input (Shrikumar et al., 2017), in the spectrum"
VERSION = 1
BUDGET = 1


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """d log p / dM at M = 1, by one pass whatever the budget: (N, H, W)."""
    leaf = images.detach().requires_grad_()
    (grad,) = torch.autograd.grad(-cross_entropy(model(leaf), target, reduction="sum"), leaf)
    return product(grad, images)


def product(grad: Tensor, images: Tensor) -> Tensor:
    """Re(G conj(X)) / HW of gradients and images (N, C, H, W), summed over channels: (N, H, W).

    By Parseval's theorem it sums over the plane to the sum over the pixels of gradient times image.
    """
    together = torch.fft.fft2(grad) * torch.fft.fft2(images).conj()
    return together.real.sum(1) / (images.shape[-2] * images.shape[-1])
