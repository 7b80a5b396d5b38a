"""Fast Fourier correlation: how the spectrum turns when the image is made more typical of its class.

The image descends the cross-entropy of its class for T steps, x' = x - lr * (gradients). With X and X' the spectra of
x and x', a frequency scores 2 Re(X' conj(X)) / |X| - |X|: the projection of X' on X counted twice, less |X|.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

TITLE = "fast Fourier correlation (FFC)"
SOURCE = "Liu (2025)"
VERSION = 1
BUDGET = 20

#: The step length in the authors' code.
RATE = 1000.0


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The correlation of the spectra before and after `budget` gradient steps, summed over channels: (N, H, W)."""
    moved = images.clone()
    for _ in range(budget):
        leaf = moved.detach().requires_grad_()
        loss = cross_entropy(model(leaf), target, reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        moved = moved - RATE * grad
    before, after = torch.fft.fft2(images), torch.fft.fft2(moved)
    size = before.abs()
    return (2 * (after * before.conj()).real / size.clamp_min(1e-7) - size).sum(1)
