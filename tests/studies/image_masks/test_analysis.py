"""Measures on image masks, on tables and arrays made here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import FakeResults

from fmlib.pipeline.results import NotComputed
from fmlib.studies.image_masks import analysis


@pytest.fixture
def results() -> FakeResults:
    columns = {
        "kind": ["N.x", "N.x", "N.x", "A.x"],
        "converged": [True, True, False, True],
        "kept": [True, False, True, True],
        "steps": [10, 20, 60, 40],
        "l1_share": [0.1, 0.2, 0.3, 0.4],
        "nonzero_share": [0.01, 0.02, 0.06, 0.08],
        "objective": [1.0, 1.1, 1.2, 1.3],
    }
    stability = {"same_image": [0.5, 0.7, 0.9], "same_class": [0.4, np.nan, 0.2]}
    own, matched = np.array([[0, 1, 1], [1, 1, 1]], bool), np.array([[1, 0, 0], [1, 0, 0]], bool)
    return FakeResults(
        image_masks=pd.DataFrame(columns),
        image_stability=pd.DataFrame(stability),
        necessity={"keep.own": own, "keep.matched": matched},
    )


def test_a_difference_is_that_of_one_row_in_points(results):
    found = analysis.difference(results, "keep.own", "keep.matched", file="necessity", row=-1)
    assert (found.value, found.n) == (pytest.approx(200 / 3), 3)
    assert analysis.difference(results, "keep.own", "keep.matched", "necessity", 0).value == pytest.approx(100 / 3)


def test_means_are_those_of_one_kind_and_rates_those_of_all(results):
    found = analysis.mask_mean(results, "nonzero_share")
    assert (found.value, found.n) == (pytest.approx(0.03), 3)
    assert analysis.mask_mean(results, "nonzero_share", "A.x").value == 0.08
    found = analysis.converged(results)
    assert (found.value, found.n) == (75, 4)
    found = analysis.converged_kept(results)
    assert (found.value, found.n) == (pytest.approx(200 / 3), 3)


def test_excess_is_compared_on_the_images_that_both_solvers_have():
    authors = pd.DataFrame({"kind": ["N.x", "N.x", "A.x"], "image": [7, 3, 3], "objective": [1.2, 1.4, 2.0]})
    minimal = pd.DataFrame({"kind": 4 * ["N.x"], "image": [1, 3, 5, 7], "objective": [9.0, 1.1, 9.0, 1.3]})
    results = FakeResults(image_masks=authors, minimal_image_masks=minimal)
    results.require_same_networks = lambda first, second: None
    found = analysis.excess_ratio(results, "N.x")
    assert (found.value, found.n) == (pytest.approx((0.1 + 0.3) / (0.2 + 0.4)), 2)
    with pytest.raises(NotComputed, match=r"masks A\.x by both solvers"):
        analysis.excess_ratio(results, "A.x")


def test_stability_leaves_out_images_without_a_partner(results):
    assert analysis.stability_mean(results, "same_image").value == pytest.approx(0.7)
    found = analysis.own_image(results)
    assert (found.value, found.n) == (pytest.approx((0.1 + 0.7) / 2), 2)


def test_the_table_of_kinds_separates_converged_masks_from_others(results):
    table = analysis.kinds(results)
    assert table.index.tolist() == ["N.x", "A.x"]
    assert table.loc["N.x", ["masks", "converged (%)", "steps (median)"]].tolist() == [3, 66.7, 20]
    assert table.loc["N.x", ["kept if converged (%)", "kept if not converged (%)"]].tolist() == [50, 100]
    assert table.loc["A.x", "kept if converged (%)"] == 100
    assert np.isnan(table.loc["A.x", "kept if not converged (%)"])


def test_networks_are_tabulated_at_every_scale_if_they_were_evaluated():
    rates = {"x": [True, True], "masked": [True, False], "complement": [False, False]}
    tables = {name: np.array(values) for name, values in rates.items()}
    both = FakeResults(tables=tables | {f"second.{name}": ~values for name, values in tables.items()})
    table = analysis.networks_table({"64 px": both, "128 px": FakeResults(tables=tables)})
    assert [label.split(":")[0] for label in table.index] == ["64 px", "64 px", "128 px"]
    assert table["mask applied (%)"].tolist() == [50, 50, 50]
    assert table["complement applied (%)"].tolist() == [0, 100, 0]


def test_near_zero_entries_are_those_that_two_steps_of_adam_could_make():
    """At a learning rate of 0.05 an entry of 0.01 is near zero, one of 0.2 is not, and 0 is no entry."""
    half = np.array([[[0, 0.01], [1, 0.2]], [[0, 0.005], [0, 0.01]]], dtype=np.float16)
    found = analysis.near_zero(FakeResults(image_masks={"N.x": half}))
    assert found["share"] == "67%"  # a third and all
    assert found["interval"] == "1% to 132%"
    assert found["below"] == "0.1"
    assert found["energy"] == "2 \N{MULTIPLICATION SIGN} 10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT FOUR}"
