"""The engine: any number of masks at a time gives the same masks, and no more images are in work than there is room."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fmlib.core import mask_optimizer
from fmlib.core.config import FrequencyMapSpec, MaskSpec
from fmlib.core.device import one_cycle
from fmlib.core.errors import FmlibError
from fmlib.core.mask_optimizer import Problem
from fmlib.core.masks import Invariance, clipped_exp_square, learn_masks
from fmlib.core.spectra import apply_mask, l1_share

SPEC = MaskSpec(penalty=0.07, lr=0.1, one_cycle=False, epochs=120, patience=3, share_tol=1e-3)
MAPS = FrequencyMapSpec(penalty=0.01, lr=0.05, epochs=90, least=40, window=5, loss_tol=1e-3)
COUNT = 9


class Watched(nn.Module):
    """A network that remembers how many images it was shown in each step that asked for a gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, images):
        if images.requires_grad:
            self.seen.append(len(images))
        return self.network(images)


@pytest.fixture
def learn(trained, planted):
    """Masks of the first validation images, learned by a watched copy of the trained network; it comes along."""

    def go(spec=SPEC, index=None, **options):
        images, labels = planted.validation.pixels(slice(COUNT)), planted.validation.labels[:COUNT]
        index = torch.arange(COUNT) if index is None else index
        watched = Watched(trained)
        options = {"seed": 0, "centre": 0.5, "progress": False} | options
        return learn_masks(watched, images, labels, index, spec, **options), watched.seen

    return go


@pytest.mark.parametrize("together", [1, 2, 4, 50])
@pytest.mark.parametrize(
    ("spec", "index"),
    [(SPEC, None), (replace(SPEC, one_cycle=True, epochs=30), None), (MAPS, None), (SPEC, torch.arange(COUNT) % 3)],
    ids=["image masks", "one-cycle", "maps", "class masks"],
)
def test_however_many_are_in_work_the_masks_are_the_same(learn, batch_size, spec, index):
    all_at_once, _ = learn(spec, index, batch_size=COUNT)
    found, seen = learn(spec, index, batch_size=batch_size)
    assert max(seen) <= batch_size
    torch.testing.assert_close(found.half, all_at_once.half, atol=1e-4, rtol=0)
    assert torch.equal(found.epochs, all_at_once.epochs)
    assert torch.equal(found.converged, all_at_once.converged)
    for name, rows in all_at_once.history.items():
        torch.testing.assert_close(found.history[name], rows, atol=1e-4, rtol=1e-3)


def test_one_that_stops_makes_way_for_the_next(learn, monkeypatch):
    """Fewer steps than batches one after another would take, and the batch full until none is left to begin."""
    monkeypatch.setattr(mask_optimizer, "CHECKED", 1)
    found, seen = learn(batch_size=3)
    epochs = found.epochs.tolist()
    assert min(epochs) < max(epochs)
    assert sum(seen) == sum(epochs)  # no step was taken in vain
    batches = [epochs[start : start + 3] for start in range(0, COUNT, 3)]
    assert len(seen) < sum(map(max, batches))
    assert sorted(seen, reverse=True) == seen
    assert seen[0] == 3


def test_resumed_while_masks_wait_equals_uninterrupted_bit_for_bit(learn, memory_checkpoint, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "CHECKED", 1)
    whole, _ = learn(batch_size=2)
    for after in (1, int(whole.epochs[:2].min()) + 3):
        checkpoint = memory_checkpoint(interrupt_after=after)
        with pytest.raises(memory_checkpoint.Interrupted):
            learn(batch_size=2, checkpoint=checkpoint)
        resumed, _ = learn(batch_size=2, checkpoint=checkpoint)
        assert torch.equal(resumed.half, whole.half)
        assert all(torch.equal(resumed.history[name], rows) for name, rows in whole.history.items())


def test_steps_are_those_of_torchs_adam_under_its_one_cycle_rate(trained, planted, learn):
    """Written apart, with the library's optimiser and schedule: one mask of all images, all of them at each step."""
    spec = MaskSpec(lr=0.05, batch=COUNT, epochs=25, patience=1000, beta2=0.99)
    found, _ = learn(spec, torch.zeros(COUNT, dtype=torch.long))
    images, labels = planted.validation.pixels(slice(COUNT)), planted.validation.labels[:COUNT]
    trained.eval()
    mask = torch.ones(16, 9, requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=spec.lr, betas=(0.9, spec.beta2))
    schedule = one_cycle(optimizer, spec.lr, spec.epochs)
    reference = cross_entropy(trained(images), labels, reduction="none").detach()
    for _ in range(spec.epochs):
        losses = cross_entropy(trained(apply_mask(images, mask, 0.5)), labels, reduction="none")
        cost = clipped_exp_square(losses - reference, spec.clip).mean() + spec.penalty * l1_share(mask, 16)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        schedule.step()
        mask.data.clamp_(0, 1)
    assert 0.05 < mask.mean().item() < 0.95
    torch.testing.assert_close(found.half[0], mask.detach(), atol=1e-4, rtol=0)


def test_resumed_with_less_room_the_masks_are_the_same(learn, memory_checkpoint, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "CHECKED", 1)
    whole, _ = learn()
    checkpoint = memory_checkpoint(interrupt_after=10)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(batch_size=6, checkpoint=checkpoint)
    resumed, _ = learn(batch_size=2, checkpoint=checkpoint)
    torch.testing.assert_close(resumed.half, whole.half, atol=1e-4, rtol=0)
    assert torch.equal(resumed.epochs, whole.epochs)


# ------------------------------------------------------------------------------------------------------------- room


def problem(model: nn.Module, side: int, spec: MaskSpec = SPEC) -> Problem:
    images, labels = torch.rand(20, 1, side, side), torch.zeros(20, dtype=torch.long)
    members = list(torch.arange(20)[:, None]) if spec.batch == 1 else [torch.arange(20)]
    objective = Invariance(spec, torch.ones(len(members)))
    return Problem(model, images, 0.5, labels, members, torch.zeros(20), spec, objective, 0)


def test_there_is_room_for_fewer_masks_of_larger_images_and_of_larger_batches(trained, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "room", lambda device, weights: 2**24)
    trained.eval().requires_grad_(False)
    room = [problem(trained, side).batch_size() for side in (16, 32, 64)]
    assert room[0] > room[1] > room[2] >= 1
    assert problem(trained, 32, replace(SPEC, batch=4)).batch_size() == room[1] // 4
    assert problem(trained, 16, replace(SPEC, batch=20)).batch_size() == max(room[0] // 20, 1)


def test_room_counts_what_a_step_keeps_once_and_no_weights(linear):
    """A linear network keeps the image's spectrum and its logits; not its weights."""
    weight = torch.randn(2, 64)
    small, large = linear(weight), linear(torch.cat((weight, torch.randn(1000, 64))))
    for model in (small, large):
        model.requires_grad_(False)
    assert problem(small, 8).batch_size() > 1000
    assert problem(large, 8).batch_size() < problem(small, 8).batch_size()  # of its logits, 1,002 an image
    assert problem(large, 8).batch_size() > 500


def test_no_room_still_leaves_one_mask_in_work(trained, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "room", lambda device, weights: 1)
    trained.eval().requires_grad_(False)
    assert problem(trained, 64).batch_size() == 1


@pytest.mark.parametrize("together", [0, -3])
def test_no_mask_at_a_time_is_refused(learn, batch_size):
    with pytest.raises(FmlibError, match="at least one mask"):
        learn(batch_size=batch_size)
