"""Training and evaluating classifiers under the paper's five regimes and one more, with a statistic or without."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from fmlib.core.augment import REGIMES, Batch
from fmlib.core.config import JacobianTrainSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.device import Checkpoint, generator, global_rng, mixed_precision, one_cycle
from fmlib.core.errors import FmlibError, require
from fmlib.core.evaluation import check_classifier, evaluate
from fmlib.core.jacobian import PENALTIES


def jacobian_penalty(batch: Batch, spec: JacobianTrainSpec) -> Tensor:
    """weight * PENALTIES[statistic](G): what the Jacobian adds to the loss, to be differentiated once more.

    G is taken by the first `spec.images` clean images of the batch, also where the network is shown attacked ones
    (Chan et al., 2022), in one more forward pass. It is a pass in train mode, normalised by its own images, that
    leaves batch norm's running statistics alone; in full precision, as bfloat16 would add white noise to the spectrum.
    """
    images = batch.clean[: spec.images].detach().requires_grad_()
    with still_statistics(batch.model):
        loss = cross_entropy(batch.model(images), batch.labels[: spec.images], reduction="sum")
    gradients = torch.autograd.grad(loss, images, create_graph=True)[0]
    return spec.weight * PENALTIES[spec.statistic](gradients)


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm in train mode goes by the batch within the block, but does not add it to its running statistics."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


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
    """Train `model` in place and leave it with the weights of the epoch of least validation loss.

    data, validation: splits on the model's device. Adam with a one-cycle rate (the paper, section 2.2). A
    `JacobianTrainSpec` adds its statistic to the loss (see `jacobian_penalty`). Returns one row an epoch: cross-entropy
    and accuracy (running, on what the regime made of the training set), and both on validation.
    Every random draw follows from (seed, epoch), so a run resumed from `checkpoint` gives the same network.
    Raises `FmlibError` for an unknown regime or statistic, a model that does not fit the data, or a loss that is not
    finite.
    """
    require(spec.regime in REGIMES, f"unknown regime {spec.regime!r}: choose one of {', '.join(REGIMES)}")
    if isinstance(spec, JacobianTrainSpec):
        known = ", ".join(PENALTIES)
        require(spec.statistic in PENALTIES, f"unknown statistic {spec.statistic!r}: choose one of {known}")
    check_classifier(model, data.pixels(slice(2)), int(data.labels.max()) + 1)
    device = data.images.device
    batches = max(len(data) // spec.batch, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr)
    schedule = one_cycle(optimizer, spec.lr, spec.epochs * batches, spec.warmup)
    history: list[dict[str, float]] = []
    best: tuple[float, dict[str, Tensor]] = (float("inf"), {})
    state = checkpoint.load() if checkpoint else None
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        history, best = state["history"], state["best"]

    total, done = spec.epochs * batches, len(history) * batches
    bar = tqdm(total=total, initial=done, desc=f"train {spec.regime}", unit="step", disable=not progress)
    for epoch in range(len(history), spec.epochs):
        rng = generator(seed, f"epoch {epoch}", device)
        order = torch.randperm(len(data), generator=rng, device=device)
        losses, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        model.train()
        with global_rng(seed, f"dropout {epoch}"):
            for index in range(batches):
                chosen = order[index * spec.batch : (index + 1) * spec.batch]
                labels = data.labels[chosen]
                batch = Batch(data.pixels(chosen), labels, model, spec, rng, seed, epoch * batches + index)
                images = REGIMES[spec.regime](batch).contiguous(memory_format=torch.channels_last)
                with mixed_precision(device):
                    logits = model(images)
                    loss = cross_entropy(logits.float(), labels)
                optimizer.zero_grad(set_to_none=True)
                (loss + jacobian_penalty(batch, spec) if isinstance(spec, JacobianTrainSpec) else loss).backward()
                optimizer.step()
                schedule.step()
                losses += loss.detach()
                correct += (logits.argmax(1) == labels).float().mean()
                bar.update()
                if progress and index % 10 == 9:
                    bar.set_postfix(loss=f"{losses / (index + 1):.3f}", accuracy=f"{correct / (index + 1):.3f}")
        mean_loss = float(losses) / batches
        validation_losses, right = evaluate(model, validation.batches(256))
        if not bool(torch.isfinite(losses) & torch.isfinite(validation_losses).all()):
            raise FmlibError(
                f"the loss is not finite in epoch {epoch + 1} of regime {spec.regime}: lower the learning rate"
            )
        row = {
            "loss": mean_loss,
            "accuracy": float(correct) / batches,
            "validation_loss": float(validation_losses.mean()),
            "validation_accuracy": float(right.float().mean()),
        }
        history.append(row)
        if row["validation_loss"] < best[0]:
            best = (row["validation_loss"], copy.deepcopy(model.state_dict()))
        bar.set_postfix({name: f"{value:.3f}" for name, value in row.items()})
        if checkpoint and checkpoint.due():
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "history": history,
                    "best": best,
                }
            )
    bar.close()
    model.load_state_dict(best[1])
    model.eval()
    return history
