"""The figures of what masks cost: each function takes an object of `results.benchmark` and returns a Figure."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, ORANGE, STYLE, VERMILION, Picture, canvas


def figure_engine(bench: dict[str, Any]) -> Picture:
    """Seconds for all image masks of each case: engine, serial reference, and the floor that the device sets.

    The floor is operations over the measured rate of a matrix product. Bars of the first two span their spread.
    """
    rows = bench["rows"]
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 0.9 * len(rows) + 1.3))
        for place, row in enumerate(rows):
            steps = row["engine_seconds"] * row["engine_steps_per_s"]
            floor = row["engine_seconds"] * row["ceiling_share"]
            for offset, kind, colour in ((-0.2, "serial", ORANGE), (0.2, "engine", BLUE)):
                seconds = steps / row[f"{kind}_steps_per_s"]
                slowest, fastest = (steps / pace for pace in row[f"{kind}_spread"])
                error = [[max(seconds - fastest, 0)], [max(slowest - seconds, 0)]]
                label = {"serial": "one image at a time", "engine": "engine"}[kind] if place == 0 else None
                axes.barh(place + offset, seconds, 0.36, color=colour, xerr=error, ecolor=GRAY, label=label)
                axes.annotate(f" {seconds:.3g} s", (slowest, place + offset), va="center", fontsize=9)
            axes.plot(
                [floor, floor], [place - 0.42, place + 0.42], color=VERMILION, lw=2, label=None if place else "floor"
            )
        axes.set_yticks(range(len(rows)), [f"{row['case']}\n{row['images']} masks" for row in rows])
        axes.set(xlabel="seconds")
        axes.invert_yaxis()
        axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def figure_scaling(bench: dict[str, Any]) -> Picture:
    """Seconds against images (left), mask steps a second against masks at once (middle) and side in pixels (right)."""
    scaling = bench["scaling"]
    with matplotlib.rc_context(STYLE):
        figure, (left, middle, right) = canvas((7.6, 2.6), 1, 3)
        images = np.array([row["images"] for row in scaling["images"]])
        seconds = np.array([row["seconds"] for row in scaling["images"]])
        left.plot(images, seconds, "o-", color=BLUE)
        left.plot(images, seconds[0] * images / images[0], color=GRAY, lw=1, ls=":")
        left.set(xlabel="images", ylabel="seconds", xlim=(0, None), ylim=(0, None))
        for axes, name, label in ((middle, "batch", "masks at once"), (right, "size", "side (pixels)")):
            rows = scaling["batch" if name == "batch" else "resolution"]
            axes.plot([row[name] for row in rows], [row["steps_per_s"] for row in rows], "o-", color=BLUE)
            axes.set(xscale="log", yscale="log", xlabel=label)
            axes.set_xticks([row[name] for row in rows], [str(row[name]) for row in rows])
            axes.set_yticks([row["steps_per_s"] for row in rows], [f"{row['steps_per_s']:,.0f}" for row in rows])
            axes.minorticks_off()
        middle.set_ylabel("mask steps a second")
    return figure
