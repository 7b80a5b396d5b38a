"""How alike are two sets of vectors? Cosines, SVCCA, distance correlation, correlation of intrinsic dimension.

A set is an array (n, p), the other (n, q); their rows are paired, such as the essential and the adversarial map of
each image, flattened. Every measure raises `FmlibError` for sets that cannot be paired, for too few rows and for
values that are not finite.

**Correlation of intrinsic dimension** (Basile et al. 2024, arXiv 2406.15812). With d1, d2 and d12 the dimensions of
two sets and of their rows joined end to end,

    (d1 + d2 - d12) / max(d1, d2)

is 1 where each set follows from the other and 0 where they are independent; estimates may lie somewhat beyond. High
dimensions are underestimated, d12 more than the others, so that even independent sets score well above 0: judge by the
shuffled pairings. The p-value, (1 + shufflings with a smaller d12) / (1 + shufflings), is uniform for independent sets.

**Preparation.** The authors prepare each set by itself, join the rows and do nothing to the joined ones. So squared
distances between joined rows are the sums of the sets' own, and a shuffled pairing permutes one of the two matrices:
the same distances, up to rounding, as from the joined rows. The maps of Basile et al. (2023) are `standardised` and
then `directed`. Their cylinder is standardised only: directed, two coordinates would be a circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform

from fmlib.core.errors import require

LEAST = 10  # distinct points that a dimension is estimated from

ALIKE = "the rows of a set are all alike: there is nothing to compare"


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1: (x - mean) / (std + 1e-6), so that a constant one is 0. (n, p)."""
    vectors = vectors.astype(np.float64)  # in single precision the mean of equal values may be another by 1e-8
    return (vectors - vectors.mean(0)) / (vectors.std(0, ddof=1) + 1e-6)


def directed(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, those of zeros as they are: (n, p). A single column, which would keep its signs only, stays."""
    if vectors.shape[1] == 1:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the two rows of each pair, of sets (n, p): (n,). Rows of zeros are refused."""
    _check_pairs(first, second, 1)
    require(first.shape == second.shape, f"rows of {first.shape[1]} and of {second.shape[1]} values make no angle")
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    require(bool((lengths > 0).all()), "a row of zeros has no direction: leave empty maps out")
    return (first * second).sum(1) / lengths


def svcca(first: np.ndarray, second: np.ndarray, share: float = 0.99) -> float:
    """SVCCA: the mean canonical correlation of two sets' strongest directions, from 0 to 1 (Raghu et al. 2017).

    Of each set with its columns centred, X = U S V', it keeps the fewest directions whose singular values make up
    `share` of their sum, as the authors' library (anatome) does; the correlations are the singular values of U1' U2.
    Orthogonal maps, shifts and scalings of a set change nothing. Independent sets do not score 0: k and l directions
    of n - 1 < k + l have some in common, so compare with shuffled pairings.
    """
    _check_pairs(first, second, 2)
    return float(np.linalg.svd(_directions(first, share).T @ _directions(second, share), compute_uv=False).mean())


def _directions(vectors: np.ndarray, share: float) -> np.ndarray:
    """The left singular vectors that `svcca` keeps: (n, k)."""
    left, values, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    require(values[0] > 0, ALIKE)
    return left[:, : 1 + np.searchsorted(values.cumsum(), share * values.sum())]


def squared_distance_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """R_n^2, the square of the sample distance correlation, from 0 to 1 (Székely, Rizzo and Bakirov 2007).

    <A, B> / sqrt(<A, A> <B, B>), with A and B the distances within each set less the means of their rows and columns,
    plus the whole's. Biased upwards: never 0 for independent samples. Basile et al. report this square, without a
    root, of `directed` sets. Orthogonal maps, shifts and scalings of a set change nothing.
    """

    def centred(distances: np.ndarray) -> np.ndarray:
        means = distances.mean(0)
        return distances - means - means[:, None] + means.mean()

    _check_pairs(first, second, 2)
    return _alignment(centred(_distances(first)), centred(_distances(second)))


def corrected_distance_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """The bias-corrected estimate of the same square, about 0 for independent samples (Székely and Rizzo 2014).

    It may be negative. A and B are centred by sums over n - 2 and (n - 1)(n - 2) entries, their diagonals left out.
    """

    def centred(distances: np.ndarray) -> np.ndarray:
        count, sums = len(distances), distances.sum(0)
        found = distances - (sums + sums[:, None]) / (count - 2) + sums.sum() / ((count - 1) * (count - 2))
        np.fill_diagonal(found, 0)
        return found

    _check_pairs(first, second, 4)
    return _alignment(centred(_distances(first)), centred(_distances(second)))


def _distances(vectors: np.ndarray) -> np.ndarray:
    return squareform(pdist(vectors))  # (n, n)


def _alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of two matrices as vectors."""
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    require(lengths > 0, ALIKE)
    return float((first * second).sum() / lengths)


def intrinsic_dimension(vectors: np.ndarray) -> float:
    """The TwoNN estimate of a set's dimension (n, p) (Facco et al. 2017), by scikit-dimension.

    mu = r2 / r1 of each point's two nearest neighbours has the distribution F(mu) = 1 - mu^-d. d is the slope through
    the origin of -log(1 - F) on log mu, over the lowest 90 %. Points with r1 = 0 or r1 = r2 are left out, as the
    authors do. Raises `FmlibError` if fewer than ten points are left.
    """
    _check_pairs(vectors, vectors, LEAST)
    return _dimension(_squares(vectors))


def _squares(vectors: np.ndarray) -> np.ndarray:
    """Squared distances (n, n), taken pair by pair so that equal rows are exactly 0 apart; the diagonal is infinite."""
    squares = squareform(pdist(vectors, "sqeuclidean"))
    np.fill_diagonal(squares, np.inf)
    return squares


def _dimension(squares: np.ndarray) -> float:
    from skdim.id import TwoNN  # takes seconds to import

    nearest = np.sqrt(np.partition(squares, 1, axis=1)[:, :2])  # (n, 2): r1, r2
    nearest = nearest[(nearest[:, 0] > 0) & (nearest[:, 0] < nearest[:, 1])]
    require(len(nearest) >= LEAST, f"{len(nearest)} points with distinct neighbours are too few: it takes {LEAST}")
    return float(TwoNN(dist=True).fit(nearest).dimension_)


@dataclass
class DimensionCorrelation:
    """The correlation of two sets' dimensions, and what it is made of.

    value: of the pairing as given; p: its p-value; first, second, joined: d1, d2, d12; shuffled: (shuffles,) the
    correlation of each shuffled pairing.
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
    """The correlation of intrinsic dimension of two prepared sets, and its p-value (see the module's docstring).

    The shuffled pairings are those of `pairings`; without any, p is 1.
    """
    _check_pairs(first, second, LEAST)
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
    """Random orders of `count` rows, `shuffles` of them, that follow from `seed`: (count,) int each.

    groups: (count,) labels; rows then change places within their group only, such as the images of one class.
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


def _check_pairs(first: np.ndarray, second: np.ndarray, least: int) -> None:
    """Raise `FmlibError` unless the sets are finite (n, p) and (n, q), and n is at least `least`."""
    require(first.ndim == second.ndim == 2, f"sets of vectors are (n, p), not {first.shape} and {second.shape}")
    require(len(first) == len(second), f"{len(first)} rows cannot be paired with {len(second)}")
    require(len(first) >= least, f"{len(first)} rows are too few: it takes {least}")
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    require(bool(finite), "the sets hold NaN or infinite values: repair or drop those rows")
