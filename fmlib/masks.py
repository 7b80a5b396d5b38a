r"""Learning Fourier masks: the few frequencies that keep a network's loss.

For a frozen network f and a mask M on the spectrum of its input, M(x) = centre + irfft2(M * rfft2(x - centre)), the
mask minimises

    J_k(M_k) = mean over its images of g(L(f(M_k(x)), y) - L(f(x), y)) + penalty * mean(M_k),    g(d) = exp(d^2)

with every entry of M_k clamped to [0, 1] (PAPER equation 2; the penalty is lambda over the L1 norm of the
all-ones mask, as in the authors' code). Dataset, class and image masks differ only by the index that maps an
image to its mask: one mask for all, one a class, one an image. The masks are independent problems, summed over
k, so a mask does not depend on which others are learned beside it.

**The guard.** exp(d^2) overflows float32 at |d| = 9.4, and long before that one step with a huge gradient
inflates Adam's second moment so that the mask stops moving. Beyond |d| = guard, g goes on along its tangent: it
stays convex and once differentiable, its slope is at most 2 * guard * exp(guard^2), and it equals the paper's
objective wherever |d| <= guard. `Masks.history["guarded"]` counts the share of images beyond, so that no mask is
shaped by the guard in silence, and a value that is not finite stops the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from fmlib.config import FmlibError, MaskSpec, require
from fmlib.models import check_classifier, evaluate
from fmlib.runtime import Checkpoint, frozen, generator, mixed_precision
from fmlib.spectra import filter_spectrum, full_plane, l1_share


def guarded_exp_square(difference: Tensor, guard: float) -> Tensor:
    """g(d) = exp(d^2) up to |d| = guard, and its tangent beyond (see the module's docstring). Same shape as d."""
    size = difference.abs()
    inside = torch.exp(size.clamp_max(guard) ** 2)
    slope = 2 * guard * math.exp(guard**2)
    return inside + slope * (size - guard).clamp_min(0)


@dataclass
class Masks:
    """Learned masks and how they came about.

    half: (K, H, W // 2 + 1), in [0, 1]; width: W; converged: (K,) bool; epochs: (K,) epochs each mask took;
    history: per name a tensor (epochs, K): "invariance" (mean of g), "l1_share", "kept" (share of images
    whose prediction is right, or for image masks unchanged) and "guarded" (share of images beyond the guard).
    """

    half: Tensor
    width: int
    converged: Tensor
    epochs: Tensor
    history: dict[str, Tensor]

    def full(self) -> Tensor:
        """The masks over the whole plane: (K, H, W), DC at (0, 0)."""
        return full_plane(self.half, self.width)


def learn_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    spec: MaskSpec,
    *,
    seed: int,
    centre: float = 0.0,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Masks:
    """Learn K masks at once, mask `index[i]` from image i (the equation is in the module's docstring).

    images: pixels (N, C, H, W) in [0, 1]; labels: (N,) targets (for image masks the network's own predictions);
    index: (N,) in 0..K-1, every mask with at least one image; centre: gray level about which the filter acts, the
    mean that the network subtracts (see spectra.apply_mask). Each step takes `spec.batch` images of every
    unfinished mask, without replacement within an epoch. A mask stops once, `spec.patience` epochs in a row, its
    L1 share moved less than `spec.still` while it kept at least `spec.keep` of the unmasked accuracy.
    Each mask's order of images follows from (seed, mask, epoch). Losses are averaged over a mask's images and
    summed over masks. Raises `FmlibError` for inputs that do not fit, and for values that are not finite.
    """
    count, device = int(index.max()) + 1, images.device
    require(len(images) == len(labels) == len(index), "images, labels and index must have the same length")
    members = [torch.nonzero(index == k).flatten() for k in range(count)]
    require(all(len(m) for m in members), "every mask needs at least one image: number the masks 0..K-1 without gaps")
    check_classifier(model, images, int(labels.max()) + 1)
    require(bool(torch.isfinite(images).all()), "the images hold NaN or infinite pixels: repair or drop them")

    size = images.shape[-2:]
    spectrum = torch.fft.rfft2(images - centre)
    reference, right = evaluate(model, zip(images.split(256), labels.split(256), strict=True))
    unmasked = torch.stack([right[m].float().mean() for m in members])
    batch = min(spec.batch, max(map(len, members)))
    steps = math.ceil(max(map(len, members)) / batch)

    masks = torch.ones(count, size[0], size[1] // 2 + 1, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([masks], lr=spec.lr, betas=(0.9, spec.memory))
    schedule = None
    if spec.one_cycle:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=spec.lr, total_steps=spec.epochs * steps)
    names = ("invariance", "l1_share", "kept", "guarded")
    history: dict[str, list[Tensor]] = {name: [] for name in names}
    still = torch.zeros(count, dtype=torch.long, device=device)
    epochs = torch.zeros(count, dtype=torch.long, device=device)
    start = 0
    state = checkpoint.load() if checkpoint else None
    if state:
        masks.data.copy_(state["masks"])
        optimizer.load_state_dict(state["optimizer"])
        if schedule:
            schedule.load_state_dict(state["schedule"])
        history, still, epochs, start = state["history"], state["still"], state["epochs"], state["epoch"]

    bar = tqdm(range(start, spec.epochs), desc=f"{count} mask{'s' * (count > 1)}", unit="epoch", disable=not progress)
    with frozen(model):
        for epoch in bar:
            active = torch.nonzero(still < spec.patience).flatten()
            if len(active) == 0:
                break
            order = torch.stack([_order(members[k], steps * batch, seed, k, epoch) for k in active.tolist()]).to(device)
            before = l1_share(masks.detach(), size[1])
            totals = {name: torch.zeros(count, device=device) for name in names}
            for step in range(steps):
                chosen = order[:, step * batch : (step + 1) * batch]  # (A, batch), one row a mask
                flat, owner = chosen.flatten(), active.repeat_interleave(batch)
                filtered = centre + filter_spectrum(spectrum[flat], masks[owner], size)
                with mixed_precision(device):
                    logits = model(filtered.contiguous(memory_format=torch.channels_last)).float()
                difference = cross_entropy(logits, labels[flat], reduction="none") - reference[flat]
                cost = guarded_exp_square(difference, spec.guard).view(len(active), batch).mean(1)
                objective = cost.sum() + spec.penalty * l1_share(masks[active], size[1]).sum()
                optimizer.zero_grad()
                objective.backward()
                finished = masks.detach().clone() if len(active) < count else None
                optimizer.step()
                if schedule:
                    schedule.step()
                with torch.no_grad():
                    masks.clamp_(0, 1)
                    if finished is not None:  # Adam's momentum must not move a mask that has stopped
                        masks.copy_(torch.where((still < spec.patience)[:, None, None], masks, finished))
                totals["invariance"][active] += cost.detach() / steps
                beyond = (difference.detach().abs() > spec.guard).float().view(len(active), batch).mean(1)
                totals["guarded"][active] += beyond / steps
                hits = (logits.argmax(1) == labels[flat]).float().view(len(active), batch).mean(1)
                totals["kept"][active] += hits / steps
            share = l1_share(masks.detach(), size[1])
            if not bool(torch.isfinite(totals["invariance"]).all() and torch.isfinite(share).all()):
                raise FmlibError(
                    f"the mask objective is not finite in epoch {epoch + 1}: lower the learning rate or the guard"
                )
            totals["l1_share"] = share
            for name in names:
                history[name].append(totals[name].cpu())
            calm = ((share - before).abs() < spec.still) & (totals["kept"] >= spec.keep * unmasked)
            running = still < spec.patience
            epochs += running
            still = torch.where(running, torch.where(calm, still + 1, 0), still)
            bar.set_postfix(
                l1=f"{float(share.mean()):.4f}",
                cost=f"{float(totals['invariance'][active].mean()):.4f}",
                kept=f"{float(totals['kept'][active].mean()):.3f}",
                left=int((still < spec.patience).sum()),
            )
            if checkpoint and checkpoint.due():
                checkpoint.save(
                    {
                        "masks": masks.detach(),
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict() if schedule else None,
                        "history": history,
                        "still": still,
                        "epochs": epochs,
                        "epoch": epoch + 1,
                    }
                )
    return Masks(
        half=masks.detach(),
        width=size[1],
        converged=still >= spec.patience,
        epochs=epochs,
        history={name: torch.stack(rows) for name, rows in history.items()},
    )


def _order(members: Tensor, length: int, seed: int, mask: int, epoch: int) -> Tensor:
    """`length` of a mask's images in random order, all of them shown before any comes again."""
    draws = generator(seed, f"mask {mask} epoch {epoch}")
    rounds = math.ceil(length / len(members))
    order = torch.cat([torch.randperm(len(members), generator=draws) for _ in range(rounds)])[:length]
    return members[order.to(members.device)]
