"""Linear separability: perfect on features that determine the class, at chance on noise; reproducible embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import FakeResults
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from fmlib.core.errors import FmlibError
from fmlib.studies.class_separability import analysis, separability
from fmlib.studies.class_separability.separability import Embedding


def separable(per_class: int = 20, classes: int = 3, seed: int = 0) -> tuple[csr_matrix, np.ndarray]:
    """Sparse features, two of which are the class's own, and labels in random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    features = 0.3 * rng.random((len(labels), 30)) * (rng.random((len(labels), 30)) < 0.2)
    features[np.arange(len(labels)), 2 * labels] += 1
    features[np.arange(len(labels)), 2 * labels + 1] += 1
    return csr_matrix(features), labels


def noise(count: int, width: int, seed: int = 0) -> tuple[csr_matrix, np.ndarray]:
    """Sparse features that know nothing of the two classes."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, width)) * (rng.random((count, width)) < 0.5)
    return csr_matrix(features), np.arange(count) % 2


# -------------------------------------------------------------------------------------------------- balanced


def test_balanced_takes_the_first_of_each_class_in_order():
    assert separability.balanced(np.array([7, 2, 2, 7, 5, 7, 5, 2, 7])).tolist() == [0, 1, 2, 3, 4, 6]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_balanced_has_as_many_of_each_class_as_the_smallest_and_begins_with_the_first(labels):
    labels = np.array(labels)
    chosen = separability.balanced(labels)
    smallest = min(np.unique(labels, return_counts=True)[1])
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    for label in np.unique(labels):
        assert chosen[labels[chosen] == label].tolist() == np.flatnonzero(labels == label)[:smallest].tolist()


def test_balanced_takes_no_more_than_asked_for_and_no_more_than_there_are():
    labels = np.array([7, 2, 2, 7, 5, 7, 5, 2, 7])
    assert separability.balanced(labels, limit=1).tolist() == [0, 1, 4]
    assert separability.balanced(labels, limit=9).tolist() == separability.balanced(labels).tolist()


# ------------------------------------------------------------------------------------------- repeated splits


def test_separable_features_are_classified_and_shuffled_labels_are_not():
    features, labels = separable()
    accuracy = separability.repeated_splits(features, labels, 30, seed=0)
    assert accuracy.shape == (30, 4)
    assert (accuracy[:, :2] == 100).all()
    assert accuracy[:, 2].max() < 90  # features of the class do not predict shuffled labels
    assert accuracy[:, 3].mean() == pytest.approx(100 / 3, abs=12)


def test_noise_is_memorised_and_does_not_generalise():
    """Many features and few masks: training accuracy is perfect with any labels, test accuracy is at chance."""
    accuracy = separability.repeated_splits(*noise(120, 400), 10, seed=0).mean(0)
    assert accuracy[0] == accuracy[2] == 100
    assert accuracy[[1, 3]] == pytest.approx([50, 50], abs=15)


def test_splits_and_permutations_depend_on_the_seed_and_differ_from_one_another():
    features, labels = noise(60, 20)
    first = separability.repeated_splits(features, labels, 6, seed=3)
    np.testing.assert_array_equal(first, separability.repeated_splits(features, labels, 6, seed=3))
    assert not np.array_equal(first, separability.repeated_splits(features, labels, 6, seed=4))
    assert len(np.unique(first, axis=0)) > 3


def test_more_splits_begin_with_the_same_ones():
    features, labels = noise(60, 20)
    few, many = (separability.repeated_splits(features, labels, splits, seed=0) for splits in (2, 4))
    np.testing.assert_array_equal(many[:2], few)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([0] * 40, "40 masks of 1 classes"),
        ([0] * 40 + [1], "41 masks of 2 classes"),
        ([0, 1, 2, 3, 4] * 5, "25 masks of 5 classes"),
    ],
    ids=["one class", "one of a class", "fewer held out than classes"],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda features, labels: separability.repeated_splits(features, labels, 2, 0),
        lambda features, labels: separability.permutation_test(features, labels, 2, 0),
        lambda features, labels: separability.embed_outputs(features, labels, 0),
        lambda features, labels: separability.embed_masks(features, labels, 0),
    ],
    ids=["splits", "permutation", "outputs", "masks"],
)
def test_too_few_masks_are_refused(call, labels, why):
    with pytest.raises(FmlibError, match=f"{why}.*take more images"):
        call(csr_matrix(np.eye(len(labels))), np.array(labels))


# ----------------------------------------------------------------------------------------------- permutation


def test_no_permutation_is_as_accurate_as_separable_labels():
    score, shuffled, p = separability.permutation_test(*separable(), 19, seed=0)
    assert score == 100
    assert shuffled.shape == (19,)
    assert shuffled.mean() == pytest.approx(100 / 3, abs=12)
    assert p == pytest.approx(1 / 20)


def at_least_as_accurate(score: float, shuffled: np.ndarray) -> int:
    """How many permutations are at least as accurate as the true labels; ties count, whatever their rounding."""
    return int((shuffled >= score - 1e-9).sum())


def test_p_counts_permutations_that_are_as_accurate_and_is_large_on_noise():
    p_values = []
    for seed in (0, 1, 5, 6):
        score, shuffled, p = separability.permutation_test(*noise(40, 20, seed), 9, seed=0)
        assert p == pytest.approx((1 + at_least_as_accurate(score, shuffled)) / 10)
        p_values.append(p)
    assert np.mean(p_values) > 0.2
    assert len(set(p_values)) > 1


def test_a_tie_counts_as_accurate():
    score, shuffled, p = separability.permutation_test(*noise(40, 20, 3), 9, seed=0)
    assert shuffled.max() == pytest.approx(score)
    assert p == pytest.approx((1 + at_least_as_accurate(score, shuffled)) / 10)


def test_permutations_depend_on_the_seed():
    features, labels = noise(40, 20)
    (score, shuffled, p), again, other = (
        separability.permutation_test(features, labels, 5, seed) for seed in (0, 0, 1)
    )
    assert (score, shuffled.tolist(), p) == (again[0], again[1].tolist(), again[2])
    assert shuffled.tolist() != other[1].tolist()


# ---------------------------------------------------------------------------------------------- embeddings


def clusters(*groups: tuple[float, int, int, bool]) -> tuple[Embedding, np.ndarray]:
    """An embedding of groups (position, label, count, held) with points a little apart."""
    points = [(position + 0.01 * n, 0.0) for position, _, count, _ in groups for n in range(count)]
    held, labels = ([group[i] for group in groups for _ in range(group[2])] for i in (3, 1))
    return Embedding(np.array(points), np.array(held)), np.array(labels)


def test_neighbour_vote_on_a_known_embedding():
    """Held-out points are correct among their class and wrong among others, and do not vote for one another."""
    embedding, labels = clusters(
        (0, 0, 5, False), (9, 1, 5, False), (0.5, 0, 1, True), (9.5, 0, 8, True), (8.5, 1, 2, True)
    )
    assert separability.neighbour_vote(embedding, labels).tolist() == [True] + 8 * [False] + 2 * [True]


def test_no_more_neighbours_vote_than_the_smallest_class_has():
    """Two near neighbours decide, though ten distant ones would outvote them."""
    embedding, labels = clusters((0, 0, 2, False), (5, 1, 10, False), (0.5, 0, 1, True))
    assert separability.neighbour_vote(embedding, labels).tolist() == [True]


def test_no_more_than_twenty_neighbours_vote():
    """Of the nearest twenty, eleven have its label; of the nearest thirty, nineteen have another."""
    embedding, labels = clusters((0, 0, 11, False), (3, 1, 40, False), (-9, 0, 20, False), (0.5, 0, 1, True))
    assert separability.neighbour_vote(embedding, labels).tolist() == [True]


@pytest.mark.slow
def test_embedding_of_outputs_depends_on_the_seed_and_separates_the_classes():
    features, labels = separable(classes=2)
    first, again = (separability.embed_outputs(features, labels, seed=0) for _ in range(2))
    assert first.points.shape == (40, 2)
    assert np.isfinite(first.points).all()
    assert np.bincount(labels[first.held]).tolist() == [3, 3]  # 15 % of twenty each
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.held, again.held)
    assert separability.neighbour_vote(first, labels).all()


@pytest.mark.slow
def test_embeddings_restore_torchs_number_of_threads():
    assert torch.get_num_threads() == 1  # of conftest.py
    separability.embed_masks(*separable(), seed=0)
    assert torch.get_num_threads() == 1


def test_the_embedding_of_masks_ignores_labels():
    features, labels = separable()
    cycled = (labels + 1) % 3  # other labels, the same classes to hold out
    shuffled = np.random.default_rng(0).permutation(labels)
    first, second, third = (separability.embed_masks(features, one, seed=0) for one in (labels, cycled, shuffled))
    assert first.points.shape == (60, 2)
    assert np.bincount(labels[first.held]).tolist() == [3, 3, 3]
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.points, third.points)
    assert not np.array_equal(first.held, third.held)


# ------------------------------------------------------------------------------------------------- few masks


@pytest.mark.parametrize("per_class", [9, 15])
def test_few_masks_give_the_results_of_all_their_frequencies(per_class):
    """The coordinates that the analysis uses give the same splits and p-value as the masks themselves."""
    count = 5 * per_class
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(5), per_class)
    masks = np.where(rng.random((count, 8, 5)) < 0.2, rng.random((count, 8, 5)), 0)
    masks[np.arange(count), labels, 0] += 0.5
    arrays = {"N.x": masks.astype(np.float16), "label": labels}
    results = FakeResults(image_masks=arrays)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:11] for label in range(5)])
    features = csr_matrix(arrays["N.x"][chosen].reshape(len(chosen), -1).astype(float))
    test = separability.repeated_splits(features, labels[chosen], 20, seed=0)[:, 1]
    accuracy = analysis.few_split_accuracy(results)
    assert accuracy.value == pytest.approx(test.mean())
    assert accuracy.n == 20
    assert analysis.few_p_value(results).value == separability.permutation_test(features, labels[chosen], 99, seed=0)[2]
