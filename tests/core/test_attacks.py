"""Attacks: valid pixels, PGD and FGSM within their ball, known answers on linear models, and no side effects."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlib.core.attacks import FAMILIES, perturb
from fmlib.core.config import AttackSpec, EvaluationSpec, NetworkSpec, SyntheticSpec, TrainSpec
from fmlib.core.errors import FmlibError
from fmlib.core.models import build
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train

ROUNDING = 2 * torch.finfo(torch.float32).eps  # of adding the perturbation to a pixel of at most 1
seeds = st.integers(0, 2**32)


def images_of(seed: int, count: int = 4, size: int = 4) -> torch.Tensor:
    """Pixels in [0, 1], a fifth of them at either end."""
    pixels = 1.5 * torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) - 0.25
    return pixels.clamp(0, 1)


def binary_weights(seed: int, pixels: int) -> torch.Tensor:
    """w of logits (-w x, w x): no entry near zero, and too small to saturate the softmax."""
    rng = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (pixels,), generator=rng) * 2.0 - 1
    return sign * (0.1 + torch.rand(pixels, generator=rng))


@settings(max_examples=15)
@given(seeds, st.floats(0.001, 0.9), st.floats(0.05, 3), st.integers(1, 6))
def test_result_lies_in_the_ball_and_in_the_unit_interval(linear, seed, epsilon, stride, steps):
    images, weight = images_of(seed), binary_weights(seed, 16)
    spec = AttackSpec(epsilon, epsilon * stride, steps)
    model = linear(torch.stack((-weight, weight)))
    attacked = perturb(model, images, torch.tensor([0, 1, 0, 1]), spec, seed=seed, purpose="ball")
    assert (attacked - images).abs().max().item() <= epsilon + ROUNDING
    assert attacked.min().item() >= 0
    assert attacked.max().item() <= 1
    assert attacked.shape == images.shape
    assert not attacked.requires_grad


@settings(max_examples=15)
@given(seeds, st.floats(0.01, 0.3), st.integers(2, 8))
def test_linear_model_gives_the_analytic_answer(linear, seed, epsilon, steps):
    """From anywhere in the ball, steps of 2 epsilon / n reach x + epsilon * sign(gradient of the loss) in n + 1."""
    images, weight = images_of(seed), binary_weights(seed, 16)
    labels = torch.tensor([0, 1, 1, 0])
    spec = AttackSpec(epsilon, 2 * epsilon / steps, steps + 1)
    attacked = perturb(linear(torch.stack((-weight, weight))), images, labels, spec, seed=seed, purpose="linear")
    uphill = torch.where(labels == 1, -1.0, 1.0)[:, None] * weight.sign()  # away from the label
    expected = (images + epsilon * uphill.view(images.shape)).clamp(0, 1)
    torch.testing.assert_close(attacked, expected, atol=ROUNDING, rtol=0)


def test_attack_raises_the_loss_of_a_network(trained, synthetic):
    images, labels = synthetic.validation.pixels(), synthetic.validation.labels
    attacked = perturb(trained, images, labels, AttackSpec(0.1, 0.02, 10), seed=0, purpose="x")
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy
        assert loss(trained(attacked), labels).item() > 10 * loss(trained(images), labels).item()


def test_start_is_random_and_follows_seed_and_purpose(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    spec = AttackSpec(steps=2)

    def attack(seed, purpose):
        return perturb(trained, images, labels, spec, seed=seed, purpose=purpose)

    first = attack(0, "a")
    assert torch.equal(first, attack(0, "a"))
    assert not torch.equal(first, attack(1, "a"))
    assert not torch.equal(first, attack(0, "b"))


def test_result_does_not_depend_on_the_global_generator_nor_move_it(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        results.append(perturb(trained, images, labels, AttackSpec(steps=2), seed=0, purpose="a"))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


@pytest.mark.parametrize("family", FAMILIES)
def test_model_is_left_as_it_was(snapshot, family):
    model = build(NetworkSpec("tiny_vgg"), seed=0)
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    model.train()
    model.network[2].eval()
    model.network[0].weight.requires_grad_(False)
    before = snapshot(model)
    images = torch.rand(2, 1, 16, 16)
    copy = images.clone()
    spec = EvaluationSpec(steps=5, restarts=2, queries=20)
    perturb(model, images, torch.tensor([0, 1]), spec, seed=0, purpose="a", family=family)
    assert snapshot(model) == before
    assert torch.equal(images, copy)


def test_model_is_attacked_in_eval_mode():
    """In train mode an image's result would depend on its batch, through batch norm."""
    model = build(NetworkSpec("tiny_vgg"), seed=0)
    images, labels = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    from_train = perturb(model.train(), images, labels, AttackSpec(), seed=0, purpose="a")
    from_eval = perturb(model.eval(), images, labels, AttackSpec(), seed=0, purpose="a")
    assert torch.equal(from_train, from_eval)


