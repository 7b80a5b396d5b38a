"""Training: it learns, it repeats, it resumes, and it stops where it must."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from fmlib.core.augment import REGIMES, Batch
from fmlib.core.config import AttackSpec, JacobianTrainSpec, NetworkSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.device import generator, global_rng
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import correctness
from fmlib.core.jacobian import PENALTIES, jacobian_spectrum
from fmlib.core.models import build
from fmlib.core.training import jacobian_penalty, still_statistics, train
from fmlib.pipeline.store import SavedCheckpoint


def weights_equal(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def small(planted) -> Split:
    """The first 96 training images: three batches of 32 an epoch."""
    return Split(planted.train.images[:96], planted.train.labels[:96])


@pytest.fixture
def run(small, planted, tiny_network, quick_training):
    """Train a fresh network on the small split: returns it and its history."""

    def go(seed=0, weights=0, checkpoint=None, **changes):
        model = build(tiny_network, seed=weights)
        spec = replace(quick_training, **changes)
        return model, train(model, small, planted.validation, spec, seed=seed, checkpoint=checkpoint, progress=False)

    return go


def test_planted_classes_are_learned_in_a_few_epochs(trained, trained_history, planted, quick_training):
    assert len(trained_history) == quick_training.epochs
    assert correctness(trained, planted.validation).float().mean().item() >= 0.99
    assert trained_history[-1]["loss"] < trained_history[0]["loss"] / 10


def test_history_has_losses_and_accuracies(trained_history):
    for row in trained_history:
        assert set(row) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}
        assert min(row["loss"], row["validation_loss"]) > 0
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["validation_accuracy"] <= 1


def test_epoch_of_least_validation_loss_is_kept(small, planted, tiny_network, quick_training):
    """With every validation label wrong, learning raises the validation loss, so the last epoch is not the best."""
    wrong = Split(planted.validation.images, (planted.validation.labels + 1) % 3)
    model = build(tiny_network, seed=0)
    history = train(model, small, wrong, quick_training, seed=0, progress=False)
    losses = [row["validation_loss"] for row in history]
    assert min(losses) < losses[-1]
    with torch.no_grad():
        kept = nn.functional.cross_entropy(model(wrong.pixels()), wrong.labels)
    assert kept.item() == pytest.approx(min(losses), rel=1e-4)
    assert not model.training


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_same_seed_same_network_and_another_seed_another(run, regime):
    changes = {"regime": regime, "epochs": 1, "crop": (0.5, 1.0), "flip": True, "attack": AttackSpec(steps=2)}
    (first, rows), (second, again), (other, _) = run(**changes), run(**changes), run(seed=1, **changes)
    assert weights_equal(first, second)
    assert rows == again
    assert not weights_equal(first, other)


def test_every_epoch_shows_every_image_once_in_another_order(run, small, monkeypatch):
    seen = []
    monkeypatch.setitem(REGIMES, "N", lambda batch: seen.append(batch.images) or batch.images)
    run(epochs=3)
    pixels = small.pixels()
    epochs = [torch.cat(seen[start : start + 3]) for start in (0, 3, 6)]  # three batches an epoch
    orders = [torch.cdist(epoch.flatten(1), pixels.flatten(1)).argmin(1).tolist() for epoch in epochs]
    assert all(sorted(order) == list(range(len(small))) for order in orders)
    assert len({tuple(order) for order in (*orders, range(len(small)))}) == 4


def test_training_ignores_the_global_generator_and_leaves_it_alone(run):
    networks = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        networks.append(run(regime="A", epochs=1, attack=AttackSpec(steps=2))[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert weights_equal(*networks)


@pytest.mark.parametrize("regime", ["N", "A", "R"])
@pytest.mark.parametrize("after", [1, 3])
def test_resumed_training_equals_uninterrupted_bit_for_bit(run, memory_checkpoint, regime, after):
    changes = {"regime": regime, "crop": (0.5, 1.0), "flip": True, "attack": AttackSpec(steps=2)}
    whole, history = run(**changes)
    checkpoint = memory_checkpoint(interrupt_after=after)
    with pytest.raises(memory_checkpoint.Interrupted):
        run(checkpoint=checkpoint, **changes)
    resumed, rows = run(checkpoint=checkpoint, weights=99, **changes)  # other first weights: they must not matter
    assert checkpoint.saves == 4
    assert weights_equal(resumed, whole)
    assert rows == history


def test_saving_does_not_change_the_result(run, memory_checkpoint):
    assert weights_equal(run(checkpoint=memory_checkpoint())[0], run()[0])


def test_state_survives_the_stores_own_checkpoint(run, tmp_path):
    path = tmp_path / "state.part"
    whole, history = run(checkpoint=SavedCheckpoint(path, torch.device("cpu"), interval=0))
    assert path.exists()
    resumed, rows = run(checkpoint=SavedCheckpoint(path, torch.device("cpu"), interval=0), weights=99)
    assert path.exists()  # a state that cannot be read would have been dropped
    assert weights_equal(resumed, whole)
    assert rows == history


def test_loss_that_is_not_finite_stops_the_run(planted, small):
    """Two linear layers: after one step at this rate their product overflows."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 3))
    spec = TrainSpec(epochs=3, batch=32, lr=1e30, crop=(1.0, 1.0))
    with pytest.raises(FmlibError, match=r"not finite in epoch 1 of regime N"):
        train(model, small, planted.validation, spec, seed=0, progress=False)


