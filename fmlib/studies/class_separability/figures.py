"""Figures of the chapter on class separability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, STYLE, VERMILION, Picture, canvas

#: Colours and markers of the classes, in turn.
CLASSES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def figure_splits(splits: np.ndarray, permuted: np.ndarray, score: float, chance: float) -> Picture:
    """Accuracy with true and with shuffled labels: repeated splits (left) and the permutation test (right).

    Args:
        splits: (splits, 4) in percent, as `separability.repeated_splits` returns.
        permuted: test accuracy of each permutation of the labels, in percent.
        score: test accuracy with true labels, in percent.
        chance: accuracy of guessing, in percent.
    """
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = canvas((7.4, 2.8), 1, 2)
        names = ("true,\ntraining", "true,\nheld out", "shuffled,\ntraining", "shuffled,\nheld out")
        for place, (values, colour) in enumerate(zip(splits.T, (BLUE, BLUE, ORANGE, ORANGE), strict=True)):
            jitter = np.linspace(-0.2, 0.2, len(values))
            left.plot(place + jitter, values, "o", color=colour, markersize=4, mfc="none" if place % 2 else colour)
        left.set_xticks(range(4), names)
        left.set(ylabel="accuracy (%)", ylim=(0, 104))
        right.hist(permuted, bins=15, color=ORANGE, label="shuffled labels")
        right.axvline(score, color=BLUE, lw=2, label="true labels")
        for line in (left.axhline, right.axvline):
            line(chance, color=GRAY, lw=0.9, ls=":")
        right.set(xlabel="held-out accuracy (%)", ylabel="permutations", xlim=(0, 100))
        right.legend(frameon=False)
    return figure


def figure_embeddings(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> Picture:
    """Figure 8: UMAP of the classifier's outputs, with true and shuffled labels, and of the masks themselves.

    Faint points were used to train the classifier; outlined ones were held out.

    Args:
        arrays: `separability.npz`.
        names: of the classes.
    """
    titles = {
        "outputs": "outputs, true labels",
        "shuffled": "outputs, shuffled labels",
        "masks": "masks, without labels",
    }
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.6, 3.2), 1, 3)
        for panel, (kind, title) in zip(axes, titles.items(), strict=True):
            points, held, labels = (arrays[f"{what}.{kind}"] for what in ("points", "held", "labels"))
            styles = zip(names, cycle(CLASSES), cycle(MARKERS), strict=False)
            for label, (name, colour, marker) in enumerate(styles):
                for part, style in (
                    (~held, {"s": 9, "alpha": 0.35, "linewidths": 0}),
                    (held, {"s": 22, "edgecolors": "black", "linewidths": 0.6}),
                ):
                    chosen = part & (labels == label)
                    dots = panel.scatter(*points[chosen].T, color=colour, marker=marker, **style)
                dots.set_label(name)
            panel.set(title=title, xticks=[], yticks=[])
        handles, texts = axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside lower center", ncols=len(names), frameon=False, handletextpad=0.2)
    return figure
