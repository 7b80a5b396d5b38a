"""What a claim is: a sentence, how it is measured from published results, and when it counts as reproduced.

A claim's tolerance stands here, written before the result; `judge` turns a measurement into a row of
`claims.json`. A claim that fails is published as failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fmlib.config import PROFILES, PhotoSpec
from fmlib.intervals import Measured
from fmlib.results import Results

PAPER = "Karantzas et al. (2022)"
CONTROL = "control that the paper lacks"
#: A training regime -> what a network trained so is called.
NAMES = {
    "N": "plainly trained",
    "A": "adversarially trained",
    "S": "scale-augmented",
    "T": "translation-augmented",
    "R": "rotation-augmented",
}
Measure = Callable[[Results], Measured]


@dataclass(frozen=True)
class Claim:
    """One sentence that a number can bear out or refute."""

    id: str
    source: str  # where it is claimed
    statement: str  # in our words
    published: float | None  # the number printed there
    unit: str
    chapter: str
    measure: Measure
    reproduced: Callable[[Measured], bool]  # the tolerance
    partly: Callable[[Measured], bool]  # the wider one
    tolerance: str  # both in words
    anchor: str = "claims"  # of the figure or section that shows it
    needs: str = "photographs"  # "anything", "photographs" or "paper": where the sentence can be judged

    def judge(self, results: Results) -> dict[str, Any]:
        """The claim's row of `claims.json`."""
        measured = self.measure(results)
        if (self.needs == "paper" and results.profile != "paper") or (
            self.needs == "photographs" and not isinstance(PROFILES[results.profile].data, PhotoSpec)
        ):
            verdict = "cannot be judged"
        elif self.reproduced(measured):
            verdict = "reproduced"
        else:
            verdict = "partly" if self.partly(measured) else "not"
        return {
            "id": self.id,
            "source": self.source,
            "statement": self.statement,
            "published": self.published,
            "value": float(f"{measured.value:.6g}"),
            "low": float(f"{measured.low:.6g}"),
            "high": float(f"{measured.high:.6g}"),
            "n": measured.n,
            "unit": self.unit,
            "tolerance": self.tolerance,
            "verdict": verdict,
            "chapter": self.chapter,
            "anchor": self.anchor,
            "spec": results.manifest["key"],
        }


def near(
    identity: str, source: str, chapter: str, statement: str, measure: Measure, printed: float, close: float, far: float
) -> Claim:
    """A percentage that should be the printed one, within `close` points."""
    met, almost = (lambda m: abs(m.value - printed) <= close), (lambda m: abs(m.value - printed) <= far)
    tolerance = f"within {close:g} points (partly: {far:g})"
    return Claim(identity, source, statement, printed, "%", chapter, measure, met, almost, tolerance)


def at_least(
    identity: str,
    source: str,
    chapter: str,
    statement: str,
    measure: Measure,
    near: float,
    far: float,
    unit: str = "%",
    published: float | None = None,
    needs: str = "photographs",
) -> Claim:
    """A number that should be large."""
    met, almost = (lambda m: m.value >= near), (lambda m: m.value >= far)
    tolerance = f"at least {near:g} (partly: {far:g})"
    return Claim(identity, source, statement, published, unit, chapter, measure, met, almost, tolerance, needs=needs)


def at_most(
    identity: str,
    source: str,
    chapter: str,
    statement: str,
    measure: Measure,
    near: float,
    far: float,
    unit: str = "%",
    published: float | None = None,
) -> Claim:
    """A number that should be small."""
    met, almost = (lambda m: m.value <= near), (lambda m: m.value <= far)
    tolerance = f"at most {near:g} (partly: {far:g})"
    return Claim(identity, source, statement, published, unit, chapter, measure, met, almost, tolerance)


def positive(identity: str, source: str, chapter: str, statement: str, measure: Measure, unit: str) -> Claim:
    """A difference that should be above nought."""
    met, almost = (lambda m: m.low > 0), (lambda m: m.value > 0)
    tolerance = "above nought with its whole interval (partly: on average)"
    return Claim(identity, source, statement, None, unit, chapter, measure, met, almost, tolerance)


def unchanged(
    identity: str, source: str, chapter: str, statement: str, measure: Measure, published: float | None = None
) -> Claim:
    """A difference of accuracies, in points, that should be none."""
    met, almost = (lambda m: abs(m.value) <= 1), (lambda m: m.low <= 1 and m.high >= -1)
    tolerance = "at most 1 point either way (partly: the interval reaches within 1 point)"
    return Claim(identity, source, statement, published, "points", chapter, measure, met, almost, tolerance)
