"""Shared masks by sequential convex steps: the step against its optimality conditions, and masks of several images."""

from __future__ import annotations

import pytest
import torch

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.errors import FmlibError
from fmlib.core.spectra import apply_mask
from fmlib.explain.shared_mask import next_mask, shared_masks

SPEC = MinimalMaskSpec(penalty=0.2, steps=20, radius=0.1)


def test_the_next_mask_meets_the_optimality_conditions():
    rng = torch.Generator().manual_seed(0)
    slopes, offsets = 0.3 * torch.randn(30, 12, generator=rng), 0.1 * torch.randn(30, generator=rng)
    mask, reach, weights = torch.rand(12, generator=rng), torch.full((12,), 0.3), torch.full((12,), 1 / 12)
    found = next_mask(slopes, offsets, mask, reach, weights, SPEC, iterations=500)
    low, high = (mask - reach).clamp_min(0), (mask + reach).clamp_max(1)
    assert bool(((found >= low - 1e-6) & (found <= high + 1e-6)).all())
    change = offsets + slopes @ found
    assert change.abs().max() < SPEC.clip
    grad = (2 * change * torch.exp(change**2)) @ slopes / 30 + SPEC.penalty * weights
    inside = (found > low + 1e-5) & (found < high - 1e-5)
    assert inside.any()
    assert grad[inside].abs().max() < 1e-3
    assert (grad[found <= low + 1e-5] > -1e-3).all()
    assert (grad[found >= high - 1e-5] < 1e-3).all()


@pytest.fixture
def learned(trained, synthetic):
    """Masks of two groups of images, (2, 16, 9), with the images and labels."""
    images, labels = synthetic.validation.pixels(slice(24)), synthetic.validation.labels[:24]
    index = torch.arange(24) % 2
    found = shared_masks(trained, images, labels, index, SPEC, centre=0.5, progress=False)
    return found, images, labels, index


def test_each_group_of_images_has_its_own_mask(learned, trained):
    found, images, labels, index = learned
    alone = shared_masks(trained, images[index == 0], labels[index == 0], index[index == 0], SPEC, centre=0.5)
    torch.testing.assert_close(alone.half[0], found.half[0])
    assert found.half.shape == (2, 16, 9)
    assert found.history["l1_share"].shape == (20, 2)
    assert found.epochs.tolist() == [20, 20]


def test_shared_masks_keep_the_predictions_with_part_of_the_plane(learned, trained):
    found, images, _, index = learned
    with torch.no_grad():
        before, after = (trained(x).argmax(1) for x in (images, apply_mask(images, found.half[index], 0.5)))
    assert (before == after).float().mean() > 0.9
    assert found.history["l1_share"][-1].max() < 0.6


def test_the_batch_of_the_network_does_not_matter(learned, trained):
    found, images, labels, index = learned
    again = shared_masks(trained, images, labels, index, SPEC, centre=0.5, batch_size=5, progress=False)
    torch.testing.assert_close(again.history["l1_share"], found.history["l1_share"], atol=0.02, rtol=0)


def test_wrong_inputs(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    with pytest.raises(FmlibError, match="without gaps"):
        shared_masks(trained, images, labels, torch.tensor([0, 0, 2, 2]), SPEC, progress=False)
    with pytest.raises(FmlibError, match="no channels"):
        shared_masks(trained, images, labels, torch.zeros(4), MinimalMaskSpec(per_channel=True), progress=False)
