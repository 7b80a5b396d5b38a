"""Similarity of two sets of vectors: cosine, SVCCA, distance correlation, correlation of intrinsic dimension.

The sets are arrays (n, p) and (n, q) whose rows are paired, such as the flattened essential and adversarial map of each
image. Every measure raises `FmlibError` for sets that cannot be paired, for too few rows and for values that are not
finite.

**Correlation of intrinsic dimension** (Basile et al. 2024, arXiv 2406.15812). With d1, d2 and d12 the dimensions of
the two sets and of their concatenated rows,

    (d1 + d2 - d12) / max(d1, d2)

is 1 if each set determines the other and 0 if they are independent; estimates may lie slightly outside. High dimensions
are underestimated, d12 more than the others, so that even independent sets score well above 0: compare with shuffled
pairings. The p-value, (1 + shuffled pairings with a smaller d12) / (1 + shuffled pairings), is uniform for independent
sets.

**Preparation.** The authors prepare each set separately and concatenate the rows without rescaling them. The squared
distances between concatenated rows are therefore the sums of those within the two sets, and shuffling a pairing
permutes one of the two matrices. The maps of Basile et al. (2023) are `standardised`, then scaled to `unit_rows`. Their
cylinder is standardised only: with unit rows, two coordinates would form a circle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform

from fmlib.core.errors import require

#: Distinct points needed to estimate a dimension.
MIN_POINTS = 10

_CONSTANT = "all rows of a set are identical: there is nothing to compare"


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1, (x - mean) / (std + 1e-6): (n, p). A constant column becomes 0."""
    vectors = vectors.astype(np.float64)  # in single precision the mean of equal values may be off by 1e-8
    return (vectors - vectors.mean(0)) / (vectors.std(0, ddof=1) + 1e-6)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, rows of zeros unchanged: (n, p). A single column, which would keep only signs, too."""
    if vectors.shape[1] == 1:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine similarity of each pair of rows, of two sets (n, p): (n,). Raises `FmlibError` for rows of zeros."""
    _check_pairs(first, second, 1)
    require(
        first.shape == second.shape,
        f"rows of {first.shape[1]} and of {second.shape[1]} values have no cosine: compare rows of one length",
    )
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    require(bool((lengths > 0).all()), "a row of zeros has no direction: leave empty maps out")
    return (first * second).sum(1) / lengths


def svcca(first: np.ndarray, second: np.ndarray, share: float = 0.99) -> float:
    """SVCCA: the mean canonical correlation of two sets' leading directions, from 0 to 1 (Raghu et al. 2017).

    Of each set with centred columns, X = U S V', it keeps the fewest directions whose singular values sum to `share` of
    the total, as the authors' library (anatome) does. The correlations are the singular values of U1' U2. The value is
    invariant to orthogonal maps, shifts and scalings of a set. Independent sets do not score 0: k and l directions
    overlap if n - 1 < k + l, so compare with shuffled pairings.
    """
    _check_pairs(first, second, 2)
    return svcca_with(second, share)(first)


def svcca_with(second: np.ndarray, share: float = 0.99) -> Callable[[np.ndarray], float]:
    """`svcca` of other sets with one, whose directions are then found only once."""
    _check_pairs(second, second, 2)
    theirs = _directions(second, share)

    def measure(first: np.ndarray) -> float:
        _check_pairs(first, second, 2)
        return float(np.linalg.svd(_directions(first, share).T @ theirs, compute_uv=False).mean())

    return measure


def _directions(vectors: np.ndarray, share: float) -> np.ndarray:
    """The left singular vectors that `svcca` keeps: (n, k)."""
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    require(values[0] > 0, _CONSTANT)
    return left[:, : 1 + np.searchsorted(values.cumsum(), share * values.sum())]


def squared_distance_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """R_n^2, the square of the sample distance correlation, from 0 to 1 (Székely, Rizzo and Bakirov 2007).

    <A, B> / sqrt(<A, A> <B, B>), with A and B the doubly centred distance matrices of the two sets. It is biased
    upwards: never 0 for independent samples. Basile et al. report this square, of `unit_rows`. The value is invariant
    to orthogonal maps, shifts and scalings of a set.
    """

    def centred(distances: np.ndarray) -> np.ndarray:
        means = distances.mean(0)
        return distances - means - means[:, None] + means.mean()

    _check_pairs(first, second, 2)
    return _alignment(centred(_distances(first)), centred(_distances(second)))


def corrected_distance_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Bias-corrected squared distance correlation, about 0 for independent samples (Székely and Rizzo 2014).

    It may be negative. A and B are U-centred: sums are divided by n - 2 and (n - 1)(n - 2), and the diagonal is 0.
    """

    def centred(distances: np.ndarray) -> np.ndarray:
        count, sums = len(distances), distances.sum(0)
        result = distances - (sums + sums[:, None]) / (count - 2) + sums.sum() / ((count - 1) * (count - 2))
        np.fill_diagonal(result, 0)
        return result

    _check_pairs(first, second, 4)
    return _alignment(centred(_distances(first)), centred(_distances(second)))


def _distances(vectors: np.ndarray) -> np.ndarray:
    return squareform(pdist(vectors))  # (n, n)


def _alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine similarity of two matrices, flattened."""
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    require(lengths > 0, _CONSTANT)
    return float((first * second).sum() / lengths)


