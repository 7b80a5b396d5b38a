"""The store of computed artifacts: written once, under the hash of all that they depend on, and checked when read.

An artifact is a folder `<store>/<kind>/<key>/` with `arrays.npz`, `spec.json` (what it was computed from, and the
checksums of the other files) and, for a network, `weights.safetensors`. It is written under a temporary name and
renamed, so that a killed run leaves a complete artifact or none. A long computation saves its state in `<key>.part`.
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
from fmlib.core.errors import FmlibError, require

#: A renamed kind of artifact keeps its first name in the key, so that no stored result is orphaned.
FIRST_KINDS = {"class_transfer": "maps_crossed", "image_transfer": "maps_exchanged"}
#: A renamed array is read under its new name from an artifact that was stored under its first one.
FIRST_ARRAYS = {"guarded": "clipped", "likeness": "similarity", "scattered": "random", "behind": "filtered"}


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
        return FIRST_KINDS.get(self.kind, self.kind)

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
        interval: seconds between two saves.
    """

    def __init__(self, path: Path, device: torch.device, interval: float = 20.0) -> None:
        self.path, self.device, self.interval = path, device, interval
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None. A file that cannot be read is deleted: the computation starts again."""
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location=self.device, weights_only=True)
        except Exception:  # torch raises many kinds for a damaged file; each means the same here
            self.path.unlink()
            return None

    def due(self) -> bool:
        """Whether `interval` seconds have passed since the last save."""
        return time.monotonic() - self.last >= self.interval

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.path, buffer.getvalue())
        self.last = time.monotonic()


class Store:
    """A folder of artifacts.

    Args:
        root: the folder; made when the first artifact is written.
        device: where the state of an interrupted computation is loaded.
        say: called with one line when a task begins.
    """

    def __init__(self, root: Path, device: torch.device, say: Callable[[str], None] = lambda line: None) -> None:
        self.root, self.device, self.say = root, device, say

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
        self.announce(task)
        checkpoint = self._checkpoint(task)
        artifact = task.compute(inputs, checkpoint)
        self.put(task, artifact)
        checkpoint.path.unlink(missing_ok=True)
        return artifact

    def announce(self, task: Task) -> None:
        """Say that the task begins or resumes."""
        self.say(f"{'resuming' if self.resumes(task) else 'computing'} {task.name}")

    def _checkpoint(self, task: Task) -> SavedCheckpoint:
        return SavedCheckpoint(self.root / task.stored_kind / f"{task.key}.part", self.device)

    def put(self, task: Task, artifact: Artifact) -> None:
        """Write a task's artifact, completely or not at all."""
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
        final = self.path(task)
        draft = final.with_name(f"{task.key}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        for name, content in files.items():
            write_bytes(draft / name, content)
        write_bytes(draft / "spec.json", (json.dumps(record, indent=1) + "\n").encode())
        shutil.rmtree(final, ignore_errors=True)  # an incomplete artifact, without spec.json
        os.replace(draft, final)

    def _read(self, task: Task) -> Artifact:
        folder = self.path(task)
        mend = f"delete {folder} and run again"
        try:
            record = json.loads((folder / "spec.json").read_text())
            contents = {name: (folder / name).read_bytes() for name in record["sha256"]}
            facts, arrays = record["facts"], contents["arrays.npz"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FmlibError(f"the stored {task.name} is damaged ({type(error).__name__}): {mend}") from error
        for name, content in contents.items():
            require(
                hashlib.sha256(content).hexdigest() == record["sha256"][name],
                f"the stored {task.name} is damaged ({name} does not match its checksum): {mend}",
            )
        weights = load_weights(contents["weights.safetensors"]) if "weights.safetensors" in contents else {}
        renamed = {_renamed(name): array for name, array in arrays_from_bytes(arrays).items()}
        return Artifact(renamed, weights, facts)


def _renamed(name: str) -> str:
    """The present name of a stored array, whose parts are separated by points."""
    return ".".join(FIRST_ARRAYS.get(part, part) for part in name.split("."))


def arrays_to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as the content of one compressed .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def arrays_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The named arrays that `arrays_to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as opened:
        return dict(opened)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or absent: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


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
