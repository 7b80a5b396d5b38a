"""The book's first figure: what two networks need, in one look."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from torch import from_numpy

from fmlib.drawing import BLUE, GREEN, STYLE, Picture, canvas, centred, show
from fmlib.spectra import apply_mask, half_plane

TRAINED = {"N": "N: plainly trained", "A": "A: trained against attacks"}


def figure_home(
    masks: Mapping[str, np.ndarray], image: np.ndarray, rates: Mapping[str, Mapping[str, float]]
) -> Picture:
    """For N and A, a row each: the dataset mask, a picture of only its frequencies, accuracy with and without it.

    masks: regime -> (repetitions, H, W), of which the first is shown; image: (H, W) in [0, 1], filtered about its mean;
    rates: "standard" and "masked" -> regime -> percent.
    """
    plane = from_numpy(image)[None, None]  # (1, 1, H, W)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 4.2), 2, 3, width_ratios=(1, 1, 1.1))
        for (regime, title), (left, middle, right) in zip(TRAINED.items(), grid, strict=True):
            mask = masks[regime][0]
            picture = show(left, centred(mask), "", vmin=0, vmax=1, cmap="viridis")
            left.set_ylabel(title, fontweight="bold")
            seen = apply_mask(plane, half_plane(from_numpy(mask)), float(image.mean()))
            show(middle, seen[0, 0].numpy(), "", vmin=0, vmax=1)
            values = [rates[kind][regime] for kind in ("masked", "standard")]
            bars = right.barh(("only\nthese", "all"), values, 0.6, color=(GREEN, BLUE))
            right.bar_label(bars, fmt="%.0f", padding=3)
            right.set(xlim=(0, 112), xticks=(0, 50, 100))
        for axes, title in zip(
            grid[0], ("frequencies it needs", "a picture of only these", "accuracy (%)"), strict=True
        ):
            axes.set_title(title)
        figure.colorbar(picture, ax=grid[:, 0], location="left", ticks=(0, 0.5, 1), shrink=0.5, label="mask")
    return figure
