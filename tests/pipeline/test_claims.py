"""Claims: rules and their words, verdicts, and how `claims.toml` is read."""

import math
import re
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.errors import FmlibError
from fmlib.core.intervals import Measured
from fmlib.pipeline.claims import (
    FAILED,
    INCONCLUSIVE,
    KINDS,
    PARTIAL,
    REPRODUCED,
    VERDICTS,
    Claim,
    Rule,
    count_verdicts,
    load_claims,
)
from fmlib.pipeline.results import Arrays, NotComputed, Results

NUMBERS = st.floats(-100, 100).map(lambda value: round(value, 3))


@st.composite
def rules(draw):
    """A rule of any kind, with or without a wider threshold."""
    kind, threshold = draw(st.sampled_from(list(KINDS))), draw(NUMBERS)
    if kind == "within":
        threshold = abs(threshold)
    slack = draw(st.none() | st.floats(0.01, 50))
    wider = -1 if kind in ("at_least", "above") else 1
    partial = None if slack is None else threshold + wider * slack
    return Rule(**{kind: threshold}, of=draw(NUMBERS) if kind == "within" else 0.0, partial=partial)


@st.composite
def measurements(draw):
    """A value and an interval that holds it."""
    low, value, high = sorted(draw(st.tuples(NUMBERS, NUMBERS, NUMBERS)))
    return Measured(value, low, high, 10)


@pytest.mark.parametrize(
    ("rule", "verdicts"),
    [
        (Rule(at_least=0.8, partial=0.5), {0.9: REPRODUCED, 0.8: REPRODUCED, 0.7: PARTIAL, 0.5: PARTIAL, 0.4: FAILED}),
        (Rule(at_most=20, partial=50), {0: REPRODUCED, 20: REPRODUCED, 21: PARTIAL, 50: PARTIAL, 51: FAILED}),
        (Rule(above=0), {0.1: REPRODUCED, 0: FAILED, -1: FAILED}),
        (Rule(above=0.001, partial=1e-9), {0.002: REPRODUCED, 0.001: PARTIAL, 1e-9: FAILED}),
        (Rule(below=0.05, partial=0.1), {0.04: REPRODUCED, 0.05: PARTIAL, 0.1: FAILED}),
        (
            Rule(within=3, of=89.5, partial=6),
            {89.5: REPRODUCED, 92.5: REPRODUCED, 86.5: REPRODUCED, 83.5: PARTIAL, 95.5: PARTIAL, 83: FAILED},
        ),
        (Rule(within=0, of=100), {100: REPRODUCED, 99.9: FAILED}),
    ],
    ids=lambda part: part.kind if isinstance(part, Rule) else "",
)
def test_the_verdict_on_a_number(rule, verdicts):
    assert {value: rule.verdict(value) for value in verdicts} == verdicts


@pytest.mark.parametrize(
    ("rule", "interval", "verdict"),
    [
        (Rule(above=0), (0.1, 0.3), REPRODUCED),
        (Rule(above=0), (-0.1, 0.3), INCONCLUSIVE),
        (Rule(above=0), (0, 0.3), INCONCLUSIVE),
        (Rule(above=0), (-0.3, -0.1), FAILED),
        (Rule(at_least=80, partial=50), (55, 75), PARTIAL),
        (Rule(at_least=80, partial=50), (75, 85), INCONCLUSIVE),
        (Rule(at_least=80, partial=50), (45, 55), INCONCLUSIVE),
        (Rule(within=1), (-0.5, 0.9), REPRODUCED),
        (Rule(within=1), (-5, 5), INCONCLUSIVE),  # both ends fail, but zero would not
        (Rule(within=1), (2, 5), FAILED),
        (Rule(within=1), (math.nan, math.nan), INCONCLUSIVE),
        (Rule(at_most=1), (math.nan, math.nan), INCONCLUSIVE),
    ],
)
def test_an_interval_that_holds_several_verdicts_is_inconclusive(rule, interval, verdict):
    assert rule.evaluate(Measured(sum(interval) / 2, *interval, 10)) == verdict


