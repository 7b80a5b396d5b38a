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
import torch
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from fmlib.config import FmlibError, fingerprint, require


@dataclass
class Artifact:
    """Named arrays, and optionally a network's weights and a few facts (JSON)."""

    arrays: dict[str, np.ndarray]
    weights: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One artifact to be: everything it depends on, and the function that makes it.

    kind: folder in the store; name: for people; spec: JSON of all that the result depends on; inputs: the jobs
    whose artifacts it reads; compute: makes it from the inputs' artifacts and a checkpoint; passes: the work, in
    images sent forward and backward through the profile's network; version: raised by hand when the mathematics
    changes. The key hashes all but name, compute and passes: not the device, not the date.
    """

    kind: str
    name: str
    spec: dict[str, Any]
    compute: Callable[[list[Artifact], SavedState], Artifact]
    inputs: tuple[Job, ...] = ()
    passes: float = 0.0
    version: int = 1

    @property
    def key(self) -> str:
        """The hash that names the artifact."""
        return fingerprint([self.kind, self.version, self.spec, [job.key for job in self.inputs]])


def with_needs(jobs: Iterable[Job], but: Callable[[Job], bool] = lambda job: False) -> list[Job]:
    """These jobs and all they need, needs first, each once; `but` names those left out, and with them their needs."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        if job.key not in found and not but(job):
            for item in job.inputs:
                add(item)
            found[job.key] = job

    for job in jobs:
        add(job)
    return list(found.values())


class SavedState:
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

    def path(self, job: Job) -> Path:
        """Where the job's artifact lies, or will."""
        return self.root / job.kind / job.key

    def has(self, job: Job) -> bool:
        """Whether the artifact is there."""
        return (self.path(job) / "spec.json").exists()

    def get(self, job: Job) -> Artifact:
        """The job's artifact, read if it is there and computed (inputs first) if not."""
        if self.has(job):
            return self._read(job)
        inputs = [self.get(item) for item in job.inputs]
        self.announce(job)
        saved = self._saved(job)
        artifact = job.compute(inputs, saved)
        self.put(job, artifact)
        saved.path.unlink(missing_ok=True)
        return artifact

    def announce(self, job: Job) -> None:
        """Say that the job's work begins, or goes on."""
        self.say(f"{'resuming' if self._saved(job).path.exists() else 'computing'} {job.name}")

    def _saved(self, job: Job) -> SavedState:
        return SavedState(self.root / job.kind / f"{job.key}.part", self.device)

    def put(self, job: Job, artifact: Artifact) -> None:
        """Write a job's artifact, whole or not at all."""
        files = {"arrays.npz": arrays_to_bytes(artifact.arrays)}
        if artifact.weights:
            files["weights.safetensors"] = save_weights(
                {k: v.detach().cpu().contiguous() for k, v in artifact.weights.items()}
            )
        record = {
            "kind": job.kind,
            "name": job.name,
            "version": job.version,
            "spec": job.spec,
            "inputs": [item.key for item in job.inputs],
            "facts": artifact.facts,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        final = self.path(job)
        draft = final.with_name(f"{job.key}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        for name, content in files.items():
            write_bytes(draft / name, content)
        write_bytes(draft / "spec.json", (json.dumps(record, indent=1) + "\n").encode())
        shutil.rmtree(final, ignore_errors=True)  # a folder without spec.json is no artifact
        os.replace(draft, final)

    def _read(self, job: Job) -> Artifact:
        folder = self.path(job)
        mend = f"delete {folder} and run again"
        try:
            record = json.loads((folder / "spec.json").read_text())
            contents = {name: (folder / name).read_bytes() for name in record["sha256"]}
            facts, arrays = record["facts"], contents["arrays.npz"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FmlibError(f"the stored {job.name} is damaged ({type(error).__name__}): {mend}") from error
        for name, content in contents.items():
            require(
                hashlib.sha256(content).hexdigest() == record["sha256"][name],
                f"the stored {job.name} is damaged ({name} does not match its checksum): {mend}",
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
