"""The experiment of a fraction of a second on which the campaign tries its faults."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from pathlib import Path

import torch

from fmlib.core.intervals import Measured
from fmlib.pipeline import results, scheduler
from fmlib.pipeline.claims import Claim, Rule
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Task, arrays_to_bytes, csv
from fmlib.studies import registry

STEPS = 3  # states that a toy task saves


def work(number: int, inputs: list[Artifact], checkpoint) -> Artifact:
    """A task of some milliseconds that resumes from its last saved state."""
    state = checkpoint.load() or {"step": 0, "total": torch.zeros(64)}
    while state["step"] < STEPS:
        time.sleep(0.002)
        state = {"step": state["step"] + 1, "total": state["total"] * 0.5 + number}
        checkpoint.save(state)
    total = state["total"].numpy() + sum(item.arrays["total"] for item in inputs)
    weights = {"weight": torch.full((3, 2), float(number))} if number == 1 else {}
    return Artifact({"total": total}, weights, {"number": number, "history": [number / 3, None]})


def task(number: int, *inputs: Task) -> Task:
    """One of the toy tasks."""
    return Task("toy", f"task {number}", {"number": number, "seed": 0}, partial(work, number), inputs)


def diamond() -> tuple[Task, Task]:
    """The last two tasks of five; the first is an input of all others."""
    first = task(1)
    middle = task(2, first), task(3, first)
    return task(4, *middle), task(5, middle[0])


def totals(setup, store) -> dict[str, bytes]:
    return {"totals.npz": arrays_to_bytes({"total": store.get(diamond()[0]).arrays["total"]})}


def means(setup, store) -> dict[str, bytes]:
    return {"means.csv": csv([{"mean": float(store.get(diamond()[1]).arrays["total"].mean())}])}


def mean(found) -> Measured:
    """The value of the toy claim."""
    value = float(found.table("means")["mean"][0])
    return Measured(value, value, value, 1)


EXPERIMENTS = {
    "totals": Experiment("totals", "a toy", lambda setup: [diamond()[0]], totals),
    "means": Experiment("means", "another toy", lambda setup: [diamond()[1]], means),
}
CLAIM = Claim(
    id="toy", source="control", statement="It is large.", unit="", n="images", chapter="toy", figure="f",
    timing="before", rule=Rule(at_least=1), measure=mean, arguments={}, requires="any data",
)  # fmt: skip


def install(publish_to: Path) -> None:
    """Let the commands of this process know the toy experiments only, and publish to a folder called "results"."""
    registry.all_experiments = lambda: EXPERIMENTS
    registry.all_claims = lambda: [CLAIM]
    results.PUBLISHED = publish_to
    scheduler.context = lambda: multiprocessing.get_context("fork")  # this process has computed nothing
