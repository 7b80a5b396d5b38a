"""Figures and tables of the chapter on Jacobian regularisation: they show the numbers that they were given."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from test_jacobian_claims import BANDS, KINDS, NAMES, RADII, Made, biased, count

from fmlib.core.intervals import Measured
from fmlib.pipeline.plotting import BLUE, GREEN, VERMILION, Picture
from fmlib.pipeline.store import packed
from fmlib.studies.jacobian_regularisation import analysis
from fmlib.studies.jacobian_regularisation.analysis import gains
from fmlib.studies.jacobian_regularisation.figures import (
    COLOURS,
    LOOKS,
    figure_bridge,
    figure_gains,
    figure_jacobians,
    minus,
)
from fmlib.studies.shared.profiles import PROFILES

SIDE = 8


def drawn(picture: Picture) -> Picture:
    """The picture, once a notebook could show it."""
    assert picture._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    return picture


@pytest.mark.parametrize(
    "name", sorted({"N", "N+", "N-"}.union(*(profile.regularised_once for profile in PROFILES.values())))
)
def test_every_network_has_its_look(name):
    assert name[1:] in COLOURS
    assert name[0] in LOOKS
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_jacobians_are_drawn_with_dc_in_the_middle_and_shares_add_up():
    rng = np.random.default_rng(0)
    amplitudes = {name: rng.random((2, SIDE, SIDE // 2 + 1)).astype(np.float16) for name in ("N", "N-", "F+")}
    shares = {name: np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]]) for name in amplitudes}
    picture = drawn(figure_jacobians(amplitudes, shares))
    planes = [axes for axes in picture.axes if axes.get_images()]
    assert [axes.get_title() for axes in planes] == ["N", "N\N{MINUS SIGN}", "F+"]
    plane = np.asarray(planes[1].get_images()[0].get_array())
    first = amplitudes["N-"][0].astype(float)
    assert plane[SIDE // 2, SIDE // 2] / plane[SIDE // 2, SIDE // 2 - 1] == pytest.approx(
        first[0, 0] / first[0, 1], rel=1e-3
    )
    assert plane.mean() == pytest.approx(1, rel=1e-3)
    left, right = [axes for axes in picture.axes if axes.get_xlabel() == "radius (cycles an image)"]
    lines = {line.get_label(): line for line in left.lines}
    assert set(lines) >= {"N", "N\N{MINUS SIGN}", "white noise"}
    assert "F+" in {line.get_label() for line in right.lines}
    assert lines["N"].get_ydata() == pytest.approx([50, 70, 100])
    assert lines["N"].get_xdata().tolist() == [1, 2, 3]
    assert sum(len(line.get_xdata()) == 3 for line in left.lines) == 4  # two networks, two seeds
    noise = lines["white noise"].get_ydata()
    assert noise[0] == pytest.approx(100 * 8 / (SIDE**2 - 1))  # of radius 1 and sqrt(2)
    assert noise[-1] == pytest.approx(100)


def test_gains_are_drawn_in_order_of_radius_and_parted_at_the_median():
    results = Made(biased)
    corruptions, bands = (analysis.gain_rows(results, kind) for kind in ("corruptions", "bands"))
    median = analysis.median_radius(results)
    left, right = drawn(figure_gains(corruptions, bands, median)).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    order = np.argsort(RADII)
    assert labels == [f"kind {place} ({RADII[place]:.2f})" for place in order]
    assert left.lines[-2].get_ydata()[0] == KINDS / 2 - 0.5
    low = next(
        line for line in left.lines if to_hex(line.get_color()) == BLUE.lower() and len(line.get_xdata()) == KINDS
    )
    mean = gains(results, "corruptions", "N+").mean((0, 1))
    for value, height in zip(low.get_xdata(), low.get_ydata(), strict=True):
        assert value == pytest.approx(mean[order[round(height)]])
    high = next(line for line in right.lines if to_hex(line.get_color()) == VERMILION.lower())
    assert high.get_ydata() == pytest.approx(gains(results, "bands", "N-").mean((0, 1)))


def test_rows_of_gains_hold_every_band_and_intervals_of_every_seed():
    rows = analysis.gain_rows(Made(biased), "bands")
    assert rows["name"].tolist() == ["N+"] * BANDS + ["N-"] * BANDS
    assert rows["radius"][:BANDS].tolist() == pytest.approx([(2 * band + 1) / 12 for band in range(BANDS)])
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    assert (rows["low"] < rows["high"]).any()


def test_the_bridge_has_a_point_a_network_and_names_each_kind_once():
    picture = drawn(
        figure_bridge([("N", 0.1, 0.2), ("N", 0.2, 0.3), ("F_low", 0.4, 0.6)], Measured(0.5, -0.25, 0.75, 3))
    )
    (axes,) = picture.axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert points == [(0.1, 0.2), (0.2, 0.3), (0.4, 0.6)]
    assert to_hex(axes.lines[2].get_color()) == GREEN.lower()
    assert axes.lines[2].get_marker() == "s"
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["N", "F_low"]
    assert axes.get_title() == "rank correlation 0.50 (\N{MINUS SIGN}0.25 to 0.75)"


# ------------------------------------------------------------------------------------------------------------- tables


@dataclass
class Whole(Made):
    """Results with all that tables read."""

    profile: str = "quick"
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        super().__init__(
            lambda name, *place: 0.2 if name[0] == "F" else biased(name, *place), low={"N": 0.25}, robust=self.extra
        )
        for name in NAMES:
            self.files["corruptions"][f"clean.{name}"] = np.ones((count(name), 30), bool)
            for kind in ("masked", "attacked"):
                self.files["biased_evaluation"] |= packed(f"{kind}.{name}", np.zeros((count(name), 30), bool))
            self.files["jacobians"][f"amplitude.{name}"] = np.ones((count(name), 4, 3), np.float16)


def robust() -> dict[str, np.ndarray]:
    """Of 100 images 90 are right; those withstand Square, F and N none of the others, and F+ half the PGD."""
    kinds = ("clean", "PGD half", "PGD", "AutoAttack", "Square")
    found = {
        f"{kind}.{name}": np.tile(np.arange(100) < 90 * (kind in ("clean", "Square")), (count(name), 1))
        for kind in kinds
        for name in NAMES
    }
    return found | {"PGD.F+": np.arange(100)[None] < 45}


def read(table) -> pd.DataFrame:
    """An HTML table's words, by row and column."""
    head, *rows = ElementTree.fromstring(table.data.replace("<br>", " ")).iter("tr")
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in rows}
    return pd.DataFrame.from_dict(cells, orient="index", columns=[cell.text for cell in head[1:]])


