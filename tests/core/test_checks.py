"""The check of models, images and labels: what passes, and what each wrong input is answered with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fmlib.core.checks import check_classifier
from fmlib.core.config import AttackSpec, ImageMaskSpec, MinimalMaskSpec, NetworkSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.errors import FmlibError
from fmlib.core.heat_maps import heat_map
from fmlib.core.jacobian import jacobian_spectrum
from fmlib.core.masks import learn_masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.models import build
from fmlib.core.training import train


class Returns(nn.Module):
    """A model that applies a given function to the flattened images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images.flatten(1))


class BatchMean(nn.Module):
    """Logits that depend on the whole batch."""

    def forward(self, images):
        return images.flatten(1) - 0.3 * images.flatten(1).mean(0)


LABELS = torch.arange(5)
IMAGES = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
IDENTITY = Returns(lambda x: x)


def refused(model, message, images=IMAGES, labels=LABELS):
    with pytest.raises(FmlibError, match=message) as caught:
        check_classifier(model, images, labels)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ what passes


def test_a_good_classifier_passes_and_is_left_as_it_was(snapshot):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    model.network[2].eval()
    before = snapshot(model)
    check_classifier(model, torch.rand(4, 1, 16, 16), LABELS)
    assert snapshot(model) == before


def test_more_logits_than_classes_are_fine():
    check_classifier(IDENTITY, IMAGES, LABELS)


def test_log_probabilities_are_logits():
    check_classifier(Returns(lambda x: x.log_softmax(1)), IMAGES, LABELS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_fine(dtype):
    check_classifier(build(NetworkSpec("tiny_vgg"), seed=0).to(dtype), torch.rand(4, 1, 16, 16).to(dtype), LABELS)


def test_it_may_be_called_inside_no_grad():
    with torch.no_grad():
        check_classifier(IDENTITY, IMAGES, LABELS)
        assert not torch.is_grad_enabled()


def test_dropout_in_train_mode_is_not_randomness():
    check_classifier(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)).train(), IMAGES, LABELS)


# ---------------------------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x.argmax(1), r"must return logits \(B, classes\), not \(2,\)"),
        (lambda x: x.view(-1, 1, 4, 4), r"not \(2, 1, 4, 4\)"),
        (lambda x: x[:1], r"not \(1, 16\)"),
        (lambda x: (x, x), "not tuple"),
        (lambda x: {"logits": x}, "not dict"),
        (lambda x: None, "not NoneType"),
        (lambda x: x * float("nan"), "NaN or infinite logits"),
        (lambda x: x / 0, "NaN or infinite logits"),
        (lambda x: x[:, :4], "need 5 classes but the model has 4 logits"),
        (lambda x: x[:, :1], "a single logit"),
        (lambda x: x.softmax(1), "returns probabilities"),
        (lambda x: x.long(), "not torch.int64 class numbers"),
        (lambda x: nn.functional.one_hot(x.argmax(1), 16).float(), "returns probabilities"),
        (lambda x: x.detach(), "no gradient passes"),
        (lambda x: (9 * x).round(), "no gradient passes"),
        (lambda x: 0 * x, "no gradient passes"),
        (lambda x: torch.arange(16.0).expand(len(x), 16), "no gradient passes"),
        (lambda x: (x - x).sqrt() + 1.5 * x, "gradient of the model is NaN"),
        (lambda x: x + torch.randn_like(x), "stochastic"),
        (lambda x: nn.functional.dropout(x, training=True), "stochastic"),
        (lambda x: x @ torch.zeros(3, 5), "cannot take images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_outputs(output, message):
    refused(Returns(output), message)


def test_logits_that_depend_on_the_batch_are_refused():
    refused(BatchMean(), "depend on the other images")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_non_finite_pixels_are_found_in_any_image(value, where):
    images = IMAGES.clone()
    images[where, 0, 1, 2] = value
    refused(IDENTITY, "NaN or infinite pixels", images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.numpy(), "images must be a torch tensor, not ndarray"),
        ([IMAGES], "not list"),
        (IMAGES[0], r"shape \(N, C, H, W\), not \(1, 4, 4\)"),
        (IMAGES[:0], "there are no images"),
        (IMAGES[:, :0], "there are no images"),
        (IMAGES[..., :1], "at least 2 x 2 pixels"),
        ((255 * IMAGES).to(torch.uint8), "must be floats, not torch.uint8"),
        (IMAGES.to(torch.complex64), "must be floats, not torch.complex64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images(images, message):
    refused(IDENTITY, message, images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, -100]), "class numbers from 0"),
        (torch.tensor([0.0, 1.0]), "must be int64 of shape"),
        (torch.tensor([0, 1], dtype=torch.int32), "must be int64 of shape"),
        (torch.tensor([[0, 1]]), "must be int64 of shape"),
        (torch.tensor(0), "must be int64 of shape"),
        (LABELS[:0], "class numbers from 0"),
        (np.arange(5), "labels must be a torch tensor, not ndarray"),
        ([0, 1], "not list"),
        (None, "not NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_labels(labels, message):
    refused(IDENTITY, message, labels=labels)


def test_models():
    refused(lambda x: x.flatten(1), "must be a torch.nn.Module, not function")
    refused(build(NetworkSpec("tiny_vgg", channels=3), seed=0), r"\(1, 16, 16\)", torch.rand(2, 1, 16, 16))
    refused(build(NetworkSpec("tiny_vgg"), seed=0), r"\(1, 2, 2\)", torch.rand(2, 1, 2, 2))
    refused(build(NetworkSpec("tiny_vgg"), seed=0).double(), "of float32", torch.rand(2, 1, 16, 16))


def test_inference_mode_is_refused():
    with torch.inference_mode():
        refused(IDENTITY, "leave torch.inference_mode")


# ------------------------------------------------------------------------------------------------- every entry point


ENTRIES = {
    "minimal masks": lambda model, data: minimal_masks(
        model, data.pixels(), data.labels, MinimalMaskSpec(steps=1), progress=False
    ),
    "masks": lambda model, data: learn_masks(
        model, data.pixels(), data.labels, torch.arange(4), ImageMaskSpec(epochs=1), seed=0, progress=False
    ),
    "training": lambda model, data: train(
        model, data, data, TrainSpec(epochs=1, batch=2, attack=AttackSpec()), seed=0, progress=False
    ),
    "heat map": lambda model, data: heat_map(model, data, norm=1.0, seed=0),
    "Jacobian": lambda model, data: jacobian_spectrum(model, data.batches(4)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_point_checks(entry):
    data = Split((255 * IMAGES).to(torch.uint8), LABELS[:4])
    with pytest.raises(FmlibError, match="returns probabilities"):
        ENTRIES[entry](Returns(lambda x: x.softmax(1)), data)