def test_network_ruined_by_its_last_step_stops_the_run(planted, small):
    """The training loss is finite before the only step; after it, the validation loss is not."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 3))
    spec = TrainSpec(epochs=1, batch=96, lr=1e30, crop=(1.0, 1.0))
    with pytest.raises(FmlibError, match="not finite"):
        train(model, small, planted.validation, spec, seed=0, progress=False)


def test_unknown_regime_is_named_with_the_choices(run):
    with pytest.raises(FmlibError, match=r"'X'.*N, A, S, T, R"):
        run(regime="X")


def test_network_with_too_few_logits_is_refused_before_training(linear, planted, small, quick_training):
    with pytest.raises(FmlibError, match="need 3 classes but the model has 2 logits"):
        train(linear(torch.zeros(2, 256)), small, planted.validation, quick_training, seed=0, progress=False)


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(run):
    _, history = run(batch=1000, epochs=2)
    assert len(history) == 2


@pytest.mark.parametrize(("epochs", "batch", "warmup"), [(10, 96, 0.1), (1, 96, 0.1), (5, 48, 0.1), (2, 96, 0.5)])
def test_any_number_of_steps_can_be_scheduled(run, epochs, batch, warmup):
    """Among them the one whose warm-up is exactly one step long."""
    _, history = run(epochs=epochs, batch=batch, warmup=warmup)
    assert len(history) == epochs


# ----------------------------------------------------------------------------------------------------- regimes


def batch_of(model, split, spec, step=0) -> Batch:
    return Batch(split.pixels(), split.labels, model, spec, generator(0, "regime"), 0, step)


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_regimes_return_pixels_of_the_same_shape(trained, small, regime):
    images = REGIMES[regime](batch_of(trained, small, TrainSpec(regime)))
    assert images.shape == small.images.shape
    assert 0 <= images.min().item() <= images.max().item() <= 1 + 1e-6
    assert not torch.allclose(images, small.pixels(), atol=0.01)


def test_plain_regime_without_crop_and_flip_leaves_the_images(trained, small, quick_training):
    torch.testing.assert_close(
        REGIMES["N"](batch_of(trained, small, quick_training)), small.pixels(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("regime", ["S", "T", "R"])
def test_other_regimes_move_the_images_even_without_crop_and_flip(trained, small, quick_training, regime):
    images = REGIMES[regime](batch_of(trained, small, quick_training))
    moved = (images - small.pixels()).abs().amax((1, 2, 3)) > 0.05
    assert moved.float().mean().item() > 0.9


def test_adversarial_regime_stays_in_the_ball_around_the_plain_one_and_hurts(trained, small, look):
    spec = TrainSpec("A", attack=AttackSpec(0.1, 0.02, 10), flip=True, crop=(0.5, 1.0))
    before = look(trained)
    attacked = REGIMES["A"](batch_of(trained, small, spec))
    plain = REGIMES["N"](batch_of(trained, small, spec))
    assert (attacked - plain).abs().max().item() <= 0.1 + 1e-6
    with torch.no_grad():
        loss = nn.functional.cross_entropy
        assert loss(trained(attacked), small.labels).item() > loss(trained(plain), small.labels).item()
    assert look(trained) == before


def test_attacks_on_a_network_in_training_have_its_precision(trained, small, request):
    """The steps of an attack are most of what adversarial training computes."""
    spec, seen = TrainSpec("A", attack=AttackSpec(steps=3)), []
    trained.network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full = REGIMES["A"](batch_of(trained, small, spec))
    request.getfixturevalue("bfloat16_on_cpu")
    reduced = REGIMES["A"](batch_of(trained, small, spec))
    assert seen == 3 * [torch.float32] + 3 * [torch.bfloat16]
    assert full.dtype == reduced.dtype == torch.float32
    assert (reduced - full).abs().max().item() <= 2 * spec.attack.epsilon + 1e-6


def test_attacks_of_different_steps_start_apart(trained, small):
    spec = TrainSpec("A", crop=(1.0, 1.0), flip=False, attack=AttackSpec(steps=1))
    first, second = (REGIMES["A"](batch_of(trained, small, spec, step)) for step in (0, 1))
    assert not torch.equal(first, second)


def test_fast_regime_moves_every_inner_pixel_by_epsilon(trained, small):
    spec = TrainSpec("F", attack=AttackSpec(0.05), crop=(1.0, 1.0), flip=False)
    change = (REGIMES["F"](batch_of(trained, small, spec)) - small.pixels()).abs()
    inner = (small.pixels() > 0.05) & (small.pixels() < 0.95)
    assert (change[inner] > 0.0499).float().mean().item() > 0.99  # where the gradient is non-zero
    assert change.max().item() <= 0.05 + 1e-5  # the warp's rounding


# ------------------------------------------------------------------------------------- statistics of the Jacobian


@pytest.fixture
def regularised(small, planted, tiny_network, quick_training):
    """Train a fresh network, on the small split unless told, with a statistic of its Jacobian: it and its history."""

    def go(statistic="jafr", weight=0.05, regime="N", data=small, weights=0, checkpoint=None, epochs=4, **changes):
        model = build(tiny_network, seed=weights)
        given = {name: getattr(quick_training, name) for name in ("batch", "lr", "crop", "flip")} | changes
        spec = JacobianTrainSpec(regime, epochs=epochs, statistic=statistic, weight=weight, **given)
        return model, train(model, data, planted.validation, spec, seed=0, checkpoint=checkpoint, progress=False)

    return go


@pytest.mark.parametrize("regime", ["N", "A", "F"])
def test_weight_above_nought_favours_low_frequencies_and_below_it_high_ones(regularised, planted, regime):
    changes = {"regime": regime, "attack": AttackSpec(steps=2), "data": planted.train}
    low, high = (
        jacobian_spectrum(regularised(weight=weight, **changes)[0], planted.validation.batches(96))
        for weight in (0.05, -0.05)
    )
    assert low.statistic > high.statistic + 1
    assert low.low_share > high.low_share


def test_sensitivity_statistics_do_what_they_are_named_for(regularised, planted):
    low, high = (
        jacobian_spectrum(regularised(statistic, 0.5, data=planted.train)[0], planted.validation.batches(96))
        for statistic in ("sensitivity-low", "sensitivity-high")
    )
    assert low.low_share > high.low_share
    assert low.shares[:2].sum() > high.shares[:2].sum()


@pytest.mark.parametrize("regime", ["N", "A"])
def test_a_vanishing_weight_trains_the_plain_network(run, regularised, regime):
    """So the extra pass moves neither batch norm's running statistics nor the draws."""
    changes = {"regime": regime, "epochs": 1, "crop": (0.5, 1.0), "flip": True, "attack": AttackSpec(steps=2)}
    plain, rows = run(**changes)
    faint, again = regularised(weight=1e-30, **changes)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(faint.state_dict()[name], value, msg=name)
    assert again[0] == pytest.approx(rows[0])


