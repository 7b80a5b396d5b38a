"""Similarity of paired sets: the authors' cylinder, independence, identity, invariances, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, ortho_group

from fmlib.core.errors import FmlibError
from fmlib.studies.frequency_maps import similarity
from fmlib.studies.frequency_maps.similarity import (
    corrected_distance_correlation,
    cosines,
    dimension_correlation,
    intrinsic_dimension,
    pairings,
    squared_distance_correlation,
    standardised,
    svcca,
    unit_rows,
)

seeds = st.integers(0, 2**32)
ROTATED = (svcca, squared_distance_correlation, corrected_distance_correlation)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# ---------------------------------------------------------------------------------------------- the cylinder


def cylinder(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A thousand points: x and z on the unit circle, y along the axis, (1000, 1) each."""
    circle = rng.uniform(-np.pi, np.pi, (1000, 2))
    circle /= np.linalg.norm(circle, axis=1, keepdims=True)
    return circle[:, :1], rng.uniform(-1, 1, (1000, 1)), circle[:, 1:]


def against_the_rest(points, coordinate: int) -> tuple[np.ndarray, np.ndarray]:
    rest = [column for index, column in enumerate(points) if index != coordinate]
    return standardised(points[coordinate]), standardised(np.hstack(rest))


@pytest.mark.parametrize(
    ("coordinate", "value", "squared"),
    [
        (0, 0.48517459981738664, 0.006219983729542246),
        (1, -0.13974080280002232, 0.0033181843278848756),
        (2, 0.4538603, 0.00744309025097793),
    ],
)
def test_numbers_are_those_that_the_authors_print_for_their_sample(coordinate, value, squared):
    """With their notebook's generator and seed: standardised coordinates for the first, unit rows for the second."""
    points = cylinder(np.random.RandomState(42))
    found = dimension_correlation(*against_the_rest(points, coordinate), seed=0, shuffles=0)
    assert found.value == pytest.approx(value, abs=1e-6)
    rest = np.hstack([column for index, column in enumerate(points) if index != coordinate])
    assert squared_distance_correlation(unit_rows(points[coordinate]), unit_rows(rest)) == pytest.approx(
        squared, rel=1e-6
    )


def test_a_coordinate_on_the_circle_correlates_with_the_rest_of_the_cylinder():
    """Theory: (1 + 2 - 2) / 2. One sample of a thousand points is 0.05 off; the mean of twenty is not."""
    pairs = [against_the_rest(cylinder(np.random.default_rng(seed)), 0) for seed in range(20)]
    found = [dimension_correlation(*pair, seed=0, shuffles=0).value for pair in pairs]
    assert np.mean(found) == pytest.approx(0.485, abs=0.05)


def test_a_cylinder_correlates_more_than_every_shuffled_pairing():
    points = cylinder(np.random.default_rng(0))
    assert dimension_correlation(*against_the_rest(points, 0), seed=0, shuffles=20).p == pytest.approx(1 / 21)
    assert dimension_correlation(*against_the_rest(points, 1), seed=0, shuffles=20).p > 0.2


# ------------------------------------------------------------------------------------ independence and identity


def test_independent_sets_are_not_correlated():
    found = [
        dimension_correlation(normal(seed, 800, 2), normal(seed + 100, 800, 3), seed=0, shuffles=0).value
        for seed in range(10)
    ]
    assert np.mean(found) == pytest.approx(0, abs=0.05)


def test_a_set_has_correlation_one_with_itself_and_the_smallest_possible_p():
    vectors = unit_rows(standardised(normal(0, 60, 5)))
    for shuffles in (9, 39):
        found = dimension_correlation(vectors, vectors, seed=0, shuffles=shuffles)
        assert found.value == pytest.approx(1, abs=1e-9)
        assert found.p == 1 / (1 + shuffles)
        assert found.shuffled.shape == (shuffles,)
        assert found.shuffled.max() < found.value


def test_p_counts_the_shuffled_pairings_with_a_larger_correlation():
    for seed in range(5):
        found = dimension_correlation(normal(seed, 40, 2), normal(seed + 9, 40, 2), seed=seed, shuffles=19)
        assert found.p == (1 + (found.shuffled > found.value).sum()) / 20


