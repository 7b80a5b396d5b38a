"""TODO"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.attacks import perturb
from fmlib.core.config import TrainSpec
from fmlib.core.device import mixed_precision


def random_affine(
    count: int,
    rng: torch.Generator,
    *,
    flip: bool = False,
    crop: tuple[float, float] = (1.0, 1.0),
    scale: tuple[float, float] = (1.0, 1.0),
    translation: float = 0.0,
    rotation: float = 0.0,
) -> Tensor:
    """One random affine map an image, (count, 2, 3), from output to input coordinates in [-1, 1]^2.

    crop: range of the area that is cut out and enlarged, sides in ratio 3/4 to 4/3; scale: range of the zoom;
    translation: largest shift as a fraction of the side; rotation: largest angle, degrees, either way.
    The crop and the flip come first, then zoom, rotation and shift, all in one warp.
    """
    device = rng.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=rng, device=device)

    area, ratio = uniform(*crop), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) * (crop != (1.0, 1.0)))
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    centre_x, centre_y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    mirror = 1 - 2 * (uniform(0, 1) < 0.5).float() * flip

    zoom, turn = uniform(*scale), uniform(-rotation, rotation) * math.pi / 180
    shift_x, shift_y = 2 * uniform(-translation, translation), 2 * uniform(-translation, translation)
    cos, sin = torch.cos(turn) / zoom, torch.sin(turn) / zoom
    inner = torch.stack((cos, sin, -sin, cos), -1).view(-1, 2, 2)
    offset = -(inner @ torch.stack((shift_x, shift_y), -1)[:, :, None])  # undo the shift, then turn and zoom
    frame = torch.stack((width * mirror, height), -1)[:, :, None]
    centre = torch.stack((centre_x, centre_y), -1)[:, :, None]
    return torch.cat((frame * inner, frame * offset + centre), -1)


def warp(images: Tensor, affine: Tensor) -> Tensor:
    """Each image (B, C, H, W) under its own map (B, 2, 3), bilinear; black outside the picture."""
    grid = torch.nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


@dataclass
class Batch:
    """What a regime sees: pixels (B, C, H, W), labels (B,), the network, the spec and sources of randomness."""

    images: Tensor
    labels: Tensor
    model: nn.Module
    spec: TrainSpec
    rng: torch.Generator
    seed: int
    step: int
    clean: Tensor = field(init=False)  # the images as `affine` left them, before any attack

    def affine(self, **ranges: Any) -> Tensor:
        """The images under the spec's crop and flip and one regime's random map, in one warp."""
        maps = random_affine(len(self.images), self.rng, crop=self.spec.crop, flip=self.spec.flip, **ranges)
        self.clean = warp(self.images, maps)
        return self.clean


def plain(batch: Batch) -> Tensor:
    """N: random resized crop and horizontal flip."""
    return batch.affine()


def adversarial(batch: Batch, family: str = "PGD") -> Tensor:
    """A: as N, then attacked by PGD against the network unmasked."""
    images, purpose = batch.affine().clamp(0, 1), f"step {batch.step}"
    with mixed_precision(images.device):
        return perturb(
            batch.model, images, batch.labels, batch.spec.attack, seed=batch.seed, purpose=purpose, family=family
        )


def fast_adversarial(batch: Batch) -> Tensor:
    """F: as A, by one step of length epsilon from the image itself."""
    return adversarial(batch, "FGSM")


def scale(batch: Batch) -> Tensor:
    """S: as N, zoomed by a factor in [.5, 1.5]."""
    return batch.affine(scale=(0.5, 1.5))


def translate(batch: Batch) -> Tensor:
    """T: as N, shifted by up to 40% of the side in both directions."""
    return batch.affine(translation=0.4)


def rotate(batch: Batch) -> Tensor:
    """R: as N, turned by up to 180 degrees either way."""
    return batch.affine(rotation=180)


REGIMES: dict[str, Callable[[Batch], Tensor]] = {
    "N": plain,
    "A": adversarial,
    "S": scale,
    "T": translate,
    "R": rotate,
    "F": fast_adversarial,
}
