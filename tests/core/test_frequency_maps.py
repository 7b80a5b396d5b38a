"""Frequency maps: the authors' own steps, their stop rule, independence, known frequencies, and invalid inputs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fmlib.core import mask_optimizer
from fmlib.core.attacks import perturb
from fmlib.core.config import AttackSpec, FrequencyMapSpec
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import predictions
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.mask_optimizer import Epoch
from fmlib.core.masks import learn_masks
from fmlib.core.spectra import apply_mask, full_plane, half_plane
from fmlib.core.synthetic import synthetic_tones, tone_mask

SPEC = FrequencyMapSpec(penalty=0.02, lr=0.02, min_epochs=40, epochs=200, window=5, loss_tol=2e-4)


def reference_map(model, image, target, spec) -> tuple[torch.Tensor, list[float]]:
    """One map as the authors learn it, over the full plane without a symmetry (C, H, W), and the loss of each step."""
    mask, losses = torch.ones_like(image, requires_grad=True), []
    optimizer = torch.optim.Adam([mask], lr=spec.lr)
    while len(losses) < spec.epochs:
        filtered = torch.fft.ifft2(mask * torch.fft.fft2(image)).real
        loss = cross_entropy(model(filtered), target) + spec.penalty * mask.abs().sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mask.data.clamp_(0, 1)
        if len(losses) >= spec.min_epochs and abs(loss.item() - np.mean(losses[-spec.window :])) < spec.loss_tol:
            break
    return mask.detach()[0], losses


@pytest.fixture
def problem(trained, synthetic):
    """The trained network, eight images that it classifies correctly, and their labels."""
    images, labels = synthetic.validation.pixels(), synthetic.validation.labels
    correct = torch.nonzero(predictions(trained.eval(), images) == labels).flatten()[:8]
    return trained, images[correct], labels[correct]


@pytest.fixture
def attacked(problem):
    """The network, the attacked images that it misclassifies, and the classes that it predicts for them."""
    model, images, labels = problem
    attacked = perturb(model, images, labels, AttackSpec(0.1, 0.02, 10), seed=0, purpose="maps")
    predicted = predictions(model, attacked)
    fooled = predicted != labels
    assert fooled.sum().item() >= 4
    return model, attacked[fooled], predicted[fooled]


@pytest.fixture
def coloured(linear):
    """A linear network of two classes that reads one tone of the second of three channels, and images with it."""
    index = torch.arange(16)
    wave = torch.cos(2 * math.pi * (2 * index[:, None] + 3 * index[None, :]) / 16)
    weight = torch.zeros(2, 3, 16, 16)
    weight[1, 1] = wave
    rng = torch.Generator().manual_seed(0)
    images = 0.5 + 0.1 * wave + 0.1 * (torch.rand(4, 3, 16, 16, generator=rng) - 0.5)
    return linear(weight.flatten(1), torch.tensor([3.0, 0.0])), images, torch.ones(4, dtype=torch.long)


def learn(problem, spec=SPEC, index=None, **options):
    model, images, targets = problem
    index = torch.arange(len(images)) if index is None else index
    options = {"seed": 0, "progress": False, "objective": FrequencyMaps} | options
    return learn_masks(model, images, targets, index, spec, **options)


def objective_of(spec, *shape: int) -> FrequencyMaps:
    return FrequencyMaps(spec, torch.Size(shape), torch.ones(1))


# ------------------------------------------------------------------------------------------ the authors' own steps


@pytest.mark.parametrize("name", ["problem", "attacked", "coloured"])
def test_maps_losses_and_stops_are_those_of_the_authors_full_plane(name, request):
    """An independent implementation over the full plane, one image at a time, takes the same steps.

    The tolerance is a twentieth of a step: Adam may amplify rounding errors where the maximum of max pooling changes.
    """
    problem = request.getfixturevalue(name)
    model, images, targets = problem
    found = learn(problem)
    assert found.converged.sum() >= len(images) / 2
    objective = objective_of(SPEC, *images.shape[1:])
    shares = torch.cat((torch.ones(1, len(images)), found.history["l1_share"]))
    for k in range(len(images)):
        full, losses = reference_map(model, images[k : k + 1], targets[k : k + 1], SPEC)
        assert found.epochs[k].item() == len(losses)
        torch.testing.assert_close(found.half[k], half_plane(full), atol=1e-3, rtol=0)
        torch.testing.assert_close(
            full_plane(found.half[k], 16), full, atol=1e-3, rtol=0
        )  # the full plane stays symmetric
        ours = found.history["invariance"][: len(losses), k] + objective.weight * shares[: len(losses), k]
        assert ours.tolist() == pytest.approx(losses, abs=1e-4, rel=1e-4)


def test_penalty_is_on_the_sum_over_the_full_plane_and_the_channels():
    half = torch.rand(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    objective = objective_of(replace(SPEC, penalty=0.5), 3, 8, 8)
    summed = 0.5 * full_plane(half, 8).sum((1, 2, 3))
    torch.testing.assert_close(objective.weight * objective.share(half, 8), summed)
    assert objective_of(FrequencyMapSpec(), 3, 32, 32).weight == 1536


def test_cost_is_the_cross_entropy_whatever_the_unmasked_loss():
    losses = torch.tensor([0.3, 7.0, 40.0])
    cost, clipped = objective_of(SPEC, 1, 8, 8).cost(losses, torch.tensor([0.3, 0.0, 90.0]))
    assert torch.equal(cost, losses)
    assert not clipped.any()


# ------------------------------------------------------------------------------------------------------- stopping


def epoch(losses: list[float], shares: list[float], window: int) -> Epoch:
    """One map's epoch with the last of these losses; shares: mean of the map after each epoch but the last."""
    metrics = {"invariance": torch.tensor(losses[-1:]), "l1_share": torch.ones(1)}
    earlier = {"invariance": torch.tensor([losses[:-1][-window:]]), "l1_share": torch.tensor([shares[-window:]])}
    return Epoch(torch.tensor([0]), torch.tensor([len(losses) - 1]), torch.tensor(shares[-1:]), metrics, earlier)


