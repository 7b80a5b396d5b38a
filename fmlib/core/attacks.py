"""Adversarial attacks on pixels in [0, 1], through torchattacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchattacks
from torch import Tensor, nn

from fmlib.core.config import AttackSpec
from fmlib.core.device import frozen, global_rng
from fmlib.core.errors import require


class CarliniWagner(torchattacks.CW):
    """torchattacks' CW with a margin that works on a GPU: the original indexes a CPU tensor by labels on the device."""

    def f(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The logit of the label minus the largest other logit, at least -kappa: (B, classes), (B,) -> (B,)."""
        is_label = torch.nn.functional.one_hot(labels, outputs.shape[1]).bool()
        return (outputs[is_label] - outputs.masked_fill(is_label, -torch.inf).amax(1)).clamp_min(-self.kappa)


class AutoAttack(torchattacks.attack.Attack):
    """The standard ensemble of Croce and Hein (2020): APGD, targeted APGD, targeted FAB and Square.

    Each attack runs on the images that are still classified correctly after the ones before it. torchattacks' own class
    assumes ten classes and ten steps, and takes its seed from the clock. Here the targets are all other classes of the
    network, and the spec gives steps and queries (100 and 5,000 in the standard). The loss of targeted APGD uses the
    fourth-largest logit, so that attack is left out for fewer than four classes.
    """

    def __init__(self, model: nn.Module, spec: AttackSpec) -> None:
        super().__init__("AutoAttack", model)
        self.spec = spec

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Attacked images from images (B, C, H, W) and labels (B,); those still classified correctly are unchanged."""
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


def _pgd(model: nn.Module, spec: AttackSpec) -> torchattacks.attack.Attack:
    """PGD from a random start, repeated `spec.restarts` times on the images that are still classified correctly.

    With several restarts, images that are classified correctly after all of them are returned unchanged.
    """
    attack = torchattacks.PGD(model, spec.epsilon, spec.step, spec.steps, random_start=True)
    return attack if spec.restarts == 1 else torchattacks.MultiAttack([attack] * spec.restarts)


#: Name of an attack -> how it is built for a model. DeepFool and CW minimise the l2 distance of a misclassified image,
#: FAB the l-infinity distance, up to 0.3; they ignore the spec's radius. The others stay within the spec's l-infinity
#: ball. CW cannot change a pixel that is exactly black or white. FAB starts at the image and is deterministic. Square
#: uses logits only, no gradients: if it fools more images than PGD with restarts, the network masks its gradients.
FAMILIES: dict[str, Callable[[nn.Module, AttackSpec], torchattacks.attack.Attack]] = {
    "PGD": _pgd,
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
    """Adversarial images, untargeted.

    Sources: Madry et al. (2018), Goodfellow et al. (2015), Moosavi-Dezfooli et al. (2016), Carlini and Wagner (2017),
    Croce and Hein (2020) and Andriushchenko et al. (2020), as torchattacks implements them.

    Args:
        model: a classifier that returns logits (B, classes). It is attacked in eval mode and left as it was.
        images: pixels in [0, 1], (B, C, H, W).
        labels: (B,), the classes to lead the network away from.
        spec: radius (l-infinity, pixel units), step length and number of steps.
        seed: seed of the attack's random numbers.
        purpose: name of the attack's random stream: the same seed and purpose give the same attack.
        family: a key of `FAMILIES`; by default projected gradient descent (PGD) from a random start.

    Returns:
        The attacked images, pixels in [0, 1], (B, C, H, W).

    Raises:
        FmlibError: a pixel lies outside [0, 1], or the family is unknown.

    Example:
        >>> spec = fmlib.AttackSpec(epsilon=0.03, step=0.01)
        >>> attacked = fmlib.perturb(network, images, labels, spec, seed=0, purpose="example")
        >>> bool((attacked - images).abs().max() <= 0.031)
        True
    """
    require(family in FAMILIES, f"unknown attack {family!r}: choose one of {', '.join(FAMILIES)}")
    require(
        bool(((images >= 0) & (images <= 1)).all()),
        "attacks need pixels in [0, 1]: keep the normalisation in the model",
    )
    with frozen(model), torch.enable_grad(), global_rng(seed, purpose):
        return FAMILIES[family](model, spec)(images, labels)
