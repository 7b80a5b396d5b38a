"""Figures on uniqueness: restarts, the necessary core, transfer, and the optimality gap."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.ticker import PercentFormatter

from fmlib.core.intervals import wilson
from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas


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


def figure_rates(rates: Mapping[str, Mapping[str, np.ndarray]], counted: str = "predictions kept") -> Picture:
    """Percentage of images: a group of bars per key, with Wilson 95% intervals.

    Args:
        rates: group -> label of a bar -> (K,) bool.
        counted: what the percentage counts.
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 2.6), 1, len(rates), sharey=True, squeeze=False)
        for axes, (group, bars) in zip(grid[0], rates.items(), strict=True):
            for place, kept in enumerate(bars.values()):
                measured = wilson(kept)
                error = [[measured.value - measured.low], [measured.high - measured.value]]
                axes.bar(place, measured.value, 0.7, yerr=error, color=BLUE, ecolor="black")
            axes.set_xticks(range(len(bars)), [label.replace(" ", "\n", 1) for label in bars])
            axes.set_title(group)
        grid[0, 0].set(ylabel=f"{counted} (%)", ylim=(0, 105))
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
        axes.axline((1e-4, 1e-4), (1e-3, 1e-3), color=GRAY, lw=1, label="equal")
        axes.set(xscale="log", yscale="log", xlabel="lowest excess of all subsets", ylabel="excess of the solver")
        axes.legend(frameon=False)
    return figure
