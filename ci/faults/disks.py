"""Disks that are full, over quota or read-only."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ci.faults.campaign import Campaign, Fault, Place, expect, one_line, run, succeed
from ci.faults.writes import REFUSED, at_write, chosen, writes


def full(code: int) -> None:
    """From now on no file can be written in this process."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    os.fsync = refuse
    refuse()


def refused_writes(campaign: Campaign) -> Iterator[Fault]:
    """the disk is full, over quota or read-only from some write of `run` on"""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    for index in range(campaign.others):

        def fault(index: int = index) -> bool:
            place, code = campaign.place(), codes[index % len(codes)]
            number = campaign.rng.randrange(1, 40)
            before = partial(at_write, number, partial(full, code), REFUSED)
            workers = str(1 + index // 4 % 2)
            code, _, errors = run(place, place.words("run", "--workers", workers), before)
            if code:
                one_line(code, errors, "cannot write")
            no_drafts(place)
            campaign.finish(place)
            return code == 2

        yield fault


def no_drafts(place: Place) -> None:
    """Check that nothing half-written is left."""
    names = [path.name for path in place.root.rglob("*")]
    left = [name for name in names if name.endswith((".tmp", ".writing", ".lock")) or name.startswith(".publishing")]
    expect(not left, left)


def refused_publication(campaign: Campaign) -> Iterator[Fault]:
    """the disk is full from some write of `publish` on"""
    place = campaign.copy()
    for number in chosen(writes(place, place.words("publish"), REFUSED), campaign.others):

        def fault(number: int = number) -> bool:
            place = campaign.copy()
            before = partial(at_write, number, partial(full, errno.ENOSPC), REFUSED)
            code, _, errors = run(place, place.words("publish"), before)
            if code:
                one_line(code, errors, "No space left on device")
            campaign.compare(place)  # the former results are there, and nothing else
            return code == 2

        yield fault


def file_size_limit(campaign: Campaign) -> Iterator[Fault]:
    """a limit on the size of files (ulimit -f)"""
    for index in range(campaign.others):

        def fault(index: int = index) -> bool:
            place, most = campaign.place(), campaign.rng.randrange(400, 3000)
            limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            code, _, errors = run(place, place.words("run", "--workers", str(1 + index % 2)), limit)
            if code:
                one_line(code, errors, "cannot write", "ulimit -f")
            no_drafts(place)
            campaign.finish(place)
            return code == 2

        yield fault


def mounted(folder: Path, kilobytes: int) -> bool:
    """Mount a file system in memory; whether that is permitted here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "faults", str(folder)]
    return not subprocess.run(command, capture_output=True, check=False).returncode


def small_disk(campaign: Campaign) -> Iterator[Fault]:
    """a small disk that fills up, and is enlarged"""
    probe = campaign.place().store
    probe.mkdir()
    if not mounted(probe, 64):
        print("small disk: skipped, as mounting one takes root")
        return
    subprocess.run(["umount", str(probe)], check=True)
    for index in range(max(1, campaign.kills // 5)):

        def fault(index: int = index) -> bool:
            place, size = campaign.place(), campaign.rng.randrange(4, 60, 4)
            place.store.mkdir()
            expect(mounted(place.store, size), "it cannot be mounted")
            try:
                code, _, errors = run(place, place.words("run", "--workers", str(1 + index % 2)))
                if code:
                    one_line(code, errors, "cannot write", "No space left on device", "make room")
                no_drafts(place)
                subprocess.run(["mount", "-o", "remount,size=8m", str(place.store)], check=True)
                succeed(place, place.words("run"))
                succeed(place, place.words("publish"))
                expect(place.files() == campaign.expected, "the files differ")
            finally:
                subprocess.run(["umount", str(place.store)], check=True)
            return code == 2

        yield fault
