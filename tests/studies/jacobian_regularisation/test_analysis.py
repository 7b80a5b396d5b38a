"""Numbers of the chapter on Jacobian regularisation: claims, data of figures, tables, numbers in the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.intervals import Measured
from fmlib.pipeline.claims import load_claims
from fmlib.pipeline.store import bits, packed
from fmlib.studies.jacobian_regularisation import analysis
from fmlib.studies.jacobian_regularisation.analysis import (
    correct,
    gains,
    gains_by_half,
    jacobian_mask_correlation,
    radii,
)
from fmlib.studies.shared.names import full_name
from fmlib.studies.shared.profiles import PROFILES

CLAIMS = load_claims(Path(analysis.__file__).with_name("claims.toml"), analysis)
SEEDS, IMAGES, KINDS, BANDS = 2, 30, 14, 6
NAMES = ("N", "N+", "N-", "N_low", "F", "F+")
#: The radii are out of order, so that the order of the table is not that of the radius.
RADII = np.random.default_rng(0).permutation(KINDS) / KINDS


def count(name: str) -> int:
    return SEEDS if name in ("N", "N+", "N-", "N_low") else 1


class SyntheticResults:
    """Results in which every network has the accuracy `chance`: (name, kind, place) -> share."""

    def __init__(self, chance=lambda name, kind, place: 0.5, low=None, masks=None, robust=None) -> None:
        rng = np.random.default_rng(1).random((SEEDS, IMAGES, KINDS, 5))  # the same numbers for every network
        self.files = {"corruptions": {}, "jacobians": {}, "robustness": robust or {}, "biased_evaluation": {}}
        rows = []
        for name in NAMES:
            for kind, kinds, strengths in (("corruptions", KINDS, 5), ("bands", BANDS, 2)):
                share = np.array([chance(name, kind, place) for place in range(kinds)])
                own = rng[: count(name), :, :kinds, :strengths] < share[:, None]
                self.files["corruptions"] |= packed(f"{kind}.{name}", own)
            value = (low or {}).get(name, 0.5)
            self.files["jacobians"][f"low.{name}"] = np.full((count(name), IMAGES), value, np.float16)
            self.files["biased_evaluation"] |= packed(f"standard.{name}", rng[: count(name), :, 0, 0] < value)
            for repetition in range(count(name)):
                mask = (masks or {}).get(name, 0.5) + 0.01 * repetition
                rows.append((name, repetition, 10 * value + repetition, value, mask, 100 * value, 3.0))
        shares = ["jacobian_low_share", "mask_low_share", "standard"]
        columns = ["network", "repetition", "statistic", *shares, "amplitude"]
        self.tables = {"biased_networks": pd.DataFrame(rows, columns=columns)}
        spectra = [
            (f"kind {place}", severity, RADII[place] + 0.001 * (severity - 3))
            for place in range(KINDS)
            for severity in range(1, 6)
        ]
        self.tables["corruptions"] = pd.DataFrame(spectra, columns=["corruption", "severity", "mean_radius"])

    def arrays(self, name):
        return self.files[name]

    def table(self, name):
        return self.tables[name]


def measured(results, identity: str) -> Measured:
    (claim,) = [claim for claim in CLAIMS if claim.id == identity]
    return claim.measure(results, **claim.arguments)


def position(kind: str, place: int) -> float:
    """From 0, the lowest kind, to below 1."""
    return RADII[place] if kind == "corruptions" else place / BANDS


def biased(name: str, kind: str, place: int) -> float:
    """N+ and N_low gain at high frequencies and lose at low ones; N- the reverse."""
    side = 1 if position(kind, place) >= 0.5 else -1
    return 0.5 + 0.3 * side * {"N+": 1, "N_low": 1, "N-": -1}.get(name, 0)


# ---------------------------------------------------------------------------------------------------- reading the files


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_bits_are_read_as_they_were_packed(shape, seed):
    array = np.random.default_rng(seed).random(shape) < 0.5
    assert (bits(packed("x", array), "x") == array).all()


def test_gains_are_points_paired_by_seed_and_averaged_over_strengths():
    results = SyntheticResults(biased)
    found = gains(results, "corruptions", "N+")
    assert found.shape == (SEEDS, IMAGES, KINDS)
    own, base = (correct(results, "corruptions", name) for name in ("N+", "N"))
    assert found[1, 3, 5] == pytest.approx((own - base)[1, 3, 5].mean())
    assert np.abs(found).max() <= 100


def test_a_network_without_repetition_is_compared_with_the_first_seed():
    results = SyntheticResults(biased)
    found = gains(results, "bands", "F")
    assert found.shape == (1, IMAGES, BANDS)
    assert (found == 0).all()  # the same accuracy and the same images as N of that seed


def test_gains_can_be_taken_over_another_network():
    results = SyntheticResults(lambda name, kind, place: {"F": 0.2, "F+": 1.0}.get(name, 0.5))
    own = correct(results, "bands", "F").mean()
    assert gains(results, "bands", "F+", "F").mean() == pytest.approx(100 - own)


@pytest.mark.parametrize("kind", ["corruptions", "bands"])
def test_halves_are_below_and_above_the_median(kind):
    results = SyntheticResults(lambda name, kind, place: 1.0 if name == "N+" and position(kind, place) >= 0.5 else 0.0)
    low, high = gains_by_half(results, kind, "N+")
    assert low.shape == high.shape == (SEEDS, IMAGES)
    assert (low == 0).all()
    assert (high == 100).all()


def test_radii_are_those_of_the_corruptions_in_the_tables_order():
    assert radii(SyntheticResults()) == pytest.approx(RADII)


# -------------------------------------------------------------------------------------------------- rank correlation


# ------------------------------------------------------------------------------------------------------------ claims


def test_claims_on_gains_and_costs_depend_on_the_half_and_the_direction():
    results = SyntheticResults(biased)
    names = [claim.id for claim in CLAIMS if claim.id.startswith(("J.corr", "J.ord", "J.band"))]
    values = {identity: measured(results, identity) for identity in names}
    assert len(values) == 11
    for identity, found in values.items():
        assert found.low > 0, identity
    assert values["J.corruption.N+.gain"].value == pytest.approx(30, abs=6)
    assert values["J.bands.N-"].value == pytest.approx(60, abs=12)
    swap = {"N+": "N-", "N-": "N+", "N_low": "N-"}
    reversed_results = SyntheticResults(lambda name, kind, place: biased(swap.get(name, name), kind, place))
    for identity in values:
        assert measured(reversed_results, identity).high < 0, identity


def test_an_equal_gain_at_all_frequencies_has_no_order_and_no_cost():
    results = SyntheticResults(lambda name, kind, place: 1.0 if name == "N+" else 0.0)
    assert measured(results, "J.corruption.N+.gain").value == 100
    assert measured(results, "J.corruption.N+.cost").value == -100
    assert measured(results, "J.order.N+").value == measured(results, "J.bands.N+").value == 0


def test_n_counts_the_images_of_both_seeds():
    found = measured(SyntheticResults(biased), "J.corruption.N+.gain")
    assert found.n == SEEDS * IMAGES


def test_jacobians_and_statistics_are_differences_from_n():
    results = SyntheticResults(low={"N": 0.25, "N+": 0.75, "N-": 0.125, "N_low": 0.5})
    assert measured(results, "J.jacobian.N+")[:3] == (0.5, 0.5, 0.5)
    assert measured(results, "J.jacobian.N-")[:3] == (0.125, 0.125, 0.125)
    assert measured(results, "J.jacobian.N_low") == Measured(0.25, 0.25, 0.25, SEEDS * IMAGES)
    assert measured(results, "J.statistic.N+")[:3] == (5, 5, 5)
    assert measured(results, "J.statistic.N-")[:3] == (1.25, 1.25, 1.25)


def test_images_without_gradient_are_left_out():
    results = SyntheticResults(low={"N": 0.25, "N+": 0.75})
    results.files["jacobians"]["low.N+"][:, :10] = np.nan
    assert measured(results, "J.jacobian.N+") == Measured(0.5, 0.5, 0.5, SEEDS * (IMAGES - 10))


def test_accuracy_is_the_biased_networks_less_that_of_n():
    results = SyntheticResults(low={"N": 1.0, "N+": 0.0, "N-": 1.0})
    assert measured(results, "J.accuracy.N+").value == -100
    assert measured(results, "J.accuracy.N-").value == 0


def robust(**counts: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The number of correct images out of 100 in each repetition: `<attack>__<name>` with "p" for "+"."""
    named = {key.replace("__", ".").replace("p", "+"): np.array(repetitions) for key, repetitions in counts.items()}
    return {key: np.arange(100) < repetitions[:, None] for key, repetitions in named.items()}


