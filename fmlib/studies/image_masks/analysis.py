"""The claims on single images and their masks: figure 5, stability, necessity and sufficiency."""

from __future__ import annotations

import pandas as pd

from fmlib.core.intervals import Measured, average, paired, wilson
from fmlib.pipeline.formatting import scientific
from fmlib.pipeline.results import Results
from fmlib.studies.shared.profiles import profile


def difference(results: Results, first: str, second: str, file: str = "tables", row: int | None = None) -> Measured:
    """Difference of two such percentages on the same images; row: of a stacked array."""
    arrays = results.arrays(file)
    return paired(*(arrays[name] if row is None else arrays[name][row] for name in (first, second)))


def mask_mean(results: Results, column: str, kind: str = "N.x") -> Measured:
    """Mean of a column of the table of image masks."""
    table = results.table("image_masks")
    return average(table[table["kind"] == kind][column].to_numpy(float))


def converged_kept(results: Results) -> Measured:
    """Percent of the masks reported as converged, of all kinds, behind which the prediction is kept."""
    table = results.table("image_masks")
    return wilson(table[table["converged"]]["kept"].to_numpy(bool))


def converged(results: Results) -> Measured:
    return wilson(results.table("image_masks")["converged"].to_numpy(bool))


def stability_mean(results: Results, column: str) -> Measured:
    return average(results.table("image_stability")[column].to_numpy())


def own_image(results: Results) -> Measured:
    table = results.table("image_stability")
    return average((table["same_image"] - table["same_class"]).to_numpy())


def kinds(results: Results) -> pd.DataFrame:
    """Of each kind of image mask: how many, how many converged and kept the prediction, how large they are."""
    table = results.table("image_masks")
    groups = table.groupby("kind", sort=False)
    kept = 100 * table.groupby(["kind", "converged"], sort=False)["kept"].mean().unstack()
    return pd.DataFrame(
        {
            "masks": groups.size(),
            "converged (%)": (100 * groups["converged"].mean()).round(1),
            "of these kept (%)": kept.get(True, pd.Series(dtype=float)).round(1),
            "of others kept (%)": kept.get(False, pd.Series(dtype=float)).round(1),
            "steps (median)": groups["steps"].median().astype(int),
            "L1 share": groups["l1_share"].mean().round(4),
            "non-zero (%)": (100 * groups["nonzero_share"].mean()).round(1),
            "objective": groups["objective"].mean().round(4),
        }
    ).loc[table["kind"].unique()]


def near_zero(results: Results) -> dict[str, str]:
    """Of the entries of M_{N,x} that are non-zero: the `share` `below` two steps of Adam, and their `energy`.

    The share is that of a mask on average, and `interval` its 95% interval over masks.
    """
    half, below = results.arrays("image_masks")["N.x"].astype(float), 2 * profile(results.profile).image_mask.lr
    small = half * (half < below)
    share = average((small > 0).sum((1, 2)) / (half > 0).sum((1, 2)))
    return {
        "share": f"{share.value:.0%}",
        "interval": f"{share.low:.0%} to {share.high:.0%}",
        "below": f"{below:g}",
        "energy": scientific((small**2).sum() / (half**2).sum()),
    }
