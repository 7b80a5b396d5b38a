"""Measures on image masks: size and fit (figure 5), stability between networks, necessity and sufficiency."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from fmlib.core.config import ImageMaskSpec
from fmlib.core.intervals import Measured, average, paired, ratio_of_means, wilson
from fmlib.pipeline.formatting import scientific
from fmlib.pipeline.results import NotComputed, Results
from fmlib.studies.shared.profiles import profile


def difference(results: Results, first: str, second: str, file: str = "tables", row: int | None = None) -> Measured:
    """Difference of two percentages on the same images, in points, with its paired interval.

    Args:
        first, second: boolean arrays of `file`, (K,); the result is first minus second.
        row: which row to take, for arrays of shape (rows, K).
    """
    arrays = results.arrays(file)
    return paired(*(arrays[name] if row is None else arrays[name][row] for name in (first, second)))


def mask_mean(results: Results, column: str, kind: str = "N.x", file: str = "image_masks") -> Measured:
    """Mean of a column of a table such as `image_masks.csv` over the masks of one kind."""
    table = results.table(file)
    return average(table[table["kind"] == kind][column].to_numpy(float))


def converged_kept(results: Results) -> Measured:
    """Percentage of converged masks, of all kinds, that keep the prediction."""
    table = results.table("image_masks")
    return wilson(table[table["converged"]]["kept"].to_numpy(bool))


def converged(results: Results) -> Measured:
    """Percentage of all masks that met the stop rule."""
    return wilson(results.table("image_masks")["converged"].to_numpy(bool))


def kept(results: Results) -> Measured:
    """Percentage of minimal masks, of all kinds, with which the prediction is unchanged."""
    return wilson(results.table("minimal_image_masks")["kept"].to_numpy(bool))


def excess_ratio(results: Results, kind: str) -> Measured:
    """Mean excess of the objective over 1 with minimal masks, relative to that with the authors' schedule.

    It is over the images that have masks by both; raises `NotComputed` if there are none.
    """
    results.require_same_networks("image-masks", "minimal-image-masks")
    both = pd.merge(results.table("minimal_image_masks"), results.table("image_masks"), on=["kind", "image"])
    both = both[both["kind"] == kind]
    if both.empty:
        raise NotComputed(f"no image has masks {kind} by both solvers")
    return ratio_of_means(*(both[f"objective_{side}"].to_numpy() - 1 for side in "xy"))


def stability_mean(results: Results, column: str, file: str = "image_stability") -> Measured:
    """Mean correlation between two networks' masks; column: "same_image", "same_class" or "other_class"."""
    return average(results.table(file)[column].to_numpy())


def own_image(results: Results, file: str = "image_stability") -> Measured:
    """Mean correlation of two networks' masks of one image, minus that with a mask of another image of its class."""
    table = results.table(file)
    return average((table["same_image"] - table["same_class"]).to_numpy())


def kinds(results: Results, file: str = "image_masks") -> pd.DataFrame:
    """One row per kind of image mask: number, convergence, predictions kept, size and objective."""
    table = results.table(file)
    groups = table.groupby("kind", sort=False)
    kept = 100 * table.groupby(["kind", "converged"], sort=False)["kept"].mean().unstack()
    return pd.DataFrame(
        {
            "masks": groups.size(),
            "converged (%)": (100 * groups["converged"].mean()).round(1),
            "kept if converged (%)": kept.get(True, pd.Series(dtype=float)).round(1),
            "kept if not converged (%)": kept.get(False, pd.Series(dtype=float)).round(1),
            "steps (median)": groups["steps"].median().astype(int),
            "L1 share": groups["l1_share"].mean().round(4),
            "non-zero (%)": (100 * groups["nonzero_share"].mean()).round(1),
            "objective": groups["objective"].mean().round(4),
        }
    ).loc[table["kind"].unique()]


def networks_table(scales: Mapping[str, Results]) -> pd.DataFrame:
    """Accuracy (%) of the network to which the masks were fitted, and of others, on x, M(x) and the complement.

    Args:
        scales: label -> results.
    """
    networks = {
        "": "standard (N), which has the masks",
        "other.": "same architecture, another seed",
        "second.": "another architecture (ResNet)",
    }
    columns = {"x": "unmasked", "masked": "mask applied", "complement": "complement applied"}
    rows = {}
    for scale, results in scales.items():
        arrays = results.arrays("tables")
        for prefix, label in networks.items():
            if f"{prefix}x" in arrays:
                values = {column: 100 * arrays[prefix + name].mean() for name, column in columns.items()}
                rows[f"{scale}: {label}"] = values
    return pd.DataFrame(rows).T.round(1).add_suffix(" (%)")


def counts(results: Results, larger: Results) -> dict[str, str]:
    """How many of N's masks of clean images there are and converged, in both results: description -> number."""
    validation, considered = len(results.arrays("pairs")["labels"]), profile(results.profile).n_image_masks
    fits = results.table("image_masks").query("kind == 'N.x'")
    late, fits_larger = fits[~fits["converged"]], larger.table("image_masks")
    return {
        "validation images": f"{validation:,}",
        "considered, equally many of each class": f"{considered or validation:,}",
        "eligible, with masks": f"{len(fits):,}",
        "N's masks of clean images that did not meet the stop rule": f"{len(late):,}",
        "of these, masks that keep the prediction": f"{late['kept'].sum():,}",
        "VGG11 at 128 px: images considered, equally many of each class": str(
            larger.manifest["experiments"]["image-masks"]["images"]
        ),
        "VGG11 at 128 px: eligible, with masks": f"{len(fits_larger):,}",
        "VGG11 at 128 px: steps, at most": f"{fits_larger['steps'].max():,}",
        "VGG11 at 128 px: masks that did not meet the stop rule": f"{(~fits_larger['converged']).sum():,}",
        "VGG11 at 128 px: masks that keep the prediction": f"{fits_larger['kept'].sum():,}",
    }


def near_zero(results: Results) -> dict[str, str]:
    """Near-zero residue in M_{N,x}: entries below two steps of Adam, ready for prose.

    Returns:
        `share`: percentage of a mask's non-zero entries that are near zero, mean over masks; `interval`: its 95%
        interval; `below`: the threshold; `energy`: share of the energy of all masks in these entries.
    """
    spec = profile(results.profile).image_mask
    assert isinstance(spec, ImageMaskSpec)
    half, threshold = results.arrays("image_masks")["N.x"].astype(float), 2 * spec.lr
    small = half * (half < threshold)
    share = average((small > 0).sum((1, 2)) / (half > 0).sum((1, 2)))
    return {
        "share": f"{share.value:.0%}",
        "interval": f"{share.low:.0%} to {share.high:.0%}",
        "below": f"{threshold:g}",
        "energy": scientific((small**2).sum() / (half**2).sum()),
    }
