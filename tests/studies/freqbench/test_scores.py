"""The scores of FreqBench: an oracle, random scores, controls, curves and stability with known values."""

import pytest
import torch
from torch import nn

from fmlib.core.errors import FmlibError
from fmlib.core.spectra import full_plane
from fmlib.studies.freqbench import scores
from fmlib.studies.freqbench.tasks import networks
from fmlib.studies.freqbench.tasks.problems import TASKS, Problem, oracle
from fmlib.studies.freqbench.tasks.tones import KINDS, make_tones


@pytest.fixture(scope="module", params=KINDS)
def problem(request):
    return TASKS[request.param].load(8, None)


def test_the_oracle_is_perfect(problem):
    found = scores.quality(problem, oracle(problem))
    assert found["precision"].tolist() == found["recall"].tolist() == [1.0] * 8
    assert found["insertion"].min() > 0.4
    assert (found["fewest"] < 1.5).all()


def test_random_scores_reach_prevalence():
    plane = scores.Plane(32, 32)
    truth = torch.zeros(4000, plane.count, dtype=torch.bool)
    truth[:, :10] = True
    values = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    found = scores.on_truth(plane.rank(values, "test"), truth)
    assert found["precision"].mean().item() == pytest.approx(10 / plane.count, rel=0.05)
    assert found["recall"].mean().item() == pytest.approx(40 / plane.count, rel=0.05)


def test_equal_scores_are_ranked_at_random():
    plane = scores.Plane(16, 16)
    rank = plane.rank(torch.zeros(3000, plane.count), "test").float().mean(0)
    assert rank.min().item() > 0.9 * plane.count / 2 - 1
    assert rank.max().item() < 1.1 * plane.count / 2 + 1


def test_tones_are_checked_on_the_network(problem):
    """The class is predicted from the truth, and not from the rest."""
    plane = scores.Plane(32, 32)
    truth = plane.values(problem.truth.float()) > 0.5
    spectrum = torch.fft.rfft2(problem.images)
    for sets, kept in ((truth, True), (~truth, False)):
        filtered = torch.fft.irfft2(spectrum * plane.half(sets)[:, None], s=(32, 32))
        assert (problem.model(filtered).argmax(1) == problem.target).tolist() == [kept] * 8


def test_amplitudes_of_phase_coded_tones_say_nothing_about_the_class():
    data = make_tones("phase", train=4, validation=400)
    spectrum = torch.fft.rfft2(data.validation.pixels())[:, 0].abs()
    means = torch.stack([spectrum[data.validation.labels == label].mean(0) for label in range(4)])
    for row, column in data.truth[0].tolist():
        assert means[:, row, column].std() / means[:, row, column].mean() < 0.05


def test_every_network_opens():
    for name in ("JaFR", "ResNet", "N-seed", *(f"{kind}.{seed}" for kind in KINDS for seed in (0, 1))):
        assert not networks.network(name).training
    assert len(networks.checksum()) == 16


class Single(nn.Module):
    """Class 0 if the energy at one frequency is there."""

    def forward(self, images):
        energy = torch.fft.rfft2(images)[:, 0, 2, 3].abs()
        return torch.stack((energy, torch.full_like(energy, 10.0)), 1)


def test_curves_have_known_areas():
    """A set of k frequencies keeps the class from the place of the one that counts on."""
    images = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images += 100 * torch.fft.irfft2(
        torch.zeros(16, 9).index_put((torch.tensor(2), torch.tensor(3)), torch.tensor(1.0))
    )
    plane, problem = scores.Plane(16, 16), Problem(Single(), images, torch.zeros(1, dtype=torch.int64))
    half = torch.zeros(16, 9)
    half[2, 3] = -1.0  # the lowest score
    found = scores.quality(problem, full_plane(half, 16)[None], others=False)
    assert found["fewest"].item() == 100
    assert found["insertion"].item() < 2 / len(plane.grid) + 0.05
    best = scores.quality(problem, -full_plane(half, 16)[None], others=False)
    assert best["fewest"].item() == pytest.approx(100 / plane.count)
    assert best["deletion"].item() < 0.05
    assert best["insertion"].item() > 0.95


def test_shuffled_scores_keep_their_radii():
    plane = scores.Plane(16, 16)
    values = torch.rand(3, plane.count)
    shuffled = plane.shuffled(values)
    for ring in plane.ring.unique():
        one, other = (part[:, plane.ring == ring].sort(1).values for part in (values, shuffled))
        assert torch.equal(one, other)
    assert not torch.equal(values, shuffled)


def test_agreement_is_a_correlation():
    first = torch.rand(2, 16, 16)
    torch.testing.assert_close(scores.agreement(first, 2 * first + 1), torch.ones(2).double())
    torch.testing.assert_close(scores.agreement(first, -first), -torch.ones(2).double())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1.0], "must return a torch tensor, not list"),
        (torch.zeros(2, 16, 9), r"must return scores \(2, 16, 16\), not \(2, 16, 9\)"),
        (torch.full((2, 16, 16), torch.nan), "not finite"),
    ],
)
def test_wrong_scores_are_refused(found, message):
    with pytest.raises(FmlibError, match=message):
        scores.check_scores(found, torch.zeros(2, 1, 16, 16))
