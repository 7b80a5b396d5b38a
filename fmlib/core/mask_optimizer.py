"""Adam on many independent masks in one batch, each with its own stop rule.

The masks share a network and nothing else. A batch holds as many *active* masks as fit into memory, each with its own
moments and step count. A mask that has stopped is replaced by the next, so that the batch stays full until no mask is
left. The host reads values from the device only every `CHECK_EVERY` steps.

`masks.learn_masks` is the function to call. This module is what it stands on: `Problem` holds the fixed inputs, `Fit`
the changing state, and an `Objective` defines the cost of a mask and its stop rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from fmlib.core.config import FrequencyMapSpec, MaskSpec
from fmlib.core.device import generator, memory_budget, mixed_precision, one_cycle
from fmlib.core.errors import FmlibError
from fmlib.core.spectra import filter_spectrum

#: Steps between two refills. At each, the host checks for stopped masks and non-finite values, and saves checkpoints.
CHECK_EVERY = 20
#: The version of a fit's saved state. Increase it when the layout changes; a state of another version is dropped.
STATE_VERSION = 2

#: The metrics logged for every epoch of a mask.
METRICS = ("invariance", "l1_share", "kept", "clipped")


@dataclass
class Epoch:
    """What a stop rule reads after an epoch, one row for each of the A active masks."""

    index: Tensor  # (A,), indices of the masks
    epoch: Tensor  # (A,), completed epochs before this one
    initial_share: Tensor  # (A,), L1 share at the start of the epoch
    metrics: dict[str, Tensor]  # name -> (A,), values of this epoch
    earlier: dict[str, Tensor]  # "invariance" and "l1_share" -> (A, window), of the last epochs before it, oldest first


class Objective(Protocol):
    """What a mask minimises: the mean of `cost` over its images, plus `weight` times `share`."""

    mask_shape: Sequence[int]  # leading dimensions of a mask: () for one plane, (C,) for one per channel
    weight: float
    window: int  # epochs that `is_stable` looks back

    def share(self, masks: Tensor, width: int) -> Tensor:
        """The mean of each mask over the full plane with `width` columns: (A, ..., H, W // 2 + 1) -> (A,)."""

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Cost of each image from its losses with and without the mask, and whether the cost is clipped: (B,) each."""

    def is_stable(self, epoch: Epoch) -> Tensor:
        """Whether the epoch changed a mask so little that it may stop: (A,) bool."""


@dataclass
class Problem:
    """The fixed inputs of a fit."""

    model: nn.Module  # frozen
    images: Tensor  # (N, C, H, W), pixels in [0, 1]
    centre: float | Tensor  # gray level about which the masks filter
    labels: Tensor  # (N,)
    members: list[Tensor]  # per mask, the indices of its images
    reference: Tensor  # (N,), losses of the unmasked images
    spec: MaskSpec | FrequencyMapSpec
    objective: Objective
    seed: int  # of the order of each mask's images

    @cached_property
    def batch(self) -> int:
        """Images per mask and step."""
        return min(self.spec.batch, max(map(len, self.members)))

    @cached_property
    def steps(self) -> int:
        """Steps per epoch."""
        return math.ceil(max(map(len, self.members)) / self.batch)

    @property
    def single(self) -> bool:
        """Whether every mask has one image, so that there is no order to shuffle."""
        return len(self.members) == len(self.images)

    def spectrum(self, chosen: Tensor) -> Tensor:
        """rfft2 of the chosen images minus the centre: (B, C, H, W // 2 + 1)."""
        return torch.fft.rfft2(self.images[chosen] - self.centre)

    def cost(self, masks: Tensor, spectrum: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost, correctness and clipping of B images, B // A for each of A masks.

        Args:
            masks: (A, ..., H, W // 2 + 1).
            spectrum: (B, C, H, W // 2 + 1), of the images, grouped by mask.
            chosen: (B,), the indices of the images.

        Returns:
            Three tensors (A, B // A): the cost, whether the prediction is correct, and whether the cost is clipped.
        """
        each = len(chosen) // len(masks)
        if each > 1:
            masks = masks.repeat_interleave(each, 0)
        filtered = self.centre + filter_spectrum(spectrum, masks, self.images.shape[-2:])
        with mixed_precision(chosen.device):
            logits = self.model(filtered.contiguous(memory_format=torch.channels_last)).float()
        labels = self.labels[chosen]
        losses = cross_entropy(logits, labels, reduction="none")
        cost, clipped = self.objective.cost(losses, self.reference[chosen])
        correct = logits.argmax(1) == labels
        return cost.view(-1, each), correct.view(-1, each), clipped.view(-1, each)

    def default_batch_size(self) -> int:
        """How many masks fit into the memory budget of one step, at least one.

        It is estimated from the bytes that autograd stores for one more image.
        """

        def stored_bytes(count: int) -> int:
            storages: dict[int, int] = {}  # address -> bytes; a tensor stored by several operations counts once

            def record(stored: Tensor) -> Tensor:
                storages[stored.untyped_storage().data_ptr()] = stored.untyped_storage().nbytes()
                return stored

            chosen = torch.zeros(count, dtype=torch.long, device=self.images.device)
            size = self.images.shape[-2:]
            masks = torch.ones(count, *self.objective.mask_shape, size[0], size[1] // 2 + 1, device=chosen.device)
            with saved_tensors_hooks(record, lambda stored: stored):
                self.cost(masks.requires_grad_(), self.spectrum(chosen), chosen)
                return sum(storages.values())

        weights = sum(parameter.nbytes for parameter in self.model.parameters())
        per_image = max(stored_bytes(2) - stored_bytes(1), 1)
        return max(memory_budget(self.images.device, weights) // per_image // self.batch, 1)


class Fit:
    """The changing state of a fit, saved and restored as a whole.

    `rows` maps names to tensors with one row for each of the A active masks: "mask"; Adam's moments "exp_avg" and
    "exp_avg_sq"; the "index" of the mask; "epoch", its number of completed epochs; "stable", the number of consecutive
    stable epochs; and the last values of "invariance" and "l1_share" (A, window).
    """

    def __init__(self, problem: Problem, batch_size: int) -> None:
        self.problem, self.batch_size = problem, batch_size
        count, (height, width) = len(problem.members), problem.images.shape[-2:]
        self.half = torch.zeros(count, *problem.objective.mask_shape, height, width // 2 + 1, device="cpu")
        self.epochs = torch.zeros(count, dtype=torch.long, device="cpu")
        self.converged = torch.zeros(count, dtype=torch.bool, device="cpu")
        self.started = 0  # masks that are active or finished: the first ones
        self.log: list[dict[str, Tensor]] = []  # one entry per refill, see `log_epochs`
        self.recent: list[Tensor] = []  # (4, A), the metrics of each epoch since the last refill
        #: (A,), completed epochs of the active masks at the last refill.
        self.since = torch.empty(0, dtype=torch.long, device="cpu")
        self.rates = _rates(problem).to(problem.images.device)
        self.rows = self.init(0)

    @property
    def finished(self) -> int:
        """How many masks have stopped."""
        return self.started - len(self.rows["mask"])

    def refill(self) -> bool:
        """Store the masks that have stopped, start others in their place, and return whether any mask is active.

        The host synchronises with the device only here.

        Raises:
            FmlibError: a metric or a moment is no longer finite.
        """
        if self.recent:
            self.log_epochs()
        rows, spec = self.rows, self.problem.spec
        stopped = rows["stable"] >= spec.patience
        finished = stopped | (rows["epoch"] >= spec.epochs)
        index = rows["index"][finished].cpu()
        self.half[index], self.epochs[index] = rows["mask"][finished].cpu(), rows["epoch"][finished].cpu()
        self.converged[index] = stopped[finished].cpu()
        free = self.batch_size - (len(finished) - len(index))  # below 0 after a resume on a smaller device
        new = self.init(max(min(free, len(self.problem.members) - self.started), 0))
        if len(index) or len(new["mask"]):
            self.load({name: torch.cat((value[~finished], new[name])) for name, value in rows.items()})
        return len(self.rows["mask"]) > 0

    def step(self) -> None:
        """Run all active masks up to the next refill, at least one epoch."""
        problem, indices = self.problem, self.rows["index"].tolist()
        self.since = self.rows["epoch"].cpu()
        completed = self.since.tolist()
        for epoch in range(min(max(CHECK_EVERY // problem.steps, 1), problem.spec.epochs - min(completed))):
            if problem.single:
                self._epoch([(self.active, self.spectrum)])
            else:
                length = problem.steps * problem.batch
                orders = [
                    _order(problem.members[k], length, problem.seed, k, before + epoch)
                    for k, before in zip(indices, completed, strict=True)
                ]
                chosen = [part.flatten() for part in torch.stack(orders).chunk(problem.steps, 1)]
                self._epoch([(part, self.spectrum[self.position[part]]) for part in chosen])

    def last(self) -> dict[str, str]:
        """The latest metrics, averaged over the masks that were active, for a progress bar."""
        means = self.log[-1]["metrics"][-1].mean(1).tolist()
        return {name: f"{mean:.4f}" for name, mean in zip(METRICS, means, strict=True)}

    def history(self) -> dict[str, Tensor]:
        """Each metric of every epoch, (epochs, K); a mask that has stopped keeps its last value."""
        longest = int(self.epochs.max())
        table = torch.zeros(len(METRICS), longest + CHECK_EVERY, len(self.epochs), device="cpu")
        for entry in self.log:
            epoch = entry["epoch"] + torch.arange(len(entry["metrics"]), device="cpu")[:, None]  # (epochs, A)
            table[:, epoch, entry["index"]] = entry["metrics"].movedim(1, 0)
        last = torch.minimum(torch.arange(longest, device="cpu")[:, None], self.epochs - 1)  # (epochs, K)
        return {name: values.gather(0, last) for name, values in zip(METRICS, table, strict=True)}

    def state(self) -> dict[str, Any]:
        """Everything that a resumed fit needs, for `restore`."""
        names = ("half", "epochs", "converged", "started", "log", "rows")
        return {"version": STATE_VERSION} | {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved `state`; one of another version is dropped, and the fit starts from the beginning."""
        if state.get("version") != STATE_VERSION:
            return
        self.half, self.epochs, self.converged = (state[name].cpu() for name in ("half", "epochs", "converged"))
        self.started = state["started"]
        self.log = [{name: value.cpu() for name, value in entry.items()} for entry in state["log"]]
        self.load(state["rows"])

    def init(self, count: int) -> dict[str, Tensor]:
        """Rows of the next `count` masks: all ones, with zero moments."""
        device, start = self.rates.device, self.started
        self.started += count
        zero = torch.zeros(count, *self.half.shape[1:], device=device)
        earlier = torch.zeros(count, self.problem.objective.window, device=device)
        index = torch.arange(start, self.started, device=device)
        rows = {"mask": zero + 1, "exp_avg": zero, "exp_avg_sq": zero, "index": index, "epoch": 0 * index}
        rows |= {"stable": 0 * index, "invariance": earlier, "l1_share": earlier}
        return rows

    def load(self, rows: dict[str, Tensor]) -> None:
        """Make these rows the active ones, and compute the spectra of their images."""
        self.rows, members = rows, [self.problem.members[k] for k in rows["index"].tolist()]
        if members:
            self.active = torch.cat(members)
            self.spectrum = self.problem.spectrum(self.active)
            self.position = torch.zeros(len(self.problem.images), dtype=torch.long, device=self.active.device)
            self.position[self.active] = torch.arange(len(self.active), device=self.active.device)

    def _epoch(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Run one epoch; a mask that has stopped since the last refill stays in the batch but is left unchanged.

        Args:
            batches: per step, the indices of the images (B,), equally many per mask, and their spectra.
        """
        rows, spec, objective = self.rows, self.problem.spec, self.problem.objective
        share, width = objective.share, self.problem.images.shape[-1]
        running = (rows["stable"] < spec.patience) & (rows["epoch"] < spec.epochs)
        initial_share = share(rows["mask"], width)
        metrics = {name: torch.zeros_like(initial_share) for name in METRICS}
        for step, (chosen, spectrum) in enumerate(batches):
            mask = rows["mask"].detach().requires_grad_()
            cost, correct, clipped = self.problem.cost(mask, spectrum, chosen)  # (A, B // A) each
            total = (cost.mean(1) + objective.weight * share(mask, width)).sum()
            self.adam_step(torch.autograd.grad(total, mask)[0], running, step)
            for name, value in (("invariance", cost.detach()), ("kept", correct), ("clipped", clipped)):
                metrics[name] += value.float().mean(1) / len(batches)
        metrics["l1_share"] = share(rows["mask"], width)
        self.recent.append(torch.stack([metrics[name] for name in METRICS]))
        earlier = {name: rows[name] for name in ("invariance", "l1_share")}
        stable = objective.is_stable(Epoch(rows["index"], rows["epoch"], initial_share, metrics, earlier))
        for name, values in earlier.items():
            rows[name] = torch.cat((values[:, 1:], metrics[name][:, None]), 1)
        rows["stable"] = torch.where(running, torch.where(stable, rows["stable"] + 1, 0), rows["stable"])
        rows["epoch"] = rows["epoch"] + running

    def adam_step(self, grad: Tensor, running: Tensor, step: int) -> None:
        """One step of Adam (Kingma and Ba, 2015) with each mask's own step count, then a clamp to [0, 1].

        Args:
            grad: the gradient of each mask, (A, ..., H, W // 2 + 1).
            running: (A,) bool, the masks to update.
            step: the number of the step within the epoch, from 0.
        """
        rows, steps, beta2 = self.rows, self.problem.steps, self.problem.spec.beta2
        at = (rows["epoch"] * steps + step).clamp(max=len(self.rates) - 1)
        rate, weight, root = (part.view(-1, *[1] * (grad.ndim - 1)) for part in self.rates[at].unbind(1))
        rows["exp_avg"] = torch.lerp(rows["exp_avg"], grad, weight)
        rows["exp_avg_sq"] = (rows["exp_avg_sq"] * beta2).addcmul(grad, grad, value=1 - beta2)
        updated = rows["mask"] - rate * rows["exp_avg"] / (rows["exp_avg_sq"].sqrt() / root + 1e-8)
        rows["mask"] = torch.where(running.view(rate.shape), updated.clamp(0, 1), rows["mask"])

    def log_epochs(self) -> None:
        """Log the epochs since the last refill.

        The entry holds "metrics" (epochs, 4, A), "epoch" (A,), the epochs completed before them, and "index" (A,).
        """
        metrics, moment = torch.stack(self.recent), self.rows["exp_avg_sq"]  # infinite after a gradient overflowed
        if not bool(torch.isfinite(metrics).all() & torch.isfinite(moment).all()):
            epoch = int(self.since.max()) + len(metrics)
            raise FmlibError(f"the mask objective is not finite by epoch {epoch}: lower the spec's lr or clip")
        self.log.append({"metrics": metrics.cpu(), "epoch": self.since, "index": self.rows["index"].cpu()})
        self.recent = []


def _rates(problem: Problem) -> Tensor:
    """Adam's factors of each step t: rate / (1 - beta_1^t), 1 - beta_1 and sqrt(1 - beta_2^t), (steps, 3)."""
    spec, total = problem.spec, problem.spec.epochs * problem.steps
    count = torch.arange(1, total + 1, dtype=torch.float64, device="cpu")
    rate, decay = torch.full_like(count, spec.lr), torch.full_like(count, 0.9)
    if spec.one_cycle:
        planned = torch.optim.Adam([torch.zeros(1, requires_grad=True, device="cpu")], lr=spec.lr)
        schedule, plan = one_cycle(planned, spec.lr, total), []
        for _ in range(total):
            plan.append((planned.param_groups[0]["lr"], planned.param_groups[0]["betas"][0]))
            planned.step()
            schedule.step()
        rate, decay = torch.tensor(plan, dtype=torch.float64, device="cpu").unbind(1)
    return torch.stack((rate / (1 - decay**count), 1 - decay, (1 - spec.beta2**count).sqrt()), 1).float()


def _order(members: Tensor, length: int, seed: int, mask: int, epoch: int) -> Tensor:
    """`length` of a mask's images in random order, each shown before any is repeated."""
    if len(members) == 1:
        return members.expand(length)
    rng = generator(seed, f"mask {mask} epoch {epoch}")
    rounds = math.ceil(length / len(members))
    order = torch.cat([torch.randperm(len(members), generator=rng, device="cpu") for _ in range(rounds)])[:length]
    return members[order.to(members.device)]