@pytest.mark.parametrize(
    ("losses", "stable"),
    [
        ([9, 9, 1, 1, 1, 1], True),
        ([9, 9, 1, 1, 1, 1.06], False),  # 0.045 from the mean
        ([9, 9, 1, 1, 1, 1.05], True),  # 0.0375
        ([1, 9, 1.2, 1, 1, 1], False),  # -0.05
        ([1, 1, 1.3, 0.7, 1.3, 1.1], True),  # the mean of the four is the last
    ],
)
def test_a_map_is_stable_if_its_loss_is_close_to_the_mean_of_the_last_ones(losses, stable):
    spec = FrequencyMapSpec(penalty=0, min_epochs=5, window=4, loss_tol=0.04)
    objective = objective_of(spec, 1, 8, 8)
    assert objective.is_stable(epoch(losses, [1.0] * 5, objective.window)).item() is stable


def test_the_stop_rule_includes_the_penalty():
    """64 entries of 1 each fall by 0.01, J by 0.64; the share before an epoch is the one in its loss."""
    spec = FrequencyMapSpec(penalty=1, min_epochs=5, window=3, loss_tol=0.4)
    objective = objective_of(spec, 1, 8, 8)
    for shares, stable in (([1, 1, 1, 0.99], False), ([1, 1, 0.99, 0.99], True), ([1, 0.99, 0.98, 0.97], False)):
        assert objective.is_stable(epoch([0.0] * 5, shares, objective.window)).item() is stable


def test_no_map_stops_before_min_epochs(problem):
    """With an infinite tolerance, all maps stop at the first epoch allowed; with a tolerance of zero, none does."""
    found = learn(problem, replace(SPEC, loss_tol=math.inf))
    assert found.epochs.tolist() == [SPEC.min_epochs] * 8
    assert found.converged.all()
    found = learn(problem, replace(SPEC, loss_tol=0.0, epochs=45))
    assert found.epochs.tolist() == [45] * 8
    assert not found.converged.any()


# ------------------------------------------------------------------------------------------ maps are independent


def test_maps_learned_in_one_batch_equal_each_learned_alone(problem):
    model, images, targets = problem
    maps = learn(problem)
    assert maps.half.shape == (8, 1, 16, 9)
    assert maps.full().shape == (8, 1, 16, 16)
    for k in range(8):
        alone = learn((model, images[k : k + 1], targets[k : k + 1]))
        torch.testing.assert_close(maps.half[k], alone.half[0], atol=1e-4, rtol=0)
        assert maps.epochs[k] == alone.epochs[0]


