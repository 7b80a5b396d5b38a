"""Synthetic images: each class is one tone of known frequency, in 1/f noise with distractor tones.

A mask learned from a network that classifies them must keep the tones of the classes and drop the distractors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmlib.core.config import SyntheticSpec
from fmlib.core.data import Dataset, Split
from fmlib.core.device import generator
from fmlib.core.errors import require


def synthetic_tones(spec: SyntheticSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frequencies (row, column) in cycles per image: class tones (classes, 2) and distractors (distractors, 2).

    They are distinct, off DC and the axes and below Nyquist; none is the mirror (-row, -column) of another.
    Raises `FmlibError` if the plane has fewer such frequencies than the spec needs.
    """
    reach = spec.size // 2 - 2
    grid = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(1, reach + 1))
    grid = grid[(grid[:, 0] != 0) & (grid.float().norm(dim=1) >= 3)]
    order = torch.randperm(len(grid), generator=generator(seed, "planted tones"))
    count = spec.classes + spec.distractors
    require(count <= len(grid), f"{count} tones do not fit into {spec.size} px: use fewer distractors or larger images")
    chosen = grid[order[:count]]
    return chosen[: spec.classes], chosen[spec.classes :]


def tone_mask(tones: Tensor, size: int) -> Tensor:
    """The full mask (size, size) that is 1 at `tones` (n, 2) and their mirrors, and 0 elsewhere."""
    mask = torch.zeros(size, size)
    for row, column in tones.tolist():
        mask[row % size, column % size] = mask[-row % size, -column % size] = 1
    return mask


def waves(tones: Tensor, size: int, phases: Tensor) -> Tensor:
    """cos(2 pi f . r + phase): tones (n, 2), phases (n,) -> (n, size, size)."""
    rows = torch.arange(size)[:, None] / size
    columns = torch.arange(size)[None, :] / size
    turns = tones[:, 0, None, None] * rows + tones[:, 1, None, None] * columns
    return torch.cos(2 * math.pi * turns + phases[:, None, None])


def make_synthetic(spec: SyntheticSpec, seed: int = 0) -> Dataset:
    """Images 1/2 + noise + class tone + distractors with random phases, clipped to [0, 1]: uint8 (N, 1, size, size).

    The strength of the noise is uniform from 0 in each image, and each distractor is absent from half of the images.
    Both are independent of the class, so removing them creates no image unlike those of training.

    Example:
        >>> fmlib.make_synthetic(fmlib.SyntheticSpec(size=16, classes=2, train=10, validation=4)).train.images.shape
        torch.Size([10, 1, 16, 16])
    """
    tones, distractors = synthetic_tones(spec, seed)
    rows = torch.fft.fftfreq(spec.size) * spec.size
    columns = torch.fft.rfftfreq(spec.size) * spec.size
    falloff = 1 / torch.hypot(rows[:, None], columns[None, :]).clamp_min(1)

    def split(count: int, name: str) -> Split:
        rng = generator(seed, f"planted {name}")
        labels = torch.arange(count) % spec.classes
        white = torch.randn(count, spec.size, spec.size, generator=rng)
        noise = torch.fft.irfft2(torch.fft.rfft2(white) * falloff, s=(spec.size, spec.size))
        levels = spec.noise * torch.rand(count, 1, 1, generator=rng)
        images = 0.5 + levels * noise / noise.std((1, 2), keepdim=True)
        images += spec.amplitude * waves(tones[labels], spec.size, 2 * math.pi * torch.rand(count, generator=rng))
        for distractor in distractors:
            phases = 2 * math.pi * torch.rand(count, generator=rng)
            heights = spec.amplitude * (2 * torch.rand(count, 1, 1, generator=rng) - 1).clamp_min(0)
            images += heights * waves(distractor.expand(count, 2), spec.size, phases)
        return Split((images.clamp(0, 1) * 255).round().to(torch.uint8)[:, None], labels)

    names = [f"tone ({row}, {column})" for row, column in tones.tolist()]
    return Dataset(split(spec.train, "train"), split(spec.validation, "validation"), names)
