"""The check that a model is a classifier, and its losses and correctness."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmlib.core.config import AttackSpec, NetworkSpec
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import attack_all, check_classifier, correctness, evaluate, predictions
from fmlib.core.models import build

# --------------------------------------------------------------------------------------------- check_classifier


class Returns(nn.Module):
    """A model that applies a given function to the flattened images."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images.flatten(1))


LABELS = torch.arange(5)
IMAGES = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_good_classifier_passes_and_is_left_as_it_was(snapshot):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    model.network[2].eval()
    before = snapshot(model)
    check_classifier(model, torch.rand(4, 1, 16, 16), LABELS)
    assert snapshot(model) == before


def test_more_logits_than_classes_are_fine():
    check_classifier(Returns(lambda x: x), IMAGES, LABELS)


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
        check_classifier(Returns(output), IMAGES, LABELS)


def test_too_few_logits_are_counted():
    with pytest.raises(FmlibError, match="need 5 classes but the model has 4 logits"):
        check_classifier(Returns(lambda x: x[:, :4]), IMAGES, LABELS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_non_finite_pixels_are_found_in_any_image(value, where):
    images = IMAGES.clone()
    images[where, 0, 1, 2] = value
    with pytest.raises(FmlibError, match="NaN or infinite pixels"):
        check_classifier(Returns(lambda x: x), images, LABELS)


def test_wrong_number_of_channels_names_the_shape(snapshot):
    model = build(NetworkSpec("tiny_vgg", channels=3), seed=0)
    before = snapshot(model)
    with pytest.raises(FmlibError, match=r"\(1, 16, 16\)"):
        check_classifier(model, torch.rand(2, 1, 16, 16), LABELS)
    assert snapshot(model) == before


def test_images_too_small_for_the_network_are_refused():
    with pytest.raises(FmlibError, match=r"\(1, 2, 2\)"):
        check_classifier(build(NetworkSpec("tiny_vgg"), seed=0), torch.rand(2, 1, 2, 2), LABELS)


def test_a_single_image_without_batch_is_refused():
    with pytest.raises(FmlibError, match=r"\(B, C, H, W\)"):
        check_classifier(Returns(lambda x: x), IMAGES[0], LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, -100]), "class numbers from 0, not -100"),
        (torch.tensor([0.0, 1.0]), "must be int64 of shape"),
        (torch.tensor([[0, 1]]), "must be int64 of shape"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels, message):
    with pytest.raises(FmlibError, match=message):
        check_classifier(Returns(lambda x: x), IMAGES, labels)


# ----------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_gives_each_images_loss_and_correctness_in_any_batches(snapshot):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    images, labels = torch.rand(7, 1, 16, 16), torch.arange(7) % 5
    before = snapshot(model)
    losses, correct = evaluate(model, [(images[:4], labels[:4]), (images[4:], labels[4:])])
    assert snapshot(model) == before
    with torch.no_grad():
        logits = model.eval()(images)
    torch.testing.assert_close(losses, nn.functional.cross_entropy(logits, labels, reduction="none"))
    assert torch.equal(correct, logits.argmax(1) == labels)
    assert not losses.requires_grad


# ------------------------------------------------------------------------------------------------- correctness


def test_correctness_is_the_argmax_rule_in_any_batch_size(trained, synthetic, snapshot):
    trained.train()
    before = snapshot(trained)
    split = synthetic.validation
    correct = correctness(trained, split, batch_size=7)
    assert torch.equal(correct, correctness(trained, split, batch_size=1000))
    assert snapshot(trained) == before
    with torch.no_grad():
        assert torch.equal(correct, trained.eval()(split.pixels()).argmax(1) == split.labels)


def test_correctness_is_that_of_the_transformed_images(trained, synthetic):
    split = synthetic.validation
    unmodified = correctness(trained, split)
    assert torch.equal(correctness(trained, split, transform=lambda images: images), unmodified)
    blank = correctness(trained, split, transform=lambda images: torch.full_like(images, 0.5))
    assert blank.float().mean().item() == pytest.approx(1 / 3)  # one prediction for all images, and balanced classes


def test_attack_comes_before_the_transform_and_lowers_accuracy(trained, synthetic):
    split, attack = synthetic.validation, AttackSpec(0.1, 0.02, 10)
    seen = []
    attacked = correctness(trained, split, transform=lambda x: seen.append(x) or x, attack=attack)
    assert attacked.float().mean().item() < 0.5 < correctness(trained, split).float().mean().item()
    change = (torch.cat(seen) - split.pixels()).abs()
    assert 0.02 < change.max().item() <= 0.1 + 1e-6
    assert torch.equal(attacked, correctness(trained, split, attack=attack))


def test_correctness_is_one_bool_per_image(trained, synthetic):
    correct = correctness(trained, synthetic.validation)
    assert correct.dtype == torch.bool
    assert correct.shape == (len(synthetic.validation),)


def test_a_whole_split_is_attacked_and_predicted(trained, synthetic):
    attack = AttackSpec(0.1, 0.02, 10)
    attacked = attack_all(trained, synthetic.validation, attack, seed=0, purpose="evaluation")
    change = (attacked - synthetic.validation.pixels()).abs().max().item()
    assert 0.02 < change <= 0.1 + 1e-6
    correct = predictions(trained, attacked) == synthetic.validation.labels
    assert torch.equal(correct, correctness(trained, synthetic.validation, attack=attack))
