"""Synthetic images whose informative frequencies are known, in four kinds of increasing difficulty.

plain        Every class has one tone of its own.
redundant    Every class has two tones, either of which suffices: training images hold one of them or both.
phase        All classes have the same two tones, f and 2f, with the same amplitudes. The class is the phase of the
             second relative to the first, so that the amplitude spectrum does not depend on the class.
two-channel  The first channel holds the tone of the class, the second the tone of a random other class.

All kinds have 1/f noise, and distractor tones that do not depend on the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmlib.core.config import SyntheticSpec
from fmlib.core.data import Split
from fmlib.core.device import generator
from fmlib.core.synthetic import synthetic_tones, waves

KINDS = ("plain", "redundant", "phase", "two-channel")
CLASSES, DISTRACTORS, SIZE = 4, 4, 32
#: The tone f of kind "phase", in cycles per image; the other is 2f.
FUNDAMENTAL = (3, 4)
AMPLITUDE, NOISE = 0.10, 0.10
SEED = 0


@dataclass
class Tones:
    """Images of one kind.

    Attributes:
        train, validation: uint8 images (N, C, 32, 32) with labels; all tones of a class are in its validation images.
        truth: the informative frequencies of each class, (classes, T, 2), in cycles per image.
    """

    train: Split
    validation: Split
    truth: Tensor


def make_tones(kind: str, train: int = 2000, validation: int = 400) -> Tones:
    """The images of a kind, always the same ones."""
    spec = SyntheticSpec(size=SIZE, classes=8, distractors=DISTRACTORS)
    own, distractors = synthetic_tones(spec, SEED)
    truth = {
        "redundant": own.view(CLASSES, 2, 2),
        "phase": torch.tensor([FUNDAMENTAL, [2 * one for one in FUNDAMENTAL]]).expand(CLASSES, 2, 2),
    }.get(kind, own[:CLASSES, None])

    def split(count: int, name: str) -> Split:
        rng = generator(SEED, f"{kind} tones, {name}")
        labels = torch.arange(count) % CLASSES
        images = torch.stack([_background(count, distractors, rng) for _ in range(1 + (kind == "two-channel"))], 1)
        if kind == "two-channel":
            others = (labels + torch.randint(1, CLASSES, (count,), generator=rng)) % CLASSES
            images[:, 1] += AMPLITUDE * waves(truth[others, 0], SIZE, _phases(count, rng))
        for image, wave in zip(images, _signal(kind, truth, labels, name, rng), strict=True):
            image[0] += AMPLITUDE * wave
        return Split((images.clamp(0, 1) * 255).round().to(torch.uint8), labels)

    return Tones(split(train, "train"), split(validation, "validation"), truth)


def _phases(count: int, rng: torch.Generator) -> Tensor:
    return 2 * math.pi * torch.rand(count, generator=rng)


def _signal(kind: str, truth: Tensor, labels: Tensor, name: str, rng: torch.Generator) -> Tensor:
    """The tones that carry the class, with amplitude 1: (count, 32, 32)."""
    count, first = len(labels), _phases(len(labels), rng)
    signal = waves(truth[labels, 0], SIZE, first)
    if kind == "phase":
        return signal + waves(truth[labels, 1], SIZE, 2 * first + 2 * math.pi * labels / CLASSES)
    if kind == "redundant":
        which = torch.randint(3, (count,), generator=rng) if name == "train" else torch.full((count,), 2)
        second = waves(truth[labels, 1], SIZE, _phases(count, rng))
        return (which != 1)[:, None, None] * signal + (which != 0)[:, None, None] * second
    return signal


def _background(count: int, distractors: Tensor, rng: torch.Generator) -> Tensor:
    """Gray with 1/f noise of random strength, and each distractor in half of the images: (count, 32, 32)."""
    rows, columns = torch.fft.fftfreq(SIZE) * SIZE, torch.fft.rfftfreq(SIZE) * SIZE
    falloff = 1 / torch.hypot(rows[:, None], columns[None, :]).clamp_min(1)
    white = torch.randn(count, SIZE, SIZE, generator=rng)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * falloff, s=(SIZE, SIZE))
    images = 0.5 + NOISE * torch.rand(count, 1, 1, generator=rng) * noise / noise.std((1, 2), keepdim=True)
    for tone in distractors:
        heights = AMPLITUDE * (2 * torch.rand(count, 1, 1, generator=rng) - 1).clamp_min(0)
        images += heights * waves(tone.expand(count, 2), SIZE, _phases(count, rng))
    return images
