"""Figures of FreqBench: precision on tones, insertion and deletion, quality against passes, stability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, STYLE, VERMILION, Picture, canvas
from fmlib.studies.freqbench.measure import METHODS
from fmlib.studies.freqbench.tasks.problems import TASKS

#: Method -> colour and marker.
LOOKS = {
    "sequential": (BLUE, "o"), "authors": (VERMILION, "s"), "frequency-maps": (GREEN, "D"), "ffc": (PURPLE, "v"),
    "gradient": (ORANGE, "^"), "integrated-gradients": (ORANGE, "P"), "random-masks": (GREEN, "X"),
    "greedy": (PURPLE, "*"), "amplitude": (GRAY, "p"), "low-pass": (GRAY, "h"), "random": ("black", "."),
}  # fmt: skip


def figure_scores(records: list[dict[str, Any]], tasks: list[str], scores: Mapping[str, str]) -> Picture:
    """A panel per score: one row per method, one colour per task, means over images with 95% intervals.

    Args:
        scores: name of the score -> label of the axis.
    """
    colours = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
    with matplotlib.rc_context(STYLE):
        figure, panels = canvas((7.6, 0.42 * len(records) + 1.4), 1, len(scores), sharey=True, squeeze=False)
        for axes, (score, label) in zip(panels[0], scores.items(), strict=True):
            for place, record in enumerate(records):
                for n, task in enumerate(tasks):
                    found = record["tasks"].get(task, {}).get("scores", {}).get(score)
                    if found is None or found["value"] is None:
                        continue
                    height = place + 0.6 * (n / max(len(tasks) - 1, 1) - 0.5)
                    style = {"color": colours[n], "label": TASKS[task].title if place == 0 else None}
                    axes.plot([found["low"], found["high"]], [height, height], color=colours[n], lw=1)
                    axes.plot(found["value"], height, "o", ms=3.5, **style)
            axes.set(xlabel=label)
            axes.grid(axis="x", lw=0.4, alpha=0.5)
        panels[0, 0].set_yticks(range(len(records)), [record["title"] for record in records])
        panels[0, 0].invert_yaxis()
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2 if len(tasks) > 4 else 3, frameon=False)
    return figure


def figure_passes(sweeps: Mapping[str, pd.DataFrame]) -> Picture:
    """Insertion minus deletion area against passes per image, a panel per task, with 95% intervals over images.

    Args:
        sweeps: task -> `analysis.sweep`.
    """
    with matplotlib.rc_context(STYLE):
        figure, panels = canvas((7.6, 4.4), 1, len(sweeps), squeeze=False)
        for axes, (task, table) in zip(panels[0], sweeps.items(), strict=True):
            for method, rows in table.groupby("method", sort=False):
                colour, marker = LOOKS[str(method)]
                passes = np.maximum(rows["passes"], 0.5)
                errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
                axes.errorbar(
                    passes,
                    rows["value"],
                    errors,
                    color=colour,
                    marker=marker,
                    ms=5,
                    lw=1,
                    label=METHODS[str(method)].title,
                )
            axes.set_xscale("log")
            axes.set_xticks([0.5, 1, 10, 100, 1000], ["0", "1", "10", "100", "1,000"])
            axes.minorticks_off()
            axes.set(xlabel="passes per image", title=TASKS[task].title)
        panels[0, 0].set_ylabel("insertion minus deletion area")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure
