"""Every method against a case whose answer is known."""

import math

import pytest
import torch
from torch import nn

from fmlib.core.device import global_rng
from fmlib.core.spectra import radius
from fmlib.studies.freqbench.baselines import amplitude, low_pass, uniform
from fmlib.studies.freqbench.measure import METHODS
from fmlib.studies.freqbench.methods import ffc, gradient_spectrum, greedy, integrated_gradients, random_masks

SIZE = 16
TONE = (3, 2)


def wave(row, column, phase=0.0):
    down, across = torch.arange(SIZE)[:, None], torch.arange(SIZE)[None]
    return torch.cos(2 * math.pi * (row * down + column * across) / SIZE + phase)


class Detector(nn.Module):
    """Two classes: the energy of the image at `TONE` against a constant. Nothing else matters."""

    def forward(self, images):
        amplitude = torch.fft.rfft2(images)[:, 0, TONE[0], TONE[1]].abs() / SIZE
        return torch.stack((4 * amplitude, torch.ones_like(amplitude)), 1)


@pytest.fixture
def images():
    """The tone, weaker than two others, in noise: (2, 1, 16, 16) about gray 0."""
    noise = 0.02 * torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return 0.15 * wave(*TONE) + 0.2 * wave(5, 6) + 0.2 * wave(1, 4, 1.0) + noise


TARGET = torch.zeros(2, dtype=torch.int64)
SEARCHING = ["sequential", "authors", "frequency-maps", "ffc", "gradient", "integrated-gradients", "greedy"]


@pytest.mark.parametrize("name", SEARCHING)
def test_a_method_finds_the_only_frequency_that_matters(name, images):
    method = METHODS[name]
    with global_rng(0, "test"):
        found = method.explain(Detector().eval(), images, TARGET, min(method.budget, 200))
    assert found.shape == (2, SIZE, SIZE)
    best = found.flatten(1).argmax(1)
    tones = {TONE[0] * SIZE + TONE[1], (-TONE[0] % SIZE) * SIZE + (-TONE[1] % SIZE)}
    assert set(best.tolist()) <= tones


def test_random_masks_weigh_by_the_probability(images):
    """The mean of M p over 1/2; with a model that ignores the image, every frequency has the same expected score."""
    with global_rng(0, "test"):
        found = random_masks.explain(Detector(), images, TARGET, 600)
    tone, other = found[:, TONE[0], TONE[1]], found[:, 9, 6]
    assert (tone > other).all()
    constant = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 2))
    nn.init.zeros_(constant[1].weight)
    nn.init.zeros_(constant[1].bias)
    with global_rng(0, "test"):
        flat = random_masks.explain(constant, images, TARGET, 600)
    assert flat.mean().item() == pytest.approx(0.5, abs=0.03)  # p = 1/2, mean(M) = 1/2, over 1/2


def test_the_gradient_is_the_derivative_by_the_mask(images, linear):
    model = linear(torch.randn(2, SIZE * SIZE, generator=torch.Generator().manual_seed(1)))
    found = gradient_spectrum.explain(model, images, TARGET, 1)
    mask = torch.ones(2, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    filtered = torch.fft.ifft2(mask[:, None] * torch.fft.fft2(images.double())).real
    model.double()(filtered).log_softmax(1)[:, 0].sum().backward()
    torch.testing.assert_close(found.double(), mask.grad, atol=1e-5, rtol=1e-4)


def test_integrated_gradients_are_complete(images, linear):
    """They sum to the difference of log p between the image and gray."""
    model = linear(0.1 * torch.randn(2, SIZE * SIZE, generator=torch.Generator().manual_seed(1)))
    found = integrated_gradients.explain(model, images, TARGET, 60)
    both = [model(one).log_softmax(1)[:, 0] for one in (images, torch.zeros_like(images))]
    torch.testing.assert_close(found.sum((1, 2)), both[0] - both[1], atol=1e-3, rtol=1e-3)


def test_fast_fourier_correlation_of_one_step(images, linear, monkeypatch):
    """On a linear model, x' = x + rate (1 - p) (w_0 - w_1); the score is 2 Re(X' conj(X)) / |X| - |X|."""
    monkeypatch.setattr(ffc, "RATE", 0.5)
    weight = torch.randn(2, SIZE * SIZE, generator=torch.Generator().manual_seed(1))
    model = linear(weight)
    away = 1 - model(images).softmax(1)[:, 0]
    moved = images + 0.5 * away[:, None, None, None] * (weight[0] - weight[1]).view(1, 1, SIZE, SIZE)
    before, after = torch.fft.fft2(images)[:, 0], torch.fft.fft2(moved)[:, 0]
    expected = 2 * (after * before.conj()).real / before.abs() - before.abs()
    torch.testing.assert_close(ffc.explain(model, images, TARGET, 1), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(ffc.explain(model, images, TARGET, 0), before.abs(), atol=1e-4, rtol=1e-4)


def test_greedy_removal_ranks_every_frequency(images):
    with global_rng(0, "test"):
        found = greedy.explain(Detector(), images, TARGET, 300)
    pairs = greedy.conjugates(SIZE, SIZE)
    assert int(pairs.max()) + 1 == (SIZE * SIZE + 4) // 2
    assert (found[:, TONE[0], TONE[1]] == 300).all()  # the last to remain


def test_baselines(images):
    assert torch.equal(low_pass.explain(Detector(), images, TARGET, 0)[0], -radius(SIZE, SIZE))
    torch.testing.assert_close(amplitude.explain(Detector(), images, TARGET, 0)[0], torch.fft.fft2(images[0, 0]).abs())
    with global_rng(0, "test"):
        found = uniform.explain(Detector(), images, TARGET, 0)
    assert found.shape == (2, SIZE, SIZE)
    assert found.mean().item() == pytest.approx(0.5, abs=0.05)
