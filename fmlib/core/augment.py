"""Augmentation: the images that each training regime shows to the network, made on the device.

All regimes crop and flip at random. N adds nothing; S, T and R also scale, shift or rotate in the same warp; A and F
attack the result with PGD or FGSM. `REGIMES` maps each letter to its regime.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    """One random affine map per image, (count, 2, 3), from output to input coordinates in [-1, 1]^2.

    The crop and the flip come first, then zoom, rotation and shift. flip: mirror half of the images from left to right;
    crop: range of the relative area that is cut out and enlarged, with aspect ratios from 3/4 to 4/3; scale: range of
    the zoom factor; translation: largest shift, as a fraction of the side; rotation: largest angle, degrees.
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
    offset = -(inner @ torch.stack((shift_x, shift_y), -1)[:, :, None])  # undo the shift, then rotation and zoom
    frame = torch.stack((width * mirror, height), -1)[:, :, None]
    centre = torch.stack((centre_x, centre_y), -1)[:, :, None]
    return torch.cat((frame * inner, frame * offset + centre), -1)


def warp(images: Tensor, affine: Tensor) -> Tensor:
    """Images (B, C, H, W) under one map each (B, 2, 3), interpolated bilinearly; outside the image is black."""
    grid = torch.nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


@dataclass
class Batch:
    """What a regime augments: a batch of images, the network in training and the sources of randomness."""

    images: Tensor  # (B, C, H, W), in [0, 1]
    labels: Tensor  # (B,)
    model: nn.Module
    spec: TrainSpec
    rng: torch.Generator  # of the random maps
    seed: int  # of the attacks, with `step`
    step: int  # number of the training step
    clean: Tensor = field(init=False)  # the images that `affine` returned, before any attack

    def affine(self, **ranges: Any) -> Tensor:
        """The images under the spec's crop and flip and the regime's random map, in one warp."""
        maps = random_affine(len(self.images), self.rng, crop=self.spec.crop, flip=self.spec.flip, **ranges)
        self.clean = warp(self.images, maps)
        return self.clean


def adversarial(batch: Batch, family: str = "PGD") -> Tensor:
    """The images of N, attacked on the network itself; FGSM is one step of length epsilon from the clean image."""
    images, purpose = batch.affine().clamp(0, 1), f"step {batch.step}"
    with mixed_precision(images.device):
        return perturb(
            batch.model, images, batch.labels, batch.spec.attack, seed=batch.seed, purpose=purpose, family=family
        )


class Regime(NamedTuple):
    """A training regime."""

    network: str  # the name of its networks in words
    augment: Callable[[Batch], Tensor]  # the images shown to the network, of the shape of `Batch.images`


REGIMES = {
    "N": Regime("standard", lambda batch: batch.affine()),
    "A": Regime("adversarially trained", adversarial),
    "S": Regime("scale", lambda batch: batch.affine(scale=(0.5, 1.5))),
    "T": Regime("translation", lambda batch: batch.affine(translation=0.4)),
    "R": Regime("rotation", lambda batch: batch.affine(rotation=180)),
    "F": Regime("FGSM-trained", lambda batch: adversarial(batch, "FGSM")),
}

#: Regime -> the name of its networks in words, for figures and captions.
NETWORK_NAMES = {key: regime.network for key, regime in REGIMES.items()}