def test_attacks_compare_the_biased_network_with_its_base_of_the_same_seed():
    counts = {"AutoAttack__Fp": (60,), "AutoAttack__F": (40,), "AutoAttack__Np": (5, 40), "AutoAttack__N": (10, 20)}
    results = SyntheticResults(robust=robust(**counts))
    assert measured(results, "J.attack.F+").value == 20
    found = measured(results, "J.attack.N+")
    assert found.value == 7.5  # -5 and 20
    assert found.low < -5
    assert found.high > 20


def test_a_network_of_one_seed_is_compared_with_the_first_of_its_base():
    results = SyntheticResults(robust=robust(AutoAttack__N_high=(30,), AutoAttack__N=(10, 90)))
    assert measured(results, "J.attack.N_high").value == 20


def test_masking_is_measured_on_the_network_where_it_is_largest():
    counts = {"PGD__N": (10, 10), "PGD__Fp": (50,), "Square__N": (30, 3), "Square__Fp": (48,)}
    counts |= {"AutoAttack__N": (9, 10), "AutoAttack__Fp": (49,)}
    found = robust(**counts) | {"PGD half.N": np.zeros((2, 100), bool)}
    results = SyntheticResults(robust=found)
    assert measured(results, "J.masking.Square").value == 7  # of the second N; of the first it is -20, of F+ 2
    assert measured(results, "J.masking.AutoAttack").value == 1


