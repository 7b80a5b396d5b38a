"""TODO"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, STYLE, VERMILION, Picture, canvas

CLASSES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def figure_splits(splits: np.ndarray, permuted: np.ndarray, score: float, chance: float) -> Picture:
    """Held-out accuracy with true and with shuffled labels: repeated splits (left) and the permutation test (right)."""
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.8), 1, 2)
        names = ("true,\ntraining", "true,\nheld out", "shuffled,\ntraining", "shuffled,\nheld out")
        for place, (values, colour) in enumerate(zip(splits.T, (BLUE, BLUE, ORANGE, ORANGE), strict=True)):
            spread = np.linspace(-0.2, 0.2, len(values))
            left.plot(place + spread, values, "o", color=colour, markersize=4, mfc="none" if place % 2 else colour)
        left.set_xticks(range(4), names)
        left.set(ylabel="accuracy (%)", ylim=(0, 104))
        right.hist(permuted, bins=15, color=ORANGE, label="shuffled labels")
        right.axvline(score, color=BLUE, lw=2, label="true labels")
        for line in (left.axhline, right.axvline):
            line(chance, color=GRAY, lw=0.9, ls=":")
        right.set(xlabel="held-out accuracy (%)", ylabel="shufflings", xlim=(0, 100))
        right.legend(frameon=False)
    return figure


def figure_maps(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 8: UMAP of the classifier's outputs, true and shuffled labels, and of the masks themselves.

    Faint points trained the classifier; rimmed ones were held out.
    """
    titles = {
        "outputs": "outputs, true labels",
        "shuffled": "outputs, shuffled labels",
        "masks": "masks, no classifier",
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.6, 3.2), 1, 3)
        for one, (kind, title) in zip(axes, titles.items(), strict=True):
            points, held, labels = (arrays[f"{what}.{kind}"] for what in ("points", "held", "labels"))
            looks = zip(names, cycle(CLASSES), cycle(MARKERS), strict=False)
            for label, (name, colour, marker) in enumerate(looks):
                for part, look in (
                    (~held, {"s": 9, "alpha": 0.35, "linewidths": 0}),
                    (held, {"s": 22, "edgecolors": "black", "linewidths": 0.6}),
                ):
                    chosen = part & (labels == label)
                    dots = one.scatter(*points[chosen].T, color=colour, marker=marker, **look)
                dots.set_label(name)
            one.set(title=title, xticks=[], yticks=[])
        handles, words = axes[0].get_legend_handles_labels()
        figure.legend(handles, words, loc="outside lower center", ncols=len(names), frameon=False, handletextpad=0.2)
    return figure
