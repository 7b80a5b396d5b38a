"""Analysis of heat maps: which frequencies are low, how errors are weighted, and the direction of each difference."""

import numpy as np
import pytest
import torch
from conftest import FakeResults
from scipy.stats import spearmanr

from fmlib.core.spectra import corner_radius, full_plane, radius
from fmlib.studies.fourier_heat_maps import analysis
from fmlib.studies.registry import all_claims

SIZE = 16
LOW = (radius(SIZE, SIZE) < corner_radius(SIZE, SIZE) / 3).numpy()  # (16, 16)
CLAIMS = {claim.id: claim for claim in all_claims() if claim.chapter == "fourier_heat_maps"}


def heat_results(**errors: np.ndarray) -> FakeResults:
    """Heat maps with these errors, (N, 16, 9) bool, and masks that keep the low frequencies."""
    mask = LOW[:, : SIZE // 2 + 1].astype(np.float32)
    arrays = {f"mask.{regime}": mask for regime in errors}
    for regime, array in errors.items():
        arrays |= {f"errors.{regime}": np.packbits(array), f"shape.{regime}": np.array(array.shape)}
        arrays[f"clean.{regime}"] = np.arange(len(array)) == 0
    return FakeResults(heat_maps=arrays)


def repeated(plane, count=6):
    """The half plane of the same errors for each of `count` images, (count, 16, 9)."""
    return np.repeat(plane[None, :, : SIZE // 2 + 1], count, 0)


def measured(identity, results):
    claim = CLAIMS[identity]
    return claim.measure(results, **claim.arguments)


@pytest.fixture
def opposite():
    """N and N- are wrong at high frequencies only, A and N+ at low ones only."""
    return heat_results(**{"N": repeated(~LOW), "A": repeated(LOW), "N+": repeated(LOW), "N-": repeated(~LOW)})


def test_errors_are_read_as_they_were_written(opposite):
    errors = analysis.heat_errors(opposite, "N")
    assert errors.shape == (6, 16, 9)
    assert (full_plane(errors[0].float(), SIZE).numpy() == ~LOW).all()


def test_band_errors_weight_each_frequency_of_the_plane_once():
    corner = np.zeros((SIZE, SIZE), bool)
    corner[SIZE // 2, SIZE // 2 - 1] = corner[SIZE // 2, SIZE // 2 + 1] = True  # an interior column and its mirror
    results = heat_results(N=repeated(corner))
    assert analysis.band_errors(results, "N", low=False) == pytest.approx(np.full(6, 2 / (~LOW).sum()))
    assert (analysis.band_errors(results, "N", low=True) == 0).all()


def test_claims_measure_the_direction(opposite):
    values = {identity: measured(identity, opposite)[:3] for identity in CLAIMS}
    assert values.pop("H.A.agreement")[0] == values.pop("H.N+.agreement")[0] == pytest.approx(1)
    assert values.pop("H.N.agreement")[0] == values.pop("H.N-.agreement")[0] == pytest.approx(-1)
    assert values.pop("H.N-.low") == values.pop("H.N-.high") == (0, 0, 0)
    assert set(values) == {"H.A.high", "H.A.low", "H.N+.high", "H.N+.low"}
    assert set(values.values()) == {(100, 100, 100)}


def test_each_network_is_compared_with_the_standard_one():
    results = heat_results(**{"N": repeated(LOW), "A": repeated(~LOW), "N+": repeated(~LOW), "N-": repeated(~LOW)})
    values = {identity: measured(identity, results).value for identity in CLAIMS if "agreement" not in identity}
    assert values == {
        "H.A.high": -100, "H.A.low": -100, "H.N+.high": -100, "H.N+.low": -100, "H.N-.low": 100, "H.N-.high": 100
    }  # fmt: skip


def test_heat_maps_are_percentages_over_the_full_plane_beside_the_masks(opposite):
    assert (analysis.heat_maps(opposite)["A"] == 100 * LOW).all()
    assert (analysis.masks(opposite)["A"] == LOW).all()


def test_error_rates_are_percentages(opposite):
    table = analysis.error_table(opposite)
    assert table.loc["standard (N)"].str.split("%").str[0].tolist() == ["16.7", "0.0", "100.0"]
    assert table.loc["adversarially trained (A)"].str.split("%").str[0].tolist() == ["16.7", "100.0", "0.0"]


def test_rings_divide_the_plane_from_dc_to_the_corner(opposite):
    assert [mean.value for mean in analysis.ring_errors(opposite, "A", rings=3)] == [100, 0, 0]
    dot = np.zeros((SIZE, SIZE), bool)
    dot[0, 0] = True
    means = analysis.ring_errors(heat_results(N=repeated(dot)), "N", rings=3)
    assert means[0].value == pytest.approx(100 / LOW.sum())
    assert means[0].n == 6


# --------------------------------------------------------------------------------------------- rank correlation


def random_errors(seed: int, count: int = 60) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, SIZE, SIZE // 2 + 1, generator=rng) < torch.rand(SIZE, SIZE // 2 + 1, generator=rng)


def test_correlation_of_a_map_with_itself_is_one_and_with_its_negative_minus_one():
    found = random_errors(0)
    same = analysis.rank_correlation(found, found.float().mean(0), seed=0)
    assert same.value == pytest.approx(1)
    assert same.low <= same.value <= same.high
    assert analysis.rank_correlation(found, -found.float().mean(0), seed=0).value == pytest.approx(-1)


def test_value_is_spearmans_over_the_full_plane():
    found, mask = random_errors(0), random_errors(1).float().mean(0)
    expected = spearmanr(full_plane(found.double().mean(0), SIZE).flatten(), full_plane(mask, SIZE).flatten())
    assert analysis.rank_correlation(found, mask, seed=0).value == pytest.approx(expected.statistic)


def test_interval_follows_the_seed_and_narrows_with_images():
    few, many = random_errors(0), random_errors(0, 2000)
    mask = many.float().mean(0)
    assert analysis.rank_correlation(few, mask, seed=0) == analysis.rank_correlation(few, mask, seed=0)
    widths = [
        interval.high - interval.low for interval in (analysis.rank_correlation(e, mask, seed=0) for e in (few, many))
    ]
    assert 0 < widths[1] < widths[0] / 2


def test_an_independent_map_and_mask_have_a_small_correlation():
    found = analysis.rank_correlation(random_errors(0), random_errors(1).float().mean(0), seed=0)
    assert abs(found.value) < 0.26  # three standard deviations for 130 independent frequencies


def test_a_constant_map_has_correlation_zero():
    found = analysis.rank_correlation(
        torch.zeros(5, SIZE, SIZE // 2 + 1, dtype=torch.bool), torch.rand(SIZE, SIZE // 2 + 1), seed=0
    )
    assert tuple(found) == (0.0, 0.0, 0.0, 5)
