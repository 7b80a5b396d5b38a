"""Figure 5 of the paper, and the figures of its controls: each function takes published arrays or tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter
from torch import from_numpy

from fmlib.core.intervals import wilson
from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas, centred, label_rows, show


def figure_image_masks(class_masks: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]) -> Picture:
    """Figure 5, top, one row per class: the mask of the class (first column), and images, each beside its own mask.

    Args:
        class_masks: `half` (classes, H, W // 2 + 1).
        samples: `x` and `mask` (classes, images, H, W), of which the first three are shown, and `classes`, their names.
    """
    half = class_masks["half"]
    size = 2 * (half.shape[-1] - 1)
    whole = full_plane(from_numpy(half), size).numpy()
    pairs = min(3, samples["mask"].shape[1])
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((8.8, 1.12 * len(half) + 0.4), len(half), 1 + 2 * pairs)
        for label, (row, of_class) in enumerate(zip(grid, whole, strict=True)):
            show(row[0], centred(of_class), "", vmin=0, vmax=1, cmap="viridis")
            for number in range(pairs):
                image, mask = (samples[kind][label, number].astype(float) for kind in ("x", "mask"))
                show(row[1 + 2 * number], image, "", vmin=0, vmax=1)
                picture = show(row[2 + 2 * number], centred(mask), "", vmin=0, vmax=1, cmap="viridis")
        for one, title in zip(grid[0], ["class mask", *pairs * [f"image ({size} px)", "its mask"]], strict=True):
            one.set_title(title)
        label_rows(grid[:, 0], samples["classes"].tolist())
        figure.colorbar(picture, ax=grid, label="mask", ticks=(0, 0.5, 1), pad=0.01, shrink=0.4)
    return figure


def figure_filtered(samples: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 5, bottom, one image per class: unmasked (A), with its mask's complement applied (B), with its mask (C).

    Args:
        samples: `x`, `complement_image` and `masked`, each (classes, images, H, W); the first image is shown.
        names: of the classes.
    """
    rows = {"A  unmasked": "x", "B  complement": "complement_image", "C  mask": "masked"}
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
    """How the fits of M_{N,x} ended, converged or not: steps taken (left), share of non-zero frequencies (right).

    Args:
        table: `image_masks.csv`.
    """
    rows = table[table["kind"] == "N.x"]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.6), 1, 2)
        for axes, values in ((left, rows["steps"]), (right, 100 * rows["nonzero_share"])):
            parts = [values[rows["converged"]], values[~rows["converged"]]]
            axes.hist(parts, bins=40, stacked=True, color=(BLUE, VERMILION), label=("converged", "not converged"))
        left.set(xlabel="optimisation steps", ylabel="images")
        right.set(xlabel="non-zero frequencies (%)")
        right.legend(frameon=False)
    return figure


def figure_necessity(curves: Mapping[str, np.ndarray], fractions: Sequence[float]) -> Picture:
    """Predictions kept when only a share of the mask's frequencies passes (left) or when it is removed (right).

    The sets are binary: a frequency passes at full strength or not at all. Bars are Wilson 95% intervals over images.

    Args:
        curves: `necessity.npz`: `keep.<set>` and `remove.<set>`, (fractions, K) bool.
        fractions: the shares.
    """
    lines = {
        "own": ("the mask's own, largest first", BLUE, "o"),
        "matched": ("random, matched by radius", ORANGE, "s"),
        "random": ("random, anywhere", GRAY, "^"),
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 3.1), 1, 2, sharey=True)
        titles = {"keep": "only these pass, at full strength", "remove": "these removed, all others pass"}
        for one, (way, title) in zip(axes, titles.items(), strict=True):
            for name, (label, colour, marker) in lines.items():
                rates = [wilson(kept) for kept in curves[f"{way}.{name}"]]
                shares = [rate.value for rate in rates]
                bars = [[rate.value - rate.low for rate in rates], [rate.high - rate.value for rate in rates]]
                one.plot([100 * f for f in fractions], shares, marker, ls="-", color=colour, label=label, markersize=5)
                one.errorbar([100 * f for f in fractions], shares, bars, fmt="none", ecolor=colour, elinewidth=1)
                one.annotate(f"{shares[-1]:.1f}", (100, shares[-1]), (8, 0), textcoords="offset points", va="center")
            one.set(xscale="log", xlabel="share of the mask's frequencies (%)", title=title)
            one.set(xlim=(5.5, 160), ylim=(-3, 105))
            one.set_xticks([100 * f for f in fractions], [f"{100 * f:.3g}" for f in fractions])
            one.minorticks_off()
        axes[0].set_ylabel("predictions kept (%)")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def figure_agreement(table: pd.DataFrame) -> Picture:
    """Distributions over images of the correlation between two networks' masks: same image, same class, other class.

    Args:
        table: `image_stability.csv`.
    """
    kinds = {"same_image": "same image", "same_class": "same class", "other_class": "other class"}
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.8))
        for (column, label), colour in zip(kinds.items(), (BLUE, ORANGE, GRAY), strict=True):
            values = table[column].dropna()
            if len(values):
                mean = f"{values.mean():.3f}".replace("-", "\N{MINUS SIGN}")
                axes.ecdf(values, color=colour, lw=1.8, label=f"{label} (mean {mean})")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        lowest = table[list(kinds)].min(axis=None)
        axes.set(xlabel="correlation between two networks' masks", ylabel="images at or below")
        axes.set(xlim=(min(-0.1, lowest), 1.02), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower right")
    return figure
