"""Locks between processes, so that two runs on one store share the work.

A lock belongs to a file that its holder keeps open: the operating system releases it when the process ends, however
that ends. On a network file system this takes `flock` across machines: NFS 4 has it, NFS 3 needs its lock daemon, and
Lustre the mount option `flock`. Where there is none, filelock warns, and uses the file itself as the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fmlib.pipeline.disk.files import cannot_write

#: Seconds between two looks at a lock that another process holds.
INTERVAL = 0.2


@contextmanager
def locked(path: Path, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold a lock within the block.

    The holder removes the file while it still holds the lock. A process that has opened the file meanwhile notices
    (filelock compares the file's links) and locks a new one, so that no two processes ever hold the lock.

    Args:
        path: the file, whose folder is made if it is missing.
        wait: called once if another process holds the lock, before this one waits for it. Without it, this process
            does not wait.

    Yields:
        Whether this process holds the lock.

    Raises:
        FmlibError: the file cannot be made or locked.
    """
    lock = FileLock(path, poll_interval=INTERVAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquired(lock)
        if not held and wait is not None:
            wait()
            lock.acquire()
            held = True
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield held
    finally:
        if held:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()
            lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        free = _acquired(lock)
    except OSError as error:
        raise cannot_write(path, error) from error
    if free:
        lock.release()
    return not free
