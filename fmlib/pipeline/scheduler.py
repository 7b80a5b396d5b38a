"""Tasks computed side by side: each by one of several processes, as soon as what it needs is in the store."""

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

from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.store import Store, Task, with_inputs


def default_workers(device: torch.device) -> int:
    """How many processes pay by default: two on a processor of several cores, one on any other device.

    A small network gains little from a second thread: on two cores `quick` took 128 s one task at a time, 107 s side by
    side, and training and masks at `laptop` gain a twentieth to an eighth.
    """
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


def missing(tasks: list[Task], store: Store) -> dict[str, Task]:
    """Key -> task of all that `store` needs to hold `tasks`, needs first; what is there asks for nothing."""
    return {task.key: task for task in with_inputs(tasks, but=store.has)}


def compute(plan: Callable[[], list[Task]], store: Store, workers: int = 1) -> None:
    """Compute what `store` lacks of the tasks that `plan` makes.

    plan: makes the same tasks in every process, as a task's function cannot be sent to one; so it must pickle.
    workers: processes; they share torch's threads among them, and one worker is this process.
    Raises `FmlibError` if there is no worker, a task does, or a process dies; of any other error in a task it has
    printed the traceback by then.
    """
    require(workers >= 1, f"computing needs at least one worker, not {workers}")
    waiting = missing(plan(), store)
    if workers == 1:
        for task in waiting.values():
            store.get(task)
        return
    given = (plan, store.root, store.device, max(1, torch.get_num_threads() // workers), BFLOAT16)
    workers_by_connection: dict[Connection, BaseProcess] = {}
    running: dict[Connection, Task] = {}
    try:
        while waiting or running:
            absent = {*waiting, *(task.key for task in running.values())}
            ready = [key for key, task in waiting.items() if absent.isdisjoint(item.key for item in task.inputs)]
            for key in ready[: workers - len(running)]:
                worker = next((one for one in workers_by_connection if one not in running), None) or _start(
                    workers_by_connection, given
                )
                running[worker] = waiting.pop(key)
                store.announce(running[worker])
                with suppress(OSError):  # one that has died meanwhile is heard of below
                    worker.send(key)
            speaking = wait(list(running))
            for worker in [one for one in running if one in speaking]:
                _receive(worker, running.pop(worker))
    finally:
        for process in workers_by_connection.values():
            process.terminate()  # of a task that is stopped there remains what it has saved
            process.join()


def _start(workers_by_connection: dict[Connection, BaseProcess], given: tuple[Any, ...]) -> Connection:
    """Take one more process into the team; returns the line to it."""
    context = multiprocessing.get_context("spawn")
    connection, remote = context.Pipe()
    process = context.Process(target=_work, args=(remote, *given))
    process.start()
    workers_by_connection[connection] = process
    remote.close()  # so that the line breaks if the process dies
    return connection


def _receive(worker: Connection, task: Task) -> None:
    """What a worker says at the end of a task: nothing, or a mistake, which is raised, as is that it says no more."""
    try:
        failure = worker.recv()
    except (EOFError, OSError) as error:
        mend = "run again to go on, with --workers 1 if it was short of memory"
        raise FmlibError(f"the process that computed {task.name} died: {mend}") from error
    if failure:
        raise failure


def _work(
    connection: Connection,
    plan: Callable[[], list[Task]],
    root: Path,
    device: torch.device,
    threads: int,
    reduced: set[str],
) -> None:
    """A worker's life: it computes what it is told, and ends with the process that began it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers the keyboard, and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore, which a worker that is stopped leaves behind
    torch.set_num_threads(threads)
    BFLOAT16.update(reduced)
    store = Store(root, device)
    tasks = missing(plan(), store)
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
