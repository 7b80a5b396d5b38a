"""Folders, commands and their ends, which all kinds of faults share."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from ci.faults.toy import install
from fmlib import cli

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = 50  # until a fault at a random moment hits the command, which may have ended
PATIENCE = 120  # seconds until a process that should end counts as hung


@dataclass(frozen=True)
class Place:
    """A folder with a store and results."""

    root: Path

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def published(self) -> Path:
        return self.root / "results"

    def words(self, command: str, *more: str) -> list[str]:
        """A command line."""
        return [command, *more, "--store", str(self.store), "--device", "cpu", "--quiet"]

    def files(self) -> dict[str, bytes]:
        """Relative path -> content of every file of the store and the results."""
        paths = [path for folder in (self.store, self.published) for path in sorted(folder.rglob("*"))]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths if path.is_file()}


#: Tries a fault; returns whether it has hit, as a run may end before.
Fault = Callable[[], bool | None]


class Failed(Exception):
    """A fault was not survived."""


def expect(condition: bool, message: object) -> None:
    if not condition:
        raise Failed(str(message))


@dataclass
class Child:
    """A command in a process group of its own."""

    pid: int
    said: Path

    def wait(self) -> int:
        """The exit code, or minus the signal; then no process of the group may be left."""
        _, status = os.waitpid(self.pid, 0)
        deadline = time.monotonic() + PATIENCE
        while self.others():
            expect(time.monotonic() < deadline, "a process is left over")
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(status)

    def others(self) -> list[int]:
        """The living processes of the group but its first."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getpgid(process.pid) == self.pid != process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def output(self) -> tuple[list[str], list[str]]:
        """The lines on standard output, and those on standard error."""
        return tuple(self.said.with_suffix(end).read_text().splitlines() for end in (".out", ".err"))  # type: ignore


def start(place: Place, words: list[str], before: Callable[[], None] = lambda: None) -> Child:
    """Start a command in a forked process; `before` is called in it first."""
    said = Path(tempfile.mkdtemp(dir=place.root)) / "said"
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid, said)
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # a test runs the campaign with it blocked
        for number, end in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(said.with_suffix(end), os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = map(os.fdopen, (1, 2), "ww")
        install(place.published)
        before()
        code = cli.main(words)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(place: Place, words: list[str], before: Callable[[], None] = lambda: None) -> tuple[int, list[str], list[str]]:
    """Run a command to its end: exit code, and lines on standard output and error."""
    child = start(place, words, before)
    return child.wait(), *child.output()


def succeed(place: Place, words: list[str], before: Callable[[], None] = lambda: None) -> list[str]:
    """Run a command that must succeed without a word on standard error; returns what it prints."""
    code, out, errors = run(place, words, before)
    expect((code, errors) == (0, []), (words[0], code, errors))
    return out


def one_line(code: int, errors: list[str], *parts: str) -> None:
    """Check that a command has failed as it should."""
    expect(code == 2 and len(errors) == 1, (code, errors))
    expect(errors[0].startswith("fmlib: ") and all(part in errors[0] for part in parts), errors)


def call(*words: str) -> tuple[int, list[str], list[str]]:
    """Run a command in this process: exit code, and lines on standard output and error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = cli.main(list(words))
    return code, out.getvalue().splitlines(), errors.getvalue().splitlines()


class Campaign:
    """Places, undisturbed results and random numbers for all kinds of faults."""

    def __init__(self, root: Path, seed: int, kills: int, damages: int) -> None:
        self.root, self.rng, self.damages = root, random.Random(seed), damages
        self.kills, self.others = kills, max(1, kills // 3)  # of each kind of kill, and of each other kind
        self.count, self.missed = 0, False
        whole = self.place()
        begin = time.monotonic()
        succeed(whole, whole.words("run", "--workers", "1"))
        self.seconds = time.monotonic() - begin
        succeed(whole, whole.words("publish"))
        self.whole, self.expected = whole, whole.files()

    def place(self) -> Place:
        """A new folder."""
        self.count += 1
        root = self.root / str(self.count)
        (root / "results").mkdir(parents=True)
        return Place(root)

    def copy(self) -> Place:
        """A new folder with the undisturbed store and results."""
        place = self.place()
        shutil.copytree(self.whole.store, place.store)
        shutil.copytree(self.whole.published, place.published, dirs_exist_ok=True)
        return place

    def finish(self, place: Place, *words: str) -> None:
        """Run and publish again; all must be as if undisturbed."""
        succeed(place, place.words("run", *words))
        succeed(place, place.words("publish"))
        self.compare(place)

    def compare(self, place: Place) -> None:
        """Check files against the undisturbed ones, byte by byte."""
        found = place.files()
        expect(found.keys() == self.expected.keys(), found.keys() ^ self.expected.keys())
        expect(found == self.expected, [name for name in found if found[name] != self.expected[name]])
        shutil.rmtree(place.root)

    def moment(self) -> float:
        """A random moment of a run, seconds from its start; earlier if the last fault came too late."""
        return self.rng.uniform(0, self.seconds) * (self.rng.choice((1, 0.3, 0.1, 0.03)) if self.missed else 1)

    def hits(self, fault: Fault) -> bool:
        """Try a fault until it hits; whether it does."""
        for attempt in range(ATTEMPTS):
            self.missed = attempt > 0
            if fault() is not False:
                return True
        return False
