"""A campaign of faults: `fmlib run` and `fmlib publish` are disturbed, and must end as if they had not been.

The commands are the real ones, on an experiment of a few tasks that takes a fraction of a second. After every fault the
command is run again: artifacts and results must be equal to the last byte to those of an undisturbed run, with no
process and no file left over. Then files are damaged: each damage must be one line and exit code 2, or the file must be
made anew and that be said.

    python ci/faults.py --kills 100 --damages 1000 --publish

takes some minutes, and writes `data/results/bench/faults.json` and the table of `book/trust.md`. It runs on Linux; a
full disk is tried on a small file system in memory, which takes root.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

from fmlib import cli
from fmlib.core.intervals import Measured
from fmlib.pipeline import results, scheduler
from fmlib.pipeline.claims import Claim, Rule
from fmlib.pipeline.disk.files import signed_json, write_bytes
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Task, arrays_to_bytes, csv
from fmlib.publishing import build
from fmlib.publishing.playground import book
from fmlib.studies import registry

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "trust.md"
BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
LINUX = sys.platform == "linux"
ATTEMPTS = 50  # until a fault at a random moment hits the command, which may have ended
PATIENCE = 120  # seconds until a process that should end counts as hung

# ------------------------------------------------------------------------------------------------ a toy experiment

STEPS = 3  # states that a toy task saves


def work(number: int, inputs: list[Artifact], checkpoint) -> Artifact:
    """A task of some milliseconds that resumes from its last saved state."""
    state = checkpoint.load() or {"step": 0, "total": torch.zeros(64)}
    while state["step"] < STEPS:
        time.sleep(0.002)
        state = {"step": state["step"] + 1, "total": state["total"] * 0.5 + number}
        checkpoint.save(state)
    total = state["total"].numpy() + sum(item.arrays["total"] for item in inputs)
    weights = {"weight": torch.full((3, 2), float(number))} if number == 1 else {}
    return Artifact({"total": total}, weights, {"number": number, "history": [number / 3, None]})


def task(number: int, *inputs: Task) -> Task:
    """One of the toy tasks."""
    return Task("toy", f"task {number}", {"number": number, "seed": 0}, partial(work, number), inputs)


def diamond() -> tuple[Task, Task]:
    """The last two tasks of five; the first is an input of all others."""
    first = task(1)
    middle = task(2, first), task(3, first)
    return task(4, *middle), task(5, middle[0])


def totals(setup, store) -> dict[str, bytes]:
    return {"totals.npz": arrays_to_bytes({"total": store.get(diamond()[0]).arrays["total"]})}


def means(setup, store) -> dict[str, bytes]:
    return {"means.csv": csv([{"mean": float(store.get(diamond()[1]).arrays["total"].mean())}])}


def mean(found) -> Measured:
    """The value of the toy claim."""
    value = float(found.table("means")["mean"][0])
    return Measured(value, value, value, 1)


EXPERIMENTS = {
    "totals": Experiment("totals", "a toy", lambda setup: [diamond()[0]], totals),
    "means": Experiment("means", "another toy", lambda setup: [diamond()[1]], means),
}
CLAIM = Claim(
    id="toy", source="control", statement="It is large.", unit="", n="images", chapter="toy", figure="f",
    timing="before", rule=Rule(at_least=1), measure=mean, arguments={}, requires="any data",
)  # fmt: skip


def install(publish_to: Path) -> None:
    """Let the commands of this process know the toy experiments only, and publish to a folder called "results"."""
    registry.all_experiments = lambda: EXPERIMENTS
    registry.all_claims = lambda: [CLAIM]
    results.PUBLISHED = publish_to
    scheduler.context = lambda: multiprocessing.get_context("fork")  # this process has computed nothing


# ---------------------------------------------------------------------------------------------------------- places


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


def succeed(place: Place, words: list[str]) -> list[str]:
    """Run a command that must succeed without a word on standard error; returns what it prints."""
    code, out, errors = run(place, words)
    expect((code, errors) == (0, []), (words[0], code, errors))
    return out


def one_line(code: int, errors: list[str], *parts: str) -> None:
    """Check that a command has failed as it should."""
    expect(code == 2 and len(errors) == 1, (code, errors))
    expect(errors[0].startswith("fmlib: ") and all(part in errors[0] for part in parts), errors)


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


# --------------------------------------------------------------------------------------------------- kills and others

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


def full(code: int) -> None:
    """From now on no file can be written in this process."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    os.fsync = refuse
    refuse()