@pytest.mark.parametrize("statistic", PENALTIES)
def test_resumed_regularised_training_equals_uninterrupted_bit_for_bit(regularised, memory_checkpoint, statistic):
    changes = {"regime": "A", "crop": (0.5, 1.0), "flip": True, "attack": AttackSpec(steps=2)}
    whole, history = regularised(statistic, **changes)
    checkpoint = memory_checkpoint(interrupt_after=2)
    with pytest.raises(memory_checkpoint.Interrupted):
        regularised(statistic, checkpoint=checkpoint, **changes)
    resumed, rows = regularised(statistic, checkpoint=checkpoint, weights=99, **changes)
    assert weights_equal(resumed, whole)
    assert rows == history


def test_penalty_is_of_the_first_clean_images_though_the_network_sees_attacked_ones(trained, small):
    spec = JacobianTrainSpec("A", crop=(0.5, 1.0), attack=AttackSpec(0.1, 0.05, 2), images=8, weight=0.5)
    batch = batch_of(trained.train(), small, spec)
    REGIMES["A"](batch)
    found = jacobian_penalty(batch, spec)
    pixels = REGIMES["N"](batch_of(trained, small, spec))[:8].requires_grad_()  # the same draws
    with still_statistics(trained):
        loss = nn.functional.cross_entropy(trained(pixels), small.labels[:8], reduction="sum")
    expected = 0.5 * PENALTIES["jafr"](torch.autograd.grad(loss, pixels)[0])
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert found.requires_grad


