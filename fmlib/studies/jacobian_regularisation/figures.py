"""Figures of the chapter on Jacobian frequency regularisation.

Colour shows the bias of a network, and marker and line style its training. Names are those of `Profile.training`, such
as "F+".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.intervals import Measured
from fmlib.core.spectra import full_plane, radius
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show

#: First letter of a network's name -> its training, marker and line style.
TRAININGS = {
    "N": ("standard", "o", "-"),
    "F": ("FGSM-trained", "s", "--"),
    "A": ("adversarially trained", "^", ":"),
}

#: The rest of a network's name -> its bias and colour.
BIASES = {
    "": ("", GRAY),
    "+": ("JaFR low", BLUE),
    "-": ("JaFR high", VERMILION),
    "++": ("10\N{MULTIPLICATION SIGN} JaFR low", "#003B5C"),
    "--": ("10\N{MULTIPLICATION SIGN} JaFR high", "#7A3400"),
    "_low": ("Fourier sensitivity low", GREEN),
    "_high": ("Fourier sensitivity high", ORANGE),
    "_small": ("Jacobian norm", "#CC79A7"),
}


def minus(text: str) -> str:
    """A name or number with a typographic minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def full_name(name: str) -> str:
    """A network's full name, such as "standard, JaFR low (N+)"."""
    parts = (TRAININGS[name[0]][0], BIASES[name[1:]][0])
    return f"{', '.join(filter(None, parts))} ({minus(name)})"


def figure_jacobians(amplitudes: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray]) -> Picture:
    """Each network's mean Jacobian over the plane (top), and the share of its power within each radius (bottom).

    The bottom left shows networks trained without attacks, the bottom right those trained with attacks.

    Args:
        amplitudes: name -> (repetitions, H, W // 2 + 1); the first repetition is shown.
        shares: name -> (repetitions, rings), share of power at radius 1, 2, ...; one line per repetition.
    """
    planes = {name: full_plane(from_numpy(one[0]).float(), one.shape[1]).numpy() for name, one in amplitudes.items()}
    side = next(iter(planes.values())).shape[0]
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(7.4, 6.8), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1, 1.3))  # type: ignore[misc]
        grid = above.subplots(2, (len(planes) + 1) // 2, squeeze=False)
        for axes in grid.flat[len(planes) :]:
            axes.set_axis_off()
        for axes, (name, plane) in zip(grid.flat, planes.items(), strict=False):
            image = show(axes, centred(plane / plane.mean()), minus(name), cmap="magma", norm=LogNorm(0.2, 5))
        bar = above.colorbar(image, ax=grid, label="amplitude / its mean", shrink=0.8, pad=0.01)
        bar.set_ticks([0.2, 0.5, 1, 2, 5], labels=["0.2", "0.5", "1", "2", "5"])
        bar.minorticks_off()
        left, right = below.subplots(1, 2, sharey=True)
        for name, rows in shares.items():
            _draw_shares(left if name[0] == "N" else right, name, rows)
        for axes in (left, right):
            _draw_references(axes, side)
        lines = {line.get_label(): line for axes in (left, right) for line in axes.get_legend_handles_labels()[0]}
        below.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=2, frameon=False)
        left.set_ylabel("power within the radius (%)")
    return figure


def _draw_shares(axes: Axes, name: str, rows: np.ndarray) -> None:
    """A network's cumulative power by radius, one line per row of `rows` (repetitions, rings)."""
    _, _, style = TRAININGS[name[0]]
    for repetition, row in enumerate(rows):
        label = full_name(name) if repetition == 0 else None
        axes.plot(range(1, len(row) + 1), 100 * np.cumsum(row), style, color=BIASES[name[1:]][1], lw=1.3, label=label)


def _draw_references(axes: Axes, side: int) -> None:
    """The cumulative power of white noise on a plane of `side` pixels, and a third of the corner radius."""
    rings = np.bincount(radius(side, side).round().long().flatten())[1:]
    white = 100 * rings.cumsum() / rings.sum()
    axes.plot(range(1, len(rings) + 1), white, color="black", lw=0.7, label="white noise")
    axes.axvline(side / 2**0.5 / 3, color=GRAY, lw=0.7, ls=":")
    axes.set(xlabel="radius (cycles per image)", xlim=(0, len(rings)), ylim=(0, 101))


def figure_gains(corruptions: pd.DataFrame, bands: pd.DataFrame, median: float) -> Picture:
    """Each biased network's gain over N: by corruption, in order of mean radius (left), and by noise band (right).

    Args:
        corruptions, bands: columns name, radius (fraction of the corner radius), label, value, low and high (points).
        median: the mean radius that separates low-frequency from high-frequency corruptions.
    """
    labels = corruptions.sort_values("radius")["label"].drop_duplicates().tolist()
    below = len(corruptions[corruptions["radius"] < median]["label"].unique())
    names = list(dict.fromkeys(corruptions["name"]))
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 3.6 + 0.7 * len(names)), 1, 2, width_ratios=(1.25, 1))
        for index, name in enumerate(names):
            shift = (index - (len(names) - 1) / 2) / len(names)
            look = {"color": BIASES[name[1:]][1], "markersize": 4, "lw": 1.2}
            rows, noise = corruptions[corruptions["name"] == name], bands[bands["name"] == name]
            height = [labels.index(label) - 0.6 * shift for label in rows["label"]]
            left.errorbar(rows["value"], height, xerr=_errors(rows), fmt="o", **look)
            place = noise["radius"] + 0.03 * shift
            right.errorbar(place, noise["value"], yerr=_errors(noise), fmt="o-", label=full_name(name), **look)
        left.set_yticks(range(len(labels)), labels)
        left.axhline(below - 0.5, color=GRAY, lw=0.7, ls=":")
        left.axvline(0, color="black", lw=0.7)
        right.axhline(0, color="black", lw=0.7)
        left.set(xlabel="gain over N (points)", title="Corruptions, low to high frequency")
        right.set(xlabel="radius of the noise / corner radius", title="Noise in one frequency band")
        right.set_ylabel("gain over N (points)")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _errors(rows: pd.DataFrame) -> np.ndarray:
    """How far the intervals reach below and above the values: (2, rows)."""
    return np.stack((rows["value"] - rows["low"], rows["high"] - rows["value"]))


def figure_jacobian_and_mask(pairs: Sequence[tuple[str, float, float]], correlation: Measured) -> Picture:
    """Low share of the dataset mask against that of the Jacobian, one point per network.

    Args:
        pairs: a network's name, the low share of its Jacobian, and that of its dataset mask.
        correlation: the rank correlation in the title.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 3.8))
        named: set[str] = set()
        for name, jacobian, mask in pairs:
            label = None if name in named else full_name(name)
            _, marker, _ = TRAININGS[name[0]]
            axes.plot(jacobian, mask, marker, color=BIASES[name[1:]][1], markersize=7, label=label)
            named.add(name)
        axes.set(xlabel="low-frequency share of the Jacobian's energy")
        axes.set(ylabel="low-frequency share of the mask's energy")
        value, low, high = (minus(f"{number:.2f}") for number in correlation[:3])
        axes.set_title(f"rank correlation {value} ({low} to {high})")
        figure.legend(loc="outside right upper", frameon=False)
    return figure
