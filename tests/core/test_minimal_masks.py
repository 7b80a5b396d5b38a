"""Minimal masks: the linear programme, known answers, degenerate images, independence, resuming, no waiting."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch.utils._python_dispatch import TorchDispatchMode

from fmlib.core.config import ImageMaskSpec, MinimalMaskSpec, NetworkSpec, SyntheticSpec, TrainSpec
from fmlib.core.errors import FmlibError
from fmlib.core.masks import clipped_exp_square, learn_masks
from fmlib.core.minimal_masks import knapsack_step, minimal_masks
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask, column_weights, l1_share
from fmlib.core.synthetic import make_synthetic, synthetic_tones, tone_mask
from fmlib.core.training import train

CENTRE = 0.5
SPEC = MinimalMaskSpec(steps=25)


def find(model, images, labels, spec=SPEC, **options):
    return minimal_masks(model, images, labels, spec, **({"centre": CENTRE, "progress": False} | options))


def excess(model, images, labels, half, spec=SPEC):
    """The objective's excess over 1, written out."""
    losses = [
        torch.nn.functional.cross_entropy(model(pixels), labels, reduction="none")
        for pixels in (images, apply_mask(images, half, CENTRE))
    ]
    return clipped_exp_square(losses[1] - losses[0], spec.clip) - 1 + spec.penalty * l1_share(half, images.shape[-1])


@pytest.fixture(scope="module")
def waves(linear):
    """A linear classifier of waves of 3 cycles (class 0) against 5 (class 1), 8 images, and their labels.

    The images hold both waves and noise, with the wave of their class twice as strong.
    """
    column = torch.arange(16) / 16 * 2 * math.pi
    basis = torch.stack([torch.cos(cycles * column).expand(16, 16) for cycles in (3, 5)]).double()
    labels = torch.arange(8) % 2
    noise = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    strength = torch.where(torch.arange(2) == labels[:, None], 0.12, 0.06).double()
    images = CENTRE + torch.einsum("nc,chw->nhw", strength, basis) + 0.01 * noise
    return linear(basis.flatten(1) / 8).double(), images[:, None], labels


# ------------------------------------------------------------------------------------------------ the linear programme


def problem(seed: int, count: int = 6, entries: int = 40):
    rng = torch.Generator().manual_seed(seed)
    mask = torch.rand(count, entries, generator=rng, dtype=torch.float64)
    mask = torch.where(mask < 0.2, torch.zeros_like(mask), mask)
    grad = torch.randn(count, entries, generator=rng, dtype=torch.float64)
    change = 0.5 * torch.randn(count, 1, generator=rng, dtype=torch.float64)
    weights = torch.randint(1, 3, (entries,), generator=rng).double() / 100
    radius = 0.05 + 0.3 * torch.rand(count, 1, generator=rng, dtype=torch.float64)
    return mask, grad, change, weights, radius


@pytest.mark.parametrize("seed", range(20))
def test_step_solves_the_linear_programme(seed):
    mask, grad, change, weights, radius = problem(seed)
    step = knapsack_step(mask, grad, change, weights, radius)
    lower, upper = torch.maximum(-mask, -radius), torch.minimum(1 - mask, radius)
    assert (step >= lower - 1e-12).all()
    assert (step <= upper + 1e-12).all()
    for row in range(len(mask)):
        bounds = np.stack((lower[row].numpy(), upper[row].numpy()), 1)
        exact = linprog(weights.numpy(), A_eq=grad[row, None].numpy(), b_eq=-change[row].numpy(), bounds=bounds)
        if exact.success:
            assert float(grad[row] @ step[row]) == pytest.approx(-float(change[row]), abs=1e-9)
            assert float(weights @ step[row]) == pytest.approx(exact.fun, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_step_comes_as_close_as_it_can_where_none_meets_the_equality(sign):
    mask, grad, _, weights, radius = problem(0)
    step = knapsack_step(mask, grad, torch.full((len(mask), 1), 1e3 * sign, dtype=torch.float64), weights, radius)
    lower, upper = torch.maximum(-mask, -radius), torch.minimum(1 - mask, radius)
    assert torch.allclose(step, torch.where(-sign * grad > 0, upper, lower), rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.07, 1.0, 20.0])