@given(rules(), measurements(), st.floats(0, 1))
def test_a_verdict_holds_over_the_whole_interval(rule, measured, share):
    verdict = rule.evaluate(measured)
    inside = measured.low + share * (measured.high - measured.low)
    points = [measured.value, measured.low, measured.high, min(max(inside, measured.low), measured.high)]
    if verdict != INCONCLUSIVE:
        assert {rule.verdict(point) for point in points} == {verdict}
    else:
        best = min(max(rule.of, measured.low), measured.high)
        assert len({rule.verdict(point) for point in (*points[:3], best)}) > 1


@given(rules(), measurements(), st.floats(0, 1))
def test_a_narrower_interval_never_contradicts_a_wider_one(rule, measured, share):
    narrow = Measured(
        measured.value,
        measured.value - share * (measured.value - measured.low),
        measured.value + share * (measured.high - measured.value),
        measured.n,
    )
    assert rule.evaluate(measured) in (INCONCLUSIVE, rule.evaluate(narrow))


@given(rules(), NUMBERS)
def test_a_value_without_interval_is_always_decided(rule, value):
    assert rule.evaluate(Measured(value, value, value, 1)) == rule.verdict(value) != INCONCLUSIVE


@given(rules(), NUMBERS, NUMBERS)
def test_a_better_value_never_has_a_worse_verdict(rule, first, second):
    order = [FAILED, PARTIAL, REPRODUCED]
    if rule.kind == "within":
        better, worse = sorted((first, second), key=lambda value: abs(value - rule.of))
    else:
        worse, better = sorted((first, second), reverse=rule.kind in ("at_most", "below"))
    assert order.index(rule.verdict(better)) >= order.index(rule.verdict(worse))


@pytest.mark.parametrize(
    ("rule", "unit", "words"),
    [
        (Rule(within=1), "points", "within 1 point of zero"),
        (Rule(within=5, partial=10), "points", "within 5 points of zero (partially: 10 points)"),
        (Rule(within=3, of=89.56, partial=6), "%", "within 3 points of 89.56% (partially: 6 points)"),
        (Rule(within=1, of=100, partial=5), "%", "within 1 point of 100% (partially: 5 points)"),
        (Rule(within=0, of=100, partial=1), "%", "exactly 100% (partially: 1 point)"),
        (Rule(within=0, partial=1), "%", "exactly zero (partially: 1 point)"),
        (Rule(within=0.05, partial=0.1), "share of energy", "within 0.05 of zero (partially: 0.1)"),
        (Rule(at_least=-10, partial=-25), "points", "at least −10 points (partially: −25 points)"),  # noqa: RUF001
        (Rule(at_least=80, partial=50), "%", "at least 80% (partially: 50%)"),
        (Rule(at_least=95, partial=85), "% of power", "at least 95% (partially: 85%)"),
        (Rule(at_most=0, partial=2), "points", "at most zero (partially: 2 points)"),
        (Rule(below=1e-6, partial=0.001), "amplitude", "below 1 × 10⁻⁶ (partially: 0.001)"),  # noqa: RUF001
        (Rule(above=0), "share of energy", "above zero"),
        (Rule(above=0.05, partial=0), "share of energy", "above 0.05 (partially: zero)"),
    ],
)
def test_words_name_thresholds_with_their_units(rule, unit, words):
    assert rule.words(unit) == words


@given(rules(), st.sampled_from(["%", "points", "correlation"]))
def test_words_of_any_rule(rule, unit):
    words = rule.words(unit)
    assert words.startswith((rule.kind.replace("_", " "), "exactly"))
    assert ("(partially: " in words) == (rule.partial is not None)
    assert not re.search(r"(?<![\d.])1 points", words)
    if unit == "correlation":
        assert "point" not in words
        assert "%" not in words


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one of .* not none"),
        ({"at_least": 1, "below": 2}, "exactly one of .* not at_least, below"),
        ({"above": 0, "of": 5}, "'of' belongs to 'within', not to 'above'"),
        ({"at_least": 80, "partial": 90}, "'partial' must be wider than at_least = 80"),
        ({"at_most": 1, "partial": 0.5}, "'partial' must be wider"),
        ({"within": 3, "partial": 1}, "'partial' must be wider"),
        ({"above": "much"}, "must be numbers"),
    ],
)
def test_a_rule_is_checked_when_it_is_made(fields, message):
    with pytest.raises(FmlibError, match=message):
        Rule(**fields)


