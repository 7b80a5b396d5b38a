"""How good scores of frequencies are: on known truth, by insertion and deletion, against controls, and how stable.

A frequency is a pair {f, -f}, which a real image cannot separate. From the highest score to the lowest, the frequencies
of an image are put into a gray image (insertion) or taken out of the image (deletion), always at full strength. Curves
are evaluated at about thirty numbers k of frequencies, evenly spaced in log k. Equal scores are ranked at random.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core.device import generator
from fmlib.core.errors import require
from fmlib.core.spectra import filter_spectrum, half_plane, radius
from fmlib.studies.freqbench.methods.greedy import conjugates
from fmlib.studies.freqbench.tasks.problems import Problem

#: Numbers of frequencies at which curves are evaluated, before duplicates are dropped.
POINTS = 30
SEED = 0

#: Score -> what it means; "+" where higher is better, "-" where lower is, "" where neither is.
MEANINGS = {
    "precision": ("+", "share of the T highest frequencies that are among the T informative ones"),
    "recall": ("+", "share of the T informative frequencies that are among the 4 T highest"),
    "fewest": ("-", "fewest frequencies from which on the prediction is kept, % of all"),
    "insertion": ("+", "probability of the class along insertion, mean over log k"),
    "deletion": ("-", "probability of the class along deletion, mean over log k"),
    "matched": ("+", "insertion minus that of the same scores shuffled at each radius"),
    "transfer": ("+", "insertion, read by another network that predicts the same class"),
    "restart": ("+", "correlation with the scores of another seed and rounding of the pixels"),
    "seeds": ("+", "correlation with the scores of a network of another seed"),
}


def check_scores(scores: object, images: Tensor) -> Tensor:
    """The scores of a method; raises `FmlibError` unless they are finite floats (N, H, W) of these images."""
    wanted = (len(images), *images.shape[-2:])
    require(isinstance(scores, Tensor), f"explain must return a torch tensor, not {type(scores).__name__}")
    assert isinstance(scores, Tensor)
    require(tuple(scores.shape) == wanted, f"explain must return scores {wanted}, not {tuple(scores.shape)}")
    scores = scores.detach().float()
    require(bool(torch.isfinite(scores).all()), "explain returned scores that are not finite")
    return scores


class Plane:
    """The frequencies of images of one size."""

    def __init__(self, height: int, width: int) -> None:
        self.size, self.columns = (height, width), width // 2 + 1
        self.pair = conjugates(height, width)  # (H * (W // 2 + 1),), the frequency of each entry of the half plane
        self.count = int(self.pair.max()) + 1
        first = torch.full((self.count,), len(self.pair)).scatter_reduce(
            0, self.pair, torch.arange(len(self.pair)), "amin"
        )
        self.first = first
        self.ring = radius(height, width)[:, : self.columns].round().long().flatten()[first]  # (F,)
        grid = np.unique(np.geomspace(1, self.count, POINTS).round().astype(int))
        self.grid: list[int] = grid.tolist()

    def values(self, full: Tensor) -> Tensor:
        """The values of full planes (N, H, W) at each frequency, the mean of f and -f: (N, F)."""
        return half_plane(full).flatten(1)[:, self.first]

    def rank(self, values: Tensor, purpose: str) -> Tensor:
        """The place of each frequency, from 0 for the highest value: (N, F) -> (N, F)."""
        order = torch.rand(values.shape, generator=generator(SEED, f"ties {purpose}")).argsort(1)
        down = values.gather(1, order).argsort(dim=1, descending=True, stable=True)
        return order.gather(1, down).argsort(1)

    def half(self, sets: Tensor) -> Tensor:
        """Sets of frequencies (N, F) bool as half masks (N, H, W // 2 + 1)."""
        return sets[:, self.pair].unflatten(1, (self.size[0], self.columns)).float()

    def shuffled(self, values: Tensor) -> Tensor:
        """The values at random places of the same radius: (N, F) -> (N, F)."""
        noise = torch.rand(values.shape, generator=generator(SEED, "matched control")).double()
        source, place = (noise + self.ring).argsort(1), self.ring.argsort(dim=0, stable=True).expand_as(noise)
        return torch.empty_like(values).scatter(1, place, values.gather(1, source))


def curve(
    model: nn.Module, problem: Problem, plane: Plane, rank: Tensor, remove: bool = False
) -> tuple[Tensor, Tensor]:
    """Along insertion, or deletion: the probability of the target, and whether it is predicted, (N, points) each."""
    spectrum = torch.fft.rfft2(problem.images)
    chances, kept = [], []
    with torch.no_grad():
        for k in plane.grid:
            inside = rank < k
            logits = model(filter_spectrum(spectrum, plane.half(~inside if remove else inside), plane.size))
            chances.append(logits.softmax(1).gather(1, problem.target[:, None])[:, 0])
            kept.append(logits.argmax(1) == problem.target)
    return torch.stack(chances, 1), torch.stack(kept, 1)


def fewest(kept: Tensor, plane: Plane) -> Tensor:
    """The fewest frequencies from which on all points keep the prediction, % of all: (N, points) -> (N,)."""
    onward = kept.flip(1).long().cumprod(1).sum(1)  # points at the end that all keep it, at least 1
    grid = torch.tensor(plane.grid)
    return 100 * grid[len(grid) - onward.clamp_min(1)] / plane.count


def quality(problem: Problem, scores: Tensor, others: bool = True) -> dict[str, Tensor]:
    """The scores of a ranking, but for stability: name of `MEANINGS` -> (N,).

    Args:
        scores: (N, H, W), as a method returns them.
        others: whether controls and transfer are measured too.
    """
    plane = Plane(*problem.images.shape[-2:])
    values = plane.values(scores)
    rank = plane.rank(values, "scores")
    chances, kept = curve(problem.model, problem, plane, rank)
    found = {"insertion": chances.mean(1), "fewest": fewest(kept, plane)}
    found["deletion"] = curve(problem.model, problem, plane, rank, remove=True)[0].mean(1)
    if problem.truth is not None:
        found |= on_truth(rank, plane.values(problem.truth.float()) > 0.5)
    if others:
        control = plane.rank(plane.shuffled(values), "control")
        found["matched"] = found["insertion"] - curve(problem.model, problem, plane, control)[0].mean(1)
        if problem.other is not None:
            with torch.no_grad():
                same = problem.other(problem.images).argmax(1) == problem.target
            moved = curve(problem.other, problem, plane, rank)[0].mean(1)
            found["transfer"] = torch.where(same, moved, torch.nan)
    return found


def on_truth(rank: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Precision among the T highest and recall among the 4 T highest, for T informative frequencies: (N, F) -> (N,).

    Random scores reach T / F and 4 T / F in the mean.
    """
    size = truth.sum(1, keepdim=True)
    return {
        "precision": (truth & (rank < size)).sum(1) / size[:, 0],
        "recall": (truth & (rank < 4 * size)).sum(1) / size[:, 0],
    }


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """The correlation over the frequencies of two scores (N, H, W) of the same images: (N,)."""
    plane = Plane(*first.shape[-2:])
    one, other = (plane.values(scores).double() for scores in (first, second))
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp_min(1e-30)
