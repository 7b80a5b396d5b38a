"""The claims on frequency maps, and the chapter's tables: which rows they read, and what the numbers mean."""

import numpy as np
import pandas as pd
import pytest

from fmlib.studies.frequency_maps import analysis
from fmlib.studies.registry import CLAIMS
from fmlib.studies.shared.profiles import profile

CLAIMS = {claim.id: claim for claim in analysis.CLAIMS}
CLASSES = 3


class Made:
    """Results that hold tables and arrays made here."""

    profile = "quick"

    def __init__(self, **found):
        self.found = found

    def table(self, name):
        return self.found[name].copy()

    def arrays(self, name):
        return self.found[name]


def measured(identity, **found):
    return CLAIMS[identity].measure(Made(**found))


def maps(**changed):
    """Maps of four images for each network and kind, all kept."""
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


def test_sparseness_is_that_of_the_plain_networks_kept_essential_maps():
    table = maps(l1_share=0.5)
    chosen = (table["kind"] == "essential") & (table["network"] == "N")
    table.loc[chosen, "l1_share"] = [0.01, 0.02, 0.03, 0.9]
    table.loc[chosen & (table["image"] == 3), "kept"] = False
    found = measured("B.sparse", frequency_maps=table)
    assert (found.value, found.n) == (pytest.approx(2), 3)


def test_higher_frequencies_are_told_on_the_same_images():
    table = maps()
    essential, attacked = ((table["network"] == "N") & (table["kind"] == kind) for kind in ("essential", "PGD"))
    table.loc[essential, "low_share"] = [0.9, 0.8, 0.7, 0.6]
    table.loc[attacked, "low_share"] = [0.5, 0.6, 0.7, 0.0]
    table.loc[attacked & (table["image"] == 3), "kept"] = False
    found = measured("B.high", frequency_maps=table)
    assert (found.value, found.n) == (pytest.approx(0.2), 3)


def likenesses():
    """A row for each comparison, measure and way, all alike but for p, which tells them apart."""
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
    table = likenesses()
    row = table.query("first == @network + ' essential' and second == @network + ' ' + @attack and shuffled == @way")
    row = row[row["measure"] == "dimension"].iloc[0]
    assert measured(identity, map_similarity=table) == (row["p"], row["p"], row["p"], row["images"])


def test_a_correlation_is_significant_below_five_percent():
    claim = CLAIMS["B.similar.PGD.idcor"]
    verdicts = [
        (claim.reproduced(one), claim.partly(one))
        for one in (analysis.Measured(p, p, p, 9) for p in (0.049, 0.05, 0.1))
    ]
    assert verdicts == [(True, True), (False, True), (False, False)]


def test_where_nothing_could_be_compared_nothing_is_alike():
    table = likenesses().query("second != 'A PGD'")
    assert measured("B.similar.A.PGD.idcor", map_similarity=table) == (1, 1, 1, 0)
    assert measured("B.similar.PGD.cosine", map_cosines={}) == (0, 0, 0, 1)


def test_effects_are_in_standard_deviations_of_the_shuffled_pairings():
    table = likenesses()
    chosen = (table["measure"] == "dimension") & (table["shuffled"] == "all")
    table.loc[chosen & (table["second"] == "N PGD"), "value"] = 1.3  # 10, less the 2 of distance correlation
    table.loc[chosen & (table["second"] == "N FAB"), "sd"] = 0.4  # 0.5 less 2
    found = measured("B.similar.dimension", map_similarity=table)
    assert found == (pytest.approx((8 + 0 - 1.5) / 3), pytest.approx(-1.5), pytest.approx(8), 3)


def test_pairs_are_more_alike_than_maps_of_the_same_class():
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
def crossed():
    """Four images of three classes; N is right on the first three, of which PGD misleads the first two."""
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


def test_only_images_that_the_attack_misleads_are_asked(crossed):
    made = Made(class_transfer=crossed)
    assert analysis.filtered(made, "PGD")[1].tolist() == [0, 1]
    assert analysis.filtered(made, "FAB")[0].tolist() == [[0, 1, 2]]
    assert analysis.filtered(made, "clean")[1].tolist() == [0, 1, 2, 0]


def test_class_claims(crossed):
    """Image 0, of class 0: right behind 0 and 2, pulled by 1. Image 1, of class 1: right behind 0 only, not pulled."""
    found = {identity: measured(identity, class_transfer=crossed) for identity in CLAIMS if "B.class" in identity}
    assert found["B.class.undone"][0::3] == (50, 2)
    assert found["B.class.cost"].value == pytest.approx(0)  # right on 0, 1, 2, behind their maps on 0, 2, 3
    assert found["B.class.own"].value == pytest.approx(100 * ((1 - 0.5) + (0 - 0.5)) / 2)
    assert found["B.class.pull"].value == pytest.approx(100 * ((1 - 0.5) + (0 - 0)) / 2)


def test_cost_is_what_the_maps_lose(crossed):
    crossed["filtered.clean"][0] = 1
    assert measured("B.class.cost", class_transfer=crossed).value == pytest.approx(25)


def test_others_leave_the_own_class_out():
    found, label = np.array([[0, 0, 1], [0, 1, 0]]), np.array([0, 1])
    assert analysis.others(found, label[:, None], label).tolist() == [0.5, 0]
    assert analysis.others(found, np.arange(3)[None], label).tolist() == [0, 0.5]


@pytest.fixture
def exchanged():
    """Maps of images 7 and 5, of classes 0 and 1, and four images; A's is of image 5 alone, and makes 1 of all."""
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


