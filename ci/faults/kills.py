"""Kills, interrupts, runs at the same time, and clocks that jump."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from ci.faults.campaign import PATIENCE, ROOT, Campaign, Fault, expect, one_line, run, start, succeed
from ci.faults.writes import at_write, chosen, die, writes


def killed_at_writes_of_run(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL at a file write of `run`"""
    place = campaign.place()
    for number in chosen(writes(place, place.words("run", "--workers", "1")), campaign.kills):

        def fault(number: int = number) -> None:
            place = campaign.place()
            code, *_ = run(place, place.words("run", "--workers", "1"), lambda: at_write(number, die))
            expect(code == -signal.SIGKILL, code)
            campaign.finish(place, "--workers", "1")

        yield fault


def killed_at_writes_of_publish(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL at a file write of `publish`"""
    place = campaign.copy()
    for number in chosen(writes(place, place.words("publish", "means")), campaign.kills):

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
