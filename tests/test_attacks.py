"""PGD: within its ball and within [0, 1], right where the answer is known, repeatable, and without traces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlib.attacks import perturb
from fmlib.config import AttackSpec, FmlibError, NetworkSpec
from fmlib.models import build

ROUNDING = 2 * torch.finfo(torch.float32).eps  # of adding the perturbation to a pixel of at most 1
seeds = st.integers(0, 2**32)


def images_of(seed: int, count: int = 4, size: int = 4) -> torch.Tensor:
    """Pixels in [0, 1], a fifth of them at either end."""
    pixels = 1.5 * torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) - 0.25
    return pixels.clamp(0, 1)


def binary_weights(seed: int, pixels: int) -> torch.Tensor:
    """w of logits (-w x, w x): no entry near nought, and too small to saturate the softmax."""
    draws = torch.Generator().manual_seed(seed)
    sign = torch.randint(0, 2, (pixels,), generator=draws) * 2.0 - 1
    return sign * (0.1 + torch.rand(pixels, generator=draws))


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
    uphill = torch.where(labels == 1, -1.0, 1.0)[:, None] * weight.sign()  # away from the right class
    expected = (images + epsilon * uphill.view(images.shape)).clamp(0, 1)
    torch.testing.assert_close(attacked, expected, atol=ROUNDING, rtol=0)


def test_attack_raises_the_loss_of_a_network(trained, planted):
    images, labels = planted.validation.pixels(), planted.validation.labels
    attacked = perturb(trained, images, labels, AttackSpec(0.1, 0.02, 10), seed=0, purpose="x")
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy
        assert loss(trained(attacked), labels).item() > 10 * loss(trained(images), labels).item()


def test_start_is_random_and_follows_seed_and_purpose(trained, planted):
    images, labels = planted.validation.pixels(slice(4)), planted.validation.labels[:4]
    spec = AttackSpec(steps=2)

    def attack(seed, purpose):
        return perturb(trained, images, labels, spec, seed=seed, purpose=purpose)

    first = attack(0, "a")
    assert torch.equal(first, attack(0, "a"))
    assert not torch.equal(first, attack(1, "a"))
    assert not torch.equal(first, attack(0, "b"))


def test_result_does_not_depend_on_the_global_generator_nor_move_it(trained, planted):
    images, labels = planted.validation.pixels(slice(4)), planted.validation.labels[:4]
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        results.append(perturb(trained, images, labels, AttackSpec(steps=2), seed=0, purpose="a"))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


def test_model_is_left_as_it_was(look):
    model = build(NetworkSpec("tiny_vgg"), seed=0)
    model(torch.rand(2, 1, 16, 16)).sum().backward()
    model.train()
    model.network[2].eval()
    model.network[0].weight.requires_grad_(False)
    before = look(model)
    images = torch.rand(2, 1, 16, 16)
    copy = images.clone()
    perturb(model, images, torch.tensor([0, 1]), AttackSpec(), seed=0, purpose="a")
    assert look(model) == before
    assert torch.equal(images, copy)


def test_model_is_attacked_in_eval_mode():
    """In train mode an image's result would depend on its batch, through batch norm."""
    model = build(NetworkSpec("tiny_vgg"), seed=0)
    images, labels = torch.rand(2, 1, 16, 16), torch.tensor([0, 1])
    from_train = perturb(model.train(), images, labels, AttackSpec(), seed=0, purpose="a")
    from_eval = perturb(model.eval(), images, labels, AttackSpec(), seed=0, purpose="a")
    assert torch.equal(from_train, from_eval)


def test_attack_works_where_gradients_are_off(trained, planted):
    images, labels = planted.validation.pixels(slice(2)), planted.validation.labels[:2]
    with torch.no_grad():
        inside = perturb(trained, images, labels, AttackSpec(), seed=0, purpose="a")
    assert torch.equal(inside, perturb(trained, images, labels, AttackSpec(), seed=0, purpose="a"))


@pytest.mark.parametrize("pixel", [-0.01, 1.01, 255.0, float("nan")])
def test_pixels_outside_the_unit_interval_are_refused(linear, pixel):
    images = images_of(0)
    images[2, 0, 1, 1] = pixel
    with pytest.raises(FmlibError, match=r"\[0, 1\]"):
        perturb(linear(torch.rand(2, 16)), images, torch.tensor([0, 1, 0, 1]), AttackSpec(), seed=0, purpose="a")