def test_the_interval_between_refills_does_not_change_the_maps(problem, monkeypatch):
    found = []
    for every in (1, 1000):
        monkeypatch.setattr(mask_optimizer, "CHECK_EVERY", every)
        found.append(learn(problem))
    torch.testing.assert_close(found[0].half, found[1].half, atol=1e-5, rtol=0)
    assert torch.equal(found[0].epochs, found[1].epochs)


def test_resumed_maps_equal_uninterrupted_bit_for_bit(coloured, memory_checkpoint, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "CHECK_EVERY", 1)
    whole = learn(coloured)
    checkpoint = memory_checkpoint(interrupt_after=50)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(coloured, checkpoint=checkpoint)
    resumed = learn(coloured, checkpoint=checkpoint)
    assert torch.equal(resumed.half, whole.half)
    assert torch.equal(resumed.epochs, whole.epochs)


def test_one_map_can_be_learned_from_several_images(problem):
    """A batch holds the images of each map, as for masks."""
    model, images, targets = problem
    found = learn(problem, replace(SPEC, batch=8, epochs=60), index=torch.zeros(8, dtype=torch.long))
    assert found.half.shape == (1, 1, 16, 9)
    assert (predictions(model, apply_mask(images, found.half.expand(8, -1, -1, -1))) == targets).all()


# ------------------------------------------------------------------------------------------- known frequencies


def test_an_essential_map_keeps_the_tone_of_its_class_and_the_mean(problem, synthetic_spec):
    """The map drops distractors and tones of other classes. One class may be recognised by having no other tone."""
    model, images, labels = problem
    found = learn(problem, FrequencyMapSpec(penalty=0.05, lr=0.02, min_epochs=300, epochs=600))
    assert (predictions(model, apply_mask(images, found.half)) == labels).all()
    full = found.full()[:, 0]
    tones, distractors = synthetic_tones(synthetic_spec)
    own = torch.stack([tone_mask(tones[label : label + 1], 16) for label in labels.tolist()])
    own[:, 0, 0] = 1  # without the mean the image would be black
    assert ((full * own).sum() / full.sum()).item() > 0.95
    assert (full * tone_mask(distractors, 16)).max().item() < 0.01
    assert (full > 0.01).sum((1, 2)).max().item() <= 6


def test_an_adversarial_map_keeps_the_predicted_class_and_an_essential_map_the_label(problem, attacked):
    for model, images, targets in (problem, attacked):
        found = learn((model, images, targets))
        assert (predictions(model, apply_mask(images, found.half)) == targets).all()
        assert bool((found.history["kept"][-1] == 1).all())
        assert found.half.mean().item() < 0.3


def test_a_map_has_one_plane_per_channel_and_keeps_only_the_channel_that_the_network_reads(coloured):
    model, images, targets = coloured
    found = learn(coloured, replace(SPEC, epochs=300, loss_tol=0.0))
    assert found.half.shape == (4, 3, 16, 9)
    full = found.full()
    assert full[:, [0, 2]].max().item() == 0
    read = tone_mask(torch.tensor([[2, 3]]), 16)
    assert (full[:, 1] * (1 - read)).max().item() == 0
    assert (full[:, 1] * read).sum((1, 2)).min().item() > 1
    assert (predictions(model, apply_mask(images, found.half)) == targets).all()


# -------------------------------------------------------------------------------------------------- invalid input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(7, dtype=torch.long)}, "same length"),
        ({"index": torch.tensor([0, 0, 1, 1, 3, 3, 3, 3])}, "without gaps"),
        ({"images": torch.zeros(8, 3, 16, 16)}, "cannot take images"),
        ({"images": torch.full((8, 1, 16, 16), math.nan)}, "pixels"),
        ({"labels": torch.full((8,), 3)}, "need 4 classes but the model has 3"),
    ],
    ids=["labels", "gap", "channels", "NaN", "classes"],
)
def test_inconsistent_inputs_are_refused(problem, change, message):
    model, images, labels = problem
    inputs = {"images": images, "labels": labels, "index": torch.arange(8), "objective": FrequencyMaps} | change
    with pytest.raises(FmlibError, match=message):
        learn_masks(model, **inputs, spec=SPEC, seed=0, progress=False)
