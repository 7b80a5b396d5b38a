"""The claims on frequency maps: do attacks use the frequencies that a network needs?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fmlib.core.intervals import Measured, average, min_max, paired, wilson
from fmlib.pipeline.results import Results
from fmlib.studies.shared.profiles import profile

ATTACKS = ("PGD", "DeepFool", "FAB")

NETWORKS = {"N": "the plain network", "A": "the adversarially trained network"}


def kept_maps(results: Results, network: str, kind: str) -> pd.DataFrame:
    """The table of maps of one kind that keep their prediction, by image."""
    table = results.table("frequency_maps")
    return table[(table["network"] == network) & (table["kind"] == kind) & table["kept"]].set_index("image")


def similarity_row(results: Results, first: str, second: str, measure: str, way: str = "all") -> pd.Series:
    """A row of `map_similarity.csv`; where too few images were there to compare, nothing is alike: value 0 and p 1."""
    table = results.table("map_similarity")
    chosen = (table["first"] == first) & (table["second"] == second)
    found = table[chosen & (table["measure"] == measure) & (table["shuffled"] == way)]
    if len(found):
        return found.iloc[0]
    return pd.Series({"images": 0, "value": 0.0, "mean": 0.0, "sd": 1.0, "low": 0.0, "high": 0.0, "p": 1.0})


def kept_rate(results: Results, adversarial: bool) -> Measured:
    """Percent of the maps of both networks behind which the target is predicted."""
    table = results.table("frequency_maps")
    return wilson(table[(table["kind"] != "essential") == adversarial]["kept"].to_numpy(bool))


def dimension_p(results: Results, first: str, second: str, way: str = "all") -> Measured:
    """The p-value of the correlation of dimensions of two sets of maps."""
    row = similarity_row(results, first, second, "dimension", way)
    return Measured(row["p"], row["p"], row["p"], int(row["images"]))


def cosine_difference(results: Results, first: str, second: str) -> Measured:
    """By how much an image's two maps are more alike than its map and another image's of its class."""
    found = results.arrays("map_cosines").get(f"{first}|{second}|cosines", np.zeros((1, 3)))
    return average(found[:, 0] - found[:, 1])


def effect(row: pd.Series) -> float:
    """By how many of their standard deviations a value exceeds those of the shuffled pairings."""
    return float((row["value"] - row["mean"]) / max(row["sd"], 1e-12))


def dimension_effect(results: Results) -> Measured:
    """The effect of I_dCor less that of distance correlation, over the attacks."""
    found = [
        effect(similarity_row(results, "N essential", f"N {attack}", "dimension"))
        - effect(similarity_row(results, "N essential", f"N {attack}", "distance"))
        for attack in ATTACKS
    ]
    return min_max(np.array(found))


def essential_share(results: Results) -> Measured:
    """Mean L1 share of N's essential maps, in percent of the full map."""
    return average(100 * kept_maps(results, "N", "essential")["l1_share"].to_numpy())


def low_share_difference(results: Results, attack: str) -> Measured:
    """Low share of the essential map less that of the adversarial map of the same image, for N."""
    shares = [kept_maps(results, "N", kind)["low_share"] for kind in ("essential", attack)]
    return average((shares[0] - shares[1]).to_numpy())


def filtered(results: Results, attack: str) -> tuple[np.ndarray, np.ndarray]:
    """N's predictions behind the map of each class of the images that an attack misleads: (K, classes); labels (K,).

    attack: one of ATTACKS, or "clean" for all images as they are.
    """
    arrays = results.arrays("class_transfer")
    label = arrays["label"]
    chosen = np.ones(len(label), bool) if attack == "clean" else (arrays["clean"] == label) & (arrays[attack] != label)
    return arrays[f"filtered.{attack}"][chosen], label[chosen]


