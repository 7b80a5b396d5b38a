"""The computation of tasks, one after another or by several workers, each as soon as its inputs are in the store."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sized
from contextlib import suppress
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.disk.files import mend
from fmlib.pipeline.processes import context, end_with_parent, inherited_interrupts_blocked
from fmlib.pipeline.progress import Progress
from fmlib.pipeline.store import Store, Task, with_inputs


def default_workers(device: torch.device) -> int:
    """How many workers are used by default: two on a processor of several cores, one on any other device.

    A small network gains little from a second thread: on two cores the profile `quick` took 128 s with one worker and
    107 s with two; at `laptop`, training and masks are 5% to 13% faster with two.
    """
    return min(2, torch.get_num_threads()) if device.type == "cpu" else 1


#: Seconds between two looks at tasks that another run computes.
INTERVAL = 0.2
#: Seconds that a worker has to end.
GRACE = 5


def missing(tasks: list[Task], store: Store) -> dict[str, Task]:
    """Key -> task of all that is to be computed until `store` holds `tasks`, inputs first.

    Inputs that only stored artifacts read are not computed.
    """
    return {task.key: task for task in with_inputs(tasks, skip=store.has)}


class Pool(Protocol):
    """Workers that compute tasks, here or on other machines."""

    @property
    def running(self) -> Sized:
        """The tasks that were started and have not ended."""

    def start(self, task: Task) -> None:
        """Let a worker compute a task whose inputs are stored."""

    def wait(self, seconds: float | None = None) -> list[tuple[Task, FmlibError | bool]]:
        """Wait until something happens, at most so many seconds.

        Returns:
            The tasks that have ended, each with the error that it raised or whether its artifact is in the store.
        """

    def stop(self) -> None:
        """End every worker. A task that is interrupted keeps the state that it has saved, and removes its drafts."""


def compute(
    plan: Callable[[], list[Task]],
    store: Store,
    workers: int = 1,
    progress: Progress | None = None,
    launch: Callable[[Callable[[], list[Task]], Store], Pool] | None = None,
) -> None:
    """Compute the tasks of a plan that `store` lacks.

    A task that another run computes is left to it: this run works on others, then waits, and reads the artifact.

    Args:
        plan: returns the same tasks in every process; it is sent to each worker and so must pickle, as tasks do not.
        store: where artifacts are read and written.
        workers: processes that compute side by side and share torch's threads; one worker is this process. Where
            each task needs the one before it, one worker has all threads.
        progress: is notified of what is planned, started, finished and failed.
        launch: makes the workers from the plan and the store, for workers on other machines; `workers` is then how many
            tasks they are given at once (default: processes of this machine).

    Raises:
        FmlibError: there is no worker, a task raises it, or a worker dies. A worker dies of any other error in a task,
            after it has printed the traceback.
    """
    require(workers >= 1, f"computing needs at least one worker, not {workers}")
    progress = progress or Progress()
    planned = plan()
    tasks = missing(planned, store)
    progress.planned(list(tasks.values()), workers)
    queue = _Queue(tasks, store, progress)
    if workers == 1 and launch is None:
        _one_by_one(queue, store, progress)
    elif tasks:
        pool = launch(plan, store) if launch else _processes(plan, store, min(workers, _side_by_side(tasks)))
        try:
            _distribute(queue, store, pool, workers, progress)
        finally:
            pool.stop()
    store.tidy(with_inputs(planned))


def attempt(task: Task, store: Store) -> bool | FmlibError:
    """`Store.try_compute`, in a worker: an error that the user can correct is returned, and any other is raised."""
    try:
        return store.try_compute(task)
    except FmlibError as error:
        return error
    except OSError as error:
        if mend(error) is None:
            raise
        return FmlibError(f"cannot compute {task.name} ({error}): {mend(error)}, then run again")


def _order(tasks: dict[str, Task]) -> TopologicalSorter[str]:
    """The keys of the tasks, each after those of its inputs that are to be computed."""
    order = TopologicalSorter(
        {key: [item.key for item in task.inputs if item.key in tasks] for key, task in tasks.items()}
    )
    order.prepare()
    return order


def _side_by_side(tasks: dict[str, Task]) -> int:
    """How many tasks can be computed at once, if all that are ready end together."""
    order, most = _order(tasks), 0
    while order.is_active():
        ready = order.get_ready()
        most = max(most, len(ready))
        order.done(*ready)
    return most


class _Queue:
    """Tasks that wait, each until its inputs are in the store; of those that are ready, the first in `tasks` first."""

    def __init__(self, tasks: dict[str, Task], store: Store, progress: Progress) -> None:
        self.tasks, self.store, self.progress = tasks, store, progress
        self.order = _order(tasks)
        self.position = {key: index for index, key in enumerate(tasks)}
        self.ready: list[str] = []
        self.noted: set[str] = set()

    def next(self) -> Task | None:
        """Take the first task that is ready and that no other run computes; None if there is none."""
        while self.order.is_active():
            self.ready = sorted([*self.ready, *self.order.get_ready()], key=self.position.__getitem__)
            stored = [self.tasks[key] for key in self.ready if self.store.has(self.tasks[key])]
            if not stored:
                break
            for task in stored:  # by another run, since the tasks were planned
                self.ready.remove(task.key)
                self.progress.shared(task)
                self.done(task)
        free = (self.tasks[key] for key in self.ready)
        found = next((task for task in free if not self.store.is_locked(task)), None)
        if found is not None:
            self.ready.remove(found.key)
        return found

    def done(self, task: Task) -> None:
        """The task's artifact is in the store."""
        self.order.done(task.key)

    def postpone(self, task: Task) -> None:
        """Another run computes the task, which was taken."""
        self.progress.postponed(task)
        self.ready.append(task.key)

    def wait(self) -> None:
        """Wait a moment for tasks that another run computes, as nothing else can be done."""
        for key in self.ready:
            if key not in self.noted:
                self.noted.add(key)
                self.store.note(f"another run computes {self.tasks[key].name}: waiting for it")
        time.sleep(INTERVAL)


