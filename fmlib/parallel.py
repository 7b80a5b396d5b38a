"""Jobs computed side by side: each by one of several processes, as soon as what it needs is in the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from tqdm import tqdm

from fmlib import runtime
from fmlib.config import FmlibError, require
from fmlib.store import Job, Store

#: What a worker computes, and for which store: set when its process begins.
_jobs: dict[str, Job] = {}
_store: Store


def usual_workers(device: torch.device) -> int:
    """How many processes pay by default: two on a processor of several cores, one on any other device.

    A small network gains little from a second thread: on two cores `quick` took 128 s one job at a time, 107 s side by
    side, and training and masks at `laptop` gain a twentieth to an eighth.
    """
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


def lacking(jobs: list[Job], store: Store) -> dict[str, Job]:
    """Key -> job of all that `store` needs to hold `jobs`, needs first; what is there asks for nothing."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.key not in found and not store.has(job):
            found |= lacking(list(job.inputs), store)
            found[job.key] = job
    return found


def compute(plan: Callable[[], list[Job]], store: Store, workers: int = 1) -> None:
    """Compute what `store` lacks of the jobs that `plan` makes.

    plan: makes the same jobs in every process, as a job's function cannot be sent to one; so it must pickle.
    workers: processes; they share torch's threads among them, and one worker is this process.
    Raises `FmlibError` if there is no worker, a job does, or a process dies.
    """
    require(workers >= 1, f"computing needs at least one worker, not {workers}")
    waiting = lacking(plan(), store)
    if workers == 1:
        for job in waiting.values():
            store.get(job)
        return
    before = set(multiprocessing.active_children())
    given = (plan, store.root, store.device, max(1, torch.get_num_threads() // workers), runtime.BFLOAT16)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, given)
    running: dict[Future[None], str] = {}
    try:
        while waiting or running:
            absent = {*waiting, *running.values()}
            ready = [key for key, job in waiting.items() if absent.isdisjoint(item.key for item in job.inputs)]
            for key in ready[: workers - len(running)]:
                store.announce(waiting.pop(key))
                running[pool.submit(_compute, key)] = key
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                del running[done]
                done.result()
    except BrokenProcessPool as error:
        mend = "run again to go on, with --workers 1 if it was short of memory"
        raise FmlibError(f"a process was killed while it computed: {mend}") from error
    finally:
        if running:  # stopped: what they compute is kept as far as it was saved
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin(plan: Callable[[], list[Job]], root: Path, device: torch.device, threads: int, reduced: set[str]) -> None:
    """Make this process a worker; it ends with the one that began it, however that ends."""
    global _store
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers the keyboard, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore, which a worker that is stopped leaves behind
    torch.set_num_threads(threads)
    runtime.BFLOAT16.update(reduced)
    _store = Store(root, device)
    _jobs.update(lacking(plan(), _store))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _compute(key: str) -> None:
    _store.get(_jobs[key])
