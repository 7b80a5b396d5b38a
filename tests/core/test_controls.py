"""Properties of the top-k entries of masks and of their random controls."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core import controls
from fmlib.core.device import generator
from fmlib.core.spectra import column_weights

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # exact in binary, so a half is rounded alike everywhere
sides = st.integers(1, 6).map(lambda n: 2 * n)
seeds = st.integers(0, 2**32)
shares = st.floats(0, 1)


def masks_of(seed: int, side: int, share: float, count: int = 3) -> torch.Tensor:
    """Half planes with about that share of non-zero entries, all different."""
    rng = torch.Generator().manual_seed(seed)
    shape = (count, side, side // 2 + 1)
    values = (torch.randperm(math.prod(shape), generator=rng) + 1.0).view(shape) / math.prod(shape)
    return values * (torch.rand(shape, generator=rng) < share)


def rings(side: int) -> torch.Tensor:
    """The whole number nearest to each half-plane entry's radius, by integer arithmetic."""
    rows = [min(row, side - row) for row in range(side)]
    columns = range(side // 2 + 1)
    # no radius ends in a half, so the nearest is floor(x + 1/2) = (floor(2x) + 1) // 2
    return torch.tensor([[(math.isqrt(4 * (r * r + c * c)) + 1) // 2 for c in columns] for r in rows])


def sizes(sets: torch.Tensor) -> list[int]:
    return sets.flatten(1).sum(1).tolist()


# ----------------------------------------------------------------------------------------------------- top k


@given(sides, seeds, shares, st.sampled_from(FRACTIONS))
def test_top_k_selects_the_rounded_fraction_of_the_support_but_at_least_one(side, seed, share, fraction):
    masks = masks_of(seed, side, share)
    chosen = controls.top_k(masks, fraction)
    assert chosen.dtype == torch.bool
    assert chosen.shape == masks.shape
    wanted = [max(1, round(fraction * support)) if support else 0 for support in sizes(masks > 0)]
    assert sizes(chosen) == wanted


@given(sides, seeds, shares, st.floats(0.01, 1))
def test_top_k_selects_the_largest_entries_and_only_from_the_support(side, seed, share, fraction):
    masks = masks_of(seed, side, share)
    chosen = controls.top_k(masks, fraction)
    assert not bool((chosen & (masks == 0)).any())
    smallest = masks.masked_fill(~chosen, 2).flatten(1).amin(1)
    largest_left = masks.masked_fill(chosen, -1).flatten(1).amax(1)
    assert bool((smallest > largest_left).all())


@given(sides, seeds, shares, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_fraction_contains_the_smaller(side, seed, share, first, second):
    masks = masks_of(seed, side, share)
    small, large = (controls.top_k(masks, fraction) for fraction in sorted((first, second)))
    assert torch.equal(small & large, small)


@given(sides, seeds, shares)
def test_a_fraction_of_one_is_the_support(side, seed, share):
    masks = masks_of(seed, side, share)
    assert torch.equal(controls.top_k(masks, 1.0), masks > 0)


def test_an_empty_mask_gives_an_empty_set_and_another_mask_at_least_one_entry():
    masks = torch.zeros(2, 8, 5)
    masks[1, 3, 2] = 1e-6
    assert sizes(controls.top_k(masks, 0.5)) == [0, 1]


def test_among_equal_entries_the_first_are_selected():
    chosen = controls.top_k(torch.full((1, 32, 17), 0.7), 0.25)
    assert chosen.flatten().nonzero().flatten().tolist() == list(range(136))


# ------------------------------------------------------------------------------------------- matched controls


def test_controls_follow_the_generator_and_differ_between_calls_and_images():
    sets = (masks_of(0, 16, 0.3, 1) > 0).repeat(2, 1, 1)
    rng = generator(0, "sets")
    first, second = controls.matched_control(sets, rng), controls.matched_control(sets, rng)
    assert first.dtype == torch.bool
    assert torch.equal(first, controls.matched_control(sets, generator(0, "sets")))
    assert not torch.equal(first, second)
    assert not torch.equal(first, controls.matched_control(sets, generator(1, "sets")))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, sets)


@given(sides, seeds, shares)
def test_matched_controls_have_as_many_entries_in_each_ring(side, seed, share):
    sets = masks_of(seed, side, share) > 0
    found = controls.matched_control(sets, generator(seed, "sets"))
    ring = rings(side)
    single = column_weights(side) == 1
    for radius in range(int(ring.max()) + 1):
        for columns in (single, ~single):  # so that each ring has as many frequencies of the full plane, too
            assert sizes(found & (ring == radius) & columns) == sizes(sets & (ring == radius) & columns)


def test_matched_controls_of_dc_of_the_full_plane_and_of_the_empty_set_equal_them():
    sets = torch.zeros(3, 16, 9, dtype=torch.bool)
    sets[0, 0, 0] = True
    sets[1] = True
    for seed in range(10):
        assert torch.equal(controls.matched_control(sets, generator(seed, "sets")), sets)


def test_matched_controls_select_each_entry_of_a_ring_equally_often():
    side, taken, images = 8, 3, 4000
    members = ((rings(side) == 3) & (column_weights(side) == 2)).flatten().nonzero().flatten()
    sets = torch.zeros(images, side * (side // 2 + 1), dtype=torch.bool)
    sets[:, members[:taken]] = True
    found = controls.matched_control(sets.view(images, side, -1), generator(0, "often")).flatten(1)
    often, share = found[:, members].float().mean(0), taken / len(members)
    assert 0 < share < 0.5
    assert (often - share).abs().max().item() < 5 * math.sqrt(share * (1 - share) / images)


def test_matched_controls_select_pairs_of_entries_equally_often():
    """Opposite entries of the given set do not stay together more often than others."""
    side, images = 8, 4000
    members = ((rings(side) == 2) & (column_weights(side) == 2)).flatten().nonzero().flatten()
    sets = torch.zeros(images, side * (side // 2 + 1), dtype=torch.bool)
    sets[:, members[[0, -1]]] = True
    found = controls.matched_control(sets.view(images, side, -1), generator(0, "pairs")).flatten(1)[:, members].float()
    both = (found.T @ found / images)[~torch.eye(len(members), dtype=torch.bool)]
    share = 1 / math.comb(len(members), 2)
    assert (both - share).abs().max().item() < 5 * math.sqrt(share * (1 - share) / images)
