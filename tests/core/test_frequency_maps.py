"""Frequency maps: the authors' own steps, their stop rule, independence, the planted truth, and what is refused."""

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


def theirs(model, image, target, spec) -> tuple[torch.Tensor, list[float]]:
    """One map as the authors write it: full plane, any symmetry, sum of its entries; and the losses (1, C, H, W)."""
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
def problem(trained, planted):
    """The trained network, eight of the images that it classifies rightly, and their labels."""
    images, labels = planted.validation.pixels(), planted.validation.labels
    right = torch.nonzero(predictions(trained.eval(), images) == labels).flatten()[:8]
    return trained, images[right], labels[right]


@pytest.fixture
def attacked(problem):
    """The same, attacked: only those that are taken for another class, with that class."""
    model, images, labels = problem
    moved = perturb(model, images, labels, AttackSpec(0.1, 0.02, 10), seed=0, purpose="maps")
    wrong = predictions(model, moved)
    hit = wrong != labels
    assert hit.sum().item() >= 4
    return model, moved[hit], wrong[hit]


@pytest.fixture
def coloured(linear):
    """A linear network of two classes that reads one tone, of the second of three channels; images that have it."""
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
    return learn_masks(model, images, targets, index, spec, **({"seed": 0, "progress": False} | options))


# ------------------------------------------------------------------------------------------ the authors' own steps


@pytest.mark.parametrize("name", ["problem", "attacked", "coloured"])
def test_maps_losses_and_stops_are_those_of_the_authors_full_plane(name, request):
    """One image at a time over the whole plane, written apart: the half planes in a batch take the same steps.

    Up to a twentieth of a step, to which Adam may raise rounding where a maximum changes hands.
    """
    problem = request.getfixturevalue(name)
    model, images, targets = problem
    found = learn(problem)
    assert found.converged.sum() >= len(images) / 2
    objective = FrequencyMaps(SPEC, images.shape[1:])
    shares = torch.cat((torch.ones(1, len(images)), found.history["l1_share"]))
    for k in range(len(images)):
        full, losses = theirs(model, images[k : k + 1], targets[k : k + 1], SPEC)
        assert found.epochs[k].item() == len(losses)
        torch.testing.assert_close(found.half[k], half_plane(full), atol=1e-3, rtol=0)
        torch.testing.assert_close(full_plane(found.half[k], 16), full, atol=1e-3, rtol=0)  # theirs stays symmetric
        ours = found.history["invariance"][: len(losses), k] + objective.weight * shares[: len(losses), k]
        assert ours.tolist() == pytest.approx(losses, abs=1e-4, rel=1e-4)


