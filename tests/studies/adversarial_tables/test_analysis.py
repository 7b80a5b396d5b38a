"""Measures and tables of adversarial images, on arrays made here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import FakeResults

from fmlib.pipeline.results import NotComputed
from fmlib.studies.adversarial_tables import analysis


def first(count: int) -> np.ndarray:
    """The first `count` of ten images: (10,) bool."""
    return np.arange(10) < count


def halves(low: float, high: float) -> np.ndarray:
    """A half mask (1, 16, 9) with one entry near DC and one near the corner."""
    half = np.zeros((1, 16, 9), dtype=np.float16)
    half[0, 0, 1], half[0, 7, 7] = low, high
    return half


def test_exceedance_compares_band_energies_and_ties_do_not_exceed():
    results = FakeResults(image_masks={"N.x": halves(0.5, 0.5), "A.xA": halves(1, 0.25), "A.x": halves(0.5, 0.5)})
    found = analysis.exceeds(results, "A.xA")
    assert found.shape == (1, 64)
    assert found[0, :16].any()
    assert not found[0, 16:].any()
    assert not analysis.exceeds(results, "A.xA", binary=True).any()  # the same supports
    assert not analysis.exceeds(results, "A.x").any()
    low, middle = (analysis.exceedance_in_bands(results, "A.xA", False, bands) for bands in ("lowest", "middle"))
    assert (low.value, middle.value) == (100 * found[0, :4].mean(), 0)
    shares = analysis.exceedance(results)
    assert len(shares) == 3
    np.testing.assert_array_equal(next(iter(shares.values()))["radial"], 100 * found[0])


def test_equal_shares_of_energy_are_a_tie():
    first, second = np.zeros((2, 20, 64, 33), np.float16)
    for count in range(20):
        first[count, 20, 5 : 6 + count] = 1  # count + 1 entries in this row and one in another, against twice as many
        first[count, 2, 5] = 1
        second[count, [20, -20], 5 : 6 + count] = 1
        second[count, [2, -2], 5] = 1
    for normal, adversarial in ((first, second), (second, first)):
        assert not analysis.exceeds(FakeResults(image_masks={"N.x": normal, "A.x": adversarial}), "A.x").any()


def test_low_shift_is_paired_by_image_and_needs_masks_of_a():
    table = pd.DataFrame({"kind": ["N.x", "N.x", "A.xA", "A.xA"], "low_share": [0.5, 0.2, 0.9, 0.8]})
    found = analysis.low_shift(FakeResults(image_masks=table))
    assert (found.value, found.n) == (pytest.approx(0.5), 2)
    with pytest.raises(NotComputed):
        analysis.low_shift(FakeResults(image_masks=table[table["kind"] == "N.x"]))


def test_attack_energy_is_compared_with_that_at_matched_frequencies():
    results = FakeResults(tables={"attack_inside": np.array([0.2, 0.4]), "attack_matched": np.array([0.1, 0.2])})
    found = analysis.attack_enrichment(results)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))  # twice in every resample
    assert analysis.attack_outside(results).value == pytest.approx(70)


def test_shares_of_energy_are_means_in_percent_with_a_column_per_scale():
    names = ("attack_inside", "attack_matched", "attack_passed", "image_passed")
    small, large = (
        FakeResults(tables={name: np.array([low, low + 0.2]) for low, name in enumerate(names)}) for _ in range(2)
    )
    table = analysis.energy_table({"64 px": small, "128 px": large})
    assert list(table) == ["64 px (%)", "128 px (%)"]
    assert table["64 px (%)"].tolist() == [10, 110, 210, 310]


def test_masks_of_another_network_are_compared_on_the_same_images():
    results = FakeResults(adaptive={"aware.A": first(4)}, evaluation={"attacked.N": first(1)[None]})
    assert analysis.borrowed_mask(results, "N").value == pytest.approx(30)


def test_eligibility_counts_by_the_text_and_by_the_code():
    """Five images: eligible by both, by the text alone, by the code alone (made correct), unchanged, and wrong."""
    n_clean, n_attacked, a_clean = ([1, 1, 0, 1, 0], [0, 0, 1, 1, 0], [1, 0, 0, 1, 1])
    labels = np.ones(5, dtype=int)
    pairs = {"labels": labels, "prediction.N.x": np.array(n_clean), "prediction.N.xA": np.array(n_attacked)}
    found = analysis.eligibility(FakeResults(pairs=pairs | {"prediction.A.x": np.array(a_clean)}))
    expected = {"validation": 5, "eligible": 2, "by_code": 2, "only_text": 1, "only_code": 1, "turned_right": 1}
    assert found == {name: str(count) for name, count in expected.items()}


@pytest.fixture
def attacked() -> FakeResults:
    rng, names = np.random.default_rng(0), ("PGD 4/255", "PGD 8/255", "CW")
    arrays = {}
    for index, name in enumerate(names):
        arrays |= {f"N.{name}": first(2 + index), f"A.{name}": first(6), f"distance.{name}": np.arange(10.0)}
        arrays |= {f"masked.{name}": np.array([True, False, True]), f"spectrum.{name}": rng.random((8, 5))}
    labels = np.ones(10, dtype=int)
    pairs = {"labels": labels, "prediction.N.x": first(8).astype(int)}
    return FakeResults(attacks=arrays, pairs=pairs, image_masks={"image": np.array([2, 5, 7])})


def test_one_spectrum_per_family_is_compared_with_that_of_the_training_attack(attacked):
    assert list(analysis.attack_spectra(attacked)) == ["PGD 4/255", "CW"]
    found, table = analysis.attack_structure(attacked), analysis.attack_table(attacked)
    assert found.n == 1
    assert table.loc["CW", "correlation with PGD"] == pytest.approx(found.value, abs=1e-3)
    assert table.loc["PGD 4/255", "correlation with PGD"] == pytest.approx(1)


def test_attacks_are_compared_on_the_images_that_they_make_eligible(attacked):
    table = analysis.attack_table(attacked)
    assert table["accuracy of N (%)"].tolist() == [20, 30, 40]
    assert table["accuracy of A (%)"].tolist() == [60, 60, 60]
    assert table["eligible images"].tolist() == [6, 5, 4]  # correct are eight, less those that stay correct
    assert table["N with masks (%)"].tolist() == [66.7, 50, 50]
    assert table["median l2 distance"].tolist() == [4.5, 4.5, 4.5]


def test_adaptive_attacks_are_tabulated_beside_unmasked_networks():
    unmasked, masked = {"standard": 8, "attacked": 7}, {"clean": 6, "unaware": 5, "aware": 4}
    evaluation = {f"{name}.{regime}": first(count)[None] for name, count in unmasked.items() for regime in "NA"}
    adaptive = {f"{name}.{regime}": first(count) for name, count in masked.items() for regime in "NA"}
    table = analysis.adaptive_table(FakeResults(evaluation=evaluation, adaptive=adaptive))
    assert table.index.tolist() == ["N", "A", "N with N's mask", "N with A's mask"]
    assert table.loc["N"].tolist() == [80, 70, 70]
    assert table.loc["N with A's mask"].tolist() == [60, 50, 40]
