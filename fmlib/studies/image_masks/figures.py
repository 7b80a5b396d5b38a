"""Figures 5 to 8 and the controls': each function takes what `Results` holds and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from torch import from_numpy

from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas, centred, label_rows, show


def figure_image_masks(class_masks: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]) -> Picture:
    """Figure 5, top: the mask of each class (first column) and masks of single images of it, a row for each class."""
    half = class_masks["half"]
    whole = full_plane(from_numpy(half), 2 * (half.shape[-1] - 1)).numpy()
    count = samples["mask"].shape[1]
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1.3 * len(half) + 0.4), len(half), 1 + count)
        for row, of_class, of_images in zip(grid, whole, samples["mask"].astype(float), strict=True):
            show(row[0], centred(of_class), "", vmin=0, vmax=1, cmap="viridis")
            for one, mask in zip(row[1:], of_images, strict=True):
                picture = show(one, centred(mask), "", vmin=0, vmax=1, cmap="viridis")
        grid[0, 0].set_title("whole class")
        for one in grid[0, 1:]:
            one.set_title("one image")
        label_rows(grid[:, 0], samples["classes"].tolist())
        figure.colorbar(picture, ax=grid, label="mask", ticks=(0, 0.5, 1), pad=0.01, shrink=0.5)
    return figure


def figure_filtered(samples: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 5, bottom: an image of each class (A), behind the complement of its mask (B) and behind the mask (C)."""
    rows = {"A  image": "x", "B  behind complement": "complement_image", "C  behind mask": "masked"}
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 4.9), len(rows), len(names))
        for axes, (title, kind) in zip(grid, rows.items(), strict=True):
            for one, pictures in zip(axes, samples[kind].astype(float), strict=True):
                show(one, pictures[0], "", vmin=0, vmax=1)
            axes[0].set_ylabel(title)
        for one, name in zip(grid[0], names, strict=True):
            one.set_title(name)
    return figure


def figure_fits(table: pd.DataFrame) -> Picture:
    """How the fits of M_{N,x} ended: steps taken (left) and frequencies that are left (right), images that met the rule
    and images that did not.
    """
    rows = table[table["kind"] == "N.x"]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.6), 1, 2)
        for axes, values in ((left, rows["steps"]), (right, 100 * rows["nonzero_share"])):
            parts = [values[rows["converged"]], values[~rows["converged"]]]
            axes.hist(parts, bins=40, stacked=True, color=(BLUE, VERMILION), label=("converged", "not converged"))
        left.set(xlabel="steps until the stop rule", ylabel="images")
        right.set(xlabel="frequencies that are non-zero (%)")
        right.legend(frameon=False)
    return figure


def figure_necessity(curves: Mapping[str, np.ndarray], fractions: Sequence[float]) -> Picture:
    """Predictions kept when only a share of the mask's frequencies stays (left) or when that share goes (right)."""
    lines = {
        "own": ("the mask's own, strongest first", BLUE, "o"),
        "matched": ("random, as many at each radius", ORANGE, "s"),
        "random": ("random, as many anywhere", GRAY, "^"),
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 3.1), 1, 2, sharey=True)
        for one, (way, title) in zip(axes, {"keep": "only these stay", "remove": "these go"}.items(), strict=True):
            for name, (label, colour, marker) in lines.items():
                shares = 100 * curves[f"{way}.{name}"].mean(1)
                one.plot([100 * f for f in fractions], shares, marker, ls="-", color=colour, label=label, markersize=5)
            one.set(xscale="log", xlabel="share of the mask's frequencies (%)", title=title, ylim=(-3, 103))
            one.set_xticks([100 * f for f in fractions], [f"{100 * f:.3g}" for f in fractions])
            one.minorticks_off()
        axes[0].set_ylabel("predictions kept (%)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def figure_agreement(table: pd.DataFrame) -> Picture:
    """Correlations of image masks between two networks: of the same image, of its class, of another class."""
    kinds = {"same_image": "same image", "same_class": "same class", "other_class": "other class"}
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.4))
        for (column, label), colour in zip(kinds.items(), (BLUE, ORANGE, GRAY), strict=True):
            axes.hist(
                table[column].dropna(),
                bins=np.linspace(-0.1, 1, 56),
                histtype="step",
                lw=1.8,
                color=colour,
                label=label,
            )
        least = table[list(kinds)].min(axis=None)
        axes.set(xlabel="correlation of two networks' masks", ylabel="images", xlim=(min(-0.1, least), 1.02))
        axes.legend(frameon=False)
    return figure
