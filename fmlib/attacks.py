"""Adversarial attacks on [0,1] pixels, through torchattacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor, nn

from fmlib.config import AttackSpec, require
from fmlib.runtime import frozen, seeded


class CarliniWagner(torchattacks.CW):
    """torchattacks' CW, whose margin fails on a GPU: it indexes a CPU tensor by labels on the device."""

    def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """By how much the right logit leads the best other one, at least 0: (B, classes), (B,) -> (B,)."""
        own = torch.nn.functional.one_hot(labels, outputs.shape[1]).bool()
        return (outputs[own] - outputs.masked_fill(own, -torch.inf).amax(1)).clamp_min(-self.kappa)


#: Family -> the attack of a model. The first two move within the spec's l-infinity ball; the other two seek a
#: misclassification at least l2 distance, and know no radius. CW cannot move a pixel that is wholly black or white.
FAMILIES: dict[str, Callable[[nn.Module, AttackSpec], torchattacks.attack.Attack]] = {
    "PGD": lambda model, spec: torchattacks.PGD(model, spec.epsilon, spec.step, spec.steps, random_start=True),
    "FGSM": lambda model, spec: torchattacks.FGSM(model, spec.epsilon),
    "DeepFool": lambda model, spec: torchattacks.DeepFool(model, steps=20),
    "CW": lambda model, spec: CarliniWagner(model, c=10, steps=50, lr=0.002),
}


def perturb(
    model: nn.Module, images: Tensor, labels: Tensor, spec: AttackSpec, *, seed: int, purpose: str, family: str = "PGD"
) -> Tensor:
    """Adversarial images, within [0, 1], of `images` (B, C, H, W) with `labels` (B,): same shape.

    family: a key of FAMILIES; by default projected gradient ascent of the cross-entropy from a random start, within
    `spec.epsilon` (l-infinity, pixel units) of the images. The model is attacked in eval mode and left as it was.
    Raises `FmlibError` for pixels outside [0, 1] and an unknown family.
    Source: Madry et al. (2018), Goodfellow et al. (2015), Moosavi-Dezfooli et al. (2016), Carlini and Wagner (2017),
    as torchattacks implements them.
    """
    require(family in FAMILIES, f"unknown attack {family!r}: choose one of {', '.join(FAMILIES)}")
    require(
        bool(((images >= 0) & (images <= 1)).all()),
        "attacks need pixels in [0, 1]: keep the normalisation in the model",
    )
    with frozen(model), torch.enable_grad(), seeded(seed, purpose):
        return FAMILIES[family](model, spec)(images, labels)
