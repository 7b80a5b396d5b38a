"""Analysis of frequency maps: which rows the claims and tables read, and what their numbers mean."""

import numpy as np
import pandas as pd
import pytest
from conftest import FakeResults

from fmlib.pipeline.claims import FAILED, PARTIAL, REPRODUCED
from fmlib.studies.frequency_maps import analysis
from fmlib.studies.registry import all_claims
from fmlib.studies.shared.profiles import profile

CLAIMS = {claim.id: claim for claim in all_claims() if claim.chapter == "frequency_maps"}


def measured(identity, **files):
    claim = CLAIMS[identity]
    return claim.measure(FakeResults(**files), **claim.arguments)


def maps(**changed):
    """Four maps for each network and kind, all of which keep their prediction."""
    rows = [
        {"network": network, "kind": kind, "image": image, "kept": True, "l1_share": 0.02, "low_share": 0.5}
        for network in "NA"
        for kind in ("essential", *analysis.ATTACKS)
        for image in range(4)
    ]
    table = pd.DataFrame(rows).assign(target=0, label=0, converged=True, steps=10, loss=0.5)
    return table.assign(**changed)


def test_kept_counts_both_networks_but_not_both_kinds():
    table = maps()
    table.loc[(table["kind"] == "essential") & (table["image"] == 0), "kept"] = False
    assert measured("B.kept.essential", frequency_maps=table)[0::3] == (75, 8)
    assert measured("B.kept.adversarial", frequency_maps=table)[0::3] == (100, 24)


def test_sparsity_is_that_of_the_standard_networks_kept_essential_maps():
    table = maps(l1_share=0.5)
    chosen = (table["kind"] == "essential") & (table["network"] == "N")
    table.loc[chosen, "l1_share"] = [0.01, 0.02, 0.03, 0.9]
    table.loc[chosen & (table["image"] == 3), "kept"] = False
    found = measured("B.sparse", frequency_maps=table)
    assert (found.value, found.n) == (pytest.approx(2), 3)


def test_low_shares_are_compared_on_the_same_images():
    table = maps()
    essential, attacked = ((table["network"] == "N") & (table["kind"] == kind) for kind in ("essential", "PGD"))
    table.loc[essential, "low_share"] = [0.9, 0.8, 0.7, 0.6]
    table.loc[attacked, "low_share"] = [0.5, 0.6, 0.7, 0.0]
    table.loc[attacked & (table["image"] == 3), "kept"] = False
    found = measured("B.high", frequency_maps=table)
    assert (found.value, found.n) == (pytest.approx(0.2), 3)


def similarities():
    """One row for each comparison, measure and way of shuffling, identical except for p and the number of images."""
    rows = []
    for network in "NA":
        for attack in analysis.ATTACKS:
            for measure in ("dimension", "distance", "svcca", "cosine"):
                for way in ("all", "class"):
                    row = {"first": f"{network} essential", "second": f"{network} {attack}", "measure": measure}
                    row |= {"shuffled": way, "images": 10 + len(rows), "value": 0.5, "mean": 0.3, "sd": 0.1}
                    rows.append(row | {"low": 0.1, "high": 0.4, "p": len(rows) / 100})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("identity", "network", "attack", "way"),
    [
        ("B.similar.PGD.idcor", "N", "PGD", "all"),
        ("B.similar.DeepFool.within", "N", "DeepFool", "class"),
        ("B.similar.A.FAB.idcor", "A", "FAB", "all"),
    ],
)
def test_correlations_read_their_row(identity, network, attack, way):
    table = similarities()
    row = table.query("first == @network + ' essential' and second == @network + ' ' + @attack and shuffled == @way")
    row = row[row["measure"] == "dimension"].iloc[0]
    assert measured(identity, map_similarity=table) == (row["p"], row["p"], row["p"], row["images"])


def test_a_correlation_is_significant_below_five_percent():
    rule = CLAIMS["B.similar.PGD.idcor"].rule
    assert [rule.verdict(p) for p in (0.049, 0.05, 0.1)] == [REPRODUCED, PARTIAL, FAILED]


def test_sets_that_could_not_be_compared_have_no_similarity():
    table = similarities().query("second != 'A PGD'")
    assert measured("B.similar.A.PGD.idcor", map_similarity=table) == (1, 1, 1, 0)
    assert measured("B.similar.PGD.cosine", map_cosines={}) == (0, 0, 0, 1)


def test_effect_sizes_are_in_standard_deviations_of_the_shuffled_pairings():
    table = similarities()
    chosen = (table["measure"] == "dimension") & (table["shuffled"] == "all")
    table.loc[chosen & (table["second"] == "N PGD"), "value"] = 1.3  # effect size 10, minus 2 of distance correlation
    table.loc[chosen & (table["second"] == "N FAB"), "sd"] = 0.4  # effect size 0.5, minus 2
    found = measured("B.similar.dimension", map_similarity=table)
    assert found == (pytest.approx((8 + 0 - 1.5) / 3), pytest.approx(-1.5), pytest.approx(8), 3)


