"""Tasks on networks with a frequency bias: which networks and images, what is measured, and what is published."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small

from fmlib.core.config import EvaluationSpec
from fmlib.core.data import Split
from fmlib.core.evaluation import predictions
from fmlib.core.jacobian import input_gradients
from fmlib.core.spectra import corner_radius, radius
from fmlib.pipeline.disk.files import write_bytes
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import bits
from fmlib.studies.jacobian_regularisation import experiment, tasks
from fmlib.studies.jacobian_regularisation.analysis import correct
from fmlib.studies.jacobian_regularisation.corruptions import CORRUPTIONS
from fmlib.studies.jacobian_regularisation.tasks import (
    BANDS,
    DEVIATIONS,
    attacks,
    corrupted,
    corrupted_images,
    corruption_spectra,
    jacobian,
    low_shares,
    networks,
    noisy_images,
    robust,
)
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import first_images

SIZE, N_ROBUST, N_CORRUPTED = 16, 12, 20


@pytest.fixture(scope="module")
def setup():
    made = replace(
        small(),
        evaluation=EvaluationSpec(epsilon=0.15, step=0.1, steps=3, restarts=2, queries=20),
        n_robust=N_ROBUST,
        n_corrupted=N_CORRUPTED,
        regularised=("N", "N+", "N-"),
        bias_repetitions=2,
        regularised_once=("F",),
    )
    return Setup(made, 0, CPU, progress=False)


@pytest.fixture(scope="module")
def network(setup, store):
    return setup.open_network(store.get(setup.network("N")))


def wave(row: int, column: int) -> torch.Tensor:
    """One image (1, 1, SIZE, SIZE) of one frequency."""
    half = torch.zeros(SIZE, SIZE // 2 + 1, dtype=torch.complex64)
    half[row, column] = 1
    return torch.fft.irfft2(half, s=(SIZE, SIZE))[None, None]


# --------------------------------------------------------------------------------------------- profiles and networks


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_networks_are_evaluated_at_the_radius_of_their_training(profile):
    training, evaluation = profile.train.attack, profile.evaluation
    assert (evaluation.epsilon, evaluation.step) == (training.epsilon, training.step)
    assert evaluation.steps * evaluation.step >= evaluation.epsilon
    half = attacks(profile)["PGD half"][1]
    assert (half.epsilon, half.step) == (training.epsilon / 2, training.step / 2)
    assert (half.steps, half.restarts) == (evaluation.steps, evaluation.restarts)
    assert {name: (family, spec) for name, (family, spec) in attacks(profile).items() if name != "PGD half"} == {
        name: (name, evaluation) for name in ("PGD", "AutoAttack", "Square")
    }


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_every_profile_has_the_networks_that_claims_compare(profile):
    found = networks(Setup(profile, 0, CPU))
    assert {"N", "N+", "N-", "N_low", "N_small", "N_high", "F", "F+"} <= set(found)
    assert {found[name] for name in ("N", "N+", "N-", "N_low", "N_small")} == {profile.bias_repetitions}
    assert {found[name] for name in profile.regularised_once} == {1}


def test_first_images_are_as_many_of_each_class(setup, store):
    dataset = store.get(setup.dataset)
    images = first_images(setup, dataset, 15)
    assert images.labels.bincount().tolist() == [3] * 5
    assert torch.equal(images.images[:5], first_images(setup, dataset, 5).images)


# ----------------------------------------------------------------------------------------------------- the Jacobian


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 2), (-2, 3), (4, 3), (8, 8), (0, 7)])
def test_low_share_of_one_frequency_is_one_or_zero(row, column):
    inside = float(radius(SIZE, SIZE)[row, column] < corner_radius(SIZE, SIZE) / 3)
    assert low_shares(wave(row, column)).item() == pytest.approx(inside, abs=1e-5)


def test_low_shares_weigh_energy_over_channels_and_both_halves_of_the_plane():
    """Columns 0 and 8 stand for one frequency, those between for two: of equal waves each has the same energy."""
    gradients = torch.cat((wave(0, 1), 3 * wave(0, 7)), 1)
    assert low_shares(gradients).item() == pytest.approx(1 / 10, abs=1e-5)
    assert low_shares(gradients[:, :1] + gradients[:, 1:]).item() == pytest.approx(1 / 10, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-22, 1.0, 1e15])
def test_low_shares_do_not_depend_on_scale(scale):
    gradients = wave(0, 1) + 2 * wave(0, 7)
    assert low_shares(scale * gradients).item() == pytest.approx(0.2, abs=1e-5)


def test_an_image_without_gradient_has_no_low_share():
    found = low_shares(torch.cat((torch.zeros(1, 1, SIZE, SIZE), wave(0, 1))))
    assert found.isnan().tolist() == [True, False]


def test_the_jacobian_is_that_of_every_validation_image(setup, store, network):
    found = store.get(jacobian(setup, "N", 0))
    images = setup.open_dataset(store.get(setup.dataset)).validation
    gradients = input_gradients(network, images.pixels(), images.labels)
    amplitude = torch.fft.rfft2(gradients).abs().mean((0, 1)).numpy()
    assert found.arrays["amplitude"] == pytest.approx(amplitude, rel=1e-4)
    assert found.arrays["low"] == pytest.approx(low_shares(gradients).numpy(), rel=1e-4)
    assert found.arrays["low"].shape == (len(images),)
    assert found.arrays["shares"].sum() == pytest.approx(1, rel=1e-5)


def test_vanished_gradients_are_left_out_of_the_radial_shares(setup, store, monkeypatch):
    def one_nonzero(model, images, labels):
        gradients = torch.zeros_like(images)
        gradients[0] = 1e-25 * wave(0, 5)[0]
        return gradients

    monkeypatch.setattr(tasks, "input_gradients", one_nonzero)
    task = jacobian(setup, "N", 0)
    found = task.compute([store.get(needed) for needed in task.inputs], None)
    assert found.arrays["shares"][4] == pytest.approx(1, abs=1e-4)
    assert np.isfinite(found.arrays["low"]).sum() == 1


# ------------------------------------------------------------------------------------------------------- corruptions


def test_every_corruption_comes_at_every_severity_in_order():
    pixels = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    found = list(corrupted_images(pixels, 0))
    assert len(found) == 70
    brightness = list(CORRUPTIONS).index("brightness")
    for severity in range(5):
        expected = (pixels + 0.1 * (severity + 1)).clamp(0, 1)
        torch.testing.assert_close(found[5 * brightness + severity], expected)
    assert all(map(torch.equal, found, corrupted_images(pixels, 0)))
    assert not torch.equal(found[0], next(corrupted_images(pixels, 1)))
    gray = list(corrupted_images(torch.full((2, 1, SIZE, SIZE), 0.5), 0))
    assert not torch.allclose((gray[0] - 0.5) / 0.04, (gray[1] - 0.5) / 0.08, atol=0.1)  # other noise, not only more


def test_noise_lies_in_its_band_and_has_its_deviation():
    gray = torch.full((3, 1, 32, 32), 0.5)
    found = list(noisy_images(gray, 0))
    assert len(found) == BANDS * len(DEVIATIONS)
    distance = radius(32, 32) / corner_radius(32, 32)
    for index, noisy in enumerate(found):
        band, deviation = index // len(DEVIATIONS), DEVIATIONS[index % len(DEVIATIONS)]
        added = noisy - gray
        assert added.square().mean((1, 2, 3)).sqrt().numpy() == pytest.approx(np.full(3, deviation), rel=0.02)
        inside = (distance >= band / BANDS) & (distance <= (band + 1) / BANDS + 1e-3)
        power = torch.fft.fft2(added).abs().square()
        assert (power * inside).sum() / power.sum() > 0.99  # except for what is clamped


def test_corruptions_are_evaluated_in_order(setup, store, network):
    found = store.get(corrupted(setup, "N", 0)).arrays
    images = first_images(setup, store.get(setup.dataset), N_CORRUPTED)
    whole = np.unpackbits(found["corruptions"], count=N_CORRUPTED * 70).reshape(N_CORRUPTED, 14, 5)
    dark = list(corrupted_images(images.pixels(), 0))[5 * list(CORRUPTIONS).index("contrast") + 4]
    assert (
        whole[:, list(CORRUPTIONS).index("contrast"), 4].tolist()
        == (predictions(network, dark) == images.labels).int().tolist()
    )
    bands = np.unpackbits(found["bands"], count=N_CORRUPTED * 12).reshape(N_CORRUPTED, BANDS, 2)
    noisy = list(noisy_images(images.pixels(), 0))[2 * 3 + 1]
    assert bands[:, 3, 1].tolist() == (predictions(network, noisy) == images.labels).int().tolist()
    assert found["clean"].tolist() == (predictions(network, images.pixels()) == images.labels).tolist()


def test_brightness_acts_at_low_frequencies_and_noise_does_not(setup, store):
    found, names = store.get(corruption_spectra(setup)).arrays, list(CORRUPTIONS)
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(
        ("mean_radius", "low_share", "statistic"), (14, 5)
    )
    bright, noise = names.index("brightness"), names.index("gaussian noise")
    assert found["mean_radius"][bright, 0] < 0.1 < 0.4 < found["mean_radius"][noise, 0] < 0.7
    assert found["low_share"][bright, 0] > 0.9 > 0.4 > found["low_share"][noise, 0]
    assert found["statistic"][bright, 0] > found["statistic"][noise, 0]


# ----------------------------------------------------------------------------------------------------------- attacks


def test_images_misclassified_clean_count_as_wrong_under_every_attack(setup, store):
    found = store.get(robust(setup, "N")).arrays
    assert set(found) == {"clean", "PGD half", "PGD", "AutoAttack", "Square"}
    for name, array in found.items():
        assert array.shape == (N_ROBUST,)
        assert not (array & ~found["clean"]).any(), name
    assert found["PGD"].sum() <= found["PGD half"].sum() < N_ROBUST


def test_an_attack_that_helps_does_not_count(setup, store, network, monkeypatch):
    """The clean images are black, the attacked ones real: an image wrong before cannot become robust."""
    real = first_images(setup, store.get(setup.dataset), N_ROBUST)
    black = Split(torch.zeros_like(real.images), real.labels)
    clean = predictions(network, black.pixels()) == real.labels
    specs = []

    def reveal(model, images, spec, **named):
        specs.append((named["family"], spec.epsilon))
        return real.pixels()

    monkeypatch.setattr(tasks, "first_images", lambda *_: black)
    monkeypatch.setattr(tasks, "attack_all", reveal)
    task = robust(setup, "N")
    found = task.compute([store.get(needed) for needed in task.inputs], None).arrays
    correct_attacked = predictions(network, real.pixels()) == real.labels
    assert (correct_attacked & ~clean).any()
    assert found["Square"].tolist() == (clean & correct_attacked).tolist()
    assert specs == [("PGD", 0.075), ("PGD", 0.15), ("AutoAttack", 0.15), ("Square", 0.15)]


# ---------------------------------------------------------------------------------------------------------- the files


def test_files_hold_the_results_of_the_tasks(setup, store, tmp_path):
    files = experiment.EXPERIMENTS[0].export(setup, store)
    for name, content in files.items():
        write_bytes(tmp_path / name, content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    results = Results(tmp_path, {"profile": "quick", "files": checksums})
    table = results.table("biased_networks").set_index(["network", "repetition"])
    assert table.index.tolist() == [*((name, n) for name in ("N", "N+", "N-") for n in range(2)), ("F", 0)]
    standard = store.get(setup.evaluation("N-", 1)).arrays["standard"]
    assert table.loc[("N-", 1), "standard"] == pytest.approx(100 * standard.mean())
    assert (bits(results.arrays("biased_evaluation"), "standard.N-")[1] == standard).all()
    whole = np.unpackbits(store.get(corrupted(setup, "N+", 1)).arrays["corruptions"], count=N_CORRUPTED * 70)
    assert (correct(results, "corruptions", "N+")[1] == 100 * whole.reshape(N_CORRUPTED, 14, 5)).all()
    amplitude = store.get(jacobian(setup, "N+", 1)).arrays["amplitude"]
    assert table.loc[("N+", 1), "amplitude"] == pytest.approx(amplitude.mean(), rel=1e-5)
    stored = results.arrays("jacobians")["amplitude.N+"][1].astype(float)
    assert stored == pytest.approx(amplitude / amplitude.mean(), rel=2e-3)
    for name, repetition in (("F", 0), ("N", 1)):
        square = store.get(robust(setup, name, repetition)).arrays["Square"]
        assert (results.arrays("robustness")[f"Square.{name}"][repetition] == square).all()
    spectra = results.table("corruptions").set_index(["corruption", "severity"])
    place = list(CORRUPTIONS).index("fog")
    expected = store.get(corruption_spectra(setup)).arrays["mean_radius"][place, 2]
    assert spectra.loc[("fog", 3), "mean_radius"] == pytest.approx(expected, rel=1e-5)