def own(found: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether each image is named rightly behind the map of its own class: (K,) bool."""
    return found[np.arange(len(label)), label] == label


def undone(results: Results) -> Measured:
    return wilson(own(*filtered(results, "PGD")))


def class_map_cost(results: Results) -> Measured:
    """Points of accuracy on clean images that are lost behind the map of their class."""
    arrays = results.arrays("class_transfer")
    return paired(arrays["clean"] == arrays["label"], own(*filtered(results, "clean")))


def others(found: np.ndarray, wanted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Mean over the maps of the classes that are not an image's own, of whether N names what is wanted: (K,).

    found: (K, classes) predictions; wanted: (K, 1) or (1, classes) names.
    """
    foreign = np.arange(found.shape[1]) != label[:, None]
    return ((found == wanted) & foreign).sum(1) / foreign.sum(1)


def own_more_than_others(results: Results) -> Measured:
    found, label = filtered(results, "PGD")
    return paired(own(found, label), others(found, label[:, None], label))


def own_more_than_foreign(results: Results) -> Measured:
    found, label = filtered(results, "PGD")
    return paired(own(found, label), others(found, np.arange(found.shape[1])[None], label))


def named(results: Results, network: str) -> dict[str, np.ndarray]:
    """Of each essential map, the share of images that the network gives the map's class: who -> (K,).

    "own" image, "class" (other images of its class) and "others" (images of other classes) behind the map, and
    "before": images of other classes without a map. nan where there are none.
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

    def share(hits: np.ndarray, among: np.ndarray) -> np.ndarray:
        counts = among.sum(1)
        return np.where(counts > 0, (hits & among).sum(1) / np.maximum(counts, 1), np.nan)

    filtered = arrays["filtered"] == target
    found = {"own": share(filtered, itself), "class": share(filtered, same), "others": share(filtered, foreign)}
    return found | {"before": share(arrays["clean"] == target, foreign)}


def foreign_rate(results: Results, network: str) -> Measured:
    """Percent of images of other classes that are given the class of a map; the interval is over maps."""
    return average(100 * named(results, network)["others"])


#: What the measures of similarity in the table are called there.
MEASURES = {"dimension": "IdCor", "distance": "distance correlation"}


def kinds(results: Results) -> pd.DataFrame:
    """Of each network and kind of map: how many, how many keep their prediction, are 0 throughout and converged.

    Of those kept, as well: the mean cross-entropy behind them, the sum of the map, and its low share.
    """
    table = results.table("frequency_maps")
    table["sum"] = table["l1_share"] * profile(results.profile).data.size ** 2
    order = list(dict.fromkeys(zip(table["network"], table["kind"], strict=True)))
    groups, kept = (part.groupby(["network", "kind"]) for part in (table, table[table["kept"]]))
    found = pd.DataFrame(
        {
            "maps": groups.size(),
            "kept (%)": (100 * groups["kept"].mean()).round(1),
            "empty (%)": (100 * groups["l1_share"].agg(lambda share: (share == 0).mean())).round(1),
            "converged (%)": (100 * groups["converged"].mean()).round(1),
            "steps (median)": groups["steps"].median().astype(int),
            "loss": kept["loss"].mean().round(3),
            "sum of the map": kept["sum"].mean().round(1),
            "low share (%)": (100 * kept["low_share"].mean()).round(1),
        }
    )
    return found.loc[order].rename_axis([None, None])


def similarity_table(results: Results) -> pd.DataFrame:
    """Of each comparison the number of images, and of each measure the value, the shuffled mean and two p-values.

    `p` is against pairings shuffled among all images, as `shuffled` is, `p within` against those shuffled in classes.
    """
    table = results.table("map_similarity")
    table["pair"] = table["first"] + ", " + table["second"]
    found = {("", "images"): table.groupby("pair", sort=False)["images"].first().astype(str)}
    for measure, name in MEASURES.items():
        rows = table[table["measure"] == measure].set_index("pair")
        among, within = (rows[rows["shuffled"] == way] for way in ("all", "class"))
        for title, column in (("value", among["value"]), ("shuffled", among["mean"])):
            found[name, title] = column.map("{:.3f}".format)
        for title, column in (("p", among["p"]), ("p within", within["p"])):
            found[name, title] = column.map("{:.2f}".format)
    return pd.DataFrame(found).rename_axis(None)


def image_transfer_table(results: Results) -> pd.DataFrame:
    """Of each network's essential maps, the percent of images that are given the map's class, averaged over maps."""
    titles = {
        "own": "its own image",
        "class": "other images of its class",
        "others": "images of other classes",
        "before": "the same without a map",
    }
    rows = {}
    for network in NETWORKS:
        shares = named(results, network)
        rows[network] = {title: f"{100 * pd.Series(shares[name]).mean():.1f}" for name, title in titles.items()}
    return pd.DataFrame(rows).T


def class_transfer_rates(results: Results) -> dict[str, np.ndarray]:
    """Title -> percent of images of each class that N names rightly (classes, 1 + classes): without a map, and behind
    the map of each class; nan for a class of which there are none.

    Clean images, and for two attacks those that it misleads.
    """
    arrays = results.arrays("class_transfer")
    count = len(arrays["classes"])
    found = {}
    for title, attack in (("clean", "clean"), ("misled by PGD", "PGD"), ("misled by FAB", "FAB")):
        predictions, label = filtered(results, attack)
        without = arrays["clean"] == label if attack == "clean" else np.zeros(len(label), bool)
        right = 100.0 * np.column_stack((without, predictions == label[:, None]))  # (K, 1 + classes)
        rate = np.full((count, 1 + count), np.nan)
        for one in np.unique(label):
            rate[one] = right[label == one].mean(0)
        found[title] = rate
    return found


def numbers(results: Results) -> dict[str, str]:
    """Numbers for prose: images, penalty, steps, accuracies and successes in percent, and parts of the crossing.

    `fooled.<network>.<attack>` is of the images that the network gets right; `distance.<network>.<attack>` the median
    l-infinity distance of those that it misleads, in 255ths; `undone.<attack>` is behind the map of the own class;
    `pulled`, how often a class's map gives clean images of other classes its own; `effect.<comparison>.<measure>` and
    `p.<comparison>.<measure>`, of two measures of similarity, for N under PGD and FAB and for N and A.
    """
    arrays, spec = results.arrays("frequency_maps"), profile(results.profile)
    found = {
        "images": f"{len(arrays['image.N']):,}",
        "penalty": f"{spec.frequency_map.penalty:g}",
        "steps": f"{spec.frequency_map.epochs:,}",
        "affordable": f"{np.log(5) / spec.frequency_map.penalty:.0f}",
        "side": f"{min(spec.data.size, 32)}",
    }
    for network in NETWORKS:
        label = arrays[f"label.{network}"]
        right = arrays[f"prediction.{network}"] == label
        found[f"clean.{network}"] = f"{100 * right.mean():.1f}"
        for attack in ATTACKS:
            misled = right & (arrays[f"prediction.{attack}.{network}"] != label)
            found[f"fooled.{network}.{attack}"] = f"{100 * misled.sum() / right.sum():.1f}"
            distance = 255 * np.median(arrays[f"distance.{attack}.{network}"][misled]) if misled.any() else np.nan
            found[f"distance.{network}.{attack}"] = f"{distance:.2f}"
    for attack in ATTACKS:
        hits = own(*filtered(results, attack))
        found[f"undone.{attack}"] = f"{100 * hits.mean():.1f}" if len(hits) else "none"
    predictions, label = filtered(results, "clean")
    classes = np.arange(predictions.shape[1])[None]
    found["pulled"] = f"{100 * others(predictions, classes, label).mean():.1f}"
    for name, pair in {"attacks": ("N PGD", "N FAB"), "networks": ("N essential", "A essential")}.items():
        for measure in ("dimension", "distance"):
            row = similarity_row(results, *pair, measure)
            found[f"effect.{name}.{measure}"] = f"{effect(row):.1f}".replace("-", "\N{MINUS SIGN}")
            found[f"p.{name}.{measure}"] = f"{row['p']:.2f}"
    pairs = results.table("map_similarity")
    pairs = pairs[(pairs["measure"] == "dimension") & (pairs["shuffled"] == "all")]
    chosen = pairs[(pairs["first"] == "N essential") & (pairs["second"] != "A essential")]
    found["shuffled"] = f"{chosen['mean'].min():.2f} to {chosen['mean'].max():.2f}"
    return found
