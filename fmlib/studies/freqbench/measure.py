"""Methods, built in or one's own, measured on the tasks of FreqBench: arrays, records, and one JSON file a method."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmlib import __version__
from fmlib.core.device import frozen, global_rng, keep_freed_memory
from fmlib.core.errors import FmlibError, require
from fmlib.core.intervals import average
from fmlib.studies.freqbench import scores as scoring
from fmlib.studies.freqbench.baselines import amplitude, low_pass, uniform
from fmlib.studies.freqbench.methods import (
    authors_schedule,
    ffc,
    frequency_maps,
    gradient_spectrum,
    greedy,
    integrated_gradients,
    random_masks,
    sequential,
)
from fmlib.studies.freqbench.tasks.problems import TASKS, Problem

BUILT_IN = {
    "sequential": sequential, "authors": authors_schedule, "frequency-maps": frequency_maps, "ffc": ffc,
    "gradient": gradient_spectrum, "integrated-gradients": integrated_gradients, "random-masks": random_masks,
    "greedy": greedy, "amplitude": amplitude, "low-pass": low_pass, "random": uniform,
}  # fmt: skip

#: Images that a method explains together, and images whose stability is measured, at most.
CHUNK, REPEATED = 16, 8
#: Seeds of a method's random numbers: of the scores, and of the restart.
SEEDS = (0, 1)


@dataclass(frozen=True)
class Method:
    """A way of scoring frequencies: `explain(model, images, target, budget) -> scores (N, H, W)`.

    `images` (N, C, H, W) are about the gray level that the model reads as zero; `budget` is a number of passes.
    """

    name: str
    explain: Callable[[nn.Module, Tensor, Tensor, int], Tensor]
    title: str
    source: str
    version: int
    budget: int
    own: bool = False  # whether it is a user's


def _described(name: str, explain: Any, module: ModuleType, own: bool) -> Method:
    about = {key: getattr(module, key.upper(), None) for key in ("title", "source", "version", "budget")}
    defaults = {"title": name, "source": "one's own", "version": 1, "budget": 60}
    given = {key: default if about[key] is None else about[key] for key, default in defaults.items()}
    return Method(name, explain, str(given["title"]), str(given["source"]), *_numbers(given), own)


def _numbers(given: dict[str, Any]) -> tuple[int, int]:
    for key in ("version", "budget"):
        whole = isinstance(given[key], int) and given[key] >= 0
        require(whole, f"{key.upper()} must be a whole number from 0, not {given[key]!r}")
    return given["version"], given["budget"]


METHODS = {name: _described(name, module.explain, module, own=False) for name, module in BUILT_IN.items()}


def own_method(place: str) -> Method:
    """The method FILE.py:FUNCTION; the file may set TITLE, SOURCE, VERSION and BUDGET.

    Raises:
        FmlibError: the file is missing or cannot be run, or has no such function.
    """
    file, colon, name = place.rpartition(":")
    require(bool(colon and file and name), f"--method takes FILE.py:FUNCTION, not {place!r}")
    path = Path(file)
    require(path.is_file(), f"there is no file {path}: give --method FILE.py:FUNCTION")
    require(path.suffix == ".py", f"{path} is no Python file: give --method FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(f"freqbench_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file's code raises
        raise FmlibError(f"{path} cannot be run: {type(error).__name__}: {error}".replace("\n", " ")) from error
    require(callable(getattr(module, name, None)), f"{path} has no function {name}")
    label = path.stem if name == "explain" else f"{path.stem}-{name}"
    require(label not in METHODS, f"{label} is the name of a built-in method: rename {path}")
    return _described(label, getattr(module, name), module, own=True)


class Counted(nn.Module):
    """A model that counts the images sent forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, C, H, W)."""
        self.forwards += len(images)
        logits = self.model(images)
        if logits.requires_grad:
            logits.register_hook(lambda grad: self._back(len(grad)))
        return logits

    def _back(self, count: int) -> None:
        self.backwards += count


def explained(method: Method, model: nn.Module, problem: Problem, budget: int, seed: int = SEEDS[0]) -> Tensor:
    """The scores of a problem's images, chunk by chunk: (N, H, W).

    Raises:
        FmlibError: the method fails, or returns anything but finite scores of that shape.
    """
    parts = []
    for images, target in zip(problem.images.split(CHUNK), problem.target.split(CHUNK), strict=True):
        with frozen(model), torch.enable_grad(), global_rng(seed, "freqbench"):
            try:
                found = method.explain(model, images.clone(), target.clone(), budget)
            except FmlibError:
                raise
            except Exception as error:  # whatever the method's code raises
                line = f"{type(error).__name__}: {error}".splitlines()[0]
                raise FmlibError(f"method {method.name} failed: {line}") from error
        parts.append(scoring.check_scores(found, images))
    return torch.cat(parts)


def _memory(reset: bool) -> float:
    """Memory of the process in MiB, now and with its high-water mark reset, or the highest since; nan if unknown."""
    with suppress(OSError, AttributeError):
        if reset:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines["VmRSS" if reset else "VmHWM"].split()[0]) / 1024
    return math.nan


def measure(
    method: Method, task: str, count: int, root: Path | None, budget: int | None = None, brief: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A method on a task.

    Args:
        task: a key of `TASKS`.
        count: number of images.
        root: folder of the photographs.
        budget: passes per image (default: the method's, as far as the task allows).
        brief: whether controls, transfer and stability are left out.

    Returns:
        Arrays: score -> (count,). Costs per image: budget, passes, gradients, seconds, memory in MiB.
    """
    keep_freed_memory()
    chosen = TASKS[task]
    budget = min(method.budget, chosen.cap) if budget is None else budget
    problem = chosen.load(count, root)
    model, before, start = Counted(problem.model).eval(), _memory(reset=True), time.perf_counter()
    scores = explained(method, model, problem, budget)
    seconds, peak = time.perf_counter() - start, _memory(reset=False) - before
    costs = {"budget": budget, "passes": model.forwards / count, "gradients": model.backwards / count}
    costs |= {"seconds": seconds / count, "memory_mib": peak, "images": count, "threads": torch.get_num_threads()}
    found = scoring.quality(problem, scores, others=not brief)
    if chosen.stability and not brief:
        few = problem.part(REPEATED)
        found["restart"] = scoring.agreement(scores[: len(few.target)], _again(method, few, budget))
        if chosen.other_seed and few.other is not None:
            found["seeds"] = scoring.agreement(
                scores[: len(few.target)], explained(method, few.other.eval(), few, budget)
            )
    return {name: values.float().numpy() for name, values in found.items()}, costs


