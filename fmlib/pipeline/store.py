"""The store of computed artifacts: written once under the hash of all they depend on, checked on every read.

An artifact is a folder `<store>/<kind>/<key>/` with `arrays.npz`, optionally `weights.safetensors`, and
`spec.json` (what it was made from, and the checksums of the other files). It is written under a temporary name
and renamed, so that a killed run leaves it whole or absent; a long computation keeps its state in `<key>.part`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
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


@dataclass
class Artifact:
    """Named arrays, and optionally a network's weights and a few facts (JSON)."""

    arrays: dict[str, np.ndarray]
    weights: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One artifact to be: everything it depends on, and the function that makes it.

    kind: folder in the store; name: for people; spec: JSON of all that the result depends on; inputs: the tasks
    whose artifacts it reads; compute: makes it from the inputs' artifacts and a checkpoint; passes: the work, in
    images sent forward and backward through the profile's network; version: raised by hand when the mathematics
    changes. The key hashes all but name, compute and passes: not the device, not the date.
    """

    kind: str
    name: str
    spec: dict[str, Any]
    compute: Callable[[list[Artifact], SavedCheckpoint], Artifact]
    inputs: tuple[Task, ...] = ()
    cost: float = 0.0
    version: int = 1

    @property
    def key(self) -> str:
        """The hash that names the artifact."""
        kind = FIRST_KINDS.get(self.kind, self.kind)
        return fingerprint([kind, self.version, self.spec, [task.key for task in self.inputs]])


def with_inputs(tasks: Iterable[Task], but: Callable[[Task], bool] = lambda task: False) -> list[Task]:
    """These tasks and all they need, needs first, each once; `but` names those left out, and with them their needs."""
    found: dict[str, Task] = {}

    def add(task: Task) -> None:
        if task.key not in found and not but(task):
            for item in task.inputs:
                add(item)
            found[task.key] = task

    for task in tasks:
        add(task)
    return list(found.values())


class SavedCheckpoint:
    """The state of a long computation, on disk: saved at most every `interval` seconds, read back after a kill."""

    def __init__(self, path: Path, device: torch.device, interval: float = 20.0) -> None:
        self.path, self.device, self.interval = path, device, interval
        self.last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last saved state, or None. A state that cannot be read is dropped: the work starts again."""
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, map_location=self.device, weights_only=True)
        except Exception:  # torch raises many kinds for a damaged file; each means the same here
            self.path.unlink()
            return None

    def due(self) -> bool:
        """Whether the interval since the last save has passed."""
        return time.monotonic() - self.last >= self.interval

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.path, buffer.getvalue())
        self.last = time.monotonic()


class Store:
    """A folder of artifacts."""

    def __init__(self, root: Path, device: torch.device, say: Callable[[str], None] = lambda line: None) -> None:
        self.root, self.device, self.say = root, device, say

    def path(self, task: Task) -> Path:
        """Where the task's artifact lies, or will."""
        return self.root / task.kind / task.key

    def has(self, task: Task) -> bool:
        """Whether the artifact is there."""
        return (self.path(task) / "spec.json").exists()

    def get(self, task: Task) -> Artifact:
        """The task's artifact, read if it is there and computed (inputs first) if not."""
        if self.has(task):
            return self._read(task)
        inputs = [self.get(item) for item in task.inputs]
        self.announce(task)
        saved = self._saved(task)
        artifact = task.compute(inputs, saved)
        self.put(task, artifact)
        saved.path.unlink(missing_ok=True)
        return artifact

    def announce(self, task: Task) -> None:
        """Say that the task's work begins, or goes on."""
        self.say(f"{'resuming' if self._saved(task).path.exists() else 'computing'} {task.name}")

    def _saved(self, task: Task) -> SavedCheckpoint:
        return SavedCheckpoint(self.root / task.kind / f"{task.key}.part", self.device)

    def put(self, task: Task, artifact: Artifact) -> None:
        """Write a task's artifact, whole or not at all."""
        files = {"arrays.npz": arrays_to_bytes(artifact.arrays)}
        if artifact.weights:
            files["weights.safetensors"] = save_weights(
                {k: v.detach().cpu().contiguous() for k, v in artifact.weights.items()}
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
        shutil.rmtree(final, ignore_errors=True)  # a folder without spec.json is no artifact
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
        return Artifact(arrays_from_bytes(arrays), weights, facts)


def arrays_to_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as one compressed .npz, in memory."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def arrays_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of `arrays_to_bytes`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as opened:
        return dict(opened)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent: temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows of a table as CSV, six significant digits."""
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()


def bits(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A packed array of bool as it was: `name` holds its bits, `name.shape` its shape."""
    shape = arrays[f"{name}.shape"]
    return np.unpackbits(arrays[name], count=shape.prod()).reshape(shape).astype(bool)


def packed(name: str, found: np.ndarray) -> dict[str, np.ndarray]:
    """What `bits` reads."""
    return {name: np.packbits(found), f"{name}.shape": np.array(found.shape)}
