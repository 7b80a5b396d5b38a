"""Claims as data: a statement, how it is measured from published results, and the rule that decides its verdict.

A study's `claims.toml` holds one `[[claim]]` table per claim:

    id              name in the ledger, such as "T1.N.gap"
    source          "paper" (a published statement) or "control" (a test or condition of ours)
    reference       where it is published, or what kind of control it is
    statement       the sentence
    published       the printed number, if there is one
    unit, n         unit of the value, and what its n counts, such as "images" or "networks"
    figure          anchor of the figure, table or section that shows it; on another page, "page.html#anchor"
    requires        what it takes to test it: "photographs" (default), "any data", "paper scale" or "people"
    by_construction why it cannot fail, for claims that hold by construction
    experiments     names of the experiments whose published files the measure reads
    timing          whether the rule was written "before" or "after" the value was seen
    rule            one threshold, and optionally a wider one: see `Rule`
    measure         the function of the study's analysis.py, or of this module, and its arguments

A claim that fails is published as failed.
"""

from __future__ import annotations

import inspect
import math
import operator
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from fmlib.core.errors import FmlibError, require
from fmlib.core.intervals import Measured, average, wilson
from fmlib.pipeline.formatting import shortest
from fmlib.pipeline.results import NotComputed, Results

REPRODUCED, PARTIAL, FAILED = "reproduced", "partially reproduced", "not reproduced"
INCONCLUSIVE, UNTESTED, ABSENT = "inconclusive", "not tested", "not computed"
BY_CONSTRUCTION = "holds by construction"
#: Every verdict, in the order in which they are counted.
VERDICTS = (REPRODUCED, PARTIAL, FAILED, INCONCLUSIVE, UNTESTED, BY_CONSTRUCTION, ABSENT)
#: What n counts where the unit of a claim is a network. Fewer than `FEWEST` of them are inconclusive.
NETWORKS, FEWEST = ("networks", "pairs of networks"), 3
#: The kinds of rule: how a value, or for "within" its distance from `Rule.of`, compares with the threshold.
KINDS: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "at_most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
    "within": operator.le,
}
REQUIREMENTS = ("photographs", "any data", "paper scale", "people")


@dataclass(frozen=True)
class Rule:
    """When a claim counts as reproduced: exactly one threshold, and optionally a wider one for `PARTIAL`.

    Attributes:
        at_least, at_most: the value may equal the threshold.
        above, below: the value may not equal the threshold.
        within: the largest distance from `of`.
        of: the centre of `within`.
        partial: the wider threshold, of the same kind.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = None
    of: float = 0.0
    partial: float | None = None

    def __post_init__(self) -> None:
        values = [value for value in vars(self).values() if value is not None]
        require(all(isinstance(value, (int, float)) for value in values), "the thresholds of a rule must be numbers")
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        require(len(given) == 1, f"a rule has exactly one of {', '.join(KINDS)}, not {', '.join(given) or 'none'}")
        require(self.kind == "within" or not self.of, f"'of' belongs to 'within', not to {self.kind!r}")
        wider = self.partial is None or KINDS[self.kind](self.threshold, self.partial)
        require(wider, f"'partial' must be wider than {self.kind} = {self.threshold:g}, not {self.partial}")

    @property
    def kind(self) -> str:
        """The name of the threshold."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def threshold(self) -> float:
        """The threshold for `REPRODUCED`."""
        return getattr(self, self.kind)

    def verdict(self, value: float) -> str:
        """The verdict on a single number: `REPRODUCED`, `PARTIAL` or `FAILED`."""
        compared = abs(value - self.of) if self.kind == "within" else value
        if KINDS[self.kind](compared, self.threshold):
            return REPRODUCED
        return PARTIAL if self.partial is not None and KINDS[self.kind](compared, self.partial) else FAILED

    def evaluate(self, measured: Measured) -> str:
        """The verdict that holds over the whole interval; `INCONCLUSIVE` if there is none, or the value is nan."""
        values = [measured.value, measured.low, measured.high]
        if self.kind == "within" and measured.low < self.of < measured.high:
            values.append(self.of)  # the best value of the interval: its ends may lie on both sides of it
        verdicts = {self.verdict(value) for value in values}
        return verdicts.pop() if len(verdicts) == 1 and not any(map(math.isnan, values)) else INCONCLUSIVE

    def words(self, unit: str) -> str:
        """The rule as a phrase, such as "at least 80% (partially: 50%)" or "within 3 points of 89.56%"."""
        distance = "points" if unit[:1] == "%" and self.kind == "within" else unit
        phrase = f"{self.kind.replace('_', ' ')} {_amount(self.threshold, distance)}"
        if self.kind == "within":
            centre = _amount(self.of, unit)
            phrase = f"{phrase} of {centre}" if self.threshold else f"exactly {centre}"
        return phrase + (f" (partially: {_amount(self.partial, distance)})" if self.partial is not None else "")


def _amount(value: float, unit: str) -> str:
    """A threshold in words; only percentages and points show their unit."""
    if value == 0:
        return "zero"
    if unit == "points":
        return f"{shortest(value)} {'point' if abs(value) == 1 else 'points'}"
    return shortest(value) + ("%" if unit[:1] == "%" else "")


