"""Figure 1 of the paper, the check against exact series, and intermodulation."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas

KINKED = ("relu", "leaky_relu", "hardtanh")  # not differentiable somewhere

TITLES = {
    "identity": "identity", "square": "square", "softplus": "softplus", "tanh": "tanh", "relu": "ReLU",
    "hardtanh": "hardtanh", "sigmoid": "sigmoid", "leaky_relu": "leaky ReLU", "silu": "SiLU", "gelu": "GELU",
    "elu": "ELU",
}  # fmt: skip


def _stems(axes: Axes, positions: np.ndarray, heights: np.ndarray, colour: str, floor: float) -> None:
    """Vertical lines from `floor` to each height above it, with a dot on top."""
    shown = heights > floor
    if not shown.any():  # an unclipped empty line would upset the layout
        return
    axes.vlines(positions[shown], floor, heights[shown], color=colour, linewidth=1.6)
    axes.plot(positions[shown], heights[shown], "o", color=colour, markersize=4, clip_on=False, zorder=3)


def figure_harmonics(arrays: Mapping[str, np.ndarray], floor: float = 1e-6) -> Picture:
    """Figure 1: a sine and its image under four activations, waveform (left) and amplitude spectrum (right, log scale).

    Panels in the paper's order: A sine, B softplus, C tanh, D ReLU, E hardtanh.

    Args:
        arrays: as `harmonics.waveforms` returns them.
        floor: smaller amplitudes are not drawn.
    """
    names = ("identity", "softplus", "tanh", "relu", "hardtanh")
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7, 6.6), 5, 2, sharex="col", width_ratios=(1, 1.5))
        for letter, name, (wave, spectrum) in zip("ABCDE", names, grid, strict=True):
            wave.plot(arrays["time"], arrays["input"], color=GRAY, linewidth=1, linestyle=(0, (3, 2)))
            wave.plot(arrays["time"], arrays[f"wave_{name}"], color=BLUE, linewidth=2)
            wave.set(ylim=(-1.15, 1.45), yticks=(-1, 0, 1), xlim=(0, 1), xticks=(0, 0.5, 1))
            title = "sine (input)" if name == "identity" else TITLES[name]
            wave.set_title(f"{letter}  {title}", loc="left", fontweight="bold")
            _stems(spectrum, arrays["harmonic"], arrays[f"amplitude_{name}"], BLUE, floor)
            spectrum.set(yscale="log", ylim=(floor, 3), yticks=(1e-6, 1e-4, 1e-2, 1), xticks=range(0, 17, 2))
            spectrum.minorticks_off()
            spectrum.grid(axis="y", color="0.9", linewidth=0.8)
            spectrum.set_axisbelow(True)
        grid[0, 1].set_title("amplitude of each harmonic", loc="left")
        grid[-1, 0].set_xlabel("time (periods)")
        grid[-1, 1].set_xlabel("harmonic (0 is the mean)")
    return figure


def figure_series(table: pd.DataFrame) -> Picture:
    """Measured against exact amplitudes (left) and the largest error of each activation (right), both on log scales.

    Args:
        table: rows of `harmonics.table`. Activations without a series and amplitudes below 1e-8 are left out.
    """
    known = table.dropna(subset=["exact"]).astype({"exact": float, "error": float})
    worst = known.groupby("activation")["error"].max().sort_values()
    colours = [VERMILION if name in KINKED else BLUE for name in worst.index]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7, 3.4), 1, 2)
        left.plot((3e-8, 2), (3e-8, 2), color=GRAY, linewidth=1)
        for label, colour, marker in (("smooth", BLUE, "o"), ("not differentiable", VERMILION, "s")):
            rows = known[known["activation"].isin(KINKED) == (marker == "s")].query("exact > 1e-8")
            left.plot(rows["exact"], rows["measured"], marker, color=colour, mfc="none", markersize=6, label=label)
        left.set(xscale="log", yscale="log", xlabel="exact amplitude", ylabel="measured amplitude")
        left.set(xticks=(1e-6, 1e-4, 1e-2, 1), yticks=(1e-6, 1e-4, 1e-2, 1))
        left.minorticks_off()
        left.legend(frameon=False, loc="upper left")
        right.hlines(range(len(worst)), 1e-17, worst, color="0.85", linewidth=1)
        right.scatter(worst, range(len(worst)), color=colours, s=36, zorder=3)
        right.set_yticks(range(len(worst)), [TITLES[str(name)] for name in worst.index])
        right.set(xscale="log", xlim=(1e-17, 1e-5), xlabel="largest error, harmonics 0 to 8")
        right.set_xticks((1e-16, 1e-12, 1e-8))
        right.minorticks_off()
    return figure


def figure_intermodulation(table: pd.DataFrame, floor: float = 1e-4) -> Picture:
    """Amplitudes of the products of two tones, up to third order, one panel per activation; rings are exact values.

    Args:
        table: rows of `harmonics.intermodulation_table`.
        floor: smaller amplitudes are not drawn.
    """
    kinds = {"input tone": ORANGE, "harmonic": BLUE, "intermodulation": VERMILION, "mean": GRAY}
    named = {"DC": "mean", "w1": "input tone", "w2": "input tone"}
    names = list(dict.fromkeys(table["activation"]))
    with matplotlib.rc_context(STYLE):
        size = (7, 1.1 * len(names) + 1)
        figure, grid = canvas(size, len(names), 1, sharex=True)
        for name, axes in zip(names, grid, strict=True):
            rows = table[table["activation"] == name]
            kind = [named.get(p, "intermodulation" if "w1" in p and "w2" in p else "harmonic") for p in rows["product"]]
            for label, colour in kinds.items():
                part = rows[[k == label for k in kind]]
                _stems(axes, part["frequency"].to_numpy(), part["measured"].to_numpy(), colour, floor)
            exact = rows.dropna(subset=["exact"]).query("exact > @floor")
            axes.plot(exact["frequency"], exact["exact"].astype(float), "o", mfc="none", color="black", markersize=9)
            axes.set(ylim=(0, 1.25), yticks=(0, 0.5, 1), xlim=(-3, 1.04 * rows["frequency"].max()))
            axes.set_title(TITLES[name], loc="left", fontweight="bold", pad=3)
        ticks = rows.sort_values("frequency")
        labels = ticks["product"].str.replace(r"w(\d)", r"$w_\1$", regex=True).str.replace("-", "\N{MINUS SIGN}")
        grid[-1].set_xticks(ticks["frequency"], labels, rotation=90)
        grid[len(names) // 2].set_ylabel("amplitude")
        handles = [Line2D([], [], color=c, marker="o", markersize=4, label=k) for k, c in kinds.items()]
        handles.append(Line2D([], [], color="black", marker="o", mfc="none", markersize=9, ls="", label="exact"))
        figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, handletextpad=0.4)
    return figure
