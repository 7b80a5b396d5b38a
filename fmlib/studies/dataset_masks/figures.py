"""Figures 2 to 4 and their controls, and the figure of the introduction: each takes published arrays or tables."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import from_numpy

from fmlib.core.spectra import angular_energy, apply_mask, half_plane, radial_energy, ring_means
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.studies.shared.names import full_name

#: Regime -> name of its network.
REGIMES = {regime: full_name(regime) for regime in "NASTR"}


def _narrow(regime: str) -> str:
    """The network's name on two lines."""
    return REGIMES[regime].replace(" ", "\n", 1)


def figure_scheme(arrays: Mapping[str, np.ndarray]) -> Picture:
    """Figure 2: an image, its spectrum, the mask, the masked spectrum, and the filtered image that the network sees.

    Args:
        arrays: `image`, `filtered` and `mask`, each (H, W).
    """
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
        steps = ("FFT", "multiply", "product", "inverse FFT", r"frozen network $\to\mathcal{L}$")
        for one, step in zip(axes, steps, strict=True):
            one.set_xlabel(step + ("" if one is axes[4] else r" $\to$"), fontsize=9)
    return figure


def figure_masks(masks: Mapping[str, np.ndarray]) -> Picture:
    """Figure 3: the dataset mask of each network (first repetition), and its difference from that of N.

    Args:
        masks: regime -> (repetitions, H, W).
    """
    names = [name for name in REGIMES if name in masks]
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((0.4 + 1.4 * len(names), 3.5), 2, len(names))
        for column, name in enumerate(names):
            mask = masks[name][0]
            top = show(grid[0, column], centred(mask), _narrow(name), vmin=0, vmax=1, cmap="viridis")
            if name == "N":
                grid[1, 0].set_axis_off()
                continue
            picture = centred(mask - masks["N"][0])
            low = show(grid[1, column], picture, f"{name} \N{MINUS SIGN} N", vmin=-1, vmax=1, cmap="RdBu_r")
        figure.colorbar(top, ax=grid[0], label="mask", ticks=(0, 0.5, 1), pad=0.01, shrink=0.6, aspect=12)
        figure.colorbar(low, ax=grid[1], label="difference", ticks=(-1, 0, 1), pad=0.01, shrink=0.6, aspect=12)
    return figure


def figure_energies(masks: Mapping[str, np.ndarray]) -> Picture:
    """Figure 4: radial (left) and angular (right) energy of each network's mask minus that of N, in 64 bands.

    Line: mean over pairs of networks with the same seed, with bars over the range in every fourth band;
    gray: other networks N minus the first, their variation; dotted: a third of the corner radius.

    Args:
        masks: regime -> (repetitions, H, W), of N at least as many as of any other.
    """
    names = [name for name in REGIMES if name in masks and name != "N"]
    height = max(2.2, 0.8 + len(names))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, height), len(names), 2, sharex="col", sharey="col", squeeze=False)
        for energy, axes in ((radial_energy, grid[:, 0]), (angular_energy, grid[:, 1])):
            base = energy(from_numpy(masks["N"])).numpy()
            position = (np.arange(base.shape[-1]) + 0.5) / base.shape[-1]
            position = position if energy is radial_energy else 360 * position
            for name, one in zip(names, axes, strict=True):
                change = energy(from_numpy(masks[name])).numpy() - base[: len(masks[name])]  # (repetitions, bands)
                one.axhline(0, color=GRAY, linewidth=0.8)
                one.plot(position, (base[1:] - base[0]).T, color=GRAY, linewidth=0.7)
                _with_range(one, position, change)
                one.set_title(f"{REGIMES[name]} \N{MINUS SIGN} {REGIMES['N']}", loc="left")
        for one in grid[:, 0]:
            one.axvline(1 / 3, color=VERMILION, linewidth=1, linestyle=":")
        grid[0, 0].annotate("  1/3", (1 / 3, 1), xycoords=("data", "axes fraction"), color=VERMILION, va="top")
        grid[-1, 0].set(xlabel="radius / corner radius", xlim=(0, 1))
        grid[-1, 1].set(xlabel="direction (degrees)", xlim=(0, 360), xticks=range(0, 361, 90))
        figure.supylabel("difference of band energy", fontsize=10)
    return figure


def _with_range(axes: Axes, position: np.ndarray, values: np.ndarray) -> None:
    """The mean of `values` (repetitions, bands) as a line, with bars over the repetitions in every fourth band."""
    mean = values.mean(0)
    bars = _to_extremes(values) if len(values) > 1 else None
    axes.errorbar(position, mean, bars, color=BLUE, linewidth=1.5, elinewidth=1, errorevery=(1, 4))


