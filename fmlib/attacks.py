"""Adversarial attacks on [0,1] pixels, through torchattacks."""

from __future__ import annotations

import torch
import torchattacks
from torch import Tensor, nn

from fmlib.config import AttackSpec, require
from fmlib.runtime import frozen, seeded


def pgd(model: nn.Module, images: Tensor, labels: Tensor, spec: AttackSpec, *, seed: int, purpose: str) -> Tensor:
    """Adversarial images within `spec.epsilon` (l-infinity, pixel units) of `images`, and within [0, 1].

    Projected gradient ascent of the cross-entropy from a random start; images (B, C, H, W), labels (B,).
    The model is attacked in eval mode and left as it was. Raises `FmlibError` for pixels outside [0, 1].
    Source: Madry et al. (2018), as torchattacks implements it.
    """
    require(
        bool(((images >= 0) & (images <= 1)).all()), "PGD needs pixels in [0, 1]: keep the normalisation in the model"
    )
    with frozen(model), torch.enable_grad(), seeded(seed, purpose):
        attack = torchattacks.PGD(model, eps=spec.epsilon, alpha=spec.step, steps=spec.steps, random_start=True)
        return attack(images, labels)
