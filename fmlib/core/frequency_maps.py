"""Frequency maps: the few frequencies of an image, channel by channel, that lead a network to a class.

For a frozen network f, an image x and a target class t, the map M minimises

    J(M) = L(f(M(x)), t) + penalty * sum(M),    M(x) = centre + irfft2(M * rfft2(x - centre)),

from M = 1, every entry clamped to [0, 1]; L is the cross-entropy, and the sum runs over the full plane and all
channels. The *essential map* of an image has its clean pixels and its label, the *adversarial map* its attacked pixels
and the class that they are taken for. Both are learned by masks.learn_masks with a `FrequencyMapSpec`, and count if the
prediction behind the map is the target; centre is 0. Source: Basile, Karantzas et al. (2023), arXiv 2305.15203, and
their code.

They differ from the masks of Karantzas et al. (2022) thus:

- The cost is L itself, not g of its change, so that a map may make the network surer of its class than x does.
- A map has as many planes as the image has channels: (C, H, W // 2 + 1).
- The penalty is on the sum: penalty * sum(M) = penalty * C * H * W * mean(M). At 32 px and three channels their 0.5
  stands for 1,536 times the mean of M, where the masks have 0.2 or 0.07.
- They stop by their loss alone, whatever the prediction (see `FrequencyMaps.is_stable`).

**The half plane.** The authors learn the full plane, real(ifft2(M * fft2(x))). A real filter acts as its symmetrised
map, and their loss has the same slope in M(f) and M(-f): started symmetric, their map stays so, and its half plane
says it all. An interior column stands for two frequencies and counts twice in the sum; both terms of its slope double,
which Adam's step does not see. Step by step the maps are theirs.
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
    """The objective of the module's docstring, and its stop rule, for masks.learn_masks."""

    def __init__(self, spec: FrequencyMapSpec, image_shape: torch.Size, unmasked: Tensor) -> None:
        """image_shape: (C, H, W); unmasked: (K,) unmasked accuracy, which this stop rule ignores."""
        self.spec, self.window = spec, spec.window
        self.mask_shape: Sequence[int] = image_shape[:1]
        self.weight = spec.penalty * math.prod(image_shape)  # of the mean of M

    def share(self, maps: Tensor, width: int) -> Tensor:
        """The mean of each map over the full plane and the channels: (K, C, H, W // 2 + 1) -> (K,)."""
        return l1_share(maps, width).mean(1)

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The losses with the maps applied (N,), unchanged; none is clipped."""
        return losses, torch.zeros_like(losses, dtype=torch.bool)

    def is_stable(self, epoch: Epoch) -> Tensor:
        """Whether J is within `loss_tol` of the mean of its last `window` values, after `min_epochs`: (A,) bool."""
        costs = epoch.earlier["invariance"][:, 1:]  # (A, window - 1)
        shares = epoch.earlier["l1_share"][:, :-1]  # (A, window - 1), at the beginning of the same epochs
        now = epoch.metrics["invariance"] + self.weight * epoch.initial_share  # J
        falls = costs + self.weight * shares - now[:, None]  # of J since each
        near = falls.sum(1).abs() < self.spec.window * self.spec.loss_tol
        return near & (epoch.epoch + 1 >= self.spec.min_epochs)
