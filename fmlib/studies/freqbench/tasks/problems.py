"""The tasks of FreqBench: a network, images, the classes that it predicts, and the truth where it is known.

Methods see images about the gray level that the network reads as zero, so that a filter of the spectrum needs no other
centre. On tones, only images enter whose truth is checked: with the informative frequencies alone the network predicts
the class, and without them it does not. With redundant tones each of the two suffices; with phase-coded ones, both are
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core.config import ImageSpec
from fmlib.core.errors import require
from fmlib.core.evaluation import predictions
from fmlib.core.spectra import apply_mask, full_plane, half_plane
from fmlib.core.synthetic import tone_mask
from fmlib.studies.freqbench.tasks.networks import network
from fmlib.studies.freqbench.tasks.tones import CLASSES, make_tones
from fmlib.studies.shared.pretrained import MEAN, efficientnet_lite0, photographs
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import validation_images
from fmlib.studies.shared.tasks import by_turns


class Centred(nn.Module):
    """A network of pixels, as a network of pixels minus `centre`."""

    def __init__(self, network: nn.Module, centre: float) -> None:
        super().__init__()
        self.network, self.centre = network, centre

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W) about the centre."""
        return self.network((images + self.centre).contiguous(memory_format=torch.channels_last))


@dataclass
class Problem:
    """What a method is measured on.

    Attributes:
        model: maps images about gray 0 to logits.
        images: (N, C, H, W).
        target: the classes that the model predicts, (N,).
        truth: the informative frequencies of each image, (N, H, W) bool, where they are known.
        other: another network of the same images, if there is one.
    """

    model: nn.Module
    images: Tensor
    target: Tensor
    truth: Tensor | None = None
    other: nn.Module | None = None

    def part(self, count: int) -> Problem:
        """The first `count` images."""
        truth = None if self.truth is None else self.truth[:count]
        return replace(self, images=self.images[:count], target=self.target[:count], truth=truth)


@dataclass(frozen=True)
class BenchTask:
    """A task of FreqBench.

    Attributes:
        load: number of images, and folder of the photographs -> the problem.
        title: for people.
        images: number of images.
        photographs: what it needs on disk, or None.
        other_seed: whether the other network differs by its seed alone.
        cap: the largest budget, in passes per image.
        stability: whether restarts are measured.
    """

    load: Callable[[int, Path | None], Problem]
    title: str
    images: int
    photographs: ImageSpec | None = None
    other_seed: bool = False
    cap: int = 1000
    stability: bool = True


@cache
def tones_problem(kind: str, count: int) -> Problem:
    """The first `count` validation images of a kind whose truth is checked, by turns over the classes."""
    data, model = make_tones(kind, train=CLASSES), network(f"{kind}.0")
    images, labels = data.validation.pixels(), data.validation.labels
    planes = torch.stack([tone_mask(tones, images.shape[-1]) for tones in data.truth])  # (classes, H, W)
    singles = torch.stack([torch.stack([tone_mask(one[None], images.shape[-1]) for one in t]) for t in data.truth])

    def predicts(full: Tensor) -> Tensor:
        return predictions(model, apply_mask(images, half_plane(full[labels]), 0.5)) == labels

    checked = (predictions(model, images) == labels) & ~predicts(1 - planes)
    if kind == "redundant":
        for index in range(2):
            checked &= predicts(singles[:, index])
    else:
        checked &= predicts(planes)
    if kind == "phase":
        for index in range(2):
            checked &= ~predicts(planes - singles[:, index])
    chosen = torch.nonzero(checked).flatten()
    chosen = chosen[torch.from_numpy(by_turns(labels[chosen].numpy()))][:count]
    require(len(chosen) == count, f"only {len(chosen)} images of {kind} tones have a truth that is checked")
    truth, other = planes[labels[chosen]] > 0, Centred(network(f"{kind}.1"), 0.5)
    return Problem(Centred(model, 0.5), images[chosen] - 0.5, labels[chosen], truth, other)


def network_problem(name: str, other: str, count: int, root: Path | None) -> Problem:
    """The first `count` validation images at 64 px, by turns over the classes, and a published network."""
    images = validation_images(AT_64_PX, root, lambda labels: by_turns(np.asarray(labels))[:count])
    centre = PROFILES["laptop"].network.mean
    model = Centred(network(name), centre).eval()
    return Problem(model, images - centre, predictions(model, images - centre), other=Centred(network(other), centre))


def imagenet_problem(count: int, root: Path | None) -> Problem:
    """`count` photographs of Imagenette's ten classes at 160 px, and EfficientNet-Lite0 with 1,000 classes."""
    images, model = photographs(count, 160, root) - MEAN, Centred(efficientnet_lite0(160), MEAN).eval()
    return Problem(model, images, predictions(model, images))


def oracle(problem: Problem) -> Tensor:
    """The truth as scores, (N, H, W)."""
    assert problem.truth is not None
    return full_plane(half_plane(problem.truth.float()), problem.images.shape[-1])


_LAPTOP = PROFILES["laptop"].data
assert isinstance(_LAPTOP, ImageSpec)
AT_64_PX: ImageSpec = _LAPTOP
AT_160_PX = ImageSpec(selection="all", size=160, channels=3)
_TITLES = {
    "plain": "plain tones",
    "redundant": "redundant tones",
    "phase": "phase-coded tones",
    "two-channel": "tones in two channels",
}
_AT_64 = {
    "N": ("N-seed", "standard network (N)"),
    "A": ("N", "adversarially trained network (A)"),
    "JaFR": ("N", "JaFR, low-frequency bias"),
    "ResNet": ("N", "ResNet"),
}


def _tones(kind: str) -> BenchTask:
    return BenchTask(lambda count, root: tones_problem(kind, count), _TITLES[kind], 16, other_seed=True, cap=300)


def _network(name: str) -> BenchTask:
    other, title = _AT_64[name]
    load = lambda count, root: network_problem(name, other, count, root)  # noqa: E731
    return BenchTask(load, f"{title}, 64 px", 32, AT_64_PX, other_seed=name == "N", cap=300)


#: Name -> task, from synthetic images to photographs.
TASKS = {kind: _tones(kind) for kind in _TITLES} | {name: _network(name) for name in _AT_64}
TASKS["EfficientNet-Lite0"] = BenchTask(
    imagenet_problem, "EfficientNet-Lite0, 160 px", 12, AT_160_PX, cap=100, stability=False
)
