"""Figures 1 to 4: each function takes what `Results` holds and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import from_numpy

from fmlib.drawing import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.spectra import angular_energy, radial_energy, ring_means

REGIMES = {"N": "plain", "A": "adversarial", "S": "scales", "T": "translations", "R": "rotations"}
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
    """Figure 1: a sine and what four activations make of it, wave (left) and amplitude spectrum (right, log scale).

    `arrays` is what `harmonics.waveforms` returns. Harmonics smaller than `floor` are not drawn.
    Panels in the paper's order: A sin, B softplus, C tanh, D ReLU, E hardtanh.
    """
    names = ("identity", "softplus", "tanh", "relu", "hardtanh")
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7, 7.2), 5, 2, sharex="col", width_ratios=(1, 1.5))
        for letter, name, (wave, spectrum) in zip("ABCDE", names, grid, strict=True):
            wave.plot(arrays["time"], arrays["input"], color=GRAY, linewidth=1, linestyle=(0, (3, 2)))
            wave.plot(arrays["time"], arrays[f"wave_{name}"], color=BLUE, linewidth=2)
            wave.set(ylim=(-1.15, 1.45), yticks=(-1, 0, 1), xlim=(0, 1), xticks=(0, 0.5, 1))
            title = "sin, the input" if name == "identity" else TITLES[name]
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

    `table` holds the rows of `harmonics.table`; activations without a series, and amplitudes below 1e-8, are left out.
    """
    known = table.dropna(subset=["exact"]).astype({"exact": float, "error": float})
    worst = known.groupby("activation")["error"].max().sort_values()
    colours = [VERMILION if name in KINKED else BLUE for name in worst.index]
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7, 3.4), 1, 2)
        left.plot((3e-8, 2), (3e-8, 2), color=GRAY, linewidth=1)
        for label, colour, marker in (("smooth", BLUE, "o"), ("with a kink", VERMILION, "s")):
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
    """Amplitudes of the products of two tones, up to third order, one panel for each activation.

    `table` holds the rows of `harmonics.intermodulation_table`. Rings mark exact amplitudes; those below `floor` are
    not drawn.
    """
    kinds = {"input tone": ORANGE, "harmonic": BLUE, "intermodulation": VERMILION, "mean": GRAY}
    named = {"DC": "mean", "w1": "input tone", "w2": "input tone"}
    names = list(dict.fromkeys(table["activation"]))
    with matplotlib.rc_context(STYLE):
        size = (7, 1.35 * len(names) + 1)
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


# ------------------------------------------------------------------------------------------------ dataset masks


def figure_scheme(arrays: Mapping[str, np.ndarray]) -> Picture:
    """Figure 2: an image, its spectrum, the mask, the masked spectrum and the filtered image that the network sees."""
    image, mask, filtered = arrays["image"], arrays["mask"], arrays["filtered"]
    spectrum = np.log1p(np.abs(np.fft.fft2(image - image.mean())))
    limits = {"vmin": 0, "vmax": spectrum.max(), "cmap": "magma"}
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 1.9), 1, 5)
        show(axes[0], image, "$x$", vmin=0, vmax=1)
        show(axes[1], centred(spectrum), r"$|\mathcal{F}x|$", **limits)
        show(axes[2], centred(mask), "$M$", vmin=0, vmax=1, cmap="viridis")
        show(axes[3], centred(spectrum * mask), r"$|M\odot\mathcal{F}x|$", **limits)
        show(axes[4], filtered, "$M(x)$", vmin=0, vmax=1)
        steps = ("FFT", "times", "gives", "inverse FFT", r"frozen network $\to\mathcal{L}$")
        for one, step in zip(axes, steps, strict=True):
            one.set_xlabel(step + ("" if one is axes[4] else r" $\to$"), fontsize=9)
    return figure


def figure_masks(masks: Mapping[str, np.ndarray]) -> Picture:
    """Figure 3: the dataset mask of each regime (first repetition), and its difference from the plain network's.

    masks: regime -> (repetitions, H, W).
    """
    names = [name for name in REGIMES if name in masks]
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((0.4 + 1.4 * len(names), 3.3), 2, len(names))
        for column, name in enumerate(names):
            mask = masks[name][0]
            top = show(grid[0, column], centred(mask), f"{name}  {REGIMES[name]}", vmin=0, vmax=1, cmap="viridis")
            if name == "N":
                grid[1, 0].set_axis_off()
                continue
            picture = centred(mask - masks["N"][0])
            low = show(grid[1, column], picture, f"{name} \N{MINUS SIGN} N", vmin=-1, vmax=1, cmap="RdBu_r")
        figure.colorbar(top, ax=grid[0], label="mask", ticks=(0, 0.5, 1), pad=0.01)
        figure.colorbar(low, ax=grid[1], label="difference", ticks=(-1, 0, 1), pad=0.01)
    return figure


