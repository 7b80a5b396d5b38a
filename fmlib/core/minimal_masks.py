"""Minimal masks of images by sequential convex steps, in tens of passes instead of a thousand.

For a frozen network f, an image x and a label y, let d(M) = L(f(M(x)), y) - L(f(x), y) be the change of the loss under
a mask M, and a(M) = sum_f w_f M_f its L1 share. The minimal mask minimises the objective of `masks`,

    J(M) = g(d(M)) + penalty * a(M),    0 <= M <= 1,    g(d) = exp(d^2) = 1 + d^2 + ...

Masks are compared by the excess J - 1.

**Step.** A forward and a backward pass give d and its gradient q. With the loss linear in M, the step D minimises

    (d + q . D)^2 + penalty * w . D,    max(-M, -eta) <= D <= min(1 - M, eta).

This is a continuous knapsack. Start from the lower bounds, the smallest mask within reach, and raise entries to their
upper bounds in descending order of |q| / w, as long as the change of the loss that this undoes is worth the weight: an
entry pays while the remaining |d + q . D| exceeds penalty * w / (2 |q|). With a penalty of 0, the step solves the
linear programme min w . D subject to q . D = -d.

**Trust region.** The reach of an entry f is eta_f = eta * (s / |X_f|)^(1/4), where |X_f| is the amplitude of the image
at f and s its mean: what hardly changes the image may change more. Every image has its own radius eta, at most
radius * 0.01^(t / T) in step t of T. An iterate is accepted if |d| is at most that of the last accepted one or
0.5 * 0.02^(t / T), or if the objective fell; eta then grows by a quarter. Otherwise the step starts again from the last
accepted mask with half the radius. The test needs no further pass, since the next iterate's own is used.

**Label.** The result is the iterate with the lowest objective among those that keep the label, or among all if none
does. From an iterate that has lost it, the step restores the logit margin to half of that without a mask: in the place
of d is what the margin lacks. An iterate that regains the label is accepted. Where the label leads by a few percent of
probability only, keeping it may take a larger mask than keeping the loss.

**Independence.** Images are separate problems. In float64 on one thread, a mask is the same alone, in any batch and
after a resume. In float32, rounding may lead to another mask of the same quality: `Masks.stability` measures how much
masks differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from fmlib.core.checks import check_classifier
from fmlib.core.config import MinimalMaskSpec
from fmlib.core.device import Checkpoint, frozen, full_precision, generator, keep_freed_memory
from fmlib.core.errors import require
from fmlib.core.masks import Masks, clipped_exp_square
from fmlib.core.spectra import column_weights, filter_spectrum

#: Halvings of the interval in which `knapsack_step` looks for its threshold: to the precision of float32.
BISECTIONS = 24
#: Share of the radius that is left at the last step.
DECAY = 0.01
#: The |d| that is always accepted in the first and the last step; a converged mask must not exceed the last.
LOOSE, TOLERANCE = 0.5, 0.01
#: Share of the margin without a mask that a step restores where the label is lost.
RESTORED = 0.5
#: The exponent by which an entry's reach falls with the amplitude of the image, and its least and largest factor.
EXPONENT, FACTORS = 0.25, (0.05, 20)


def knapsack_step(
    mask: Tensor, grad: Tensor, change: Tensor, weights: Tensor, radius: Tensor, penalty: float = 0.0
) -> Tensor:
    """The steps D of the module's docstring, one per row.

    Args:
        mask: M, (B, F) in [0, 1].
        grad: q, the gradients of d, (B, F).
        change: d, the change of the loss at M, (B, 1).
        weights: w, positive, (F,).
        radius: eta, (B, F) or (B, 1).
        penalty: weight of w . D; 0 asks for q . D = -d at the least weight.

    Returns:
        D, (B, F). With penalty 0, where no step within the radius meets the equality, the one that comes closest.
    """
    lower, upper = torch.maximum(-mask, -radius), torch.minimum(1 - mask, radius)
    room, lack = upper - lower, -change - (grad * lower).sum(1, keepdim=True)
    benefit, lack = torch.sign(lack) * grad, lack.abs()  # positive where raising the entry helps
    ratio, amount = benefit / weights, benefit.clamp_min(0) * room
    tiny = torch.finfo(mask.dtype).tiny

    def missing(threshold: Tensor) -> Tensor:
        """What is missing if the entries above a threshold are raised, short of the residual that pays no more."""
        raised = (ratio - threshold).sign().clamp_min(0)  # on a CPU faster than a comparison and a choice
        return lack - penalty / (2 * threshold.clamp_min(tiny)) - (raised * amount).sum(1, keepdim=True)

    low, high = torch.zeros_like(lack), ratio.amax(1, keepdim=True).clamp_min(0)
    for _ in range(BISECTIONS):  # something is missing if those above `high` are raised
        middle = (low + high) / 2
        enough = missing(middle) <= 0
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    raised, reached = ((ratio - threshold).sign().clamp_min(0) for threshold in (high, low))
    available = ((reached - raised) * amount).sum(1, keepdim=True).clamp_min(tiny)
    return lower + torch.lerp(raised, reached, (missing(high) / available).clamp(0, 1)) * room


class _Batch:
    """Images that are solved together: what stays fixed, and the pass that evaluates their masks."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        spec: MinimalMaskSpec,
        centre: float | Tensor,
        bands: Tensor | None,
        chosen: slice,
    ) -> None:
        images, labels = images[chosen], labels[chosen]
        self.model, self.labels, self.spec, self.centre, self.size = model, labels, spec, centre, images.shape[-2:]
        self.spectrum = torch.fft.rfft2(images - centre)
        self.shape = self.spectrum.shape[1 if spec.per_channel else 2 :]
        columns = column_weights(self.size[1], images.device).to(images.dtype)
        planes = self.shape[0] if spec.per_channel else 1
        self.weights = (columns / (planes * math.prod(self.size))).expand(self.shape).flatten()
        self.bands = None if bands is None else bands.to(images.device).expand(self.shape).flatten()
        if self.bands is not None:
            self.weights = self.weights.new_zeros(int(self.bands.max()) + 1).index_add(0, self.bands, self.weights)
        self.factors = self._factors()
        with torch.no_grad():
            logits = self._logits(images)
            self.reference = cross_entropy(logits, labels, reduction="none")[:, None]
            self.wanted = RESTORED * _margin(logits, labels[:, None])[0]

    def _logits(self, images: Tensor) -> Tensor:
        return self.model(images.contiguous(memory_format=torch.channels_last)).to(images.dtype)

    def _factors(self) -> Tensor:
        """The reach of each entry in units of the radius, (B, F)."""
        power = self.spectrum.abs().square()
        amplitude = (power if self.spec.per_channel else power.sum(1)).sqrt().flatten(1)
        if self.bands is not None:
            sums = amplitude.new_zeros(len(amplitude), len(self.weights)).index_add(1, self.bands, amplitude)
            amplitude = sums / torch.bincount(self.bands)
        tiny = torch.finfo(amplitude.dtype).tiny
        relative = amplitude.mean(1, keepdim=True).clamp_min(tiny) / amplitude.clamp_min(tiny)
        return relative.pow(EXPONENT).clamp(*FACTORS)

    def half(self, mask: Tensor) -> Tensor:
        """Masks (B, F) as half planes (B, H, W // 2 + 1), or (B, C, H, W // 2 + 1) with one plane per channel."""
        return (mask if self.bands is None else mask[:, self.bands]).unflatten(1, self.shape)

    def evaluate(self, mask: Tensor) -> dict[str, Tensor]:
        """What masks (B, F) do.

        `change` of the loss; `kept`, whether the label is predicted; `aim`, what the step should undo: the change, or
        what the margin lacks; each (B, 1). `grad`, the gradient of the aim, is (B, F).
        """
        leaf = mask.detach().requires_grad_()
        logits = self._logits(self.centre + filter_spectrum(self.spectrum, self.half(leaf), self.size))
        values, own = logits.detach(), self.labels[:, None]
        change = cross_entropy(values, self.labels, reduction="none")[:, None] - self.reference
        kept, (margin, rival) = values.argmax(1, keepdim=True) == own, _margin(values, own)
        by_loss, none = kept | (self.wanted <= 0), torch.zeros_like(values)
        aim = torch.where(by_loss, change, self.wanted - margin)
        towards = torch.where(by_loss, values.softmax(1), none.scatter(1, rival, 1))  # the logits that raise the aim
        (grad,) = torch.autograd.grad(logits, leaf, towards - none.scatter(1, own, 1))
        return {"mask": mask, "grad": grad, "change": change, "kept": kept, "aim": aim}

    def solve(self, start: Tensor, bar: tqdm) -> dict[str, Tensor]:
        """The masks of this batch from `start` (F,); the host does not wait for the device."""
        spec, mask = self.spec, start.expand(len(self.labels), -1)
        radius, never = torch.full_like(mask[:, :1], spec.radius), torch.full_like(mask[:, :1], math.inf)
        best = {"mask": mask, "change": never, "kept": torch.zeros_like(never, dtype=torch.bool), "objective": never}
        accepted = best | {"aim": never, "grad": torch.zeros_like(mask)}
        history = []
        for step in range(spec.steps):
            now, part = self.evaluate(mask), step / max(spec.steps - 1, 1)
            change, kept = now["change"].abs(), now["kept"]
            invariance, share = clipped_exp_square(change, spec.clip), (mask * self.weights).sum(1, keepdim=True)
            now["objective"] = invariance + spec.penalty * share
            history.append(torch.cat((invariance, share, kept, change > spec.clip), 1))
            finite = torch.isfinite(now["objective"] + now["grad"].sum(1, keepdim=True))
            fell = now["objective"] < best["objective"]
            best = _replaced(best, now, finite & torch.where(kept == best["kept"], fell, kept))
            close = change <= accepted["change"].abs().clamp_min(LOOSE * (TOLERANCE / LOOSE) ** part)
            regained = kept & ~accepted["kept"]
            passes = finite & (close | regained | (now["objective"] < accepted["objective"]))
            accepted = _replaced(accepted, now, passes)
            radius = torch.where(passes, radius * 1.25, radius / 2).clamp_max(spec.radius * DECAY**part)
            reached, reach = (accepted["mask"], accepted["grad"], accepted["aim"]), radius * self.factors
            mask = (accepted["mask"] + knapsack_step(*reached, self.weights, reach, spec.penalty)).clamp(0, 1)
            bar.update()
        converged = best["kept"] & (best["change"].abs() <= TOLERANCE)
        found = {"half": self.half(best["mask"]), "converged": converged[:, 0]}
        return found | {"finite": torch.isfinite(best["objective"])[:, 0], "history": torch.stack(history, 1)}