def test_without_shuffling_p_is_one():
    assert dimension_correlation(normal(0, 20, 2), normal(1, 20, 2), seed=0, shuffles=0).p == 1


def test_p_is_uniform_for_independent_sets():
    """There are twenty equally likely values; uniform jitter within each step makes the distribution continuous."""
    jitter = np.random.default_rng(0).uniform(size=200)
    found = [
        dimension_correlation(normal(seed, 25, 2), normal(seed + 1000, 25, 3), seed=seed, shuffles=19).p
        for seed in range(200)
    ]
    assert kstest(np.array(found) - jitter / 20, "uniform").pvalue > 0.05


def test_shuffled_pairings_depend_on_the_seed():
    first, second = normal(0, 30, 2), normal(1, 30, 2)
    one, again, other = (dimension_correlation(first, second, seed=seed, shuffles=9) for seed in (0, 0, 1))
    assert one.shuffled.tolist() == again.shuffled.tolist() != other.shuffled.tolist()
    assert one.value == other.value


def test_pairings_are_permutations_within_groups_if_groups_are_given():
    groups = np.array([2, 0, 2, 1, 0, 2, 0, 0])
    for within in (None, groups):
        orders = pairings(8, seed=0, shuffles=20, groups=within)
        assert len(orders) == 20
        assert all(sorted(order) == list(range(8)) for order in orders)
        assert len({tuple(order) for order in orders}) > 10
        assert [one.tolist() for one in orders] == [
            one.tolist() for one in pairings(8, seed=0, shuffles=20, groups=within)
        ]
    assert all((groups[order] == groups).all() for order in orders)
    with pytest.raises(FmlibError, match="3 labels cannot group 8 rows"):
        pairings(8, seed=0, shuffles=1, groups=groups[:3])


def test_shuffling_within_groups_of_one_changes_nothing():
    first, second = normal(0, 20, 2), normal(1, 20, 2)
    found = dimension_correlation(first, second, seed=0, shuffles=5, groups=np.arange(20))
    assert found.shuffled == pytest.approx(np.full(5, found.value))


def test_shuffled_distances_are_those_of_the_concatenated_rows():
    """The sum of permuted squared distances equals the squared distances of the concatenated shuffled rows."""
    first, second = (unit_rows(standardised(normal(seed, 50, 4))) for seed in (0, 1))
    found = dimension_correlation(first, second, seed=3, shuffles=4)
    assert found.joined == pytest.approx(intrinsic_dimension(np.hstack((first, second))), rel=1e-9)
    rng, largest = np.random.default_rng(3), max(found.first, found.second)
    for value in found.shuffled:
        joined = intrinsic_dimension(np.hstack((first[rng.permutation(50)], second)))
        assert value == pytest.approx((found.first + found.second - joined) / largest, rel=1e-9)


# ------------------------------------------------------------------------------------------ intrinsic dimension


@pytest.mark.parametrize(("dimension", "low", "high"), [(1, 0.93, 1.07), (2, 1.86, 2.14), (5, 4.15, 5.35)])
@pytest.mark.parametrize("kind", ["standard_normal", "random"])
def test_dimension_of_known_sets(dimension, low, high, kind):
    """Within three standard errors of d, d / sqrt(0.9 n); in five dimensions the boundary may add a bias of 0.1 d."""
    vectors = getattr(np.random.default_rng(dimension), kind)((2000, dimension))
    assert low < intrinsic_dimension(vectors) < high


def test_dimension_is_that_of_the_set_not_of_the_space():
    vectors = normal(0, 300, 2)
    found = intrinsic_dimension(vectors)
    embedded = np.hstack((vectors, np.zeros((300, 8)))) @ ortho_group.rvs(10, random_state=0)
    assert intrinsic_dimension(7 + 3 * embedded) == pytest.approx(found, rel=1e-6)


def by_hand(vectors: np.ndarray) -> float:
    """The slope through the origin, from the ratios of the two smallest distances that are neither 0 nor equal."""
    ratios = []
    for number, one in enumerate(vectors):
        near = sorted(np.sqrt(((one - other) ** 2).sum()) for k, other in enumerate(vectors) if k != number)[:2]
        if near[0] > 0 and near[0] != near[1]:
            ratios.append(near[1] / near[0])
    lowest = int(np.floor(0.9 * len(ratios)))
    x = np.log(np.sort(ratios))[:lowest]
    y = -np.log(1 - np.arange(1, lowest + 1) / len(ratios))
    return (x * y).sum() / (x * x).sum()


