"""Classifiers of pixels in [0, 1]: torchvision's VGG11-BN and ResNet18, and small networks of both kinds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fmlib.core.config import NetworkSpec
from fmlib.core.device import global_rng, keep_freed_memory
from fmlib.core.errors import require
from fmlib.core.spectra import apply_mask


class Normalized(nn.Module):
    """A network with its normalisation inside: pixels (B, C, H, W) in [0, 1] -> logits (B, classes)."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        return self.network((images - self.mean) / self.std)


class Masked(nn.Module):
    """A network with a half mask (H, W // 2 + 1) on its input, or with one per image (B, H, W // 2 + 1)."""

    def __init__(self, network: nn.Module, mask: Tensor, centre: float) -> None:
        super().__init__()
        self.network, self.mask, self.centre = network, mask, centre

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of the filtered images, pixels (B, C, H, W) in [0, 1]; see spectra.apply_mask."""
        return self.network(apply_mask(images, self.mask, self.centre))


def vgg(channels: int, classes: int, widths: Sequence[int]) -> nn.Module:
    """A small VGG: per width a 3x3 convolution, 2x2 max pooling, batch norm and ReLU; then the mean and a linear layer.

    Pooling precedes batch norm and ReLU, which reduces their cost to a quarter. The last layer has no pooling.
    """
    layers: list[nn.Module] = []
    for depth, (before, after) in enumerate(itertools.pairwise((channels, *widths)), 1):
        pool = nn.MaxPool2d(2) if depth < len(widths) else nn.Identity()
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), pool, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def resnet(channels: int, classes: int, widths: Sequence[int]) -> nn.Module:
    """A small ResNet: a 3x3 convolution of stride 2, torchvision's basic block per width, the mean and a linear layer.

    Every block except the first halves the resolution.
    """
    from torchvision.models.resnet import BasicBlock

    stem = [nn.Conv2d(channels, widths[0], 3, 2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    blocks: list[nn.Module] = [BasicBlock(widths[0], widths[0])]
    for before, after in itertools.pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))
        blocks.append(BasicBlock(before, after, 2, shortcut))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def vgg11_bn(channels: int, classes: int) -> nn.Module:
    """torchvision's VGG11 with batch norm, for `channels` input channels; ReLU follows pooling, which is faster."""
    from torchvision.models import vgg11_bn as make

    network = make(num_classes=classes)
    network.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    layers = network.features
    for place in [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]:
        layers[place - 1], layers[place] = layers[place], layers[place - 1]
    return network


def resnet18(channels: int, classes: int) -> nn.Module:
    """torchvision's ResNet18, for `channels` input channels."""
    from torchvision.models import resnet18 as make

    network = make(num_classes=classes)
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return network


#: Name -> network of given channels and classes. The tiny ones (24 and 80 thousand weights) suit synthetic images at
#: 32 px, the small ones (0.3 million weights) natural images at 64 px on a CPU.
ARCHITECTURES: dict[str, Callable[[int, int], nn.Module]] = {
    "tiny_vgg": partial(vgg, widths=(16, 32, 64)),
    "small_vgg": partial(vgg, widths=(16, 32, 64, 128, 192)),
    "vgg11_bn": vgg11_bn,
    "tiny_resnet": partial(resnet, widths=(16, 32, 64)),
    "small_resnet": partial(resnet, widths=(16, 32, 64, 128)),
    "resnet18": resnet18,
}


def build(spec: NetworkSpec, seed: int) -> Normalized:
    """A newly initialised network; the same spec and seed give the same weights.

    Raises `FmlibError` for an unknown architecture.

    Example:
        >>> fmlib.build(fmlib.NetworkSpec("small_vgg", channels=3, classes=10), seed=0)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    known = ", ".join(ARCHITECTURES)
    require(spec.architecture in ARCHITECTURES, f"unknown architecture {spec.architecture!r}: choose one of {known}")
    keep_freed_memory()
    with global_rng(seed, "initial weights"):
        network = ARCHITECTURES[spec.architecture](spec.channels, spec.classes)
    return Normalized(network, spec.mean, spec.std).to(memory_format=torch.channels_last)