def intrinsic_dimension(vectors: np.ndarray) -> float:
    """The TwoNN estimate of the intrinsic dimension of a set (n, p) (Facco et al. 2017), by scikit-dimension.

    mu = r2 / r1 of each point's two nearest neighbours has the distribution F(mu) = 1 - mu^-d. d is the slope of
    -log(1 - F) on log mu through the origin, over the lowest 90%. Points with r1 = 0 or r1 = r2 are left out, as in the
    authors' code.

    Raises:
        FmlibError: fewer than `MIN_POINTS` points are left.
    """
    _check_pairs(vectors, vectors, MIN_POINTS)
    return _dimension(_squares(vectors))


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Squared distances (n, n), inf on the diagonal; computed pair by pair, so that equal rows have exactly 0."""
    squares = squareform(pdist(vectors, "sqeuclidean"))
    np.fill_diagonal(squares, np.inf)
    return squares


def _dimension(squares: np.ndarray) -> float:
    from skdim.id import TwoNN  # takes seconds to import

    nearest = np.sqrt(np.partition(squares, 1, axis=1)[:, :2])  # (n, 2): r1, r2
    nearest = nearest[(nearest[:, 0] > 0) & (nearest[:, 0] < nearest[:, 1])]
    require(
        len(nearest) >= MIN_POINTS,
        f"{len(nearest)} points with distinct neighbours are too few: at least {MIN_POINTS} are needed",
    )
    return float(TwoNN(dist=True).fit(nearest).dimension_)


@dataclass
class DimensionCorrelation:
    """The correlation of intrinsic dimension of two sets, with the dimensions that it is computed from.

    Args:
        value: the correlation of the given pairing.
        p: its p-value.
        first, second, joined: d1, d2 and d12.
        shuffled: the correlation of each shuffled pairing, (shuffles,).
    """

    value: float
    p: float
    first: float
    second: float
    joined: float
    shuffled: np.ndarray


def dimension_correlation(
    first: np.ndarray, second: np.ndarray, *, seed: int, shuffles: int = 100, groups: np.ndarray | None = None
) -> DimensionCorrelation:
    """The correlation of intrinsic dimension of two prepared sets, and its p-value: see the module's docstring.

    Args:
        first: (n, p).
        second: (n, q), its rows paired with those of `first`.
        seed, shuffles, groups: of the shuffled pairings, see `pairings`; without any, p is 1.

    Raises:
        FmlibError: the sets cannot be paired, are not finite or have too few distinct rows.
    """
    _check_pairs(first, second, MIN_POINTS)
    ours, theirs = _squares(first), _squares(second)
    one, other, joined = _dimension(ours), _dimension(theirs), _dimension(ours + theirs)
    orders = pairings(len(first), seed=seed, shuffles=shuffles, groups=groups)
    shuffled = np.array([_dimension(ours[np.ix_(order, order)] + theirs) for order in orders])
    return DimensionCorrelation(
        value=(one + other - joined) / max(one, other),
        p=(1 + int((shuffled < joined).sum())) / (1 + shuffles),
        first=one,
        second=other,
        joined=joined,
        shuffled=(one + other - shuffled) / max(one, other),
    )


def pairings(count: int, *, seed: int, shuffles: int, groups: np.ndarray | None = None) -> list[np.ndarray]:
    """Random permutations of `count` rows, each (count,) int.

    Args:
        count: number of rows.
        seed: of the permutations.
        shuffles: number of permutations.
        groups: (count,) labels, such as the classes of images; rows are then permuted within their group only.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        return [rng.permutation(count) for _ in range(shuffles)]
    require(len(groups) == count, f"{len(groups)} labels cannot group {count} rows")
    orders = []
    for _ in range(shuffles):
        order = np.empty(count, dtype=np.int64)
        for label in np.unique(groups):
            members = np.flatnonzero(groups == label)
            order[members] = rng.permutation(members)
        orders.append(order)
    return orders


def _check_pairs(first: np.ndarray, second: np.ndarray, minimum: int) -> None:
    """Raise `FmlibError` unless the sets are finite (n, p) and (n, q), and n is at least `minimum`."""
    require(first.ndim == second.ndim == 2, f"sets of vectors are (n, p), not {first.shape} and {second.shape}")
    require(len(first) == len(second), f"{len(first)} rows cannot be paired with {len(second)}")
    require(len(first) >= minimum, f"{len(first)} rows are too few: at least {minimum} are needed")
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    require(bool(finite), "the sets hold NaN or infinite values: repair or drop those rows")
