"""Figures on uniqueness: restarts, the necessary core, transfer, and the optimality gap."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.ticker import PercentFormatter

from fmlib.pipeline.plotting import (
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    STYLE,
    VERMILION,
    Picture,
    canvas,
    centred,
    label_rows,
    show,
)


def figure_starts(full: np.ndarray, names: list[str], shown: int = 4) -> Picture:
    """Masks of one image per row from several starts (columns), and the share of starts in which a frequency occurs.

    Args:
        full: (starts, K, H, W), DC at (0, 0).
        names: of the K images' rows.
        shown: number of starts that are drawn.
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1.45 * len(names) + 0.4), len(names), shown + 1)
        for row, masks in zip(grid, full.swapaxes(0, 1), strict=False):
            for one, mask in zip(row[:shown], masks, strict=False):
                show(one, centred(mask), "", vmin=0, vmax=1, cmap="viridis")
            counts = show(row[shown], centred((masks > 0).mean(0)), "", vmin=0, vmax=1, cmap="magma")
        for number, one in enumerate(grid[0, :shown]):
            one.set_title("start at 1" if number == 0 else f"random start {number}")
        grid[0, shown].set_title("share of starts")
        label_rows(grid[:, 0], names)
        figure.colorbar(counts, ax=grid, ticks=(0, 0.5, 1), pad=0.01, shrink=0.5)
    return figure


def figure_restarts(correlations: Mapping[str, np.ndarray]) -> Picture:
    """Distributions over images of the correlation between masks of one image, one line per comparison."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.8))
        for (label, values), colour in zip(correlations.items(), (BLUE, VERMILION, ORANGE, GRAY), strict=False):
            ordered = np.sort(values)
            axes.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=colour, label=label, lw=1.8)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="correlation between masks of one image", ylabel="images at or below", xlim=(-0.05, 1.02))
        axes.legend(frameon=False, loc="upper left")
    return figure


def figure_core(shares: Mapping[str, np.ndarray]) -> Picture:
    """Histograms over images of the share of a mask's frequencies that are in the masks of all starts."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.4))
        for (label, values), colour in zip(shares.items(), (BLUE, VERMILION), strict=True):
            axes.hist(100 * values, bins=np.linspace(0, 100, 26), histtype="step", lw=1.8, color=colour, label=label)
        axes.set(xlabel="frequencies of a mask that are in the masks of all starts (%)", ylabel="images", xlim=(0, 100))
        axes.legend(frameon=False)
    return figure


def figure_rates(rates: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Percentage of images whose prediction is kept: a group of bars per key, with Wilson 95% intervals.

    Args:
        rates: group -> label of a bar -> (K,) bool.
    """
    from fmlib.core.intervals import wilson

    colours = (BLUE, ORANGE, GRAY, GREEN)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 2.6), 1, len(rates), sharey=True, squeeze=False)
        for axes, (group, bars) in zip(grid[0], rates.items(), strict=True):
            for place, (colour, kept) in enumerate(zip(colours, bars.values(), strict=False)):
                measured = wilson(kept)
                error = [[measured.value - measured.low], [measured.high - measured.value]]
                axes.bar(place, measured.value, 0.7, yerr=error, color=colour, ecolor="black")
            axes.set_xticks(range(len(bars)), [label.replace(" ", "\n", 1) for label in bars])
            axes.set_title(group)
        grid[0, 0].set(ylabel="predictions kept (%)", ylim=(0, 105))
    return figure


def figure_optimality(gaps: Mapping[str, np.ndarray]) -> Picture:
    """The solver's excess against the lowest excess of all subsets of 16 bands, one point per image.

    Args:
        gaps: `optimality.npz`: `<network>.solver` and `<network>.subset`, (K,).
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((4.6, 3.6))
        for name, label, colour in (("N", "standard (N)", BLUE), ("A", "adversarially trained (A)", VERMILION)):
            style = {"ms": 4, "color": colour, "label": label, "alpha": 0.7}
            axes.plot(gaps[f"{name}.subset"], gaps[f"{name}.solver"], "o", **style)
        low, high = axes.get_xlim()
        low = min(values.min() for kind, values in gaps.items() if "evaluated" not in kind)
        axes.plot([low, high], [low, high], color=GRAY, lw=1)
        axes.set(xscale="log", yscale="log", xlabel="lowest excess of all subsets", ylabel="excess of the solver")
        axes.legend(frameon=False)
    return figure
