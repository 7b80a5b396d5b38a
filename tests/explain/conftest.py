"""What the tests of the front door share: tiny networks of any size of image, and images for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def network(channels: int = 3, classes: int = 5) -> nn.Sequential:
    """A convolutional network with sharp logits, for images of any size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
        with torch.no_grad():
            model[8].weight.mul_(20)
            model[8].bias.zero_()
    return model.eval()


def pictures(count: int = 2, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    """Smooth random images in [0, 1]."""
    rng = torch.Generator().manual_seed(height * width + channels)
    noise = torch.rand(count, channels, height + 2, width + 2, generator=rng)
    return nn.functional.avg_pool2d(noise, 3, 1)


@pytest.fixture(scope="session")
def make_network():
    """The function that makes a tiny network: channels, classes."""
    return network


@pytest.fixture(scope="session")
def make_images():
    """The function that makes images: count, channels, height, width."""
    return pictures
