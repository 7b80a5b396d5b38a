"""The studies of the book, in its order, with their experiments and claims.

A study is a folder beside this file, named as its chapter. It may hold `experiment.py` with `EXPERIMENTS`, and
`claims.toml` with the functions that measure the claims in `analysis.py`. To add a study, name it in `STUDIES`.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fmlib.core.errors import FmlibError, require
from fmlib.pipeline import scheduler
from fmlib.pipeline.claims import Claim, load_claims
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.launchers.ray import RayCluster
from fmlib.pipeline.progress import Progress
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import Store, Task
from fmlib.studies.shared.setup import Setup

STUDIES = [
    "primer",
    "harmonic_distortion",
    "dataset_masks",
    "image_masks",
    "adversarial_tables",
    "class_separability",
    "uniqueness",
    "fourier_heat_maps",
    "frequency_maps",
    "jacobian_regularisation",
    "own_network",
    "what_it_costs",
    "freqbench",
    "discussion",
]


def all_experiments() -> dict[str, Experiment]:
    """Name -> experiment, in the order of the studies."""
    names = [name for study in STUDIES if find_spec(name := f"fmlib.studies.{study}.experiment")]
    listed = [experiment for name in names for experiment in importlib.import_module(name).EXPERIMENTS]
    _require_unique("experiment", [experiment.name for experiment in listed])
    return {experiment.name: experiment for experiment in listed}


def experiments(names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments of these names, in the order of the studies.

    Args:
        names: none, or "all" among them, means every experiment.

    Raises:
        FmlibError: a name is unknown.
    """
    known = all_experiments()
    for name in names:
        require(name in known or name == "all", f"unknown experiment {name!r}: choose from {', '.join(known)} or all")
    everything = not names or "all" in names
    return [experiment for name, experiment in known.items() if everything or name in names]


def needing_only(setup: Setup, names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments that need networks of the setup's profile and no other, in the order of the studies.

    Args:
        names: as `experiments` takes them.

    Raises:
        FmlibError: a name is unknown, or an experiment that is named does not need these networks, or others as well.
    """
    seeds = range(setup.profile.repetitions)
    trained = {setup.network(*one).key for one in itertools.product(setup.profile.regimes, seeds)}
    found = []
    for experiment in experiments(names):
        needed = {task.key: task.name for task in experiment.tree(setup) if task.kind == "network"}
        others = ", ".join(name for key, name in needed.items() if key not in trained)
        if needed and not others:
            found.append(experiment)
        elif experiment.name in names:
            raise FmlibError(f"{experiment.name} needs {others or 'none of the networks'}: leave out --networks")
    return found


def all_claims() -> list[Claim]:
    """Every claim, in the order of the studies."""
    claims: list[Claim] = []
    for study in STUDIES:
        path = Path(importlib.import_module(f"fmlib.studies.{study}").__path__[0]) / "claims.toml"
        if path.exists():
            claims += load_claims(path, importlib.import_module(f"fmlib.studies.{study}.analysis"))
    _require_unique("claim", [claim.id for claim in claims])
    return claims


def _require_unique(what: str, names: Sequence[str]) -> None:
    """Raise `FmlibError` if a name occurs twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"two studies define the {what} {', '.join(twice)}")


def published() -> list[Results]:
    """All published results, one folder per profile; raises `FmlibError` if a folder has lost its manifest."""
    folders = [path for path in sorted(PUBLISHED.iterdir()) if path.is_dir() and path.name[0] not in "._"]
    return [Results.open(folder) for folder in folders if folder.name not in ("bench", "freqbench")]


def restore(names: Sequence[str], setup: Setup, store: Store, results: Results) -> list[str]:
    """Put published artifacts that `store` lacks into it, so that they are not computed again.

    An artifact is restored if its key is the published one, and the store's networks behind it are the published
    ones, weight for weight.

    Args:
        names: of experiments that have `Experiment.restore`.
        results: published with the setup's profile.

    Returns:
        The names of the restored tasks.

    Raises:
        FmlibError: there is no such experiment of this name.
    """
    known = [one.name for one in experiments() if one.restore]
    for name in names:
        require(name in known, f"cannot use published results of {name!r}: choose from {', '.join(known)}")
    return [task for one in experiments(names) if one.restore for task in one.restore(setup, store, results)]


def run(
    chosen: Sequence[Experiment],
    setup: Setup,
    store: Store,
    workers: int | None = None,
    progress: Progress | None = None,
    cluster: RayCluster | None = None,
) -> None:
    """Compute what `store` lacks of these experiments.

    Args:
        workers: processes that compute side by side (default: `scheduler.default_workers`). Tasks draw progress bars
            only with one worker. On a cluster: tasks at once (default: as many as fit on its nodes).
        progress: is notified when tasks start and finish.
        cluster: where to compute (default: on this machine).

    Raises:
        FmlibError: as `scheduler.compute`, or the cluster cannot be reached.
    """
    if cluster is not None:
        with cluster:
            root = setup.root and setup.root.absolute()
            there = replace(setup, device=cluster.device, root=root, progress=False)
            plan = partial(_tasks, [experiment.name for experiment in chosen], there)
            count = cluster.slots if workers is None else workers
            scheduler.compute(plan, store, count, progress, cluster.launch)
        return
    if workers is None:
        workers = scheduler.default_workers(store.device)
    names = [experiment.name for experiment in chosen]
    plan = partial(_tasks, names, replace(setup, progress=setup.progress and workers == 1))
    scheduler.compute(plan, store, workers, progress)


def _tasks(names: list[str], setup: Setup) -> list[Task]:
    fresh = replace(setup)  # without cached tasks, which do not pickle
    return [task for experiment in experiments(names) for task in experiment.tasks(fresh)]
