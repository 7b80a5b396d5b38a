"""Learning masks: clipping, independence of masks, stopping, resuming, and recovery of known frequencies."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fmlib.core import mask_optimizer
from fmlib.core.config import ImageMaskSpec, MaskSpec, NetworkSpec, SyntheticSpec, TrainSpec
from fmlib.core.errors import FmlibError
from fmlib.core.mask_optimizer import Epoch
from fmlib.core.masks import Invariance, clipped_exp_square, learn_masks
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask, half_plane, l1_share
from fmlib.core.synthetic import make_synthetic, synthetic_tones, tone_mask
from fmlib.core.training import train
from fmlib.pipeline.store import SavedCheckpoint

CENTRE = 0.5  # the mean that the trained networks subtract
clips = st.floats(0.125, 9, width=32)
differences = st.floats(-1e4, 1e4, width=32)


# --------------------------------------------------------------------------------------------------- clipping


def value_and_slope(difference: float, clip: float) -> tuple[float, float]:
    d = torch.tensor([difference], dtype=torch.float64, requires_grad=True)
    value = clipped_exp_square(d, clip)
    value.backward()
    return value.item(), d.grad.item()


@given(clips, st.floats(-1, 1))
def test_objective_equals_the_papers_up_to_the_clip(clip, share):
    d = share * clip
    value, slope = value_and_slope(d, clip)
    assert value == pytest.approx(math.exp(d**2))
    if abs(share) < 1:
        assert slope == pytest.approx(2 * d * math.exp(d**2))


@given(clips, st.floats(0, 1e4))
def test_objective_continues_as_its_tangent(clip, beyond):
    value, slope = value_and_slope(clip + beyond, clip)
    steepest = 2 * clip * math.exp(clip**2)
    assert value == pytest.approx(math.exp(clip**2) + beyond * steepest)
    if clip + beyond > clip:
        assert slope == pytest.approx(steepest)


@given(clips)
def test_slope_is_continuous_at_the_clip_and_correct_on_it(clip):
    """In float32, a difference that equals the clip is as likely as any other."""
    steepest = 2 * clip * math.exp(clip**2)
    below, above = math.nextafter(clip, 0), math.nextafter(clip, math.inf)
    for d in (below, clip, above):
        assert value_and_slope(d, clip) == (pytest.approx(math.exp(clip**2)), pytest.approx(steepest))
        assert value_and_slope(-d, clip) == (pytest.approx(math.exp(clip**2)), pytest.approx(-steepest))


@given(differences, clips)
def test_objective_is_even_and_at_least_one(d, clip):
    assert value_and_slope(-d, clip)[0] == value_and_slope(d, clip)[0] >= 1


@given(differences, differences, st.floats(0, 1), clips)
def test_objective_is_convex(first, second, share, clip):
    middle = share * first + (1 - share) * second
    chord = share * value_and_slope(first, clip)[0] + (1 - share) * value_and_slope(second, clip)[0]
    assert value_and_slope(middle, clip)[0] <= chord * (1 + 1e-12)


@given(differences, differences, clips)
def test_slope_never_decreases(first, second, clip):
    low, high = (value_and_slope(d, clip)[1] for d in sorted((first, second)))
    assert low <= high + 1e-12 * abs(high)


@given(st.lists(differences, min_size=1, max_size=5), st.floats(0.125, 8, width=32))
def test_objective_and_gradient_are_finite_in_single_precision(values, clip):
    d = torch.tensor(values, requires_grad=True)
    cost = clipped_exp_square(d, clip)
    assert cost.shape == d.shape
    assert cost.dtype == torch.float32
    cost.sum().backward()
    assert bool(cost.isfinite().all())
    assert bool(d.grad.isfinite().all())


# -------------------------------------------------------------------------- where the unclipped objective fails

SIDE = 8
TONES = ((0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (0, 3))
WEIGHTS = (0.30, 0.20, 0.15, 0.12, 0.09, 0.07, 0.05, 0.02)


@pytest.fixture
def steep(linear):
    """A linear model with margin 200 (weighted tones - 0.6), and twelve images that it classifies confidently."""
    index = torch.arange(SIDE)

    def wave(row, column):
        return torch.cos(2 * math.pi * (row * index[:, None] + column * index[None, :]) / SIDE)

    waves = torch.stack([wave(*tone) for tone in TONES])  # (8, H, W)
    rng = torch.Generator().manual_seed(0)
    strength = 0.8 + 0.4 * torch.rand(12, 1, 1, 1, generator=rng)
    images = 0.5 + 0.05 * (strength * waves).sum(1, keepdim=True)  # (12, 1, H, W)
    weight = (torch.tensor(WEIGHTS)[:, None, None] * waves).sum(0).flatten() / (0.05 * SIDE**2 / 2)
    model = linear(torch.stack((0 * weight, 200 * weight)), torch.tensor([0.0, -120.0]))
    return model, images, torch.ones(12, dtype=torch.long)


STEEP = MaskSpec(lr=0.5, epochs=15, patience=1000)
ONE = torch.zeros(12, dtype=torch.long)


def test_unclipped_objective_fails_on_steep_logits(steep):
    """With the paper's objective as published, the mask is NaN after two steps."""
    model, images, labels = steep
    mask = torch.ones(SIDE, SIDE // 2 + 1, requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=STEEP.lr)
    reference = cross_entropy(model(images), labels, reduction="none").detach()
    for k in range(3):
        loss = cross_entropy(model(apply_mask(images[k : k + 1], mask)), labels[k : k + 1])
        objective = torch.exp((loss - reference[k]) ** 2) + STEEP.penalty * l1_share(mask, SIDE)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        mask.data.clamp_(0, 1)
    assert not bool(mask.isfinite().all())


def test_clipped_objective_stays_finite_and_a_larger_penalty_gives_a_sparser_mask(steep):
    shares = []
    for penalty in (0.2, 5.0, 20.0):
        found = learn_masks(*steep, ONE, replace(STEEP, penalty=penalty), seed=0, progress=False)
        assert bool(found.half.isfinite().all())
        assert all(bool(values.isfinite().all()) for values in found.history.values())
        assert found.history["clipped"].max().item() > 0  # images were clipped at first
        assert found.history["clipped"][-1].item() == 0  # none in the end
        assert found.history["invariance"][-1].item() < 1.1
        shares.append(found.history["l1_share"][-1].item())
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == len(shares)


class SquareRoot(torch.nn.Module):
    """Logits that are finite only while the image is bright enough."""

    def forward(self, images):
        brightness = images.mean((1, 2, 3))
        return torch.stack(((brightness - 0.45).sqrt(), 0 * brightness), 1)


def test_a_value_that_is_not_finite_raises_an_error():
    images, labels = torch.full((2, 1, 8, 8), 0.5), torch.tensor([0, 0])
    with pytest.raises(FmlibError, match=r"not finite by epoch \d+"):
        learn_masks(SquareRoot(), images, labels, labels, replace(STEEP, penalty=20.0), seed=0, progress=False)


@pytest.mark.parametrize("epochs", [15, 30])
def test_an_overflow_of_the_optimiser_raises_an_error(steep, memory_checkpoint, epochs):
    """An infinite second moment freezes the mask, whatever the penalty, though the mask itself stays finite."""
    checkpoint = memory_checkpoint()
    try:
        spec = replace(STEEP, clip=9.0, epochs=epochs)
        learn_masks(*steep, ONE, spec, seed=0, checkpoint=checkpoint, progress=False)
    except FmlibError:
        return  # the error was raised: by the overflow or the clip
    moments = checkpoint.load()["rows"]["exp_avg_sq"]
    assert bool(moments.isfinite().all())


def test_mask_drops_the_frequencies_that_a_linear_model_ignores(steep):
    found = learn_masks(*steep, ONE, STEEP, seed=0, progress=False).full()[0]
    truth = tone_mask(torch.tensor(TONES), SIDE)
    assert (found * (1 - truth)).max().item() == 0
    assert (found * truth).sum().item() > 0.9 * truth.sum().item()


# ------------------------------------------------------------------------------------------ masks are independent

IMAGE = MaskSpec(penalty=0.07, lr=0.02, one_cycle=False, batch=1, epochs=40, patience=1000)


@pytest.fixture
def learn(trained, synthetic):
    """Learn masks of chosen validation images of the trained network."""

    def go(chosen, index, spec=IMAGE, **options):
        images, labels = synthetic.validation.pixels(chosen), synthetic.validation.labels[chosen]
        options = {"seed": 0, "centre": CENTRE, "progress": False} | options
        return learn_masks(trained, images, labels, index, spec, **options)

    return go


@pytest.mark.parametrize("order", [[0], [4, 1, 6, 0, 2, 5, 3], list(range(64))], ids=["one", "seven", "sixty-four"])
def test_masks_learned_in_one_batch_equal_each_learned_alone(learn, order):
    masks = learn(order, torch.arange(len(order)))
    assert masks.half.shape == (len(order), 16, 9)
    assert 0.01 < masks.half.mean().item() < 0.9  # they have changed, but not to zero
    for place, image in list(enumerate(order))[:: max(len(order) // 7, 1)]:
        alone = learn([image], torch.tensor([0]))
        torch.testing.assert_close(masks.half[place], alone.half[0], atol=1e-5, rtol=0)
        for name, values in alone.history.items():
            torch.testing.assert_close(masks.history[name][:, place], values[:, 0], atol=1e-5, rtol=1e-5)


def test_masks_follow_their_images_in_any_order(learn):
    order = [4, 1, 6, 0, 2, 5, 3]
    forward, shuffled = learn(list(range(7)), torch.arange(7)), learn(order, torch.arange(7))
    torch.testing.assert_close(shuffled.half, forward.half[order], atol=1e-5, rtol=0)


def test_masks_are_numbered_as_in_the_index(learn):
    forward, backward = learn([0, 1, 2], torch.arange(3)), learn([0, 1, 2], torch.tensor([2, 1, 0]))
    torch.testing.assert_close(backward.half, forward.half.flip(0), atol=1e-5, rtol=0)


def test_class_masks_of_equal_sizes_equal_each_learned_alone(learn, synthetic):
    """Each step has all images of a mask, so that the order within an epoch does not matter."""
    chosen = list(range(12))
    labels = synthetic.validation.labels[chosen]
    spec = replace(IMAGE, batch=4)
    masks = learn(chosen, labels, spec)
    assert masks.half.shape == (3, 16, 9)
    for label in range(3):
        members = [i for i in chosen if labels[i] == label]
        alone = learn(members, torch.zeros(4, dtype=torch.long), spec)
        torch.testing.assert_close(masks.half[label], alone.half[0], atol=1e-5, rtol=0)


def test_one_mask_for_all_images(learn):
    found = learn(list(range(12)), torch.zeros(12, dtype=torch.long), replace(IMAGE, batch=5, epochs=3))
    assert found.half.shape == (1, 16, 9)
    assert found.full().shape == (1, 16, 16)
    assert all(values.shape == (3, 1) for values in found.history.values())
    assert found.epochs.tolist() == [3]


def test_masks_stay_in_the_unit_interval_and_symmetric(learn):
    found = learn([0, 1, 2], torch.arange(3), replace(IMAGE, lr=0.3))
    assert 0 <= found.half.min().item() <= found.half.max().item() <= 1
    torch.testing.assert_close(half_plane(found.full()), found.half, atol=1e-5, rtol=0)


def test_history_holds_shares(learn):
    found = learn(list(range(10)), torch.zeros(10, dtype=torch.long), replace(IMAGE, epochs=5))
    for name in ("l1_share", "kept", "clipped"):
        assert 0 <= found.history[name].min().item() <= found.history[name].max().item() <= 1 + 1e-6
    assert found.history["invariance"].min().item() >= 1 - 1e-6
    assert found.history["l1_share"][-1].item() == pytest.approx(l1_share(found.half, 16).item())


def test_equal_seeds_give_equal_masks_and_the_order_of_images_follows_the_seed(learn):
    args = (list(range(10)), torch.zeros(10, dtype=torch.long), replace(IMAGE, epochs=5))
    first = learn(*args)
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    assert torch.equal(first.half, learn(*args).half)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first.half, learn(*args, seed=1).half)


# ------------------------------------------------------------------------------------------ stopping and resuming

STOPPING = replace(IMAGE, lr=0.1, epochs=120, patience=3, share_tol=1e-3)


def test_converged_masks_stop_while_others_continue(learn):
    count = 8
    found = learn(list(range(count)), torch.arange(count), STOPPING)
    longest = len(found.history["l1_share"])
    assert longest == found.epochs.max().item()
    assert found.epochs.min().item() < longest  # some stopped before others
    for k in range(count):
        stop = int(found.epochs[k])
        shares = found.history["l1_share"][:, k]
        if found.converged[k]:
            assert bool((shares[stop - 1 :] == shares[stop - 1]).all())
            last = shares[stop - STOPPING.patience - 1 : stop]
            assert bool((last.diff().abs() < STOPPING.share_tol).all())
            cut_short = learn(list(range(count)), torch.arange(count), replace(STOPPING, epochs=stop))
            assert torch.equal(found.half[k], cut_short.half[k])
        else:
            assert stop == STOPPING.epochs


def test_the_stop_rule_needs_consecutive_stable_epochs(learn):
    """The rule replayed on the history: an unstable epoch resets the count of stable ones."""
    spec = replace(STOPPING, lr=0.3, share_tol=5e-3)
    found = learn(list(range(8)), torch.arange(8), spec)
    shares = torch.cat((torch.ones(1, 8), found.history["l1_share"]))
    stable = (shares.diff(dim=0).abs() < spec.share_tol) & (found.history["kept"] >= spec.min_accuracy_ratio)
    interrupted = 0
    for k in range(8):
        count, stop = 0, spec.epochs
        for epoch, is_stable in enumerate(stable[:, k].tolist(), 1):
            count = count + 1 if is_stable else 0
            if count == spec.patience:
                stop = epoch
                break
        assert found.epochs[k].item() == stop
        interrupted += int(stable[:stop, k].sum()) > spec.patience
    assert interrupted > 0  # some mask was stable, then unstable, and stopped only later


def test_an_epoch_is_stable_if_share_and_cost_are_and_the_prediction_is_kept():
    objective = Invariance(ImageMaskSpec(share_tol=1e-2, loss_tol=1e-3), torch.Size((1, 16, 16)), torch.ones(4))
    metrics = {"l1_share": [0.5, 0.52, 0.5, 0.5], "kept": [1.0, 1.0, 0.0, 1.0], "invariance": [1.0, 1.0, 1.0, 1.01]}
    metrics = {name: torch.tensor(values) for name, values in metrics.items()}
    earlier, initial_share = {"invariance": torch.ones(4, 1)}, torch.full((4,), 0.5)
    for completed, last in ((1, False), (0, True)):  # the first epoch has no earlier cost to differ from
        epoch = Epoch(torch.arange(4), torch.full((4,), completed), initial_share, metrics, earlier)
        assert objective.is_stable(epoch).tolist() == [True, False, False, last]


def test_a_mask_that_lost_the_prediction_does_not_converge(linear):
    """If a wrong prediction costs next to nothing, the mask becomes empty and stable, but keeps no accuracy."""
    model = linear(torch.stack((torch.zeros(64), torch.ones(64) / 64)), torch.tensor([0.0, -0.01]))
    images = torch.full((1, 1, 8, 8), 0.5)
    spec = MaskSpec(penalty=50.0, lr=0.5, one_cycle=False, epochs=20, patience=2)
    found = learn_masks(model, images, torch.tensor([1]), torch.tensor([0]), spec, seed=0, progress=False)
    assert found.half.max().item() == 0
    assert found.history["kept"][-1].item() == 0
    assert not found.converged.item()
    assert found.epochs.item() == 20


@pytest.fixture
def refilled_every_step(monkeypatch):
    """Refill the batch, and save the state, after every step."""
    monkeypatch.setattr(mask_optimizer, "CHECK_EVERY", 1)


def test_the_interval_between_refills_does_not_change_the_masks(learn, monkeypatch):
    """A mask that stops between two refills stays in the batch until the next, unchanged."""
    found = []
    for every in (1, 20, 1000):
        monkeypatch.setattr(mask_optimizer, "CHECK_EVERY", every)
        found.append(learn(list(range(8)), torch.arange(8), STOPPING))
    assert found[0].epochs.min().item() < found[0].epochs.max().item()
    for other in found[1:]:
        torch.testing.assert_close(other.half, found[0].half, atol=1e-5, rtol=0)
        assert torch.equal(other.epochs, found[0].epochs)
        assert torch.equal(other.converged, found[0].converged)
        for name, values in found[0].history.items():
            torch.testing.assert_close(other.history[name], values, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("refilled_every_step")
@pytest.mark.parametrize("one_cycle", [True, False])
@pytest.mark.parametrize("after", [1, 9])
def test_resumed_masks_equal_uninterrupted_bit_for_bit(learn, memory_checkpoint, one_cycle, after):
    args = (list(range(8)), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]), replace(STOPPING, one_cycle=one_cycle, epochs=20))
    whole = learn(*args)
    checkpoint = memory_checkpoint(interrupt_after=after)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(*args, checkpoint=checkpoint)
    resumed = learn(*args, checkpoint=checkpoint)
    assert checkpoint.saves == len(whole.history["kept"]) - 1  # none after the last epoch
    assert torch.equal(resumed.half, whole.half)
    assert torch.equal(resumed.epochs, whole.epochs)
    assert torch.equal(resumed.converged, whole.converged)
    assert all(torch.equal(resumed.history[name], values) for name, values in whole.history.items())


@pytest.mark.usefixtures("refilled_every_step")
def test_resumed_after_some_have_stopped(learn, memory_checkpoint):
    args = (list(range(8)), torch.arange(8), STOPPING)
    whole = learn(*args)
    first_stop = int(whole.epochs.min())
    assert first_stop < int(whole.epochs.max())
    checkpoint = memory_checkpoint(interrupt_after=first_stop)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn(*args, checkpoint=checkpoint)
    resumed = learn(*args, checkpoint=checkpoint)
    assert torch.equal(resumed.half, whole.half)
    assert torch.equal(resumed.epochs, whole.epochs)


@pytest.mark.usefixtures("refilled_every_step")
def test_state_can_be_saved_by_the_stores_checkpoint(learn, tmp_path):
    path = tmp_path / "state.part"
    args = ([0, 1], torch.arange(2), replace(IMAGE, epochs=4))
    whole = learn(*args, checkpoint=SavedCheckpoint(path, torch.device("cpu"), interval=0))
    resumed = learn(*args, checkpoint=SavedCheckpoint(path, torch.device("cpu"), interval=0))
    assert path.exists()  # a state that cannot be read would have been dropped
    assert torch.equal(resumed.half, whole.half)


# ------------------------------------------------------------------------------------------- known frequencies


@pytest.mark.parametrize("seed", [0, 1])
def test_class_tones_are_recovered_and_distractors_dropped(seed):
    spec = SyntheticSpec(size=24, train=384, validation=96)
    data = make_synthetic(spec, seed)
    model = build(NetworkSpec("tiny_vgg", mean=CENTRE, std=0.14), seed)
    schedule = TrainSpec(epochs=4, batch=32, lr=1e-2, crop=(1.0, 1.0), flip=False)
    train(model, data.train, data.validation, schedule, seed=seed, progress=False)
    images, labels = data.validation.pixels(), data.validation.labels
    one = torch.zeros_like(labels)
    mask = MaskSpec(lr=0.1, batch=24, epochs=30)
    found = learn_masks(model, images, labels, one, mask, seed=seed, centre=CENTRE, progress=False)
    full = found.full()[0]
    tones, distractors = synthetic_tones(spec, seed)
    truth, decoys = tone_mask(tones, spec.size), tone_mask(distractors, spec.size)
    assert ((full * truth).sum() / full.sum()).item() >= 0.99  # precision
    assert ((full * truth).amax(1) > 0.5).sum().item() >= 4  # one class may be recognised by the absence of the others
    assert (full * decoys).max().item() < 0.01
    with torch.no_grad():
        accuracy = (model(apply_mask(images, found.half[0], CENTRE)).argmax(1) == labels).float().mean().item()
    assert accuracy >= 0.99
    assert found.history["clipped"][-1].item() == 0


# ------------------------------------------------------------------------------------- side effects and inputs


def test_model_and_images_are_left_as_they_were(trained, synthetic, snapshot):
    trained(synthetic.validation.pixels(slice(4))).sum().backward()
    trained.train()
    trained.network[2].eval()
    trained.network[0].weight.requires_grad_(False)
    before = snapshot(trained)
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    copy = images.clone()
    spec = replace(IMAGE, epochs=2)
    learn_masks(trained, images, labels, torch.arange(4), spec, seed=0, progress=False)
    assert snapshot(trained) == before
    assert torch.equal(images, copy)


def test_model_is_left_as_it_was_after_an_interruption(trained, synthetic, snapshot, memory_checkpoint):
    trained.train()
    before = snapshot(trained)
    images, labels = synthetic.validation.pixels(slice(2)), synthetic.validation.labels[:2]
    checkpoint = memory_checkpoint(interrupt_after=1)
    with pytest.raises(memory_checkpoint.Interrupted):
        learn_masks(trained, images, labels, torch.arange(2), IMAGE, seed=0, checkpoint=checkpoint, progress=False)
    assert snapshot(trained) == before


@pytest.fixture
def inputs(trained, synthetic):
    return {
        "model": trained,
        "images": synthetic.validation.pixels(slice(6)),
        "labels": synthetic.validation.labels[:6],
        "index": torch.arange(6),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(5, dtype=torch.long)}, "same length"),
        ({"index": torch.zeros(7, dtype=torch.long)}, "same length"),
        ({"index": torch.tensor([0, 0, 1, 1, 3, 3])}, "without gaps"),
        ({"index": torch.tensor([1, 1, 1, 1, 1, 1])}, "without gaps"),
        ({"index": torch.tensor([-1, 0, 0, 0, 1, 1])}, "0..K-1"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0, 1])}, "need 4 classes but the model has 3"),
        ({"model": torch.nn.Conv2d(1, 3, 3)}, "must return logits"),
        ({"images": torch.zeros(6, 3, 16, 16)}, "cannot take images"),
        ({"images": torch.zeros(6, 16, 16)}, r"\(N, C, H, W\)"),
        (
            {"images": torch.zeros(0, 1, 16, 16), "labels": torch.zeros(0).long(), "index": torch.zeros(0).long()},
            "image",
        ),
    ],
    ids=[
        "labels too short",
        "index too long",
        "gap",
        "no mask 0",
        "negative index",
        "too few logits",
        "feature maps",
        "channels",
        "no channels",
        "no images",
    ],
)
def test_inconsistent_inputs_are_refused(inputs, change, message):
    with pytest.raises(FmlibError, match=message):
        learn_masks(**(inputs | change), spec=replace(IMAGE, epochs=1), seed=0, progress=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_pixels_in_any_image_are_refused(inputs, value):
    inputs["images"] = inputs["images"].clone()
    inputs["images"][5, 0, 3, 3] = value
    with pytest.raises(FmlibError, match="pixels"):
        learn_masks(**inputs, spec=IMAGE, seed=0, progress=False)
