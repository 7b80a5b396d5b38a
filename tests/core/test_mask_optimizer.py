"""The mask optimizer: masks do not depend on the batch size, and the batch fits the memory budget."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fmlib.core import mask_optimizer
from fmlib.core.config import FrequencyMapSpec, MaskSpec
from fmlib.core.device import one_cycle
from fmlib.core.errors import FmlibError
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.mask_optimizer import Problem
from fmlib.core.masks import Invariance, clipped_exp_square, learn_masks
from fmlib.core.spectra import apply_mask, l1_share

SPEC = MaskSpec(penalty=0.07, lr=0.1, one_cycle=False, epochs=120, patience=3, share_tol=1e-3)
MAPS = FrequencyMapSpec(penalty=0.01, lr=0.05, epochs=90, min_epochs=40, window=5, loss_tol=1e-3)
COUNT = 9


class Recorder(nn.Module):
    """A network that records the number of images of each step that asks for a gradient."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, images):
        if images.requires_grad and not images.is_leaf:  # the check of the model asks for that of its pixels
            self.seen.append(len(images))
        return self.network(images)


@pytest.fixture
def learn(trained, synthetic):
    """Learn masks of the first validation images; returns them and the number of images of each step."""

    def go(spec=SPEC, index=None, **options):
        images, labels = synthetic.validation.pixels(slice(COUNT)), synthetic.validation.labels[:COUNT]
        index = torch.arange(COUNT) if index is None else index
        recorder = Recorder(trained)
        objective = FrequencyMaps if isinstance(spec, FrequencyMapSpec) else Invariance
        options = {"seed": 0, "centre": 0.5, "progress": False, "objective": objective} | options
        return learn_masks(recorder, images, labels, index, spec, **options), recorder.seen

    return go


@pytest.fixture
def refilled_every_step(monkeypatch):
    """Refill the batch, and save the state, after every step."""
    monkeypatch.setattr(mask_optimizer, "CHECK_EVERY", 1)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
@pytest.mark.parametrize(
    ("spec", "index"),
    [(SPEC, None), (replace(SPEC, one_cycle=True, epochs=30), None), (MAPS, None), (SPEC, torch.arange(COUNT) % 3)],
    ids=["image masks", "one-cycle", "maps", "class masks"],
)
def test_masks_do_not_depend_on_the_batch_size(learn, batch_size, spec, index):
    all_at_once, _ = learn(spec, index, batch_size=COUNT)
    masks, seen = learn(spec, index, batch_size=batch_size)
    assert max(seen) <= batch_size
    torch.testing.assert_close(masks.half, all_at_once.half, atol=1e-4, rtol=0)
    assert torch.equal(masks.epochs, all_at_once.epochs)
    assert torch.equal(masks.converged, all_at_once.converged)
    for name, values in all_at_once.history.items():
        torch.testing.assert_close(masks.history[name], values, atol=1e-4, rtol=1e-3)


@pytest.mark.usefixtures("refilled_every_step")
def test_a_stopped_mask_is_replaced_by_the_next(learn):
    """Fewer steps than consecutive batches would take; the batch stays full until no mask is left to start."""
    masks, seen = learn(batch_size=3)
    epochs = masks.epochs.tolist()
    assert min(epochs) < max(epochs)
    assert sum(seen) == sum(epochs)  # no step was spent on a stopped mask
    batches = [epochs[start : start + 3] for start in range(0, COUNT, 3)]
    assert len(seen) < sum(map(max, batches))
    assert sorted(seen, reverse=True) == seen
    assert seen[0] == 3


def test_steps_equal_those_of_torchs_adam_with_its_one_cycle_rate(trained, synthetic, learn):
    """An independent implementation with torch's optimiser and schedule: one mask, all images at each step."""
    spec = MaskSpec(lr=0.05, batch=COUNT, epochs=25, patience=1000, beta2=0.99)
    masks, _ = learn(spec, torch.zeros(COUNT, dtype=torch.long))
    images, labels = synthetic.validation.pixels(slice(COUNT)), synthetic.validation.labels[:COUNT]
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
    torch.testing.assert_close(masks.half[0], mask.detach(), atol=1e-4, rtol=0)


# ---------------------------------------------------------------------------------------------------- resuming


