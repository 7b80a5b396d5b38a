"""Sets of frequencies to set a mask against: its strongest entries, and random sets of the same size.

A set is a bool half plane (B, H, W // 2 + 1), one for each image. Every half-plane entry counts once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmlib.core.spectra import column_weights, radius


def top_k(half: Tensor, fraction: float) -> Tensor:
    """The given fraction of each mask's non-zero entries, the largest first: (B, H, Wh) masks -> sets.

    At least one entry of a mask that has any; of equal entries those earlier in the plane come first.
    """
    flat = half.flatten(1)  # (B, F)
    support = (flat > 0).sum(1)
    wanted = torch.where(support > 0, (support * fraction).round().clamp_min(1), 0)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < wanted[:, None]).view_as(half)


def random_control(sets: Tensor, rng: torch.Generator) -> Tensor:
    """Random sets of the same sizes as `sets` (B, H, Wh), anywhere in the half plane. draws: on the sets' device."""
    flat = sets.flatten(1)
    return _drawn(flat, torch.zeros(flat.shape[1], dtype=torch.long, device=sets.device), rng).view_as(sets)


def matched_control(sets: Tensor, rng: torch.Generator) -> Tensor:
    """Random sets with as many entries as `sets` (B, H, Wh) in each ring of radius r +- 1/2 cycle an image.

    Entries that stand for one frequency (columns 0 and Nyquist) and for two are matched apart, so that each ring has as
    many frequencies of the full plane. What tells the sets apart is direction and place within the ring.
    """
    height, columns = sets.shape[-2:]
    width = 2 * (columns - 1)
    ring = radius(height, width)[:, :columns].round().long().to(sets.device)
    single = (column_weights(width, sets.device) == 1).long()  # (Wh,)
    return _drawn(sets.flatten(1), (2 * ring + single).flatten(), rng).view_as(sets)


def _drawn(flat: Tensor, group: Tensor, rng: torch.Generator) -> Tensor:
    """As many random entries of each group as `flat` (B, F) has there; group: (F,) numbers from 0."""
    groups = int(group.max()) + 1
    member = torch.nn.functional.one_hot(group, groups).to(torch.float32)  # (F, groups)
    wanted = flat.to(torch.float32) @ member  # (B, groups)
    scores = torch.rand(flat.shape, generator=rng, device=flat.device, dtype=torch.float64)
    place = (scores + group).argsort(dim=1).argsort(dim=1)  # by group, at random within
    start = member.sum(0).cumsum(0) - member.sum(0)  # of each group, in that order
    return place - start[group] < wanted[:, group]
