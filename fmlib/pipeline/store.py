"""The store of computed artifacts: written once, under the hash of all that they depend on, and checked when read.

An artifact is a folder `<store>/<kind>/<key>/` with `arrays.npz`, `spec.json` (what it was computed from, and the
checksums of all files) and, for a network, `weights.safetensors`. It is written under a temporary name and renamed, so
that a killed run leaves a complete artifact or none. A long computation saves its state in `<key>.part`. Who computes
an artifact holds the lock `<key>.lock`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from fmlib.core.config import fingerprint
from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.files import cannot_write, read_signed, signed_json, write_bytes
from fmlib.pipeline.disk.locks import is_locked, locked

#: A renamed kind of artifact keeps its first name in the key, so that no stored result is orphaned.
FIRST_KINDS = {"class_transfer": "maps_crossed", "image_transfer": "maps_exchanged"}
#: A renamed array is read under its new name from an artifact that was stored under its first one.
FIRST_ARRAYS = {"guarded": "clipped", "likeness": "similarity", "scattered": "random", "behind": "filtered"}

#: The fields of `spec.json` in an artifact that was stored before these files had a checksum of their own.
UNSIGNED = {"kind", "name", "version", "spec", "inputs", "facts", "sha256"}
#: The first bytes of a saved state; 32 bytes of SHA-256 follow. A state of an earlier version has neither.
MAGIC = b"FMSTATE1"
#: What a run may leave beside an artifact if it is killed, by suffix.
LEFTOVERS = (".tmp", ".part", ".part.writing", ".lock")


@dataclass
class Artifact:
    """The result of a task.

    Attributes:
        arrays: name -> array.
        weights: a network's state dictionary, or nothing.
        facts: a few values that JSON can hold.
    """

    arrays: dict[str, np.ndarray]
    weights: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One artifact to compute: all that it depends on, and the function that computes it.

    Attributes:
        kind: folder in the store.
        name: for people.
        spec: all settings that the result depends on, as JSON values.
        compute: makes the artifact from the inputs' artifacts, in their order, and a checkpoint.
        inputs: the tasks whose artifacts it reads.
        cost: images sent forward and backward through the profile's network.
        version: raised by hand when the mathematics changes.
    """

    kind: str
    name: str
    spec: dict[str, Any]
    compute: Callable[[list[Artifact], SavedCheckpoint], Artifact]
    inputs: tuple[Task, ...] = ()
    cost: float = 0.0
    version: int = 1

    @property
    def stored_kind(self) -> str:
        """The first name of the kind, under which artifacts are stored and hashed."""
        return stored_kind(self.kind)

    @property
    def key(self) -> str:
        """The hash that names the artifact: of kind, version, spec and inputs, but not of device or date."""
        return fingerprint([self.stored_kind, self.version, self.spec, [task.key for task in self.inputs]])


def with_inputs(tasks: Iterable[Task], skip: Callable[[Task], bool] = lambda task: False) -> list[Task]:
    """These tasks and all their direct and indirect inputs, inputs first, each once.

    A task for which `skip` is true is left out, and so are its inputs unless another task reads them.
    """
    ordered: dict[str, Task] = {}

    def add(task: Task) -> None:
        if task.key not in ordered and not skip(task):
            for item in task.inputs:
                add(item)
            ordered[task.key] = task

    for task in tasks:
        add(task)
    return list(ordered.values())


