"""Figures of the chapter on Jacobian frequency regularisation.

Colour tells the bias and marker the training of a network; names are those of profile.training, such as "F+".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.intervals import Measured
from fmlib.core.spectra import full_plane, radius
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show

#: What follows the first letter of a name -> colour; the first letter -> marker, line.
COLOURS = {
    "": GRAY,
    "+": BLUE,
    "-": VERMILION,
    "++": "#003B5C",
    "--": "#7A3400",
    "_low": GREEN,
    "_high": ORANGE,
    "_small": "#CC79A7",
}

LOOKS = {"N": ("o", "-"), "F": ("s", "--"), "A": ("^", ":")}


def minus(name: str) -> str:
    """A name or number as it should read."""
    return name.replace("-", "\N{MINUS SIGN}")


def figure_jacobians(amplitudes: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray]) -> Picture:
    """Each network's mean Jacobian over the plane (top), and the share of its power within each radius (bottom).

    amplitudes: name -> (repetitions, H, W // 2 + 1), of which the first is shown; shares: name -> (repetitions, rings),
    of power at radius 1, 2, ..., a line each, those trained without attacks on the left and with them on the right.
    """
    planes = {name: full_plane(from_numpy(one[0]).float(), one.shape[1]).numpy() for name, one in amplitudes.items()}
    size = next(iter(planes.values())).shape[0]
    rings = np.bincount(radius(size, size).round().long().flatten())[1:]
    white = 100 * rings.cumsum() / rings.sum()
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.4, 6.1), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.15))  # type: ignore[misc]
        grid = above.subplots(2, (len(planes) + 1) // 2, squeeze=False)
        for axes in grid.flat[len(planes) :]:
            axes.set_axis_off()
        for axes, (name, plane) in zip(grid.flat, planes.items(), strict=False):
            picture = show(axes, centred(plane / plane.mean()), minus(name), cmap="magma", norm=LogNorm(0.2, 5))
        bar = above.colorbar(picture, ax=grid, label="amplitude / its mean", shrink=0.8, pad=0.01)
        bar.set_ticks([0.2, 0.5, 1, 2, 5], labels=["0.2", "0.5", "1", "2", "5"])
        bar.minorticks_off()
        left, right = below.subplots(1, 2, sharey=True)
        for name, rows in shares.items():
            axes, (_, line) = left if name[0] == "N" else right, LOOKS[name[0]]
            for number, row in enumerate(rows):
                place, label = range(1, len(row) + 1), minus(name) if number == 0 else None
                axes.plot(place, 100 * np.cumsum(row), line, color=COLOURS[name[1:]], lw=1.3, label=label)
        for axes in (left, right):
            axes.plot(range(1, len(rings) + 1), white, color="black", lw=0.7, label="white noise")
            axes.axvline(size / 2**0.5 / 3, color=GRAY, lw=0.7, ls=":")
            axes.set(xlabel="radius (cycles an image)", xlim=(0, len(rings)), ylim=(0, 101))
        lines = {line.get_label(): line for axes in (left, right) for line in axes.get_legend_handles_labels()[0]}
        below.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=7, frameon=False)
        left.set_ylabel("power within the radius (%)")
    return figure


def figure_gains(corruptions: pd.DataFrame, bands: pd.DataFrame, median: float) -> Picture:
    """Gain over N of each biased network: by corruption, in order of mean radius (left), and by band of noise (right).

    corruptions, bands: rows of name, radius (fraction of the corner radius), label, value, low and high, in points;
    median: the radius that parts the corruptions.
    """
    labels = corruptions.sort_values("radius")["label"].drop_duplicates().tolist()
    below = len(corruptions[corruptions["radius"] < median]["label"].unique())
    names = list(dict.fromkeys(corruptions["name"]))
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 3.4 + 0.7 * len(names)), 1, 2, width_ratios=(1.25, 1))
        for number, name in enumerate(names):
            shift = (number - (len(names) - 1) / 2) / len(names)
            look = {"color": COLOURS[name[1:]], "markersize": 4, "lw": 1.2}
            rows, noisy = corruptions[corruptions["name"] == name], bands[bands["name"] == name]
            height = [labels.index(label) - 0.6 * shift for label in rows["label"]]
            left.errorbar(rows["value"], height, xerr=_errors(rows), fmt="o", **look)
            place = noisy["radius"] + 0.03 * shift
            right.errorbar(place, noisy["value"], yerr=_errors(noisy), fmt="o-", label=minus(name), **look)
        left.set_yticks(range(len(labels)), labels)
        left.axhline(below - 0.5, color=GRAY, lw=0.7, ls=":")
        left.axvline(0, color="black", lw=0.7)
        right.axhline(0, color="black", lw=0.7)
        left.set(xlabel="gain over N (points)", title="corruptions, low to high")
        right.set(xlabel="radius of the noise / corner radius", title="noise in one band")
        right.set_ylabel("gain over N (points)")
        right.legend(frameon=False)
    return figure


def _errors(rows: pd.DataFrame) -> np.ndarray:
    """How far the intervals reach below and above the values: (2, rows)."""
    return np.stack((rows["value"] - rows["low"], rows["high"] - rows["value"]))


def figure_bridge(points: Sequence[tuple[str, float, float]], correlation: Measured) -> Picture:
    """Low share of the dataset mask against that of the Jacobian, a point a network: (name, Jacobian, mask)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((5.6, 3.8))
        named: set[str] = set()
        for name, jacobian, mask in points:
            label = None if name in named else minus(name)
            axes.plot(jacobian, mask, LOOKS[name[0]][0], color=COLOURS[name[1:]], markersize=7, label=label)
            named.add(name)
        axes.set(xlabel="Jacobian's energy at low frequencies", ylabel="mask's energy at low frequencies")
        value, low, high = (minus(f"{one:.2f}") for one in correlation[:3])
        axes.set_title(f"rank correlation {value} ({low} to {high})")
        figure.legend(loc="outside right upper", frameon=False)
    return figure