def _again(method: Method, few: Problem, budget: int) -> Tensor:
    """The scores with another seed, and pixels moved by at most half a gray level: (N, H, W)."""
    noise = torch.rand(few.images.shape, generator=torch.Generator().manual_seed(SEEDS[1])) - 0.5
    moved = Problem(few.model, few.images + noise / 255, few.target)
    return explained(method, few.model, moved, budget, seed=SEEDS[1])


def record(
    method: Method, found: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]], scale: str
) -> dict[str, Any]:
    """One JSON object: the method, and for each task its scores with 95% intervals over images, and its costs.

    Args:
        found: task -> what `measure` returned.
        scale: "full" or "small".
    """
    tasks = {
        task: {"scores": {name: summary(values) for name, values in arrays.items()}, **costs}
        for task, (arrays, costs) in found.items()
    }
    about = {"method": method.name, "title": method.title, "source": method.source, "version": method.version}
    about |= {"own": method.own, "scale": scale, "device": "cpu", "threads": torch.get_num_threads()}
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "fmlib": __version__}
    return about | versions | {"date": date.today().isoformat(), "tasks": tasks}


def summary(values: np.ndarray) -> dict[str, float | int | None]:
    """Mean over images with its 95% interval: value, low, high, n; None where no image counts."""
    if np.isnan(values).all():
        return {"value": None, "low": None, "high": None, "n": 0}
    return {name: round(number, 6) for name, number in average(values)._asdict().items()}
