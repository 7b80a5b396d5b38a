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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from fmlib.config import FmlibError, FrequencyMapSpec, MaskSpec, require
from fmlib.frequency_maps import FrequencyMaps
from fmlib.models import check_classifier, evaluate
from fmlib.runtime import Checkpoint, frozen, generator, mixed_precision, one_cycle
from fmlib.spectra import filter_spectrum, full_plane, l1_share


def guarded_exp_square(difference: Tensor, guard: float) -> Tensor:
    """g(d) = exp(d^2) up to |d| = guard, and its tangent beyond (see the module's docstring). Same shape as d."""
    size, top = difference.abs(), math.exp(guard**2)
    inside = size <= guard
    tangent = top + 2 * guard * top * (size - guard)
    return torch.where(inside, torch.exp(torch.where(inside, size, 0) ** 2), tangent)


class Invariance:
    """The objective of the module's docstring, and the stop rule of `learn_masks`."""

    leading = ()  # one mask for all channels
    share = staticmethod(l1_share)

    def __init__(self, spec: MaskSpec, unmasked: Tensor) -> None:
        """unmasked: (K,) accuracy on each mask's images as they stand."""
        self.spec, self.weight, self.wanted = spec, spec.penalty, spec.keep * unmasked

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """g(d) from the losses behind the masks and without: (N,) each; whether |d| is beyond the guard."""
        difference = losses - reference
        return guarded_exp_square(difference, self.spec.guard), difference.detach().abs() > self.spec.guard

    def still(self, found: dict[str, Tensor], history: dict[str, list[Tensor]], before: Tensor) -> Tensor:
        """Whether an epoch that `found` (K,) values was still, after those of `history`: (K,) bool.

        before: (K,) L1 share at its beginning.
        """
        still = ((found["l1_share"] - before).abs() <= self.spec.still) & (found["kept"] >= self.wanted)
        if history["invariance"]:
            still &= (found["invariance"] - history["invariance"][-1]).abs() <= self.spec.calm
        return still