def test_masks_are_compared_seed_by_seed_and_kinds_of_networks_by_their_means():
    masks = dict(zip(NAMES, (0.3, 0.5, 0.1, 0.6, 0.2, 0.4), strict=True))
    results = SyntheticResults(low=masks, masks=masks)
    assert measured(results, "J.bridge.N+")[:3] == pytest.approx((0.2, 0.2, 0.2))
    assert measured(results, "J.bridge.N-")[:3] == pytest.approx((0.2, 0.2, 0.2))
    assert jacobian_mask_correlation(results) == Measured(1, 1, 1, len(NAMES))
    results = SyntheticResults(low=masks, masks={name: 1 - share for name, share in masks.items()})
    assert jacobian_mask_correlation(results).value == -1
    assert measured(results, "J.bridge.N+").value == pytest.approx(-0.2)


def test_only_the_abstract_of_chan_et_al_is_cited():
    cited = {claim.reference for claim in CLAIMS if "Chan" in claim.reference}
    assert cited == {"Chan et al. (2022), abstract"}
    assert all(claim.published is None and claim.chapter == "jacobian_regularisation" for claim in CLAIMS)


# ------------------------------------------------------------------------------------------------ data of the figures


def test_rows_of_gains_hold_every_band_and_intervals_of_every_seed():
    rows = analysis.gain_rows(SyntheticResults(biased), "bands")
    assert rows["name"].tolist() == ["N+"] * BANDS + ["N-"] * BANDS
    assert rows["radius"][:BANDS].tolist() == pytest.approx([(2 * band + 1) / 12 for band in range(BANDS)])
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    assert (rows["low"] < rows["high"]).any()
    for name in ("N+", "N-"):
        mean = gains(SyntheticResults(biased), "bands", name).mean((0, 1))
        assert rows["value"][rows["name"] == name].tolist() == pytest.approx(mean.tolist())


def test_rows_of_gains_name_each_corruption_with_its_radius():
    results = SyntheticResults(biased)
    rows = analysis.gain_rows(results, "corruptions")
    own = rows[rows["name"] == "N+"]
    assert own["label"].tolist() == [f"kind {place} ({radius:.2f})" for place, radius in enumerate(RADII)]
    assert own["radius"].tolist() == pytest.approx(RADII.tolist())
    assert own["value"].tolist() == pytest.approx(gains(results, "corruptions", "N+").mean((0, 1)).tolist())
    assert analysis.median_radius(results) == pytest.approx(np.median(RADII))


# ------------------------------------------------------------------------------------------------------------- tables