def test_tables_of_attacks_name_every_network_and_compare_the_biased_ones_with_their_base():
    results = Whole(extra=robust())
    table = read(analysis.attacks_table(results))
    assert table.index.tolist() == [minus(name) for name in NAMES]
    assert table.loc["F", "Square"].startswith("90.0 (82.")
    table = read(analysis.differences(results))
    pairs = ["N+ against N", "N\N{MINUS SIGN} against N", "N_low against N", "F+ against F"]
    assert table.index.tolist() == pairs
    assert table.loc["F+ against F", "PGD"].startswith("45.0 (35.")
    assert set(table["Square"]) == {"0.0"}


def test_table_of_halves_has_gains_over_the_same_training():
    table = read(analysis.halves_table(Whole()))
    assert table.columns.tolist() == ["corruptions, low", "corruptions, high", "bands, low", "bands, high"]
    assert table.loc["F+ against F"].tolist() == ["0.0"] * 4
    first = table.loc["N+ against N"]
    assert first["bands, low"].startswith("\N{MINUS SIGN}")
    assert not first["bands, high"].startswith("\N{MINUS SIGN}")


def test_table_of_networks_spans_the_seeds():
    table = read(analysis.networks_table(Whole()))
    assert table.index.tolist() == [minus(name) for name in NAMES]
    assert table.loc["N", "S"] == "2.5 to 3.5"
    assert table.loc["N", "amplitude"] == "3.00"
    assert table.loc["N", "Jacobian's low share"] == "0.250"
    assert table.loc["F", "mask's low share"] == "0.500"


@pytest.mark.parametrize(
    ("row", "column", "share"),
    [(0, 0, 0), (7, 0, 0), (8, 0, 1), (-8, 0, 1), (16, 2, 1), (16, 3, 0), (9, 12, 0), (0, 16, 0), (7, 2, 0), (8, 2, 1)],
)
def test_energy_beside_the_vertical_axis_counts_above_a_third_of_the_corner_radius(row, column, share):
    """At 32 px the third is 7.5 and the sixteenth of the width 2."""
    amplitude = np.zeros((32, 17))
    amplitude[row, column] = 3
    assert analysis.axis_share(amplitude) == share


def test_numbers_are_ready_to_read():
    found = analysis.numbers(Whole(extra=robust()))
    assert (found["corrupted"], found["tried"], found["seeds"]) == ("30", "100", "2")
    assert found["deviations"] == "0.05 and 0.1"
    assert (found["statistic.N"], found["statistic.F"]) == ("2.5 to 3.5", "5.0")
    assert found["jacobian_low_share.N"] == "0.250"
    assert found["axis.N+"] == "0.188"  # rows 1, 2 and 3 of column 0, of 16 frequencies
    assert found["axis.N++"] == found["amplitude.A"] == "(not trained here)"
    assert found["lambda"] == f"{PROFILES['quick'].jafr:g}"
    assert found["median"] == f"{np.median(RADII):.2f}"
