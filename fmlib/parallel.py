"""Jobs computed side by side: each by one of several processes, as soon as what it needs is in the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fmlib import runtime
from fmlib.config import FmlibError, require
from fmlib.store import Job, Store, with_needs


def usual_workers(device: torch.device) -> int:
    """How many processes pay by default: two on a processor of several cores, one on any other device.

    A small network gains little from a second thread: on two cores `quick` took 128 s one job at a time, 107 s side by
    side, and training and masks at `laptop` gain a twentieth to an eighth.
    """
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


def lacking(jobs: list[Job], store: Store) -> dict[str, Job]:
    """Key -> job of all that `store` needs to hold `jobs`, needs first; what is there asks for nothing."""
    return {job.key: job for job in with_needs(jobs, but=store.has)}


def compute(plan: Callable[[], list[Job]], store: Store, workers: int = 1) -> None:
    """Compute what `store` lacks of the jobs that `plan` makes.

    plan: makes the same jobs in every process, as a job's function cannot be sent to one; so it must pickle.
    workers: processes; they share torch's threads among them, and one worker is this process.
    Raises `FmlibError` if there is no worker, a job does, or a process dies; of any other error in a job it has
    printed the traceback by then.
    """
    require(workers >= 1, f"computing needs at least one worker, not {workers}")
    waiting = lacking(plan(), store)
    if workers == 1:
        for job in waiting.values():
            store.get(job)
        return
    given = (plan, store.root, store.device, max(1, torch.get_num_threads() // workers), runtime.BFLOAT16)
    team: dict[Connection, BaseProcess] = {}
    running: dict[Connection, Job] = {}
    try:
        while waiting or running:
            absent = {*waiting, *(job.key for job in running.values())}
            ready = [key for key, job in waiting.items() if absent.isdisjoint(item.key for item in job.inputs)]
            for key in ready[: workers - len(running)]:
                worker = next((one for one in team if one not in running), None) or _begin(team, given)
                running[worker] = waiting.pop(key)
                store.announce(running[worker])
                with suppress(OSError):  # one that has died meanwhile is heard of below
                    worker.send(key)
            speaking = wait(list(running))
            for worker in [one for one in running if one in speaking]:
                _hear(worker, running.pop(worker))
    finally:
        for process in team.values():
            process.terminate()  # of a job that is stopped there remains what it has saved
            process.join()


def _begin(team: dict[Connection, BaseProcess], given: tuple[Any, ...]) -> Connection:
    """Take one more process into the team; returns the line to it."""
    context = multiprocessing.get_context("spawn")
    line, its_end = context.Pipe()
    process = context.Process(target=_work, args=(its_end, *given))
    process.start()
    team[line] = process
    its_end.close()  # so that the line breaks if the process dies
    return line


def _hear(worker: Connection, job: Job) -> None:
    """What a worker says at the end of a job: nothing, or a mistake, which is raised, as is that it says no more."""
    try:
        mistake = worker.recv()
    except (EOFError, OSError) as error:
        mend = "run again to go on, with --workers 1 if it was short of memory"
        raise FmlibError(f"the process that computed {job.name} died: {mend}") from error
    if mistake:
        raise mistake


def _work(
    line: Connection, plan: Callable[[], list[Job]], root: Path, device: torch.device, threads: int, reduced: set[str]
) -> None:
    """A worker's life: it computes what it is told, and ends with the process that began it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers the keyboard, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore, which a worker that is stopped leaves behind
    torch.set_num_threads(threads)
    runtime.BFLOAT16.update(reduced)
    store = Store(root, device)
    jobs = lacking(plan(), store)
    while True:
        key = line.recv()
        try:
            store.get(jobs[key])
            line.send(None)
        except FmlibError as mistake:
            line.send(mistake)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
