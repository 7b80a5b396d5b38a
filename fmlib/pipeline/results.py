"""Folders of results: what `fmlib publish` writes and every chapter reads.

`<folder>/manifest.json` names the profile, the seed, how each experiment was computed, the SHA-256 of each file and
that of the manifest itself. Beside it lie tables (`*.csv`), arrays (`*.npz`), weights (`*.safetensors`) and
`claims.json`. No torch is needed to read them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.disk.files import read_signed, signed_json


class NotComputed(FmlibError):
    """A published folder does not hold what is asked of it: its experiment, or a part, has not been computed."""


class Arrays(dict[str, np.ndarray]):
    """Named arrays; a name that is absent raises `NotComputed`."""

    def __init__(self, file: str, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.file = file

    def __missing__(self, name: str) -> np.ndarray:
        raise NotComputed(f"{self.file} has no array {name!r}: it was not computed")


#: Called with the path of each results file that is read; manifests are not reported.
observers: list[Callable[[Path], None]] = []


def _read(path: Path) -> bytes:
    """The bytes of a results file; observers are called."""
    for observer in observers:
        observer(path)
    return path.read_bytes()


#: The published folders, one per profile: `data/results/` of a checkout, which an installed package carries inside.
PUBLISHED = (Path(__file__).parents[1] / "published").resolve()


def checkout() -> Path:
    """`PUBLISHED`, to be written to; raises `FmlibError` in an installed package, which is only read."""
    inside = PUBLISHED.name == "results"
    require(inside, "this needs a checkout of the project: clone it, and install it by 'make book'")
    return PUBLISHED


def manifest_text(manifest: dict[str, Any]) -> str:
    """The content of `manifest.json`: the manifest, and the SHA-256 of its canonical JSON as "sha256"."""
    return signed_json(manifest)


@dataclass
class Results:
    """Tables, arrays and claims of one profile and seed; each file is checked against the manifest when it is read.

    Attributes:
        folder: the files.
        manifest: `manifest.json` without its own checksum.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Results:
        """The results in `folder`; raises `FmlibError` if there are none or the manifest is damaged."""
        path = folder / "manifest.json"
        require(path.exists(), f"no results in {folder}: run 'fmlib run all' and 'fmlib publish' first")
        try:
            return cls(folder, read_signed(path.read_bytes()))
        except ValueError as error:
            fix = "restore it, or delete the folder and publish the results again"
            damaged = f"{path} does not match its checksum (cut short or edited): {fix}"
            raise FmlibError(damaged) from error

    @property
    def profile(self) -> str:
        """The profile these results were computed at."""
        return self.manifest["profile"]

    def content(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            NotComputed: the manifest does not list it.
            FmlibError: it is missing or does not match its checksum.
        """
        path = self.folder / name
        if name not in self.manifest["files"]:
            raise NotComputed(f"{self.folder} holds no {name}: its experiment was not published")
        require(path.exists(), f"{path} is missing: publish the results again")
        content = _read(path)
        whole = hashlib.sha256(content).hexdigest() == self.manifest["files"][name]
        require(whole, f"{path} does not match its checksum (cut short or edited): publish the results again")
        return content

    def verify(self, skip: Sequence[str] = ()) -> None:
        """Raise `FmlibError` if any file is missing or damaged.

        Args:
            skip: names of files that are not read.
        """
        for name in self.manifest["files"]:
            if name not in skip:
                self.content(name)

    def table(self, name: str) -> pd.DataFrame:
        """The table `<name>.csv`."""
        return pd.read_csv(io.BytesIO(self.content(f"{name}.csv")))

    def arrays(self, name: str) -> Arrays:
        """The arrays `<name>.npz`."""
        with np.load(io.BytesIO(self.content(f"{name}.npz")), allow_pickle=False) as opened:
            return Arrays(f"{name}.npz", dict(opened))

    def require_same_networks(self, first: str, second: str) -> None:
        """Raise `NotComputed` if a network that two experiments use was trained again between them."""
        used, others = (self.manifest["experiments"][name].get("networks", {}) for name in (first, second))
        again = ", ".join(name for name in used.keys() & others.keys() if used[name] != others[name])
        if again:
            raise NotComputed(f"{again} was trained again between {first} and {second}")

    def claims(self) -> list[dict[str, Any]]:
        """The rows of `claims.json`."""
        return json.loads(self.content("claims.json"))

    def claim(self, identity: str) -> dict[str, Any]:
        """The row of one claim; raises `FmlibError` for an unknown one."""
        for row in self.claims():
            if row["id"] == identity:
                return row
        raise FmlibError(f"{self.folder / 'claims.json'} has no claim {identity!r}")


#: Files of measurements that are no benchmarks -> the command that writes them; a page of the book has their numbers.
TRUST = {"faults": "python -m ci.faults --publish", "memory": "python ci/memory.py"}
#: File of measurements -> the command that writes it, other than `fmlib bench`.
COMMANDS = TRUST | {
    "solvers": "fmlib bench --solvers",
    "shared_masks": "fmlib bench --shared-masks",
}


def benchmarks() -> list[str]:
    """The names of the files of `fmlib bench`: a device each, "solvers" and "shared_masks"."""
    return sorted(path.stem for path in (PUBLISHED / "bench").glob("*.json") if path.stem not in TRUST)


def benchmark(name: str) -> dict[str, Any]:
    """What `fmlib bench` has measured on a device, of "solvers" or "shared_masks", or what a file of `TRUST` holds.

    Raises:
        NotComputed: there is no such file.
        FmlibError: it does not match its checksum.
    """
    path = PUBLISHED / "bench" / f"{name}.json"
    command = COMMANDS.get(name, "fmlib bench")
    if not path.exists():
        raise NotComputed(f"{path} is missing: run '{command}'")
    try:
        return read_signed(_read(path))
    except ValueError as error:
        damaged = f"{path} does not match its checksum (cut short or edited): restore it, or run '{command}'"
        raise FmlibError(damaged) from error
