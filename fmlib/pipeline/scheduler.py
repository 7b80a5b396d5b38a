"""The computation of tasks, one after another or by several workers, each as soon as its inputs are in the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.processes import context, inherited_interrupts_blocked
from fmlib.pipeline.progress import Progress
from fmlib.pipeline.store import Store, Task, with_inputs


def default_workers(device: torch.device) -> int:
    """How many workers are used by default: two on a processor of several cores, one on any other device.

    A small network gains little from a second thread: on two cores the profile `quick` took 128 s with one worker and
    107 s with two; at `laptop`, training and masks are 5% to 13% faster with two.
    """
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


def missing(tasks: list[Task], store: Store) -> dict[str, Task]:
    """Key -> task of all that is to be computed until `store` holds `tasks`, inputs first.

    Inputs that only stored artifacts read are not computed.
    """
    return {task.key: task for task in with_inputs(tasks, skip=store.has)}


def compute(plan: Callable[[], list[Task]], store: Store, workers: int = 1, progress: Progress | None = None) -> None:
    """Compute the tasks of a plan that `store` lacks.

    Args:
        plan: returns the same tasks in every process; it is sent to each worker and so must pickle, as tasks do not.
        store: where artifacts are read and written.
        workers: processes that compute side by side and share torch's threads; one worker is this process.
        progress: is notified of what is planned, started, finished and failed.

    Raises:
        FmlibError: there is no worker, a task raises it, or a worker dies. A worker dies of any other error in a task,
            after it has printed the traceback.
    """
    require(workers >= 1, f"computing needs at least one worker, not {workers}")
    progress = progress or Progress()
    tasks = missing(plan(), store)
    progress.planned(list(tasks.values()), workers)
    if workers == 1:
        for task in tasks.values():
            progress.started(task, store.resumes(task))
            try:
                store.get(task)
            except Exception:
                progress.failed(task)
                raise
            progress.finished(task)
        return
    threads = max(1, torch.get_num_threads() // workers)
    pool = _Workers(plan, store.root, store.device, threads, BFLOAT16)
    try:
        _distribute(tasks, store, pool, workers, progress)
    finally:
        pool.stop()


def _distribute(tasks: dict[str, Task], store: Store, pool: _Workers, workers: int, progress: Progress) -> None:
    """Give every task to a worker once its inputs are there; of those that are ready, the first in `tasks` first."""
    order = TopologicalSorter(
        {key: [item.key for item in task.inputs if item.key in tasks] for key, task in tasks.items()}
    )
    order.prepare()
    position = {key: index for index, key in enumerate(tasks)}
    ready: list[str] = []
    while order.is_active():
        ready = sorted([*ready, *order.get_ready()], key=position.__getitem__)
        for key in ready[: workers - len(pool.running)]:
            ready.remove(key)
            progress.started(tasks[key], store.resumes(tasks[key]))
            store.announce(tasks[key])
            pool.start(tasks[key])
        for task, error in pool.wait():
            if error:
                progress.failed(task)
                raise error
            progress.finished(task)
            order.done(task.key)


class _Workers:
    """Worker processes, each at the other end of a pipe; they are started when they are first needed.

    They are not a `ProcessPoolExecutor`: on Python 3.11 it does not notice the death of a process that it started after
    it had begun to wait, and hangs.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments  # of `_work`, after the connection
        self.processes: dict[Connection, BaseProcess] = {}
        self.running: dict[Connection, Task] = {}

    def start(self, task: Task) -> None:
        """Send a task to an idle worker, or to a new one."""
        connection = next((one for one in self.processes if one not in self.running), None) or self._spawn()
        self.running[connection] = task
        with suppress(OSError):  # `wait` reports a worker that has died since
            connection.send(task.key)

    def wait(self) -> list[tuple[Task, FmlibError | None]]:
        """Wait until at least one worker is done; returns their tasks, each with the error that it raised, if any."""
        ended = [connection for connection in wait(list(self.running)) if isinstance(connection, Connection)]
        return [(task, _receive(one, task)) for one in ended for task in [self.running.pop(one)]]

    def stop(self) -> None:
        """End every worker. A task that is interrupted keeps the state that it has saved."""
        for process in self.processes.values():
            process.terminate()
            process.join()

    def _spawn(self) -> Connection:
        place = context()
        connection, remote = place.Pipe()
        process = place.Process(target=_work, args=(remote, *self.arguments))
        with inherited_interrupts_blocked():
            process.start()
            self.processes[connection] = process
        remote.close()  # so that the connection breaks if the process dies
        return connection


def _receive(connection: Connection, task: Task) -> FmlibError | None:
    """What a worker sends at the end of a task: None or an error; that it died is an error too."""
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        mend = "run again to go on, with --workers 1 if it was short of memory"
        died = FmlibError(f"the process that computed {task.name} died: {mend}")
        died.__cause__ = error
        return died


def _work(
    connection: Connection,
    plan: Callable[[], list[Task]],
    root: Path,
    device: torch.device,
    threads: int,
    reduced_precision: set[str],
) -> None:
    """Compute, in a worker process, every task whose key arrives; end with the parent process, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # the default lock is a semaphore, which a terminated worker would leave behind
    torch.set_num_threads(threads)
    BFLOAT16.update(reduced_precision)
    store = Store(root, device)
    tasks = missing(plan(), store)
    with suppress(EOFError):  # the parent is gone
        while True:
            key = connection.recv()
            try:
                store.get(tasks[key])
                connection.send(None)
            except FmlibError as error:
                connection.send(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
