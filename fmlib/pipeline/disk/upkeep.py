"""The upkeep of a store: list its artifacts, check them, and remove leftovers or artifacts that nothing needs.

Only names that a store itself gives are ever removed: `<kind>/<key>`, and `<kind>/<key>` with the suffix of a leftover.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fmlib.core.errors import require
from fmlib.pipeline.disk.files import cannot_write
from fmlib.pipeline.disk.locks import is_locked, locked
from fmlib.pipeline.store import LEFTOVERS, UNSIGNED, read_stored

#: Leftovers are removed when they are older than this, seconds.
DAY = 24 * 3600.0

KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Stored:
    """An artifact in a store.

    Attributes:
        folder: its files.
        name: of its task; "?" if its record cannot be read.
        size: of its files, bytes.
        written: when it was written, seconds since 1970.
    """

    folder: Path
    name: str
    size: int
    written: float

    @property
    def kind(self) -> str:
        """The folder in the store."""
        return self.folder.parent.name

    @property
    def key(self) -> str:
        """The hash that names the artifact."""
        return self.folder.name


def artifacts(root: Path) -> list[Stored]:
    """All artifacts in the store `root`, in order of kind and name; raises `FmlibError` if there is no such folder."""
    require(root.is_dir(), f"there is no store {root}: give another --store (or FMLIB_STORE)")
    folders = [path.parent for path in root.glob("*/*/spec.json") if KEY.fullmatch(path.parent.name)]
    return sorted(map(_stored, folders), key=lambda one: (one.kind, one.name, one.key))


def _stored(folder: Path) -> Stored:
    try:
        name = str(json.loads((folder / "spec.json").read_bytes())["name"])
    except (OSError, ValueError, TypeError, KeyError):
        name = "?"
    sizes = [path.stat().st_size for path in folder.iterdir() if path.is_file()]
    return Stored(folder, name, sum(sizes), (folder / "spec.json").stat().st_mtime)


def verify(found: Iterable[Stored]) -> Iterator[tuple[Stored, str]]:
    """Check every file of artifacts.

    Yields:
        Each artifact with what is wrong with it: "", or "unverified" if all is well but its record, which was stored
        before records had a checksum, or one line on the damage.
    """
    for one in found:
        try:
            record, _ = read_stored(one.folder)
        except ValueError as error:
            yield one, f"the stored {one.name} is damaged ({error}): delete {one.folder} and run again"
        else:
            yield one, "unverified" if set(record) == UNSIGNED and not _signed(one.folder) else ""


def _signed(folder: Path) -> bool:
    return "checksum" in json.loads((folder / "spec.json").read_bytes())


def leftovers(root: Path, age: float = DAY) -> list[Path]:
    """What killed runs have left in the store `root`: drafts, saved states and locks that are older than `age` seconds.

    What belongs to an artifact that a process computes at present is left out.
    """
    require(root.is_dir(), f"there is no store {root}: give another --store (or FMLIB_STORE)")
    now, found = time.time(), []
    for path in sorted(root.glob("*/*")):
        left = KEY.fullmatch(path.name[:16]) and path.name[16:] in LEFTOVERS
        if left and now - path.lstat().st_mtime > age and not is_locked(_lock(path)):
            found.append(path)
    return found


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name[:16]}.lock")


def remove(paths: Iterable[Path]) -> Iterator[Path]:
    """Remove artifacts or leftovers.

    An artifact is renamed first, so that no part of it is ever taken for the whole. What a process computes at present
    stays.

    Yields:
        Each path that was removed.

    Raises:
        FmlibError: a path cannot be removed.
    """
    for path in paths:
        with locked(_lock(path)) as held:
            if not held:
                continue
            try:
                if path.is_dir():
                    draft = path.with_name(f"{path.name[:16]}.tmp")
                    if draft != path:
                        shutil.rmtree(draft, ignore_errors=True)
                        path.rename(draft)
                    shutil.rmtree(draft)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error
            yield path
        with suppress(OSError):
            path.parent.rmdir()  # an empty kind
