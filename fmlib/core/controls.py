"""Sets of frequencies to compare a mask with: its largest entries, and random sets of the same radii.

Sets are bool half planes (B, H, W // 2 + 1), one per image. Every entry of the half plane counts once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fmlib.core.spectra import column_weights, radius


def top_k(half: Tensor, fraction: float) -> Tensor:
    """The largest entries of each mask: a given fraction of its non-zero ones.

    Args:
        half: masks, (B, H, W // 2 + 1).
        fraction: share of the non-zero entries to select, rounded to whole entries.

    Returns:
        Sets (B, H, W // 2 + 1) bool; at least one entry of a mask that is not all zero. Among equal entries, those
        that come first in the plane are selected.

    Example:
        >>> from fmlib.core.controls import top_k
        >>> top_k(masks.half, fraction=0.1).shape
        torch.Size([1, 16, 9])
    """
    flat = half.flatten(1)  # (B, F)
    support = (flat > 0).sum(1)
    wanted = torch.where(support > 0, (support * fraction).round().clamp_min(1), 0)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < wanted[:, None]).view_as(half)


def matched_control(sets: Tensor, rng: torch.Generator, width: int | None = None) -> Tensor:
    """Random sets with the same radial distribution: as many entries in each ring of radius r +- 1/2 cycle per image.

    Entries that stand for one frequency (the columns of DC and Nyquist) and for two are matched separately, so that
    each ring has as many frequencies of the full plane. The sets differ only in direction and position within the ring.

    Args:
        sets: (B, H, W // 2 + 1) bool.
        rng: a generator on the device of `sets`.
        width: W of the images (default: the even one).

    Returns:
        One random set per given set, (B, H, W // 2 + 1) bool.

    Example:
        >>> from fmlib.core.controls import matched_control, top_k
        >>> strongest = top_k(masks.half, 0.1)
        >>> control = matched_control(strongest, torch.Generator().manual_seed(0))
        >>> bool(control.sum() == strongest.sum())
        True
    """
    height, columns = sets.shape[-2:]
    width = width or 2 * (columns - 1)
    ring = radius(height, width)[:, :columns].round().long().to(sets.device)
    single = (column_weights(width, sets.device) == 1).long()  # (Wh,)
    return _sample(sets.flatten(1), (2 * ring + single).flatten(), rng).view_as(sets)


def _sample(flat: Tensor, group: Tensor, rng: torch.Generator) -> Tensor:
    """As many random entries of each group as `flat` (B, F) has in it; group: (F,), group numbers from 0."""
    groups = int(group.max()) + 1
    member = torch.nn.functional.one_hot(group, groups).to(torch.float32)  # (F, groups)
    wanted = flat.to(torch.float32) @ member  # (B, groups)
    scores = torch.rand(flat.shape, generator=rng, device=flat.device, dtype=torch.float64)
    rank = (scores + group).argsort(dim=1).argsort(dim=1)  # sorted by group, in random order within a group
    start = member.sum(0).cumsum(0) - member.sum(0)  # rank of the first entry of each group
    return rank - start[group] < wanted[:, group]
