"""Uniqueness of minimal masks: bands, enumeration, sets of frequencies, and measures of agreement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import FakeResults

from fmlib.core.config import MinimalMaskSpec
from fmlib.pipeline.results import NotComputed
from fmlib.studies.uniqueness import analysis, experiment, figures
from fmlib.studies.uniqueness.subsets import best_subsets, excess, ring_sectors


def test_bands_cover_the_plane_and_join_opposite_frequencies():
    bands = ring_sectors(32, 32)
    assert bands.shape == (32, 17)
    assert sorted(bands.unique().tolist()) == list(range(16))
    for row in range(1, 16):  # the columns of DC and Nyquist hold both f and -f
        assert bands[row, 0] == bands[-row, 0]


@pytest.mark.parametrize(("size", "count"), [(64, 16), (16, 13)])
def test_bands_are_numbered_without_gaps(size, count):
    assert ring_sectors(size, size).unique().tolist() == list(range(count))


@pytest.mark.parametrize("penalty", [0.07, 1.0])
def test_enumeration_finds_the_lowest_excess_of_all_subsets(linear, penalty):
    rng = torch.Generator().manual_seed(0)
    model, spec = linear(torch.randn(3, 64, generator=rng)), MinimalMaskSpec(penalty=penalty)
    images, targets = torch.rand(3, 1, 8, 8, generator=rng), torch.tensor([0, 1, 2])
    bands = torch.arange(5).expand(8, 5)
    lowest, evaluated = best_subsets(model, images, targets, bands, spec, 0.5)
    for index in range(3):
        every = torch.tensor([[number >> band & 1 for band in range(5)] for number in range(32)]).float()
        image, target = images[index].expand(32, -1, -1, -1), targets[index].expand(32)
        assert lowest[index] == pytest.approx(excess(model, image, target, every[:, bands], spec, 0.5).min().item())
    assert (evaluated <= 32).all()


def test_core_is_in_all_masks_and_optional_in_some():
    half = torch.tensor([[[[1.0, 0.5, 0.0, 0.0]]], [[[0.2, 0.0, 0.3, 0.0]]]])  # (2 starts, 1 image, 1, 4)
    sets = experiment.core_sets(half)
    assert sets["core"].flatten().tolist() == [True, False, False, False]
    assert sets["optional"].flatten().tolist() == [False, True, True, False]
    assert sets["own"].flatten().tolist() == [True, True, False, False]


def test_subsets_are_drawn_from_the_set_and_moved_masks_keep_their_values():
    rng = torch.Generator().manual_seed(0)
    sets = torch.rand(4, 6, 4, generator=rng) < 0.5
    drawn = experiment._subset(sets, torch.tensor([0, 1, 3, 99]), rng)
    assert not (drawn & ~sets).any()
    assert drawn.flatten(1).sum(1).tolist() == [0, 1, 3, int(sets[3].sum())]
    half = torch.rand(4, 6, 4, generator=rng) * (torch.rand(4, 6, 4, generator=rng) < 0.3)
    places = torch.zeros(4, 24, dtype=torch.bool)
    for row, count in zip(places, (half > 0).flatten(1).sum(1).tolist(), strict=True):
        row[torch.randperm(24, generator=rng)[:count]] = True
    moved = experiment._moved(half, places.view(4, 6, 4), rng)
    assert torch.equal(moved > 0, places.view(4, 6, 4))
    assert torch.equal(moved.flatten(1).sort(1).values, half.flatten(1).sort(1).values)


@pytest.fixture
def found():
    """Masks of 5 images: A's starts agree wholly, N's do not; an optional frequency decides more than the core."""
    rng = np.random.default_rng(0)
    one = (rng.random((5, 8, 5)) < 0.3).astype(np.float16)
    planes = {"N": (rng.random((3, 5, 8, 5)) < 0.3).astype(np.float16), "A": np.stack([one] * 3)}
    planes |= {"seed": planes["N"][1:2], "architecture": 1 - planes["N"][:1]}
    yes, no = np.ones(5, bool), np.zeros(5, bool)
    removal = {"remove.core": no, "remove.optional": yes, "larger": np.array([True, False, True, True, False])}
    gaps = {"N.solver": np.full(5, 2e-4), "N.subset": np.full(5, 1e-4)}
    return FakeResults(restarts=planes, removal=removal, optimality=gaps)


def test_agreement_of_equal_and_of_inverted_masks(found):
    assert analysis.restart_agreement(found, "A").value == pytest.approx(1)
    assert analysis.network_correlations(found, "architecture").mean() == pytest.approx(-1)
    assert analysis.restart_correlations(found, "N").shape == (5,)
    assert analysis.better_determined(found).value > 0.5
    assert analysis.core_share(found, "A").value == pytest.approx(100)
    assert analysis.core_share(found, "N").value < 50
    assert analysis.agreement_table(found).shape == (4, 4)


def test_removal_is_counted_where_there_are_enough_optional_frequencies(found):
    difference = analysis.removal_difference(found, "remove.optional", "remove.core", larger=True)
    assert (difference.value, difference.n) == (100, 3)
    found.files["removal"]["larger"][:] = False
    with pytest.raises(NotComputed):
        analysis.removal_difference(found, "remove.optional", "remove.core", larger=True)


def test_gap_is_a_ratio_of_means(found):
    assert analysis.optimality_gap(found, "N").value == pytest.approx(2)


def test_figures_are_drawn(found):
    shares = {name: analysis.core_shares(found, name) for name in "NA"}
    rates = {"removed": {"core": found.files["removal"]["remove.core"]}}
    gaps = found.files["optimality"]
    gaps = gaps | {f"A.{kind}": gaps[f"N.{kind}"] for kind in ("solver", "subset")}
    for picture in (
        figures.figure_restarts(analysis.agreement(found)),
        figures.figure_core(shares),
        figures.figure_rates(rates),
        figures.figure_optimality(gaps),
    ):
        assert picture._repr_png_().startswith(b"\x89PNG")