def test_a_regularised_step_takes_at_most_two_and_a_half_plain_ones():
    """At 64 px, batches of 128; the fastest of several, taken in turns."""
    images, labels = torch.rand(128, 1, 64, 64), torch.arange(128) % 5
    model, spec = build(NetworkSpec("small_vgg"), seed=0).train(), JacobianTrainSpec()
    batch = Batch(images, labels, model, spec, generator(0, "x"), 0, 0)
    batch.clean = images
    took: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(5):
        for regularised, times in took.items():
            start = time.process_time()
            loss = nn.functional.cross_entropy(model(images), labels)
            (loss + jacobian_penalty(batch, spec) if regularised else loss).backward()
            times.append(time.process_time() - start)
    assert min(took[True]) < 2.5 * min(took[False])


def test_penalty_falls_along_its_gradient():
    """One small step down the penalty's own gradient by the weights, in double precision, where it is smooth."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
        images = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    spec = JacobianTrainSpec(weight=1.0)
    batch = Batch(images, torch.arange(6) % 3, model, spec, generator(0, "x"), 0, 0)
    batch.clean = images
    before = jacobian_penalty(batch, spec)
    slopes = torch.autograd.grad(before, list(model.parameters()), allow_unused=True)
    slopes = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), slopes, strict=True)]
    squares = sum(float((slope**2).sum()) for slope in slopes)
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            parameter -= 1e-6 / squares * slope
    assert (before - jacobian_penalty(batch, spec)).item() == pytest.approx(1e-6, rel=1e-3)


def test_still_statistics_go_by_the_batch_and_are_put_back(trained, small, look):
    trained.train()
    before = look(trained)
    with torch.no_grad(), still_statistics(trained):
        still = trained(small.pixels())
    assert look(trained) == before
    with torch.no_grad():
        torch.testing.assert_close(trained(small.pixels()), still)
    assert look(trained) != before


def test_unknown_statistic_is_named_with_the_choices(regularised):
    with pytest.raises(FmlibError, match=r"'jofr'.*jafr, sensitivity-low, sensitivity-high, size"):
        regularised("jofr")


# ------------------------------------------------------------------------------------------------- correctness


def test_correctness_is_the_argmax_rule_in_any_batch_size(trained, planted, look):
    trained.train()
    before = look(trained)
    split = planted.validation
    right = correctness(trained, split, batch=7)
    assert torch.equal(right, correctness(trained, split, batch=1000))
    assert look(trained) == before
    with torch.no_grad():
        assert torch.equal(right, trained.eval()(split.pixels()).argmax(1) == split.labels)


def test_correctness_sees_the_transformed_images(trained, planted):
    split = planted.validation
    plain = correctness(trained, split)
    assert torch.equal(correctness(trained, split, transform=lambda images: images), plain)
    blank = correctness(trained, split, transform=lambda images: torch.full_like(images, 0.5))
    assert blank.float().mean().item() == pytest.approx(1 / 3)  # one answer for all images, and balanced classes


def test_attack_comes_before_the_transform_and_lowers_accuracy(trained, planted):
    split, attack = planted.validation, AttackSpec(0.1, 0.02, 10)
    seen = []
    attacked = correctness(trained, split, transform=lambda x: seen.append(x) or x, attack=attack)
    assert attacked.float().mean().item() < 0.5 < correctness(trained, split).float().mean().item()
    change = (torch.cat(seen) - split.pixels()).abs()
    assert 0.02 < change.max().item() <= 0.1 + 1e-6
    assert torch.equal(attacked, correctness(trained, split, attack=attack))


def test_correctness_wants_no_gradients(trained, planted):
    right = correctness(trained, planted.validation)
    assert right.dtype == torch.bool
    assert right.shape == (len(planted.validation),)
