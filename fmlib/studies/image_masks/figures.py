"""Figure 5 of the paper, and the figures of its controls: each function takes published arrays or tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from torch import from_numpy

from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas, centred, label_rows, show


def figure_image_masks(class_masks: Mapping[str, np.ndarray], samples: Mapping[str, np.ndarray]) -> Picture:
    """Figure 5, top, one row per class: the mask of the class (first column), and masks of single images.

    Args:
        class_masks: `half` (classes, H, W // 2 + 1).
        samples: `mask` (classes, images, H, W) and `classes`, their names.
    """
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
    """Predictions kept when only a share of the mask's frequencies is kept (left) or when it is removed (right).

    Args:
        curves: `necessity.npz`: `keep.<set>` and `remove.<set>`, (fractions, K) bool.
        fractions: the shares.
    """
    lines = {
        "own": ("the mask's own, strongest first", BLUE, "o"),
        "matched": ("random, matched by radius", ORANGE, "s"),
        "random": ("random, anywhere", GRAY, "^"),
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 3.1), 1, 2, sharey=True)
        for one, (way, title) in zip(axes, {"keep": "only these kept", "remove": "these removed"}.items(), strict=True):
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
    """Correlations between two networks' image masks: of the same image, the same class, another class.

    Args:
        table: `image_stability.csv`.
    """
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
        lowest = table[list(kinds)].min(axis=None)
        axes.set(xlabel="correlation between two networks' masks", ylabel="images", xlim=(min(-0.1, lowest), 1.02))
        axes.legend(frameon=False)
    return figure
