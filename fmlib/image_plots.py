"""Figures 5 to 8 and the controls': each function takes what `Results` holds and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.drawing import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.spectra import full_plane

PURPLE = "#CC79A7"
CLASSES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def _labels(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """The classes' names beside the first picture of each row."""
    for one, name in zip(axes, names, strict=True):
        one.set_ylabel(name.replace(" ", "\n", 1), rotation=0, ha="right", va="center", fontsize=9)


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
        _labels(grid[:, 0], samples["classes"].tolist())
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


def figure_pairs(samples: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 6, a row for each class: x, x_A, the mask, M(x), M(x_A), the complement and the complement's image."""
    columns = {
        "A  $x$": "x",
        "B  $x_A$": "xA",
        "C  $M$": "mask",
        "D  $M(x)$": "masked",
        "E  $M(x_A)$": "masked_adversarial",
        "F  $M^c$": "complement",
        "G  $M^c(x)$": "complement_image",
    }
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.6, 1.05 * len(names) + 0.4), len(names), len(columns))
        for axes, (title, kind) in zip(grid.T, columns.items(), strict=True):
            for one, pictures in zip(axes, samples[kind].astype(float), strict=True):
                plane = kind in ("mask", "complement")
                picture = centred(pictures[1]) if plane else pictures[1]
                show(one, picture, "", vmin=0, vmax=1, cmap="viridis" if plane else "gray")
            axes[0].set_title(title)
        _labels(grid[:, 0], names)
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
        right.set(xlabel="frequencies that are not nought (%)")
        right.legend(frameon=False)
    return figure


def figure_necessity(curves: Mapping[str, np.ndarray], fractions: Sequence[float]) -> Picture:
    """Predictions kept when only a share of the mask's frequencies stays (left) or when that share goes (right)."""
    lines = {
        "own": ("the mask's own, strongest first", BLUE, "o"),
        "matched": ("random, as many at each radius", ORANGE, "s"),
        "scattered": ("random, as many anywhere", GRAY, "^"),
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


def figure_exceeds(shares: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Figure 7: percent of images where a mask's band energy exceeds that of M_{N,x}; radial (left), angular (right).

    shares: label -> {"radial", "angular"} -> percent in each of 64 bands.
    """
    colours = (BLUE, VERMILION, GREEN)
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 3.2), 1, 2, sharey=True)
        for (label, one), colour in zip(shares.items(), colours, strict=True):
            bands = len(one["radial"])
            edges = np.linspace(0, 1, bands + 1)
            left.stairs(one["radial"], edges, color=colour, lw=1.5, label=label)
            right.stairs(one["angular"], 360 * edges, color=colour, lw=1.5)
        for axes in (left, right):
            axes.axhline(50, color=GRAY, lw=0.8, ls=":")
        left.set(xlabel="radius / corner radius", ylabel="images that exceed (%)", ylim=(0, 100), xlim=(0, 1))
        right.set(xlabel="direction (degrees)", xlim=(0, 360), xticks=range(0, 361, 90))
        left.legend(frameon=False)
    return figure


def figure_attacks(spectra: Mapping[str, np.ndarray]) -> Picture:
    """Mean power of each attack's perturbation over the plane, each scaled to sum 1, on one logarithmic scale."""
    planes = {name: full_plane(from_numpy(half), 2 * (half.shape[-1] - 1)).numpy() for name, half in spectra.items()}
    top = max(plane.max() for plane in planes.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.1), 1, len(planes))
        for one, (name, plane) in zip(axes, planes.items(), strict=True):
            picture = show(one, centred(plane), name, cmap="magma", norm=LogNorm(top / 1e3, top))
        figure.colorbar(picture, ax=axes, label="share of power", pad=0.01)
    return figure


def figure_splits(splits: np.ndarray, permuted: np.ndarray, score: float, chance: float) -> Picture:
    """Held-out accuracy with true and with shuffled labels: repeated splits (left) and the permutation test (right)."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.8), 1, 2)
        names = ("true,\ntraining", "true,\nheld out", "shuffled,\ntraining", "shuffled,\nheld out")
        for place, (values, colour) in enumerate(zip(splits.T, (BLUE, BLUE, ORANGE, ORANGE), strict=True)):
            spread = np.linspace(-0.2, 0.2, len(values))
            left.plot(place + spread, values, "o", color=colour, markersize=4, mfc="none" if place % 2 else colour)
        left.set_xticks(range(4), names)
        left.set(ylabel="accuracy (%)", ylim=(0, 104))
        right.hist(permuted, bins=15, color=ORANGE, label="shuffled labels")
        right.axvline(score, color=BLUE, lw=2, label="true labels")
        for line in (left.axhline, right.axvline):
            line(chance, color=GRAY, lw=0.9, ls=":")
        right.set(xlabel="held-out accuracy (%)", ylabel="shufflings", xlim=(0, 100))
        right.legend(frameon=False)
    return figure


def figure_maps(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 8: UMAP of the classifier's outputs, true and shuffled labels, and of the masks themselves.

    Faint points trained the classifier; rimmed ones were held out.
    """
    titles = {
        "outputs": "outputs, true labels",
        "shuffled": "outputs, shuffled labels",
        "masks": "masks, no classifier",
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.6, 3.2), 1, 3)
        for one, (kind, title) in zip(axes, titles.items(), strict=True):
            points, held, labels = (arrays[f"{what}.{kind}"] for what in ("points", "held", "labels"))
            looks = zip(names, cycle(CLASSES), cycle(MARKERS), strict=False)
            for label, (name, colour, marker) in enumerate(looks):
                for part, look in (
                    (~held, {"s": 9, "alpha": 0.35, "linewidths": 0}),
                    (held, {"s": 22, "edgecolors": "black", "linewidths": 0.6}),
                ):
                    chosen = part & (labels == label)
                    dots = one.scatter(*points[chosen].T, color=colour, marker=marker, **look)
                dots.set_label(name)
            one.set(title=title, xticks=[], yticks=[])
        handles, words = axes[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=len(names), frameon=False, handletextpad=0.2)
    return figure