def test_cosine_difference_compares_pairs_with_maps_of_the_same_class():
    cosines = np.array([[0.9, 0.5, 0.0], [0.7, 0.5, 0.0], [0.1, np.nan, 0.0]])
    for identity, name in (
        ("B.similar.FAB.cosine", "N essential|N FAB"),
        ("B.similar.attacks", "N PGD|N FAB"),
        ("B.similar.networks", "N essential|A essential"),
    ):
        found = measured(identity, map_cosines={f"{name}|cosines": cosines})
        assert (found.value, found.n) == (pytest.approx(0.3), 2)


# --------------------------------------------------------------------------------------------------------- classes


@pytest.fixture
def class_transfer():
    """Four images of three classes; N is correct on the first three, of which PGD fools the first two."""
    return {
        "label": np.array([0, 1, 2, 0]),
        "clean": np.array([0, 1, 2, 1]),
        "PGD": np.array([1, 2, 2, 1]),
        "FAB": np.array([0, 1, 0, 0]),
        "filtered.clean": np.array([[0, 1, 2], [1, 0, 1], [2, 2, 2], [0, 0, 0]]),
        "filtered.PGD": np.array([[0, 1, 0], [1, 2, 0], [9, 9, 9], [9, 9, 9]]),
        "filtered.FAB": np.array([[9, 9, 9], [9, 9, 9], [0, 1, 2], [9, 9, 9]]),
        "classes": np.array(["a", "b", "c"]),
        "half": np.zeros((3, 1, 8, 5)),
    }


def test_predictions_are_of_the_images_that_the_attack_fools(class_transfer):
    results = FakeResults(class_transfer=class_transfer)
    assert analysis.filtered_predictions(results, "PGD")[1].tolist() == [0, 1]
    assert analysis.filtered_predictions(results, "FAB")[0].tolist() == [[0, 1, 2]]
    assert analysis.filtered_predictions(results, "clean")[1].tolist() == [0, 1, 2, 0]


def test_class_claims(class_transfer):
    """Image 0 is correct with maps 0 and 2, and map 1 induces class 1; image 1 is correct with map 0 only."""
    found = {
        identity: measured(identity, class_transfer=class_transfer) for identity in CLAIMS if "B.class" in identity
    }
    assert found["B.class.undone"][0::3] == (50, 2)
    assert found["B.class.cost"].value == pytest.approx(0)  # three correct without maps and with those of their class
    assert found["B.class.own"].value == pytest.approx(100 * ((1 - 0.5) + (0 - 0.5)) / 2)
    assert found["B.class.pull"].value == pytest.approx(100 * ((1 - 0.5) + (0 - 0)) / 2)


def test_cost_is_the_accuracy_lost_with_the_maps(class_transfer):
    class_transfer["filtered.clean"][0] = 1
    assert measured("B.class.cost", class_transfer=class_transfer).value == pytest.approx(25)


def test_the_rate_of_other_maps_ignores_the_map_of_the_own_class():
    predictions, label = np.array([[0, 0, 1], [0, 1, 0]]), np.array([0, 1])
    assert analysis.other_maps_rate(predictions, label[:, None], label).tolist() == [0.5, 0]
    assert analysis.other_maps_rate(predictions, np.arange(3)[None], label).tolist() == [0, 0.5]


@pytest.fixture
def image_transfer():
    """Maps of images 7 and 5, of classes 0 and 1, and four images; A has only the one of image 5, which induces 1."""
    arrays = {
        "image": np.array([7, 5]),
        "target": np.array([0, 1]),
        "number": np.array([7, 5, 3, 8]),
        "label": np.array([0, 1, 0, 2]),
        "clean": np.array([0, 1, 2, 0]),
        "filtered": np.array([[0, 0, 0, 1], [1, 1, 1, 1]], dtype=np.uint8),
    }
    found = {f"{name}.N": array for name, array in arrays.items()}
    single = {name: array[1:] if name in ("image", "target", "filtered") else array for name, array in arrays.items()}
    return found | {f"{name}.A": array for name, array in single.items()}


def test_transfer_rates_are_of_the_own_image_its_class_and_other_classes(image_transfer):
    rates = analysis.transfer_rates(FakeResults(image_transfer=image_transfer), "N")
    assert rates["own"].tolist() == [1, 1]
    assert rates["class"].tolist() == [1, pytest.approx(np.nan, nan_ok=True)]  # no other image is of class 1
    assert rates["other"].tolist() == [0.5, 1]
    assert rates["unmasked"].tolist() == [0.5, 0]


def test_claims_on_transfer_count_images_of_other_classes(image_transfer):
    assert measured("B.exchanged.N", image_transfer=image_transfer)[0::3] == (75, 2)
    assert measured("B.exchanged.A", image_transfer=image_transfer)[0::3] == (100, 1)


