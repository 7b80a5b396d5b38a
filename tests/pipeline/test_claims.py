"""The ledger: intervals, verdicts, and the published rows computed again from the published arrays."""

import functools
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core import intervals
from fmlib.core.intervals import Measured
from fmlib.pipeline import formatting
from fmlib.pipeline.experiment import published_apart
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import build, notebook
from fmlib.studies import registry


def test_wilson_against_published_values():
    """10 hits of 10 and 5 of 10: textbook values of the Wilson interval."""
    full = intervals.wilson(np.ones(10, bool))
    assert full.value == 100
    assert full.low == pytest.approx(72.25, abs=0.01)
    assert full.high == pytest.approx(100, abs=1e-6)
    half = intervals.wilson(np.arange(10) < 5)
    assert (half.low, half.high) == pytest.approx((23.66, 76.34), abs=0.01)


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_wilson_lies_within_bounds(hits):
    found = intervals.wilson(np.array(hits))
    assert -1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 100 + 1e-9


def test_paired_difference_of_equal_hits_is_exactly_zero():
    hits = np.random.default_rng(0).random(50) < 0.7
    assert intervals.paired(hits, hits)[:3] == (0, 0, 0)


def test_paired_uses_the_pairing():
    """One image of a hundred changes: the interval is far narrower than that of independent rates."""
    before = np.arange(100) < 50
    after = before.copy()
    after[0] = False
    found = intervals.paired(after, before)
    assert found.value == pytest.approx(-1)
    assert found.high - found.low < 5


def test_average_against_known_values():
    """1, 2, 3, 4 have the standard deviation sqrt(5 / 3), so their mean has half of it as standard error."""
    found = intervals.average(np.array([1, 2, 3, 4]))
    assert (found.value, found.n) == (2.5, 4)
    half = 1.959964 * math.sqrt(5 / 3) / 2
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half))


def test_average_leaves_nan_out():
    values = np.array([np.nan, 1.0, 2.0, np.nan, 4.0])
    assert intervals.average(values) == intervals.average(np.array([1.0, 2.0, 4.0]))
    assert intervals.average(values).n == 3


@pytest.mark.parametrize("values", [[3.5], [np.nan, 3.5, np.nan]])
def test_average_of_one_value_has_an_interval_without_width(values):
    assert intervals.average(np.array(values)) == Measured(3.5, 3.5, 3.5, 1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(-10, 10), st.floats(-100, 100))
def test_interval_of_an_average_holds_it_in_the_middle_and_scales_with_the_values(values, factor, offset):
    values = np.array(values)
    found, moved = intervals.average(values), intervals.average(factor * values + offset)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx((found.low + found.high) / 2, abs=1e-9)
    assert moved.value == pytest.approx(factor * found.value + offset, abs=1e-6)
    assert moved.high - moved.low == pytest.approx(abs(factor) * (found.high - found.low), abs=1e-6)


def test_a_hundred_times_the_values_narrows_the_interval_tenfold():
    values = np.tile([0.0, 1.0], 10)
    few, many = intervals.average(values), intervals.average(np.tile(values, 100))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.03)


def test_envelope_holds_every_part():
    parts = [Measured(1, 0, 2, 10), Measured(3, 2, 5, 10)]
    assert intervals.pooled_range(parts) == Measured(2, 0, 5, 20)


def test_ids_are_unique_and_complete():
    ids = [claim.id for claim in registry.CLAIMS]
    assert len(set(ids)) == len(ids)
    wanted = {f"T1.{r}.{w}" for r in "NASTR" for w in ("standard", "masked", "gap")}
    wanted |= {"A.robust", "N.robust", "F4.A.low_shift", "P.planted.precision", "P.planted.recall"}
    assert wanted <= set(ids)


@functools.cache
def places(chapter):
    """What a link into a chapter can lead to: its figures, and its headings as Sphinx names them."""
    found = set()
    for cell in nbformat.read(build.ROOT / "book" / f"{chapter}.ipynb", as_version=4).cells:
        found.add(cell.metadata.get("mystnb", {}).get("figure", {}).get("name"))
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            found |= {re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in headings}
    return found


@pytest.mark.parametrize("claim", registry.CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_leads_to_a_figure_or_section_of_its_chapter(claim):
    assert claim.anchor in registry.ANCHORS.values()
    assert claim.anchor in places(claim.chapter)


@pytest.mark.parametrize(
    ("identity", "anchor"),
    [
        ("T1.N.gap", "figure-accuracy"),
        ("T1.N.held_out_gap", "is-the-mask-stable"),
        ("F5.similarity", "figure-filtered"),
        ("F5.converged_kept", "figure-fits"),
        ("S.seed_correlation", "figure-agreement"),
    ],
)
def test_the_longest_beginning_decides_where_a_claim_leads(identity, anchor):
    assert _claim(identity).anchor == anchor


def _claim(identity):
    return next(claim for claim in registry.CLAIMS if claim.id == identity)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [(0.4, 0, 1, "reproduced"), (-1.5, -3, -0.5, "partly"), (-4, -5, -3, "not")],
)
def test_verdicts_follow_the_tolerance(value, low, high, verdict):
    claim = replace(_claim("T1.N.gap"), measure=lambda results: Measured(value, low, high, 100))
    for profile, expected in (("laptop", verdict), ("quick", "cannot be judged")):
        assert claim.judge(Results(PUBLISHED, {"profile": profile, "files": {}, "key": "k"}))["verdict"] == expected


