"""The claims on the separability of classes: table 3 and figure 8."""

from __future__ import annotations

import numpy as np

from fmlib.core.intervals import Measured, wilson
from fmlib.pipeline.results import Results
from fmlib.studies.class_separability.separability import balanced, permutation, repeated_splits

#: Masks of each class, as many as there are of the rarest class at the paper's own scale.
FEW = 11


def _over_splits(values: np.ndarray) -> Measured:
    """Mean over repeated splits, with the range that holds 95% of them."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Measured(float(values.mean()), low, high, len(values))


def split_accuracy(results: Results, column: int) -> Measured:
    return _over_splits(results.arrays("separability")["splits"][:, column])


def p_value(results: Results) -> Measured:
    arrays = results.arrays("separability")
    p = float(arrays["p"])
    return Measured(p, p, p, len(arrays["permuted"]))


def neighbour_accuracy(results: Results, name: str) -> Measured:
    return wilson(results.arrays("separability")[f"neighbours.{name}"])


def _few(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The first `FEW` masks M_{N,x} of each class, or as many as the rarest has: (K, K), and their labels (K,).

    As coordinates in the space that they span: the classifier's penalty is the same in any orthonormal basis, and K
    columns are fitted far faster than all frequencies.
    """
    arrays = results.arrays("image_masks")
    chosen = balanced(arrays["label"], most=FEW)
    masks = arrays["N.x"][chosen].reshape(len(chosen), -1).astype(np.float64)
    return np.linalg.qr(masks.T)[1].T, arrays["label"][chosen]


def few_split_accuracy(results: Results) -> Measured:
    return _over_splits(repeated_splits(*_few(results), splits=20, seed=0)[:, 1])


def few_p_value(results: Results) -> Measured:
    _, permuted, p = permutation(*_few(results), rounds=99, seed=0)
    return Measured(p, p, p, len(permuted))
