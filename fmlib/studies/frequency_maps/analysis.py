"""Analysis of frequency maps: do attacks use the frequencies that a network needs?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fmlib.core.intervals import Measured, average, exact, min_max, paired, wilson
from fmlib.pipeline.results import Results
from fmlib.studies.frequency_maps.tasks import ATTACKS, REGIMES, SIDE
from fmlib.studies.shared.profiles import profile

#: The measures of similarity that `similarity_table` shows, and their names there.
MEASURES = {"dimension": "IdCor", "distance": "distance correlation"}


def kept_maps(results: Results, network: str, kind: str) -> pd.DataFrame:
    """The table of the maps of one network and kind that keep their prediction, indexed by image."""
    table = results.table("frequency_maps")
    return table[(table["network"] == network) & (table["kind"] == kind) & table["kept"]].set_index("image")


def similarity_row(results: Results, first: str, second: str, measure: str, way: str = "all") -> pd.Series:
    """A row of `map_similarity.csv`; value 0 and p 1 for sets with too few images to compare.

    Args:
        results: with `map_similarity`.
        first, second: the sets, such as "N essential" and "N PGD".
        measure: of similarity, such as "dimension".
        way: of shuffling, "all" images or within each "class".
    """
    table = results.table("map_similarity")
    chosen = (table["first"] == first) & (table["second"] == second)
    rows = table[chosen & (table["measure"] == measure) & (table["shuffled"] == way)]
    if len(rows):
        return rows.iloc[0]
    return pd.Series({"images": 0, "value": 0.0, "mean": 0.0, "sd": 1.0, "low": 0.0, "high": 0.0, "p": 1.0})


def kept_rate(results: Results, adversarial: bool) -> Measured:
    """Percentage of adversarial or essential maps of both networks with which the target is predicted."""
    table = results.table("frequency_maps")
    return wilson(table[(table["kind"] != "essential") == adversarial]["kept"].to_numpy(bool))


def dimension_p(results: Results, first: str, second: str, way: str = "all") -> Measured:
    """The p-value of the correlation of intrinsic dimension of two sets of maps; n counts images."""
    row = similarity_row(results, first, second, "dimension", way)
    return exact(row["p"], int(row["images"]))


def cosine_difference(results: Results, first: str, second: str) -> Measured:
    """Cosine of an image's two maps, minus the mean cosine of its map and those of other images of its class."""
    cosines = results.arrays("map_cosines").get(f"{first}|{second}|cosines", np.zeros((1, 3)))
    return average(cosines[:, 0] - cosines[:, 1])


def effect_size(row: pd.Series) -> float:
    """The value of a row of `map_similarity.csv` minus the shuffled mean, in shuffled standard deviations."""
    return float((row["value"] - row["mean"]) / max(row["sd"], 1e-12))


def dimension_effect(results: Results) -> Measured:
    """Effect size of I_dCor minus that of distance correlation, over attacks on N: essential and adversarial maps."""
    differences = [
        effect_size(similarity_row(results, "N essential", f"N {attack}", "dimension"))
        - effect_size(similarity_row(results, "N essential", f"N {attack}", "distance"))
        for attack in ATTACKS
    ]
    return min_max(np.array(differences))


def essential_share(results: Results) -> Measured:
    """Mean L1 share of N's essential maps, in percent of the full map."""
    return average(100 * kept_maps(results, "N", "essential")["l1_share"].to_numpy())


def low_share_difference(results: Results, attack: str) -> Measured:
    """Low share of N's essential map minus that of the adversarial map of the same image."""
    essential, adversarial = (kept_maps(results, "N", kind)["low_share"] for kind in ("essential", attack))
    return average((essential - adversarial).to_numpy())


def filtered_predictions(results: Results, attack: str) -> tuple[np.ndarray, np.ndarray]:
    """N's predictions with each class map applied, (K, classes), and the labels, (K,), of the images that it fools.

    Args:
        results: with `class_transfer`.
        attack: one of ATTACKS, or "clean" for all images without an attack.
    """
    arrays = results.arrays("class_transfer")
    label = arrays["label"]
    chosen = np.ones(len(label), bool) if attack == "clean" else (arrays["clean"] == label) & (arrays[attack] != label)
    return arrays[f"filtered.{attack}"][chosen], label[chosen]


