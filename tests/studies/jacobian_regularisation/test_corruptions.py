"""Corruptions: within [0, 1], repeatable, worse with severity, and where they act in the spectrum."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import strategies as st

from fmlib.core.device import generator
from fmlib.core.errors import FmlibError
from fmlib.core.spectra import radius
from fmlib.studies.jacobian_regularisation.corruptions import CORRUPTIONS, corrupt, frequencies

seeds = st.integers(0, 2**32)


def pictures(channels: int = 1, size: int = 64, contrast: float = 0.18) -> torch.Tensor:
    """Sixteen images with the 1/f spectrum of photographs, mean 1/2 and standard deviation `contrast`."""
    white = torch.randn(16, channels, size, size, generator=generator(0, "pictures"))
    envelope = 1 / radius(size, size)[:, : size // 2 + 1].clamp_min(1)
    rough = torch.fft.irfft2(torch.fft.rfft2(white) * envelope, s=(size, size))
    return (0.5 + contrast * rough / rough.std()).clamp(0, 1)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, 64), (3, 64), (1, 32), (3, 16)])
def test_corrupted_pixels_are_pixels(name, channels, size):
    images = pictures(channels, size)
    images[0], images[1] = 0, 1
    copy = images.clone()
    for severity in (1, 5):
        found = corrupt(images, name, severity, generator(0, name))
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert found.min().item() >= 0  # nan is not
        assert found.max().item() <= 1
    assert torch.equal(images, copy)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [32, 64])
def test_distance_grows_with_severity(name, size):
    images = pictures(size=size)
    distances = [
        (corrupt(images, name, severity, generator(0, name)) - images).flatten(1).norm(dim=1).mean().item()
        for severity in range(1, 6)
    ]
    assert distances[0] > 0
    assert all(first < second for first, second in itertools.pairwise(distances))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_generator_same_result_and_the_global_one_left_alone(name):
    images, state = pictures(), torch.get_rng_state()
    first, again, other = (corrupt(images, name, 3, generator(seed, name)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    random = {"gaussian noise", "shot noise", "impulse noise", "speckle noise", "motion blur", "fog", "elastic"}
    assert torch.equal(first, other) == (name not in random)
    assert torch.equal(torch.get_rng_state(), state)


def test_at_least_twelve_kinds():
    assert len(CORRUPTIONS) >= 12


def test_brightness_is_dc_where_nothing_is_clipped():
    images = 0.2 + 0.2 * pictures()
    found = frequencies(images, corrupt(images, "brightness", 3, generator(0, "x")))
    assert found.mean_radius == pytest.approx(0, abs=1e-6)
    assert found.low_share == pytest.approx(1)
    assert found.amplitude[0, 0].item() == pytest.approx(0.3 * 64**2, rel=1e-4)


def test_gaussian_noise_is_flat():
    gray = torch.full((400, 1, 32, 32), 0.5)
    found = frequencies(gray, corrupt(gray, "gaussian noise", 2, generator(0, "x")))
    inner = found.amplitude[1:16, 1:16]  # without DC and Nyquist, whose coefficients are real
    assert (inner.std() / inner.mean()).item() < 0.05  # a Rayleigh mean of 400 spreads by .026
    area = (radius(32, 32) < radius(32, 32).max() / 3).float().mean().item()
    assert found.low_share == pytest.approx(area, rel=0.05)


def test_noise_lies_higher_than_blur_and_blur_higher_than_brightness():
    images = pictures()
    scores = [
        frequencies(images, corrupt(images, name, 3, generator(0, name)))
        for name in ("gaussian noise", "gaussian blur", "brightness")
    ]
    assert [score.mean_radius for score in scores] == sorted((s.mean_radius for s in scores), reverse=True)
    assert [score.statistic for score in scores] == sorted(score.statistic for score in scores)


def test_defocus_of_a_point_is_its_disc():
    point = torch.zeros(1, 1, 64, 64)
    point[0, 0, 32, 32] = 1
    spread = corrupt(point, "defocus blur", 5, generator(0, "x"))[0, 0]
    row, column = torch.arange(64) - 32, torch.arange(64)[:, None] - 32
    inside = torch.hypot(row.float(), column.float()) < 2
    assert spread[inside].mean().item() == pytest.approx(1 / (torch.pi * 9), rel=0.1)  # radius 3
    assert spread[torch.hypot(row.float(), column.float()) > 6].max().item() < 0.004


def test_noise_has_the_deviation_of_its_severity():
    gray = torch.full((50, 1, 32, 32), 0.5)
    for severity, deviation in ((1, 0.04), (2, 0.08)):
        change = corrupt(gray, "gaussian noise", severity, generator(0, "x")) - gray
        assert change.std().item() == pytest.approx(deviation, rel=0.02)
    share = (corrupt(gray, "impulse noise", 5, generator(0, "x")) != gray).float().mean().item()
    assert share == pytest.approx(0.14, rel=0.05)


def test_unknown_name_severity_and_pixels_are_refused():
    images, rng = pictures(), generator(0, "x")
    with pytest.raises(FmlibError, match=r"'snow'.*gaussian noise"):
        corrupt(images, "snow", 1, rng)
    with pytest.raises(FmlibError, match="not 6"):
        corrupt(images, "fog", 6, rng)
    with pytest.raises(FmlibError, match=r"\[0, 1\]"):
        corrupt(2 * images, "fog", 1, rng)
