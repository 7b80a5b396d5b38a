"""The claims on the separability of classes: table 3 and figure 8."""

from __future__ import annotations

import numpy as np

from fmlib.claim import CONTROL, PAPER, Claim, Measure, at_least, at_most, near
from fmlib.intervals import Measured, wilson
from fmlib.results import Results
from fmlib.separability import balanced, permutation, repeated_splits

CHAPTER = "class_separability"


#: Masks of each class, as many as there are of the rarest class at the paper's own scale.
FEW = 11


def _over_splits(values: np.ndarray) -> Measured:
    """Mean over repeated splits, with the range that holds 95% of them."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Measured(float(values.mean()), low, high, len(values))


def _split(column: int) -> Measure:
    return lambda results: _over_splits(results.arrays("separability")["splits"][:, column])


def _p_value(results: Results) -> Measured:
    arrays = results.arrays("separability")
    p = float(arrays["p"])
    return Measured(p, p, p, len(arrays["permuted"]))


def _neighbours(name: str) -> Measure:
    return lambda results: wilson(results.arrays("separability")[f"neighbours.{name}"])


def _few(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The first `FEW` masks M_{N,x} of each class, or as many as the rarest has: (K, K), and their labels (K,).

    As coordinates in the space that they span: the classifier's penalty is the same in any orthonormal basis, and K
    columns are fitted far faster than all frequencies.
    """
    arrays = results.arrays("image_masks")
    chosen = balanced(arrays["label"], most=FEW)
    masks = arrays["N.x"][chosen].reshape(len(chosen), -1).astype(np.float64)
    return np.linalg.qr(masks.T)[1].T, arrays["label"][chosen]


def _few_split(results: Results) -> Measured:
    return _over_splits(repeated_splits(*_few(results), splits=20, seed=0)[:, 1])


def _few_p_value(results: Results) -> Measured:
    _, permuted, p = permutation(*_few(results), rounds=99, seed=0)
    return Measured(p, p, p, len(permuted))


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
    near(
        "T3.few",
        f"{PAPER}, Table 3",
        CHAPTER,
        "Eleven masks of each class are enough for it to tell the classes of others.",
        _few_split,
        83.87,
        close=10,
        far=25,
    ),
    at_most(
        "T3.few.p_value",
        CONTROL,
        CHAPTER,
        "Of eleven masks of each class, no shuffling of the labels is separated as well as the true ones.",
        _few_p_value,
        near=0.01,
        far=0.05,
        unit="p",
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