def figure_energies(masks: Mapping[str, np.ndarray]) -> Picture:
    """Figure 4: radial (left) and angular (right) energy of each regime's mask minus the plain network's, 64 bands.

    masks: regime -> (repetitions, H, W), of N as many as of any other. Thin lines: networks of the same seed, paired;
    thick line: their mean; gray: other plain networks minus the first. Dotted: a third of the corner radius.
    """
    names = [name for name in REGIMES if name in masks and name != "N"]
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 0.8 + 1.4 * len(names)), len(names), 2, sharex="col", sharey="col", squeeze=False)
        for energy, axes in ((radial_energy, grid[:, 0]), (angular_energy, grid[:, 1])):
            base = energy(from_numpy(masks["N"])).numpy()
            position = (np.arange(base.shape[-1]) + 0.5) / base.shape[-1]
            position = position if energy is radial_energy else 360 * position
            for name, one in zip(names, axes, strict=True):
                change = energy(from_numpy(masks[name])).numpy() - base[: len(masks[name])]  # (repetitions, bands)
                one.axhline(0, color=GRAY, linewidth=0.8)
                one.plot(position, (base[1:] - base[0]).T, color=GRAY, linewidth=0.7)
                one.plot(position, change.T, color=BLUE, linewidth=0.7, alpha=0.5)
                one.plot(position, change.mean(0), color=BLUE, linewidth=1.8)
                one.set_title(f"{name} \N{MINUS SIGN} N  ({REGIMES[name]})", loc="left")
        for one in grid[:, 0]:
            one.axvline(1 / 3, color=VERMILION, linewidth=1, linestyle=":")
        grid[0, 0].annotate("  1/3", (1 / 3, 1), xycoords=("data", "axes fraction"), color=VERMILION, va="top")
        grid[-1, 0].set(xlabel="radius / corner radius", xlim=(0, 1))
        grid[-1, 1].set(xlabel="direction (degrees)", xlim=(0, 360), xticks=range(0, 361, 90))
        figure.supylabel("difference of band energy", fontsize=10)
    return figure


def figure_scales(masks: Mapping[str, np.ndarray]) -> Picture:
    """Masks (h, h) of plain networks by what they are called, the smallest first, and the mean of each on rings.

    The square in the larger planes holds the frequencies that the smallest one has; rings are placed by their share of
    the highest frequency along an axis.
    """
    least = len(next(iter(masks.values())))
    with matplotlib.rc_context(STYLE):
        figure, (*planes, rings) = canvas((7.4, 2.0), 1, len(masks) + 1, width_ratios=[1] * len(masks) + [1.5])
        for axes, (name, mask), colour in zip(planes, masks.items(), (BLUE, VERMILION, GREEN), strict=False):
            shown = show(axes, centred(mask), name, vmin=0, vmax=1, cmap="viridis")
            rings.plot(np.linspace(0, 1, len(mask) // 2 + 1), ring_means(from_numpy(mask)), color=colour, label=name)
            if len(mask) > least:
                corner = (len(mask) - least) / 2 - 0.5
                axes.add_patch(Rectangle((corner, corner), least, least, fill=False, color="white", linewidth=0.8))
        figure.colorbar(shown, ax=planes, label="mask", ticks=(0, 0.5, 1), pad=0.02, shrink=0.8)
        rings.set(xlabel="radius / highest frequency", ylabel="mean of the mask", ylim=(0, 1.02))
        rings.legend(frameon=False, fontsize=8)
    return figure


def figure_history(history: pd.DataFrame) -> Picture:
    """How the plain network's masks settle: L1 share (left) and invariance cost (right) by epoch, for each fit."""
    rows = history[(history["regime"] == "N") & (history["repetition"] == 0)]
    labels = {"plain": "batches", "order": "other order", "half": "half the images", "single": "one image a step"}
    colours = dict(zip(labels, (BLUE, VERMILION, GREEN, ORANGE), strict=True))
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.9), 1, 2)
        for variant, label in labels.items():
            part = rows[rows["variant"] == variant]
            left.plot(part["epoch"], part["l1_share"], color=colours[variant], label=label)
            right.plot(part["epoch"], part["invariance"] - 1, color=colours[variant])
        left.set(xlabel="epoch", ylabel="L1 share of the mask", ylim=(0, 1.02))
        right.set(xlabel="epoch", ylabel=r"mean of $e^{d^2} - 1$", yscale="log")
        left.legend(frameon=False)
    return figure


