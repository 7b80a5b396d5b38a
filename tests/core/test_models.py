"""Architectures, seeds and the check that a model is a classifier."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from fmlib.core.config import NetworkSpec
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import check_classifier, evaluate
from fmlib.core.models import ARCHITECTURES, Masked, Normalized, build
from fmlib.core.spectra import apply_mask


@pytest.mark.parametrize(
    ("name", "channels"),
    [(name, channels) for name in sorted(ARCHITECTURES) for channels in (1, 3) if (name, channels) != ("vgg11_bn", 3)],
)  # the 130 million weights of VGG11 once
def test_logits_have_one_row_an_image_and_one_column_a_class(name, channels):
    model = build(NetworkSpec(name, channels=channels, classes=4), seed=0).eval()
    with torch.no_grad():
        logits = model(torch.rand(3, channels, 32, 32))
    assert logits.shape == (3, 4)
    assert bool(logits.isfinite().all())
    assert logits.std(0).min().item() > 0  # the image matters


def test_sizes_are_as_stated():
    def weights(name):
        return sum(p.numel() for p in build(NetworkSpec(name), seed=0).parameters())

    assert weights("tiny_vgg") == pytest.approx(24_000, rel=0.05)
    assert weights("small_vgg") == pytest.approx(300_000, rel=0.1)
    assert weights("tiny_resnet") == pytest.approx(80_000, rel=0.05)
    assert weights("small_resnet") == pytest.approx(300_000, rel=0.1)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("name", "blocks"), [("tiny_resnet", 3), ("small_resnet", 4)])
def test_small_resnets_take_either_size_and_halve_it_with_each_block(name, blocks, size):
    model = build(NetworkSpec(name, classes=7), seed=0).eval()
    maps = {}
    for number, layer in enumerate(model.network):
        if isinstance(layer, BasicBlock):
            layer.register_forward_hook(lambda module, given, made, number=number: maps.update({number: made.shape}))
    with torch.no_grad():
        assert model(torch.rand(3, 1, size, size)).shape == (3, 7)
    assert [shape[-1] for shape in maps.values()] == [size // 2 ** (n + 1) for n in range(blocks)]


def test_normalisation_is_inside():
    images = torch.rand(2, 1, 16, 16)
    inside = build(NetworkSpec("tiny_vgg", mean=0.3, std=0.2), seed=1).eval()
    plain = build(NetworkSpec("tiny_vgg", mean=0.0, std=1.0), seed=1).eval()
    with torch.no_grad():
        torch.testing.assert_close(inside(images), plain((images - 0.3) / 0.2))


def test_normalized_wraps_any_network():
    model = Normalized(nn.Flatten(), mean=0.5, std=0.25)
    assert model(torch.tensor([[[[0.5, 1.0]]]])).tolist() == [[0.0, 2.0]]


def test_a_masked_network_sees_what_the_mask_lets_through():
    """One mask for all, or one an image: the logits are those of the filtered images."""
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


# --------------------------------------------------------------------------------------------- check_classifier


class Returns(nn.Module):
    """A model whose output is made from the flattened images by a given function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images.flatten(1))


IMAGES = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_good_classifier_passes_and_is_left_as_it_was(look):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    model.network[2].eval()
    before = look(model)
    check_classifier(model, torch.rand(4, 1, 16, 16), 5)
    assert look(model) == before


def test_more_logits_than_classes_are_fine():
    check_classifier(Returns(lambda x: x), IMAGES, 5)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x.argmax(1), r"must return logits \(B, classes\), not \(2,\)"),
        (lambda x: x.view(-1, 1, 4, 4), r"not \(2, 1, 4, 4\)"),
        (lambda x: (x, x), "not tuple"),
        (lambda x: {"logits": x}, "not dict"),
        (lambda x: x * float("nan"), "NaN or infinite logits"),
        (lambda x: x / 0, "NaN or infinite logits"),
    ],
    ids=["labels", "feature map", "tuple", "dictionary", "NaN", "infinite"],
)
def test_outputs_that_are_not_logits_are_refused(output, message):
    with pytest.raises(FmlibError, match=message):
        check_classifier(Returns(output), IMAGES, 5)


def test_too_few_logits_are_counted():
    with pytest.raises(FmlibError, match="need 5 classes but the model has 4 logits"):
        check_classifier(Returns(lambda x: x[:, :4]), IMAGES, 5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_bad_pixels_are_found_in_any_image(value, where):
    images = IMAGES.clone()
    images[where, 0, 1, 2] = value
    with pytest.raises(FmlibError, match="NaN or infinite pixels"):
        check_classifier(Returns(lambda x: x), images, 5)


def test_wrong_number_of_channels_names_the_shape(look):
    model = build(NetworkSpec("tiny_vgg", channels=3), seed=0)
    before = look(model)
    with pytest.raises(FmlibError, match=r"\(1, 16, 16\)"):
        check_classifier(model, torch.rand(2, 1, 16, 16), 5)
    assert look(model) == before


def test_images_too_small_for_the_network_are_refused():
    with pytest.raises(FmlibError, match=r"\(1, 2, 2\)"):
        check_classifier(build(NetworkSpec("tiny_vgg"), seed=0), torch.rand(2, 1, 2, 2), 5)


def test_a_single_image_without_batch_is_refused():
    with pytest.raises(FmlibError, match=r"\(B, C, H, W\)"):
        check_classifier(Returns(lambda x: x), IMAGES[0], 5)


# ----------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_gives_each_images_loss_and_verdict_in_any_batches(look):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    images, labels = torch.rand(7, 1, 16, 16), torch.arange(7) % 5
    before = look(model)
    losses, right = evaluate(model, [(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert look(model) == before
    with torch.no_grad():
        logits = model.eval()(images)
    torch.testing.assert_close(losses, nn.functional.cross_entropy(logits, labels, reduction="none"))
    assert torch.equal(right, logits.argmax(1) == labels)
    assert not losses.requires_grad
