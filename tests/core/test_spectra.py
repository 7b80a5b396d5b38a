"""Properties of filters, half planes and band energies."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core import spectra
from fmlib.core.augment import warp
from fmlib.core.errors import FmlibError

sides = st.integers(2, 12)
odd_sides = st.integers(1, 6).map(lambda n: 2 * n + 1)
seeds = st.integers(0, 2**32)
quarter_bands = st.integers(1, 16).map(lambda n: 4 * n)


def random_plane(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reflect(full: torch.Tensor) -> torch.Tensor:
    """M(-f), by index arithmetic."""
    rows = -torch.arange(full.shape[-2]) % full.shape[-2]
    columns = -torch.arange(full.shape[-1]) % full.shape[-1]
    return full[..., rows[:, None], columns[None, :]]


def quarter_turn(full: torch.Tensor) -> torch.Tensor:
    """The mask whose value at (c, -r) is that of `full` at (r, c): every angle increases by 90 degrees."""
    side = full.shape[-1]
    turned = torch.empty_like(full)
    index = torch.arange(side)
    rows, columns = torch.meshgrid(index, index, indexing="ij")
    turned[..., columns, -rows % side] = full[..., rows, columns]
    return turned


# ------------------------------------------------------------------------------------------------- filtering


@given(sides, sides, st.integers(1, 3), seeds)
def test_identity_mask_returns_the_image(height, width, channels, seed):
    images = random_plane(seed, 2, channels, height, width)
    ones = torch.ones(height, width // 2 + 1, dtype=torch.float64)
    torch.testing.assert_close(spectra.apply_mask(images, ones), images)


@given(sides, sides, st.integers(1, 3), seeds)
def test_one_mask_per_channel_filters_each_channel_with_its_own(height, width, channels, seed):
    images, masks = (
        random_plane(seed, 2, channels, height, width),
        random_plane(seed + 1, 2, channels, height, width // 2 + 1),
    )
    found = spectra.apply_mask(images, masks, 0.3)
    for channel in range(channels):
        alone = spectra.apply_mask(images[:, channel : channel + 1], masks[:, channel], 0.3)
        torch.testing.assert_close(found[:, channel : channel + 1], alone)


def test_masks_with_another_number_of_channels_are_refused():
    with pytest.raises(FmlibError, match="2 channels does not fit images of 3"):
        spectra.apply_mask(torch.zeros(1, 3, 8, 8), torch.ones(1, 2, 8, 5))


@given(sides, sides, seeds)
def test_half_plane_filters_exactly_as_the_real_part_of_the_full_filter(height, width, seed):
    images, mask = random_plane(seed, 2, 3, height, width), random_plane(seed + 1, height, width)
    expected = torch.fft.ifft2(mask * torch.fft.fft2(images)).real
    torch.testing.assert_close(spectra.apply_mask(images, spectra.half_plane(mask)), expected)


@given(sides, sides, seeds)
def test_one_mask_per_image_filters_each_image_with_its_own(height, width, seed):
    images, masks = random_plane(seed, 3, 2, height, width), random_plane(seed + 1, 3, height, width // 2 + 1)
    batch = spectra.apply_mask(images, masks)
    alone = torch.cat([spectra.apply_mask(images[i : i + 1], masks[i]) for i in range(3)])
    torch.testing.assert_close(batch, alone)


@given(sides, sides, seeds)
def test_filtering_a_spectrum_equals_filtering_the_image(height, width, seed):
    images, mask = random_plane(seed, 2, 1, height, width), random_plane(seed + 1, height, width // 2 + 1)
    filtered = spectra.filter_spectrum(torch.fft.rfft2(images), mask, (height, width))
    torch.testing.assert_close(filtered, spectra.apply_mask(images, mask))


@given(sides, sides, seeds, st.floats(-1, 2))
def test_filtering_about_a_centre_subtracts_it_and_adds_it_again(height, width, seed, centre):
    images, mask = random_plane(seed, 2, 1, height, width), random_plane(seed + 1, height, width // 2 + 1)
    expected = centre + spectra.apply_mask(images - centre, mask)
    torch.testing.assert_close(spectra.apply_mask(images, mask, centre), expected)
    empty = spectra.apply_mask(images, 0 * mask, centre)
    torch.testing.assert_close(empty, torch.full_like(images, centre))


@given(sides, sides, seeds, st.floats(-1, 2))
def test_centre_has_no_effect_with_a_mask_that_keeps_dc(height, width, seed, centre):
    images, mask = random_plane(seed, 2, 1, height, width), random_plane(seed + 1, height, width // 2 + 1)
    mask[0, 0] = 1
    torch.testing.assert_close(spectra.apply_mask(images, mask, centre), spectra.apply_mask(images, mask))


@given(sides, sides, seeds)
def test_zero_mask_gives_zero_and_dc_alone_gives_the_mean(height, width, seed):
    images = random_plane(seed, 2, 1, height, width)
    mask = torch.zeros(height, width // 2 + 1, dtype=torch.float64)
    assert spectra.apply_mask(images, mask).abs().max() == 0
    mask[0, 0] = 1
    torch.testing.assert_close(spectra.apply_mask(images, mask), images.mean((-2, -1), keepdim=True).expand_as(images))


@given(sides, sides, seeds)
def test_half_and_full_plane_round_trip_on_symmetric_masks(height, width, seed):
    mask = random_plane(seed, 2, height, width)
    symmetric = (mask + reflect(mask)) / 2
    torch.testing.assert_close(spectra.full_plane(spectra.half_plane(symmetric), width), symmetric)


@given(sides, sides, seeds)
def test_full_plane_of_the_half_plane_is_the_symmetric_part(height, width, seed):
    mask = random_plane(seed, height, width)
    symmetric = spectra.full_plane(spectra.half_plane(mask), width)
    torch.testing.assert_close(symmetric, (mask + reflect(mask)) / 2)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 8), (9, 9)])
def test_masks_of_another_size_are_refused(height, width):
    with pytest.raises(FmlibError, match="does not fit"):
        spectra.apply_mask(torch.zeros(1, 1, 8, 8), torch.ones(height, width // 2 + 1))


def test_a_full_mask_instead_of_a_half_mask_is_refused():
    with pytest.raises(FmlibError):
        spectra.apply_mask(torch.zeros(1, 1, 8, 8), torch.ones(8, 8))
    with pytest.raises(FmlibError, match="columns"):
        spectra.full_plane(torch.ones(8, 8), 8)


# --------------------------------------------------------------------------------------------- norms, shares


@given(sides, sides, seeds)
def test_parseval_with_column_weights(height, width, seed):
    image = random_plane(seed, height, width) - 0.5
    power = torch.fft.rfft2(image).abs() ** 2
    energy = (power * spectra.column_weights(width)).sum() / (height * width)
    torch.testing.assert_close(energy, (image**2).sum())


@given(sides, sides, seeds)
def test_l1_share_is_the_mean_of_the_full_mask(height, width, seed):
    half = random_plane(seed, 3, height, width // 2 + 1)
    torch.testing.assert_close(spectra.l1_share(half, width), spectra.full_plane(half, width).mean((-2, -1)))


@given(sides, sides)
def test_l1_share_of_ones_is_one_and_of_zeros_zero(height, width):
    half = torch.ones(height, width // 2 + 1, dtype=torch.float64)
    assert spectra.l1_share(half, width).item() == pytest.approx(1, abs=1e-12)
    assert spectra.l1_share(0 * half, width).item() == 0


@given(sides, sides, seeds, st.sampled_from([1e-8, 0.1, 0.5]))
def test_complement_and_binarized_mask_sum_to_one(height, width, seed, threshold):
    mask = random_plane(seed, height, width)
    mask[mask < 0.3] = 0
    mask[0, 0] = threshold  # an entry equal to the threshold must belong to one of the two
    complement, binary = spectra.complement(mask, threshold), spectra.binarize(mask, threshold)
    assert torch.equal(complement + binary, torch.ones_like(mask))
    assert torch.equal(complement == 1, mask < threshold)


def test_complement_keeps_what_is_below_one_part_in_a_hundred_million():
    mask = torch.tensor([0.0, 0.9e-8, 1.1e-8, 1e-3, 1.0])
    assert spectra.complement(mask).tolist() == [1, 1, 0, 0, 0]


# ---------------------------------------------------------------------------------------------- band energies


@given(sides, sides, seeds, st.integers(1, 64))
def test_squares_of_radial_energies_sum_to_one(height, width, seed, bands):
    energies = spectra.radial_energy(random_plane(seed, 2, height, width), bands)
    assert energies.shape == (2, bands)
    torch.testing.assert_close((energies**2).sum(-1), torch.ones(2, dtype=torch.float64))


@given(sides, sides, seeds, st.integers(1, 64))
def test_squares_of_angular_energies_sum_to_one_minus_the_share_of_dc(height, width, seed, bands):
    mask = random_plane(seed, height, width)
    energies = spectra.angular_energy(mask, bands)
    dc = mask[0, 0] ** 2 / (mask**2).sum()
    torch.testing.assert_close((energies**2).sum(), 1 - dc)


@given(sides, sides, seeds, st.floats(0.01, 100))
def test_energies_do_not_depend_on_the_masks_scale(height, width, seed, factor):
    mask = random_plane(seed, height, width)
    torch.testing.assert_close(spectra.radial_energy(mask * factor), spectra.radial_energy(mask))
    torch.testing.assert_close(spectra.angular_energy(mask * factor), spectra.angular_energy(mask))


@given(odd_sides, seeds, quarter_bands)
def test_quarter_turn_of_a_mask_shifts_angular_energy_and_keeps_radial(side, seed, bands):
    mask = random_plane(seed, side, side)
    turned = quarter_turn(mask)
    torch.testing.assert_close(spectra.radial_energy(turned, bands), spectra.radial_energy(mask, bands))
    expected = torch.roll(spectra.angular_energy(mask, bands), bands // 4, -1)
    torch.testing.assert_close(spectra.angular_energy(turned, bands), expected)


@given(st.integers(1, 6).map(lambda n: 2 * n), seeds, quarter_bands)
def test_quarter_turn_on_an_even_plane_without_nyquist(side, seed, bands):
    mask = random_plane(seed, side, side)
    mask[side // 2, :] = mask[:, side // 2] = 0
    if side == 2:
        mask[0, 0] = 1
    turned = quarter_turn(mask)
    expected = torch.roll(spectra.angular_energy(mask, bands), bands // 4, -1)
    torch.testing.assert_close(spectra.angular_energy(turned, bands), expected)
    torch.testing.assert_close(spectra.radial_energy(turned, bands), spectra.radial_energy(mask, bands))


@given(odd_sides, seeds)
def test_quarter_turn_of_an_image_moves_the_angular_energy_of_its_spectrum(side, seed):
    image = random_plane(seed, side, side)
    before = spectra.angular_energy(torch.fft.fft2(image).abs())
    after = spectra.angular_energy(torch.fft.fft2(torch.rot90(image)).abs())
    torch.testing.assert_close(after, torch.roll(before, 16, -1))


@pytest.mark.parametrize("turn", [0, 30, 45, 75])
def test_rotating_a_grating_moves_its_angular_peak_by_the_same_angle(turn):
    size, bands = 48, 24  # bands of 15 degrees
    rows, columns = torch.meshgrid(torch.arange(size) - 23.5, torch.arange(size) - 23.5, indexing="ij")
    start = math.radians(7.5)  # the middle of band 0
    wave = torch.cos(2 * math.pi * 10 / size * (math.cos(start) * columns + math.sin(start) * rows))
    image = wave * torch.exp(-(rows**2 + columns**2) / (2 * 7**2))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    affine = torch.tensor([[[cos, sin, 0.0], [-sin, cos, 0.0]]])
    turned = warp(image[None, None], affine)[0, 0]
    energies = spectra.angular_energy(torch.fft.fft2(turned).abs(), bands)
    assert sorted(energies.topk(2).indices.tolist()) == [turn // 15, turn // 15 + bands // 2]


@pytest.mark.parametrize(
    ("row", "column", "band"), [(0, 3, 0), (3, 3, 1), (3, 0, 2), (0, -3, 4), (-3, 0, 6), (-3, 3, 7)]
)
def test_angular_band_of_a_single_frequency(row, column, band):
    mask = torch.zeros(16, 16)
    mask[row, column] = 0.3
    assert spectra.angular_energy(mask, 8).argmax().item() == band


@pytest.mark.parametrize("bands", [8, 24, 64])
def test_frequencies_on_the_border_of_two_bands_belong_to_the_upper_one(bands):
    """At multiples of 45 degrees, rounding must not assign opposite frequencies to bands that are not opposite."""
    compass = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
    for eighth, (row, column) in enumerate(compass):
        masks = torch.zeros(15, 32, 32)
        for reach in range(1, 16):
            masks[reach - 1, row * reach, column * reach] = 1
        assert spectra.angular_energy(masks, bands).argmax(-1).tolist() == [eighth * bands // 8] * 15


@pytest.mark.parametrize(("row", "column", "band"), [(0, 0, 0), (0, 4, 1), (0, -7, 2), (-8, -8, 3), (8, 0, 2)])
def test_radial_band_of_a_single_frequency(row, column, band):
    mask = torch.zeros(16, 16)  # four rings, each 8 sqrt(2) / 4 = 2.83 cycles wide
    mask[row, column] = 0.3
    assert spectra.radial_energy(mask, 4).tolist() == [1.0 if b == band else 0.0 for b in range(4)]


# --------------------------------------------------------------------------------------- radius, shares, correlation


@given(sides, sides)
def test_radius_is_cycles_per_image_and_largest_at_the_corner(height, width):
    radius = spectra.radius(height, width)
    assert radius[0, 0] == 0
    assert radius[0, 1] == 1
    assert radius[1, 0] == 1
    assert radius.max().item() <= spectra.corner_radius(height, width) * (1 + 1e-6)
    if height % 2 == width % 2 == 0:
        assert radius[height // 2, width // 2].item() == pytest.approx(spectra.corner_radius(height, width))


def test_corner_radius_of_a_square():
    assert spectra.corner_radius(128, 128) == pytest.approx(math.sqrt(2) * 64)


@given(st.floats(0.1, 0.9))
def test_low_share_of_a_disc(fraction):
    distance = spectra.radius(32, 32) / spectra.corner_radius(32, 32)
    disc = (distance < fraction).double()
    assert spectra.low_share(disc, fraction).item() == pytest.approx(1)
    smaller = (distance < fraction / 2).sum() / disc.sum()
    assert spectra.low_share(disc, fraction / 2).item() == pytest.approx(smaller.item())
    assert spectra.low_share(1 - disc, fraction).item() == 0


def test_low_share_weights_by_the_square_of_the_mask():
    mask = torch.zeros(16, 16)
    mask[0, 1], mask[7, 7] = 0.5, 1.0
    assert spectra.low_share(mask).item() == pytest.approx(0.25 / 1.25)


@given(sides, sides)
def test_mean_radius_of_one_frequency_is_its_radius(height, width):
    for row, column in ((0, 0), (height - 1, 1), (height // 2, width // 2)):
        mask = torch.zeros(height, width)
        mask[row, column] = 0.7
        expected = spectra.radius(height, width)[row, column] / spectra.corner_radius(height, width)
        assert spectra.mean_radius(mask).item() == pytest.approx(expected.item())


@given(sides, sides, seeds, st.floats(0.1, 10), st.floats(-1, 1))
def test_correlation_is_one_for_a_rescaled_mask_and_minus_one_for_its_negative(height, width, seed, factor, offset):
    mask = random_plane(seed, height, width)
    assert spectra.correlation(mask, factor * mask + offset).item() == pytest.approx(1)
    assert spectra.correlation(mask, offset - factor * mask).item() == pytest.approx(-1)


@given(sides, sides, seeds)
def test_correlation_is_symmetric_and_at_most_one(height, width, seed):
    first, second = random_plane(seed, height, width), random_plane(seed + 1, height, width)
    value = spectra.correlation(first, second).item()
    assert value == pytest.approx(spectra.correlation(second, first).item())
    assert abs(value) <= 1 + 1e-12


def test_ring_means_of_a_disc_are_one_inside_and_zero_outside():
    disc = (spectra.radius(16, 16) <= 5).float()
    found = spectra.ring_means(disc)
    assert found.shape == (9,)
    assert found[:5].tolist() == 5 * [1]
    assert found[6:].tolist() == 3 * [0]
    assert 0 < found[5].item() < 1
    torch.testing.assert_close(spectra.ring_means(0 * disc + 0.3), torch.full((9,), 0.3))
