"""Training learns, is repeatable, resumes, and stops at values that are not finite."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fmlib.core.augment import REGIMES, Batch
from fmlib.core.config import AttackSpec, JacobianTrainSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.device import generator, global_rng
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import correctness
from fmlib.core.jacobian import PENALTIES, jacobian_spectrum
from fmlib.core.models import build
from fmlib.core.training import fixed_running_statistics, jacobian_penalty, train
from fmlib.pipeline.store import SavedCheckpoint


def weights_equal(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def small(synthetic) -> Split:
    """The first 96 training images: three batches of 32 an epoch."""
    return Split(synthetic.train.images[:96], synthetic.train.labels[:96])


@pytest.fixture
def run(small, synthetic, tiny_network, quick_training):
    """Train a fresh network on the small split: returns it and its history."""

    def go(seed=0, weights=0, checkpoint=None, **changes):
        model = build(tiny_network, seed=weights)
        spec = replace(quick_training, **changes)
        return model, train(model, small, synthetic.validation, spec, seed=seed, checkpoint=checkpoint, progress=False)

    return go


def test_synthetic_classes_are_learned_in_a_few_epochs(trained, trained_history, synthetic, quick_training):
    assert len(trained_history) == quick_training.epochs
    assert correctness(trained, synthetic.validation).float().mean().item() >= 0.99
    assert trained_history[-1]["loss"] < trained_history[0]["loss"] / 10


def test_history_has_losses_and_accuracies(trained_history):
    for row in trained_history:
        assert set(row) == {"loss", "accuracy", "validation_loss", "validation_accuracy"}
        assert min(row["loss"], row["validation_loss"]) > 0
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["validation_accuracy"] <= 1


def test_the_weights_with_the_lowest_validation_loss_are_kept(small, synthetic, tiny_network, quick_training):
    """With every validation label wrong, learning raises the validation loss, so the last epoch is not the best."""
    wrong = Split(synthetic.validation.images, (synthetic.validation.labels + 1) % 3)
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
    record = REGIMES["N"]._replace(augment=lambda batch: seen.append(batch.images) or batch.images)
    monkeypatch.setitem(REGIMES, "N", record)
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


def test_loss_that_is_not_finite_stops_the_run(synthetic, small):
    """Two linear layers: after one step at this rate their product overflows."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 3))
    spec = TrainSpec(epochs=3, batch=32, lr=1e30, crop=(1.0, 1.0))
    with pytest.raises(FmlibError, match=r"not finite in epoch 1 of regime N"):
        train(model, small, synthetic.validation, spec, seed=0, progress=False)


def test_network_ruined_by_its_last_step_stops_the_run(synthetic, small):
    """The training loss is finite before the only step; after it, the validation loss is not."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.Linear(8, 3))
    spec = TrainSpec(epochs=1, batch=96, lr=1e30, crop=(1.0, 1.0))
    with pytest.raises(FmlibError, match="not finite"):
        train(model, small, synthetic.validation, spec, seed=0, progress=False)


def test_unknown_regime_is_named_with_the_choices(run):
    with pytest.raises(FmlibError, match=r"'X'.*N, A, S, T, R"):
        run(regime="X")


def test_network_with_too_few_logits_is_refused_before_training(linear, synthetic, small, quick_training):
    with pytest.raises(FmlibError, match="need 3 classes but the model has 2 logits"):
        train(linear(torch.zeros(2, 256)), small, synthetic.validation, quick_training, seed=0, progress=False)


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(run):
    _, history = run(batch=1000, epochs=2)
    assert len(history) == 2


@pytest.mark.parametrize(("epochs", "batch", "warmup"), [(10, 96, 0.1), (1, 96, 0.1), (5, 48, 0.1), (2, 96, 0.5)])
def test_any_number_of_steps_can_be_scheduled(run, epochs, batch, warmup):
    """Among them the one whose warm-up is exactly one step long."""
    _, history = run(epochs=epochs, batch=batch, warmup=warmup)
    assert len(history) == epochs


# ------------------------------------------------------------------------------------- statistics of the Jacobian


@pytest.fixture
def regularised(small, synthetic, tiny_network, quick_training):
    """Train a fresh network, on the small split by default, with a statistic of its Jacobian: it and its history."""

    def go(statistic="jafr", weight=0.05, regime="N", data=small, weights=0, checkpoint=None, epochs=4, **changes):
        model = build(tiny_network, seed=weights)
        given = {name: getattr(quick_training, name) for name in ("batch", "lr", "crop", "flip")} | changes
        spec = JacobianTrainSpec(regime, epochs=epochs, statistic=statistic, weight=weight, **given)
        return model, train(model, data, synthetic.validation, spec, seed=0, checkpoint=checkpoint, progress=False)

    return go


@pytest.mark.parametrize("regime", ["N", "A", "F"])
def test_positive_weights_favour_low_frequencies_and_negative_ones_high(regularised, synthetic, regime):
    changes = {"regime": regime, "attack": AttackSpec(steps=2), "data": synthetic.train}
    low, high = (
        jacobian_spectrum(regularised(weight=weight, **changes)[0], synthetic.validation.batches(96))
        for weight in (0.05, -0.05)
    )
    assert low.statistic > high.statistic + 1
    assert low.low_share > high.low_share


def test_sensitivity_statistics_favour_the_band_in_their_name(regularised, synthetic):
    low, high = (
        jacobian_spectrum(regularised(statistic, 0.5, data=synthetic.train)[0], synthetic.validation.batches(96))
        for statistic in ("sensitivity-low", "sensitivity-high")
    )
    assert low.low_share > high.low_share
    assert low.shares[:2].sum() > high.shares[:2].sum()


@pytest.mark.parametrize("regime", ["N", "A"])
def test_a_tiny_weight_gives_the_network_without_regularisation(run, regularised, regime):
    """The extra pass changes neither batch norm's running statistics nor the random numbers."""
    changes = {"regime": regime, "epochs": 1, "crop": (0.5, 1.0), "flip": True, "attack": AttackSpec(steps=2)}
    expected, rows = run(**changes)
    regular, again = regularised(weight=1e-30, **changes)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(regular.state_dict()[name], value, msg=name)
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