def test_dimension_by_hand():
    assert intrinsic_dimension(normal(0, 43, 3)) == pytest.approx(by_hand(normal(0, 43, 3)), rel=1e-9)


@pytest.mark.filterwarnings("error")  # the library warns of points that it drops itself
def test_repeated_points_and_equal_neighbours_are_left_out():
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), -1).reshape(-1, 2) + 100  # r1 = r2 everywhere
    vectors = np.concatenate((normal(0, 40, 2), normal(0, 40, 2)[:15], grid))
    assert intrinsic_dimension(vectors) == pytest.approx(by_hand(vectors), rel=1e-9)
    assert intrinsic_dimension(vectors) != pytest.approx(by_hand(normal(0, 40, 2)), rel=1e-3)


# -------------------------------------------------------------------------------------------------- preparation


def test_preparation_of_columns_and_rows():
    vectors = 3 + 2 * normal(0, 50, 4)
    found = standardised(vectors)
    assert found.mean(0) == pytest.approx(np.zeros(4), abs=1e-9)
    assert found.std(0, ddof=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert np.linalg.norm(unit_rows(found), axis=1) == pytest.approx(np.ones(50))
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0, 0]]
    assert unit_rows(np.array([[-3.0], [2.0]])).tolist() == [[-3], [2]]


def test_constant_columns_change_nothing():
    vectors = normal(0, 60, 3)
    wider = np.hstack((vectors, np.full((60, 4), 0.3)))
    assert standardised(np.full((60, 4), 0.7, dtype=np.float32)) == pytest.approx(0, abs=1e-6)
    assert standardised(wider)[:, 3:] == pytest.approx(0, abs=1e-9)
    found, other = (intrinsic_dimension(unit_rows(standardised(one))) for one in (vectors, wider))
    assert other == pytest.approx(found, rel=1e-6)


# --------------------------------------------------------------------------------------- cosines, SVCCA, distances


def test_cosines_of_known_angles():
    first = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [3.0, 1.0]])
    second = np.array([[0.0, 5.0], [3.0, 0.0], [-1.0, -1.0], [1.0, 0.0]])
    assert cosines(first, second) == pytest.approx([0, 1, -1, 3 / np.sqrt(10)])


@given(seeds)
def test_measures_are_invariant_to_orthogonal_maps_shifts_and_scalings(seed):
    first, second = normal(seed, 20, 4), normal(seed + 1, 20, 3)
    second[:, 0] += first[:, 0]
    turned = 5 - 0.1 * first @ ortho_group.rvs(4, random_state=seed % 2**32)
    for measure in ROTATED:
        assert measure(turned, second) == pytest.approx(measure(first, second), abs=1e-9)
        assert measure(second, first) == pytest.approx(measure(first, second), abs=1e-9)
        assert measure(first, turned) == pytest.approx(1, abs=1e-9)


def test_svcca_of_single_columns_is_their_absolute_correlation():
    first, second = normal(0, 40, 1), normal(1, 40, 1)
    assert svcca(first, second) == pytest.approx(abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]))


def test_svcca_leaves_weak_directions_out():
    """Two strong independent directions and a weak shared one, less than a hundredth of their sum."""
    first, second, common = normal(0, 5000, 2), normal(1, 5000, 2), 1e-3 * normal(2, 5000, 1)
    first, second = np.hstack((first, common)), np.hstack((second, common))
    assert svcca(first, second) < 0.05
    assert svcca(first, second, share=1) == pytest.approx(1 / 3, abs=0.05)


def test_svcca_is_high_for_independent_sets_of_few_rows():
    """This is why it is compared with shuffled pairings."""
    assert svcca(normal(0, 30, 40), normal(1, 30, 40)) > 0.95


