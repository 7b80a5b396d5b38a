"""Many independent masks in one batch: gradient steps, the stop of each, and the next one in its place.

Masks are problems of their own, which share a network. The engine keeps some of them *in work*, as many as the device
has room for, each with its own moments and count of steps. One that has stopped makes way for the next, so that the
batch stays full until none is left to begin. The host looks at the device's values every `CHECKED` steps only.
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

from fmlib.config import FmlibError, FrequencyMapSpec, MaskSpec
from fmlib.runtime import generator, mixed_precision, one_cycle, room
from fmlib.spectra import filter_spectrum

#: Steps between two looks at the device's values: for masks that have stopped, values that are not finite, a save.
CHECKED = 20
#: What is kept of every epoch of a mask.
NAMES = ("invariance", "l1_share", "kept", "guarded")


@dataclass
class Epoch:
    """What a stop rule judges by, a row for each of the A masks in work."""

    number: Tensor  # (A,), which masks they are
    done: Tensor  # (A,), epochs before this one
    before: Tensor  # (A,), L1 share at its beginning
    found: dict[str, Tensor]  # name -> (A,), values of this epoch
    earlier: dict[str, Tensor]  # "invariance" and "l1_share" -> (A, window), of the last epochs before it, in order


class Objective(Protocol):
    """What masks minimise: the mean over their images of `cost`, and `weight` times `share`."""

    leading: Sequence[int]  # planes of a mask: () for one, (C,) for one a channel
    weight: float
    window: int  # epochs that `still` looks back

    def share(self, masks: Tensor, width: int) -> Tensor:
        """The mean of each mask over the full plane of that width: (A, ..., H, W // 2 + 1) -> (A,)."""

    def cost(self, losses: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """From the losses behind the masks and without: what each image costs, whether beyond the guard; all (B,)."""

    def still(self, epoch: Epoch) -> Tensor:
        """Whether the epoch was still: (A,) bool."""


@dataclass
class Problem:
    """What stays fixed while masks are learned."""

    model: nn.Module  # frozen
    images: Tensor  # (N, C, H, W)
    centre: float
    labels: Tensor  # (N,)
    members: list[Tensor]  # of each mask the numbers of its images
    reference: Tensor  # (N,), losses of the unmasked images
    spec: MaskSpec | FrequencyMapSpec
    objective: Objective
    seed: int

    @cached_property
    def batch(self) -> int:
        """Images of each mask in a step."""
        return min(self.spec.batch, max(map(len, self.members)))

    @cached_property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(max(map(len, self.members)) / self.batch)

    @property
    def single(self) -> bool:
        """Whether every mask has one image, so that there is no order to draw."""
        return len(self.members) == len(self.images)

    def spectrum(self, chosen: Tensor) -> Tensor:
        """rfft2 of the chosen images less the centre: (B, C, H, W // 2 + 1)."""
        return torch.fft.rfft2(self.images[chosen] - self.centre)

    def cost(self, masks: Tensor, spectrum: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the chosen images, B // A to each of A masks: cost; whether right; whether beyond the guard: (A, B // A).

        masks: (A, ..., H, W // 2 + 1); spectrum: (B, C, H, W // 2 + 1), theirs; chosen: (B,).
        """
        each = len(chosen) // len(masks)
        if each > 1:
            masks = masks.repeat_interleave(each, 0)
        filtered = self.centre + filter_spectrum(spectrum, masks, self.images.shape[-2:])
        with mixed_precision(chosen.device):
            logits = self.model(filtered.contiguous(memory_format=torch.channels_last)).float()
        labels = self.labels[chosen]
        losses = cross_entropy(logits, labels, reduction="none")
        cost, beyond = self.objective.cost(losses, self.reference[chosen])
        right = logits.argmax(1) == labels
        return cost.view(-1, each), right.view(-1, each), beyond.view(-1, each)

    def together(self) -> int:
        """How many masks the device has room for in one step, at least one.

        From the bytes that a step of one more image keeps for its gradient.
        """

        def kept(count: int) -> int:
            storages: dict[int, int] = {}  # where -> bytes; a result that several operations keep counts once

            def note(saved: Tensor) -> Tensor:
                storages[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
                return saved

            chosen = torch.zeros(count, dtype=torch.long, device=self.images.device)
            size = self.images.shape[-2:]
            masks = torch.ones(count, *self.objective.leading, size[0], size[1] // 2 + 1, device=chosen.device)
            with saved_tensors_hooks(note, lambda saved: saved):
                self.cost(masks.requires_grad_(), self.spectrum(chosen), chosen)
                return sum(storages.values())

        weights = sum(parameter.nbytes for parameter in self.model.parameters())
        return max(room(self.images.device, weights) // max(kept(2) - kept(1), 1) // self.batch, 1)


class Fit:
    """What changes while masks are learned, saved and restored as a whole.

    `rows` holds the masks in work, by name a tensor of A rows: "mask" and the moments of its slope, "mean" and
    "square"; "number"; epochs "done", and "still" ones in a row; and the last values of "invariance" and "l1_share".
    """

    def __init__(self, problem: Problem, together: int) -> None:
        self.problem, self.together = problem, together
        count, (height, width) = len(problem.members), problem.images.shape[-2:]
        self.half = torch.zeros(count, *problem.objective.leading, height, width // 2 + 1)
        self.epochs = torch.zeros(count, dtype=torch.long)
        self.converged = torch.zeros(count, dtype=torch.bool)
        self.begun = 0  # masks in work or finished: the first ones
        self.journal: list[dict[str, Tensor]] = []  # of each stretch between two looks, see `_note`
        self.recent: list[Tensor] = []  # (4, A), the values of each epoch since the last look
        self.since = torch.empty(0, dtype=torch.long)  # (A,), epochs that masks in work had done at the last look
        self.rates = _rates(problem).to(problem.images.device)
        self.rows = self._begin(0)

    @property
    def finished(self) -> int:
        """How many masks have stopped."""
        return self.begun - len(self.rows["mask"])

    def look(self) -> bool:
        """Put away the masks that have stopped, and begin others in their place; whether any is left in work.

        Only here does the host wait for the device. Raises `FmlibError` if anything has ceased to be finite.
        """
        if self.recent:
            self._note()
        rows, spec = self.rows, self.problem.spec
        stopped = rows["still"] >= spec.patience
        over = stopped | (rows["done"] >= spec.epochs)
        number = rows["number"][over].cpu()
        self.half[number], self.epochs[number] = rows["mask"][over].cpu(), rows["done"][over].cpu()
        self.converged[number] = stopped[over].cpu()
        free = self.together - (len(over) - len(number))  # below 0 where a larger device had begun
        new = self._begin(max(min(free, len(self.problem.members) - self.begun), 0))
        if len(number) or len(new["mask"]):
            self._take({name: torch.cat((value[~over], new[name])) for name, value in rows.items()})
        return len(self.rows["mask"]) > 0

    def run(self) -> None:
        """The epochs up to the next look, of all masks in work."""
        problem, numbers = self.problem, self.rows["number"].tolist()
        self.since = self.rows["done"].cpu()
        done = self.since.tolist()
        for epoch in range(min(max(CHECKED // problem.steps, 1), problem.spec.epochs - min(done))):
            if problem.single:
                self._epoch([(self.work, self.spectrum)])
            else:
                length = problem.steps * problem.batch
                orders = [
                    _order(problem.members[k], length, problem.seed, k, before + epoch)
                    for k, before in zip(numbers, done, strict=True)
                ]
                chosen = [part.flatten() for part in torch.stack(orders).chunk(problem.steps, 1)]
                self._epoch([(part, self.spectrum[self.place[part]]) for part in chosen])

    def last(self) -> dict[str, str]:
        """The last values, means over the masks that were in work, for a progress bar."""
        means = self.journal[-1]["found"][-1].mean(1).tolist()
        return {name: f"{mean:.4f}" for name, mean in zip(NAMES, means, strict=True)}

    def history(self) -> dict[str, Tensor]:
        """Of each name the values of every epoch, a mask that has stopped keeping its last: (epochs, K)."""
        longest = int(self.epochs.max())
        table = torch.zeros(len(NAMES), longest + CHECKED, len(self.epochs))
        for entry in self.journal:
            epoch = entry["done"] + torch.arange(len(entry["found"]))[:, None]  # (epochs, A)
            table[:, epoch, entry["number"]] = entry["found"].movedim(1, 0)
        last = torch.minimum(torch.arange(longest)[:, None], self.epochs - 1)  # (epochs, K)
        return {name: values.gather(0, last) for name, values in zip(NAMES, table, strict=True)}

    def state(self) -> dict[str, Any]:
        """All that a resumed fit needs."""
        names = ("half", "epochs", "converged", "begun", "journal", "rows")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.half, self.epochs, self.converged = (state[name].cpu() for name in ("half", "epochs", "converged"))
        self.begun, self.journal = state["begun"], [{k: v.cpu() for k, v in one.items()} for one in state["journal"]]
        self._take(state["rows"])

    def _begin(self, count: int) -> dict[str, Tensor]:
        """Rows of the next masks, as they begin."""
        device, start = self.rates.device, self.begun
        self.begun += count
        nought, earlier = torch.zeros(count, *self.half.shape[1:]), torch.zeros(count, self.problem.objective.window)
        number = torch.arange(start, self.begun)
        rows = {"mask": nought + 1, "mean": nought, "square": nought, "number": number, "done": 0 * number}
        rows |= {"still": 0 * number, "invariance": earlier, "l1_share": earlier}
        return {name: value.to(device) for name, value in rows.items()}

    def _take(self, rows: dict[str, Tensor]) -> None:
        """Let these rows be in work, with the spectra of their images."""
        self.rows, members = rows, [self.problem.members[k] for k in rows["number"].tolist()]
        if members:
            self.work = torch.cat(members)
            self.spectrum = self.problem.spectrum(self.work)
            self.place = torch.zeros(len(self.problem.images), dtype=torch.long, device=self.work.device)
            self.place[self.work] = torch.arange(len(self.work), device=self.work.device)

    def _epoch(self, batches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """One epoch of the masks in work; one that has stopped since the last look stays as it is.

        batches: of each step the images and their spectra, as many to each mask.
        """
        rows, spec, objective = self.rows, self.problem.spec, self.problem.objective
        share, width = objective.share, self.problem.images.shape[-1]
        running = (rows["still"] < spec.patience) & (rows["done"] < spec.epochs)
        before = share(rows["mask"], width)
        found = {name: torch.zeros_like(before) for name in NAMES}
        for step, (chosen, spectrum) in enumerate(batches):
            mask = rows["mask"].detach().requires_grad_()
            cost, right, beyond = self.problem.cost(mask, spectrum, chosen)  # (A, B // A) each
            whole = (cost.mean(1) + objective.weight * share(mask, width)).sum()
            self._move(torch.autograd.grad(whole, mask)[0], running, step)
            for name, value in (("invariance", cost.detach()), ("kept", right), ("guarded", beyond)):
                found[name] += value.float().mean(1) / len(batches)
        found["l1_share"] = share(rows["mask"], width)
        self.recent.append(torch.stack([found[name] for name in NAMES]))
        earlier = {name: rows[name] for name in ("invariance", "l1_share")}
        still = objective.still(Epoch(rows["number"], rows["done"], before, found, earlier))
        for name, values in earlier.items():
            rows[name] = torch.cat((values[:, 1:], found[name][:, None]), 1)
        rows["still"] = torch.where(running, torch.where(still, rows["still"] + 1, 0), rows["still"])
        rows["done"] = rows["done"] + running

    def _move(self, slope: Tensor, running: Tensor, step: int) -> None:
        """One step of Adam (Kingma and Ba, 2015), clamped to [0, 1], by each mask's own count of steps."""
        rows, steps, memory = self.rows, self.problem.steps, self.problem.spec.memory
        at = (rows["done"] * steps + step).clamp(max=len(self.rates) - 1)
        rate, fresh, root = (part.view(-1, *[1] * (slope.ndim - 1)) for part in self.rates[at].unbind(1))
        rows["mean"] = torch.lerp(rows["mean"], slope, fresh)
        rows["square"] = (rows["square"] * memory).addcmul(slope, slope, value=1 - memory)
        moved = rows["mask"] - rate * rows["mean"] / (rows["square"].sqrt() / root + 1e-8)
        moves = running.view(rate.shape)
        rows["mask"] = torch.where(moves, moved.clamp(0, 1), rows["mask"])

    def _note(self) -> None:
        """Put down the epochs since the last look: "found" (epochs, 4, A), "done" before (A,), "number" (A,)."""
        found, memory = torch.stack(self.recent), self.rows["square"]  # infinite after one overflow: masks would stick
        if not bool(torch.isfinite(found).all() & torch.isfinite(memory).all()):
            epoch = int(self.since.max()) + len(found)
            raise FmlibError(f"the mask objective is not finite by epoch {epoch}: lower the learning rate or guard")
        self.journal.append({"found": found.cpu(), "done": self.since, "number": self.rows["number"].cpu()})
        self.recent = []


def _rates(problem: Problem) -> Tensor:
    """Of each step of a mask: Adam's rate over 1 - beta_1^t, 1 - beta_1, and the root of 1 - beta_2^t: (steps, 3)."""
    spec, total = problem.spec, problem.spec.epochs * problem.steps
    count = torch.arange(1, total + 1, dtype=torch.float64)
    rate, decay = torch.full_like(count, spec.lr), torch.full_like(count, 0.9)
    if spec.one_cycle:
        planned = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=spec.lr)
        schedule, plan = one_cycle(planned, spec.lr, total), []
        for _ in range(total):
            plan.append((planned.param_groups[0]["lr"], planned.param_groups[0]["betas"][0]))
            planned.step()
            schedule.step()
        rate, decay = torch.tensor(plan, dtype=torch.float64).unbind(1)
    return torch.stack((rate / (1 - decay**count), 1 - decay, (1 - spec.memory**count).sqrt()), 1).float()


def _order(members: Tensor, length: int, seed: int, mask: int, epoch: int) -> Tensor:
    """`length` of a mask's images in random order, all of them shown before any comes again."""
    if len(members) == 1:
        return members.expand(length)
    draws = generator(seed, f"mask {mask} epoch {epoch}")
    rounds = math.ceil(length / len(members))
    order = torch.cat([torch.randperm(len(members), generator=draws) for _ in range(rounds)])[:length]
    return members[order.to(members.device)]