def test_step_minimises_the_penalised_square(penalty):
    """No entry can be moved, up or down, to lower (d + q . D)^2 + penalty * w . D."""
    mask, grad, change, weights, radius = problem(1)
    step = knapsack_step(mask, grad, change, weights, radius, penalty)
    lower, upper = torch.maximum(-mask, -radius), torch.minimum(1 - mask, radius)
    slope = 2 * (change + (grad * step).sum(1, keepdim=True)) * grad + penalty * weights
    assert (slope[step > lower + 1e-9] < 1e-4).all()
    assert (slope[step < upper - 1e-9] > -1e-4).all()


@pytest.mark.parametrize("penalty", [0.0, 0.07])
@pytest.mark.parametrize("sign", [1, -1])
def test_step_is_the_smallest_mask_where_no_entry_can_undo_the_change(sign, penalty):
    mask, weights, radius = torch.zeros(2, 5), torch.full((5,), 0.2), torch.full((2, 1), 0.3)
    step = knapsack_step(mask, torch.full((2, 5), 1.0 * sign), torch.full((2, 1), 1.0 * sign), weights, radius, penalty)
    assert torch.equal(step, torch.zeros(2, 5))


def test_step_shrinks_everything_if_the_loss_does_not_depend_on_the_mask():
    mask, grad, _, weights, radius = problem(0)
    step = knapsack_step(mask, 0 * grad, torch.zeros(len(mask), 1, dtype=torch.float64), weights, radius)
    assert torch.equal(step, torch.maximum(-mask, -radius))


# ------------------------------------------------------------------------------------------------------- known answers


def test_only_the_informative_waves_remain(waves):
    model, images, labels = waves
    found = find(model, images, labels, MinimalMaskSpec(steps=60))
    elsewhere = found.half.clone()
    elsewhere[:, 0, [3, 5]] = 0
    assert elsewhere.max().item() == 0
    assert found.converged.all()
    assert (found.half[:, 0, [3, 5]].amax(1) > 0).all()


def test_synthetic_tones_are_found():
    """A network trained on images with one tone per class: its minimal masks lie on the tones of the data."""
    spec = SyntheticSpec(size=16, classes=2, train=200, validation=32)
    data = make_synthetic(spec, 0)
    network = build(NetworkSpec("tiny_vgg", classes=2, mean=CENTRE, std=0.14), 0)
    train(network, data.train, data.validation, TrainSpec(epochs=4, batch=20, lr=0.01), seed=0, progress=False)
    images = data.validation.pixels()
    found = find(network, images, network(images).argmax(1), MinimalMaskSpec(steps=60))
    tones = tone_mask(synthetic_tones(spec, 0)[0], 16)[:, :9] > 0
    energy = found.half.square().sum(0)
    assert energy[tones].sum() > 5 * tones.float().mean() * energy.sum()


def test_objective_is_at_most_that_of_the_authors_schedule(trained, synthetic):
    """On images whose class leads clearly; where it does not, keeping it may need a larger mask than the objective."""
    images = synthetic.validation.pixels()
    first, second = trained(images).softmax(1).topk(2).values.unbind(1)
    images = images[first - second > 0.2][:12]
    assert len(images) == 12
    targets, index = trained(images).argmax(1), torch.arange(12)
    adam = learn_masks(
        trained, images, targets, index, ImageMaskSpec(epochs=2000), seed=0, centre=CENTRE, progress=False
    )
    found = find(trained, images, targets, MinimalMaskSpec())
    ours, authors = (excess(trained, images, targets, masks.half).mean() for masks in (found, adam))
    assert ours <= authors * (1 + 1e-4)  # where both reach the optimum, rounding decides
    assert (trained(apply_mask(images, found.half, CENTRE)).argmax(1) == targets).all()


