"""Analysis of class separability: Table 3 and Figure 8."""

from __future__ import annotations

import numpy as np

from fmlib.core.intervals import Measured, exact, wilson
from fmlib.pipeline.results import Results
from fmlib.studies.class_separability.separability import balanced, permutation_test, repeated_splits

#: Masks per class, as many as the rarest class has at the paper's own scale.
FEW = 11


def _over_splits(values: np.ndarray) -> Measured:
    """Mean over repeated splits, with the central 95% range."""
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return Measured(float(values.mean()), low, high, len(values))


def split_accuracy(results: Results, column: int, file: str = "separability") -> Measured:
    """Accuracy over the splits: a column of `repeated_splits`."""
    return _over_splits(results.arrays(file)["splits"][:, column])


def p_value(results: Results) -> Measured:
    """The p-value of the permutation test; n counts permutations."""
    arrays = results.arrays("separability")
    return exact(float(arrays["p"]), len(arrays["permuted"]))


def neighbour_accuracy(results: Results, name: str, file: str = "separability") -> Measured:
    """Percentage of held-out points of an embedding whose label their nearest training points predict."""
    return wilson(results.arrays(file)[f"neighbours.{name}"])


def _few_masks(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The first `FEW` masks M_{N,x} of each class, or as many as the rarest has: (K, K), and their labels (K,).

    The columns are coordinates in the space that the masks span: the classifier's penalty is the same in any
    orthonormal basis, and K columns are fitted far faster than all frequencies.
    """
    arrays = results.arrays("image_masks")
    chosen = balanced(arrays["label"], limit=FEW)
    masks = arrays["N.x"][chosen].reshape(len(chosen), -1).astype(np.float64)
    return np.linalg.qr(masks.T)[1].T, arrays["label"][chosen]


def few_split_accuracy(results: Results) -> Measured:
    """Test accuracy over splits of `FEW` masks per class."""
    return _over_splits(repeated_splits(*_few_masks(results), splits=20, seed=0)[:, 1])


def few_p_value(results: Results) -> Measured:
    """The p-value of the permutation test on `FEW` masks per class; n counts permutations."""
    _, permuted, p = permutation_test(*_few_masks(results), permutations=99, seed=0)
    return exact(p, len(permuted))
