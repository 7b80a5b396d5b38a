"""The figure of Fourier heat maps."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show


def figure_heat(heat: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> Picture:
    """For each network a row: its heat map, its dataset mask, and error against the mask's entry, a point a frequency.

    heat: regime -> percent of images misclassified, full plane (H, W); masks: regime -> (H, W).
    """
    colours = (BLUE, VERMILION, GREEN, ORANGE)
    top = max(plane.max() for plane in heat.values())
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1 + 1.8 * len(heat)), len(heat), 3, width_ratios=(1, 1, 1.1), sharex="col")
        for (regime, plane), colour, (left, middle, right) in zip(heat.items(), colours, grid, strict=False):
            errors = show(left, centred(plane), "", vmin=0, vmax=top, cmap="magma")
            left.set_ylabel(regime.replace("-", "\N{MINUS SIGN}"), fontweight="bold", rotation=0, labelpad=12)
            mask = show(middle, centred(masks[regime]), "", vmin=0, vmax=1, cmap="viridis")
            right.scatter(masks[regime].ravel(), plane.ravel(), s=3, alpha=0.3, color=colour, linewidths=0)
            right.set(ylabel="errors (%)", ylim=(0, 100))
        for axes, title in zip(grid[0], ("errors under each frequency", "dataset mask", "both"), strict=True):
            axes.set_title(title)
        grid[-1, 2].set_xlabel("mask")
        figure.colorbar(errors, ax=grid[:, 0], location="bottom", label="errors (%)", shrink=0.8)
        figure.colorbar(mask, ax=grid[:, 1], location="bottom", label="mask", ticks=(0, 0.5, 1), shrink=0.8)
    return figure
