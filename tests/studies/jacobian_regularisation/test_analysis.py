"""The claims on Jacobian regularisation: pairing, halves of the spectrum, order, masking, and signs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.intervals import Measured
from fmlib.pipeline.store import bits, packed
from fmlib.studies.jacobian_regularisation import analysis
from fmlib.studies.jacobian_regularisation.analysis import (
    CLAIMS,
    gains,
    halves,
    radii,
    rank_correlation,
    right,
    together,
)

SEEDS, IMAGES, KINDS, BANDS = 2, 30, 14, 6
NAMES = ("N", "N+", "N-", "N_low", "F", "F+")
#: The radii are out of order, so that whoever takes the table's order for that of the radius is found out.
RADII = np.random.default_rng(0).permutation(KINDS) / KINDS


def count(name: str) -> int:
    return SEEDS if name in ("N", "N+", "N-", "N_low") else 1


class Made:
    """Results in which every network is right as often as `chance` says: (name, kind, place) -> share."""

    def __init__(self, chance=lambda name, kind, place: 0.5, low=None, masks=None, robust=None) -> None:
        rng = np.random.default_rng(1).random((SEEDS, IMAGES, KINDS, 5))  # the same luck for every network
        self.files = {"corruptions": {}, "jacobians": {}, "robustness": robust or {}, "biased_evaluation": {}}
        rows = []
        for name in NAMES:
            for kind, kinds, strengths in (("corruptions", KINDS, 5), ("bands", BANDS, 2)):
                share = np.array([chance(name, kind, place) for place in range(kinds)])
                hits = rng[: count(name), :, :kinds, :strengths] < share[:, None]
                self.files["corruptions"] |= packed(f"{kind}.{name}", hits)
            value = (low or {}).get(name, 0.5)
            self.files["jacobians"][f"low.{name}"] = np.full((count(name), IMAGES), value, np.float16)
            self.files["biased_evaluation"] |= packed(f"standard.{name}", rng[: count(name), :, 0, 0] < value)
            for number in range(count(name)):
                mask = (masks or {}).get(name, 0.5) + 0.01 * number
                rows.append((name, number, 10 * value + number, value, mask, 100 * value, 3.0))
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
    return claim.measure(results)


def position(kind: str, place: int) -> float:
    """From 0, the lowest kind, to below 1."""
    return RADII[place] if kind == "corruptions" else place / BANDS


def biased(name: str, kind: str, place: int) -> float:
    """N+ and N_low gain at high frequencies and lose at low ones; N- the reverse."""
    side = 1 if position(kind, place) >= 0.5 else -1
    return 0.5 + 0.3 * side * {"N+": 1, "N_low": 1, "N-": -1}.get(name, 0)


# ---------------------------------------------------------------------------------------------------- what is read


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_bits_are_read_as_they_were_packed(shape, seed):
    found = np.random.default_rng(seed).random(shape) < 0.5
    assert (bits(packed("x", found), "x") == found).all()


def test_gains_are_points_paired_by_seed_and_averaged_over_strengths():
    made = Made(biased)
    found = gains(made, "corruptions", "N+")
    assert found.shape == (SEEDS, IMAGES, KINDS)
    own, plain = (right(made, "corruptions", name) for name in ("N+", "N"))
    assert found[1, 3, 5] == pytest.approx((own - plain)[1, 3, 5].mean())
    assert np.abs(found).max() <= 100


def test_a_network_without_repetition_is_compared_with_the_first_seed():
    made = Made(biased)
    found = gains(made, "bands", "F")
    assert found.shape == (1, IMAGES, BANDS)
    assert (found == 0).all()  # the same chance and the same luck as N of that seed


def test_gains_can_be_taken_over_another_network():
    made = Made(lambda name, kind, place: {"F": 0.2, "F+": 1.0}.get(name, 0.5))
    own = right(made, "bands", "F").mean()
    assert gains(made, "bands", "F+", "F").mean() == pytest.approx(100 - own)


@pytest.mark.parametrize("kind", ["corruptions", "bands"])
def test_halves_are_those_below_and_above_the_median(kind):
    made = Made(lambda name, kind, place: 1.0 if name == "N+" and position(kind, place) >= 0.5 else 0.0)
    low, high = halves(made, kind, "N+")
    assert low.shape == high.shape == (SEEDS, IMAGES)
    assert (low == 0).all()
    assert (high == 100).all()


def test_radii_are_those_of_the_corruptions_in_the_tables_order():
    assert radii(Made()) == pytest.approx(RADII)


# -------------------------------------------------------------------------------------------------- rank correlation


def test_rank_correlation_is_spearmans_with_bonett_and_wrights_interval():
    """Ranks 1 2 3 4 5 against 2 1 4 3 5 differ by one four times: rho = 1 - 6 * 4 / (5 * 24) = .8."""
    found = rank_correlation(np.array([1, 2, 3, 4, 50.0]), np.array([2, 1, 4, 3, 5.0]))
    assert (found.value, found.n) == (pytest.approx(0.8), 5)
    error, centre = 1.959964 * math.sqrt((1 + 0.32) / 2), math.atanh(0.8)
    assert (found.low, found.high) == pytest.approx((math.tanh(centre - error), math.tanh(centre + error)))


def test_orders_that_agree_or_are_reversed_have_an_interval_without_width():
    values = np.arange(6.0)
    assert rank_correlation(values, values**3) == Measured(1, 1, 1, 6)
    assert rank_correlation(values, -values) == Measured(-1, -1, -1, 6)


def test_equal_values_correlate_with_nothing():
    found = rank_correlation(np.arange(14.0), np.ones(14))
    assert found.value == 0
    assert found.low == -found.high < -0.4


# ------------------------------------------------------------------------------------------------------------ claims


def test_gains_and_costs_tell_the_half_and_the_direction():
    made = Made(biased)
    judged = {claim.id: claim.measure(made) for claim in CLAIMS if claim.id.startswith(("J.corr", "J.ord", "J.band"))}
    assert len(judged) == 11
    for identity, found in judged.items():
        assert found.low > 0, identity
    assert judged["J.corruption.N+.gain"].value == pytest.approx(30, abs=6)
    assert judged["J.bands.N-"].value == pytest.approx(60, abs=12)
    swap = {"N+": "N-", "N-": "N+", "N_low": "N-"}
    turned = Made(lambda name, kind, place: biased(swap.get(name, name), kind, place))
    for identity in judged:
        assert measured(turned, identity).high < 0, identity


def test_a_gain_at_all_frequencies_alike_has_no_order_and_no_cost():
    made = Made(lambda name, kind, place: 1.0 if name == "N+" else 0.0)
    assert measured(made, "J.corruption.N+.gain").value == 100
    assert measured(made, "J.corruption.N+.cost").value == -100
    assert measured(made, "J.order.N+").value == measured(made, "J.bands.N+").value == 0


def test_intervals_over_seeds_span_those_of_each():
    """Both seeds enter, and neither alone."""
    found = measured(Made(biased), "J.corruption.N+.gain")
    assert found.n == SEEDS * IMAGES


def test_jacobians_and_statistics_are_differences_from_n():
    made = Made(low={"N": 0.25, "N+": 0.75, "N-": 0.125, "N_low": 0.5})
    assert measured(made, "J.jacobian.N+")[:3] == (0.5, 0.5, 0.5)
    assert measured(made, "J.jacobian.N-")[:3] == (0.125, 0.125, 0.125)
    assert measured(made, "J.jacobian.N_low") == Measured(0.25, 0.25, 0.25, SEEDS * IMAGES)
    assert measured(made, "J.statistic.N+")[:3] == (5, 5, 5)
    assert measured(made, "J.statistic.N-")[:3] == (1.25, 1.25, 1.25)


def test_images_without_gradient_are_left_out():
    made = Made(low={"N": 0.25, "N+": 0.75})
    made.files["jacobians"]["low.N+"][:, :10] = np.nan
    assert measured(made, "J.jacobian.N+") == Measured(0.5, 0.5, 0.5, SEEDS * (IMAGES - 10))


def test_accuracy_is_the_biased_networks_less_that_of_n():
    made = Made(low={"N": 1.0, "N+": 0.0, "N-": 1.0})
    assert measured(made, "J.accuracy.N+").value == -100
    assert measured(made, "J.accuracy.N-").value == 0


def robust(**right_of: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Of 100 images so many withstand in each repetition: `<attack>__<name>` with "p" for "+"."""
    withstood = {key.replace("__", ".").replace("p", "+"): np.array(shares) for key, shares in right_of.items()}
    return {key: np.arange(100) < shares[:, None] for key, shares in withstood.items()}


