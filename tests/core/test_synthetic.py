"""Synthetic images: their tones, their noise, and their repetition by seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmlib.core.config import SyntheticSpec
from fmlib.core.errors import FmlibError
from fmlib.core.synthetic import make_synthetic, synthetic_tones, tone_mask

specs = st.builds(
    SyntheticSpec,
    size=st.integers(8, 20).map(lambda n: 2 * n),
    classes=st.integers(2, 8),
    distractors=st.integers(0, 8),
)
seeds = st.integers(0, 2**32)


@given(specs, seeds)
def test_tones_are_distinct_off_axis_and_below_nyquist(spec, seed):
    classes, distractors = synthetic_tones(spec, seed)
    assert len(classes) == spec.classes
    assert len(distractors) == spec.distractors
    tones = [tuple(tone) for tone in torch.cat((classes, distractors)).tolist()]
    mirrors = [(-row, -column) for row, column in tones]
    assert len({*tones, *mirrors}) == 2 * len(tones)
    assert all(0 < abs(n) < spec.size // 2 for tone in tones for n in tone)


def test_more_tones_than_the_plane_has_are_refused():
    with pytest.raises(FmlibError, match="505 tones do not fit into 16 px"):
        synthetic_tones(SyntheticSpec(size=16, distractors=500))


@given(specs, seeds)
def test_tone_mask_is_symmetric_and_marks_each_tone_and_its_mirror(spec, seed):
    tones, _ = synthetic_tones(spec, seed)
    mask = tone_mask(tones, spec.size)
    assert mask.sum().item() == 2 * spec.classes
    assert torch.equal(mask, torch.roll(mask.flip((0, 1)), (1, 1), (0, 1)))
    assert all(mask[row, column] == mask[-row, -column] == 1 for row, column in tones.tolist())


def test_spectra_peak_at_the_class_tone_and_the_distractors(synthetic, synthetic_spec):
    tones, distractors = synthetic_tones(synthetic_spec)
    for label in range(synthetic_spec.classes):
        pixels = synthetic.train.pixels(synthetic.train.labels == label)[:, 0]
        amplitude = torch.fft.fft2(pixels).abs().mean(0)
        amplitude[0, 0] = 0
        expected = tone_mask(torch.cat((tones[label : label + 1], distractors)), synthetic_spec.size)
        peaks = amplitude.flatten().topk(int(expected.sum())).indices
        assert set(peaks.tolist()) == set(expected.flatten().nonzero().flatten().tolist())


def test_without_noise_every_image_has_its_tone_and_half_have_each_distractor():
    """The tone at its full amplitude; a distractor in about half of the images of every class; nothing else."""
    spec = SyntheticSpec(size=16, classes=3, distractors=2, noise=0.0, train=900)
    data, (tones, distractors) = make_synthetic(spec), synthetic_tones(spec)
    heights = torch.fft.fft2(data.train.pixels()[:, 0]).abs() * 2 / spec.size**2  # (N, H, W), amplitudes of waves
    rounding = 1.01 / 255  # of a wave's amplitude, where every pixel is rounded by at most half a step
    for label in range(3):
        own_heights = heights[data.train.labels == label]
        allowed = tone_mask(torch.cat((tones[label : label + 1], distractors)), spec.size)
        allowed[0, 0] = 1
        assert (own_heights * (1 - allowed)).max().item() <= rounding
        own = own_heights[:, tones[label, 0], tones[label, 1]]
        torch.testing.assert_close(own, torch.full((300,), spec.amplitude), atol=rounding, rtol=0)
        for row, column in distractors.tolist():
            height = own_heights[:, row, column]
            assert height.max().item() <= spec.amplitude + rounding
            present = (height > rounding).float().mean().item()
            faint = 0.5 * rounding / spec.amplitude  # present, but lost in rounding
            assert 0.5 - faint - 5 * 0.5 / 300**0.5 < present < 0.5 + 5 * 0.5 / 300**0.5  # five sigma


def test_phases_are_random(synthetic, synthetic_spec):
    """The mean image holds far less of a tone than the single images do: only its amplitude depends on the class."""
    tones, _ = synthetic_tones(synthetic_spec)
    row, column = tones[0].tolist()
    spectrum = torch.fft.fft2(synthetic.train.pixels(synthetic.train.labels == 0)[:, 0])[:, row, column]
    assert (spectrum.mean().abs() / spectrum.abs().mean()).item() < 4 / len(spectrum) ** 0.5


@settings(max_examples=5)
@given(seeds)
def test_same_seed_same_images(seed):
    spec = SyntheticSpec(size=16, train=10, validation=5)
    first, second = make_synthetic(spec, seed), make_synthetic(spec, seed)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.validation.images, second.validation.images)
    assert first.classes == second.classes
    other = make_synthetic(spec, seed + 1)
    assert not torch.equal(first.train.images, other.train.images)


def test_splits_have_the_documented_form(synthetic, synthetic_spec):
    for split, count in ((synthetic.train, synthetic_spec.train), (synthetic.validation, synthetic_spec.validation)):
        assert split.images.shape == (count, 1, 16, 16)
        assert split.images.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [count // 3] * 3
    assert not torch.equal(synthetic.train.images[: synthetic_spec.validation], synthetic.validation.images)
    assert len(synthetic.classes) == len(set(synthetic.classes)) == 3