@dataclass
class CompleteResults(SyntheticResults):
    """Results with every array that the tables read."""

    profile: str = "quick"
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        super().__init__(
            lambda name, *place: 0.2 if name[0] == "F" else biased(name, *place), low={"N": 0.25}, robust=self.extra
        )
        for name in NAMES:
            self.files["corruptions"][f"clean.{name}"] = np.ones((count(name), 30), bool)
            for kind in ("masked", "attacked"):
                self.files["biased_evaluation"] |= packed(f"{kind}.{name}", np.zeros((count(name), 30), bool))
            self.files["jacobians"][f"amplitude.{name}"] = np.ones((count(name), 4, 3), np.float16)


def every_attack() -> dict[str, np.ndarray]:
    """Of 100 images 90 are correct, clean and under Square; none under another attack, but 45 of F+ under PGD."""
    kinds = ("clean", "PGD half", "PGD", "AutoAttack", "Square")
    found = {
        f"{kind}.{name}": np.tile(np.arange(100) < 90 * (kind in ("clean", "Square")), (count(name), 1))
        for kind in kinds
        for name in NAMES
    }
    return found | {"PGD.F+": np.arange(100)[None] < 45}


def read(table) -> pd.DataFrame:
    """The text of an HTML table, by row and column."""
    head, *rows = ElementTree.fromstring(table.data.replace("<br>", " ")).iter("tr")
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in rows}
    return pd.DataFrame.from_dict(cells, orient="index", columns=[cell.text for cell in head[1:]])


def test_tables_of_attacks_name_every_network_and_compare_biased_ones_with_their_base():
    results = CompleteResults(extra=every_attack())
    table = read(analysis.attacks_table(results))
    assert table.index.tolist() == [full_name(name) for name in NAMES]
    assert table.loc["FGSM-trained (F)", "Square"].startswith("90.0 (82.")
    table = read(analysis.attack_differences_table(results))
    pairs = ["N+ compared with N", "N\N{MINUS SIGN} compared with N", "N_low compared with N", "F+ compared with F"]
    assert table.index.tolist() == pairs
    assert table.loc["F+ compared with F", "PGD"].startswith("45.0 (35.")
    assert set(table["Square"]) == {"0.0"}


def test_table_of_halves_has_gains_over_the_same_training():
    table = read(analysis.halves_table(CompleteResults()))
    assert table.columns.tolist() == ["corruptions, low", "corruptions, high", "bands, low", "bands, high"]
    assert table.loc["F+ compared with F"].tolist() == ["0.0"] * 4
    first = table.loc["N+ compared with N"]
    assert first["bands, low"].startswith("\N{MINUS SIGN}")
    assert not first["bands, high"].startswith("\N{MINUS SIGN}")


def test_table_of_networks_spans_the_seeds():
    table = read(analysis.networks_table(CompleteResults()))
    assert table.index.tolist() == [full_name(name) for name in NAMES]
    assert table.loc["standard (N)", "S"] == "2.5 to 3.5"
    assert table.loc["standard (N)", "mean amplitude"] == "3.00"
    assert table.loc["standard (N)", "Jacobian's low share"] == "0.250"
    assert table.loc["FGSM-trained (F)", "mask's low share"] == "0.500"


@pytest.mark.parametrize(
    ("row", "column", "share"),
    [(0, 0, 0), (7, 0, 0), (8, 0, 1), (-8, 0, 1), (16, 2, 1), (16, 3, 0), (9, 12, 0), (0, 16, 0), (7, 2, 0), (8, 2, 1)],
)
def test_energy_near_the_vertical_axis_counts_above_a_third_of_the_corner_radius(row, column, share):
    """At 32 px the third is 7.5 and the sixteenth of the width 2."""
    amplitude = np.zeros((32, 17))
    amplitude[row, column] = 3
    assert analysis.axis_share(amplitude) == share


def test_quoted_numbers_are_text():
    found = analysis.numbers(CompleteResults(extra=every_attack()))
    assert (found["n_corrupted"], found["n_robust"], found["seeds"]) == ("30", "100", "2")
    assert found["deviations"] == "0.05 and 0.1"
    assert (found["statistic.N"], found["statistic.F"]) == ("2.5 to 3.5", "5.0")
    assert found["jacobian_low_share.N"] == "0.250"
    assert found["axis.N+"] == "0.188"  # rows 1, 2 and 3 of column 0, of 16 frequencies
    assert found["axis.N++"] == found["amplitude.A"] == "(not computed)"
    assert found["lambda"] == f"{PROFILES['quick'].jafr:g}"
    assert found["median"] == f"{np.median(RADII):.2f}"
