"""Figures of the chapter on frequency maps: examples, mean maps, similarity, and the transfer of class maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from torch import from_numpy

from fmlib.core.spectra import full_plane
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.studies.shared.names import full_name

#: Kind of map -> its colour and line style.
KINDS = {"essential": (BLUE, "-"), "PGD": (VERMILION, "-"), "DeepFool": (GREEN, "--"), "FAB": (ORANGE, ":")}

#: Measure of similarity -> its title.
MEASURES = {
    "dimension": "$I_d$Cor",
    "distance": "distance correlation$^2$",
    "svcca": "SVCCA",
    "cosine": "cosine similarity",
}

#: Network -> its full name.
NETWORKS = {name: full_name(name) for name in "NA"}


def figure_examples(examples: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """One image per class (rows), its essential map and its adversarial maps, DC in the middle.

    Args:
        examples: "x" and each kind of map -> (classes, H, W), nan where a class has none.
        names: of the classes.
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1.05 * len(names) + 0.4), len(names), 1 + len(KINDS), squeeze=False)
        for index, (name, row) in enumerate(zip(names, grid, strict=True)):
            show(row[0], examples["x"][index].astype(float), "", vmin=0, vmax=1)
            row[0].set_ylabel(name.replace(" ", "\n", 1), rotation=0, ha="right", va="center", fontsize=9)
            for axes, kind in zip(row[1:], KINDS, strict=True):
                plane = centred(examples[kind][index].astype(float))
                picture = show(axes, plane, "", vmin=0, vmax=1, cmap="viridis")
        for axes, title in zip(grid[0], ("image", *(f"{kind} map" for kind in KINDS)), strict=True):
            axes.set_title(title)
        figure.colorbar(picture, ax=grid, label="map", ticks=(0, 0.5, 1), pad=0.01, shrink=0.5)
    return figure


def figure_attacked_frequencies(arrays: Mapping[str, np.ndarray], networks: Sequence[str]) -> Picture:
    """One row per network: its mean maps of each kind, DC in the middle, and the mean radial energy of single maps.

    Mean maps share one logarithmic colour scale, from a thousandth of the largest value other than DC up to that value.

    Args:
        arrays: "mean.<network> <kind>" (H, W) and "radial.<network> <kind>" (64,), as in `frequency_maps.npz`.
        networks: such as ("N", "A").
    """
    groups = [f"{network} {kind}" for network in networks for kind in KINDS]
    top = max(float(arrays[f"mean.{group}"].flat[1:].max()) for group in groups)
    scale, colours = LogNorm(top / 1000, top), matplotlib.colormaps["magma"].with_extremes(bad="black")  # bad: zero
    with matplotlib.rc_context(STYLE):
        size = (7.6, 1.4 * len(networks) + 0.8)
        figure, grid = canvas(size, len(networks), 1 + len(KINDS), width_ratios=(1, 1, 1, 1, 1.8), squeeze=False)
        for network, row in zip(networks, grid, strict=True):
            row[0].set_ylabel(NETWORKS[network].replace(" ", "\n", 1), rotation=0, ha="right", va="center", fontsize=9)
            for axes, (kind, (colour, line)) in zip(row, KINDS.items(), strict=False):
                plane = centred(arrays[f"mean.{network} {kind}"])
                picture = show(axes, plane, "", norm=scale, cmap=colours)
                energy = arrays[f"radial.{network} {kind}"]
                radii = (np.arange(len(energy)) + 0.5) / len(energy)
                row[-1].plot(radii, energy, color=colour, linestyle=line, linewidth=1.4, label=kind)
            row[-1].set(xlim=(0, 1), ylim=(0, None))
        for axes, title in zip(grid[0], (*(f"{kind} maps" for kind in KINDS), "radial energy"), strict=True):
            axes.set_title(title)
        grid[0, -1].legend(frameon=False, handlelength=1.6)
        grid[-1, -1].set_xlabel("radius / corner radius")
        figure.colorbar(
            picture, ax=grid[:, :-1], label="mean map", extend="both", location="bottom", shrink=0.5, aspect=40
        )
    return figure


