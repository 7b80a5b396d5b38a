"""Measures on dataset masks, on tables and arrays made here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import FakeResults, symmetric_mask

from fmlib.core.intervals import pooled_range, wilson
from fmlib.core.spectra import radius
from fmlib.pipeline.results import NotComputed
from fmlib.studies.dataset_masks import analysis
from fmlib.studies.registry import all_claims

SIDE = 8


def correct(*counts: int) -> np.ndarray:
    """Per repetition, the first `count` of 100 images are classified correctly: (repetitions, 100)."""
    return np.stack([np.arange(100) < count for count in counts])


@pytest.fixture
def results() -> FakeResults:
    evaluation = {"standard.N": correct(80, 84), "masked.N": correct(78, 83), "attacked.N": correct(5, 7)}
    evaluation |= {name.replace("N", "A"): array[::-1] for name, array in evaluation.items()}
    masks = pd.DataFrame(
        [
            {"regime": regime, "repetition": repetition, "variant": variant, "low_share": share}
            for regime, repetition, variant, share in [
                ("N", 0, "plain", 0.4),
                ("A", 0, "plain", 0.7),
                ("A", 1, "plain", 0.9),
                ("N", 1, "plain", 0.5),
                ("N", 0, "single", 0.1),
            ]
        ]
    )
    stability = [("order", "N", 0.9), ("network", "N", 0.8), ("network", "A", 0.6)]
    return FakeResults(
        evaluation=evaluation,
        held_out={"standard": correct(80)[0], "half": correct(77)[0], "all": correct(79)[0]},
        masks=masks,
        stability=pd.DataFrame(stability, columns=["pair", "regime", "correlation"]),
        translation=pd.DataFrame({"measured": [1.0, 0.5], "exact": [1.0, 0.6]}),
    )


def test_accuracies_are_pooled_over_repetitions(results):
    assert analysis.accuracy(results, "standard", "N") == pooled_range([wilson(row) for row in correct(80, 84)])
    assert analysis.accuracy(results, "attacked", "N").value == 6
    found = analysis.masking_gap(results, "N")
    assert (found.value, found.n) == (pytest.approx(-1.5), 200)
    assert analysis.held_out_gap(results).value == pytest.approx(-3)


def test_the_table_of_accuracies_has_one_row_per_network(results):
    table = analysis.accuracies(results)
    assert table.index.tolist() == [("N", 0), ("N", 1), ("A", 0), ("A", 1)]
    assert table["standard"].tolist() == [80, 84, 84, 80]
    assert table.loc[("A", 1)].tolist() == [80, 78, 5]


def test_contrasts_of_masks_are_paired_by_seed(results):
    found = analysis.mask_contrast(results, "low_share", "A")
    assert found == (pytest.approx(0.35), pytest.approx(0.3), pytest.approx(0.4), 2)
    with pytest.raises(NotComputed, match="no network of regime S"):
        analysis.mask_contrast(results, "low_share", "S")


def test_repeated_measurements_have_their_range(results):
    assert analysis.stability_correlation(results, "network")[:3] == (pytest.approx(0.7), 0.6, 0.8)
    assert analysis.repetition_range(results, "stability", "correlation")[1:] == (0.6, 0.9, 3)
    found = analysis.sinc_error(results)
    assert (found.value, found.n) == (pytest.approx(0.1), 2)


def test_claims_on_the_second_architecture_read_its_networks():
    side, standard = 12, np.arange(100) < 50
    low = np.zeros((side, side))
    low[0, :3] = 1
    wide = low + np.roll(low, side // 2, (0, 1))  # as much at the corner
    arrays = {f"{what}.{regime}": standard for what in ("standard", "masked", "attacked") for regime in "NA"}
    arrays |= {"masked.N": np.arange(100) < 48, "masked.A": np.arange(100) < 51, "standard.A": standard[::-1]}
    arrays |= {"attacked.A": np.arange(100) < 42, "mask.N": wide, "mask.A": low}
    arrays |= {"standard.S": standard, "masked.S": np.arange(100) < 47, "mask.S": low, "mask.N1": wide.T}
    results = FakeResults(
        second_architecture=arrays,
        evaluation={"standard.N": np.arange(100)[None] < 54},
        dataset_masks={"N": np.stack([low, wide])},
    )
    claims = [claim for claim in all_claims() if claim.id.startswith("V.")]
    values = {claim.id: claim.measure(results, **claim.arguments).value for claim in claims}
    expected = {"V.accuracy": -4, "V.N.gap": -2, "V.A.gap": 1, "V.A.robust": 42, "V.S.gap": -3}
    expected |= {"V.low_shift": 0.5, "V.S.low_shift": 0.5, "V.N1.low_shift": 0}
    expected["V.correlation"] = np.corrcoef(wide.ravel(), low.ravel())[0, 1]
    expected["V.N1.correlation"] = np.corrcoef(wide.ravel(), wide.T.ravel())[0, 1]
    assert values == pytest.approx(expected)


def test_masks_of_two_sizes_are_compared_by_frequency_and_by_share_of_the_highest():
    """A disc of the same cycles in a larger plane agrees by frequency, one of the same share by rings."""
    small, same, stretched = (
        (radius(side, side) <= reach).double().numpy() for side, reach in ((SIDE, 3), (4 * SIDE, 3), (4 * SIDE, 12))
    )
    found = analysis.compare_sizes(small, same)
    assert (found["correlation"], found["within"], found["by_cycles"]) == ("1.00", "100%", "0.00")
    assert float(found["by_share"]) > 0.3
    same[0, 10] = same[0, -10] = 1  # beyond the smaller mask's frequencies
    assert analysis.compare_sizes(small, same)["within"] == f"{29 / 31:.0%}"
    found = analysis.compare_sizes(small, stretched)
    assert float(found["by_share"]) < 0.1 < float(found["by_cycles"])
    assert float(found["correlation"]) < 0.7


def test_shapes_of_masks_are_means_with_ranges():
    """A mask of zeros and ones is saturated; one that is the same everywhere and in between is not."""
    binary = np.zeros((SIDE, SIDE))
    binary[0, 1] = binary[0, -1] = 1
    stacks = {"N": np.stack([np.full((SIDE, SIDE), 0.5), binary])}
    shares = {"l1_share": [0.5, 0.25], "low_share": [0.2, 0.2], "mean_radius": [0.5, 0.5]}
    masks = pd.DataFrame({"regime": "N", "repetition": [0, 1], "variant": "plain"} | shares)
    shapes = analysis.mask_shapes(FakeResults(masks=masks, dataset_masks=stacks))
    assert shapes.loc["N", "l1_share"] == "0.38 (0.25 to 0.50)"
    assert shapes.loc["N", "saturated"] == "0.50 (0.00 to 1.00)"


def test_masks_of_each_regime_are_compared_with_those_of_the_standard_networks():
    one, other = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])  # their correlation is -1
    stacks = {"N": np.stack([one, other]), "A": np.stack([one, one]), "N.half": one}
    table = analysis.similarity_to_standard(FakeResults(dataset_masks=stacks))
    assert list(table.index) == ["N", "A"]
    assert table.loc["N"].tolist() == ["-1.00 (-1.00 to -1.00)", "\N{EN DASH}"]
    assert table.loc["A"].tolist() == ["0.00 (-1.00 to 1.00)", "0.00 (-1.00 to 1.00)"]


def test_the_table_of_resnets_compares_each_mask_with_that_of_n():
    masks = {f"mask.{name}": np.full((8, 8), 0.5, dtype=np.float32) for name in ("N", "N1", "A", "S")}
    masks["mask.A"][0, 0] = 1.0
    table = analysis.resnet_table(masks | {"standard.N": np.array([True, False])})
    assert list(table["accuracy (%)"]) == ["50.0", "n/a", "n/a", "n/a"]
    assert table.loc["standard (N)", "r with N"] == "n/a"
    assert table.loc["adversarially trained (A)", "L1 share"] == "0.508"


def test_trainings_of_one_network_are_compared():
    class Published(FakeResults):
        def arrays(self, name):
            if name not in self.files:
                raise NotComputed(name)
            return self.files[name]

    present, earlier = symmetric_mask(0, 16), symmetric_mask(1, 16)
    evaluated = {f"{kind}.N": np.array([[True, False, True, True]]) for kind in ("standard", "masked", "attacked")}
    files = {"evaluation": evaluated, "dataset_masks": {"N": present[None]}}
    alone = analysis.trainings_table(Published(**files))
    assert alone.loc["training 1", ["accuracy (%)", "r"]].tolist() == ["75.0", "n/a"]
    correct = {f"{kind}.N": np.array([[True, False], [True, True]]) for kind in ("standard", "masked", "attacked")}
    masks = np.stack([earlier, symmetric_mask(2, 16)])
    table = analysis.trainings_table(Published(**files, earlier_trainings=correct | {"mask.N": masks}))
    assert list(table.index) == ["training 1", "training 2", "training 3"]
    assert table["mask applied (%)"].tolist() == ["50.0", "100.0", "75.0"]
    assert table.loc["training 1", "L1 share"] == f"{earlier.mean():.3f}"
    assert float(table.loc["training 1", "r"]) == pytest.approx(correlation(present, earlier), abs=0.01)
    assert table.loc["training 3", "r"] == "n/a"


def correlation(plane, other):
    return np.corrcoef(plane.ravel(), other.ravel())[0, 1]
