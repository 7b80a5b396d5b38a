"""Linear separability of classes by their masks: repeated splits, a permutation test, and UMAP embeddings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from fmlib.core.errors import require

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

Features: TypeAlias = "np.ndarray | csr_matrix"

TEST_SHARE = 0.15  # of the masks, held out by each split as in the paper


def balanced(labels: np.ndarray, limit: int | None = None) -> np.ndarray:
    """Indices of the first n items of each class, sorted: (classes * n,).

    Args:
        labels: (N,).
        limit: the largest n; otherwise n is the size of the smallest class.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    smallest = min(map(len, members))
    return np.sort(np.concatenate([indices[:smallest][:limit] for indices in members]))


def classifier() -> LogisticRegression:
    """scikit-learn's multinomial logistic regression with default settings, and more iterations allowed."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=200)


def _splits(labels: np.ndarray, count: int, seed: int) -> StratifiedShuffleSplit:
    from sklearn.model_selection import StratifiedShuffleSplit

    classes, smallest = len(np.unique(labels)), int(np.unique(labels, return_counts=True)[1].min())
    require(
        classes >= 2 and smallest >= 2 and round(TEST_SHARE * len(labels)) >= classes,
        f"{len(labels)} masks of {classes} classes are too few to hold out some of each: take more images",
    )
    return StratifiedShuffleSplit(count, test_size=TEST_SHARE, random_state=seed)


def repeated_splits(features: Features, labels: np.ndarray, splits: int, seed: int) -> np.ndarray:
    """Training and test accuracy of a linear classifier over repeated stratified splits, in percent.

    Args:
        features: (N, F); a sparse matrix of whole masks is ten times as fast as a dense one.
        labels: (N,).
        splits: how many.
        seed: of the splits and of the shuffled labels, which differ between splits.

    Returns:
        (splits, 4): train, test, and both again for shuffled labels.

    Raises:
        FmlibError: a class has too few masks.
    """
    rng, rows = np.random.default_rng(seed), []
    for fit, held in _splits(labels, splits, seed).split(features, labels):
        row = []
        for targets in (labels, rng.permutation(labels)):
            model = classifier().fit(features[fit], targets[fit])
            row += [100 * model.score(features[part], targets[part]) for part in (fit, held)]
        rows.append(row)
    return np.array(rows)


def permutation_test(
    features: Features, labels: np.ndarray, permutations: int, seed: int
) -> tuple[float, np.ndarray, float]:
    """Test accuracy in percent, that of each permutation of the labels (permutations,), and the p-value.

    p = (1 + permutations at least as accurate) / (1 + permutations). Each accuracy is a mean over three splits.

    Args:
        features: (N, F).
        labels: (N,).
        permutations: how many.
        seed: of the splits and the permutations.

    Raises:
        FmlibError: a class has too few masks.
    """
    from sklearn.model_selection import permutation_test_score

    score, shuffled, _ = permutation_test_score(
        classifier(), features, labels, cv=_splits(labels, 3, seed), n_permutations=permutations, random_state=seed
    )
    as_good = (shuffled >= score - 1e-9).sum()  # equal means of three may differ in their last digit
    return 100 * score, 100 * shuffled, (1 + as_good) / (1 + permutations)


@dataclass
class Embedding:
    """A two-dimensional embedding of one split: points (N, 2), and which are held out of the training (N,) bool."""

    points: np.ndarray
    held: np.ndarray


def embed_outputs(features: csr_matrix, labels: np.ndarray, seed: int) -> Embedding:
    """UMAP of a linear classifier's outputs on its training and held-out masks, with 20 neighbours as in Figure 8."""
    fit, held = next(_splits(labels, 1, seed).split(features, labels))
    outputs = classifier().fit(features[fit], labels[fit]).decision_function(features)
    return Embedding(_umap(outputs.reshape(len(labels), -1), seed), np.isin(np.arange(len(labels)), held))


def embed_masks(features: csr_matrix, labels: np.ndarray, seed: int) -> Embedding:
    """UMAP of the masks themselves, without labels; those that `embed_outputs` holds out are marked."""
    _, held = next(_splits(labels, 1, seed).split(features, labels))
    return Embedding(_umap(features.toarray(), seed), np.isin(np.arange(len(labels)), held))


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    """Two coordinates for each row; single-threaded, so that a seed gives one result."""
    from umap import UMAP  # takes seconds to import

    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points = UMAP(n_neighbors=min(20, len(features) - 1), random_state=seed, n_jobs=1).fit_transform(features)
    torch.set_num_threads(threads)  # numba shares torch's threads, and leaves as many as the machine has cores
    return points


def neighbour_vote(embedding: Embedding, labels: np.ndarray) -> np.ndarray:
    """Whether the nearest training points predict the label of each held-out point: (held,) bool.

    The majority of twenty neighbours decides, or of as many as the smallest class has.
    """
    fit = ~embedding.held
    smallest = int(np.unique(labels[fit], return_counts=True)[1].min())
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(20, smallest)).fit(embedding.points[fit], labels[fit])
    return model.predict(embedding.points[embedding.held]) == labels[embedding.held]
