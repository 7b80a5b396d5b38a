"""Greedy removal: frequencies leave in random groups, each time the group whose loss is the least.

In every round, the remaining frequencies of an image are divided at random into G groups. Each group is removed on its
own, and the one without which the class keeps the highest probability is removed for good. A frequency scores the round
of its removal. G is chosen so that one frequency remains when the budget is spent, at most 16: no gradients are needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fmlib.core.spectra import filter_spectrum, full_plane

TITLE = "greedy removal"
SOURCE = "backward elimination"
VERSION = 1
BUDGET = 500

MOST = 16


def explain(model: nn.Module, images: Tensor, target: Tensor, budget: int) -> Tensor:
    """The round in which each frequency is removed, with `budget` evaluations per image: (N, H, W)."""
    height, width = images.shape[-2:]
    spectrum, size = torch.fft.rfft2(images), (height, width)
    pair = conjugates(height, width).to(images.device)
    pairs = int(pair.max()) + 1
    groups = min(max(math.isqrt(int(budget / math.log(pairs))), 2), MOST)
    remaining = torch.ones(len(images), pairs, device=images.device)
    score = torch.zeros_like(remaining)
    for turn in range(max(budget // groups, 1)):
        # Ranks among the remaining ones, so that groups differ in size by one at most.
        order = (torch.rand_like(remaining) + 2 * (1 - remaining)).argsort(1).argsort(1)
        group = torch.where(remaining > 0, order % groups, -1)
        kept = [remaining * (group != g) for g in range(groups)]
        chances = torch.stack([_chance(model, spectrum, target, one, pair, size) for one in kept])  # (G, N)
        filled = torch.stack([(group == g).any(1) for g in range(groups)])  # (G, N)
        out = chances.masked_fill(~filled, -math.inf).argmax(0)  # (N,)
        leaving = (group == out[:, None]) & (remaining.sum(1, keepdim=True) > 1)
        score, remaining = torch.where(leaving, float(turn), score), torch.where(leaving, 0, remaining)
    score = torch.where(remaining > 0, float(budget), score)
    return full_plane(score[:, pair].unflatten(1, (height, width // 2 + 1)), width)


def _chance(
    model: nn.Module, spectrum: Tensor, target: Tensor, kept: Tensor, pair: Tensor, size: tuple[int, int]
) -> Tensor:
    """log p of the class with the frequencies `kept` (N, pairs): (N,)."""
    half = kept[:, pair].unflatten(1, (size[0], size[1] // 2 + 1))
    with torch.no_grad():
        return model(filter_spectrum(spectrum, half, size)).log_softmax(1).gather(1, target[:, None])[:, 0]


def conjugates(height: int, width: int) -> Tensor:
    """The number of the pair {f, -f} of each entry of the half plane, (H * (W // 2 + 1),) from 0 without gaps."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width // 2 + 1)[None]
    single = (columns == 0) | (2 * columns == width)
    entry = torch.where(single, torch.minimum(rows, -rows % height), rows) * (width // 2 + 1) + columns
    return entry.flatten().unique(return_inverse=True)[1]
