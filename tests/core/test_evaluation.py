"""The check that a model is a classifier, and its losses and correctness."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fmlib.core.config import AttackSpec, NetworkSpec
from fmlib.core.evaluation import attack_all, correctness, evaluate, predictions
from fmlib.core.models import build

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