def writes(campaign: Campaign, words: list[str], make: Callable[[], Place], names: tuple[str, ...] = WRITES) -> int:
    """How often an undisturbed command calls functions of `os`."""
    place, counter = make(), campaign.root / "writes"

    def count() -> None:
        for name in names:
            setattr(os, name, counted(getattr(os, name), counter))

    counter.write_bytes(b"")
    expect(run(place, place.words(*words), count)[0] == 0, "the undisturbed command failed")
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


def killed_at_writes_of_run(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL at a file write of `run`"""
    for number in chosen(writes(campaign, ["run", "--workers", "1"], campaign.place), campaign.kills):

        def fault(number: int = number) -> None:
            place = campaign.place()
            code, *_ = run(place, place.words("run", "--workers", "1"), lambda: at_write(number, die))
            expect(code == -signal.SIGKILL, code)
            campaign.finish(place, "--workers", "1")

        yield fault


def killed_at_writes_of_publish(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL at a file write of `publish`"""
    for number in chosen(writes(campaign, ["publish", "means"], campaign.copy), campaign.kills):

        def fault(number: int = number) -> None:
            place = campaign.copy()
            code, *_ = run(place, place.words("publish", "means"), lambda: at_write(number, die))
            expect(code == -signal.SIGKILL, code)
            out = succeed(place, place.words("publish", "means"))  # the results of the other must still be there
            expect(any("published to" in line for line in out), out)
            campaign.compare(place)

        yield fault


def killed_run(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL of `run` at a random moment"""
    for index in range(campaign.kills):

        def fault(index: int = index) -> bool:
            place, delay = campaign.place(), campaign.moment()
            child = start(place, place.words("run", "--workers", str(1 + index % 2)))
            time.sleep(delay)
            os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
            campaign.finish(place, "--workers", str(1 + index // 2 % 2))
            return code == -signal.SIGKILL

        yield fault


def killed_worker(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL of a worker process at a random moment"""
    for _ in range(campaign.kills):

        def fault() -> bool:
            place, delay = campaign.place(), campaign.moment()
            child = start(place, place.words("run", "--workers", "2"))
            time.sleep(delay)
            for pid in campaign.rng.sample(child.others(), 1) if child.others() else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            code, (_, errors) = child.wait(), child.output()
            if code:
                one_line(code, errors, "died", "run again to go on")
            campaign.finish(place, "--workers", "2")
            return code == 2

        yield fault


def killed_group(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL of `run` and all its processes at once"""
    for _ in range(campaign.kills):

        def fault() -> bool:
            place, delay = campaign.place(), campaign.moment()
            child = start(place, place.words("run", "--workers", "2"))
            time.sleep(delay)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # it may not have its group yet
            os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
            campaign.finish(place, "--workers", "1")
            return code == -signal.SIGKILL

        yield fault


def killed_publish(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL of `publish` at a random moment"""
    for _ in range(campaign.kills):

        def fault() -> bool:
            place, delay = campaign.copy(), campaign.moment() / 2
            child = start(place, place.words("publish", "totals"))
            time.sleep(delay)
            os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
            succeed(place, place.words("publish", "totals"))
            campaign.compare(place)
            return code == -signal.SIGKILL

        yield fault


def two_runs(campaign: Campaign) -> Iterator[Fault]:
    """two runs on one store, neither of them killed"""
    for index in range(campaign.others):

        def fault(index: int = index) -> None:
            place = campaign.place()
            children = [start(place, place.words("run", "--workers", str(1 + (index >> n) % 2))) for n in range(2)]
            lines = []
            for child in children:
                expect(child.wait() == 0, child.output())
                lines += [line for line in child.output()[0] if line.startswith(("computing", "resuming"))]
            workers_raced = index % 4 != 0  # a parent announces a task before its worker has the lock
            expect(workers_raced or len(lines) == len(set(lines)) == 5, lines)
            campaign.finish(place)

        yield fault


def one_of_two_runs(campaign: Campaign) -> Iterator[Fault]:
    """two runs on one store, one of them killed: the other ends alone"""
    for index in range(campaign.kills):

        def fault(index: int = index) -> bool:
            place, delay = campaign.place(), campaign.moment()
            first, second = (start(place, place.words("run", "--workers", str(1 + index % 2))) for _ in range(2))
            time.sleep(delay)
            os.kill(first.pid, signal.SIGKILL)
            code = first.wait()
            expect(second.wait() == 0, second.output())
            campaign.finish(place)
            return code == -signal.SIGKILL

        yield fault


#: Sends this process Ctrl-C while the command imports a module.
INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from fmlib.cli import main
sys.exit(main(sys.argv[2:]))
"""


def interrupted_start(campaign: Campaign) -> Iterator[Fault]:
    """Ctrl-C while a command starts"""
    modules = ("numpy", "torch", "torch.nn", "filelock", "fmlib.pipeline.store", "fmlib.studies.registry")
    for module in modules[: campaign.kills // 15]:

        def fault(module: str = module) -> None:
            place = campaign.place()
            command = [sys.executable, "-c", INTERRUPTED, module, *place.words("run", "harmonics")]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            said = done.stderr.strip().splitlines()
            expect(done.returncode == 130 and said == ["fmlib: stopped; run the same command again to go on"], said)
            campaign.finish(place)

        yield fault


def interrupted_run(campaign: Campaign) -> Iterator[Fault]:
    """Ctrl-C at a random moment"""
    for index in range(campaign.others):

        def fault(index: int = index) -> bool:
            place, delay = campaign.place(), campaign.moment()
            child = start(place, place.words("run", "--workers", str(1 + index % 2)), ready)
            deadline, said = time.monotonic() + PATIENCE, child.said.with_suffix(".out")
            while not said.exists() or not said.read_text():
                expect(time.monotonic() < deadline, "the command does not start")
                time.sleep(0.001)
            time.sleep(delay)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            code, (_, errors) = child.wait(), child.output()
            lost = bool(errors) and errors[0].startswith("Exception ignored in")  # Python drops it in some callbacks
            stopped = (130, ["fmlib: stopped; run the same command again to go on"])
            expect((code, errors) in ((0, []), stopped) or (code == 0 and lost), errors)
            campaign.finish(place, "--workers", "1")
            return code == 130

        yield fault


def ready() -> None:
    print("ready", flush=True)


def clock_jumps(campaign: Campaign) -> Iterator[Fault]:
    """the clock jumps by hours and days while `run` works"""
    for index in range(campaign.others):

        def fault(index: int = index) -> None:
            place, rng = campaign.place(), random.Random(index)
            now, monotonic = time.time, time.monotonic
            ahead = [0.0]

            def jumping() -> float:
                ahead[0] += rng.choice((0, 0, 0.1, 3600, 86400))
                return monotonic() + ahead[0]

            def jump() -> None:
                time.time = lambda: now() + rng.uniform(-1e7, 1e7)
                time.monotonic = jumping

            code, _, errors = run(place, place.words("run", "--workers", str(1 + index % 2)), jump)
            expect((code, errors) == (0, []), errors)
            campaign.finish(place)

        yield fault


# ---------------------------------------------------------------------------------------------------------- full disks


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
    for number in chosen(writes(campaign, ["publish"], campaign.copy, REFUSED), campaign.others):

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


# -------------------------------------------------------------------------------------------------------------- damage


def call(*words: str) -> tuple[int, list[str], list[str]]:
    """Run a command in this process: exit code, and lines on standard output and error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = cli.main(list(words))
    return code, out.getvalue().splitlines(), errors.getvalue().splitlines()


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in a random way, which is returned."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "change", "cut", "extend", "empty", "delete"))
    place = rng.randrange(len(content))
    if how == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "change":
        content[place] ^= rng.randrange(1, 256)
    path.write_bytes({"cut": content[:place], "extend": content + b"\n", "empty": b""}.get(how, content))
    if how == "delete":
        path.unlink()
    return how


def share(campaign: Campaign, part: float) -> range:
    return range(max(1, round(campaign.damages * part)))


def damaged_artifacts(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the store"""
    place = campaign.copy()
    install(place.published)
    paths = [path for path in sorted(place.store.rglob("*")) if path.is_file()]
    for _ in share(campaign, 0.4):

        def fault() -> None:
            path = campaign.rng.choice(paths)
            gone = damage(path, campaign.rng) == "delete" and path.name == "spec.json"  # then it is computed again
            code, _, errors = call("store", "verify", "--store", str(place.store))
            if not gone:
                one_line(code, errors, "is damaged", str(path.parent))
            for folder in (place.store / "toy").iterdir():
                if folder != path.parent:
                    shutil.rmtree(folder)
            code, _, errors = call(*place.words("run", "--workers", "1"))
            if code == 0:
                code, _, errors = call(*place.words("publish"))
            if not gone:
                one_line(code, errors, "is damaged", str(path.parent))
                shutil.rmtree(path.parent)  # as the line says
            for command in (place.words("run", "--workers", "1"), place.words("publish")):
                code, _, errors = call(*command)
                expect((code, errors) == (0, []), errors)
            expect(place.files() == campaign.expected, "the artifact differs")

        yield fault


def damaged_states(campaign: Campaign) -> Iterator[Fault]:
    """a damaged state of an interrupted run"""
    place = campaign.copy()
    install(place.published)
    last = diamond()[0]
    artifact, path = place.store / "toy" / last.key, place.store / "toy" / f"{last.key}.part"
    shutil.rmtree(artifact)
    run(place, place.words("run", "--workers", "1"), lambda: at_write(4, die))
    state = path.read_bytes()
    for _ in share(campaign, 0.1):

        def fault() -> None:
            shutil.rmtree(artifact, ignore_errors=True)
            path.write_bytes(state)
            how = damage(path, campaign.rng)
            code, out, errors = call(*place.words("run", "--workers", "1"))
            said = [f"the saved state {path} is damaged: starting again"] if how != "delete" else []
            expect((code, errors, out[1:]) == (0, [], said), (how, out, errors))
            expect(place.files() == campaign.expected, "the artifact differs")

        yield fault


def damaged_results(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of results, and one of their experiments published again"""
    place = campaign.copy()
    install(place.published)
    folder = place.published / "quick"
    names = ["manifest.json", "totals.npz", "means.csv", "claims.json"]
    for _ in share(campaign, 0.15):

        def fault() -> None:
            name = campaign.rng.choice(names)
            how = damage(folder / name, campaign.rng)
            code, out, errors = call(*place.words("publish", "means"))
            if name in ("manifest.json", "totals.npz"):
                one_line(code, errors, str(folder))
                shutil.rmtree(folder)
                code, out, errors = call(*place.words("publish"))
            expect((code, out, errors) == (0, [f"published to {folder}"], []), (name, how, out, errors))
            expect(place.files() == campaign.expected, f"{name} differs")

        yield fault


def damaged_publications(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the published results and benchmarks"""
    folder = campaign.place().published
    shutil.copytree(ROOT / "data" / "results", folder, dirs_exist_ok=True)
    (folder / "bench" / f"{results.FAULTS}.json").unlink(missing_ok=True)
    install(folder)
    registry.PUBLISHED = folder
    registry.run = build.build = lambda *_, **__: None
    cli._publish = lambda *_: None
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for _ in share(campaign, 0.25):

        def fault() -> None:
            path = campaign.rng.choice(paths)
            content = path.read_bytes()
            how = damage(path, campaign.rng)
            code, _, errors = call("book", "build", "--store", str(folder / "store"), "--device", "cpu")
            if not (how == "delete" and path.parent.name == "bench"):  # which chapter needs it says so
                one_line(code, errors, str(path.parent))
            path.write_bytes(content)

        yield fault


def damaged_playground(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the playground, when the book is built"""
    folder = campaign.place().root
    book.figure_scheme = lambda *_: SimpleNamespace(_repr_png_=bytes)  # the preview is not looked at
    made = book.files(results.Results.open(build.PUBLISHED / build.SHOWN))
    build.files = lambda _: made
    names = [name for name in made if name != "preview.png"]
    for name in names:
        write_bytes(folder / name, made[name])
    for _ in share(campaign, 0.1):

        def fault() -> None:
            name = campaign.rng.choice(names)
            damage(folder / name, campaign.rng)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                build.renew_playground(folder)
            said = [f"the playground's {name} is damaged or outdated: written again"]
            expect(out.getvalue().splitlines() == said, out.getvalue())
            expect((folder / name).read_bytes() == made[name], f"{name} differs")

        yield fault


# --------------------------------------------------------------------------------------------------------- the campaign

KINDS = (
    killed_at_writes_of_run, killed_at_writes_of_publish, killed_run, killed_worker, killed_group, killed_publish,
    two_runs, one_of_two_runs, interrupted_start, interrupted_run, clock_jumps, refused_writes, refused_publication,
    file_size_limit, small_disk, damaged_artifacts, damaged_states, damaged_results, damaged_publications,
    damaged_playground,
)  # fmt: skip


def conduct(seed: int, kills: int, damages: int) -> list[dict[str, object]]:
    """Try all kinds of faults; returns a row for each with how many were tried and how many survived."""
    torch.set_num_threads(1)
    multiprocessing.resource_tracker.ensure_running()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # kills do not depend on the disk
    with tempfile.TemporaryDirectory(prefix="fmlib-faults-", dir=memory) as folder:
        call("store", "list", "--store", folder)  # imports what the forked commands need
        campaign = Campaign(Path(folder), seed, kills, damages)
        return [_row(kind, campaign) for kind in KINDS]


def _row(kind: Callable[[Campaign], Iterator[Fault]], campaign: Campaign) -> dict[str, object]:
    begin, tried, survived = time.monotonic(), 0, 0
    for fault in kind(campaign):
        tried += 1
        try:
            expect(campaign.hits(fault), "the fault never hits")
            survived += 1
        except Exception as error:  # a fault that is not survived is counted, whatever it is
            print(f"  NOT SURVIVED: {type(error).__name__}: {str(error)[:600]}", flush=True)
    name = str(kind.__doc__)
    print(f"{name}: {survived} of {tried} survived ({time.monotonic() - begin:.1f} s)", flush=True)
    return {"kind": name, "tried": tried, "survived": survived}


def table(rows: list[dict[str, object]]) -> str:
    """The table of the page."""
    lines = ["| fault | tried | survived |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row['kind']} | {row['tried']:,} | {row['survived']:,} |" for row in rows)])


def with_table(text: str, rows: list[dict[str, object]]) -> str:
    """The page with its table renewed."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}"


def main(words: list[str] | None = None) -> int:
    """Conduct the campaign; the exit code is 1 if a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind, at most (default: 20)")
    parser.add_argument("--damages", type=int, default=200, help="of all kinds together (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="write faults.json and the table of the page")
    options = parser.parse_args(words)
    rows = conduct(options.seed, options.kills, options.damages)
    if options.publish:
        record = {"date": date.today().isoformat(), "device": f"{platform.machine()}, {platform.system()}"}
        path = ROOT / "data" / "results" / "bench" / "faults.json"
        write_bytes(path, signed_json(record | {"seed": options.seed, "rows": rows}).encode())
        write_bytes(PAGE, with_table(PAGE.read_text(), rows).encode())
    return int(any(row["tried"] != row["survived"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
