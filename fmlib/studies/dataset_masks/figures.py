"""Figures 1 to 4: each function takes what `Results` holds and returns a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle
from torch import from_numpy

from fmlib.core.spectra import angular_energy, apply_mask, half_plane, radial_energy, ring_means
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, STYLE, VERMILION, Picture, canvas, centred, show

REGIMES = {"N": "plain", "A": "adversarial", "S": "scales", "T": "translations", "R": "rotations"}


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


def figure_synthetic(arrays: Mapping[str, np.ndarray]) -> Picture:
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
    """Accuracy of each regime unmasked, behind its mask and under the attack; rates: kind -> regime -> percent."""
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


TRAINED = {"N": "N: standard", "A": "A: trained against attacks"}


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
