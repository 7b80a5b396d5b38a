"""Instruments on networks whose frequencies are known: each profile has its peak where the network looks."""

import math

import numpy as np
import pytest
import torch
from conftest import Linear

from fmlib.core.data import Split
from fmlib.core.heat_maps import basis
from fmlib.core.spectra import radius
from fmlib.studies.discussion import analysis, experiment
from fmlib.studies.discussion.experiment import (
    DEVIATIONS,
    added_error,
    gradient_power,
    hybrids,
    in_hybrids,
    in_noise,
    members,
    octave_means,
    octaves,
)

SIZE, COUNT = 16, 60


@pytest.fixture(params=[1, 2, 4])
def detector(request):
    """A network that reads the sign of one horizontal wave, images that it classifies correctly, and the octave."""
    frequency = request.param
    wave = basis(torch.tensor([[0, frequency]]), (SIZE, SIZE)).flatten()
    model = Linear(torch.stack([-40 * wave, 40 * wave]), torch.tensor([0.5, -0.5]) * 40 * wave.sum())
    labels = torch.arange(COUNT) % 2
    pixels = 0.5 + 0.02 * torch.randn(COUNT, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    pixels += (0.6 * (2 * labels - 1)[:, None] * wave).view(COUNT, 1, SIZE, SIZE)
    images = Split((255 * pixels.clamp(0, 1)).round().to(torch.uint8), labels)
    assert (model(images.pixels()).argmax(1) == labels).all()
    return model, images, int(math.log2(frequency))


def test_octaves_partition_the_plane_without_dc():
    for size in (16, 32, 64):
        inside = members(size)
        assert len(inside) == len(octaves(size)) == math.log2(size)
        assert (inside.sum(0) == (radius(size, size) > 0)).all()
        for number, plane in enumerate(inside):
            assert plane[0, 2**number if 2**number < size // 2 else size // 2]
            np.testing.assert_allclose(octave_means(plane.float()), np.arange(len(inside)) == number)


def test_the_gradient_and_the_heat_map_find_the_octave(detector, monkeypatch):
    monkeypatch.setattr(experiment, "FREQUENCIES", SIZE**2)  # all of them
    model, images, octave = detector
    assert octave_means(gradient_power(model, images)).argmax() == octave
    raised = added_error(model, images, seed=0)
    assert raised.argmax() == octave
    assert (np.delete(raised, octave) == 0).all()


def test_noise_harms_in_the_octave_alone(detector):
    model, images, octave = detector
    correct = in_noise(model, images, seed=0).numpy()
    assert correct.shape == (len(octaves(SIZE)), len(DEVIATIONS), COUNT)
    assert np.delete(correct, octave, 0).all()
    assert correct[octave, 0].all()
    assert correct[octave, -1].mean() < 0.75
    clean = np.ones(COUNT, bool)
    profile = analysis.profile({"noise": correct, "clean": clean}, "noise", classes=2)
    assert profile.argmax() == octave


def test_a_hybrid_is_classified_by_the_half_that_has_the_octave(detector):
    model, images, octave = detector
    low, high = in_hybrids(model, images, 0.5)
    assert low.shape == high.shape == (len(octaves(SIZE)) + 1, COUNT)
    assert (low == ~high).all()  # of two classes
    assert low[octave + 1 :].all()
    assert high[: octave + 1].all()
    profile = analysis.profile({"low": low.numpy(), "high": high.numpy()}, "hybrid", classes=2)
    np.testing.assert_allclose(profile, np.arange(len(profile)) == octave)


def test_hybrids_go_from_one_image_to_the_other(detector):
    _, images, _ = detector
    first, *_, last = hybrids(images, 0.5)
    pixels = images.pixels()
    torch.testing.assert_close(last, pixels, atol=1e-5, rtol=0)
    means = pixels.mean((2, 3), keepdim=True)
    torch.testing.assert_close(first, pixels.roll(1, 0) - means.roll(1, 0) + means, atol=1e-5, rtol=0)
