"""The claims on frequency maps: do attacks use the frequencies that a network needs?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fmlib.claim import CONTROL, Claim, Measure, at_least, at_most, positive
from fmlib.intervals import Measured, average, paired, spread, wilson
from fmlib.results import Results

CHAPTER = "frequency_maps"
BASILE = "Basile et al. (2023)"
ATTACKS = ("PGD", "DeepFool", "FAB")
NETWORKS = {"N": "the plain network", "A": "the adversarially trained network"}


def kept_maps(results: Results, network: str, kind: str) -> pd.DataFrame:
    """The table of maps of one kind that keep their prediction, by image."""
    table = results.table("frequency_maps")
    return table[(table["network"] == network) & (table["kind"] == kind) & table["kept"]].set_index("image")


def likeness(results: Results, first: str, second: str, measure: str, way: str = "all") -> pd.Series:
    """A row of `map_similarity.csv`; where too few images were there to compare, nothing is alike: value 0 and p 1."""
    table = results.table("map_similarity")
    chosen = (table["first"] == first) & (table["second"] == second)
    found = table[chosen & (table["measure"] == measure) & (table["shuffled"] == way)]
    if len(found):
        return found.iloc[0]
    return pd.Series({"images": 0, "value": 0.0, "mean": 0.0, "sd": 1.0, "low": 0.0, "high": 0.0, "p": 1.0})


def _kept(adversarial: bool) -> Measure:
    """Percent of the maps of both networks behind which the target is predicted."""

    def measure(results: Results) -> Measured:
        table = results.table("frequency_maps")
        return wilson(table[(table["kind"] != "essential") == adversarial]["kept"].to_numpy(bool))

    return measure


def _p(first: str, second: str, way: str = "all") -> Measure:
    """The p-value of the correlation of dimensions of two sets of maps."""

    def measure(results: Results) -> Measured:
        row = likeness(results, first, second, "dimension", way)
        return Measured(row["p"], row["p"], row["p"], int(row["images"]))

    return measure


def _cosine(first: str, second: str) -> Measure:
    """By how much an image's two maps are more alike than its map and another image's of its class."""

    def measure(results: Results) -> Measured:
        found = results.arrays("map_cosines").get(f"{first}|{second}|cosines", np.zeros((1, 3)))
        return average(found[:, 0] - found[:, 1])

    return measure


def effect(row: pd.Series) -> float:
    """By how many of their standard deviations a value exceeds those of the shuffled pairings."""
    return float((row["value"] - row["mean"]) / max(row["sd"], 1e-12))


def _dimension_effect(results: Results) -> Measured:
    """The effect of I_dCor less that of distance correlation, over the attacks."""
    found = [
        effect(likeness(results, "N essential", f"N {attack}", "dimension"))
        - effect(likeness(results, "N essential", f"N {attack}", "distance"))
        for attack in ATTACKS
    ]
    return spread(np.array(found))


def _higher(attack: str) -> Measure:
    """Low share of the essential map less that of the adversarial map of the same image, for N."""

    def measure(results: Results) -> Measured:
        shares = [kept_maps(results, "N", kind)["low_share"] for kind in ("essential", attack)]
        return average((shares[0] - shares[1]).to_numpy())

    return measure


def behind(results: Results, attack: str) -> tuple[np.ndarray, np.ndarray]:
    """N's predictions behind the map of each class of the images that an attack misleads: (K, classes); labels (K,).

    attack: one of ATTACKS, or "clean" for all images as they are.
    """
    arrays = results.arrays("class_maps_crossed")
    label = arrays["label"]
    chosen = np.ones(len(label), bool) if attack == "clean" else (arrays["clean"] == label) & (arrays[attack] != label)
    return arrays[f"behind.{attack}"][chosen], label[chosen]


def own(found: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether each image is named rightly behind the map of its own class: (K,) bool."""
    return found[np.arange(len(label)), label] == label


def _undone(results: Results) -> Measured:
    return wilson(own(*behind(results, "PGD")))


def _cost(results: Results) -> Measured:
    """Points of accuracy on clean images that are lost behind the map of their class."""
    arrays = results.arrays("class_maps_crossed")
    return paired(arrays["clean"] == arrays["label"], own(*behind(results, "clean")))