def test_attack_works_under_no_grad(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(2)), synthetic.validation.labels[:2]
    with torch.no_grad():
        inside = perturb(trained, images, labels, AttackSpec(), seed=0, purpose="a")
    assert torch.equal(inside, perturb(trained, images, labels, AttackSpec(), seed=0, purpose="a"))


@pytest.mark.parametrize("pixel", [-0.01, 1.01, 255.0, float("nan")])
def test_pixels_outside_the_unit_interval_are_refused(linear, pixel):
    images = images_of(0)
    images[2, 0, 1, 1] = pixel
    with pytest.raises(FmlibError, match=r"\[0, 1\]"):
        perturb(linear(torch.rand(2, 16)), images, torch.tensor([0, 1, 0, 1]), AttackSpec(), seed=0, purpose="a")


# -------------------------------------------------------------------------------------- other attack families


@settings(max_examples=8)
@given(seeds)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_stays_in_the_unit_interval(linear, family, seed):
    """The pixels include 0 and 1, whose inverse tanh, the variable of CW, is infinite."""
    images, weight = images_of(seed), binary_weights(seed, 16)
    model = linear(torch.stack((-weight, weight)))
    spec = EvaluationSpec(0.3, 0.1, 5, restarts=2, queries=20)
    attacked = perturb(model, images, torch.tensor([0, 1, 0, 1]), spec, seed=seed, purpose="range", family=family)
    assert attacked.shape == images.shape
    assert attacked.min().item() >= 0  # nan is not
    assert attacked.max().item() <= 1
    assert not attacked.requires_grad


@settings(max_examples=15)
@given(seeds, st.floats(0.001, 0.9))
def test_fgsm_on_a_linear_model_is_one_step_of_epsilon_along_the_sign_of_the_gradient(linear, seed, epsilon):
    images, weight = images_of(seed), binary_weights(seed, 16)
    labels = torch.tensor([0, 1, 1, 0])
    model = linear(torch.stack((-weight, weight)))
    attacked = perturb(model, images, labels, AttackSpec(epsilon), seed=seed, purpose="linear", family="FGSM")
    uphill = torch.where(labels == 1, -1.0, 1.0)[:, None] * weight.sign()
    expected = (images + epsilon * uphill.view(images.shape)).clamp(0, 1)
    torch.testing.assert_close(attacked, expected, atol=ROUNDING, rtol=0)


def test_fgsm_stays_within_epsilon_of_a_networks_images_and_reaches_it(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(16)), synthetic.validation.labels[:16]
    change = perturb(trained, images, labels, AttackSpec(0.05), seed=0, purpose="a", family="FGSM") - images
    assert change.abs().max().item() == pytest.approx(0.05, abs=ROUNDING)


