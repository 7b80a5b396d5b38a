"""Noise in one band of frequencies: its norm, its energy, and a band without frequencies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.device import generator
from fmlib.core.errors import FmlibError
from fmlib.core.spectra import radius
from fmlib.studies.shared.noise import band_noise


@given(st.integers(0, 2**32), st.floats(0.01, 10), st.sampled_from([(0, 1), (0, 4.5), (3, 5), (8, 12), (15, 30)]))
def test_band_noise_has_its_norm_and_all_its_energy_in_the_band(seed, norm, band):
    noise = band_noise(torch.zeros(3, 2, 32, 32), *band, norm, generator(seed, "band"))
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((3,), norm), rtol=1e-5, atol=0)
    energy, distance = torch.fft.fft2(noise).abs().square().sum((0, 1)), radius(32, 32)
    inside = (distance >= band[0]) & (distance < band[1])
    assert (energy[inside].sum() / energy.sum()).item() == pytest.approx(1, abs=1e-6)


def test_a_band_without_frequencies_is_refused():
    with pytest.raises(FmlibError, match="no frequency of 64 x 64 images lies at radius 46 to 50"):
        band_noise(torch.zeros(1, 1, 64, 64), 46, 50, 1.0, generator(0, "x"))
