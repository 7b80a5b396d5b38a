"""Frequency maps: the few frequencies per channel of an image from which a network predicts a class.

For a frozen network f, an image x and a target class t, the map M minimises

    J(M) = L(f(M(x)), t) + penalty * sum(M),    M(x) = centre + irfft2(M * rfft2(x - centre)),

starting at M = 1, with every entry clamped to [0, 1]. L is the cross-entropy; the sum runs over the full plane and all
channels. The *essential map* of an image is learned from its clean pixels and its label, the *adversarial map* from its
attacked pixels and the class that the network predicts for them. Both are learned by `masks.learn_masks` with a
`FrequencyMapSpec`, `objective=FrequencyMaps` and centre 0. A map is valid if the network predicts the target from the
filtered image. Source: Basile, Karantzas et al. (2023), arXiv 2305.15203, and their code.

They differ from the masks of Karantzas et al. (2022) in four ways:

- The cost is L itself, not g of its change. A map may thus make the network more confident than x does.
- A map has one plane per channel of the image: (C, H, W // 2 + 1).
- The penalty is on the sum: penalty * sum(M) = penalty * C * H * W * mean(M). At 32 px and three channels, the authors'
  0.5 gives the mean of M a weight of 1,536; for the masks it is 0.2 or 0.07.
- They stop by their loss alone, whatever the prediction (see `FrequencyMaps.is_stable`).

**Half plane.** The authors learn the full plane, real(ifft2(M * fft2(x))). A real filter acts as its symmetrised map,
and their loss has equal gradients in M(f) and M(-f). Their map starts symmetric and therefore stays symmetric, so its
half plane determines it. An interior column stands for two frequencies and counts twice in the sum. Both terms of its
gradient double, and Adam's step does not depend on the scale of the gradient. The maps equal theirs step by step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fmlib.core.config import FrequencyMapSpec
from fmlib.core.mask_optimizer import Epoch
from fmlib.core.spectra import l1_share


class FrequencyMaps:
    """The objective of the module's docstring and its stop rule, for `masks.learn_masks`.

    Example:
        >>> spec = fmlib.FrequencyMapSpec(penalty=0.01, epochs=20, min_epochs=10, window=5)
        >>> common = {"objective": fmlib.FrequencyMaps, "seed": 0, "progress": False}
        >>> fmlib.learn_masks(network, images[:4], labels[:4], torch.arange(4), spec, **common).half.shape
        torch.Size([4, 1, 16, 9])
    """

    def __init__(self, spec: FrequencyMapSpec, image_shape: torch.Size, unmasked: Tensor) -> None:
        """image_shape: (C, H, W); unmasked: (K,) accuracies without the map, which this objective ignores."""
        self.spec, self.window = spec, spec.window
        self.mask_shape: Sequence[int] = image_shape[:1]
        self.weight = spec.penalty * math.prod(image_shape)  # of the mean of M

    def share(self, maps: Tensor, width: int) -> Tensor:
        """The mean of each map over the full plane and the channels: (K, C, H, W // 2 + 1) -> (K,)."""
        return l1_share(maps, width).mean(1)

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The losses with the maps applied (B,), unchanged, and False for each: none is clipped."""
        return losses, torch.zeros_like(losses, dtype=torch.bool)

    def is_stable(self, epoch: Epoch) -> Tensor:
        """Whether J is within `loss_tol` of the mean of its last `window` values, after `min_epochs`: (A,) bool."""
        costs = epoch.earlier["invariance"][:, 1:]  # (A, window - 1)
        shares = epoch.earlier["l1_share"][:, :-1]  # (A, window - 1), at the start of the same epochs
        now = epoch.metrics["invariance"] + self.weight * epoch.initial_share  # J
        decreases = costs + self.weight * shares - now[:, None]  # of J since each of these epochs
        close = decreases.sum(1).abs() < self.spec.window * self.spec.loss_tol
        return close & (epoch.epoch + 1 >= self.spec.min_epochs)
