"""The figure of the chapter on one's own network."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show

#: Curve of the report -> label and colour.
NEEDED = {"mask radial": ("image masks", BLUE), "dataset radial": ("mask of all images", VERMILION)}
SENSITIVE = {"Jacobian radial": ("input gradients", GREEN), "attack radial": ("PGD perturbation", ORANGE)}


def figure_report(arrays: Mapping[str, np.ndarray]) -> Picture:
    """The mask of all images, and curves over the radius: what is needed, what the loss is sensitive to, and noise.

    Bands are 95% intervals of the mean over images.

    Args:
        arrays: of `own_network.npz`.
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.6, 5.8), 2, 2)
        (plane, needed), (sensitive, noise) = grid
        drawn = show(plane, centred(arrays["dataset"]), "mask of all images", vmin=0, vmax=1, cmap="viridis")
        figure.colorbar(drawn, ax=plane, ticks=(0, 0.5, 1), shrink=0.8)
        for axes, curves, title in (
            (needed, NEEDED, "energy of the masks"),
            (sensitive, SENSITIVE, "energy of gradients and attack"),
        ):
            for name, (label, colour) in curves.items():
                _curve(axes, arrays[f"curve.{name}"], label, colour)
            _curve(axes, arrays["curve.images radial"], "images", GRAY)
            axes.set(title=title, xlabel="radius / corner radius", ylabel="energy per ring", ylim=(0, None))
            axes.legend(frameon=False, fontsize=8)
        value, low, high = 100 * arrays["curve.heat radial"].T
        noise.fill_between(arrays["radii"], low, high, color=BLUE, alpha=0.2, lw=0)
        noise.plot(arrays["radii"], value, "o-", color=BLUE, ms=4)
        noise.set(title="noise of one frequency", xlabel="radius / Nyquist frequency", ylim=(0, None))
        noise.set_ylabel("predictions changed (%)")
    return figure


def _curve(axes: matplotlib.axes.Axes, curve: np.ndarray, label: str, colour: str) -> None:
    """A curve (bands, 3) over rings from 0 to the corner radius, with its interval."""
    value, low, high = curve.T
    radius = (np.arange(len(value)) + 0.5) / len(value)
    axes.fill_between(radius, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(radius, value, color=colour, label=label)
