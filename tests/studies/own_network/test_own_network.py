"""The report of one's own network: what is stored, and its table, numbers and figure."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import CPU, FakeResults, drawn, legend, shown, small

from fmlib.core.errors import FmlibError
from fmlib.pipeline.store import arrays_from_bytes
from fmlib.studies.own_network import analysis, figures
from fmlib.studies.own_network import experiment as own
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import Setup


class Published(FakeResults):
    """Published results that hold files by their names."""

    def table(self, name):
        return pd.read_csv(io.BytesIO(self.files[f"{name}.csv"]))

    def arrays(self, name):
        return arrays_from_bytes(self.files[f"{name}.npz"])


@pytest.fixture(scope="module")
def opened(store):
    """A report on the standard network of a small profile, with 12 images and 12 steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "IMAGES", 12)
        patch.setattr(own, "STEPS", 12)
        setup = Setup(small(), 0, CPU, progress=False)
        store.get(own.report(setup))
        return Published(**own._files(setup, store))


def test_a_report_is_stored_with_its_rows_curves_and_masks(opened):
    table, arrays = opened.table("own_network"), opened.arrays("own_network")
    assert len(table) == 10
    assert set(table["network"]) == {"standard (N)"}
    assert arrays["dataset"].shape == (16, 16)
    assert arrays["kept"].shape == arrays["share"].shape == (12,)
    for name in (*figures.NEEDED, *figures.SENSITIVE, "images radial"):
        assert arrays[f"curve.{name}"].shape == (16, 3)
    kept = table[table["name"] == "Predictions kept with the mask applied"].iloc[0]
    assert kept["value"] == pytest.approx(100 * arrays["kept"].mean(), abs=1e-3)
    assert kept["control_n"] == 12


def test_the_table_prints_value_control_and_their_intervals(opened):
    table = analysis.report_rows(opened)
    row = opened.table("own_network").iloc[2]
    assert table.loc[row["name"], "value"] == f"{row['value']:.1f}% ({row['low']:.1f} to {row['high']:.1f})"
    assert table.loc[row["name"], "compared with"] == row["against"]
    first = opened.table("own_network").iloc[0]
    assert table.loc[first["name"], "control"] == "\N{EN DASH}"  # a number without a control
    second = opened.table("own_network").iloc[1]
    assert table.loc[second["name"], "control"] == f"{second['control_value']:.1f}%"  # exact: no interval


def test_the_sentences_of_the_table_are_whole(opened):
    shown = analysis.report_table(opened).data
    assert all(reading in shown for reading in opened.table("own_network")["reading"] if "'" not in reading)
    assert "..." not in shown


def test_numbers_are_those_of_the_table(opened):
    found = analysis.numbers(opened)
    assert found["images"] == "12"
    assert found["size"] == "16"
    assert found["value.3"] == analysis.report_rows(opened)["value"].iloc[3]


def test_the_figure_shows_the_mask_and_its_curves(opened):
    arrays = opened.arrays("own_network")
    picture = drawn(figures.figure_report(arrays))
    plane, needed, sensitive, noise = picture.axes[:4]
    assert shown(plane)[8, 8] == pytest.approx(arrays["dataset"][0, 0])
    assert legend(needed) == ["image masks", "mask of all images", "images"]
    assert legend(sensitive) == ["input gradients", "PGD perturbation", "images"]
    np.testing.assert_allclose(noise.lines[0].get_ydata(), 100 * arrays["curve.heat radial"][:, 0])
    np.testing.assert_allclose(needed.lines[0].get_ydata(), arrays["curve.mask radial"][:, 0])


def test_photographs_need_a_folder():
    with pytest.raises(FmlibError, match="folder"):
        own.report(replace(Setup(small(), 0, CPU), profile=PROFILES["laptop"]))


def test_on_photographs_the_report_depends_on_no_network_of_the_book(monkeypatch):
    monkeypatch.setattr(Setup, "fingerprint", lambda setup, spec: "files")
    task = own.report(Setup(PROFILES["laptop"], 0, CPU))
    assert task.inputs == ()
    assert task.spec["size"] == own.SIZE
