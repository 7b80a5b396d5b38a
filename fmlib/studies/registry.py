"""The studies of the book, in its order, with their experiments and claims.

A study is a folder beside this file, named as its chapter. To add one, name it in `STUDIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fmlib.core.errors import require
from fmlib.pipeline import scheduler
from fmlib.pipeline.claims import Claim, load_claims
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import Store, Task
from fmlib.studies.shared.setup import Setup

STUDIES = [
    "harmonic_distortion",
    "dataset_masks",
    "image_masks",
    "adversarial_tables",
    "class_separability",
    "fourier_heat_maps",
    "frequency_maps",
    "jacobian_regularisation",
    "what_it_costs",
]


def _has(study: str, module: str) -> bool:
    return find_spec(f"fmlib.studies.{study}.{module}") is not None


def all_experiments() -> dict[str, Experiment]:
    """Name -> experiment, in the order of the studies."""
    modules = [importlib.import_module(f"fmlib.studies.{one}.experiment") for one in STUDIES if _has(one, "experiment")]
    return {experiment.name: experiment for module in modules for experiment in module.EXPERIMENTS}


def experiments(names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of these names; none, or "all", is every one. Raises `FmlibError` for an unknown name."""
    known = all_experiments()
    for name in names:
        require(name in known or name == "all", f"unknown experiment {name!r}: choose from {', '.join(known)} or all")
    whole = "all" in names or not names
    return [experiment for name, experiment in known.items() if whole or name in names]


def all_claims() -> list[Claim]:
    """Every claim, in the order of the studies."""
    claims: list[Claim] = []
    for study in STUDIES:
        package = importlib.import_module(f"fmlib.studies.{study}")
        path = Path(str(package.__file__)).with_name("claims.toml")
        if path.exists():
            claims += load_claims(path, importlib.import_module(f"fmlib.studies.{study}.analysis"))
    return claims


def published() -> list[Results]:
    """All published results, a folder per profile."""
    return [Results.open(path.parent) for path in sorted(PUBLISHED.glob("*/manifest.json"))]


def run(chosen: Sequence[Experiment], setup: Setup, store: Store, workers: int | None = None) -> None:
    """Compute what `store` lacks of these experiments.

    Args:
        workers: processes that compute side by side (default: `scheduler.default_workers`); several draw no bars.

    Raises:
        FmlibError: as `scheduler.compute`.
    """
    if workers is None:
        workers = scheduler.default_workers(store.device)
    names = [experiment.name for experiment in chosen]
    plan = partial(_tasks, names, replace(setup, progress=setup.progress and workers == 1))
    scheduler.compute(plan, store, workers)


def _tasks(names: list[str], setup: Setup) -> list[Task]:
    fresh = replace(setup)  # without cached tasks, which do not pickle
    return [task for experiment in experiments(names) for task in experiment.tasks(fresh)]
