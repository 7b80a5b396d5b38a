"""FreqBench as an experiment: every built-in method on every task, and a few methods at other budgets.

On photographs all tasks are measured. Profile `quick` has none: there the methods explain a few images of each kind of
tones, in short.
"""

from __future__ import annotations

from typing import Any

from fmlib.core.config import SyntheticSpec
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.freqbench.measure import METHODS, measure
from fmlib.studies.freqbench.tasks.networks import checksum
from fmlib.studies.freqbench.tasks.problems import TASKS
from fmlib.studies.shared.setup import Setup

#: Images and largest budget of the small version.
FEW, SHORT = 3, 6
#: Method -> further budgets, in passes per image, at which it explains the tasks of `SWEPT`.
SWEEP = {
    "sequential": (10, 20), "authors": (100,), "frequency-maps": (100,), "ffc": (5,), "integrated-gradients": (5,),
    "random-masks": (100,), "greedy": (100,),
}  # fmt: skip
SWEPT = ("phase", "N")


def is_small(setup: Setup) -> bool:
    """Whether the small version is measured, which needs no photographs."""
    return isinstance(setup.profile.data, SyntheticSpec)


def run(setup: Setup, method: str, task: str, budget: int | None = None) -> Task:
    """One method on one task.

    Arrays: score -> (N,), one value per image, see `scores.MEANINGS`. Facts: the costs, see `measure.measure`.

    Args:
        budget: another one than the method's own; then controls, transfer and stability are left out.
    """
    chosen, way = TASKS[task], METHODS[method]
    passes = min(way.budget, SHORT if is_small(setup) else chosen.cap) if budget is None else budget
    images = FEW if is_small(setup) else chosen.images

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        return Artifact(*_measured(setup, method, task, images, passes, budget is not None))

    described = {"method": method, "version": way.version, "task": task, "budget": passes, "images": images}
    described |= {"brief": budget is not None, "networks": checksum()}
    if chosen.photographs is not None:
        described["files"] = setup.fingerprint(chosen.photographs)
    name = f"{method} on {task}, {passes} passes, {images} images"
    return Task("freqbench", name, described, compute, cost=2.0 * images * (passes + 100))


def _measured(setup: Setup, method: str, task: str, images: int, budget: int, brief: bool) -> tuple[Any, Any, Any]:
    arrays, costs = measure(METHODS[method], task, images, setup.root, budget, brief)
    return arrays, {}, costs


def plan(setup: Setup) -> dict[tuple[str, str, int | None], Task]:
    """(task, method, other budget or None) -> the task that measures it."""
    names = [name for name, task in TASKS.items() if task.photographs is None or not is_small(setup)]
    runs: list[tuple[str, str, int | None]] = [(task, method, None) for task in names for method in METHODS]
    if not is_small(setup):
        runs += [(task, method, one) for task in SWEPT for method, budgets in SWEEP.items() for one in budgets]
    return {key: run(setup, key[1], key[0], key[2]) for key in runs}


def _name(task: str, method: str, budget: int | None) -> str:
    return f"{task}/{method}" + (f"@{budget}" if budget is not None else "")


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    """Arrays `<task>/<method>[@<budget>]/<score>` (N,), and one row of costs per task and method; none of seconds."""
    arrays: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for key, task in plan(setup).items():
        artifact, name = store.get(task), _name(*key)
        arrays |= {f"{name}/{score}": values for score, values in artifact.arrays.items()}
        costs = {one: artifact.facts[one] for one in ("budget", "passes", "gradients", "images")}
        rows.append({"task": key[0], "method": key[1], "swept": key[2] is not None} | costs)
    return {"freqbench.npz": arrays_to_bytes(arrays), "freqbench.csv": csv(rows)}


def found(setup: Setup, store: Store, method: str) -> dict[str, Any]:
    """Task -> what `measure.measure` found of a method at its own budget."""
    wanted = {key[0]: task for key, task in plan(setup).items() if key[1:] == (method, None)}
    artifacts = {name: store.get(task) for name, task in wanted.items()}
    return {name: (artifact.arrays, artifact.facts) for name, artifact in artifacts.items()}


EXPERIMENTS = (
    Experiment(
        "freqbench",
        "methods that find the frequencies a network needs, compared where the truth is known or can be checked",
        lambda setup: list(plan(setup).values()),
        _files,
        precision="float32",
    ),
)
