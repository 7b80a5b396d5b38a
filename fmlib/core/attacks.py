"""Adversarial attacks on [0,1] pixels, through torchattacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor, nn

from fmlib.core.config import AttackSpec
from fmlib.core.device import frozen, global_rng
from fmlib.core.errors import require


class CarliniWagner(torchattacks.CW):
    """torchattacks' CW, whose margin fails on a GPU: it indexes a CPU tensor by labels on the device."""

    def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """By how much the right logit leads the best other one, at least 0: (B, classes), (B,) -> (B,)."""
        own = torch.nn.functional.one_hot(labels, outputs.shape[1]).bool()
        return (outputs[own] - outputs.masked_fill(own, -torch.inf).amax(1)).clamp_min(-self.kappa)


class AutoAttack(torchattacks.attack.Attack):
    """Croce and Hein's standard ensemble: APGD, targeted APGD, targeted FAB, and Square on what withstands them.

    torchattacks' own takes ten classes, ten steps and a seed from the clock. Here targets are all the network's other
    classes, and the spec gives the steps and queries; the standard is 100 and 5000. Targeted APGD divides by a
    difference of the fourth logit and is left out for fewer than four classes.
    """

    def __init__(self, model: nn.Module, spec: AttackSpec) -> None:
        super().__init__("AutoAttack", model)
        self.spec = spec

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) and labels (B,) -> attacked images; one that withstands is returned as it was."""
        with torch.no_grad():
            classes = self.get_logits(images[:1]).shape[1]
        common = {"eps": self.spec.epsilon, "seed": torch.initial_seed()}
        parts = [torchattacks.APGD(self.model, steps=self.spec.steps, **common)]
        if classes >= 4:
            parts += [torchattacks.APGDT(self.model, steps=self.spec.steps, n_classes=classes, **common)]
        parts += [
            torchattacks.FAB(self.model, steps=self.spec.steps, multi_targeted=True, n_classes=classes, **common),
            torchattacks.Square(self.model, n_queries=self.spec.queries, **common),
        ]
        return torchattacks.MultiAttack(parts)(images, labels).detach()


def _projected(model: nn.Module, spec: AttackSpec) -> torchattacks.attack.Attack:
    """PGD from a random start; with restarts, again and again on the images that withstand, returned as they were."""
    attack = torchattacks.PGD(model, spec.epsilon, spec.step, spec.steps, random_start=True)
    return attack if spec.restarts == 1 else torchattacks.MultiAttack([attack] * spec.restarts)


#: Family -> the attack of a model. DeepFool and CW seek a misclassification at least l2 distance, FAB at least
#: l-infinity distance up to 0.3, and know no radius; the others move within the spec's l-infinity ball. CW cannot move
#: a pixel that is wholly black or white. FAB starts at the image and draws nothing. Square sees logits only, no
#: gradients: where it fools more images than PGD with restarts, the gradients are masked.
FAMILIES: dict[str, Callable[[nn.Module, AttackSpec], torchattacks.attack.Attack]] = {
    "PGD": _projected,
    "FGSM": lambda model, spec: torchattacks.FGSM(model, spec.epsilon),
    "DeepFool": lambda model, spec: torchattacks.DeepFool(model, steps=20),
    "CW": lambda model, spec: CarliniWagner(model, c=10, steps=50, lr=0.002),
    "AutoAttack": AutoAttack,
    "Square": lambda model, spec: torchattacks.Square(
        model, eps=spec.epsilon, n_queries=spec.queries, seed=torch.initial_seed()
    ),
    "FAB": lambda model, spec: torchattacks.FAB(model, eps=0.3, steps=20),
}


def perturb(
    model: nn.Module, images: Tensor, labels: Tensor, spec: AttackSpec, *, seed: int, purpose: str, family: str = "PGD"
) -> Tensor:
    """Adversarial images, within [0, 1], of `images` (B, C, H, W) with `labels` (B,): same shape.

    family: a key of FAMILIES; by default projected gradient ascent of the cross-entropy from a random start, within
    `spec.epsilon` (l-infinity, pixel units) of the images. The model is attacked in eval mode and left as it was.
    Raises `FmlibError` for pixels outside [0, 1] and an unknown family.
    Source: Madry et al. (2018), Goodfellow et al. (2015), Moosavi-Dezfooli et al. (2016), Carlini and Wagner (2017),
    Croce and Hein (2020), Andriushchenko et al. (2020), as torchattacks implements them.
    """
    require(family in FAMILIES, f"unknown attack {family!r}: choose one of {', '.join(FAMILIES)}")
    require(
        bool(((images >= 0) & (images <= 1)).all()),
        "attacks need pixels in [0, 1]: keep the normalisation in the model",
    )
    with frozen(model), torch.enable_grad(), global_rng(seed, purpose):
        return FAMILIES[family](model, spec)(images, labels)
