"""Faults at a certain write of a file: the calls by which the commands write are watched."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from ci.faults.campaign import Place, expect, run

#: The calls by which files are written, renamed and removed.
WRITES = ("fsync", "replace", "rename", "unlink", "rmdir")
#: Those of them that a full disk refuses.
REFUSED = ("fsync", "replace", "rename")


def at_write(number: int, act: Callable[[], None], names: tuple[str, ...] = WRITES) -> None:
    """Call `act` at the `number`-th call of functions of `os`, in this process."""
    calls = 0

    def watched(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                act()
            return function(*arguments, **options)

        return call

    for name in names:
        setattr(os, name, watched(getattr(os, name)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def writes(
    place: Place, words: list[str], names: tuple[str, ...] = WRITES, before: Callable[[], None] = lambda: None
) -> int:
    """How often an undisturbed command calls functions of `os`; `before` is called in its process first."""
    counter = place.root / "writes"

    def count() -> None:
        before()
        for name in names:
            setattr(os, name, counted(getattr(os, name), counter))

    counter.write_bytes(b"")
    expect(run(place, words, count)[0] == 0, "the undisturbed command failed")
    return counter.stat().st_size


def counted(function, counter: Path):
    """The function, which adds a byte to a file at each call."""

    def call(*arguments, **options):
        with open(counter, "ab") as file:
            file.write(b".")
        return function(*arguments, **options)

    return call


def chosen(total: int, most: int) -> list[int]:
    """The numbers from 1 to `total`, or at most so many of them, evenly spaced."""
    return sorted({1 + index * total // most for index in range(most)}) if total > most else list(range(1, total + 1))
