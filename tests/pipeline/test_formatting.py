"""Numbers and claims as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.pipeline import formatting

FINITE = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.4e-7, "2 × 10⁻⁷"), (-3e-5, "−3 × 10⁻⁵"), (1234.0, "1 × 10³"), (0.0, "0 × 10⁰")],  # noqa: RUF001
)
def test_scientific(value, text):
    assert formatting.scientific(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(89.56, "89.56"), (100.0, "100"), (-10, "−10"), (0.05, "0.05"), (1e-6, "1 × 10⁻⁶"), (-2.5e-9, "−2.5 × 10⁻⁹")],  # noqa: RUF001
)
def test_shortest(value, text):
    assert formatting.shortest(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (83.48, "%", "83.5"),
        (83.48, "% of power", "83.5"),
        (-0.25, "points", "−0.2"),  # noqa: RUF001
        (-0.04, "points", "0.0"),  # no negative zero
        (0.4694, "correlation", "0.469"),
        (0.0004, "share", "4 × 10⁻⁴"),  # noqa: RUF001
        (0.0, "share", "0.000"),
    ],
)
def test_number(value, unit, text):
    assert formatting.number(value, unit) == text


@given(FINITE, st.sampled_from(["%", "points", "share of energy"]))
def test_a_number_reads_as_its_value(value, unit):
    text = formatting.number(value, unit).replace("−", "-")  # noqa: RUF001
    if "×" in text:  # noqa: RUF001
        assert abs(value) < 5e-4
    else:
        assert float(text) == pytest.approx(value, abs=0.051 if unit in ("%", "points") else 0.00051)
        assert not (text.startswith("-") and float(text) == 0)


def row(**changes):
    entry = {"value": 83.48, "low": 81.0, "high": 86.04, "n": 1934, "n_of": "images", "unit": "%"}
    return entry | {"published": 89.56, "verdict": "not reproduced"} | changes


def test_a_row_reads_with_its_unit_and_interval():
    assert formatting.readable(row()) == {
        "value": "83.5",
        "interval": "81.0 to 86.0",
        "measured": "83.5% (81.0 to 86.0)",
        "published": "89.56",
        "n": "1,934 images",
        "verdict": "not reproduced",
    }


def test_other_units_are_spaced_and_a_value_without_interval_shows_none():
    text = formatting.readable(row(value=0.5, low=0.5, high=0.5, unit="points", n=1, n_of="networks", published=None))
    assert text["measured"] == "0.5 points"
    assert text["interval"] == ""
    assert text["published"] == "–"  # noqa: RUF001
    assert text["n"] == "1 network"
    assert formatting.readable(row(n=1, n_of="pairs of networks"))["n"] == "1 pair of networks"


@pytest.mark.parametrize(("verdict", "value"), [("not computed", "not computed"), ("not tested", "not measured")])
def test_a_row_without_a_value_says_so(verdict, value):
    text = formatting.readable(row(value=None, low=None, high=None, n=None, verdict=verdict))
    assert (text["value"], text["interval"], text["measured"], text["n"]) == (value, "", "–", "–")  # noqa: RUF001
