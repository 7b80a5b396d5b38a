"""The figure of the chapter: what five instruments say about each octave of frequency."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, STYLE, VERMILION, Picture, canvas
from fmlib.studies.shared.names import full_name

#: Kind of network -> its colour, of those that are named; all others are gray.
COLOURS = {"N": BLUE, "A": VERMILION, "N_small": GREEN}


def figure_instruments(profiles: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """One panel per instrument: the profile of each network over octaves, as a share of its largest value.

    Args:
        profiles: name of the instrument -> kind of network -> (networks, octaves).
    """
    with matplotlib.rc_context(STYLE):
        figure, panels = canvas((9.4, 2.7), 1, len(profiles), sharey=True)
        for axes, (title, kinds) in zip(panels, profiles.items(), strict=True):
            for kind in sorted(kinds, key=lambda kind: kind in COLOURS):  # named ones above the others
                named = kind in COLOURS
                look = {"color": COLOURS[kind], "lw": 1.6} if named else {"color": GRAY, "lw": 0.6, "alpha": 0.6}
                for number, values in enumerate(kinds[kind]):
                    frequency = 2.0 ** np.arange(len(values))
                    label = full_name(kind) if named and not number else None
                    axes.plot(frequency, values / max(values.max(), 1e-30), label=label, **look)
            axes.set(xscale="log", title=title, xlabel="cycles per image", ylim=(0, 1.05))
            axes.set_xticks(frequency, [f"{value:.0f}" for value in frequency])
            axes.minorticks_off()
        panels[0].plot([], [], color=GRAY, lw=0.6, label="other networks")
        panels[0].set_ylabel("share of the maximum")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