def claim(**changes):
    """A claim measured as 1, from 0.5 to 1.5, of ten images."""
    entry = {"id": "T.one", "source": "paper", "statement": "One is above zero.", "unit": "share", "n": "images"}
    entry |= {"chapter": "toy", "figure": "figure-one", "timing": "before", "rule": Rule(above=0)}
    return Claim(**entry | {"measure": lambda results: Measured(1, 0.5, 1.5, 10)} | changes)


def results(tmp_path, profile="laptop", data="imagenette"):
    return Results(tmp_path, {"profile": profile, "data": data, "experiments": {}, "files": {}, "key": "k"})


def absent(results):
    raise NotComputed("not there")


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reproduced"),
        ({"rule": Rule(above=2, partial=0)}, "partially reproduced"),
        ({"rule": Rule(above=2)}, "not reproduced"),
        ({"rule": Rule(above=1)}, "inconclusive"),
        ({"n": "networks", "measure": lambda results: Measured(1, 1, 1, 2)}, "inconclusive"),
        ({"n": "pairs of networks", "measure": lambda results: Measured(1, 1, 1, 1)}, "inconclusive"),
        ({"n": "networks", "measure": lambda results: Measured(1, 1, 1, 3)}, "reproduced"),
        ({"measure": lambda results: Measured(1, 1, 1, 2)}, "reproduced"),  # two images, without an interval
        ({"requires": "paper scale"}, "not tested"),
        ({"requires": "people"}, "not tested"),
        ({"requires": "people", "rule": None, "measure": None}, "not tested"),
        ({"by_construction": "chosen so"}, "holds by construction"),
        ({"measure": absent}, "not computed"),
        ({"measure": absent, "by_construction": "chosen so"}, "not computed"),
        ({"measure": absent, "requires": "paper scale"}, "not computed"),
    ],
)
def test_every_verdict(tmp_path, changes, verdict):
    row = claim(**changes).evaluate(results(tmp_path))
    assert row["verdict"] == verdict
    measured = verdict != "not computed" and changes.get("measure", 1) is not None
    assert (row["value"] is not None) == (row["n"] is not None) == measured


@pytest.mark.parametrize(
    ("requires", "where"),
    [
        ("any data", {("quick", "planted"), ("laptop", "imagenette"), ("paper", "imagenette")}),
        ("photographs", {("laptop", "imagenette"), ("paper", "imagenette")}),
        ("paper scale", {("paper", "imagenette")}),
        ("people", set()),
    ],
)
def test_a_claim_is_tested_only_where_it_can_be(tmp_path, requires, where):
    tested = {
        (profile, data)
        for profile, data in (("quick", "planted"), ("laptop", "imagenette"), ("paper", "imagenette"))
        if claim(requires=requires).evaluate(results(tmp_path, profile, data))["verdict"] != "not tested"
    }
    assert tested == where


def test_a_row_repeats_the_claim_and_rounds_to_six_digits(tmp_path):
    made = claim(measure=lambda results, factor: Measured(factor / 3, 0.1, 1, 5), arguments={"factor": 2}, published=1)
    row = made.evaluate(results(tmp_path))
    assert row["value"] == 0.666667
    for name in ("id", "source", "reference", "statement", "published", "unit", "timing", "chapter", "figure"):
        assert row[name] == getattr(made, name)
    assert (row["n_of"], row["rule"], row["spec"]) == ("images", "above zero", "k")


def test_a_claim_whose_experiment_is_not_published_is_not_computed(tmp_path):
    row = claim(experiments=["absent"]).evaluate(results(tmp_path))
    assert (row["verdict"], row["value"]) == ("not computed", None)


def test_a_broken_measure_is_not_taken_for_a_missing_one(tmp_path):
    def broken(results):
        raise FmlibError("masks.npz does not match its checksum")

    with pytest.raises(FmlibError, match="checksum"):
        claim(measure=broken).evaluate(results(tmp_path))


TOML = """
[[claim]]
id = "T.one"
source = "paper"
statement = "One is above zero."
unit = "share"
n = "images"
figure = "figure-one"
timing = "before"
rule = { above = 0, partial = -1 }
measure = { function = "scaled", arguments = { factor = 2 } }

[[claim]]
id = "T.rate"
source = "control"
statement = "Half of the images are correct."
unit = "%"
n = "images"
figure = "figure-one"
timing = "after"
requires = "any data"
published = 50.0
rule = { within = 5, of = 50 }
measure = { function = "rate", arguments = { file = "table", array = "correct" } }

[[claim]]
id = "T.people"
source = "paper"
statement = "People cannot recognise the images."
unit = "%"
n = "images"
figure = "figure-one"
timing = "before"
requires = "people"
"""


