"""The claims on the separability of classes: table 3 and figure 8."""

from __future__ import annotations

import numpy as np

from fmlib.claim import CONTROL, PAPER, Claim, Measure, at_least, at_most, near
from fmlib.intervals import Measured, wilson
from fmlib.results import Results

CHAPTER = "class_separability"


def _split(column: int) -> Measure:
    """Mean over the repeated splits, with the range that holds 95% of them."""

    def measure(results: Results) -> Measured:
        values = results.arrays("separability")["splits"][:, column]
        low, high = np.quantile(values, (0.025, 0.975)).tolist()
        return Measured(float(values.mean()), low, high, len(values))

    return measure


def _p_value(results: Results) -> Measured:
    arrays = results.arrays("separability")
    p = float(arrays["p"])
    return Measured(p, p, p, len(arrays["permuted"]))


def _neighbours(name: str) -> Measure:
    return lambda results: wilson(results.arrays("separability")[f"neighbours.{name}"])


def _split_claim(identity: str, statement: str, printed: float, column: int) -> Claim:
    """A percentage of table 3."""
    return near(identity, f"{PAPER}, Table 3", CHAPTER, statement, _split(column), printed, close=10, far=25)


CLAIMS: list[Claim] = [
    _split_claim("T3.train", "A linear classifier tells the classes of the image masks it was trained on.", 93.22, 0),
    _split_claim("T3.test", "A linear classifier tells the classes of image masks that it has not seen.", 83.87, 1),
    _split_claim(
        "T3.shuffled_train", "With shuffled labels a linear classifier cannot even learn its training masks.", 19.50, 2
    ),
    _split_claim(
        "T3.shuffled_test", "Trained on shuffled labels a linear classifier is at chance on unseen masks.", 16.42, 3
    ),
    Claim(
        id="T3.p_value",
        source=CONTROL,
        statement="No shuffling of the labels is separated as well as the true ones.",
        published=None,
        unit="p",
        chapter=CHAPTER,
        measure=_p_value,
        reproduced=lambda m: m.value <= 0.01,
        partly=lambda m: m.value <= 0.05,
        tolerance="p at most .01, the least that 99 shufflings can show (partly: .05)",
    ),
    at_least(
        "F8.outputs",
        f"{PAPER}, Figure 8",
        CHAPTER,
        "Mapped by UMAP, the classifier's outputs form clusters that hold for unseen masks.",
        _neighbours("outputs"),
        near=60,
        far=40,
    ),
    at_most(
        "F8.shuffled",
        f"{PAPER}, Figure 8",
        CHAPTER,
        "With shuffled labels there are no such clusters.",
        _neighbours("shuffled"),
        near=30,
        far=40,
    ),
    at_least(
        "F8.masks",
        f"{PAPER}, section 3.2",
        CHAPTER,
        "Mapped by UMAP without any label, the masks themselves cluster by class.",
        _neighbours("masks"),
        near=60,
        far=40,
    ),
]
