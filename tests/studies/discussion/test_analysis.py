"""Thresholds, centres, widths, and claims about networks whose answers are known."""

import numpy as np
import pytest
from conftest import FakeResults

from fmlib.pipeline.results import NotComputed
from fmlib.pipeline.store import packed
from fmlib.studies.discussion import analysis
from fmlib.studies.discussion.experiment import DEVIATIONS, INSTRUMENTS

OCTAVES, COUNT, PAIRS = 5, 200, 100


def correct(steps):
    """Whether images are classified correctly in noise, of networks that fail at step `steps[o]` in each octave."""
    fails = np.arange(len(DEVIATIONS)) >= np.array(steps)[:, None]
    return np.repeat(~fails[:, :, None], COUNT, 2)


def network(steps, cut):
    """What the instruments store of a network with these steps, that follows the low half from cut `cut` on."""
    peak = np.exp(-((np.arange(OCTAVES) - cut) ** 2))
    low = np.repeat((np.arange(OCTAVES + 1) > cut)[:, None], PAIRS, 1)
    arrays = {"mask": peak, "jacobian": peak[::-1], "heat": peak**2}
    clean = np.ones(COUNT, bool)
    for name, array in (("clean", clean), ("noise", correct(steps)), ("low", low), ("high", ~low)):
        arrays |= packed(name, array)
    return arrays


@pytest.fixture
def results():
    """Four kinds of network; N and A have two seeds."""
    cuts = {"N": 3, "A": 1, "N+": 2, "T": 4}
    arrays = {"classes": np.array(4)}
    for kind, cut in cuts.items():
        steps = np.abs(np.arange(OCTAVES) - cut) + 3  # most sensitive at the cut
        for seed in range(2 if kind in "NA" else 1):
            arrays |= {f"{kind}.{seed}/{name}": array for name, array in network(steps, cut).items()}
    return FakeResults(instruments=arrays)


def test_a_threshold_is_interpolated_and_stays_within_the_deviations():
    everyone, clean = np.full((1, COUNT), 1 / COUNT), np.ones(COUNT, bool)
    half = correct([3, 0, len(DEVIATIONS)])
    half[0, 3] = np.arange(COUNT) < COUNT // 2  # 50%: below the level, which is (1 + 1/4) / 2
    (found,) = analysis.thresholds(half, clean, 4, everyone)
    steps = np.log2(DEVIATIONS)
    assert found[0] == pytest.approx(steps[2] + (1 - 0.625) / 0.5)  # deviations differ by one octave
    assert found[1:].tolist() == [steps[0], steps[-1]]


def test_centre_and_width_of_known_profiles():
    octave = np.arange(41.0)
    normal = np.exp(-((octave - 20) ** 2) / (2 * 4**2))
    assert analysis.centre(normal) == pytest.approx(20)
    assert analysis.width(normal) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * 4, rel=1e-3)
    assert analysis.centre(np.eye(5)).tolist() == [0, 1, 2, 3, 4]
    assert analysis.width(np.eye(5)).tolist() == [0] * 5
    assert np.isnan(analysis.centre(np.zeros(5)))


def test_kinds_and_seeds_are_read_in_the_order_of_pages(results):
    assert analysis.networks(results) == {"N": ["N.0", "N.1"], "N+": ["N+.0"], "A": ["A.0", "A.1"], "T": ["T.0"]}
    assert [len(one) for one in analysis.profiles(results, "noise").values()] == [2, 1, 2, 1]


def test_differences_of_networks_without_noise_have_no_width(results):
    centre = analysis.channel_difference(results, "centre")
    assert (centre.low, centre.high) == pytest.approx((centre.value, centre.value))
    assert (centre.n, centre.value < -0.5) == (2 * COUNT, True)
    assert analysis.channel_difference(results, "width", more="N").value == 0
    hybrid = analysis.hybrid_difference(results)
    assert (hybrid.value, hybrid.low, hybrid.n) == (pytest.approx(50), pytest.approx(50), 2 * PAIRS)  # 2 of 4 cuts


def test_agreement_is_of_the_centres_of_kinds(results):
    assert analysis.agreement(results, "mask", "hybrid") == (1, 1, 1, 4)
    assert analysis.agreement(results, "mask", "jacobian") == (-1, -1, -1, 4)
    few = FakeResults(instruments={name: a for name, a in results.files["instruments"].items() if name[0] != "T"})
    with pytest.raises(NotComputed, match="fewer than 4 kinds"):
        analysis.agreement(few, "mask", "heat")
    table = analysis.agreement_table(results)
    assert list(table.index) == list(table.columns) == list(INSTRUMENTS.values())
    assert all(table.loc[name, name] == "" for name in table.index)
    assert table.loc["dataset mask", "hybrid images"] == "1.00 (1.00 to 1.00)"
    assert analysis.centre_table(results).loc["standard (N)", "hybrid images"] == "8.0"
