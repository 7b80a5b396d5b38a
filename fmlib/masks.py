r"""Learning Fourier masks: the few frequencies that keep a network's loss.

For a frozen network f and a mask M on the spectrum of its input, M(x) = centre + irfft2(M * rfft2(x - centre)), the
mask minimises

    J_k(M_k) = mean over its images of g(L(f(M_k(x)), y) - L(f(x), y)) + penalty * mean(M_k),    g(d) = exp(d^2)

with every entry of M_k clamped to [0, 1]. This is equation 2 of Karantzas et al. (2022), with lambda over the L1 norm
of the all-ones mask as the penalty, as in the authors' code. Dataset, class and image masks differ only by the index
that maps an image to its mask: one mask for all, one a class, one an image. The masks are independent problems,
summed over k.

**The guard.** exp(d^2) overflows float32 at |d| = 9.4, and long before that one step with a huge gradient
inflates Adam's second moment so that the mask stops moving. Beyond |d| = guard, g goes on along its tangent: it
stays convex and once differentiable, its slope is at most 2 * guard * exp(guard^2), and it equals the paper's
objective wherever |d| <= guard. `Masks.history["guarded"]` counts the share of images beyond, so that no mask is
shaped by the guard in silence, and a value that is not finite stops the run.

**Frequency maps**, essential and adversarial, are learned alike, by another objective: see frequency_maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fmlib.config import FrequencyMapSpec, MaskSpec, require
from fmlib.engine import Epoch, Fit, Objective, Problem
from fmlib.frequency_maps import FrequencyMaps
from fmlib.models import check_classifier, evaluate
from fmlib.runtime import Checkpoint, frozen, full_precision, keep_freed_memory
from fmlib.spectra import full_plane, l1_share


def guarded_exp_square(difference: Tensor, guard: float) -> Tensor:
    """g(d) = exp(d^2) up to |d| = guard, and its tangent beyond (see the module's docstring). Same shape as d."""
    size, top = difference.abs(), math.exp(guard**2)
    inside = size <= guard
    tangent = top + 2 * guard * top * (size - guard)
    return torch.where(inside, torch.exp(torch.where(inside, size, 0) ** 2), tangent)


class Invariance:
    """The objective of the module's docstring, and the stop rule of `learn_masks`."""

    leading: Sequence[int] = ()  # one mask for all channels
    window = 1
    share = staticmethod(l1_share)

    def __init__(self, spec: MaskSpec, unmasked: Tensor) -> None:
        """unmasked: (K,) accuracy on each mask's images as they stand."""
        self.spec, self.weight, self.wanted = spec, spec.penalty, spec.keep * unmasked

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """g(d) from the losses behind the masks and without: (N,) each; whether |d| is beyond the guard."""
        difference = losses - reference
        return guarded_exp_square(difference, self.spec.guard), difference.detach().abs() > self.spec.guard

    def still(self, epoch: Epoch) -> Tensor:
        """Whether the L1 share and the invariance cost moved by little while the accuracy was kept: (A,) bool."""
        found = epoch.found
        moved = (found["invariance"] - epoch.earlier["invariance"][:, -1]).abs()
        calm = (moved <= self.spec.calm) | (epoch.done == 0)
        shrunk = (found["l1_share"] - epoch.before).abs()
        return (shrunk <= self.spec.still) & calm & (found["kept"] >= self.wanted[epoch.number])


@dataclass
class Masks:
    """Learned masks and how they came about.

    half: (K, H, W // 2 + 1), for frequency maps (K, C, H, W // 2 + 1), in [0, 1]; width: W; converged: (K,) bool;
    epochs: (K,) epochs each mask took; history: per name a tensor (epochs, K): "invariance" (mean of g, for frequency
    maps of the cross-entropy), "l1_share", "kept" (share of images whose prediction is right, or for image masks
    unchanged) and "guarded" (share of images beyond the guard). A mask that has stopped keeps its last values.
    """

    half: Tensor
    width: int
    converged: Tensor
    epochs: Tensor
    history: dict[str, Tensor]

    def full(self) -> Tensor:
        """The masks over the whole plane: (K, H, W) or (K, C, H, W), DC at (0, 0)."""
        return full_plane(self.half, self.width)


def learn_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    spec: MaskSpec | FrequencyMapSpec,
    *,
    seed: int,
    centre: float = 0.0,
    together: int | None = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Masks:
    """Learn K masks at once, mask `index[i]` from image i (the equation is in the module's docstring).

    images: pixels (N, C, H, W) in [0, 1]; labels: (N,) targets (for image masks the network's own predictions);
    index: (N,) in 0..K-1, every mask with at least one image; centre: gray level about which the filter acts, the
    mean that the network subtracts (see spectra.apply_mask). Each step takes `spec.batch` images of every
    mask in work; an epoch has as many steps as show the largest mask each of its images once, so that masks of fewer
    images see theirs more often. A mask stops once, `spec.patience` epochs in a row, its
    L1 share moved by no more than `spec.still`, and its invariance cost by no more than `spec.calm`, while it kept at
    least `spec.keep` of the unmasked accuracy. A `FrequencyMapSpec` learns frequency maps, by their own stop rule.
    Each mask's order of images follows from (seed, mask, epoch). Losses are averaged over a mask's images and
    summed over masks. `together` masks are in work at a time, by default as many as there is room for (see
    runtime.room), and one that stops makes way for the next: no mask depends on the others or on how many they are.
    Where networks run in bfloat16, they do so here only if the stop rule does not look at the cost (`spec.calm` is
    infinite, as for dataset masks): rounding moves the cost at every step, and most masks of images would never stop.
    Raises `FmlibError` for inputs that do not fit, and for values that are not finite.
    """
    require(len(images) > 0, "there are no images to learn a mask from")
    require(len(images) == len(labels) == len(index), "images, labels and index must have the same length")
    require(together is None or together >= 1, f"at least one mask must be in work at a time, not {together}")
    check_classifier(model, images, int(labels.max()) + 1)
    members = [torch.nonzero(index == k).flatten() for k in range(int(index.max()) + 1)]
    require(
        int(index.min()) >= 0 and all(len(m) for m in members),
        "every mask needs at least one image: number the masks 0..K-1 without gaps",
    )

    keep_freed_memory()
    with frozen(model), full_precision() if spec.calm < math.inf else nullcontext():
        reference, right = evaluate(model, zip(images.split(256), labels.split(256), strict=True))
        objective: Objective
        if isinstance(spec, FrequencyMapSpec):
            objective = FrequencyMaps(spec, images.shape[1:])
        else:
            objective = Invariance(spec, torch.stack([right[m].float().mean() for m in members]))
        problem = Problem(model, images, centre, labels, members, reference, spec, objective, seed)
        fit = Fit(problem, together or problem.together())
        state = checkpoint.load() if checkpoint else None
        if state:
            fit.restore(state)
        title = f"{len(members)} mask{'s' * (len(members) > 1)}"
        with tqdm(total=len(members), desc=title, unit="mask", disable=not progress) as bar:
            going = fit.look()
            while going:
                fit.run()
                going = fit.look()
                bar.update(fit.finished - bar.n)
                bar.set_postfix(fit.last())
                if going and checkpoint and checkpoint.due():
                    checkpoint.save(fit.state())
    return Masks(fit.half.to(images.device), images.shape[-1], fit.converged, fit.epochs, fit.history())
