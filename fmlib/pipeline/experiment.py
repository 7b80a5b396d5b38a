"""Experiments: named sets of tasks, and the files that are published from their artifacts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from fmlib import __version__
from fmlib.core.config import fingerprint
from fmlib.core.device import precision
from fmlib.core.errors import require
from fmlib.pipeline.claims import Claim
from fmlib.pipeline.disk.files import cannot_write, write_bytes
from fmlib.pipeline.disk.locks import locked
from fmlib.pipeline.results import Results, manifest_text
from fmlib.pipeline.store import Artifact, Store, Task, with_inputs


class Setting(Protocol):
    """What an experiment runs in: a profile, a seed and a device."""

    @property
    def profile(self) -> Any:
        """The scale of the computation."""

    @property
    def seed(self) -> int:
        """The seed of the first repetition."""

    @property
    def device(self) -> torch.device:
        """The device that computes."""


@dataclass(frozen=True)
class Experiment:
    """A named part of a study.

    Attributes:
        name: as the command line and the manifest call it.
        about: one line for people.
        tasks: setup -> the tasks whose artifacts it publishes.
        export: setup and store -> name and content of each published file.
        images: setup -> number of images, where there is one.
        precision: of its networks, where it does not depend on the device.
        restore: setup, store and published results -> the names of the tasks whose artifacts it read from the results
            and put into the store, so that they are not computed again.
    """

    name: str
    about: str
    tasks: Callable[[Any], list[Task]]
    export: Callable[[Any, Store], dict[str, bytes]]
    images: Callable[[Any], int] | None = None
    precision: str = ""
    restore: Callable[[Any, Store, Results], list[str]] | None = None

    def tree(self, setup: Any) -> list[Task]:
        """The experiment's tasks and all their inputs, inputs first, each once."""
        return with_inputs(self.tasks(setup))


def publish(
    experiments: Sequence[Experiment], setup: Setting, store: Store, folder: Path, claims: Sequence[Claim]
) -> Results:
    """Write the files of experiments, all claims and the manifest to `folder`, in one step.

    The folder keeps its files of other experiments, and the files that a record lists as "archived": they are of
    computations that cannot be repeated. Two publications to one folder follow one another. A publication
    that is killed leaves the folder as it was, complete, or beside it: the next publication puts it back.

    Args:
        experiments: whose artifacts are all in `store`.
        folder: made if it is missing; left as it was if publishing fails.
        claims: evaluated from all files of the folder.

    Raises:
        FmlibError: an artifact is missing, the folder holds another profile or seed, or an experiment that it keeps
            used an artifact that is replaced, or the files cannot be written.
    """
    place = folder.with_name(f".publishing-{folder.name}")
    wait = partial(store.note, f"another run publishes to {folder}: waiting for it")
    with locked(place.with_name(f"{place.name}.lock"), wait):
        try:
            _recover(folder, place)
            _publish(experiments, setup, store, folder, claims, place)
        except OSError as error:
            raise cannot_write(folder, error) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return Results.open(folder)


def put_published(
    store: Store, record: str, results: Results, task: Task, read: Callable[[], Artifact | None]
) -> list[str]:
    """Put what `read` makes of published files into the store, if it lacks the task and has the published networks.

    Args:
        record: the experiment whose record must name the task's key, and the checksums of the networks it depends on:
            trained on another machine, a network of the same key has other weights.
        read: returns None if the files do not hold the whole artifact.

    Returns:
        The task's name if it was put into the store, else nothing.
    """
    published = results.manifest["experiments"].get(record, {"tasks": []})
    if task.key not in published["tasks"] or store.has(task):
        return []
    checksums = published.get("networks", {})
    networks = [one for one in with_inputs(task.inputs) if one.kind == "network"]
    same = all(store.has(one) and store.weights_checksum(one) == checksums.get(one.name) for one in networks)
    if not same or (artifact := read()) is None:
        return []
    store.put(task, artifact)
    return [task.name]


def _recover(folder: Path, place: Path) -> None:
    """Put back the folder that a killed publication has moved to `place`, and remove what else it left."""
    if (place / "old").exists() and not folder.exists():
        (place / "old").rename(folder)
    shutil.rmtree(place, ignore_errors=True)