def test_image_transfer_is_averaged_over_maps(image_transfer):
    found = analysis.image_transfer_table(FakeResults(image_transfer=image_transfer))
    assert found.loc["N"].tolist() == ["100.0", "100.0", "75.0", "25.0"]
    assert found.loc["A", "images of other classes"] == "100.0"


def test_claims_point_to_the_figures_that_show_them():
    figures = {identity: claim.figure for identity, claim in CLAIMS.items()}
    assert figures["B.class.pull"] == "figure-crossed"
    assert figures["B.similar.A.PGD.idcor"] == "figure-similarity"
    assert figures["B.high"] == "figure-attacked-frequencies"
    assert figures["B.exchanged.A"] == "whose-are-the-frequencies"
    assert figures["B.sparse"] == "figure-frequency-maps"


# ---------------------------------------------------------------------------------------------------------- tables


def test_the_map_table_describes_the_maps_that_are_kept():
    table = maps()
    chosen = (table["network"] == "A") & (table["kind"] == "FAB")
    table.loc[chosen, "l1_share"] = [0, 0.1, 0.3, 0.9]
    table.loc[chosen & (table["image"] == 3), "kept"] = False
    found = analysis.map_table(FakeResults(frequency_maps=table))
    assert list(found.index) == [(network, kind) for network in "NA" for kind in ("essential", *analysis.ATTACKS)]
    row = found.loc[("A", "FAB")]
    assert row[["maps", "prediction kept (%)", "all zero (%)"]].tolist() == [4, 75, 25]
    assert row["sum of the map"] == pytest.approx(0.4 / 3 * profile("quick").data.size ** 2, abs=0.06)
    assert found.loc[("N", "PGD"), "low share (%)"] == 50


def test_the_similarity_table_shows_both_ways_of_shuffling():
    table = similarities()
    found = analysis.similarity_table(FakeResults(map_similarity=table))
    assert list(found.index)[:2] == ["N essential, N PGD", "N essential, N DeepFool"]
    row = table.query("first == 'A essential' and second == 'A PGD' and measure == 'distance'").set_index("shuffled")
    shown = found.loc["A essential, A PGD", "distance correlation"]
    p, within = (f"{row.loc[way, 'p']:.2f}" for way in ("all", "class"))
    assert shown.to_dict() == {"value": "0.500", "shuffled": "0.300", "p": p, "p within classes": within}
    assert p != within


def test_class_transfer_rates_are_percentages_of_the_images_of_a_class(class_transfer):
    found = analysis.class_transfer_rates(FakeResults(class_transfer=class_transfer))
    assert list(found) == ["clean images", "fooled by PGD", "fooled by FAB"]
    assert found["clean images"].tolist() == [[50, 100, 50, 50], [100, 100, 0, 100], [100, 100, 100, 100]]
    assert found["fooled by PGD"][:2].tolist() == [[0, 100, 0, 100], [0, 100, 0, 0]]
    assert np.isnan(found["fooled by PGD"][2]).all()
    assert found["fooled by FAB"][2].tolist() == [0, 0, 0, 100]


def test_numbers_for_prose(class_transfer):
    arrays = {"image.N": np.arange(4)}
    for network in "NA":
        arrays |= {f"label.{network}": np.array([0, 1, 2, 0]), f"prediction.{network}": np.array([0, 1, 2, 1])}
        for attack in analysis.ATTACKS:
            arrays[f"prediction.{attack}.{network}"] = np.array([1, 1, 0, 1])
            arrays[f"distance.{attack}.{network}"] = np.array([1, 5, 3, 9]) / 255
    arrays["prediction.PGD.A"] = arrays["label.A"]
    class_transfer |= {"DeepFool": class_transfer["label"], "filtered.DeepFool": class_transfer["filtered.PGD"]}
    table = similarities()
    chosen = (table["second"] == "N FAB") & (table["measure"] == "distance") & (table["shuffled"] == "all")
    attacks = table[chosen].assign(first="N PGD", value=-0.11, p=0.99)
    table = pd.concat((table, attacks))
    found = analysis.numbers(FakeResults(frequency_maps=arrays, class_transfer=class_transfer, map_similarity=table))
    assert (found["effect.attacks.distance"], found["p.attacks.distance"]) == ("\N{MINUS SIGN}4.1", "0.99")
    assert (found["effect.networks.dimension"], found["p.networks.dimension"]) == ("0.0", "1.00")
    assert (found["images"], found["clean.N"], found["fooled.N.FAB"]) == ("4", "75.0", "66.7")
    assert found["distance.N.FAB"] == "2.00"
    assert (found["fooled.A.PGD"], found["distance.A.PGD"]) == ("0.0", "nan")
    assert (found["undone.PGD"], found["undone.DeepFool"]) == ("50.0", "none")
    assert found["pulled"] == "25.0"  # of image 0, with both other maps applied
    assert found["shuffled"] == "0.30 to 0.30"