def test_attacks_compare_the_biased_network_with_its_base_of_the_same_seed():
    shares = {"AutoAttack__Fp": (60,), "AutoAttack__F": (40,), "AutoAttack__Np": (5, 40), "AutoAttack__N": (10, 20)}
    made = Made(robust=robust(**shares))
    assert measured(made, "J.attack.F+").value == 20
    found = measured(made, "J.attack.N+")
    assert found.value == 7.5  # -5 and 20
    assert found.low < -5
    assert found.high > 20


def test_a_network_of_one_seed_is_compared_with_the_first_of_its_base():
    made = Made(robust=robust(AutoAttack__N_high=(30,), AutoAttack__N=(10, 90)))
    assert measured(made, "J.attack.N_high").value == 20


def test_masking_is_judged_by_the_network_where_it_is_worst():
    shares = {"PGD__N": (10, 10), "PGD__Fp": (50,), "Square__N": (30, 3), "Square__Fp": (48,)}
    shares |= {"AutoAttack__N": (9, 10), "AutoAttack__Fp": (49,)}
    found = robust(**shares) | {"PGD half.N": np.zeros((2, 100), bool)}
    made = Made(robust=found)
    assert measured(made, "J.masking.Square").value == 7  # of the second N; of the first it is -20, of F+ 2
    assert measured(made, "J.masking.AutoAttack").value == 1


def test_masks_are_compared_seed_by_seed_and_kinds_of_networks_by_their_means():
    masks = dict(zip(NAMES, (0.3, 0.5, 0.1, 0.6, 0.2, 0.4), strict=True))
    made = Made(low=masks, masks=masks)
    assert measured(made, "J.bridge.N+")[:3] == pytest.approx((0.2, 0.2, 0.2))
    assert measured(made, "J.bridge.N-")[:3] == pytest.approx((0.2, 0.2, 0.2))
    assert together(made) == Measured(1, 1, 1, len(NAMES))
    made = Made(low=masks, masks={name: 1 - share for name, share in masks.items()})
    assert together(made).value == -1
    assert measured(made, "J.bridge.N+").value == pytest.approx(-0.2)


def test_only_the_papers_abstract_is_named_as_its_source():
    named = {claim.source for claim in CLAIMS if "Chan" in claim.source}
    assert named == {"Chan et al. (2022), abstract"}
    assert all(claim.published is None and claim.chapter == analysis.CHAPTER for claim in CLAIMS)
