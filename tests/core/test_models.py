"""Architectures, seeds, normalisation and masks on the input."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from fmlib.core.config import NetworkSpec
from fmlib.core.errors import FmlibError
from fmlib.core.models import ARCHITECTURES, Masked, Normalized, build
from fmlib.core.spectra import apply_mask


@pytest.mark.parametrize(
    ("name", "channels"),
    [(name, channels) for name in sorted(ARCHITECTURES) for channels in (1, 3) if (name, channels) != ("vgg11_bn", 3)],
)  # the 130 million weights of VGG11 once
def test_logits_have_one_row_per_image_and_one_column_per_class(name, channels):
    model = build(NetworkSpec(name, channels=channels, classes=4), seed=0).eval()
    with torch.no_grad():
        logits = model(torch.rand(3, channels, 32, 32))
    assert logits.shape == (3, 4)
    assert bool(logits.isfinite().all())
    assert logits.std(0).min().item() > 0  # they depend on the image


def test_numbers_of_weights_are_as_documented():
    def weights(name):
        return sum(p.numel() for p in build(NetworkSpec(name), seed=0).parameters())

    assert weights("tiny_vgg") == pytest.approx(24_000, rel=0.05)
    assert weights("small_vgg") == pytest.approx(300_000, rel=0.1)
    assert weights("tiny_resnet") == pytest.approx(80_000, rel=0.05)
    assert weights("small_resnet") == pytest.approx(300_000, rel=0.1)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("name", "blocks"), [("tiny_resnet", 3), ("small_resnet", 4)])
def test_small_resnets_take_both_sizes_and_halve_them_in_each_block(name, blocks, size):
    model = build(NetworkSpec(name, classes=7), seed=0).eval()
    maps = {}
    for number, layer in enumerate(model.network):
        if isinstance(layer, BasicBlock):
            layer.register_forward_hook(lambda module, given, made, number=number: maps.update({number: made.shape}))
    with torch.no_grad():
        assert model(torch.rand(3, 1, size, size)).shape == (3, 7)
    assert [shape[-1] for shape in maps.values()] == [size // 2 ** (n + 1) for n in range(blocks)]


def test_vgg11_is_torchvisions_with_pooling_before_relu():
    """Same weights, same outputs, same gradients, to the last bit."""
    ours, theirs = ARCHITECTURES["vgg11_bn"](1, 5), torchvision.models.vgg11_bn(num_classes=5)
    theirs.features[0] = nn.Conv2d(1, 64, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    images, outputs, gradients = torch.rand(2, 1, 32, 32), [], []
    for network in (ours, theirs):
        network.classifier = network.classifier.eval()  # no dropout
        outputs.append(network(images))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), network.features.parameters()))
    assert torch.equal(*outputs)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert [type(layer) for layer in ours.features] != [type(layer) for layer in theirs.features]


def test_normalisation_is_inside():
    images = torch.rand(2, 1, 16, 16)
    inside = build(NetworkSpec("tiny_vgg", mean=0.3, std=0.2), seed=1).eval()
    unnormalised = build(NetworkSpec("tiny_vgg", mean=0.0, std=1.0), seed=1).eval()
    with torch.no_grad():
        torch.testing.assert_close(inside(images), unnormalised((images - 0.3) / 0.2))


def test_normalized_wraps_any_network():
    model = Normalized(nn.Flatten(), mean=0.5, std=0.25)
    assert model(torch.tensor([[[[0.5, 1.0]]]])).tolist() == [[0.0, 2.0]]


def test_a_masked_network_classifies_the_filtered_images():
    """The logits are those of the filtered images, for one mask and for one mask per image."""
    network, images = build(NetworkSpec("tiny_vgg"), 0).eval(), torch.rand(3, 1, 16, 16)
    masks = torch.rand(3, 16, 9)
    for mask in (masks[0], masks):
        torch.testing.assert_close(Masked(network, mask, 0.5)(images), network(apply_mask(images, mask, 0.5)))
    torch.testing.assert_close(Masked(network, torch.ones(16, 9), 0.5)(images), network(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["tiny_vgg", "small_vgg", "tiny_resnet", "small_resnet", "resnet18"])
def test_same_seed_same_weights_and_another_seed_others(name):
    spec = NetworkSpec(name)
    first, second, other = (build(spec, seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build(NetworkSpec("tiny_vgg"), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    first = build(NetworkSpec("tiny_vgg"), seed=0).state_dict()
    torch.manual_seed(2)
    second = build(NetworkSpec("tiny_vgg"), seed=0).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_unknown_architecture_is_named_with_the_choices():
    with pytest.raises(FmlibError, match=r"'alexnet'.*tiny_vgg.*resnet18"):
        build(NetworkSpec("alexnet"), seed=0)
