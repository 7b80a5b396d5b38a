"""The tables and numbers of the chapter on frequency maps."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fmlib import map_claims
from fmlib.config import profile as named_profile
from fmlib.results import Results

#: What the measures of likeness in the table are called there.
MEASURES = {"dimension": "IdCor", "distance": "distance correlation"}


def kinds(results: Results) -> pd.DataFrame:
    """Of each network and kind of map: how many, how many keep their prediction, are 0 throughout and converged.

    Of those kept, as well: the mean cross-entropy behind them, the sum of the map, and its low share.
    """
    table = results.table("frequency_maps")
    table["sum"] = table["l1_share"] * named_profile(results.profile).data.size ** 2
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


def likenesses(results: Results) -> pd.DataFrame:
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


def exchanges(results: Results) -> pd.DataFrame:
    """Of each network's essential maps, the percent of images that are given the map's class, averaged over maps."""
    titles = {
        "own": "its own image",
        "class": "other images of its class",
        "others": "images of other classes",
        "before": "the same without a map",
    }
    rows = {}
    for network in map_claims.NETWORKS:
        shares = map_claims.named(results, network)
        rows[network] = {title: f"{100 * pd.Series(shares[name]).mean():.1f}" for name, title in titles.items()}
    return pd.DataFrame(rows).T


def crossings(results: Results) -> dict[str, np.ndarray]:
    """Title -> percent of images of each class that N names rightly (classes, 1 + classes): without a map, and behind
    the map of each class; nan for a class of which there are none.

    Clean images, and for two attacks those that it misleads.
    """
    arrays = results.arrays("class_maps_crossed")
    count = len(arrays["classes"])
    found = {}
    for title, attack in (("clean", "clean"), ("misled by PGD", "PGD"), ("misled by FAB", "FAB")):
        predictions, label = map_claims.behind(results, attack)
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
    `p.<comparison>.<measure>`, of two measures of likeness, for N under PGD and FAB and for N and A.
    """
    arrays, spec = results.arrays("frequency_maps"), named_profile(results.profile)
    found = {
        "images": f"{len(arrays['image.N']):,}",
        "penalty": f"{spec.frequency_map.penalty:g}",
        "steps": f"{spec.frequency_map.epochs:,}",
        "affordable": f"{np.log(5) / spec.frequency_map.penalty:.0f}",
        "side": f"{min(spec.data.size, 32)}",
    }
    for network in map_claims.NETWORKS:
        label = arrays[f"label.{network}"]
        right = arrays[f"prediction.{network}"] == label
        found[f"clean.{network}"] = f"{100 * right.mean():.1f}"
        for attack in map_claims.ATTACKS:
            misled = right & (arrays[f"prediction.{attack}.{network}"] != label)
            found[f"fooled.{network}.{attack}"] = f"{100 * misled.sum() / right.sum():.1f}"
            distance = 255 * np.median(arrays[f"distance.{attack}.{network}"][misled]) if misled.any() else np.nan
            found[f"distance.{network}.{attack}"] = f"{distance:.2f}"
    for attack in map_claims.ATTACKS:
        hits = map_claims.own(*map_claims.behind(results, attack))
        found[f"undone.{attack}"] = f"{100 * hits.mean():.1f}" if len(hits) else "none"
    predictions, label = map_claims.behind(results, "clean")
    classes = np.arange(predictions.shape[1])[None]
    found["pulled"] = f"{100 * map_claims.others(predictions, classes, label).mean():.1f}"
    for name, pair in {"attacks": ("N PGD", "N FAB"), "networks": ("N essential", "A essential")}.items():
        for measure in ("dimension", "distance"):
            row = map_claims.likeness(results, *pair, measure)
            found[f"effect.{name}.{measure}"] = f"{map_claims.effect(row):.1f}".replace("-", "\N{MINUS SIGN}")
            found[f"p.{name}.{measure}"] = f"{row['p']:.2f}"
    pairs = results.table("map_similarity")
    pairs = pairs[(pairs["measure"] == "dimension") & (pairs["shuffled"] == "all")]
    chosen = pairs[(pairs["first"] == "N essential") & (pairs["second"] != "A essential")]
    found["shuffled"] = f"{chosen['mean'].min():.2f} to {chosen['mean'].max():.2f}"
    return found
