"""Figures of the chapter on adversarial images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, STYLE, VERMILION, Picture, canvas, centred, label_rows, show


def figure_pairs(samples: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 6, one row per class: x, x_A, the mask, M(x), M(x_A), the complement and the image filtered by it.

    Args:
        samples: kind -> images or masks (classes, shown, H, W); the second of each class is shown.
        names: of the classes.
    """
    columns = {
        f"A  $x$ ({samples['x'].shape[-1]} px)": "x",
        "B  $x_A$": "xA",
        "C  $M$": "mask",
        "D  $M(x)$": "masked",
        "E  $M(x_A)$": "masked_adversarial",
        "F  $M^c$": "complement",
        "G  $M^c(x)$": "complement_image",
    }
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((8.8, 1.16 * len(names) + 0.3), len(names), len(columns))
        for axes, (title, kind) in zip(grid.T, columns.items(), strict=True):
            is_mask = kind in ("mask", "complement")
            for cell, planes in zip(axes, samples[kind].astype(float), strict=True):
                plane = centred(planes[1]) if is_mask else planes[1]
                show(cell, plane, "", vmin=0, vmax=1, cmap="viridis" if is_mask else "gray")
            axes[0].set_title(title)
        label_rows(grid[:, 0], names)
    return figure


def figure_exceedance(shares: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Figure 7: percentage of images whose mask has more energy than M_{N,x} in a band, radial and angular.

    Args:
        shares: label -> {"radial", "angular"} -> percentage in each of 64 bands, see `analysis.exceedance`.
    """
    colours = (BLUE, VERMILION, GREEN)
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 3.2), 1, 2, sharey=True)
        for (label, share), colour in zip(shares.items(), colours, strict=True):
            edges = np.linspace(0, 1, len(share["radial"]) + 1)
            style = {"color": colour, "lw": 1.5, "baseline": None}  # no vertical lines to zero at the ends
            left.stairs(share["radial"], edges, label=label, **style)
            right.stairs(share["angular"], 360 * edges, **style)
        for axes in (left, right):
            axes.axhline(50, color=GRAY, lw=0.8, ls=":")
        left.set(xlabel="radius / corner radius", ylabel="images above $M_{N,x}$ (%)", ylim=(0, 100), xlim=(0, 1))
        right.set(xlabel="angle (degrees)", xlim=(0, 360), xticks=range(0, 361, 90))
        left.legend(frameon=False)
    return figure


def figure_attacks(spectra: Mapping[str, np.ndarray]) -> Picture:
    """Mean power spectrum of each attack's perturbation, each scaled to sum 1, on one logarithmic scale.

    Args:
        spectra: name -> half plane (H, W // 2 + 1), see `analysis.attack_spectra`.
    """
    planes = {name: full_plane(from_numpy(half), 2 * (half.shape[-1] - 1)).numpy() for name, half in spectra.items()}
    top = max(plane.max() for plane in planes.values())
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.1), 1, len(planes))
        for cell, (name, plane) in zip(axes, planes.items(), strict=True):
            picture = show(cell, centred(plane), name, cmap="magma", norm=LogNorm(top / 1e3, top))
        figure.colorbar(picture, ax=axes, label="share of power", pad=0.01)
    return figure