def test_bands_share_one_entry(waves):
    model, images, labels = waves
    bands = torch.arange(9).expand(16, 9) // 3
    found = find(model, images, labels, bands=bands)
    for band in range(3):
        of_band = found.half[:, bands == band]
        assert torch.equal(of_band, of_band[:, :1].expand_as(of_band))


# -------------------------------------------------------------------------------------------------------- any shapes


@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (9, 7)), (2, (6, 11))])
@pytest.mark.parametrize("per_channel", [False, True])
def test_any_channels_sides_and_classes(linear, channels, size, per_channel):
    rng = torch.Generator().manual_seed(0)
    model = linear(torch.randn(7, channels * math.prod(size), generator=rng))
    images = torch.rand(5, channels, *size, generator=rng)
    found = find(model, images, model(images).argmax(1), replace(SPEC, per_channel=per_channel))
    planes = [channels] if per_channel else []
    assert found.half.shape == (5, *planes, size[0], size[1] // 2 + 1)
    assert found.history["l1_share"].shape == (SPEC.steps, 5)
    weights = column_weights(size[1]) / math.prod(size)
    share = (found.half * weights).sum((-2, -1))
    share = share.mean(1) if per_channel else share
    lowest = (found.history["l1_share"] - share).abs().amin(0)
    assert lowest.max().item() < 1e-6


# -------------------------------------------------------------------------------------------------- degenerate images


def test_an_image_on_which_the_network_does_not_depend_needs_no_frequency(waves):
    model, images, labels = waves
    only = Thresholded(model, 0.7)
    dark = torch.full_like(images[:1], CENTRE)
    found = find(only, torch.cat((images + 0.3, dark)), torch.cat((labels, only(dark).argmax(1))))
    assert found.half[-1].max().item() == 0
    assert found.converged[-1]


class Thresholded(torch.nn.Module):
    """Constant logits for images whose pixels all lie below a threshold."""

    def __init__(self, model, threshold):
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, images):
        bright = images.detach().amax((1, 2, 3))[:, None] > self.threshold
        return torch.where(bright, self.model(images), torch.arange(2).to(images))


def test_a_loss_of_zero_stays(waves):
    model, images, labels = waves
    sure = type(model)(1e4 * model.weight.detach(), 1e4 * model.bias.detach())
    found = find(sure.double(), images, labels)
    assert (excess(sure, images, labels, found.half) < SPEC.penalty).all()
    assert found.converged.all()


def test_an_image_that_is_classified_by_a_hair_keeps_its_prediction(waves):
    model, images, _ = waves
    pair = images[:2].mean(0, keepdim=True)  # both waves at one strength
    target = model(pair).argmax(1)
    gap = model(pair).topk(2).values.diff().abs().item()
    assert gap < 0.1
    found = find(model, pair, target, MinimalMaskSpec(steps=60))
    assert model(apply_mask(pair, found.half, CENTRE)).argmax(1) == target
    assert found.converged.all()


def test_a_label_that_is_never_predicted_is_not_converged(waves):
    model, images, labels = waves
    found = find(model, images, 1 - labels)
    assert not found.converged.any()
    assert torch.isfinite(found.half).all()


class Overflowing(torch.nn.Module):
    """Infinite logits for images whose mean lies below a threshold."""

    def __init__(self, model, threshold):
        super().__init__()
        self.model, self.threshold = model, threshold

    def forward(self, images):
        return self.model(images) / (images.amax((1, 2, 3), keepdim=False)[:, None] > self.threshold)


def test_iterates_with_an_infinite_loss_are_rejected(waves):
    model, images, labels = waves
    found = find(Overflowing(model, 0.6), images, labels)
    filtered = apply_mask(images, found.half, CENTRE)
    assert (filtered.amax((1, 2, 3)) > 0.6).all()