def figure_similarity(table: pd.DataFrame) -> Picture:
    """One panel per measure, one row per comparison: similarity of the paired maps, and 95% of shuffled pairings.

    Gray bars are of pairings shuffled among all images, orange ones of pairings shuffled within classes.

    Args:
        table: `map_similarity.csv`.
    """
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    ways = {"all": (GRAY, -0.18, "shuffled among all images"), "class": (ORANGE, 0.18, "shuffled within classes")}
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.6, 0.32 * len(pairs) + 1.2), 1, len(MEASURES), sharey=True)
        for axes, (measure, title) in zip(grid, MEASURES.items(), strict=True):
            for way, (colour, shift, label) in ways.items():
                chosen = table[(table["measure"] == measure) & (table["shuffled"] == way)]
                rows = chosen.set_index(["first", "second"]).loc[pairs]
                places = np.arange(len(pairs))
                axes.barh(places + shift, rows["high"] - rows["low"], 0.3, rows["low"], color=colour, label=label)
                if way == "class":
                    look = {"color": BLUE, "markersize": 5, "zorder": 3, "clip_on": False}
                    axes.plot(rows["value"], places, "o", label="paired maps", **look)
            axes.set_title(title, fontsize=9)
            if measure != "svcca":  # it is far above 0 for any sets of this size
                axes.axvline(0, color="black", linewidth=0.6)
            axes.use_sticky_edges = False
            axes.margins(x=0.12, y=0.02)
        grid[0].set_yticks(range(len(pairs)), [_pair(*pair) for pair in pairs], fontsize=8)
        grid[0].invert_yaxis()
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _pair(first: str, second: str) -> str:
    """The label of a comparison, in two lines: the network or networks, and the two kinds of map."""
    (network, kind), (other_network, other_kind) = first.split(), second.split()
    if network == other_network:
        return f"{NETWORKS[network]}:\n{kind}, {other_kind}"
    return f"{network} and {other_network}:\n{kind}"


def figure_class_maps(half: np.ndarray, names: Sequence[str]) -> Picture:
    """The essential map of each class, averaged over channels, DC in the middle.

    Args:
        half: (classes, C, H, W // 2 + 1).
        names: of the classes.
    """
    planes = full_plane(from_numpy(half.astype(np.float32)), 2 * (half.shape[-1] - 1)).mean(1).numpy()
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1.7), 1, len(names), squeeze=False)
        for axes, plane, name in zip(grid[0], planes, names, strict=True):
            picture = show(axes, centred(plane), name, vmin=0, vmax=1, cmap="viridis")
        figure.colorbar(picture, ax=grid, label="map", ticks=(0, 0.5, 1), pad=0.01, shrink=0.8)
    return figure


def figure_class_transfer(rates: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """N's accuracy on images of each class (rows) without a map and with the map of each class applied (columns).

    Args:
        rates: title -> accuracy in percent (classes, 1 + classes); nan, drawn blank, where there are no images.
        names: of the classes.
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.6, 3.1), 1, len(rates), sharey=True)
        for axes, (title, rate) in zip(grid, rates.items(), strict=True):
            picture = axes.imshow(rate, vmin=0, vmax=100, cmap="cividis", aspect="auto")
            for (row, column), value in np.ndenumerate(rate):
                if np.isfinite(value):
                    shade = "black" if value > 55 else "white"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=8)
            axes.set_title(title)
            axes.set_xticks(range(1 + len(names)), ("no map", *names), rotation=60, ha="right")
            axes.spines[:].set_visible(False)
            axes.axvline(0.5, color="white", linewidth=3)
        grid[0].set_yticks(range(len(names)), names)
        grid[0].set_ylabel("class of the images")
        figure.colorbar(picture, ax=grid, label="accuracy (%)", shrink=0.8, pad=0.01)
        figure.supxlabel("class of the map applied", fontsize=10)
    return figure
