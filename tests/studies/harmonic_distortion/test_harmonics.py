"""Harmonic distortion: the FFT against closed forms, and the laws both must obey."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fmlib.core.errors import FmlibError
from fmlib.studies.harmonic_distortion import harmonics

SMOOTH = ("identity", "square", "softplus", "tanh", "sigmoid", "silu")
KINKED = ("relu", "leaky_relu", "hardtanh")
number = st.floats(-3, 3, allow_nan=False)


@pytest.mark.parametrize("name", SMOOTH + KINKED)
@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_measured_agrees_with_exact(name, count):
    measured = harmonics.coefficients(harmonics.ACTIVATIONS[name], count)
    exact = harmonics.series(name, count)
    assert exact.shape == measured.shape == (count + 1, 2)
    assert np.abs(measured - exact).max() < (1e-12 if name in SMOOTH else 4e-7)


def test_aliasing_of_a_kink_falls_as_the_square_of_the_samples():
    errors = [max(row["error"] or 0 for row in harmonics.table(samples=samples)) for samples in (1024, 4096)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.02)


def test_no_closed_form_is_none_and_every_other_is_given():
    missing = [name for name in harmonics.ACTIVATIONS if harmonics.series(name) is None]
    assert missing == ["gelu", "elu"]


@settings(max_examples=30, deadline=None)
@given(st.lists(number, min_size=1, max_size=8))
def test_a_polynomial_of_degree_n_reaches_harmonic_n_and_no_further(weights):
    degree = len(weights) - 1
    found = harmonics.amplitudes(lambda x: sum(a * x**n for n, a in enumerate(weights)) + 0 * x, 16)
    assert np.abs(found[degree + 1 :]).max() < 1e-12
    # sin^n holds harmonic n with amplitude 2^(1 - n): the outermost term of the n-fold self-convolution
    expected = abs(weights[-1]) * (2.0 ** (1 - degree) if degree else 1)
    assert found[degree] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(number, number), min_size=2, max_size=9))
def test_measures_a_trigonometric_polynomial_back(pairs):
    def wave(sine):
        phase = torch.arange(len(sine), dtype=torch.float64) * (2 * math.pi / len(sine))
        return sum(a * torch.cos(k * phase) + b * torch.sin(k * phase) for k, (a, b) in enumerate(pairs))

    found = harmonics.coefficients(wave, 8, samples=64)
    expected = np.zeros((9, 2))
    expected[: len(pairs)] = pairs
    expected[0, 1] = 0  # sin 0t is nothing
    assert np.abs(found - expected).max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 4), st.floats(0.05, 4))
def test_odd_functions_have_no_even_harmonics(gain, limit):
    found = harmonics.amplitudes(lambda x: (torch.tanh(gain * x) + x**3).clamp(-limit, limit), 16)
    assert found[::2].max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.5))
def test_a_constant_moves_nothing_but_the_mean(offset):
    plain = harmonics.amplitudes(torch.tanh)
    raised = harmonics.amplitudes(lambda x: torch.tanh(x) + offset)
    assert raised[0] == pytest.approx(offset, abs=1e-12)
    assert np.abs(raised[1:] - plain[1:]).max() < 1e-12


@pytest.mark.parametrize("name", list(harmonics.ACTIVATIONS))
def test_parseval(name):
    samples = 1025  # odd: no Nyquist term
    found = harmonics.amplitudes(harmonics.ACTIVATIONS[name], 512, samples)
    phase = torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)
    power = harmonics.ACTIVATIONS[name](torch.sin(phase)).square().mean()
    assert found[0] ** 2 + (found[1:] ** 2).sum() / 2 == pytest.approx(float(power), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120))
def test_square_intermodulation_is_exact_for_every_admissible_pair(first, second):
    try:
        products = harmonics.products(first, second)
    except FmlibError:
        assume(False)
    spectrum = harmonics.intermodulation(torch.square, first, second, samples=1024)
    exact = harmonics.square_intermodulation(first, second)
    for name, frequency in products.items():
        assert spectrum[frequency] == pytest.approx(exact[name], abs=1e-12)
    assert spectrum.sum() == pytest.approx(sum(exact.values()), abs=1e-9)  # and nothing elsewhere


@pytest.mark.parametrize("name", ["tanh", "hardtanh"])
def test_odd_functions_have_no_second_order_products(name):
    spectrum = harmonics.intermodulation(harmonics.ACTIVATIONS[name], 21, 29)
    found = {product: spectrum[frequency] for product, frequency in harmonics.products(21, 29).items()}
    assert max(found[product] for product in ("DC", "2w1", "2w2", "w1+w2", "w1-w2")) < 1e-12
    assert min(found[product] for product in ("2w1-w2", "2w2-w1", "2w1+w2", "2w2+w1")) > 0.01


def test_relu_of_two_tones_factorises():
    # |cos a + cos b| = 2 |cos (a+b)/2| |cos (a-b)/2|, each factor a known cosine series; relu adds x / 2 to half of it
    spectrum, products = harmonics.intermodulation(torch.relu, 21, 29), harmonics.products(21, 29)
    scale = 4 / math.pi**2
    exact = {"DC": 1, "w1+w2": 2 / 3, "w1-w2": 2 / 3, "2w1": 2 / 9, "2w2": 2 / 9, "3w1": 0, "2w1-w2": 0}
    for name, share in exact.items():
        assert spectrum[products[name]] == pytest.approx(scale * share, abs=3e-5)


def test_tables_are_complete_and_plain():
    rows = harmonics.table()
    assert len(rows) == 9 * len(harmonics.ACTIVATIONS)
    assert {tuple(row) for row in rows} == {("activation", "harmonic", "measured", "exact", "error")}
    rows = harmonics.intermodulation_table()
    assert len(rows) == len(harmonics.INTERMODULATED) * len(harmonics.PRODUCTS)
    assert {row["activation"] for row in rows if row["exact"] is not None} == {"square"}
    assert all(type(row["measured"]) is float for row in rows)


def test_waveforms_hold_what_the_figure_draws():
    arrays = harmonics.waveforms(64)
    assert arrays["time"].shape == arrays["wave_relu"].shape == (64,)
    assert arrays["harmonic"].tolist() == list(range(17))
    np.testing.assert_allclose(arrays["wave_identity"], arrays["input"])
    np.testing.assert_allclose(arrays["amplitude_relu"][:9], harmonics.amplitudes(torch.relu))
    assert np.abs(arrays["wave_hardtanh"]).max() == harmonics.CLIP


@given(st.floats(0.01, 0.5))
def test_translations_damp_a_filter_like_the_sinc(reach):
    rows = harmonics.translation_damping(reach)
    assert [row["frequency"] for row in rows] == list(range(17))
    for row in rows:
        argument = math.pi * 2 * reach * row["frequency"]
        expected = abs(math.sin(argument) / argument) if argument else 1
        assert row["exact"] == pytest.approx(expected, abs=1e-12)
        assert row["measured"] == pytest.approx(expected, abs=1e-4)


@given(st.floats(0.001, 0.5))
def test_translations_keep_the_mean_of_a_filter(reach):
    first = harmonics.translation_damping(reach, highest=4, shifts=512)[0]
    assert first["exact"] == 1
    assert first["measured"] == pytest.approx(1, abs=1e-12)


def test_translations_around_the_whole_circle_leave_the_mean_alone():
    rows = harmonics.translation_damping(0.5)
    assert max(row["measured"] for row in rows[1:]) < 1e-12


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_smaller_reach_keeps_more_of_the_first_frequency(first, second):
    assume(abs(first - second) > 1e-3)
    small, large = (harmonics.translation_damping(reach, 4, 512)[1] for reach in sorted((first, second)))
    assert small["measured"] > large["measured"]
    assert small["exact"] > large["exact"]


def test_damping_at_a_frequency_does_not_depend_on_how_many_are_asked_for():
    """Another length, and with it another random filter."""
    few, many = (harmonics.translation_damping(0.3, highest) for highest in (3, 12))
    for one, other in zip(few, many[:4], strict=True):
        assert one["measured"] == pytest.approx(other["measured"], abs=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: harmonics.series("swish"), "unknown activation 'swish'"),
        (lambda: harmonics.series("relu", 0), "harmonics must be at least one"),
        (lambda: harmonics.coefficients(torch.tanh, 8, 16), "16 samples allow 1 to 7"),
        (lambda: harmonics.coefficients(torch.tanh, 0), "allow 1 to 2047"),
        (lambda: harmonics.coefficients(torch.log), "not finite"),
        (lambda: harmonics.coefficients(torch.mean), "pointwise"),
        (lambda: harmonics.products(3, 1), "2w2, w1-w2|choose other tones"),
        (lambda: harmonics.products(5, 5), "choose other tones"),
        (lambda: harmonics.products(0, 5), "positive integers"),
        (lambda: harmonics.products(2.5, 7), "positive integers"),
        (lambda: harmonics.intermodulation(torch.tanh, 21, 29, 174), "not below Nyquist"),
        (lambda: harmonics.square_intermodulation(9, 3), "choose other tones"),
        (lambda: harmonics.waveforms(2), "at least 4 samples"),
        (lambda: harmonics.translation_damping(0.0), "at most 1/2, not 0.0"),
        (lambda: harmonics.translation_damping(-0.1), "at most 1/2, not -0.1"),
        (lambda: harmonics.translation_damping(0.51), "at most 1/2, not 0.51"),
        (lambda: harmonics.translation_damping(math.nan), "at most 1/2, not nan"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(FmlibError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
