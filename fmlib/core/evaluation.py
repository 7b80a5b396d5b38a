"""Evaluation: losses, predictions and correctness of a classifier, on clean, filtered or attacked images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.attacks import perturb
from fmlib.core.config import AttackSpec
from fmlib.core.data import Split
from fmlib.core.device import frozen, mixed_precision


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each image (N,), and whether it is classified correctly (N,), on the images' device.

    batches: pixels (B, C, H, W) and labels (B,). The model is evaluated in eval mode and its own mode is restored.
    """
    losses, correct = [], []
    with frozen(model), torch.no_grad():
        for images, labels in batches:
            with mixed_precision(images.device):
                logits = model(images.contiguous(memory_format=torch.channels_last)).float()
            losses.append(cross_entropy(logits, labels, reduction="none"))
            correct.append(logits.argmax(1) == labels)
    return torch.cat(losses), torch.cat(correct)


def correctness(
    model: nn.Module,
    data: Split,
    transform: Callable[[Tensor], Tensor] | None = None,
    attack: AttackSpec | None = None,
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Whether each image is classified correctly, with its pixels transformed or attacked if wanted.

    Args:
        model: a classifier that returns logits (B, classes).
        data: N images and their labels, on the model's device.
        transform: applied to the pixels (B, C, H, W) before the model, for instance a mask.
        attack: PGD on the model without the transform, applied before the transform.
        seed: of the random starts of the attack.
        batch_size: images per forward pass; with an attack, another size means other random starts.

    Returns:
        (N,) bool, on the CPU.

    Example:
        >>> filtered = lambda pixels: fmlib.apply_mask(pixels, masks.half[0], centre=0.5)
        >>> fmlib.correctness(network, data.validation, filtered).shape
        torch.Size([16])
    """

    def prepared() -> Iterator[tuple[Tensor, Tensor]]:
        for index, (images, labels) in enumerate(data.batches(batch_size)):
            if attack:
                images = perturb(model, images, labels, attack, seed=seed, purpose=f"evaluation {index}")
            yield (transform(images) if transform else images), labels

    return evaluate(model, prepared())[1].cpu()


def attack_all(
    model: nn.Module, images: Split, spec: AttackSpec, *, seed: int, purpose: str, family: str = "PGD"
) -> Tensor:
    """All images of a split under one attack (see `attacks.perturb`): (N, C, H, W)."""
    return torch.cat(
        [
            perturb(model, pixels, labels, spec, seed=seed, purpose=f"{purpose} {index}", family=family)
            for index, (pixels, labels) in enumerate(images.batches(256))
        ]
    )


def predictions(model: nn.Module, pixels: Tensor) -> Tensor:
    """The class predicted for each image: (B, C, H, W) -> (B,)."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in pixels.split(256)])
