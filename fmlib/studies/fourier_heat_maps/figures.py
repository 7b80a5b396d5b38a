"""The figures of the chapter on Fourier heat maps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from fmlib.core.intervals import Measured
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.studies.fourier_heat_maps.experiment import NETWORKS

COLOURS = (BLUE, VERMILION, GREEN, ORANGE)  # of the networks


def figure_heat(heat: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]) -> Picture:
    """One row per network: heat map, dataset mask, and error rate against mask with one point per frequency.

    Args:
        heat: regime -> percentage of images misclassified, full plane (H, W).
        masks: regime -> dataset mask, full plane (H, W).
    """
    top = max(plane.max() for plane in heat.values())
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.6, 1 + 1.8 * len(heat)), len(heat), 3, width_ratios=(1, 1, 1.1), sharex="col")
        for (regime, plane), colour, (left, middle, right) in zip(heat.items(), COLOURS, grid, strict=False):
            errors = show(left, centred(plane), "", vmin=0, vmax=top, cmap="magma")
            left.set_ylabel(_label(regime), rotation=0, ha="right", va="center", fontsize=9)
            mask = show(middle, centred(masks[regime]), "", vmin=0, vmax=1, cmap="viridis")
            right.scatter(masks[regime].ravel(), plane.ravel(), s=3, alpha=0.3, color=colour, linewidths=0)
            right.set(ylabel="error rate (%)", ylim=(0, 100))
        for axes, title in zip(grid[0], ("Fourier heat map", "dataset mask", "error rate vs. mask"), strict=True):
            axes.set_title(title)
        grid[-1, 2].set_xlabel("mask")
        figure.colorbar(errors, ax=grid[:, 0], location="bottom", label="error rate (%)", shrink=0.8)
        figure.colorbar(mask, ax=grid[:, 1], location="bottom", label="mask", ticks=(0, 0.5, 1), shrink=0.8)
    return figure


def figure_rings(rings: Mapping[str, Sequence[Measured]], low: float = 1 / 3) -> Picture:
    """Error rate of each network against the radius of the added frequency, with 95% intervals over images.

    Args:
        rings: regime -> error rate in percent in rings of equal width, from DC to the corner.
        low: radius below which a frequency counts as low, as a fraction of the corner radius.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.6, 3.4))
        axes.axvline(low, color=GRAY, linewidth=1, linestyle=(0, (3, 2)))
        for (regime, values), colour, marker in zip(rings.items(), COLOURS, "osD^", strict=False):
            centre = (np.arange(len(values)) + 0.5) / len(values)
            name = f"{NETWORKS[regime]} ({regime})".replace("-", "\N{MINUS SIGN}")
            axes.fill_between(centre, [m.low for m in values], [m.high for m in values], color=colour, alpha=0.15, lw=0)
            axes.plot(centre, [m.value for m in values], marker, ls="-", color=colour, markersize=4, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 100), xlabel="radius of the added frequency (fraction of the corner radius)")
        axes.set_ylabel("error rate (%)")
        figure.legend(loc="outside upper center", ncols=4, frameon=False, handletextpad=0.4)
    return figure


def _label(regime: str) -> str:
    """The network's full name and its symbol, on several lines."""
    return f"{textwrap.fill(NETWORKS[regime], 14)}\n({regime})".replace("-", "\N{MINUS SIGN}")