def _publish(
    experiments: Sequence[Experiment],
    setup: Setting,
    store: Store,
    folder: Path,
    claims: Sequence[Claim],
    place: Path,
) -> None:
    """Publish by way of `place`, a folder beside `folder`."""
    trees = {experiment.name: experiment.tree(setup) for experiment in experiments}
    planned = [task for experiment in experiments for task in experiment.tasks(setup)]
    absent = [task.name for task in with_inputs(planned, skip=store.has)]  # as 'fmlib run' finds them
    require(not absent, f"{len(absent)} artifacts are missing, such as {', '.join(absent[:3])}: run 'fmlib run' first")
    records, files = _kept(folder, setup, trees)
    for experiment in experiments:
        exported = experiment.export(setup, store)
        twice = ", ".join(sorted(exported.keys() & files.keys()))
        require(not twice, f"{experiment.name} exports {twice}, which is archived or another experiment's")
        files |= exported
        archived = records.get(experiment.name, {}).get("archived", [])
        records[experiment.name] = _record(experiment, setup, trees[experiment.name], store)
        records[experiment.name]["files"] = sorted([*exported, *archived])
        if archived:
            records[experiment.name]["archived"] = archived
    manifest: dict[str, Any] = {
        "profile": setup.profile.name,
        "data": setup.profile.data.source,
        "seed": setup.seed,
        "key": results_key(records),
        "experiments": records,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    draft = place / "new"
    for name, content in files.items():
        write_bytes(draft / name, content)
    evaluate_claims(Results(draft, manifest), claims)
    if folder.exists():
        folder.rename(place / "old")
    try:
        draft.rename(folder)
    except BaseException:
        _recover(folder, place)
        raise


def _kept(
    folder: Path, setup: Setting, trees: dict[str, list[Task]]
) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """The records of all experiments that `folder` holds, and the files that stay.

    These are all files of those that are not in `trees`, and the archived ones of those that are.
    """
    if not (folder / "manifest.json").exists():
        lost = folder.is_dir() and any(folder.iterdir())
        require(not lost, f"{folder} holds files, but its manifest.json is missing: restore it, or delete the folder")
        return {}, {}
    old = Results.open(folder)
    same = (old.profile, old.manifest["seed"]) == (setup.profile.name, setup.seed)
    require(same, f"{folder} holds profile {old.profile}, seed {old.manifest['seed']}: choose another folder")
    records = dict(old.manifest["experiments"])
    replaced = {key for name in trees.keys() & records.keys() for key in records[name]["tasks"]}
    replaced -= {task.key for tree in trees.values() for task in tree}
    kept = {name: record for name, record in records.items() if name not in trees}
    outdated = ", ".join(name for name, record in kept.items() if replaced & set(record["tasks"]))
    require(not outdated, f"{folder} holds {outdated} from artifacts that are replaced now: publish {outdated} as well")
    stay = [record.get("archived", []) if name in trees else record["files"] for name, record in records.items()]
    return records, {file: old.content(file) for names in stay for file in names}


def _record(experiment: Experiment, setup: Setting, tree: Sequence[Task], store: Store) -> dict[str, Any]:
    """How an experiment's files were computed, for the manifest.

    Trained again, on another machine, a network of the same key has other weights. "networks" tells them apart.
    """
    record: dict[str, Any] = {
        "device": setup.device.type,
        "torch": torch.__version__,
        "fmlib": __version__,
        "precision": experiment.precision or precision(setup.device),
        "seeds": sorted({task.spec["seed"] for task in tree if "seed" in task.spec}),
    }
    if experiment.images:
        record["images"] = experiment.images(setup)
    if setup.profile.partial:
        record["partial"] = setup.profile.partial
    if networks := {task.name: store.weights_checksum(task) for task in tree if task.kind == "network"}:
        record["networks"] = networks
    return record | {"tasks": [task.key for task in tree]}


def results_key(records: dict[str, Any]) -> str:
    """The hash of all tasks behind published experiments, however they are grouped."""
    return fingerprint(sorted({key for record in records.values() for key in record["tasks"]}))


def evaluate_claims(results: Results, claims: Sequence[Claim]) -> None:
    """Evaluate claims from the files of `results`; write `claims.json` and the manifest beside them."""
    rows = [claim.evaluate(results) for claim in claims]
    ledger = (json.dumps(rows, indent=1) + "\n").encode()
    write_bytes(results.folder / "claims.json", ledger)
    results.manifest["files"]["claims.json"] = hashlib.sha256(ledger).hexdigest()
    write_bytes(results.folder / "manifest.json", manifest_text(results.manifest).encode())