def _one_by_one(queue: _Queue, store: Store, progress: Progress) -> None:
    """Compute every task in this process."""
    while queue.order.is_active():
        task = queue.next()
        if task is None:
            if queue.ready:
                queue.wait()
            continue
        progress.started(task, store.resumes(task))
        try:
            stored = store.try_compute(task)
        except Exception:
            progress.failed(task)
            raise
        if stored:
            progress.finished(task)
            queue.done(task)
        else:
            queue.postpone(task)


def _distribute(queue: _Queue, store: Store, pool: Pool, workers: int, progress: Progress) -> None:
    """Give every task to a worker once its inputs are there."""
    while queue.order.is_active():
        while len(pool.running) < workers and (task := queue.next()):
            progress.started(task, store.resumes(task))
            store.announce(task)
            pool.start(task)
        if not pool.running:
            if queue.ready:
                queue.wait()
            continue
        for task, ended in pool.wait(INTERVAL if queue.ready and len(pool.running) < workers else None):
            if isinstance(ended, FmlibError):
                progress.failed(task)
                raise ended
            if ended:
                progress.finished(task)
                queue.done(task)
            else:
                queue.postpone(task)


def _processes(plan: Callable[[], list[Task]], store: Store, busy: int) -> _Workers:
    """Worker processes that share torch's threads, of which at most `busy` compute at once."""
    threads = max(1, torch.get_num_threads() // busy)
    return _Workers(store.note, plan, store.root, store.device, threads, BFLOAT16)


class _Workers:
    """Worker processes, each at the other end of a pipe; they are started when they are first needed.

    They are not a `ProcessPoolExecutor`: on Python 3.11 it does not notice the death of a process that it started after
    it had begun to wait, and hangs.
    """

    def __init__(self, note: Callable[[str], None], *arguments: Any) -> None:
        self.note = note  # called with each line that a worker sends
        self.arguments = arguments  # of `_work`, after the connection
        self.processes: dict[Connection, BaseProcess] = {}
        self.running: dict[Connection, Task] = {}

    def start(self, task: Task) -> None:
        """Send a task to an idle worker, or to a new one."""
        connection = next((one for one in self.processes if one not in self.running), None) or self._spawn()
        self.running[connection] = task
        with suppress(OSError):  # `wait` reports a worker that has died since
            connection.send(task.key)

    def wait(self, seconds: float | None = None) -> list[tuple[Task, FmlibError | bool]]:
        """Wait until a worker sends something, at most so many seconds; see `Pool`."""
        ended = []
        for connection in wait(list(self.running), seconds):
            assert isinstance(connection, Connection)
            message = _receive(connection, self.running[connection])
            if isinstance(message, str):
                self.note(message)
            else:
                ended.append((self.running.pop(connection), message))
        return ended

    def stop(self) -> None:
        """End every worker. A task that is interrupted keeps the state that it has saved, and removes its drafts."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join(GRACE)
            process.kill()
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


def _receive(connection: Connection, task: Task) -> FmlibError | bool | str:
    """What a worker sends: a line to note, or at the end whether the artifact is stored, or an error (it may die)."""
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    end_with_parent()
    tqdm.set_lock(threading.RLock())  # the default lock is a semaphore, which a terminated worker would leave behind
    torch.set_num_threads(threads)
    BFLOAT16.update(reduced_precision)
    store = Store(root, device, say=lambda line: None, note=connection.send)
    tasks = {task.key: task for task in with_inputs(plan())}
    with suppress(EOFError, BrokenPipeError):  # the parent is gone
        while True:
            connection.send(attempt(tasks[connection.recv()], store))