def others(found: np.ndarray, wanted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Mean over the maps of the classes that are not an image's own, of whether N names what is wanted: (K,).

    found: (K, classes) predictions; wanted: (K, 1) or (1, classes) names.
    """
    foreign = np.arange(found.shape[1]) != label[:, None]
    return ((found == wanted) & foreign).sum(1) / foreign.sum(1)


def _own_more_than_others(results: Results) -> Measured:
    found, label = behind(results, "PGD")
    return paired(own(found, label), others(found, label[:, None], label))


def _more_than_pulled(results: Results) -> Measured:
    found, label = behind(results, "PGD")
    return paired(own(found, label), others(found, np.arange(found.shape[1])[None], label))


def named(results: Results, network: str) -> dict[str, np.ndarray]:
    """Of each essential map, the share of images that the network gives the map's class: who -> (K,).

    "own" image, "class" (other images of its class) and "others" (images of other classes) behind the map, and
    "before": images of other classes without a map. nan where there are none.
    """
    arrays = {
        name.removesuffix(f".{network}"): array
        for name, array in results.arrays("maps_exchanged").items()
        if name.endswith(f".{network}")
    }
    target = arrays["target"][:, None]  # (K, 1)
    itself = arrays["image"][:, None] == arrays["number"]  # (K, N)
    same = (target == arrays["label"]) & ~itself
    foreign = target != arrays["label"]

    def share(hits: np.ndarray, among: np.ndarray) -> np.ndarray:
        counts = among.sum(1)
        return np.where(counts > 0, (hits & among).sum(1) / np.maximum(counts, 1), np.nan)

    behind = arrays["behind"] == target
    found = {"own": share(behind, itself), "class": share(behind, same), "others": share(behind, foreign)}
    return found | {"before": share(arrays["clean"] == target, foreign)}


def _taken(network: str) -> Measure:
    """Percent of images of other classes that are given the class of a map; the interval is over maps."""
    return lambda results: average(100 * named(results, network)["others"])


def _correlated(network: str, attack: str, within: bool = False) -> Claim:
    """Essential and adversarial maps are correlated, by I_dCor."""
    start = "B.similar." + ("" if network == "N" else f"{network}.") + attack
    statement = f"Essential maps of {NETWORKS[network]} and adversarial maps under {attack} are correlated (I_dCor)"
    statement += ", image by image and not by class alone." if within else "."
    return Claim(
        id=f"{start}.{'within' if within else 'idcor'}",
        source=f"{BASILE}, abstract" if network == "N" and not within else CONTROL,
        statement=statement,
        published=None,
        unit="p",
        chapter=CHAPTER,
        measure=_p(f"{network} essential", f"{network} {attack}", "class" if within else "all"),
        reproduced=lambda m: m.value < 0.05,
        partly=lambda m: m.value < 0.1,
        tolerance=f"p below .05 against {'pairings shuffled within classes' if within else 'shuffled pairings'} "
        "(partly: .1)",
    )


CLAIMS: list[Claim] = [
    at_least(
        "B.kept.essential",
        f"{BASILE}, abstract",
        CHAPTER,
        "The frequencies of its essential map suffice for an image to be classified rightly.",
        _kept(adversarial=False),
        near=95,
        far=85,
    ),
    at_least(
        "B.kept.adversarial",
        f"{BASILE}, abstract",
        CHAPTER,
        "The frequencies of its adversarial map suffice for an attacked image to be misclassified as before.",
        _kept(adversarial=True),
        near=95,
        far=85,
    ),
    at_most(
        "B.sparse",
        f"{BASILE}, abstract",
        CHAPTER,
        "Few frequencies are essential for an image to be classified rightly.",
        lambda results: average(100 * kept_maps(results, "N", "essential")["l1_share"].to_numpy()),
        near=5,
        far=15,
        unit="% of the full map",
    ),
    positive(
        "B.high",
        CONTROL,
        CHAPTER,
        "Under PGD, what misleads the plain network lies at higher frequencies than what is essential.",
        _higher("PGD"),
        unit="share of energy",
    ),
    *(_correlated("N", attack) for attack in ATTACKS),
    *(_correlated("N", attack, within=True) for attack in ATTACKS),
    *(_correlated("A", attack) for attack in ATTACKS),
    *(
        positive(
            f"B.similar.{attack}.cosine",
            CONTROL,
            CHAPTER,
            f"N's essential map of an image is more like its adversarial map under {attack} than another image's of "
            "its class.",
            _cosine("N essential", f"N {attack}"),
            unit="cosine",
        )
        for attack in ATTACKS
    ),
    positive(
        "B.similar.dimension",
        f"{BASILE}, abstract",
        CHAPTER,
        "I_dCor tells the pairs from shuffled ones more clearly than distance correlation does.",
        _dimension_effect,
        unit="standard deviations",
    ),
    positive(
        "B.similar.attacks",
        CONTROL,
        CHAPTER,
        "N's adversarial map of an image under PGD is more like that under FAB than another image's of its class.",
        _cosine("N PGD", "N FAB"),
        unit="cosine",
    ),
    positive(
        "B.similar.networks",
        CONTROL,
        CHAPTER,
        "N's essential map of an image is more like A's than another image's of its class.",
        _cosine("N essential", "A essential"),
        unit="cosine",
    ),
    *(
        at_most(
            f"B.exchanged.{network}",
            CONTROL,
            CHAPTER,
            f"For {name}, an essential map makes its class of its own image, not of images of other classes.",
            _taken(network),
            near=20,
            far=50,
        )
        for network, name in NETWORKS.items()
    ),
    at_least(
        "B.class.undone",
        f"{BASILE}, published code",
        CHAPTER,
        "Behind the map of its class, an image that PGD had misled is classified rightly.",
        _undone,
        near=50,
        far=25,
    ),
    positive(
        "B.class.cost",
        f"{BASILE}, published code",
        CHAPTER,
        "The maps of the classes cost accuracy on clean images.",
        _cost,
        unit="points",
    ),
    positive(
        "B.class.own",
        CONTROL,
        CHAPTER,
        "The map of its own class undoes an attack more often than the map of another class.",
        _own_more_than_others,
        unit="points",
    ),
    positive(
        "B.class.pull",
        CONTROL,
        CHAPTER,
        "A class's map names its class more often for attacked images of that class than for those of other classes.",
        _more_than_pulled,
        unit="points",
    ),
]
