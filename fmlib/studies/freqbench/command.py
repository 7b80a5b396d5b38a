"""The command `fmlib freqbench`: measure the built-in methods, or one's own, and write one JSON file a method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmlib.core.errors import require
from fmlib.pipeline.disk.files import signed_json, write_bytes
from fmlib.pipeline.store import Store
from fmlib.studies.freqbench import experiment
from fmlib.studies.freqbench.measure import METHODS, Method, measure, own_method, record
from fmlib.studies.freqbench.tasks.problems import TASKS
from fmlib.studies.shared.setup import Setup


def freqbench(
    places: list[str],
    tasks: list[str],
    images: int | None,
    budget: int | None,
    setup: Setup,
    store: Store,
    folder: Path,
    say: Callable[[str], None],
) -> list[Path]:
    """Measure methods and write their files.

    Args:
        places: names of built-in methods, or FILE.py:FUNCTION; none means all built-in ones as the experiment
            `freqbench` measures them, whose finished parts the store keeps.
        tasks: keys of `TASKS`; none means all for which there are images.
        images: of each task, at most.
        budget: passes per image, instead of the method's own.
        folder: where to write.
        say: called with each line of progress.

    Returns:
        The files, one a method.

    Raises:
        FmlibError: a name is unknown, a file has no such function, or a method fails.
    """
    for task in tasks:
        require(task in TASKS, f"unknown task {task!r}: choose from {', '.join(TASKS)}")
    require(images is None or images >= 2, f"--images must be at least 2, not {images}")
    require(budget is None or budget >= 0, f"--budget must be 0 or more, not {budget}")
    if not (places or tasks or images or budget):
        return _every(setup, store, folder, say)
    methods = [_method(place) for place in places] or list(METHODS.values())
    wanted = tasks or [name for name, task in TASKS.items() if task.photographs is None or setup.root is not None]
    if len(wanted) < len(TASKS) and not tasks:
        say("tasks on photographs are left out: give --data-root FOLDER (or FMLIB_DATA) to measure them too")
    return [_one(method, wanted, images, budget, setup, folder, say) for method in methods]


def _method(place: str) -> Method:
    if place in METHODS:
        return METHODS[place]
    require(":" in place, f"unknown method {place!r}: choose from {', '.join(METHODS)}, or give FILE.py:FUNCTION")
    return own_method(place)


def _one(
    method: Method,
    tasks: list[str],
    images: int | None,
    budget: int | None,
    setup: Setup,
    folder: Path,
    say: Callable[[str], None],
) -> Path:
    """Measure a method on some tasks and write its file."""
    found = {}
    for task in tasks:
        count = min(images or TASKS[task].images, TASKS[task].images)
        arrays, costs = measure(method, task, count, setup.root, budget)
        found[task] = (arrays, costs)
        area = float(arrays["insertion"].mean()) - float(arrays["deletion"].mean())
        say(
            f"{method.name} on {task}: insertion minus deletion {area:.3f}, {costs['passes']:.0f} passes and "
            f"{costs['seconds']:.2g} s per image ({count} images)"
        )
    return _write(record(method, found, "full" if images is None else "part"), folder)


def _every(setup: Setup, store: Store, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Measure every built-in method on every task, as far as the store lacks it, and write all files."""
    store.require_writable()
    for task in experiment.plan(setup).values():
        store.get(task)
    scale = "small" if experiment.is_small(setup) else "full"
    return [
        _write(record(method, experiment.found(setup, store, name), scale), folder) for name, method in METHODS.items()
    ]


def _write(found: dict[str, Any], folder: Path) -> Path:
    path = folder / f"{found['method']}.json"
    write_bytes(path, signed_json(found).encode())
    return path
