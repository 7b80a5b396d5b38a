"""Experiments: named sets of tasks, and the files that are published from their artifacts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from fmlib import __version__
from fmlib.core.config import fingerprint
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.claims import Claim
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Store, Task, with_inputs, write_bytes


class Setting(Protocol):
    """What an experiment runs in: a profile, a seed and a device."""

    @property
    def profile(self) -> Any: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class Experiment:
    """A named part of a study: its tasks, and the files that are published from their artifacts."""

    name: str
    about: str
    tasks: Callable[[Any], list[Task]]
    export: Callable[[Any, Store], dict[str, bytes]]

    def tree(self, setup: Any) -> list[Task]:
        """Every task of the experiment and all they need, inputs first, each once."""
        return with_inputs(self.tasks(setup))


def publish(
    experiments: Sequence[Experiment], setup: Setting, store: Store, folder: Path, claims: Sequence[Claim]
) -> Results:
    """Write the files of experiments, all claims and the manifest to `folder`, in one step.

    What the folder holds of other experiments stays.

    Args:
        experiments: whose artifacts are all in `store`.
        folder: made if it is missing; left as it was if publishing fails.
        claims: all that are judged.

    Raises:
        FmlibError: an artifact is missing, or the folder holds another profile or seed.
    """
    absent = [task.name for experiment in experiments for task in experiment.tree(setup) if not store.has(task)]
    require(not absent, f"{len(absent)} artifacts are missing ({', '.join(absent[:3])} ...): run 'fmlib run' first")
    files: dict[str, bytes] = {}
    records: dict[str, Any] = {}
    if (folder / "manifest.json").exists():
        old = Results.open(folder)
        same = (old.profile, old.manifest["seed"]) == (setup.profile.name, setup.seed)
        require(same, f"{folder} holds profile {old.profile}, seed {old.manifest['seed']}: choose another folder")
        names = [experiment.name for experiment in experiments]
        records = {name: record for name, record in old.manifest["experiments"].items() if name not in names}
        files = {file: old.content(file) for record in records.values() for file in record["files"]}
    for experiment in experiments:
        made = experiment.export(setup, store)
        files |= made
        records[experiment.name] = _record(setup) | {
            "files": sorted(made),
            "tasks": [task.key for task in experiment.tree(setup)],
        }
    manifest: dict[str, Any] = {
        "profile": setup.profile.name,
        "data": setup.profile.data.source,
        "seed": setup.seed,
        "key": results_key(records),
        "experiments": records,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    for name, content in files.items():
        write_bytes(draft / name, content)
    try:
        evaluate_claims(Results(draft, manifest), claims)
    except FmlibError:
        shutil.rmtree(draft)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return Results.open(folder)


def _record(setup: Setting) -> dict[str, Any]:
    """How an experiment's files were computed."""
    return {"device": setup.device.type, "torch": torch.__version__, "fmlib": __version__}


def results_key(records: dict[str, Any]) -> str:
    """The hash of all tasks behind published experiments, however they are grouped."""
    return fingerprint(sorted({key for record in records.values() for key in record["tasks"]}))


def evaluate_claims(results: Results, claims: Sequence[Claim]) -> None:
    """Judge claims from the files of `results`; write `claims.json` and the manifest beside them."""
    rows = [claim.evaluate(results) for claim in claims]
    ledger = (json.dumps(rows, indent=1) + "\n").encode()
    write_bytes(results.folder / "claims.json", ledger)
    results.manifest["files"]["claims.json"] = hashlib.sha256(ledger).hexdigest()
    write_bytes(results.folder / "manifest.json", (json.dumps(results.manifest, indent=1) + "\n").encode())
