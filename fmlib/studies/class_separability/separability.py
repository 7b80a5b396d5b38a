"""Are masks specific to the class? Linear classifiers over repeated splits, a permutation test, UMAP."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, permutation_test_score
from sklearn.neighbors import KNeighborsClassifier

from fmlib.core.errors import require

Features: TypeAlias = np.ndarray | csr_matrix

TEST = 0.15  # share of the masks that a split holds out, as in the paper


def balanced(labels: np.ndarray, most: int | None = None) -> np.ndarray:
    """Numbers of the first n items of each class, n the size of the smallest or `most`: sorted, (classes * n,)."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    smallest = min(map(len, members))
    return np.sort(np.concatenate([one[:smallest][:most] for one in members]))


def classifier() -> LogisticRegression:
    """scikit-learn's multinomial logistic regression as it comes, with more steps allowed."""
    return LogisticRegression(max_iter=200)


def _splits(labels: np.ndarray, count: int, seed: int) -> StratifiedShuffleSplit:
    classes, smallest = len(np.unique(labels)), int(np.unique(labels, return_counts=True)[1].min())
    require(
        classes >= 2 and smallest >= 2 and round(TEST * len(labels)) >= classes,
        f"{len(labels)} masks of {classes} classes are too few to hold out some of each: take more images",
    )
    return StratifiedShuffleSplit(count, test_size=TEST, random_state=seed)


def repeated_splits(features: Features, labels: np.ndarray, splits: int, seed: int) -> np.ndarray:
    """Percent right in training and on the held-out part, for true and for shuffled labels: (splits, 4).

    features: (N, F), whole masks best sparse, ten times as fast as dense; labels: (N,). The stratified splits, and
    the labels' shuffling (another for each split), follow from `seed`. Columns: train, test, shuffled_train,
    shuffled_test. Raises `FmlibError` for too few of a class.
    """
    rng, rows = np.random.default_rng(seed), []
    for fit, held in _splits(labels, splits, seed).split(features, labels):
        row = []
        for targets in (labels, rng.permutation(labels)):
            model = classifier().fit(features[fit], targets[fit])
            row += [100 * model.score(features[part], targets[part]) for part in (fit, held)]
        rows.append(row)
    return np.array(rows)


def permutation(features: Features, labels: np.ndarray, rounds: int, seed: int) -> tuple[float, np.ndarray, float]:
    """Percent right on held-out masks, the same for `rounds` shufflings of the labels (rounds,), and the p-value.

    p = (1 + shufflings that do as well) / (1 + rounds); each percentage is a mean over three splits.
    """
    score, shuffled, _ = permutation_test_score(
        classifier(), features, labels, cv=_splits(labels, 3, seed), n_permutations=rounds, random_state=seed
    )
    as_good = (shuffled >= score - 1e-9).sum()  # equal means of three may differ in their last digit
    return 100 * score, 100 * shuffled, (1 + as_good) / (1 + rounds)


@dataclass
class Map:
    """A two-dimensional map of one split: points (N, 2), and which were held out of the classifier's training (N,)."""

    points: np.ndarray
    held: np.ndarray


def umap_of_outputs(features: csr_matrix, labels: np.ndarray, seed: int) -> Map:
    """UMAP (20 neighbours, the paper, figure 8) of a linear classifier's outputs on its training and held-out masks."""
    fit, held = next(_splits(labels, 1, seed).split(features, labels))
    outputs = classifier().fit(features[fit], labels[fit]).decision_function(features)
    return Map(_umap(outputs.reshape(len(labels), -1), seed), np.isin(np.arange(len(labels)), held))


def umap_of_masks(features: csr_matrix, labels: np.ndarray, seed: int) -> Map:
    """UMAP of the masks themselves: no label enters; the held-out ones are marked for comparison only."""
    _, held = next(_splits(labels, 1, seed).split(features, labels))
    return Map(_umap(features.toarray(), seed), np.isin(np.arange(len(labels)), held))


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    """Two coordinates for each row; single-threaded, so that a seed gives one result."""
    from umap import UMAP  # takes seconds to import

    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = UMAP(n_neighbors=min(20, len(features) - 1), random_state=seed, n_jobs=1).fit_transform(features)
    torch.set_num_threads(threads)  # numba shares torch's threads, and leaves as many as the machine has cores
    return found


def neighbours(found: Map, labels: np.ndarray) -> np.ndarray:
    """Whether each held-out point of a map has its label most often among its nearest training points: (held,) bool.

    Twenty of them, or as many as the smallest class has.
    """
    fit = ~found.held
    smallest = int(np.unique(labels[fit], return_counts=True)[1].min())
    model = KNeighborsClassifier(min(20, smallest)).fit(found.points[fit], labels[fit])
    return model.predict(found.points[found.held]) == labels[found.held]