@dataclass
class Masks:
    """Learned masks and how they came about.

    half: (K, H, W // 2 + 1), for frequency maps (K, C, H, W // 2 + 1), in [0, 1]; width: W; converged: (K,) bool;
    epochs: (K,) epochs each mask took; history: per name a tensor (epochs, K): "invariance" (mean of g, for frequency
    maps of the cross-entropy), "l1_share", "kept" (share of images whose prediction is right, or for image masks
    unchanged) and "guarded" (share of images beyond the guard).
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
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> Masks:
    """Learn K masks at once, mask `index[i]` from image i (the equation is in the module's docstring).

    images: pixels (N, C, H, W) in [0, 1]; labels: (N,) targets (for image masks the network's own predictions);
    index: (N,) in 0..K-1, every mask with at least one image; centre: gray level about which the filter acts, the
    mean that the network subtracts (see spectra.apply_mask). Each step takes `spec.batch` images of every
    unfinished mask; an epoch has as many steps as show the largest mask each of its images once, so that masks of fewer
    images see theirs more often. A mask stops once, `spec.patience` epochs in a row, its
    L1 share moved by no more than `spec.still`, and its invariance cost by no more than `spec.calm`, while it kept at
    least `spec.keep` of the unmasked accuracy. A `FrequencyMapSpec` learns frequency maps, by their own stop rule.
    Each mask's order of images follows from (seed, mask, epoch). Losses are averaged over a mask's images and
    summed over masks. Raises `FmlibError` for inputs that do not fit, and for values that are not finite.
    """
    require(len(images) > 0, "there are no images to learn a mask from")
    require(len(images) == len(labels) == len(index), "images, labels and index must have the same length")
    check_classifier(model, images, int(labels.max()) + 1)
    members = [torch.nonzero(index == k).flatten() for k in range(int(index.max()) + 1)]
    require(
        int(index.min()) >= 0 and all(len(m) for m in members),
        "every mask needs at least one image: number the masks 0..K-1 without gaps",
    )

    reference, right = evaluate(model, zip(images.split(256), labels.split(256), strict=True))
    unmasked = torch.stack([right[m].float().mean() for m in members])
    objective: Invariance | FrequencyMaps
    if isinstance(spec, FrequencyMapSpec):
        objective = FrequencyMaps(spec, images.shape[1:])
    else:
        objective = Invariance(spec, unmasked)
    spectrum = torch.fft.rfft2(images - centre)
    problem = _Problem(model, spectrum, images.shape[-2:], centre, labels, reference, spec, objective)
    batch = min(spec.batch, max(map(len, members)))
    steps = math.ceil(max(map(len, members)) / batch)
    fit = _Fit(problem, len(members), steps)
    state = checkpoint.load() if checkpoint else None
    if state:
        fit.restore(state)

    title = f"{len(members)} mask{'s' * (len(members) > 1)}"
    bar = tqdm(range(fit.epoch, spec.epochs), desc=title, unit="epoch", disable=not progress)
    start, stride = fit.epoch, max(CHECKED // steps, 1)  # epochs between looks at the device's values
    single = len(images) == len(members)  # an image a mask: there is no order to draw
    with frozen(model):
        for epoch in bar:
            if (epoch - start) % stride == 0:
                active = fit.look()
                if len(active) == 0:
                    break
                if progress and fit.epoch:
                    last = {name: f"{float(rows[-1].mean()):.4f}" for name, rows in fit.history.items()}
                    bar.set_postfix(last, left=len(active))
                if checkpoint and epoch > start and checkpoint.due():
                    checkpoint.save(fit.state())
                orders = torch.stack([members[k] for k in active.tolist()]) if single else torch.empty(0)
            if not single:
                orders = torch.stack([_order(members[k], steps * batch, seed, k, epoch) for k in active.tolist()])
            fit.run_epoch(orders, active, steps)
        fit.look()
    return Masks(
        half=fit.masks.detach(),
        width=images.shape[-1],
        converged=fit.still >= spec.patience,
        epochs=fit.epochs,
        history={name: torch.stack(rows[: int(fit.epochs.max())]).cpu() for name, rows in fit.history.items()},
    )


@dataclass
class _Problem:
    """What stays fixed while masks are learned."""

    model: nn.Module
    spectrum: Tensor  # (N, C, H, W // 2 + 1), of images - centre
    size: torch.Size  # (H, W)
    centre: float
    labels: Tensor  # (N,)
    reference: Tensor  # (N,), losses of the unmasked images
    spec: MaskSpec | FrequencyMapSpec
    objective: Invariance | FrequencyMaps

    def cost(self, masks: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost of the chosen images (A, B) behind their masks (A, ...); whether right; whether beyond the guard."""
        flat = chosen.flatten()
        filtered = filter_spectrum(self.spectrum[flat], masks.repeat_interleave(chosen.shape[1], 0), self.size)
        with mixed_precision(flat.device):
            logits = self.model((self.centre + filtered).contiguous(memory_format=torch.channels_last)).float()
        losses = cross_entropy(logits, self.labels[flat], reduction="none")
        cost, beyond = self.objective.cost(losses, self.reference[flat])
        right = logits.argmax(1) == self.labels[flat]
        return cost.view(chosen.shape), right.view(chosen.shape), beyond.view(chosen.shape)


#: Steps between two looks at the device's values: for masks that have stopped, values that are not finite, a save.
CHECKED = 20


class _Fit:
    """What changes while masks are learned, saved and restored as a whole."""

    def __init__(self, problem: _Problem, count: int, steps: int) -> None:
        spec, device = problem.spec, problem.labels.device
        height, width = problem.size
        self.problem, self.objective = problem, problem.objective
        shape = (count, *self.objective.leading, height, width // 2 + 1)
        self.masks = torch.ones(shape, device=device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.masks], lr=spec.lr, betas=(0.9, spec.memory))
        self.schedule = one_cycle(self.optimizer, spec.lr, spec.epochs * steps) if spec.one_cycle else None
        self.still = torch.zeros(count, dtype=torch.long, device=device)  # still epochs in a row
        self.epochs = torch.zeros(count, dtype=torch.long, device=device)
        self.epoch = 0
        self.history: dict[str, list[Tensor]] = {"invariance": [], "l1_share": [], "kept": [], "guarded": []}

    def look(self) -> Tensor:
        """Numbers of the masks that still move; raises `FmlibError` if anything has ceased to be finite.

        Only here does the host wait for the device.
        """
        if self.history["invariance"]:
            memory = self.optimizer.state[self.masks]["exp_avg_sq"]  # infinite after one overflow: masks would stick
            values = (*(rows[-1] for rows in self.history.values()), memory)
            if not bool(torch.stack([torch.isfinite(one).all() for one in values]).all()):
                raise FmlibError(
                    f"the mask objective is not finite by epoch {self.epoch}: lower the learning rate or guard"
                )
        return torch.nonzero(self.still < self.problem.spec.patience).flatten()

    def run_epoch(self, orders: Tensor, active: Tensor, steps: int) -> None:
        """One epoch of the masks that still move, all of them among `active`.

        orders: (A, images), a row for each active mask. A mask that has stopped since `active` was made stays as it
        is, its history and its count of epochs too.
        """
        share, width = self.objective.share, self.problem.size[1]
        running = self.still < self.problem.spec.patience
        before = share(self.masks.detach(), width)
        found = {name: torch.zeros_like(before) for name in self.history}
        for chosen in orders.chunk(steps, 1):
            cost, right, beyond = self.problem.cost(self.masks[active], chosen)  # (A, B) each
            penalty = self.objective.weight * share(self.masks[active], width)
            self._move((cost.mean(1) + penalty).sum(), running)
            for name, value in (("invariance", cost.detach()), ("kept", right), ("guarded", beyond)):
                found[name][active] += value.float().mean(1) / steps
        found["l1_share"] = share(self.masks.detach(), width)
        still = self.objective.still(found, self.history, before)
        for name, rows in self.history.items():
            rows.append(torch.where(running, found[name], rows[-1]) if rows else found[name])
        self.epoch += 1
        self.epochs += running
        self.still = torch.where(running, torch.where(still, self.still + 1, 0), self.still)

    def _move(self, objective: Tensor, running: Tensor) -> None:
        """One step of Adam, clamped to [0, 1]; its momentum must not move a mask that has stopped."""
        self.optimizer.zero_grad()
        objective.backward()
        before = self.masks.detach().clone()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        with torch.no_grad():
            moves = running.view(-1, *[1] * (before.ndim - 1))
            self.masks.copy_(torch.where(moves, self.masks.clamp(0, 1), before))

    def state(self) -> dict[str, Any]:
        """All that a resumed fit needs."""
        return {
            "masks": self.masks.detach(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "still": self.still,
            "epochs": self.epochs,
            "epoch": self.epoch,
            "history": {name: torch.stack(rows) for name, rows in self.history.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.masks.data.copy_(state["masks"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule:
            self.schedule.load_state_dict(state["schedule"])
        self.still, self.epochs, self.epoch = state["still"], state["epochs"], state["epoch"]
        self.history = {name: list(rows) for name, rows in state["history"].items()}


def _order(members: Tensor, length: int, seed: int, mask: int, epoch: int) -> Tensor:
    """`length` of a mask's images in random order, all of them shown before any comes again."""
    if len(members) == 1:
        return members.expand(length)
    draws = generator(seed, f"mask {mask} epoch {epoch}")
    rounds = math.ceil(length / len(members))
    order = torch.cat([torch.randperm(len(members), generator=draws) for _ in range(rounds)])[:length]
    return members[order.to(members.device)]