def test_penalty_is_on_the_sum_over_the_full_plane_and_the_channels():
    half = torch.rand(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    objective = FrequencyMaps(replace(SPEC, penalty=0.5), torch.Size((3, 8, 8)))
    summed = 0.5 * full_plane(half, 8).sum((1, 2, 3))
    found = objective.weight * objective.share(half, 8)
    half = half_plane(full_plane(half, 8))
    torch.testing.assert_close(found, summed)
    assert FrequencyMaps(FrequencyMapSpec(), torch.Size((3, 32, 32))).weight == 1536


def test_cost_is_the_cross_entropy_whatever_the_image_alone_costs():
    losses = torch.tensor([0.3, 7.0, 40.0])
    cost, beyond = FrequencyMaps(SPEC, torch.Size((1, 8, 8))).cost(losses, torch.tensor([0.3, 0.0, 90.0]))
    assert torch.equal(cost, losses)
    assert not beyond.any()


# ------------------------------------------------------------------------------------------------------- stopping


def epoch(losses: list[float], shares: list[float], window: int) -> Epoch:
    """The epoch of the last loss, one map's; shares: of each loss the mean of the map after it, but for the last."""
    found = {"invariance": torch.tensor(losses[-1:]), "l1_share": torch.ones(1)}
    earlier = {"invariance": torch.tensor([losses[:-1][-window:]]), "l1_share": torch.tensor([shares[-window:]])}
    return Epoch(torch.tensor([0]), torch.tensor([len(losses) - 1]), torch.tensor(shares[-1:]), found, earlier)


@pytest.mark.parametrize(
    ("losses", "still"),
    [
        ([9, 9, 1, 1, 1, 1], True),
        ([9, 9, 1, 1, 1, 1.06], False),  # .045 from the mean
        ([9, 9, 1, 1, 1, 1.05], True),  # .0375
        ([1, 9, 1.2, 1, 1, 1], False),  # -.05
        ([1, 1, 1.3, 0.7, 1.3, 1.1], True),  # the mean of the four is the last
    ],
)
def test_a_map_is_still_when_its_loss_is_the_mean_of_the_last_ones(losses, still):
    spec = FrequencyMapSpec(penalty=0, least=5, window=4, loss_tol=0.04)
    objective = FrequencyMaps(spec, torch.Size((1, 8, 8)))
    assert objective.still(epoch(losses, [1.0] * 5, objective.window)).item() is still


def test_penalty_counts_in_the_loss_that_must_be_still():
    """64 entries at 1 each fall by a hundredth, .64 of J; the share before an epoch is the one that it paid for."""
    spec = FrequencyMapSpec(penalty=1, least=5, window=3, loss_tol=0.4)
    objective = FrequencyMaps(spec, torch.Size((1, 8, 8)))
    for shares, still in (([1, 1, 1, 0.99], False), ([1, 1, 0.99, 0.99], True), ([1, 0.99, 0.98, 0.97], False)):
        assert objective.still(epoch([0.0] * 5, shares, objective.window)).item() is still


def test_no_map_stops_before_its_least_epochs(problem):
    """Even where nothing moves: an infinite tolerance stops all maps at the first epoch allowed."""
    found = learn(problem, replace(SPEC, loss_tol=math.inf))
    assert found.epochs.tolist() == [SPEC.least] * 8
    assert found.converged.all()
    found = learn(problem, replace(SPEC, loss_tol=0.0, epochs=45))
    assert found.epochs.tolist() == [45] * 8
    assert not found.converged.any()


# ------------------------------------------------------------------------------------------ maps are independent


def test_maps_learned_together_equal_each_learned_alone(problem):
    model, images, targets = problem
    batch_size = learn(problem)
    assert batch_size.half.shape == (8, 1, 16, 9)
    assert batch_size.full().shape == (8, 1, 16, 16)
    for k in range(8):
        alone = learn((model, images[k : k + 1], targets[k : k + 1]))
        torch.testing.assert_close(batch_size.half[k], alone.half[0], atol=1e-4, rtol=0)
        assert batch_size.epochs[k] == alone.epochs[0]


def test_how_often_the_host_looks_changes_nothing(problem, monkeypatch):
    found = []
    for every in (1, 1000):
        monkeypatch.setattr(mask_optimizer, "CHECKED", every)
        found.append(learn(problem))
    torch.testing.assert_close(found[0].half, found[1].half, atol=1e-5, rtol=0)
    assert torch.equal(found[0].epochs, found[1].epochs)


def test_resumed_maps_equal_uninterrupted_bit_for_bit(coloured, memory_checkpoint, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "CHECKED", 1)
    whole = learn(coloured)
    checkpoint = memory_checkpoint(interrupt_after=50)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(coloured, checkpoint=checkpoint)
    resumed = learn(coloured, checkpoint=checkpoint)
    assert torch.equal(resumed.half, whole.half)
    assert torch.equal(resumed.epochs, whole.epochs)


def test_one_map_may_serve_the_images_of_a_class(problem):
    """A batch is each map's images, as for masks."""
    model, images, targets = problem
    found = learn(problem, replace(SPEC, batch=8, epochs=60), index=torch.zeros(8, dtype=torch.long))
    assert found.half.shape == (1, 1, 16, 9)
    assert (predictions(model, apply_mask(images, found.half.expand(8, -1, -1, -1))) == targets).all()


# ------------------------------------------------------------------------------------------------ the planted truth


def test_an_essential_map_is_its_class_tone_and_the_mean(problem, planted_spec):
    """The distractors and the tones of other classes go. One class may be known by having none of the others' tones."""
    model, images, labels = problem
    found = learn(problem, FrequencyMapSpec(penalty=0.05, lr=0.02, least=300, epochs=600))
    assert (predictions(model, apply_mask(images, found.half)) == labels).all()
    full = found.full()[:, 0]
    tones, distractors = synthetic_tones(planted_spec)
    own = torch.stack([tone_mask(tones[label : label + 1], 16) for label in labels.tolist()])
    own[:, 0, 0] = 1  # without the mean the image would be black
    assert ((full * own).sum() / full.sum()).item() > 0.95
    assert (full * tone_mask(distractors, 16)).max().item() < 0.01
    assert (full > 0.01).sum((1, 2)).max().item() <= 6


def test_an_adversarial_map_keeps_the_wrong_class_and_an_essential_one_the_right(problem, attacked):
    for model, images, targets in (problem, attacked):
        found = learn((model, images, targets))
        assert (predictions(model, apply_mask(images, found.half)) == targets).all()
        assert bool((found.history["kept"][-1] == 1).all())
        assert found.half.mean().item() < 0.3


def test_a_map_has_a_plane_a_channel_and_keeps_only_the_channel_that_is_read(coloured):
    model, images, targets = coloured
    found = learn(coloured, replace(SPEC, epochs=300, loss_tol=0.0))
    assert found.half.shape == (4, 3, 16, 9)
    full = found.full()
    assert full[:, [0, 2]].max().item() == 0
    read = tone_mask(torch.tensor([[2, 3]]), 16)
    assert (full[:, 1] * (1 - read)).max().item() == 0
    assert (full[:, 1] * read).sum((1, 2)).min().item() > 1
    assert (predictions(model, apply_mask(images, found.half)) == targets).all()


# ------------------------------------------------------------------------------------------------------ bad input


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
def test_inputs_that_do_not_fit_are_refused(problem, change, message):
    model, images, labels = problem
    inputs = {"images": images, "labels": labels, "index": torch.arange(8)} | change
    with pytest.raises(FmlibError, match=message):
        learn_masks(model, **inputs, spec=SPEC, seed=0, progress=False)