def figure_stability(masks: Mapping[str, np.ndarray], stability: pd.DataFrame) -> Picture:
    """The plain network's mask beside masks that should agree with it, each with its correlation."""
    shown = {
        "fitted once": masks["N"][0],
        "other order": masks["N.order"],
        "half the images": masks["N.half"],
        "one image a step": masks["N.single"],
        "another network": masks["N"][1],
    }
    found = stability[stability["regime"] == "N"].groupby("pair")["correlation"].first()
    values = dict(zip(list(shown)[1:], found[["order", "half", "single", "network"]], strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 1.9), 1, 5)
        for one, (name, mask) in zip(axes, shown.items(), strict=True):
            show(one, centred(mask), name, vmin=0, vmax=1, cmap="viridis")
            one.set_xlabel(f"r = {values[name]:.2f}" if name in values else "reference")
    return figure


def figure_planted(arrays: Mapping[str, np.ndarray]) -> Picture:
    """A planted image, the frequencies it was made of, and the mask that was learned."""
    tones, distractors = arrays["tones"], arrays["distractors"]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.9), 1, 3)
        show(axes[0], arrays["images"][0], "an image", vmin=0, vmax=255)
        show(axes[1], np.ones_like(tones), "what was planted", vmin=0, vmax=1)
        for plane, colour, marker, label in (
            (tones, BLUE, "o", "class tones"),
            (distractors, ORANGE, "s", "distractors"),
        ):
            rows, columns = np.nonzero(centred(plane))
            axes[1].plot(columns, rows, marker, color=colour, markersize=5, label=label, linestyle="none")
        axes[1].spines[:].set_visible(True)
        axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False, ncols=2, handletextpad=0)
        picture = show(axes[2], centred(arrays["mask"]), "the learned mask", vmin=0, vmax=1, cmap="viridis")
        figure.colorbar(picture, ax=axes[2], ticks=(0, 0.5, 1), shrink=0.8)
    return figure


def figure_attack(rates: Mapping[str, Mapping[str, float]]) -> Picture:
    """Accuracy of each regime as it stands, behind its mask and under the attack; rates: kind -> regime -> percent."""
    colours = {"standard": BLUE, "masked": GREEN, "attacked": VERMILION}
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.6))
        for offset, (kind, values) in enumerate(rates.items()):
            places = np.arange(len(values)) + 0.27 * (offset - 1)
            bars = axes.bar(places, list(values.values()), 0.25, color=colours[kind], label=kind)
            axes.bar_label(bars, fmt="%.0f", fontsize=9, padding=1)
        axes.set_xticks(range(len(values)), [f"{name}  {REGIMES[name]}" for name in values])
        axes.set(ylabel="accuracy (%)", ylim=(0, 105))
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return figure


def figure_translation(table: pd.DataFrame) -> Picture:
    """What is left of a filter averaged over translations, by frequency: measured (points) and the sinc (line)."""
    reach = 0.4  # of the side, as in the translation regime
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.3))
        fine = np.linspace(0, table["frequency"].max(), 400)
        axes.plot(fine, np.abs(np.sinc(2 * reach * fine)), color=GRAY, lw=1, label=r"$|\mathrm{sinc}\,2af|$")
        axes.plot(table["frequency"], table["measured"], "o", color=BLUE, markersize=4, label="averaged filter")
        axes.set(xlabel="frequency $f$ (cycles)", ylabel="amplitude left", ylim=(0, 1.02))
        axes.legend(frameon=False)
    return figure


def figure_architectures(masks: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Dataset masks of N and A, and their difference; masks: architecture (a row) -> regime -> (h, h)."""
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((6, 0.3 + 1.7 * len(masks)), len(masks), 3, squeeze=False)
        for axes, (name, row) in zip(grid, masks.items(), strict=True):
            for one, regime in zip(axes, "NA", strict=False):
                left = show(one, centred(row[regime]), f"{regime}  {REGIMES[regime]}", vmin=0, vmax=1, cmap="viridis")
            change = centred(row["A"] - row["N"])
            right = show(axes[2], change, "A \N{MINUS SIGN} N", vmin=-1, vmax=1, cmap="RdBu_r")
            axes[0].set_ylabel(name)
        figure.colorbar(left, ax=grid[:, 1], label="mask", ticks=(0, 0.5, 1), pad=0.02)
        figure.colorbar(right, ax=grid[:, 2], label="difference", ticks=(-1, 0, 1), pad=0.02)
    return figure