@dataclass(frozen=True)
class Claim:
    """One statement, and all that is needed to evaluate it from published results; see the module's docstring."""

    id: str
    source: str
    statement: str
    unit: str
    n: str
    chapter: str
    figure: str
    timing: str
    rule: Rule | None = None
    measure: Callable[..., Measured] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    reference: str = ""
    published: float | None = None
    requires: str = "photographs"
    by_construction: str = ""
    experiments: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, known in (
            ("source", ("paper", "control")),
            ("timing", ("before", "after")),
            ("requires", REQUIREMENTS),
        ):
            value = getattr(self, name)
            require(value in known, f"{name} must be one of {', '.join(known)}, not {value!r}")
        testable = self.rule is not None and self.measure is not None
        require(testable or self.requires == "people", "a claim needs a rule and a measure, or requires people")

    def evaluate(self, results: Results) -> dict[str, Any]:
        """The claim's row of `claims.json`, measured from the files of `results`."""
        measured, verdict = self._measured(results)
        return {
            "id": self.id,
            "source": self.source,
            "reference": self.reference,
            "statement": self.statement,
            "published": self.published,
            "value": _rounded(measured.value) if measured else None,
            "low": _rounded(measured.low) if measured else None,
            "high": _rounded(measured.high) if measured else None,
            "n": measured.n if measured else None,
            "n_of": self.n,
            "unit": self.unit,
            "rule": self.rule.words(self.unit) if self.rule else "",
            "timing": self.timing,
            "verdict": verdict,
            "by_construction": self.by_construction,
            "chapter": self.chapter,
            "figure": self.figure,
            "spec": results.manifest["key"],
        }

    def _measured(self, results: Results) -> tuple[Measured | None, str]:
        """The measurement, None if there is none, and the verdict."""
        if self.measure is None or self.rule is None:
            return None, UNTESTED
        if not results.manifest["experiments"].keys() >= set(self.experiments):
            return None, ABSENT
        try:
            measured = self.measure(results, **self.arguments)
        except NotComputed:
            return None, ABSENT
        if self.by_construction:
            return measured, BY_CONSTRUCTION
        if not self._testable(results):
            return measured, UNTESTED
        if self.n in NETWORKS and measured.n < FEWEST:
            return measured, INCONCLUSIVE
        return measured, self.rule.evaluate(measured)

    def _testable(self, results: Results) -> bool:
        """Whether the results are of the kind that the claim requires."""
        return {
            "people": False,
            "paper scale": results.profile == "paper",
            "photographs": results.manifest["data"] != "planted",
            "any data": True,
        }[self.requires]


def _rounded(value: float) -> float:
    """The value with six significant digits."""
    return float(f"{value:.6g}")


def rate(results: Results, file: str, array: str) -> Measured:
    """Percentage of true entries of a published boolean array (N,), with its Wilson interval."""
    return wilson(results.arrays(file)[array])


def mean(results: Results, file: str, array: str) -> Measured:
    """Mean of a published array (N,), with its 95% interval."""
    return average(results.arrays(file)[array])


#: The measures that every study may name.
COMMON = {"rate": rate, "mean": mean}


def load_claims(path: Path, analysis: ModuleType) -> list[Claim]:
    """The claims of a study.

    Args:
        path: its `claims.toml`; the folder's name is the chapter.
        analysis: the module whose functions measure them.

    Raises:
        FmlibError: the file is not TOML, or an entry lacks a field, has an unknown one, or names an unknown function.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FmlibError(f"{path} cannot be read as TOML: {error}") from error
    entries = document.get("claim", [])
    require(document.keys() <= {"claim"} and isinstance(entries, list), f"{path} may hold [[claim]] tables only")
    claims = []
    for number, entry in enumerate(entries, 1):
        try:
            claims.append(_claim(entry, path.parent.name, analysis))
        except FmlibError as error:
            raise FmlibError(f"{path}, claim {entry.get('id', number)}: {error}") from error
    return claims


def _claim(entry: dict[str, Any], chapter: str, analysis: ModuleType) -> Claim:
    """One `[[claim]]` table as a claim."""
    given = dict(entry)
    for name in ("chapter", "arguments"):
        require(name not in given, f"unknown field {name}")
    if "rule" in given:
        given["rule"] = _build(Rule, given["rule"], "rule")
    if "measure" in given:
        chosen = _build(_Measure, given["measure"], "measure")
        given["measure"], given["arguments"] = _function(chosen, analysis), chosen.arguments
    return _build(Claim, given | {"chapter": chapter}, "claim")


@dataclass(frozen=True)
class _Measure:
    """The `measure` of a claim, as TOML gives it."""

    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


def _function(chosen: _Measure, analysis: ModuleType) -> Callable[..., Measured]:
    """The function that a claim names; its arguments must fit."""
    function = getattr(analysis, chosen.function, None) or COMMON.get(chosen.function)
    require(callable(function), f"{analysis.__name__} has no function {chosen.function}")
    assert function is not None
    try:
        inspect.signature(function).bind(None, **chosen.arguments)
    except TypeError as error:
        raise FmlibError(f"wrong arguments of {chosen.function}: {error}") from error
    return function


def _build(kind: type, given: Any, place: str) -> Any:
    """A dataclass from a TOML table; unknown and missing fields raise `FmlibError`."""
    require(isinstance(given, dict), f"{place} must be a table, not {given!r}")
    known = {entry.name: entry for entry in fields(kind)}
    unknown = ", ".join(sorted(given.keys() - known.keys()))
    require(not unknown, f"unknown field {unknown} of {place}")
    required = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    missing = ", ".join(name for name in required if name not in given)
    require(not missing, f"{place} lacks {missing}")
    return kind(**given)


def count_verdicts(rows: list[dict[str, Any]], source: str) -> dict[str, int]:
    """Verdict -> number of rows of `claims.json` from one source, "paper" or "control"; those without rows left out."""
    counted = [row["verdict"] for row in rows if row["source"] == source]
    return {verdict: counted.count(verdict) for verdict in VERDICTS if verdict in counted}