def _to_extremes(values: np.ndarray) -> np.ndarray:
    """Distances of the mean over the first axis to the smallest and to the largest value: (2, ...)."""
    mean = values.mean(0)
    return np.stack((mean - values.min(0), values.max(0) - mean)).clip(0)  # rounding may put the mean outside


def figure_scales(masks: Mapping[str, np.ndarray]) -> Picture:
    """Dataset masks of several image sizes, and the mean of each on rings, by share of the highest frequency.

    The square in the larger masks encloses the frequencies of the smallest.

    Args:
        masks: title -> (h, h), the smallest first.
    """
    smallest = len(next(iter(masks.values())))
    with matplotlib.rc_context(STYLE):
        figure, (*planes, rings) = canvas((7.4, 2.0), 1, len(masks) + 1, width_ratios=[1] * len(masks) + [1.5])
        for axes, (name, mask), colour in zip(planes, masks.items(), (BLUE, VERMILION, GREEN), strict=False):
            shown = show(axes, centred(mask), name, vmin=0, vmax=1, cmap="viridis")
            rings.plot(np.linspace(0, 1, len(mask) // 2 + 1), ring_means(from_numpy(mask)), color=colour, label=name)
            if len(mask) > smallest:
                corner = (len(mask) - smallest) / 2 - 0.5
                axes.add_patch(
                    Rectangle((corner, corner), smallest, smallest, fill=False, color="white", linewidth=0.8)
                )
        figure.colorbar(shown, ax=planes, label="mask", ticks=(0, 0.5, 1), pad=0.02, shrink=0.8)
        rings.set(xlabel="radius / highest frequency", ylabel="mean of the mask", ylim=(0, 1.02))
        rings.legend(frameon=False, fontsize=8)
    return figure


def figure_history(history: pd.DataFrame) -> Picture:
    """Convergence of the fits of N's mask: L1 share (left) and invariance cost (right) by epoch.

    Args:
        history: `mask_history.csv`.
    """
    rows = history[(history["regime"] == "N") & (history["repetition"] == 0)]
    labels = {"plain": "minibatches", "order": "other order", "half": "half the images", "single": "batch size 1"}
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
    """The mask of N beside masks that should agree with it, each with its correlation.

    Args:
        masks: `dataset_masks.npz`.
        stability: `stability.csv`.
    """
    shown = {
        "minibatches": masks["N"][0],
        "other order": masks["N.order"],
        "half the images": masks["N.half"],
        "batch size 1": masks["N.single"],
        "another seed": masks["N"][1],
    }
    correlations = stability[stability["regime"] == "N"].groupby("pair")["correlation"].first()
    values = dict(zip(list(shown)[1:], correlations[["order", "half", "single", "network"]], strict=True))
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 1.9), 1, 5)
        for one, (name, mask) in zip(axes, shown.items(), strict=True):
            show(one, centred(mask), name, vmin=0, vmax=1, cmap="viridis")
            one.set_xlabel(f"r = {values[name]:.2f}" if name in values else "reference")
    return figure


def figure_synthetic(arrays: Mapping[str, np.ndarray]) -> Picture:
    """A synthetic image, the frequencies it consists of, and the learned mask.

    Args:
        arrays: `images` (classes, H, W) uint8; `tones`, `distractors` and `mask`, each (H, W).
    """
    tones, distractors = arrays["tones"], arrays["distractors"]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.9), 1, 3)
        show(axes[0], arrays["images"][0], "image", vmin=0, vmax=255)
        show(axes[1], np.ones_like(tones), "its frequencies", vmin=0, vmax=1)
        for plane, colour, marker, label in (
            (tones, BLUE, "o", "class tones"),
            (distractors, ORANGE, "s", "distractors"),
        ):
            rows, columns = np.nonzero(centred(plane))
            axes[1].plot(columns, rows, marker, color=colour, markersize=5, label=label, linestyle="none")
        axes[1].spines[:].set_visible(True)
        axes[1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False, ncols=2, handletextpad=0)
        picture = show(axes[2], centred(arrays["mask"]), "learned mask", vmin=0, vmax=1, cmap="viridis")
        figure.colorbar(picture, ax=axes[2], ticks=(0, 0.5, 1), shrink=0.8)
    return figure


