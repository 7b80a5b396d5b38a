"""Figures of the chapter on cost, from an object of `benchmark.measure` or of `solvers.measure`."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.lines import Line2D

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, STYLE, VERMILION, Picture, canvas
from fmlib.studies.what_it_costs.analysis import SOLVERS, network_name

#: Kind of learning -> label, colour, and shift of its bar.
KINDS = {"serial": ("serial, one image at a time", ORANGE, -0.2), "batched": ("batched", BLUE, 0.2)}

#: Solver -> marker.
MARKERS = {"authors": "s", "adam": "D", "slp-40": "v", "slp-60": "o", "slp-120": "^"}


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


def figure_solvers(compared: dict[str, Any]) -> Picture:
    """Mean excess against passes (left) and against seconds per image (right), both axes logarithmic.

    One colour per network, one marker per solver. Vertical bars are the quartiles of the excess over images, horizontal
    ones the range of passes over images (left) and of seconds over chunks (right).
    """
    cases = list(dict.fromkeys(row["case"] for row in compared["rows"]))
    colours = dict(zip(cases, (BLUE, VERMILION, GREEN, PURPLE, ORANGE), strict=False))
    with matplotlib.rc_context(STYLE):
        figure, both = canvas((7.6, 4.2), 1, 2, sharey=True)
        for axes, name, label in zip(
            both, ("passes", "seconds"), ("passes per image", "seconds per image"), strict=True
        ):
            for row in compared["rows"]:
                value, (low, high) = row[name], row[f"{name}_range"]
                lower, _, upper = row["excess_quartiles"]
                style: dict[str, Any] = {"color": colours[row["case"]], "lw": 0.8, "alpha": 0.6}
                axes.plot([low, high], [row["excess"]] * 2, **style)
                axes.plot([value] * 2, [lower, upper], **style)
                axes.plot(value, row["excess"], MARKERS[row["solver"]], color=colours[row["case"]], ms=6)
            axes.set(xscale="log", yscale="log", xlabel=label)
        both[0].set_ylabel("excess (mean over images)")
        images = {row["case"]: row["images"] for row in compared["rows"]}
        shown = [solver for solver in MARKERS if any(row["solver"] == solver for row in compared["rows"])]
        handles = [Line2D([], [], color=colours[case], lw=3, label=network_name(case, images[case])) for case in cases]
        handles += [Line2D([], [], ls="", label=" ")] * (len(shown) - len(cases))  # a column each
        handles += [Line2D([], [], color=GRAY, marker=MARKERS[s], ls="", label=SOLVERS[s]) for s in shown]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure
