"""Learning Fourier masks: the few frequencies that preserve a network's loss.

A mask M_k filters the spectrum of an image, M_k(x) = centre + irfft2(M_k * rfft2(x - centre)). For a frozen network f
with cross-entropy L it minimises

    J_k(M_k) = mean over its images of g(L(f(M_k(x)), y) - L(f(x), y)) + penalty * mean(M_k),    g(d) = exp(d^2)

with every entry of M_k clamped to [0, 1]. This is equation 2 of Karantzas et al. (2022), with lambda over the L1 norm
of the all-ones mask as the penalty, as in the authors' code. Dataset, class and image masks differ only by the index
that assigns images to masks: one mask for all images, one per class, or one per image. The masks are independent
problems, solved together. In float32, rounding that depends on the batch may lead to another mask of the same quality.

**Clipping.** exp(d^2) overflows float32 at |d| = 9.4. Long before that, one step with a huge gradient inflates Adam's
second moment so that the mask stops moving. Beyond |d| = clip, g therefore continues as its tangent. It stays convex
and continuously differentiable, its slope is at most 2 * clip * exp(clip^2), and it equals the paper's objective
wherever |d| <= clip. `Masks.history["clipped"]` records the share of clipped images. A non-finite value raises an
error.

**Frequency maps**, essential and adversarial, have another objective: see `frequency_maps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fmlib.core.checks import check_classifier
from fmlib.core.config import FrequencyMapSpec, MaskSpec
from fmlib.core.device import Checkpoint, frozen, full_precision, keep_freed_memory
from fmlib.core.errors import require
from fmlib.core.evaluation import evaluate
from fmlib.core.mask_optimizer import Epoch, Fit, Objective, Problem
from fmlib.core.spectra import correlation, full_plane, l1_share


def clipped_exp_square(difference: Tensor, clip: float) -> Tensor:
    """g(d) = exp(d^2) up to |d| = clip and its tangent beyond, in the shape of d (see the module's docstring)."""
    size, top = difference.abs(), math.exp(clip**2)
    inside = size <= clip
    tangent = top + 2 * clip * top * (size - clip)
    return torch.where(inside, torch.exp(torch.where(inside, size, 0) ** 2), tangent)


class Invariance:
    """The objective of the module's docstring, and its stop rule.

    A mask stops after `spec.patience` consecutive epochs in which its L1 share changed by at most `spec.share_tol` and
    its invariance cost by at most `spec.loss_tol`, while it kept at least `spec.min_accuracy_ratio` of the unmasked
    accuracy.
    """

    mask_shape: Sequence[int] = ()  # one mask for all channels
    window = 1
    share = staticmethod(l1_share)

    def __init__(self, spec: MaskSpec, image_shape: torch.Size, unmasked: Tensor) -> None:
        """image_shape: (C, H, W); unmasked: (K,) accuracy on each mask's images without the mask."""
        self.spec, self.weight, self.min_accuracy = spec, spec.penalty, spec.min_accuracy_ratio * unmasked

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """g(d), with d the losses with minus without the mask, and whether |d| exceeds the clip: (B,) each."""
        difference = losses - reference
        return clipped_exp_square(difference, self.spec.clip), difference.detach().abs() > self.spec.clip

    def is_stable(self, epoch: Epoch) -> Tensor:
        """Whether share and invariance cost changed by at most their tolerances at sufficient accuracy: (A,) bool."""
        metrics = epoch.metrics
        loss_change = (metrics["invariance"] - epoch.earlier["invariance"][:, -1]).abs()
        share_change = (metrics["l1_share"] - epoch.initial_share).abs()
        loss_stable = (loss_change <= self.spec.loss_tol) | (epoch.epoch == 0)
        accurate = metrics["kept"] >= self.min_accuracy[epoch.index]
        return (share_change <= self.spec.share_tol) & loss_stable & accurate


@dataclass
class Masks:
    """Learned masks and the history of their fit.

    Attributes:
        half: the masks as half planes in [0, 1], (K, H, W // 2 + 1), or (K, C, H, W // 2 + 1) for frequency maps.
        width: W of the images, pixels.
        converged: (K,) bool, whether the stop rule was met.
        epochs: (K,), the number of epochs that each mask took.
        history: name -> (epochs, K): "invariance" (mean of g, or of the cross-entropy for frequency maps),
            "l1_share" (mean of the mask), "kept" (share of images predicted as their label) and "clipped" (share of
            clipped images). A mask that has stopped keeps its last values.

    Example:
        >>> masks.half.shape, masks.full().shape
        (torch.Size([1, 16, 9]), torch.Size([1, 16, 16]))
    """

    half: Tensor
    width: int
    converged: Tensor
    epochs: Tensor
    history: dict[str, Tensor]
    restart: Callable[..., Masks] | None = field(default=None, repr=False)  # seed=... -> the masks of another run

    def full(self) -> Tensor:
        """The masks over the full plane, (K, H, W) or (K, C, H, W), with DC at (0, 0)."""
        return full_plane(self.half, self.width)

    def stability(self, repeats: int = 4) -> Stability:
        """How much the masks differ from those of other runs on the same inputs, with the seeds 0, 1, ...

        Image masks by `learn_masks` draw no random numbers: their runs differ by rounding at most.

        Args:
            repeats: number of further runs, each as long as the first.

        Raises:
            FmlibError: the masks do not come from `learn_masks` or `minimal_masks`.
        """
        require(self.restart is not None, "only masks as learn_masks and minimal_masks return them can be found again")
        require(repeats >= 1, f"repeats must be at least 1, not {repeats}")
        assert self.restart is not None
        runs = [self.half, *(self.restart(seed=seed).half for seed in range(repeats))]
        return Stability(torch.stack(runs), self.width)


@dataclass
class Stability:
    """Masks of the same images from several runs.

    Attributes:
        half: (runs, K, H, W // 2 + 1), or with channels as `Masks.half`.
        width: W of the images, pixels.
    """

    half: Tensor
    width: int

    @property
    def correlation(self) -> Tensor:
        """Mean correlation of each image's masks over all pairs of runs, (K,)."""
        full = full_plane(self.half, self.width).flatten(2)[..., None, :]  # (runs, K, 1, frequencies)
        first, second = torch.combinations(torch.arange(len(full), device=full.device)).unbind(1)
        return correlation(full[first], full[second]).mean(0)

    @property
    def core(self) -> Tensor:
        """The frequencies that are in the masks of all runs, bool in the shape of one run's masks."""
        return (self.half > 0).all(0)


def learn_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    spec: MaskSpec | FrequencyMapSpec,
    *,
    seed: int,
    objective: Callable[[Any, torch.Size, Tensor], Objective] = Invariance,
    centre: float | Tensor = 0.0,
    batch_size: int | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Masks:
    """Learn K masks at once, mask `index[i]` from image i, by the objective of the module's docstring.

    An epoch shows each image of the largest mask once; masks with fewer images see theirs more often. `Invariance`
    has the stop rule. Networks run in bfloat16 (on devices that do so) only if it ignores the cost (`spec.loss_tol` is
    infinite, as for dataset masks), because rounding changes the cost at every step.

    Args:
        model: a classifier that maps pixels (B, C, H, W) to logits (B, classes); left as it was.
        images: pixels in [0, 1], (N, C, H, W).
        labels: targets (N,); for image masks the network's own predictions.
        index: (N,), the mask of each image, from 0 to K - 1; every mask needs at least one image.
        spec: penalty, optimiser and stop rule.
        seed: seed of the order in which each mask sees its images.
        objective: made from `spec`, the image shape (C, H, W) and the unmasked accuracies (K,).
        centre: gray level about which the filter acts: the mean that the network subtracts, see `spectra.apply_mask`.
        batch_size: number of masks that are active at a time (default: as many as `device.memory_budget` allows).
        checkpoint: where the fit saves its state, and from which it resumes (default: none).
        progress: whether to show a progress bar.

    Returns:
        The masks and their history.

    Raises:
        FmlibError: the inputs do not fit together, or a value is not finite.

    Example:
        >>> spec = fmlib.ImageMaskSpec(lr=0.05, epochs=20)
        >>> each = torch.arange(4)  # one mask per image
        >>> image_masks = fmlib.learn_masks(network, images[:4], labels[:4], each, spec, seed=0, progress=False)
        >>> image_masks.half.shape
        torch.Size([4, 16, 9])
    """
    members = _members(images, labels, index)
    check_classifier(model, images, labels)
    require(batch_size is None or batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
    precise = full_precision() if spec.loss_tol < math.inf else nullcontext()
    with frozen(model), torch.enable_grad(), precise:
        reference, correct = evaluate(model, zip(images.split(256), labels.split(256), strict=True))
        unmasked = torch.stack([correct[m].float().mean() for m in members])
        goal = objective(spec, images.shape[1:], unmasked)
        problem = Problem(model, images, centre, labels, members, reference, spec, goal, seed)
        fit = _fitted(problem, batch_size, checkpoint, progress)
    options: dict[str, Any] = {"objective": objective, "centre": centre, "batch_size": batch_size, "progress": progress}
    restart = partial(learn_masks, model, images, labels, index, spec, **options)
    return Masks(fit.half.to(images.device), images.shape[-1], fit.converged, fit.epochs, fit.history(), restart)


def _members(images: Tensor, labels: Tensor, index: Tensor) -> list[Tensor]:
    """The indices of each mask's images; raises `FmlibError` if the inputs do not fit together."""
    require(len(images) > 0, "there are no images to learn a mask from")
    require(len(images) == len(labels) == len(index), "images, labels and index must have the same length")
    members = [torch.nonzero(index == k).flatten() for k in range(int(index.max()) + 1)]
    require(
        int(index.min()) >= 0 and all(len(m) for m in members),
        "every mask needs at least one image: number the masks 0..K-1 without gaps",
    )
    return members


def _fitted(problem: Problem, batch_size: int | None, checkpoint: Checkpoint | None, progress: bool) -> Fit:
    """The fit of a problem, run to its end."""
    keep_freed_memory()
    fit = Fit(problem, batch_size or problem.default_batch_size())
    state = checkpoint.load() if checkpoint else None
    if state:
        fit.restore(state)
    count = len(problem.members)
    with tqdm(total=count, desc=f"{count} mask{'s' * (count > 1)}", unit="mask", disable=not progress) as bar:
        active = fit.refill()
        while active:
            fit.step()
            active = fit.refill()
            bar.update(fit.finished - bar.n)
            bar.set_postfix(fit.last())
            if active and checkpoint and checkpoint.due():
                checkpoint.save(fit.state())
    return fit
