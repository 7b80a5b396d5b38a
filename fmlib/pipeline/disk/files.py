"""Files that are complete or absent, one line for a disk that refuses them, and JSON that holds its own checksum."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from fmlib.core.errors import FmlibError

#: What the user can do about an error of the operating system, by its name.
MENDS = {
    "ENOSPC": "make room on the disk",
    "EDQUOT": "make room within your quota",
    "EFBIG": "raise the limit on the size of files (ulimit -f)",
    "EACCES": "choose another folder, or change its permissions",
    "EPERM": "choose another folder, or change its permissions",
    "EROFS": "choose a folder on a disk that can be written",
    "ENOTDIR": "choose another folder, as a file is in its place",
    "EEXIST": "choose another folder, as a file is in its place",
    "ENOLCK": "choose a folder on a disk that supports locks",
    "EIO": "check the disk",
}


def mend(error: OSError) -> str | None:
    """What the user can do about an error of the operating system; None if it is not about the disk."""
    return MENDS.get(errno.errorcode.get(error.errno or 0, ""))


def cannot_write(path: Path | str, error: OSError) -> FmlibError:
    """One line about a file or folder that could not be written."""
    reason = error.strerror or type(error).__name__
    return FmlibError(f"cannot write {path} ({reason}): {mend(error) or 'check the disk'}, then run again to go on")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or absent: temporary name, fsync, rename.

    Raises:
        FmlibError: it cannot be written. A former file stays as it was, and nothing is left beside it.
    """
    draft = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


def signed_json(record: dict[str, Any], name: str = "sha256") -> str:
    """A record as JSON for a file, with the SHA-256 of its canonical JSON under `name`."""
    canonical = json.dumps(record, sort_keys=True)
    return json.dumps(record | {name: hashlib.sha256(canonical.encode()).hexdigest()}, indent=1) + "\n"


def read_signed(content: bytes, name: str = "sha256") -> dict[str, Any]:
    """The record that `signed_json` wrote.

    Raises:
        ValueError: the content differs from what was written, in as little as one byte.
    """
    text = content.decode()
    record = json.loads(text)
    if not isinstance(record, dict) or record.pop(name, None) is None or text != signed_json(record, name):
        raise ValueError("it does not match its checksum")
    return record