@pytest.mark.usefixtures("refilled_every_step")
def test_resumed_before_all_masks_have_started_equals_uninterrupted_bit_for_bit(learn, memory_checkpoint):
    whole, _ = learn(batch_size=2)
    for after in (1, int(whole.epochs[:2].min()) + 3):
        checkpoint = memory_checkpoint(interrupt_after=after)
        with pytest.raises(memory_checkpoint.Interrupted):
            learn(batch_size=2, checkpoint=checkpoint)
        resumed, _ = learn(batch_size=2, checkpoint=checkpoint)
        assert torch.equal(resumed.half, whole.half)
        assert all(torch.equal(resumed.history[name], values) for name, values in whole.history.items())


@pytest.mark.usefixtures("refilled_every_step")
def test_resumed_with_a_smaller_batch_size_the_masks_are_the_same(learn, memory_checkpoint):
    whole, _ = learn()
    checkpoint = memory_checkpoint(interrupt_after=10)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(batch_size=6, checkpoint=checkpoint)
    resumed, _ = learn(batch_size=2, checkpoint=checkpoint)
    torch.testing.assert_close(resumed.half, whole.half, atol=1e-4, rtol=0)
    assert torch.equal(resumed.epochs, whole.epochs)


@pytest.mark.usefixtures("refilled_every_step")
@pytest.mark.parametrize("version", [mask_optimizer.STATE_VERSION, mask_optimizer.STATE_VERSION - 1, None])
def test_a_state_of_another_version_is_dropped(learn, memory_checkpoint, version):
    """A state with the current version saves steps; with another or no version, the fit starts from the beginning."""
    spec = replace(SPEC, epochs=20, patience=1000)
    whole, _ = learn(spec, batch_size=COUNT)
    checkpoint = memory_checkpoint(interrupt_after=15)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(spec, batch_size=COUNT, checkpoint=checkpoint)
    state = checkpoint.load()
    assert state.pop("version") == mask_optimizer.STATE_VERSION
    buffer = io.BytesIO()
    torch.save({"rows": "of another layout"} if version is None else state | {"version": version}, buffer)
    checkpoint.content = buffer.getvalue()
    resumed, seen = learn(spec, batch_size=COUNT, checkpoint=checkpoint)
    assert len(seen) == (5 if version == mask_optimizer.STATE_VERSION else 20)
    assert torch.equal(resumed.half, whole.half)
    assert torch.equal(resumed.epochs, whole.epochs)


# -------------------------------------------------------------------------------------------------- batch size


def problem(model: nn.Module, side: int, spec: MaskSpec = SPEC) -> Problem:
    images, labels = torch.rand(20, 1, side, side), torch.zeros(20, dtype=torch.long)
    members = list(torch.arange(20)[:, None]) if spec.batch == 1 else [torch.arange(20)]
    objective = Invariance(spec, images.shape[1:], torch.ones(len(members)))
    return Problem(model, images, 0.5, labels, members, torch.zeros(20), spec, objective, 0)


def test_fewer_masks_of_larger_images_and_larger_batches_fit_the_budget(trained, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "memory_budget", lambda device, weights: 2**24)
    trained.eval().requires_grad_(False)
    sizes = [problem(trained, side).default_batch_size() for side in (16, 32, 64)]
    assert sizes[0] > sizes[1] > sizes[2] >= 1
    assert problem(trained, 32, replace(SPEC, batch=4)).default_batch_size() == sizes[1] // 4
    assert problem(trained, 16, replace(SPEC, batch=20)).default_batch_size() == max(sizes[0] // 20, 1)


def test_stored_tensors_count_once_and_weights_not_at_all(linear):
    """A linear network stores the spectrum and the logits of an image, but not its weights."""
    weight = torch.randn(2, 64)
    small, large = linear(weight), linear(torch.cat((weight, torch.randn(1000, 64))))
    for model in (small, large):
        model.requires_grad_(False)
    assert problem(small, 8).default_batch_size() > 1000
    assert problem(large, 8).default_batch_size() < problem(small, 8).default_batch_size()  # 1,002 logits per image
    assert problem(large, 8).default_batch_size() > 500


def test_at_least_one_mask_is_active_whatever_the_budget(trained, monkeypatch):
    monkeypatch.setattr(mask_optimizer, "memory_budget", lambda device, weights: 1)
    trained.eval().requires_grad_(False)
    assert problem(trained, 64).default_batch_size() == 1


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_below_one_is_refused(learn, batch_size):
    with pytest.raises(FmlibError, match=f"batch_size must be at least 1, not {batch_size}"):
        learn(batch_size=batch_size)