class SavedCheckpoint:
    """The state of a long computation on disk, from which an interrupted run resumes.

    Args:
        path: the file.
        device: where loaded tensors are put.
        interval: seconds between two saves; up to 60 times as many if saves would take over a twentieth of the time.
        note: called with one line if the saved state is damaged.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        interval: float = 20.0,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path, self.device, self.interval, self.note = path, device, interval, note
        self.last, self.took = time.monotonic(), 0.0  # when the last save ended, and its seconds

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None. A damaged file is deleted: the computation starts again."""
        if not self.path.exists():
            return None
        content = self.path.read_bytes()
        start = len(MAGIC) + 32
        try:
            if not content.startswith(b"PK"):  # as torch's own files, and so states of earlier versions, begin
                _require_whole(content[:start] == MAGIC + hashlib.sha256(content[start:]).digest())
                content = content[start:]
            return torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
        except (MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception:  # torch raises many kinds for a damaged file; each means the same here
            self.note(f"the saved state {self.path} is damaged: starting again")
            self.path.unlink()
            return None

    def due(self) -> bool:
        """Whether it is time for another save."""
        return time.monotonic() - self.last >= max(self.interval, min(20 * self.took, 60 * self.interval))

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state."""
        start = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        write_bytes(self.path, MAGIC + hashlib.sha256(content).digest() + content)
        self.last = time.monotonic()
        self.took = self.last - start


class Store:
    """A folder of artifacts.

    Args:
        root: the folder; made when the first artifact is written.
        device: where the state of an interrupted computation is loaded.
        say: called with one line when a task begins.
        note: called with one line when something happens that is rare: a saved state is damaged, or another run
            computes what this one needs (default: `say`).
    """

    def __init__(
        self,
        root: Path,
        device: torch.device,
        say: Callable[[str], None] = lambda line: None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.root, self.device, self.say, self.note = root, device, say, note or say

    def path(self, task: Task) -> Path:
        """The folder of the task's artifact, whether it exists or not."""
        return self.root / task.stored_kind / task.key

    def has(self, task: Task) -> bool:
        """Whether the task's artifact is in the store."""
        return (self.path(task) / "spec.json").exists()

    def resumes(self, task: Task) -> bool:
        """Whether an earlier run has saved a state from which the task goes on."""
        return self._checkpoint(task).path.exists()

    def require_writable(self) -> None:
        """Raise `FmlibError` if no file can be written to the store; leaves nothing behind."""
        existing = self.root.absolute()
        while not os.path.lexists(existing):
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing) as probe:
                probe.write(b"a full disk refuses even this")
        except OSError as error:
            mend = "choose another folder with --store (or FMLIB_STORE)"
            raise FmlibError(f"cannot write to the store {self.root} ({error.strerror}): {mend}") from error

    def get(self, task: Task) -> Artifact:
        """The task's artifact: read if it is in the store, else computed (inputs first) and written.

        Raises:
            FmlibError: a stored file is damaged, or the computation raises it.
        """
        if self.has(task):
            return self._read(task)
        inputs = [self.get(item) for item in task.inputs]
        with self._held(task):
            return self._read(task) if self.has(task) else self._compute(task, inputs)

    def try_compute(self, task: Task) -> bool:
        """Compute a task whose inputs are stored, unless another process computes it.

        Returns:
            Whether the artifact is in the store now.
        """
        with locked(self._beside(task, ".lock")) as held:
            if held and not self.has(task):
                self._compute(task, [self.get(item) for item in task.inputs])
        return self.has(task)

    def is_locked(self, task: Task) -> bool:
        """Whether a process computes the task."""
        return is_locked(self._beside(task, ".lock"))

    def _held(self, task: Task) -> AbstractContextManager[bool]:
        """The lock of the task, for which this process waits."""
        line = f"another run computes {task.name}: waiting for it"
        return locked(self._beside(task, ".lock"), lambda: self.note(line))

    def _compute(self, task: Task, inputs: list[Artifact]) -> Artifact:
        """Compute and write an artifact, whose lock this process holds.

        Denormal numbers count as zero: what Adam remembers of a weight whose gradient stays zero becomes denormal, and
        its step then takes ten times as long.
        """
        self.announce(task)
        torch.set_flush_denormal(True)
        try:
            artifact = task.compute(inputs, self._checkpoint(task))
        finally:
            torch.set_flush_denormal(False)
        self._write(task, artifact)
        self._clear(task)
        return artifact

    def tidy(self, tasks: Iterable[Task]) -> None:
        """Remove what killed runs have left beside stored artifacts of these tasks."""
        for task in tasks:
            if self.has(task) and any(self._beside(task, suffix).exists() for suffix in LEFTOVERS):
                with locked(self._beside(task, ".lock")) as held:
                    if held:
                        self._clear(task)

    def _clear(self, task: Task) -> None:
        """Remove the saved state and the drafts of a stored artifact; whoever holds its lock removes that."""
        for suffix in (".part", ".part.writing"):
            self._beside(task, suffix).unlink(missing_ok=True)
        shutil.rmtree(self._beside(task, ".tmp"), ignore_errors=True)

    def announce(self, task: Task) -> None:
        """Say that the task begins or resumes."""
        self.say(f"{'resuming' if self.resumes(task) else 'computing'} {task.name}")

    def _checkpoint(self, task: Task) -> SavedCheckpoint:
        return SavedCheckpoint(self._beside(task, ".part"), self.device, note=self.note)

    def _beside(self, task: Task, suffix: str) -> Path:
        return self.root / task.stored_kind / f"{task.key}{suffix}"

    def weights_checksum(self, task: Task) -> str:
        """The SHA-256 of the weights of a task's artifact, which is in the store and has weights."""
        return json.loads((self.path(task) / "spec.json").read_bytes())["sha256"]["weights.safetensors"]

    def put(self, task: Task, artifact: Artifact) -> None:
        """Write a task's artifact, completely or not at all; one that is there is replaced.

        Raises:
            FmlibError: it cannot be written; nothing is left of it.
        """
        with self._held(task):
            self._write(task, artifact)

    def _write(self, task: Task, artifact: Artifact) -> None:
        files = {"arrays.npz": arrays_to_bytes(artifact.arrays)}
        if artifact.weights:
            files["weights.safetensors"] = save_weights(
                {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.weights.items()}
            )
        record = {
            "kind": task.kind,
            "name": task.name,
            "version": task.version,
            "spec": task.spec,
            "inputs": [item.key for item in task.inputs],
            "facts": artifact.facts,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        final, draft = self.path(task), self._beside(task, ".tmp")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for name, content in files.items():
                write_bytes(draft / name, content)
            write_bytes(draft / "spec.json", signed_json(record, "checksum").encode())
            shutil.rmtree(final, ignore_errors=True)  # an incomplete artifact, without spec.json
            os.replace(draft, final)
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            if isinstance(error, OSError):
                raise cannot_write(final, error) from error
            raise

    def _read(self, task: Task) -> Artifact:
        folder = self.path(task)
        try:
            record, contents = read_stored(folder)
        except ValueError as error:
            raise FmlibError(f"the stored {task.name} is damaged ({error}): delete {folder} and run again") from error
        weights = load_weights(contents["weights.safetensors"]) if "weights.safetensors" in contents else {}
        renamed = {_renamed(name): array for name, array in arrays_from_bytes(contents["arrays.npz"]).items()}
        return Artifact(renamed, weights, record["facts"])


def read_stored(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record of a stored artifact and the content of its other files, all checked.

    Raises:
        ValueError: a file is missing, or differs from what was written. Of an artifact that was stored before records
            had a checksum, the facts are not checked.
    """
    try:
        content = (folder / "spec.json").read_bytes()
        if set(record := json.loads(content)) != UNSIGNED:
            record = read_signed(content, "checksum")
            key = fingerprint([stored_kind(record["kind"]), *(record[name] for name in ("version", "spec", "inputs"))])
            _require_whole(key == folder.name, "it is the artifact of another task")
        contents = {name: (folder / name).read_bytes() for name in record["sha256"]}
        record["facts"], contents["arrays.npz"]
    except (OSError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(type(error).__name__) from error
    for name, content in contents.items():
        whole = hashlib.sha256(content).hexdigest() == record["sha256"][name]
        _require_whole(whole, f"{name} does not match its checksum")
    return record, contents


def _require_whole(condition: bool, message: str = "it does not match its checksum") -> None:
    if not condition:
        raise ValueError(message)


def stored_kind(kind: str) -> str:
    """The first name of a kind, under which artifacts are stored and hashed."""
    return FIRST_KINDS.get(kind, kind)


def _renamed(name: str) -> str:
    """The present name of a stored array, whose parts are separated by points."""
    return ".".join(FIRST_ARRAYS.get(part, part) for part in name.split("."))


def arrays_to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as the content of one compressed .npz file."""
    buffer = io.BytesIO()
    try:
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    except ValueError as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # hidden by a zip file that it left open
            raise error.__context__ from None
        raise
    return buffer.getvalue()


def arrays_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The named arrays that `arrays_to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as opened:
        return dict(opened)


def csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows of a table as the content of a CSV file, with six significant digits."""
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()


def packed(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """A boolean array as two arrays for a file: its bits under `name`, its shape under `<name>.shape`."""
    return {name: np.packbits(array), f"{name}.shape": np.array(array.shape)}


def bits(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The boolean array that `packed` wrote under `name`."""
    shape = arrays[f"{name}.shape"]
    return np.unpackbits(arrays[name], count=shape.prod()).reshape(shape).astype(bool)