def test_an_image_with_an_infinite_loss_is_refused(waves):
    model, images, labels = waves
    flat = torch.cat((images, torch.full_like(images[:1], CENTRE)))
    with pytest.raises(FmlibError, match="loss of an image is not finite"):
        find(Overflowing(model, 0.6), flat, torch.cat((labels, labels[:1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": slice(0)}, "there are no images"),
        ({"labels": slice(3)}, "same length"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"bands": torch.zeros(3, 3, dtype=torch.long)}, "bands must be int64 of shape"),
        ({"bands": torch.zeros(16, 9)}, "bands must be int64 of shape"),
        ({"bands": 2 * torch.eye(16, 9, dtype=torch.long)}, "numbered from 0 without gaps"),
    ],
)
def test_wrong_inputs_are_refused(waves, change, message):
    model, images, labels = waves
    chosen = change.get("images", slice(None))
    options = {name: value for name, value in change.items() if name in ("batch_size", "bands")}
    with pytest.raises(FmlibError, match=message):
        find(model, images[chosen], labels[change.get("labels", chosen)], **options)


# ------------------------------------------------------------------------------- independence, resuming, restarts


@pytest.fixture
def double(trained, synthetic):
    """A trained network in float64, 8 images, and its predictions."""
    model, images = trained.double(), synthetic.validation.pixels(slice(8)).double()
    return model, images, model(images).argmax(1)


def test_in_float64_a_mask_is_the_same_alone_and_in_any_batch(double):
    together = find(*double)
    for size in (1, 3, 7):
        assert torch.allclose(find(*double, batch_size=size).half, together.half, rtol=0, atol=1e-6)


def test_in_float64_a_resumed_run_ends_with_the_same_masks(double, memory_checkpoint):
    checkpoint = memory_checkpoint(interrupt_after=2)
    with pytest.raises(memory_checkpoint.Interrupted):
        find(*double, batch_size=3, checkpoint=checkpoint)
    resumed, whole = find(*double, batch_size=3, checkpoint=checkpoint), find(*double, batch_size=3)
    assert torch.equal(resumed.half, whole.half)
    for name, values in whole.history.items():
        assert torch.equal(resumed.history[name], values), name


def test_in_float32_another_batch_finds_masks_of_the_same_quality(trained, synthetic):
    images = synthetic.validation.pixels(slice(24))
    targets = trained(images).argmax(1)
    quality = [
        excess(trained, images, targets, find(trained, images, targets, batch_size=size).half).mean().item()
        for size in (24, 5)
    ]
    assert quality[1] == pytest.approx(quality[0], rel=0.25)


def test_stability_compares_restarts(waves):
    model, images, labels = waves
    stability = find(model, images, labels).stability(repeats=3)
    assert stability.half.shape == (4, 8, 16, 9)
    assert stability.correlation.shape == (8,)
    assert (stability.correlation <= 1 + 1e-9).all()
    assert torch.equal(stability.core, (stability.half > 0).all(0))


def test_the_model_is_left_as_it_was(trained, synthetic, snapshot):
    before = snapshot(trained)
    images = synthetic.validation.pixels(slice(4))
    find(trained, images, synthetic.validation.labels[:4])
    assert snapshot(trained) == before


# -------------------------------------------------------------------------------------------------- ready for a GPU


class Waits(TorchDispatchMode):
    """Counts the operations at which the host waits for the device to read a value."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        reads = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_unique2", "masked_select")
        self.count += operation.overloadpacket.__name__ in reads
        return operation(*args, **(kwargs or {}))


def waits(model, images, labels, steps) -> int:
    with Waits() as counter:
        find(model, images, labels, replace(SPEC, steps=steps))
    return counter.count


def test_the_host_waits_as_often_for_many_steps_as_for_few(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    few, many = (waits(trained, images, labels, steps) for steps in (2, 12))
    assert few > 0, "the counter counts nothing"
    assert many == few


def test_every_tensor_names_its_device(trained, synthetic):
    """With the meta device as default, a factory call without a device yields a tensor without data, and fails."""
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    index = torch.arange(4)
    expected = find(trained, images, labels).half
    with torch.device("meta"):
        assert torch.equal(find(trained, images, labels).half, expected)
        learned = learn_masks(trained, images, labels, index, ImageMaskSpec(lr=0.05, epochs=40), seed=0, progress=False)
    assert learned.half.device.type == "cpu"
