"""The figure of the instruments: a panel each, named networks in colour."""

import numpy as np

from fmlib.studies.discussion.figures import COLOURS, figure_instruments
from fmlib.studies.shared.names import full_name


def test_every_instrument_has_a_panel_and_named_networks_a_colour():
    kinds = {"N": np.ones((2, 4)), "A": np.eye(4)[:1], "T": np.zeros((1, 4)), "N_small": np.eye(4)[2:3]}
    picture = figure_instruments({"first": kinds, "second": kinds})
    assert picture._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    assert [axes.get_title() for axes in picture.axes] == ["first", "second"]
    for axes in picture.axes:
        assert sum(line.get_color() == COLOURS["N"] for line in axes.lines) == 2
        assert all(np.nanmax(line.get_ydata(), initial=0) <= 1 for line in axes.lines)
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.texts] == [
        *(full_name(name) for name in ("N", "A", "N_small")),
        "other networks",
    ]
