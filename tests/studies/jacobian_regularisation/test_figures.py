"""Figures of the chapter on Jacobian regularisation: they show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from fmlib.core.intervals import Measured
from fmlib.pipeline.plotting import GREEN, Picture
from fmlib.studies.jacobian_regularisation.figures import (
    figure_gains,
    figure_jacobian_and_mask,
    figure_jacobians,
)
from fmlib.studies.shared.names import full_name

SIDE = 8


def drawn(picture: Picture) -> Picture:
    """The picture, once a notebook could show it."""
    assert picture._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    return picture


def test_jacobians_are_drawn_with_dc_in_the_middle_and_shares_add_up():
    rng = np.random.default_rng(0)
    amplitudes = {name: rng.random((2, SIDE, SIDE // 2 + 1)).astype(np.float16) for name in ("N", "N-", "F+")}
    shares = {name: np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]]) for name in amplitudes}
    picture = drawn(figure_jacobians(amplitudes, shares))
    planes = [axes for axes in picture.axes if axes.get_images()]
    assert [axes.get_title().splitlines()[-1] for axes in planes] == ["(N)", "(N\N{MINUS SIGN})", "(F+)"]
    plane = np.asarray(planes[1].get_images()[0].get_array())
    first = amplitudes["N-"][0].astype(float)
    assert plane[SIDE // 2, SIDE // 2] / plane[SIDE // 2, SIDE // 2 - 1] == pytest.approx(
        first[0, 0] / first[0, 1], rel=1e-3
    )
    assert plane.mean() == pytest.approx(1, rel=1e-3)
    panels = [axes for axes in picture.axes if "white noise" in {line.get_label() for line in axes.lines}]
    assert len(panels) == 3
    lines = {line.get_label(): line for line in panels[1].lines}
    assert set(lines) >= {full_name("N"), "network of the panel", "white noise"}
    assert lines["network of the panel"].get_ydata() == pytest.approx([50, 70, 100])
    assert lines["network of the panel"].get_xdata().tolist() == [1, 2, 3]
    assert sum(len(line.get_xdata()) == 3 for line in panels[1].lines) == 4  # the network and N, two seeds each
    noise = lines["white noise"].get_ydata()
    assert noise[0] == pytest.approx(100 * 8 / (SIDE**2 - 1))  # of radius 1 and sqrt(2)
    assert noise[-1] == pytest.approx(100)


def gain_rows(labels: list[str], places: list[float], values: dict[str, list[float]]) -> pd.DataFrame:
    """Rows as `figure_gains` reads them; every interval reaches 2 points below and 1 above the value."""
    rows = [
        {"name": name, "label": label, "radius": place, "value": value, "low": value - 2, "high": value + 1}
        for name, own in values.items()
        for label, place, value in zip(labels, places, own, strict=True)
    ]
    return pd.DataFrame(rows)


def test_gains_are_drawn_in_order_of_radius_and_separated_at_the_median():
    labels, places = ["blur", "noise", "fog", "jpeg"], [0.4, 0.6, 0.1, 0.5]
    corruptions = gain_rows(labels, places, {"N+": [1, 4, -3, 2], "N-": [0, -1, 5, 6]})
    bands = gain_rows(["0.25", "0.75"], [0.25, 0.75], {"N+": [-1, 7], "N-": [3, -4]})
    low, high, low_noise, high_noise = drawn(figure_gains(corruptions, bands, 0.45)).axes
    assert [label.get_text() for label in low.get_yticklabels()] == ["fog", "blur", "jpeg", "noise"]
    assert [axes.get_title().splitlines()[-1] for axes in (low, high)] == ["(N+)", "(N\N{MINUS SIGN})"]
    assert [line.get_ydata()[0] for line in low.lines if line.get_linestyle() == ":"] == [1.5]
    points = next(line for line in low.lines if len(line.get_xdata()) == 4)
    values = dict(zip(points.get_ydata(), points.get_xdata(), strict=True))
    assert values == {0: -3, 1: 1, 2: 2, 3: 4}
    points = next(line for line in high_noise.lines if len(line.get_xdata()) == 2)
    assert points.get_ydata().tolist() == [3, -4]
    ends = low.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in ends] == [[value - 2, value + 1] for value in (1, 4, -3, 2)]
    assert low.get_xlim() == high.get_xlim()
    assert low_noise.get_ylim() == high_noise.get_ylim()


def test_jacobian_and_mask_have_one_point_per_network_and_one_name_per_kind():
    picture = drawn(
        figure_jacobian_and_mask([("N", 0.1, 0.2), ("N", 0.2, 0.3), ("F_low", 0.4, 0.6)], Measured(0.5, -0.25, 0.75, 3))
    )
    (axes,) = picture.axes
    diagonal, *lines = axes.lines
    assert (diagonal.get_xdata() == diagonal.get_ydata()).all()
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines]
    assert points == [(0.1, 0.2), (0.2, 0.3), (0.4, 0.6)]
    assert to_hex(lines[2].get_color()) == GREEN.lower()
    assert lines[2].get_marker() == "s"
    assert [text.get_text() for text in picture.legends[0].get_texts()] == [
        "equal shares",
        full_name("N"),
        full_name("F_low"),
    ]
    assert axes.get_title() == "rank correlation 0.50 (\N{MINUS SIGN}0.25 to 0.75), 3 kinds of network"
