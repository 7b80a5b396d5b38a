"""Training classifiers under the regimes of `augment.REGIMES`, with or without Jacobian regularisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from fmlib.core.augment import REGIMES, Batch
from fmlib.core.checks import PROBES, check_classifier
from fmlib.core.config import JacobianTrainSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.device import Checkpoint, generator, global_rng, mixed_precision, one_cycle
from fmlib.core.errors import FmlibError, require
from fmlib.core.evaluation import evaluate
from fmlib.core.jacobian import PENALTIES


def jacobian_penalty(batch: Batch, spec: JacobianTrainSpec) -> Tensor:
    """weight * PENALTIES[statistic](G), the differentiable penalty that Jacobian regularisation adds to the loss.

    G is the input gradient of the first `spec.images` clean images of the batch, also in adversarial training (Chan et
    al., 2022). It takes another forward pass in train mode, which leaves batch norm's running statistics unchanged. The
    pass has full precision, because bfloat16 would add white noise to the spectrum.
    """
    images = batch.clean[: spec.images].detach().requires_grad_()
    with fixed_running_statistics(batch.model):
        loss = cross_entropy(batch.model(images), batch.labels[: spec.images], reduction="sum")
    gradients = torch.autograd.grad(loss, images, create_graph=True)[0]
    return spec.weight * PENALTIES[spec.statistic](gradients)


@contextmanager
def fixed_running_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm in train mode normalises by the batch within the block, without updating its running statistics."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class State:
    """What training changes in a number of steps, saved and restored as a whole."""

    def __init__(self, model: nn.Module, spec: TrainSpec, steps: int) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr, fused=True)
        self.schedule = one_cycle(self.optimizer, spec.lr, steps, spec.warmup)
        self.history: list[dict[str, float]] = []  # one row per completed epoch
        self.best: tuple[float, dict[str, Tensor]] = (float("inf"), {})  # lowest validation loss, and its weights

    def log(self, row: dict[str, float]) -> None:
        """Add the row of an epoch, and keep the weights if its validation loss is the lowest so far."""
        self.history.append(row)
        if row["validation_loss"] < self.best[0]:
            self.best = (row["validation_loss"], copy.deepcopy(self.model.state_dict()))

    def saved(self) -> dict[str, Any]:
        """All that resumed training needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        return parts | {"history": self.history, "best": self.best}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from a state of `saved`."""
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        self.history, self.best = saved["history"], saved["best"]


def epoch(state: State, data: Split, spec: TrainSpec, seed: int, batches: int, bar: tqdm) -> dict[str, float]:
    """One epoch of training steps: the mean loss and accuracy on the augmented batches, before each step."""
    model, device, index = state.model, data.images.device, len(state.history)
    rng = generator(seed, f"epoch {index}", device)
    order = torch.randperm(len(data), generator=rng, device=device)
    losses, correct = torch.zeros((), device=device), torch.zeros((), device=device)
    model.train()
    with global_rng(seed, f"dropout {index}"):
        for step in range(batches):
            chosen = order[step * spec.batch : (step + 1) * spec.batch]
            labels = data.labels[chosen]
            batch = Batch(data.pixels(chosen), labels, model, spec, rng, seed, index * batches + step)
            images = REGIMES[spec.regime].augment(batch).contiguous(memory_format=torch.channels_last)
            with mixed_precision(device):
                logits = model(images)
                loss = cross_entropy(logits.float(), labels)
            state.optimizer.zero_grad(set_to_none=True)
            (loss + jacobian_penalty(batch, spec) if isinstance(spec, JacobianTrainSpec) else loss).backward()
            state.optimizer.step()
            state.schedule.step()
            losses += loss.detach()
            correct += (logits.argmax(1) == labels).float().mean()
            bar.update()
            if not bar.disable and step % 10 == 9:
                bar.set_postfix(loss=f"{losses / (step + 1):.3f}", accuracy=f"{correct / (step + 1):.3f}")
    return {"loss": float(losses) / batches, "accuracy": float(correct) / batches}


def validate(model: nn.Module, validation: Split) -> dict[str, float]:
    """The mean loss and accuracy on the validation images."""
    losses, correct = evaluate(model, validation.batches(256))
    return {"validation_loss": float(losses.mean()), "validation_accuracy": float(correct.float().mean())}


def train(
    model: nn.Module,
    data: Split,
    validation: Split,
    spec: TrainSpec,
    *,
    seed: int,
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `model` in place, by Adam with a one-cycle learning rate (the paper, section 2.2).

    The model ends in eval mode, with the weights of the epoch of the lowest validation loss. All randomness follows
    from the seed and the epoch, so that a run resumed from `checkpoint` gives the same network.

    Args:
        model: a classifier that returns logits (B, classes).
        data, validation: images and labels, on the model's device.
        spec: regime, schedule and attack; a `JacobianTrainSpec` adds its statistic to the loss (`jacobian_penalty`).
        seed: of the order of the images, augmentation, attacks and dropout.
        checkpoint: where the state is saved after an epoch, and from which training resumes.
        progress: whether to draw a progress bar.

    Returns:
        One row per epoch: "loss" and "accuracy" on the augmented training images, during the epoch, and
        "validation_loss" and "validation_accuracy" after it.

    Raises:
        FmlibError: an unknown regime or statistic, a model that does not fit the data, or a loss that is not finite.

    Example:
        >>> spec = fmlib.TrainSpec("S", epochs=1, batch=16)  # scale augmentation
        >>> history = fmlib.train(network, data.train, data.validation, spec, seed=0, progress=False)
        >>> list(history[0])
        ['loss', 'accuracy', 'validation_loss', 'validation_accuracy']
    """
    require(spec.regime in REGIMES, f"unknown regime {spec.regime!r}: choose one of {', '.join(REGIMES)}")
    known, statistic = ", ".join(PENALTIES), getattr(spec, "statistic", None)
    require(statistic in (None, *PENALTIES), f"unknown statistic {statistic!r}: choose one of {known}")
    check_classifier(model, data.pixels(slice(PROBES)), data.labels)
    batches = max(len(data) // spec.batch, 1)
    state = State(model, spec, spec.epochs * batches)
    if checkpoint and (saved := checkpoint.load()):
        state.restore(saved)

    total, done = spec.epochs * batches, len(state.history) * batches
    with tqdm(total=total, initial=done, desc=f"train {spec.regime}", unit="step", disable=not progress) as bar:
        while len(state.history) < spec.epochs:
            row = epoch(state, data, spec, seed, batches, bar) | validate(model, validation)
            if not all(map(math.isfinite, row.values())):
                where = f"epoch {len(state.history) + 1} of regime {spec.regime}"
                raise FmlibError(f"the loss is not finite in {where}: lower the learning rate")
            state.log(row)
            bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
            if checkpoint and checkpoint.due():
                checkpoint.save(state.saved())
    model.load_state_dict(state.best[1])
    model.eval()
    return state.history