def batch_of(model, split, spec) -> Batch:
    return Batch(split.pixels(), split.labels, model, spec, generator(0, "regime"), 0, 0)


def test_penalty_is_of_the_first_clean_images_in_adversarial_training_too(trained, small):
    spec = JacobianTrainSpec("A", crop=(0.5, 1.0), attack=AttackSpec(0.1, 0.05, 2), images=8, weight=0.5)
    batch = batch_of(trained.train(), small, spec)
    REGIMES["A"].augment(batch)
    penalty = jacobian_penalty(batch, spec)
    pixels = REGIMES["N"].augment(batch_of(trained, small, spec))[:8].requires_grad_()  # the same random maps
    with fixed_running_statistics(trained):
        loss = nn.functional.cross_entropy(trained(pixels), small.labels[:8], reduction="sum")
    expected = 0.5 * PENALTIES["jafr"](torch.autograd.grad(loss, pixels)[0])
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    assert penalty.requires_grad


def test_penalty_costs_one_pass_of_its_images(trained, small):
    """The images of the batch pass through the network once, and those of the penalty once more."""
    spec, seen = JacobianTrainSpec(images=8), []
    batch = batch_of(trained.train(), small, spec)
    images = REGIMES["N"].augment(batch)
    trained.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    loss = nn.functional.cross_entropy(trained(images), small.labels)
    (loss + jacobian_penalty(batch, spec)).backward()
    assert seen == [len(small), 8]


def test_penalty_falls_along_its_gradient():
    """A small gradient step on the weights lowers the penalty as predicted; double precision makes it smooth."""
    with global_rng(0, "weights"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
        images = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    spec = JacobianTrainSpec(weight=1.0)
    batch = Batch(images, torch.arange(6) % 3, model, spec, generator(0, "x"), 0, 0)
    batch.clean = images
    before = jacobian_penalty(batch, spec)
    gradients = torch.autograd.grad(before, list(model.parameters()), allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), gradients, strict=True)]
    squares = sum(float((gradient**2).sum()) for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= 1e-6 / squares * gradient
    assert (before - jacobian_penalty(batch, spec)).item() == pytest.approx(1e-6, rel=1e-3)


def test_fixed_running_statistics_normalise_by_the_batch_and_are_restored(trained, small, snapshot):
    trained.train()
    before = snapshot(trained)
    with torch.no_grad(), fixed_running_statistics(trained):
        inside = trained(small.pixels())
    assert snapshot(trained) == before
    with torch.no_grad():
        torch.testing.assert_close(trained(small.pixels()), inside)
    assert snapshot(trained) != before


def test_unknown_statistic_is_named_with_the_choices(regularised):
    with pytest.raises(FmlibError, match=r"'jofr'.*jafr, sensitivity-low, sensitivity-high, jacobian_norm"):
        regularised("jofr")