def test_maps_are_tried_on_their_own_image_their_class_and_the_others(exchanged):
    found = analysis.named(Made(maps_exchanged=exchanged), "N")
    assert found["own"].tolist() == [1, 1]
    assert found["class"].tolist() == [1, pytest.approx(np.nan, nan_ok=True)]  # no other image is of class 1
    assert found["others"].tolist() == [0.5, 1]
    assert found["before"].tolist() == [0.5, 0]


def test_taken_images_are_of_other_classes(exchanged):
    assert measured("B.exchanged.N", maps_exchanged=exchanged)[0::3] == (75, 2)
    assert measured("B.exchanged.A", maps_exchanged=exchanged)[0::3] == (100, 1)


def test_exchanges_are_averaged_over_maps(exchanged):
    found = analysis.image_transfer_table(Made(maps_exchanged=exchanged))
    assert found.loc["N"].tolist() == ["100.0", "100.0", "75.0", "25.0"]
    assert found.loc["A", "images of other classes"] == "100.0"


def test_every_claim_of_the_chapter_is_in_the_ledger_and_placed():
    placed = {claim.id: claim.anchor for claim in CLAIMS if claim.chapter == analysis.CHAPTER}
    assert set(placed) == set(CLAIMS)
    assert placed["B.class.pull"] == "figure-crossed"
    assert placed["B.similar.A.PGD.idcor"] == "figure-similarity"
    assert placed["B.high"] == "figure-attacked-frequencies"
    assert placed["B.exchanged.A"] == "whose-are-the-frequencies"
    assert placed["B.sparse"] == "figure-frequency-maps"


# ---------------------------------------------------------------------------------------------------------- tables


def test_kinds_are_described_by_what_is_kept():
    table = maps()
    chosen = (table["network"] == "A") & (table["kind"] == "FAB")
    table.loc[chosen, "l1_share"] = [0, 0.1, 0.3, 0.9]
    table.loc[chosen & (table["image"] == 3), "kept"] = False
    found = analysis.kinds(Made(frequency_maps=table))
    assert list(found.index) == [(network, kind) for network in "NA" for kind in ("essential", *analysis.ATTACKS)]
    row = found.loc[("A", "FAB")]
    assert row[["maps", "kept (%)", "empty (%)"]].tolist() == [4, 75, 25]
    assert row["sum of the map"] == pytest.approx(0.4 / 3 * profile("quick").data.size ** 2, abs=0.06)
    assert found.loc[("N", "PGD"), "low share (%)"] == 50


def test_likenesses_show_both_ways_of_shuffling():
    table = likenesses()
    found = analysis.similarity_table(Made(map_similarity=table))
    assert list(found.index)[:2] == ["N essential, N PGD", "N essential, N DeepFool"]
    row = table.query("first == 'A essential' and second == 'A PGD' and measure == 'distance'").set_index("shuffled")
    shown = found.loc["A essential, A PGD", "distance correlation"]
    p, within = (f"{row.loc[way, 'p']:.2f}" for way in ("all", "class"))
    assert shown.to_dict() == {"value": "0.500", "shuffled": "0.300", "p": p, "p within": within}
    assert p != within


def test_crossings_are_percent_of_the_images_of_a_class(crossed):
    found = analysis.class_transfer_rates(Made(class_transfer=crossed))
    assert list(found) == ["clean", "misled by PGD", "misled by FAB"]
    assert found["clean"].tolist() == [[50, 100, 50, 50], [100, 100, 0, 100], [100, 100, 100, 100]]
    assert found["misled by PGD"][:2].tolist() == [[0, 100, 0, 100], [0, 100, 0, 0]]
    assert np.isnan(found["misled by PGD"][2]).all()
    assert found["misled by FAB"][2].tolist() == [0, 0, 0, 100]


def test_numbers_for_prose(crossed):
    arrays = {"image.N": np.arange(4)}
    for network in "NA":
        arrays |= {f"label.{network}": np.array([0, 1, 2, 0]), f"prediction.{network}": np.array([0, 1, 2, 1])}
        for attack in analysis.ATTACKS:
            arrays[f"prediction.{attack}.{network}"] = np.array([1, 1, 0, 1])
            arrays[f"distance.{attack}.{network}"] = np.array([1, 5, 3, 9]) / 255
    arrays["prediction.PGD.A"] = arrays["label.A"]
    crossed |= {"DeepFool": crossed["label"], "filtered.DeepFool": crossed["filtered.PGD"]}
    table = likenesses()
    chosen = (table["second"] == "N FAB") & (table["measure"] == "distance") & (table["shuffled"] == "all")
    attacks = table[chosen].assign(first="N PGD", value=-0.11, p=0.99)
    table = pd.concat((table, attacks))
    found = analysis.numbers(Made(frequency_maps=arrays, class_transfer=crossed, map_similarity=table))
    assert (found["effect.attacks.distance"], found["p.attacks.distance"]) == ("\N{MINUS SIGN}4.1", "0.99")
    assert (found["effect.networks.dimension"], found["p.networks.dimension"]) == ("0.0", "1.00")
    assert (found["images"], found["clean.N"], found["fooled.N.FAB"]) == ("4", "75.0", "66.7")
    assert found["distance.N.FAB"] == "2.00"
    assert (found["fooled.A.PGD"], found["distance.A.PGD"]) == ("0.0", "nan")
    assert (found["undone.PGD"], found["undone.DeepFool"]) == ("50.0", "none")
    assert found["pulled"] == "25.0"  # of image 0, behind both other maps
    assert found["shuffled"] == "0.30 to 0.30"