@settings(max_examples=15)
@given(seeds)
def test_deepfool_on_a_linear_model_overshoots_the_nearest_point_of_the_decision_boundary(linear, seed):
    images = 0.4 + 0.2 * torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    weight = binary_weights(seed, 16)
    bias = torch.stack((weight.sum(), -weight.sum())) / 2  # the decision boundary passes through gray
    model = linear(torch.stack((-weight, weight)), bias)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(1)
    labels[0] = 1 - labels[0]  # one that is misclassified to begin with
    attacked = perturb(model, images, labels, AttackSpec(), seed=seed, purpose="linear", family="DeepFool")
    margin = logits[:, 1] - logits[:, 0]
    step = -1.02 * margin[:, None] * (2 * weight) / (2 * weight).square().sum()  # the overshoot is 2%
    expected = images + step.view(images.shape)
    expected[0] = images[0]
    torch.testing.assert_close(attacked, expected, atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(seeds)
def test_fab_on_a_linear_model_overshoots_the_decision_boundary_slightly_in_every_pixel(linear, seed):
    """The smallest l-infinity distance to the boundary is the margin divided by the l1 norm of its gradient."""
    images = 0.4 + 0.2 * torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    weight = binary_weights(seed, 16)
    model = linear(torch.stack((-weight, weight)), torch.stack((weight.sum(), -weight.sum())) / 2)
    with torch.no_grad():
        logits = model(images)
    labels = logits.argmax(1)
    labels[0] = 1 - labels[0]  # one that is misclassified to begin with
    attacked = perturb(model, images, labels, AttackSpec(), seed=seed, purpose="linear", family="FAB")
    with torch.no_grad():
        assert (model(attacked).argmax(1) != labels).all()
    smallest = (logits[:, 1] - logits[:, 0]).abs() / (2 * weight).abs().sum()
    distance = (attacked - images).abs().amax((1, 2, 3))
    assert distance[0] == 0
    assert (distance[1:] >= smallest[1:] - ROUNDING).all()
    assert (distance[1:] <= 1.1 * smallest[1:] + 1e-5).all()


def test_fab_fools_a_network_with_smaller_changes_than_pgd(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(32)), synthetic.validation.labels[:32]
    results = {
        (family, seed): perturb(trained, images, labels, AttackSpec(0.1), seed=seed, purpose="a", family=family)
        for family, seed in (("PGD", 0), ("FAB", 0), ("FAB", 1))
    }
    with torch.no_grad():
        correct = trained.eval()(images).argmax(1) == labels
        fooled = trained(results["FAB", 0]).argmax(1) != labels
    assert correct.float().mean().item() > 0.9
    assert fooled.float().mean().item() > 0.9
    distances = {key: (attacked - images).abs().amax((1, 2, 3)) for key, attacked in results.items()}
    assert 0 < distances["FAB", 0][correct & fooled].mean() < distances["PGD", 0][correct & fooled].mean()
    assert torch.equal(results["FAB", 0], results["FAB", 1])  # FAB is deterministic
    assert torch.equal(results["FAB", 0][~fooled], images[~fooled])


@pytest.mark.parametrize("family", ["DeepFool", "CW"])
def test_minimum_distance_attacks_fool_a_network_with_smaller_changes_than_fgsm(trained, synthetic, family):
    images, labels = synthetic.validation.pixels(slice(32)), synthetic.validation.labels[:32]

    def attack(family):
        attacked = perturb(trained, images, labels, AttackSpec(0.1), seed=0, purpose="a", family=family)
        with torch.no_grad():
            wrong = trained.eval()(attacked).argmax(1) != labels
        return wrong.float().mean().item(), (attacked - images).flatten(1).norm(dim=1).median().item()

    with torch.no_grad():
        assert (trained.eval()(images).argmax(1) == labels).float().mean().item() > 0.9
    fooled, distance = attack(family)
    assert fooled > 0.5
    assert 0 < distance < attack("FGSM")[1]


def test_an_unknown_family_is_refused_and_the_choices_named(linear):
    with pytest.raises(FmlibError, match=r"'JSMA'.*PGD, FGSM, DeepFool, CW, AutoAttack, Square"):
        perturb(
            linear(torch.rand(2, 16)),
            images_of(0),
            torch.tensor([0, 1, 0, 1]),
            AttackSpec(),
            seed=0,
            purpose="a",
            family="JSMA",
        )


# ------------------------------------------------------------------------------------------- evaluating robustness


@pytest.fixture(scope="module", params=[3, 5])
def robust_network(request):
    """An adversarially trained network of 3 or 5 classes, robust to some attacks but not all, images and labels."""
    classes = request.param
    data = make_synthetic(SyntheticSpec(size=16, classes=classes, distractors=2, train=384, validation=60))
    model = build(NetworkSpec("tiny_vgg", classes=classes, mean=0.5, std=0.14), seed=0)
    schedule = TrainSpec(
        "A", epochs=4, batch=32, lr=1e-2, crop=(1.0, 1.0), flip=False, attack=AttackSpec(0.06, 0.03, 3)
    )
    train(model, data.train, data.validation, schedule, seed=0, progress=False)
    return model, data.validation.pixels(), data.validation.labels


def robust_images(robust_network, family, spec):
    model, images, labels = robust_network
    attacked = perturb(model, images, labels, spec, seed=0, purpose="x", family=family)
    assert (attacked - images).abs().max().item() <= spec.epsilon + ROUNDING
    with torch.no_grad():
        return model(attacked).argmax(1) == labels


def test_more_restarts_fool_all_images_that_fewer_fool_and_others(robust_network):
    one, two, eight = (
        robust_images(robust_network, "PGD", EvaluationSpec(0.04, 0.04, 1, restarts=n)) for n in (1, 2, 8)
    )
    assert not bool((two & ~one).any())
    assert not bool((eight & ~two).any())
    assert 0 < eight.sum().item() < one.sum().item()


def test_a_robust_image_is_attacked_as_often_as_the_spec_says(robust_network, monkeypatch):
    model, images, labels = robust_network
    sizes, original = [], torchattacks.PGD.forward
    monkeypatch.setattr(
        torchattacks.PGD, "forward", lambda self, *batch: sizes.append(len(batch[0])) or original(self, *batch)
    )
    perturb(model, images, labels, EvaluationSpec(1e-6, 1e-6, 1, restarts=4), seed=0, purpose="x")
    with torch.no_grad():
        correct = (model(images).argmax(1) == labels).sum().item()
    assert sizes == [len(images), correct, correct, correct]


def test_one_start_equals_the_attack_without_restarts(robust_network):
    model, images, labels = robust_network
    specs = AttackSpec(0.04, 0.01, 5), EvaluationSpec(0.04, 0.01, 5, restarts=1)
    assert torch.equal(*(perturb(model, images, labels, spec, seed=0, purpose="x") for spec in specs))


def test_images_that_are_robust_to_every_restart_are_returned_unchanged(robust_network):
    model, images, labels = robust_network
    spec = EvaluationSpec(0.02, 0.005, 5, restarts=3)
    attacked = perturb(model, images, labels, spec, seed=0, purpose="x")
    robust = robust_images(robust_network, "PGD", spec)
    assert bool(robust.any())
    assert torch.equal(attacked[robust], images[robust])


@pytest.mark.parametrize("epsilon", [0.02, 0.04])
def test_autoattack_is_at_least_as_strong_as_pgd_and_square(robust_network, epsilon):
    strong = EvaluationSpec(epsilon, epsilon / 4, 20, restarts=5, queries=200)
    robust = {
        family: robust_images(robust_network, family, strong).sum().item() for family in ("PGD", "AutoAttack", "Square")
    }
    assert robust["AutoAttack"] <= robust["PGD"]
    assert robust["AutoAttack"] <= robust["Square"]


def test_autoattack_and_square_follow_the_seed_not_the_clock(robust_network):
    model, images, labels = robust_network
    spec = EvaluationSpec(0.04, 0.01, 5, queries=20)
    for family in ("AutoAttack", "Square"):
        first, again, other = (
            perturb(model, images, labels, spec, seed=seed, purpose="x", family=family) for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_autoattack_targets_every_other_class(monkeypatch):
    """Targeted APGD runs with at least four classes, targeted FAB always; Square has the spec's queries."""
    built = {}

    def record(name):
        original = getattr(torchattacks, name)

        def build(*arguments, **options):
            built[name] = options
            return original(*arguments, **options)

        return build

    for name in ("APGDT", "FAB", "Square"):
        monkeypatch.setattr(torchattacks, name, record(name))
    for classes in (2, 3, 4, 5):
        built.clear()
        model = build(NetworkSpec("tiny_vgg", classes=classes), seed=0)
        spec = EvaluationSpec(0.01, 0.01, 2, queries=3)
        perturb(model, images_of(0, 2, 16), torch.tensor([0, 1]), spec, seed=0, purpose="x", family="AutoAttack")
        assert ("APGDT" in built) == (classes >= 4)
        assert {options.get("n_classes", classes) for options in built.values()} == {classes}
        assert built["FAB"]["multi_targeted"]
        assert built["Square"]["n_queries"] == 3


def test_square_finds_what_masked_gradients_hide(linear):
    """Rounded logits have no gradient: PGD fails, Square does not, and AutoAttack includes Square."""

    class Rounded(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = self.network(images)
            return (50 * logits).round() / 50 + 0 * logits

    images, weight = images_of(0, 40), binary_weights(0, 16)
    model = Rounded(linear(torch.stack((-weight, weight)), torch.stack((weight.sum(), -weight.sum())) / 2))
    with torch.no_grad():
        labels = model(images).argmax(1)
    found = {
        family: robust_images((model, images, labels), family, EvaluationSpec(0.1, 0.02, 10, restarts=3, queries=200))
        for family in ("PGD", "Square", "AutoAttack")
    }
    assert found["Square"].sum() < found["PGD"].sum() - 3
    assert found["AutoAttack"].sum() <= found["Square"].sum()