def load(tmp_path, text):
    """The claims of a study "toy" whose analysis has one measure, `scaled`."""
    analysis = ModuleType("toy.analysis")
    analysis.scaled = lambda results, factor: Measured(factor, factor, factor, 1)
    analysis.constant = 3
    path = tmp_path / "toy" / "claims.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_claims(path, analysis)


def test_claims_are_read_from_toml(tmp_path):
    one, rated, people = load(tmp_path, TOML)
    assert (one.chapter, one.rule, one.arguments) == ("toy", Rule(above=0, partial=-1), {"factor": 2})
    assert one.evaluate(results(tmp_path))["value"] == 2
    assert rated.published == 50
    fake = results(tmp_path)
    fake.arrays = lambda name: Arrays(name, {"correct": np.arange(10) < 5})
    assert rated.evaluate(fake)["value"] == 50
    assert people.evaluate(fake)["verdict"] == "not tested"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[[claim]]", "[[claim", "cannot be read as TOML"),
        ('id = "T.one"', 'id = "T.one"\nid = "T.two"', "cannot be read as TOML"),
        ('unit = "share"', 'unit = "share"\ncolour = "red"', "claim T.one: unknown field colour"),
        ('unit = "share"', 'unit = "share"\nchapter = "other"', "claim T.one: unknown field chapter"),
        ('unit = "share"\n', "", "claim T.one: claim lacks unit"),
        ('id = "T.one"\n', "", "claim 1: claim lacks id"),
        ("above = 0,", "over = 0,", "claim T.one: unknown field over of rule"),
        ("above = 0,", "above = 0, below = 1,", "claim T.one: a rule has exactly one of"),
        ("above = 0, partial = -1", "partial = -1", "claim T.one: a rule has exactly one of .* not none"),
        ("rule = { above = 0, partial = -1 }\n", "", "claim T.one: a claim needs a rule and a measure"),
        ("rule = { above = 0, partial = -1 }", "rule = 0", "claim T.one: rule must be a table, not 0"),
        ("{ factor = 2 } }\n", '{ factor = 2 }, n = "one" }\n', "claim T.one: unknown field n of measure"),
        ('function = "scaled"', 'function = "none"', "claim T.one: toy.analysis has no function none"),
        ('function = "scaled"', 'function = "constant"', "claim T.one: toy.analysis has no function constant"),
        ("factor = 2", "divisor = 2", "claim T.one: wrong arguments of scaled"),
        ('source = "paper"', 'source = "ours"', "claim T.one: source must be one of paper, control, not 'ours'"),
        ('timing = "before"', 'timing = "later"', "claim T.one: timing must be one of before, after, not 'later'"),
        ('requires = "any data"', 'requires = "luck"', "claim T.rate: requires must be one of .* not 'luck'"),
        ("[[claim]]", "[[claims]]", r"may hold \[\[claim\]\] tables only"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, before, after, message):
    assert before in TOML
    with pytest.raises(FmlibError, match=message) as caught:
        load(tmp_path, TOML.replace(before, after, 1))
    assert str(tmp_path / "toy" / "claims.toml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_one_clear_error(tmp_path):
    with pytest.raises(FmlibError, match="cannot be read as TOML"):
        load(tmp_path, b"\xff\xfe" + TOML.encode())


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(FmlibError, match="cannot be read as TOML"):
        load_claims(tmp_path / "claims.toml", ModuleType("analysis"))


def test_verdicts_are_counted_by_source_in_a_fixed_order():
    rows = [{"source": "paper", "verdict": verdict} for verdict in (*reversed(VERDICTS), FAILED)]
    rows += [{"source": "control", "verdict": REPRODUCED}]
    assert list(count_verdicts(rows, "paper")) == list(VERDICTS)
    assert count_verdicts(rows, "paper")[FAILED] == 2
    assert count_verdicts(rows, "control") == {REPRODUCED: 1}
