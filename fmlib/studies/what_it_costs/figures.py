"""Figures of the chapter on cost, from an object of `benchmark.measure`."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas

#: Kind of learning -> label, colour, and shift of its bar.
KINDS = {"serial": ("serial, one image at a time", ORANGE, -0.2), "batched": ("batched", BLUE, 0.2)}


def figure_speed(measured: dict[str, Any]) -> Picture:
    """Seconds for all image masks of each case: serial and batched learning, and the lower bound of the device.

    The lower bound is the number of operations over the rate of a large matrix product. Error bars span the smallest
    and the largest measurement.
    """
    rows = measured["rows"]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 0.9 * len(rows) + 1.3))
        for place, row in enumerate(rows):
            steps = row["batched_seconds"] * row["batched_steps_per_s"]
            bound = row["batched_seconds"] * row["ceiling_share"]
            for kind, (label, colour, shift) in KINDS.items():
                seconds = steps / row[f"{kind}_steps_per_s"]
                slowest, fastest = (steps / rate for rate in row[f"{kind}_range"])
                error = [[max(seconds - fastest, 0)], [max(slowest - seconds, 0)]]
                style = {"color": colour, "ecolor": GRAY, "label": None if place else label}
                axes.barh(place + shift, seconds, 0.36, xerr=error, **style)
                axes.annotate(f" {seconds:.3g} s", (slowest, place + shift), va="center", fontsize=9)
            bound_label = None if place else "lower bound (rate of a matrix product)"
            axes.plot([bound, bound], [place - 0.42, place + 0.42], color=VERMILION, lw=2, label=bound_label)
        axes.set_yticks(range(len(rows)), [f"{row['case']}\n{row['images']} masks" for row in rows])
        axes.set(xlabel="seconds")
        axes.invert_yaxis()
        axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def figure_scaling(measured: dict[str, Any]) -> Picture:
    """Seconds against images (left), mask steps per second against batch size (middle) and side in pixels (right)."""
    scaling = measured["scaling"]
    with matplotlib.rc_context(STYLE):
        figure, (left, middle, right) = canvas((7.6, 2.6), 1, 3)
        images = np.array([row["images"] for row in scaling["images"]])
        seconds = np.array([row["seconds"] for row in scaling["images"]])
        left.plot(images, seconds, "o-", color=BLUE)
        left.plot(images, seconds[0] * images / images[0], color=GRAY, lw=1, ls=":")
        left.set(xlabel="images", ylabel="seconds", xlim=(0, None), ylim=(0, None))
        for axes, name, label in ((middle, "batch", "batch size"), (right, "size", "side (pixels)")):
            rows = scaling["batch" if name == "batch" else "resolution"]
            axes.plot([row[name] for row in rows], [row["steps_per_s"] for row in rows], "o-", color=BLUE)
            axes.set(xscale="log", yscale="log", xlabel=label)
            axes.set_xticks([row[name] for row in rows], [str(row[name]) for row in rows])
            axes.set_yticks([row["steps_per_s"] for row in rows], [f"{row['steps_per_s']:,.0f}" for row in rows])
            axes.minorticks_off()
        middle.set_ylabel("mask steps per second")
    return figure
