"""Claims as data: sentences of a paper or of ours, how each is measured, and the rule by which it is judged.

A study's `claims.toml` holds one `[[claim]]` table per claim:

    id              name in the ledger, such as "T1.N.gap"
    source          "paper" (a published sentence) or "control" (a test or condition of ours)
    reference       where it is published, or what kind of control it is
    statement       the sentence
    published       the printed number, if there is one
    unit, n         unit of the value, and what its n counts, such as "images" or "networks"
    figure          anchor of the figure, table or section that shows it
    requires        what it takes to judge it: "photographs" (default), "any data", "paper scale" or "people"
    by_construction why it cannot fail, for claims that hold by construction
    timing          whether the rule was written "before" or "after" the value was seen
    rule            one threshold, and optionally a wider one: see `Rule`
    measure         the function of the study's analysis.py, or of this module, and its arguments

A claim that fails is published as failed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from fmlib.core.errors import FmlibError, require
from fmlib.core.intervals import Measured, average, wilson
from fmlib.pipeline.results import NotComputed, Results

REPRODUCED, PARTIAL, FAILED = "reproduced", "partially reproduced", "not reproduced"
INCONCLUSIVE, UNTESTED, ABSENT = "inconclusive", "not tested", "not computed"
BY_CONSTRUCTION = "holds by construction"
#: Every verdict, in the order in which they are counted.
VERDICTS = (REPRODUCED, PARTIAL, FAILED, INCONCLUSIVE, UNTESTED, BY_CONSTRUCTION, ABSENT)
#: What n counts where the unit of a claim is a network; fewer than `FEWEST` decide nothing.
NETWORKS, FEWEST = ("networks", "pairs of networks"), 3


@dataclass(frozen=True)
class Rule:
    """When a claim counts as reproduced: exactly one of the thresholds, and optionally a wider `partial` one.

    at_least, at_most: the value itself counts; above, below: it does not; within: distance from `of`.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    within: float | None = None
    of: float = 0.0
    partial: float | None = None

    def __post_init__(self) -> None:
        given = [
            name for name in ("at_least", "at_most", "above", "below", "within") if getattr(self, name) is not None
        ]
        require(len(given) == 1, f"a rule has one threshold, not {', '.join(given) or 'none'}")

    @property
    def kind(self) -> str:
        """The name of the threshold."""
        return next(
            name for name in ("at_least", "at_most", "above", "below", "within") if getattr(self, name) is not None
        )

    def _met(self, value: float, threshold: float) -> bool:
        return {
            "at_least": value >= threshold,
            "at_most": value <= threshold,
            "above": value > threshold,
            "below": value < threshold,
            "within": abs(value - self.of) <= threshold,
        }[self.kind]

    def verdict(self, value: float) -> str:
        """The verdict on a single number."""
        if self._met(value, getattr(self, self.kind)):
            return REPRODUCED
        return PARTIAL if self.partial is not None and self._met(value, self.partial) else FAILED

    def judge(self, measured: Measured) -> str:
        """The verdict on a value and its interval; *inconclusive* where the interval holds several verdicts.

        Args:
            measured: value, low and high.
        """
        ends = [measured.low, measured.high]
        if self.kind == "within" and measured.low < self.of < measured.high:
            ends.append(self.of)
        found = {self.verdict(number) for number in (measured.value, *ends)}
        return found.pop() if len(found) == 1 else INCONCLUSIVE

    def words(self, unit: str) -> str:
        """The rule as a phrase, such as "at least 0.8 (partially: 0.5)"."""
        threshold, short = getattr(self, self.kind), "points" if unit == "%" and self.kind == "within" else ""
        if self.kind == "within":
            center = f" of {self.of:g}" if self.of else " of zero"
            phrase = f"within {threshold:g}{' ' + short if short else ''}{center}"
        else:
            phrase = f"{self.kind.replace('_', ' ')} {threshold:g}"
        return phrase + (f" (partially: {self.partial:g})" if self.partial is not None else "")


@dataclass(frozen=True)
class Claim:
    """One sentence, and all it takes to judge it from published results; see the module's docstring."""

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

    def __post_init__(self) -> None:
        require(self.source in ("paper", "control"), f"{self.id}: source is paper or control, not {self.source!r}")
        require(self.timing in ("before", "after"), f"{self.id}: timing is before or after, not {self.timing!r}")
        known = ("photographs", "any data", "paper scale", "people")
        require(self.requires in known, f"{self.id}: requires is one of {', '.join(known)}, not {self.requires!r}")
        judged = self.rule is not None and self.measure is not None
        require(judged or self.requires == "people", f"{self.id}: a claim needs a rule and a measure")

    def evaluate(self, results: Results) -> dict[str, Any]:
        """The claim's row of `claims.json`, measured from `results` alone."""
        measured, verdict = self._measured(results)
        numbers = {name: measured and float(f"{getattr(measured, name):.6g}") for name in ("value", "low", "high")}
        return {
            "id": self.id,
            "source": self.source,
            "reference": self.reference,
            "statement": self.statement,
            "published": self.published,
            **numbers,
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
        try:
            measured = self.measure(results, **self.arguments)
        except NotComputed:
            return None, ABSENT
        if self.by_construction:
            return measured, BY_CONSTRUCTION
        if (self.requires == "paper scale" and results.profile != "paper") or (
            self.requires == "photographs" and results.manifest["data"] == "planted"
        ):
            return measured, UNTESTED
        if self.n in NETWORKS and measured.n < FEWEST:
            return measured, INCONCLUSIVE
        return measured, self.rule.judge(measured)


def rate(results: Results, file: str, array: str) -> Measured:
    """Percentage of true entries of a published boolean array (N,), with its Wilson interval."""
    return wilson(results.arrays(file)[array])


def mean(results: Results, file: str, array: str) -> Measured:
    """Mean of a published array (N,), with its 95% interval."""
    return average(results.arrays(file)[array])


def load_claims(path: Path, analysis: ModuleType) -> list[Claim]:
    """The claims of a study.

    Args:
        path: its `claims.toml`; the folder's name is the chapter.
        analysis: the module whose functions measure them.

    Raises:
        FmlibError: the file is not TOML, or an entry names an unknown field or function.
    """
    try:
        entries = tomllib.loads(path.read_text()).get("claim", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FmlibError(f"{path} cannot be read as TOML: {error}") from error
    claims = []
    for entry in entries:
        given, name = dict(entry), entry.get("id", "a claim without an id")
        measure = given.pop("measure", None)
        try:
            if measure:
                function = measure["function"]
                given["measure"] = getattr(analysis, function, None) or {"rate": rate, "mean": mean}[function]
                given["arguments"] = measure.get("arguments", {})
            if "rule" in given:
                given["rule"] = Rule(**given["rule"])
            claims.append(Claim(chapter=path.parent.name, **given))
        except (KeyError, TypeError) as error:
            raise FmlibError(f"{path}, {name}: {error}") from error
    return claims


def count_verdicts(rows: list[dict[str, Any]], source: str) -> dict[str, int]:
    """How many rows of `claims.json` from one source, "paper" or "control", have each verdict; zero ones left out."""
    found = [row["verdict"] for row in rows if row["source"] == source]
    return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}