def test_claims_on_another_architecture_read_its_own_networks():
    side, hits = 12, np.arange(100) < 50
    low = np.zeros((side, side))
    low[0, :3] = 1
    wide = low + np.roll(low, side // 2, (0, 1))  # as much at the corner
    networks = {f"{what}.{regime}": hits for what in ("standard", "masked", "attacked") for regime in "NA"}
    second = networks | {"masked.N": np.arange(100) < 48, "masked.A": np.arange(100) < 51, "standard.A": hits[::-1]}
    second |= {"attacked.A": np.arange(100) < 42, "mask.N": wide, "mask.A": low}
    more = {"standard.S": hits, "masked.S": np.arange(100) < 47, "mask.S": low, "mask.N1": wide.T}
    files = {
        "second_architecture": second,
        "second_architecture": more,
        "evaluation": {"standard.N": np.arange(100)[None] < 54},
        "dataset_masks": {"N": np.stack([low, wide])},
    }
    results = SimpleNamespace(arrays=files.__getitem__)
    found = {claim.id: claim.measure(results).value for claim in registry.CLAIMS if claim.id.startswith("V.")}
    accuracies = {"V.accuracy": -4, "V.N.gap": -2, "V.A.gap": 1, "V.A.robust": 42}
    alike = np.corrcoef(wide.ravel(), low.ravel())[0, 1]
    own = {"V.S.gap": -3, "V.S.low_shift": 0.5, "V.N1.low_shift": 0}
    own["V.N1.correlation"] = np.corrcoef(wide.ravel(), wide.T.ravel())[0, 1]
    assert found == pytest.approx(accuracies | {"V.correlation": alike, "V.low_shift": 0.5} | own)


@pytest.mark.parametrize(("value", "verdict"), [(0.06, "reproduced"), (0.04, "partly"), (-0.06, "not")])
def test_a_shift_of_a_single_pair_has_a_sign_and_a_least_size(value, verdict):
    claim = replace(_claim("V.S.low_shift"), measure=lambda results: Measured(value, value, value, 1))
    assert claim.judge(Results(PUBLISHED, {"profile": "paper", "files": {}, "key": "k"}))["verdict"] == verdict


def test_every_claim_is_judged_somewhere_and_has_one_id():
    usual = {claim.id for claim in registry.USUAL}
    apart = [identity for those in registry.APART.values() for identity in those]
    assert {claim.id for claim in registry.CLAIMS} == usual | set(apart)
    assert len(registry.CLAIMS) == len(usual | set(apart))
    assert len(apart) == len(set(apart))


def published():
    return sorted(path.parent for path in PUBLISHED.glob("*/manifest.json"))


def test_something_is_published():
    assert [folder.name for folder in published()]


@pytest.mark.parametrize("folder", published(), ids=lambda folder: folder.name)
def test_published_rows_follow_from_published_arrays(folder):
    results = Results.open(folder)
    assert registry.ledger(results) == results.claims()


@pytest.mark.parametrize("folder", published(), ids=lambda folder: folder.name)
def test_every_published_file_is_whole(folder):
    results = Results.open(folder)
    for name in results.manifest["files"]:
        results.content(name)
    on_disk = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert on_disk == set(results.manifest["files"])


def test_claims_at_two_scales_stand_side_by_side():
    """A line for each claim that the larger scale judges, with what both measure and say."""
    small, (large,) = Results.open(PUBLISHED / "laptop"), published_apart()
    _, *lines = notebook.scales_table(small, large).data.split("<tr>")
    for row, line in zip(large.claims(), lines[-len(large.claims()) :], strict=True):
        assert f'<a href="{row["chapter"]}.html#{row["anchor"]}">{row["id"]}</a>' in line
        both = [one for one in small.claims() if one["id"] == row["id"]] + [row]
        for read in map(formatting.readable, both):
            assert (
                f"<td>{read['value']} {row['unit']}<br>({read['interval']})<br><em>{read['verdict']}</em></td>" in line
            )
        assert line.count("<td>not measured</td>") == 2 - len(both)


def test_a_table_of_the_paper_can_show_two_scales():
    small, (large,) = Results.open(PUBLISHED / "laptop"), published_apart()
    shown = {"T1.N.standard": "N", "T1.N.masked": "N, masked"}
    table, wider = notebook.published_table(small, shown), notebook.published_table(small, shown, large)
    assert wider[table.columns].equals(table)
    for identity, name in shown.items():
        here, there = (formatting.readable(one.claim(identity)) for one in (small, large))
        assert table.loc[name].tolist() == [here["published"], f"{here['value']} ({here['interval']})", here["n"]]
        assert wider.loc[name].tolist()[-2:] == [f"{there['value']} ({there['interval']})", there["n"]]
