"""The Jacobian's spectrum and its statistics, on spectra with known answers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from fmlib.core.config import NetworkSpec
from fmlib.core.jacobian import (
    FLOOR,
    PENALTIES,
    input_gradients,
    jacobian_spectrum,
    jafr_statistic,
    power_share,
    radial_shares,
    squared_norm,
)
from fmlib.core.models import build
from fmlib.core.spectra import full_plane, low_share, radius

SIZE = 16
N = SIZE // 2 + 1
seeds = st.integers(0, 2**32)


def spectrum(seed: int, tilt: float = 0.0) -> torch.Tensor:
    """A positive half plane (SIZE, N) in double precision that decreases (tilt > 0) or increases with radius."""
    noise = torch.rand(SIZE, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1 + noise) * torch.exp(-tilt * radius(SIZE, SIZE)[:, :N].double())


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------- the statistic


@given(st.floats(1e-6, 1e6))
def test_a_flat_spectrum_gives_the_logarithm_of_the_number_of_rows_and_columns(level):
    flat = torch.full((SIZE, N), level, dtype=torch.float64)
    surplus = N * FLOOR * math.log(level + FLOOR)  # from the constant added to the exponents
    assert jafr_statistic(flat).item() == pytest.approx(math.log(2 * N) + surplus, abs=1e-12)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_flat_spectrum_of_level_one_is_exact(size):
    flat = torch.full((size, size // 2 + 1), 1 - FLOOR, dtype=torch.float64)
    assert jafr_statistic(flat).item() == pytest.approx(math.log(2 * (size // 2 + 1)), abs=1e-14)


def test_a_flat_spectrum_of_the_published_size_gives_the_published_value():
    assert jafr_statistic(torch.ones(32, 17)).item() == pytest.approx(3.526, abs=5e-4)


@given(seeds, st.floats(1e-2, 1e6))
def test_scale_changes_s_only_by_the_constant_added_to_the_exponents(seed, factor):
    """A spectrum of 1 to 2 lies so far above 1e-5 that adding 1e-5 to it changes S by less than 1e-4 / factor."""
    whole = spectrum(seed)
    change = (jafr_statistic(factor * whole) - jafr_statistic(whole)).item()
    added = sum(abs(p) for p in torch.linspace(1, -1, N).tolist()) * FLOOR * max(1 / factor, 1)
    assert change == pytest.approx(N * FLOOR * math.log(factor), abs=added)


@given(seeds)
def test_s_equals_the_formula_where_that_does_not_overflow(seed):
    whole = spectrum(seed, 0.1)
    quadrant, powers = whole[:N] + FLOOR, torch.linspace(1, -1, N, dtype=torch.float64) + FLOOR
    formula = ((quadrant**powers).prod(1).sum() + (quadrant ** powers[:, None]).prod(0).sum()).log()
    torch.testing.assert_close(jafr_statistic(whole), formula, atol=1e-10, rtol=1e-10)


@given(seeds, st.floats(-60, 37))
def test_s_and_its_gradient_are_finite_for_finite_spectra(seed, exponent):
    wild = (torch.rand(SIZE, N, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent).requires_grad_()
    value = jafr_statistic(wild)
    value.backward()
    assert math.isfinite(value.item())
    assert bool(torch.isfinite(wild.grad).all())


def test_s_is_finite_for_a_spectrum_of_zeros_and_for_spectra_that_overflow_the_formula():
    steep = torch.ones(SIZE, N)
    steep[:, : N // 2] = torch.finfo(torch.float32).max
    assert math.isfinite(jafr_statistic(torch.zeros(SIZE, N)).item())
    for whole in (steep, steep.flip(1)):
        assert math.isfinite(jafr_statistic(whole).item())


@given(seeds)
def test_s_decreases_from_low_to_flat_to_high_frequency_spectra(seed):
    low, flat, high = (jafr_statistic(spectrum(seed, tilt)).item() for tilt in (0.5, 0.0, -0.5))
    assert low > flat + 1
    assert flat > high + 1


def test_the_gradient_of_s_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(jafr_statistic, spectrum(0, 0.1).requires_grad_())


@pytest.mark.parametrize("statistic", PENALTIES)
def test_gradients_of_the_penalties_agree_with_finite_differences(statistic):
    gradients = noise(0, 3, 2, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(PENALTIES[statistic], gradients)


@pytest.mark.parametrize("statistic", PENALTIES)
def test_penalties_of_zero_gradients_and_their_gradients_are_finite(statistic):
    gradients = torch.zeros(2, 1, 8, 8, requires_grad=True)
    penalty = PENALTIES[statistic](gradients)
    penalty.backward()
    assert math.isfinite(penalty.item())
    assert bool(torch.isfinite(gradients.grad).all())


# -------------------------------------------------------------------------------------------------- radial shares


def wave(row: int, column: int) -> torch.Tensor:
    """One image (1, 1, SIZE, SIZE) of one frequency."""
    half = torch.zeros(SIZE, N, dtype=torch.complex64)
    half[row, column] = 1j
    return torch.fft.irfft2(half, s=(SIZE, SIZE))[None, None]


@pytest.mark.parametrize(("row", "column", "ring"), [(0, 1, 1), (3, 4, 5), (-3, 4, 5), (-5, 5, 7), (0, 7, 7)])
def test_one_frequency_has_all_its_power_in_its_ring_for_any_mean(row, column, ring):
    shares = radial_shares(wave(row, column) + 5.0)
    assert shares[0, ring - 1].item() == pytest.approx(1, abs=1e-5)


@given(seeds)
def test_shares_sum_to_one_and_do_not_depend_on_scale(seed):
    gradients = noise(seed, 3, 2, SIZE, SIZE)
    shares = radial_shares(gradients)
    torch.testing.assert_close(shares.sum(1), torch.ones(3))
    torch.testing.assert_close(radial_shares(1e-6 * gradients), shares, rtol=1e-4, atol=1e-6)


def test_shares_of_white_noise_equal_the_shares_of_frequencies():
    expected = radius(SIZE, SIZE).round().long().flatten().bincount()[1:] / (SIZE**2 - 1)
    torch.testing.assert_close(radial_shares(noise(0, 4000, 1, SIZE, SIZE)).mean(0), expected, rtol=0.02, atol=0)


def test_power_share_includes_its_lower_bound_and_excludes_its_upper_one():
    """At 16 px a ring of radius 4 is a quarter of the width."""
    image = wave(0, 4)
    assert power_share(image, low=0.25).item() == pytest.approx(1)
    assert power_share(image, high=0.25).item() == pytest.approx(0)
    assert power_share(image, low=0.2, high=0.3).item() == pytest.approx(1)


def test_squared_norm_is_a_mean_over_images_and_quadratic():
    gradients = torch.stack((torch.zeros(2, 4, 4), torch.ones(2, 4, 4)))
    assert squared_norm(gradients).item() == 16
    assert squared_norm(3 * gradients).item() == 144


def test_sensitivity_penalties_act_on_the_frequencies_that_their_name_does_not_say():
    low, high = wave(0, 1), wave(7, 7)
    assert PENALTIES["sensitivity-low"](low).item() == pytest.approx(0)
    assert PENALTIES["sensitivity-low"](high).item() == pytest.approx(1)
    assert PENALTIES["sensitivity-high"](low).item() == pytest.approx(1)
    assert PENALTIES["sensitivity-high"](high).item() == pytest.approx(0)


# ----------------------------------------------------------------------------------------------- input gradients


def test_gradients_are_those_of_each_images_own_loss(trained, synthetic):
    images, labels = synthetic.validation.pixels(slice(4)), synthetic.validation.labels[:4]
    gradients = input_gradients(trained, images, labels)
    for index in range(4):
        pixels = images[index : index + 1].clone().requires_grad_()
        cross_entropy(trained(pixels), labels[index : index + 1]).backward()
        torch.testing.assert_close(gradients[index], pixels.grad[0], rtol=1e-4, atol=1e-6)


def test_input_gradients_leave_model_and_images_unchanged_and_work_under_no_grad(snapshot):
    model = build(NetworkSpec("tiny_vgg"), seed=0).train()
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before = snapshot(model)
    with torch.no_grad():
        gradients = input_gradients(model, images, torch.arange(4))
    assert snapshot(model) == before
    assert not images.requires_grad
    assert not gradients.requires_grad


def test_spectrum_does_not_depend_on_the_batches(trained, synthetic):
    split = synthetic.validation
    whole, parts = (jacobian_spectrum(trained, split.batches(size)) for size in (96, 36))
    torch.testing.assert_close(whole.amplitude, parts.amplitude, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.shares, parts.shares, rtol=1e-4, atol=1e-6)
    assert whole.low_share == pytest.approx(parts.low_share, rel=1e-4)
    gradients = input_gradients(trained, split.pixels(), split.labels)
    expected = torch.fft.rfft2(gradients).abs().mean((0, 1))
    torch.testing.assert_close(whole.amplitude, expected)
    assert whole.low_share == pytest.approx(low_share(full_plane(expected, 16)).item())
    assert whole.statistic == pytest.approx(jafr_statistic(expected).item())


@pytest.mark.parametrize(("row", "column"), [(1, 0), (2, 2), (8, 8)])
def test_gradients_of_a_network_that_reads_one_frequency_have_that_frequency(linear, row, column, random_split):
    waves = torch.fft.irfft2(torch.eye(16 * 9)[row * 9 + column].view(16, 9).to(torch.complex64), s=(16, 16)).flatten()
    found = jacobian_spectrum(linear(torch.stack((-waves, waves))), random_split(classes=2).batches(3))
    strongest = full_plane(found.amplitude, 16)
    assert strongest.argmax().item() in (row * 16 + column, (-row % 16) * 16 + (-column % 16))
    inside = radius(16, 16)[row, column] < radius(16, 16).max() / 3
    assert found.low_share == pytest.approx(float(inside), abs=1e-4)
