"""TODO"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, STYLE, VERMILION, Picture, canvas, centred, label_rows, show


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
        label_rows(grid[:, 0], names)
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