def _margin(logits: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the logit of the label `own` exceeds the largest other one, and which that is; each (B, 1)."""
    highest, rival = logits.scatter(1, own, -math.inf).max(1, keepdim=True)
    return logits.gather(1, own) - highest, rival


def _replaced(old: dict[str, Tensor], new: dict[str, Tensor], where: Tensor) -> dict[str, Tensor]:
    """`new` in the rows where `where` (B, 1) holds, and `old` in the others."""
    return {name: torch.where(where, new[name], value) for name, value in old.items()}


def minimal_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    spec: MinimalMaskSpec,
    *,
    seed: int | None = None,
    centre: float | Tensor = 0.0,
    bands: Tensor | None = None,
    batch_size: int = 64,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Masks:
    """One minimal mask per image, by the method of the module's docstring.

    Args:
        model: a classifier that maps pixels (B, C, H, W) to logits (B, classes); left as it was.
        images: pixels in [0, 1], (N, C, H, W), float32 or float64.
        labels: targets (N,), usually the network's own predictions.
        spec: penalty, number of steps and trust region.
        seed: of a random start, uniform in [0.5, 1] and the same for all images (default: start at M = 1).
        centre: gray level about which the filter acts: the mean that the network subtracts, see `spectra.apply_mask`.
        bands: the band of each frequency, (H, W // 2 + 1) from 0; those of one band share one entry of the mask
            (default: each frequency has its own).
        batch_size: images that are solved together; memory depends on it and not on N.
        checkpoint: where finished batches are saved, and from which a killed run resumes (default: none).
        progress: whether to show a progress bar, in steps.

    Returns:
        Masks of N rows with the history of every iterate. A mask has converged if it keeps the label and |d| is at most
        0.01. Its `half` is the iterate with the lowest objective.

    Raises:
        FmlibError: the inputs do not fit together, or the loss of an image is not finite.

    Example:
        >>> spec = fmlib.MinimalMaskSpec(steps=20)
        >>> fmlib.minimal_masks(network, images[:4], labels[:4], spec, progress=False).half.shape
        torch.Size([4, 16, 9])
    """
    require(len(images) == len(labels), "images and labels must have the same length")
    require(batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
    _check_bands(bands, images)
    check_classifier(model, images, labels)
    keep_freed_memory()
    with frozen(model), full_precision(), torch.enable_grad():
        make = partial(_Batch, model, images, labels, spec, centre, bands)
        parts = _parts(make, len(images), batch_size, seed, checkpoint, progress)
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    history = dict(zip(("invariance", "l1_share", "kept", "clipped"), joined["history"].permute(2, 1, 0), strict=True))
    steps = torch.full((len(images),), spec.steps, device="cpu")
    options: dict[str, Any] = {"centre": centre, "bands": bands, "batch_size": batch_size, "progress": progress}
    restart = partial(minimal_masks, model, images, labels, spec, **options)
    return Masks(joined["half"].to(images.device), images.shape[-1], joined["converged"], steps, history, restart)


def _check_bands(bands: Tensor | None, images: Tensor) -> None:
    """Raise `FmlibError` unless `bands` numbers the half plane of the images from 0 without gaps."""
    if bands is not None:
        shape = (images.shape[-2], images.shape[-1] // 2 + 1)
        numbered = bands.dtype == torch.int64 and bands.unique().tolist() == list(range(bands.max() + 1))
        require(
            bands.shape == shape and numbered, f"bands must be int64 of shape {shape}, numbered from 0 without gaps"
        )


def _parts(
    make: Callable[[slice], _Batch], count: int, size: int, seed: int | None, saved: Checkpoint | None, progress: bool
) -> list[dict[str, Tensor]]:
    """What `_Batch.solve` returns for each batch of `size` among `count` images, on the CPU."""
    state = (saved.load() if saved else None) or {"parts": []}
    parts: list[dict[str, Tensor]] = state["parts"]
    starts = range(sum(len(part["half"]) for part in parts), count, size)
    with tqdm(desc="minimal masks", unit="step", disable=not progress) as bar:
        for first in starts:
            batch = make(slice(first, first + size))
            bar.total = len(starts) * batch.spec.steps
            parts.append({name: value.cpu() for name, value in batch.solve(_start(batch.weights, seed), bar).items()})
            require(bool(parts[-1]["finite"].all()), "the loss of an image is not finite: inspect the model")
            if saved and saved.due():
                saved.save({"parts": parts})
    return parts


def _start(weights: Tensor, seed: int | None) -> Tensor:
    """The first mask, in the shape of `weights` (F,)."""
    if seed is None:
        return torch.ones_like(weights)
    drawn = torch.rand(len(weights), generator=generator(seed, "start of a minimal mask"), device="cpu")
    return (0.5 + 0.5 * drawn).to(weights)