def figure_attack(accuracy: pd.DataFrame) -> Picture:
    """Accuracy of each network unmasked, with its dataset mask applied, and under the training attack.

    Bars: means over repetitions; error bars: from the smallest to the largest.

    Args:
        accuracy: percent; one row per regime and repetition; columns standard, masked, attacked.
    """
    kinds = {
        "standard": ("unmasked", BLUE),
        "masked": ("dataset mask applied", GREEN),
        "attacked": ("under PGD", VERMILION),
    }
    names = list(accuracy.index.unique("regime"))
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.8))
        for offset, (kind, (label, colour)) in enumerate(kinds.items()):
            values = np.stack([accuracy[kind].loc[name].to_numpy() for name in names], axis=1)  # (repetitions, regimes)
            places = np.arange(len(names)) + 0.29 * (offset - 1)
            axes.bar(places, values.mean(0), 0.27, color=colour, label=label)
            if len(values) > 1:
                axes.errorbar(places, values.mean(0), _to_extremes(values), fmt="none", ecolor="black", capsize=3)
            for place, mean, top in zip(places, values.mean(0), values.max(0), strict=True):
                axes.text(place, top + 2, f"{mean:.1f}", ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(names)), [_narrow(name) for name in names])
        axes.set(ylabel="accuracy (%)", ylim=(0, 105))
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return figure


def figure_translation(table: pd.DataFrame) -> Picture:
    """Relative amplitude of a filter averaged over translations, by frequency: measured (points) and the sinc (line).

    Args:
        table: `translation.csv`.
    """
    reach = 0.4  # of the image size, as in training regime T
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 2.3))
        fine = np.linspace(0, table["frequency"].max(), 400)
        axes.plot(fine, np.abs(np.sinc(2 * reach * fine)), color=GRAY, lw=1, label=r"$|\mathrm{sinc}\,2af|$")
        axes.plot(table["frequency"], table["measured"], "o", color=BLUE, markersize=4, label="averaged filter")
        axes.set(xlabel="frequency $f$ (cycles)", ylabel="relative amplitude", ylim=(0, 1.02))
        axes.legend(frameon=False)
    return figure


def figure_architectures(masks: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Dataset masks of N and A, and their difference, one row per architecture.

    Args:
        masks: architecture -> regime -> (H, W).
    """
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((6, 0.3 + 1.9 * len(masks)), len(masks), 3, squeeze=False)
        for axes, (name, row) in zip(grid, masks.items(), strict=True):
            for one, regime in zip(axes, "NA", strict=False):
                left = show(one, centred(row[regime]), _narrow(regime), vmin=0, vmax=1, cmap="viridis")
            change = centred(row["A"] - row["N"])
            right = show(axes[2], change, "A \N{MINUS SIGN} N", vmin=-1, vmax=1, cmap="RdBu_r")
            axes[0].set_ylabel(name)
        figure.colorbar(left, ax=grid[:, 1], label="mask", ticks=(0, 0.5, 1), pad=0.02, shrink=0.4, aspect=12)
        figure.colorbar(right, ax=grid[:, 2], label="difference", ticks=(-1, 0, 1), pad=0.02, shrink=0.4, aspect=12)
    return figure


def figure_home(masks: Mapping[str, np.ndarray], image: np.ndarray, accuracy: pd.DataFrame) -> Picture:
    """Figure of the introduction, one row for N and one for A: dataset mask, filtered image, accuracies.

    Args:
        masks: regime -> (repetitions, H, W), of which the first is shown.
        image: (H, W) in [0, 1], filtered about its mean.
        accuracy: of `analysis.accuracies`. Bars show means, and lines the range over repetitions.
    """
    plane = from_numpy(image)[None, None]  # (1, 1, H, W)
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 4.2), 2, 3, width_ratios=(1, 1, 1.1))
        for regime, (left, middle, right) in zip("NA", grid, strict=True):
            mask = masks[regime][0]
            picture = show(left, centred(mask), "", vmin=0, vmax=1, cmap="viridis")
            left.set_ylabel(_narrow(regime), fontweight="bold")
            filtered = apply_mask(plane, half_plane(from_numpy(mask)), float(image.mean()))
            show(middle, filtered[0, 0].numpy(), "", vmin=0, vmax=1)
            runs = accuracy.loc[regime][["masked", "standard"]].to_numpy()  # (repetitions, 2)
            mean = runs.mean(0)
            bars = right.barh(("mask\napplied", "unmasked"), mean, 0.6, color=(GREEN, BLUE))
            right.errorbar(mean, (0, 1), xerr=(mean - runs.min(0), runs.max(0) - mean), fmt="none", color="black", lw=1)
            right.bar_label(bars, fmt="%.0f", padding=6)
            right.set(xlim=(0, 112), xticks=(0, 50, 100))
        titles = ("dataset mask", "image with mask applied", "accuracy (%)")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        figure.colorbar(picture, ax=grid[:, 0], location="left", ticks=(0, 0.5, 1), shrink=0.5, label="mask")
    return figure