def own_map_correct(predictions: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether each image is classified correctly with the map of its own class applied: (K,) bool."""
    return predictions[np.arange(len(label)), label] == label


def undone(results: Results) -> Measured:
    """Percentage of images fooled by PGD that N classifies correctly with the map of their class applied."""
    return wilson(own_map_correct(*filtered_predictions(results, "PGD")))


def class_map_cost(results: Results) -> Measured:
    """Accuracy on clean images minus that with the map of their class applied, in points."""
    arrays = results.arrays("class_transfer")
    return paired(arrays["clean"] == arrays["label"], own_map_correct(*filtered_predictions(results, "clean")))


def other_maps_rate(predictions: np.ndarray, wanted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Share of the maps of other classes than an image's own with which N predicts the wanted class: (K,).

    Args:
        predictions: (K, classes), one for each map.
        wanted: classes, (K, 1) for one per image or (1, classes) for one per map.
        label: (K,).
    """
    foreign = np.arange(predictions.shape[1]) != label[:, None]
    return ((predictions == wanted) & foreign).sum(1) / foreign.sum(1)


def own_more_than_others(results: Results) -> Measured:
    """How much more often the map of an image's own class undoes PGD than the maps of other classes, in points."""
    predictions, label = filtered_predictions(results, "PGD")
    return paired(own_map_correct(predictions, label), other_maps_rate(predictions, label[:, None], label))


def own_more_than_foreign(results: Results) -> Measured:
    """How much more often a class map induces its class in attacked images of that class than in others, in points."""
    predictions, label = filtered_predictions(results, "PGD")
    classes = np.arange(predictions.shape[1])[None]
    return paired(own_map_correct(predictions, label), other_maps_rate(predictions, classes, label))


def transfer_rates(results: Results, network: str) -> dict[str, np.ndarray]:
    """Share of images for which the network predicts the class of each essential map: images -> (K,).

    With the map applied: to its "own" image, to other images of its "class" and to images of "other" classes; and to
    "unmasked" images of other classes. nan where there are no such images.
    """
    arrays = {
        name.removesuffix(f".{network}"): array
        for name, array in results.arrays("image_transfer").items()
        if name.endswith(f".{network}")
    }
    target = arrays["target"][:, None]  # (K, 1)
    itself = arrays["image"][:, None] == arrays["number"]  # (K, N)
    same = (target == arrays["label"]) & ~itself
    foreign = target != arrays["label"]

    def share(predicted: np.ndarray, among: np.ndarray) -> np.ndarray:
        counts = among.sum(1)
        return np.where(counts > 0, (predicted & among).sum(1) / np.maximum(counts, 1), np.nan)

    induced = arrays["filtered"] == target
    return {
        "own": share(induced, itself),
        "class": share(induced, same),
        "other": share(induced, foreign),
        "unmasked": share(arrays["clean"] == target, foreign),
    }


def foreign_rate(results: Results, network: str) -> Measured:
    """Percentage of images of other classes in which an essential map induces its class; the interval is over maps."""
    return average(100 * transfer_rates(results, network)["other"])


def map_table(results: Results) -> pd.DataFrame:
    """One row per network and kind of map: how many there are, and how many keep their prediction, are 0 and converged.

    Cross-entropy with the map applied, sum of the map and low share are means over the maps that keep their prediction.
    """
    table = results.table("frequency_maps")
    table["sum"] = table["l1_share"] * profile(results.profile).data.size ** 2
    order = list(dict.fromkeys(zip(table["network"], table["kind"], strict=True)))
    groups, kept = (part.groupby(["network", "kind"]) for part in (table, table[table["kept"]]))
    summary = pd.DataFrame(
        {
            "maps": groups.size(),
            "prediction kept (%)": (100 * groups["kept"].mean()).round(1),
            "all zero (%)": (100 * groups["l1_share"].agg(lambda share: (share == 0).mean())).round(1),
            "converged (%)": (100 * groups["converged"].mean()).round(1),
            "median steps": groups["steps"].median().astype(int),
            "cross-entropy": kept["loss"].mean().round(3),
            "sum of the map": kept["sum"].mean().round(1),
            "low share (%)": (100 * kept["low_share"].mean()).round(1),
        }
    )
    return summary.loc[order].rename_axis([None, None])


def similarity_table(results: Results) -> pd.DataFrame:
    """One row per comparison: the number of images, and for each measure the value, the shuffled mean and two p-values.

    The shuffled mean and `p` are of pairings shuffled among all images, `p within classes` of those within classes.
    """
    table = results.table("map_similarity")
    table["pair"] = table["first"] + ", " + table["second"]
    columns = {("", "images"): table.groupby("pair", sort=False)["images"].first().astype(str)}
    for measure, name in MEASURES.items():
        rows = table[table["measure"] == measure].set_index("pair")
        among, within = (rows[rows["shuffled"] == way] for way in ("all", "class"))
        for title, column in (("value", among["value"]), ("shuffled", among["mean"])):
            columns[name, title] = column.map("{:.3f}".format)
        for title, column in (("p", among["p"]), ("p within classes", within["p"])):
            columns[name, title] = column.map("{:.2f}".format)
    return pd.DataFrame(columns).rename_axis(None)


def image_transfer_table(results: Results) -> pd.DataFrame:
    """One row per network: percentage of images in which its essential maps induce their class, averaged over maps."""
    titles = {
        "own": "its own image",
        "class": "other images of its class",
        "other": "images of other classes",
        "unmasked": "images of other classes, unmasked",
    }
    rows = {}
    for network in REGIMES:
        rates = transfer_rates(results, network)
        rows[network] = {title: f"{100 * pd.Series(rates[name]).mean():.1f}" for name, title in titles.items()}
    return pd.DataFrame(rows).T


def class_transfer_rates(results: Results) -> dict[str, np.ndarray]:
    """Title -> N's accuracy in percent on images of each class, without a map and with each class map applied.

    The arrays are (classes, 1 + classes), nan for a class without images. The images are clean, or those that one of
    two attacks fools.
    """
    arrays = results.arrays("class_transfer")
    count = len(arrays["classes"])
    rates = {}
    for title, attack in (("clean images", "clean"), ("fooled by PGD", "PGD"), ("fooled by FAB", "FAB")):
        predictions, label = filtered_predictions(results, attack)
        unmasked = arrays["clean"] == label if attack == "clean" else np.zeros(len(label), bool)
        correct = 100.0 * np.column_stack((unmasked, predictions == label[:, None]))  # (K, 1 + classes)
        rate = np.full((count, 1 + count), np.nan)
        for index in np.unique(label):
            rate[index] = correct[label == index].mean(0)
        rates[title] = rate
    return rates


def numbers(results: Results) -> dict[str, str]:
    """Numbers of images, of the fit, of the attacks, of class maps and of similarity, formatted for prose.

    `affordable` is how many frequencies cost as much as a uniform prediction for five classes.
    """
    spec = profile(results.profile)
    texts = {
        "images": f"{len(results.arrays('frequency_maps')['image.N']):,}",
        "penalty": f"{spec.frequency_map.penalty:g}",
        "steps": f"{spec.frequency_map.epochs:,}",
        "affordable": f"{np.log(5) / spec.frequency_map.penalty:.0f}",
        "side": f"{min(spec.data.size, SIDE)}",
    }
    return texts | _attack_numbers(results) | _class_map_numbers(results) | _similarity_numbers(results)


def _attack_numbers(results: Results) -> dict[str, str]:
    """`clean.<network>`, accuracy in percent; `fooled` and `distance.<network>.<attack>`.

    The latter are the percentage of correctly classified images that the attack fools, and their median l-infinity
    distance in 255ths.
    """
    arrays, texts = results.arrays("frequency_maps"), {}
    for network in REGIMES:
        label = arrays[f"label.{network}"]
        correct = arrays[f"prediction.{network}"] == label
        texts[f"clean.{network}"] = f"{100 * correct.mean():.1f}"
        for attack in ATTACKS:
            fooled = correct & (arrays[f"prediction.{attack}.{network}"] != label)
            texts[f"fooled.{network}.{attack}"] = f"{100 * fooled.sum() / correct.sum():.1f}"
            distance = 255 * np.median(arrays[f"distance.{attack}.{network}"][fooled]) if fooled.any() else np.nan
            texts[f"distance.{network}.{attack}"] = f"{distance:.2f}"
    return texts


def _class_map_numbers(results: Results) -> dict[str, str]:
    """`undone.<attack>`, accuracy on fooled images with the map of their class applied; `pulled`, see below.

    `pulled` is the percentage of clean images of other classes in which a class map induces its class.
    """
    texts = {}
    for attack in ATTACKS:
        correct = own_map_correct(*filtered_predictions(results, attack))
        texts[f"undone.{attack}"] = f"{100 * correct.mean():.1f}" if len(correct) else "none"
    predictions, label = filtered_predictions(results, "clean")
    classes = np.arange(predictions.shape[1])[None]
    return texts | {"pulled": f"{100 * other_maps_rate(predictions, classes, label).mean():.1f}"}


def _similarity_numbers(results: Results) -> dict[str, str]:
    """`effect` and `p.<comparison>.<measure>` of two controls; `shuffled`, the range of the shuffled I_dCor.

    The controls are N's maps under PGD and FAB ("attacks"), and the essential maps of N and A ("networks").
    """
    texts = {}
    for name, pair in {"attacks": ("N PGD", "N FAB"), "networks": ("N essential", "A essential")}.items():
        for measure in MEASURES:
            row = similarity_row(results, *pair, measure)
            texts[f"effect.{name}.{measure}"] = f"{effect_size(row):.1f}".replace("-", "\N{MINUS SIGN}")
            texts[f"p.{name}.{measure}"] = f"{row['p']:.2f}"
    table = results.table("map_similarity")
    table = table[(table["measure"] == "dimension") & (table["shuffled"] == "all")]
    means = table[(table["first"] == "N essential") & (table["second"] != "A essential")]["mean"]
    return texts | {"shuffled": f"{means.min():.2f} to {means.max():.2f}"}
