"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.attacks import perturb
from fmlib.core.config import AttackSpec
from fmlib.core.data import Split
from fmlib.core.device import frozen, mixed_precision
from fmlib.core.errors import FmlibError, require


def check_classifier(model: nn.Module, images: Tensor, classes: int) -> None:
    """Raise `FmlibError` unless `model` maps images (B, C, H, W), finite pixels, to finite logits (B, classes)."""
    require(images.ndim == 4, f"images must have shape (B, C, H, W), not {tuple(images.shape)}")
    require(bool(torch.isfinite(images).all()), "the images hold NaN or infinite pixels: repair or drop them")
    with frozen(model), torch.no_grad():
        try:
            logits = model(images[:2])
        except RuntimeError as error:
            raise FmlibError(
                f"the model cannot take images {tuple(images.shape[1:])}: {str(error).splitlines()[0]}"
            ) from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    require(isinstance(logits, Tensor) and logits.ndim == 2, f"the model must return logits (B, classes), not {shape}")
    require(logits.shape[1] >= classes, f"the labels need {classes} classes but the model has {logits.shape[1]} logits")
    require(bool(torch.isfinite(logits).all()), "the model returns NaN or infinite logits: train it again")


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Each image's cross-entropy, and whether it is classified rightly: two (N,) tensors.

    batches: pixels (B, C, H, W) and labels (B,). The model is evaluated in eval mode and left as it was.
    """
    losses, right = [], []
    with frozen(model), torch.no_grad():
        for images, labels in batches:
            with mixed_precision(images.device):
                logits = model(images.contiguous(memory_format=torch.channels_last)).float()
            losses.append(cross_entropy(logits, labels, reduction="none"))
            right.append(logits.argmax(1) == labels)
    return torch.cat(losses), torch.cat(right)


def correctness(
    model: nn.Module,
    data: Split,
    transform: Callable[[Tensor], Tensor] | None = None,
    attack: AttackSpec | None = None,
    *,
    seed: int = 0,
    batch: int = 256,
) -> Tensor:
    """Whether each image is classified rightly: (N,) bool, on the CPU.

    transform: applied to the pixels first, for instance a mask; attack: attacked by PGD before that.
    """

    def prepared() -> Iterator[tuple[Tensor, Tensor]]:
        for number, (images, labels) in enumerate(data.batches(batch)):
            if attack:
                images = perturb(model, images, labels, attack, seed=seed, purpose=f"evaluation {number}")
            yield (transform(images) if transform else images), labels

    return evaluate(model, prepared())[1].cpu()


def attack_all(
    model: torch.nn.Module, images: Split, spec: AttackSpec, *, seed: int, purpose: str, family: str = "PGD"
) -> Tensor:
    """A split's images under one attack: (N, C, H, W), in batches with a random start each."""
    return torch.cat(
        [
            perturb(model, pixels, labels, spec, seed=seed, purpose=f"{purpose} {number}", family=family)
            for number, (pixels, labels) in enumerate(images.batches(256))
        ]
    )


def predictions(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """The class that a network gives to each image: (B, C, H, W) -> (B,)."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in pixels.split(256)])
