"""Figures of the chapter on Jacobian frequency regularisation.

Panels with one network each come in the order of `names.in_order`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.augment import NETWORK_NAMES
from fmlib.core.intervals import Measured
from fmlib.core.spectra import full_plane, radius
from fmlib.pipeline.plotting import BLUE, GRAY, STYLE, Picture, canvas, centred, show
from fmlib.studies.shared.names import BIASES, MARKERS, full_name, in_order, minus

#: Panels in a row of the figure of Jacobians.
COLUMNS = 7


def _title(name: str) -> str:
    """A network's full name in lines short enough for a narrow panel."""
    training, bias = NETWORK_NAMES[name[0]], BIASES[name[1:]][0]
    words = f"{training}\n{bias}".strip().replace("\n", ",\n").replace(",\nFourier ", ", Fourier\n")
    return f"{words}\n({minus(name)})"


def figure_jacobians(amplitudes: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray]) -> Picture:
    """One panel per network: its mean Jacobian over the plane, and below it the share of power within each radius.

    Every panel repeats the shares of the first network in gray.

    Args:
        amplitudes: name -> (repetitions, H, W // 2 + 1); the first repetition is shown.
        shares: name -> (repetitions, rings), share of power at radius 1, 2, ...; one line per repetition.
    """
    names = in_order(amplitudes)
    blocks = -(-len(names) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        heights = (1, 0.8) * blocks
        figure, grid = canvas((7.6, 2.3 * blocks + 0.3), 2 * blocks, COLUMNS, height_ratios=heights, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, name in enumerate(names):
            block, column = divmod(place, COLUMNS)
            above, below = grid[2 * block : 2 * block + 2, column]
            plane = full_plane(from_numpy(amplitudes[name][0]).float(), amplitudes[name].shape[1]).numpy()
            image = show(above, centred(plane / plane.mean()), "", cmap="magma", norm=LogNorm(0.2, 5))
            above.set_axis_on()
            above.set_title(_title(name), fontsize=7)
            _draw_shares(below, shares[name], shares[names[0]], plane.shape[0])
            if column == 0:
                below.set_ylabel("power\nwithin (%)", fontsize=7)
            else:
                below.tick_params(labelleft=False)
            if place + COLUMNS >= len(names):
                below.set_xlabel("radius", fontsize=7)
        bar = figure.colorbar(
            image, ax=grid, label="amplitude / its mean (planes)", location="bottom", shrink=0.4, aspect=40
        )
        bar.set_ticks([0.2, 0.5, 1, 2, 5], labels=["0.2", "0.5", "1", "2", "5"])
        bar.minorticks_off()
        handles, labels = grid[1, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_shares(axes: Axes, own: np.ndarray, first: np.ndarray, side: int) -> None:
    """Cumulative power by radius, one line per row (repetitions, rings), on a plane of `side` pixels.

    For reference: the first network, white noise, and a third of the corner radius.
    """
    rings = np.bincount(radius(side, side).round().long().flatten())[1:]
    white = 100 * rings.cumsum() / rings.sum()
    axes.set_axis_on()
    axes.plot(range(1, len(rings) + 1), white, color="black", lw=0.6, ls="--", label="white noise")
    for rows, colour, label in ((first, GRAY, "standard (N)"), (own, BLUE, "network of the panel")):
        for repetition, row in enumerate(rows):
            name = None if repetition else label
            axes.plot(range(1, len(row) + 1), 100 * np.cumsum(row), color=colour, lw=1, label=name)
    axes.axvline(side / 2**0.5 / 3, color="black", lw=0.6, ls=":", label="third of the corner radius")
    axes.set(xlim=(0, len(rings)), ylim=(0, 101), yticks=(0, 50, 100))
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(labelsize=6.5)


def figure_gains(corruptions: pd.DataFrame, bands: pd.DataFrame, median: float) -> Picture:
    """One column per network: its gains over N by corruption, in order of mean radius (top), and by noise band.

    Args:
        corruptions, bands: columns name, radius (fraction of the corner radius), label, value, low and high (points).
        median: the mean radius that separates low-frequency from high-frequency corruptions.
    """
    labels = corruptions.sort_values("radius")["label"].drop_duplicates().tolist()
    below = len(corruptions[corruptions["radius"] < median]["label"].unique())
    names = in_order(corruptions["name"].unique())
    with matplotlib.rc_context(STYLE):
        size, heights = (7.6, 0.17 * len(labels) + 2.5), (0.17 * len(labels), 1.3)
        figure, (upper, lower) = canvas(size, 2, len(names), height_ratios=heights, sharey="row", squeeze=False)
        for name, above, noise in zip(names, upper, lower, strict=True):
            look = {"color": BLUE, "markersize": 4, "lw": 1.2}
            rows = corruptions[corruptions["name"] == name]
            height = [labels.index(label) for label in rows["label"]]
            above.errorbar(rows["value"], height, xerr=_errors(rows), fmt="o", **look)
            above.axhline(below - 0.5, color=GRAY, lw=0.7, ls=":")
            above.axvline(0, color="black", lw=0.7)
            above.set_title(_title(name), fontsize=9)
            above.set_xlabel("gain (points)")
            rows = bands[bands["name"] == name]
            noise.errorbar(rows["radius"], rows["value"], yerr=_errors(rows), fmt="o-", **look)
            noise.axhline(0, color="black", lw=0.7)
            noise.set(xlabel="radius of the noise /\ncorner radius", xlim=(0, 1))
        limits = np.array([axes.get_xlim() for axes in upper])
        for axes in upper:
            axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())
        upper[0].set_yticks(range(len(labels)), labels)
        lower[0].set_ylabel("gain under noise in\none band (points)")
    return figure


def _errors(rows: pd.DataFrame) -> np.ndarray:
    """How far the intervals reach below and above the values: (2, rows)."""
    return np.stack((rows["value"] - rows["low"], rows["high"] - rows["value"]))


def figure_jacobian_and_mask(pairs: Sequence[tuple[str, float, float]], correlation: Measured) -> Picture:
    """Low share of the dataset mask against that of the Jacobian, one point per network.

    Colour shows the bias of a network, and the marker its training.

    Args:
        pairs: a network's name, the low share of its Jacobian, and that of its dataset mask.
        correlation: the rank correlation in the title; n counts kinds of network.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.6, 3.2))
        axes.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":", label="equal shares")
        named: set[str] = set()
        for name in in_order({name for name, _, _ in pairs}):
            marker = MARKERS[name[0]]
            look = {"color": BIASES[name[1:]][1], "markersize": 7, "markeredgecolor": "white", "markeredgewidth": 0.5}
            for _, jacobian, mask in (pair for pair in pairs if pair[0] == name):
                label = None if name in named else full_name(name)
                axes.plot(jacobian, mask, marker, label=label, **look)
                named.add(name)
        axes.set(xlabel="low-frequency share of the Jacobian's energy", xlim=(0, 1), ylim=(0, 1.02))
        axes.set_ylabel("low-frequency share of the mask's energy")
        value, low, high = (minus(f"{number:.2f}") for number in correlation[:3])
        axes.set_title(f"rank correlation {value} ({low} to {high}), {correlation.n} kinds of network", fontsize=9)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