def defined(first: np.ndarray, second: np.ndarray, corrected: bool) -> float:
    """Either distance correlation by its definition, entry by entry."""
    count, centred = len(first), []
    for vectors in (first, second):
        raw = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in vectors] for a in vectors])
        found = np.zeros_like(raw)
        for i in range(count):
            for j in range(count):
                if not corrected:
                    found[i, j] = raw[i, j] - raw[i].mean() - raw[:, j].mean() + raw.mean()
                elif i != j:
                    whole = raw.sum() / ((count - 1) * (count - 2))
                    found[i, j] = raw[i, j] - raw[i].sum() / (count - 2) - raw[:, j].sum() / (count - 2) + whole
        centred.append(found)
    a, b = centred
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def test_distance_correlations_by_their_definitions():
    first, second = normal(0, 7, 3), normal(1, 7, 2)
    assert squared_distance_correlation(first, second) == pytest.approx(defined(first, second, False))
    assert corrected_distance_correlation(first, second) == pytest.approx(defined(first, second, True))


def test_only_the_corrected_distance_correlation_is_about_zero_for_independent_sets():
    pairs = [(normal(seed, 40, 10), normal(seed + 50, 40, 10)) for seed in range(50)]
    assert min(squared_distance_correlation(*pair) for pair in pairs) > 0.1
    assert np.mean([corrected_distance_correlation(*pair) for pair in pairs]) == pytest.approx(0, abs=0.02)


def test_distance_correlation_detects_non_linear_dependence():
    x = np.linspace(-1, 1, 201)[:, None]
    assert svcca(x, x**2) == pytest.approx(0, abs=1e-9)
    assert squared_distance_correlation(x, x**2) > 0.2
    assert corrected_distance_correlation(x, x**2) > 0.2


# -------------------------------------------------------------------------------------------------- bad input

GOOD = normal(0, 20, 3)
BROKEN = GOOD.copy()
BROKEN[4, 1] = np.nan
MEASURES = {
    "cosines": cosines,
    "svcca": svcca,
    "squared": squared_distance_correlation,
    "corrected": corrected_distance_correlation,
    "dimension": lambda first, second: dimension_correlation(first, second, seed=0, shuffles=1),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (GOOD, GOOD[:19], "20 rows cannot be paired with 19"),
        (BROKEN, GOOD, "NaN"),
        (GOOD, np.where(np.isnan(BROKEN), np.inf, BROKEN), "infinite"),
        (GOOD[0], GOOD[0], r"\(n, p\)"),
        (GOOD[:0], GOOD[:0], "0 rows are too few"),
        (np.zeros((20, 3)), np.zeros((20, 3)), "zeros|identical|distinct"),
    ],
    ids=["unequal", "NaN", "infinite", "flat", "empty", "constant"],
)
def test_sets_that_cannot_be_compared_raise(measure, first, second, message):
    with pytest.raises(FmlibError, match=message):
        measure(first, second)


@pytest.mark.parametrize(("name", "minimum"), [("svcca", 2), ("squared", 2), ("corrected", 4), ("dimension", 10)])
def test_each_measure_needs_a_minimum_of_rows(name, minimum):
    with pytest.raises(FmlibError, match=f"{minimum - 1} rows are too few: at least {minimum} are needed"):
        MEASURES[name](GOOD[: minimum - 1], GOOD[: minimum - 1])
    MEASURES[name](GOOD[:minimum], GOOD[:minimum])


def test_cosines_need_rows_of_one_length_that_are_not_zero():
    with pytest.raises(FmlibError, match="rows of 3 and of 2 values"):
        cosines(GOOD, GOOD[:, :2])
    with pytest.raises(FmlibError, match="leave empty maps out"):
        cosines(GOOD, GOOD * (np.arange(20) != 7)[:, None])


def test_too_few_points_with_distinct_neighbours_have_no_dimension():
    with pytest.raises(FmlibError, match=r"\d points with distinct neighbours are too few"):
        intrinsic_dimension(np.concatenate((np.zeros((16, 2)), GOOD[:4, :2])))


def test_scikit_dimension_fits_the_lowest_ninety_percent_from_distances():
    """The library's default and its meaning of `dist` have changed before."""
    nearest = np.sort(np.random.default_rng(0).uniform(1, 2, (50, 2)), axis=1)
    squares = np.full((50, 50), np.inf)
    squares[:, :2] = nearest**2
    ratios = np.log(np.sort(nearest[:, 1] / nearest[:, 0]))[:45]
    heights = -np.log(1 - np.arange(1, 46) / 50)
    assert similarity._dimension(squares) == pytest.approx((ratios * heights).sum() / (ratios**2).sum(), rel=1e-9)
