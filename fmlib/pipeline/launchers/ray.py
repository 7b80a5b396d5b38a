"""Tasks on a Ray cluster: machines that see the store and the images at the same paths, and have fmlib installed.

Every node computes tasks as a worker process here does, under the store's locks. Needs the extra `fmlib[ray]`.
"""

from __future__ import annotations

import logging
import pickle  # of a plan, between processes of one run
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm

from fmlib.core.device import BFLOAT16, pick_device
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.scheduler import GRACE, attempt
from fmlib.pipeline.store import Store, Task, with_inputs

#: Seconds within which the head of a cluster must answer.
PATIENCE = 20
#: Seconds after which the end of tasks is looked for again.
INTERVAL = 1.0
#: How often a task is begun if the node or the process that computes it dies.
ATTEMPTS = 3
#: What the user can do if a node differs from this machine.
SAME = "all nodes need the same shared folders at the same paths, and the same version of fmlib"


def cluster(
    launcher: str, cpus: int | None = None, gpus: float | None = None, device: str = "auto"
) -> RayCluster | None:
    """The cluster that `--launcher` names; None for this machine.

    Args:
        launcher: "local", "ray" for the cluster that runs on this machine, or "ray:HOST:PORT".
        cpus: processors for each task (default: 1).
        gpus: GPUs for each task, a fraction if several tasks share one (default: 1 if the cluster has any, else 0).
        device: "cpu" or "cuda" settle that default.

    Raises:
        FmlibError: a value does not make sense.
    """
    if launcher == "local":
        require(cpus is gpus is None, "--cpus-per-task and --gpus-per-task need --launcher ray")
        return None
    found = re.fullmatch(r"ray(?::([^:\s/]+:\d{1,5}))?", launcher)
    if found is None:
        raise FmlibError(f"--launcher must be local, ray or ray:HOST:PORT, not {launcher!r}")
    require(cpus is None or cpus >= 1, f"--cpus-per-task must be at least 1, not {cpus}")
    fits = gpus is None or 0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))
    require(fits, f"--gpus-per-task must be a fraction between 0 and 1, or a whole number, not {gpus}")
    return RayCluster(found[1] or "auto", cpus or 1, {"cpu": 0, "cuda": 1}.get(device) if gpus is None else gpus)


@dataclass
class RayCluster:
    """A Ray cluster, connected within a `with` block, at whose end none of its tasks runs any more.

    Attributes:
        address: "HOST:PORT" of its head, or "auto" for the cluster that runs on this machine.
        cpus, gpus: for each task. Within the block, `gpus` is known.
        device: where its nodes compute, within the block.
        slots: how many tasks fit on its nodes at once, within the block.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    slots: int = 0

    def __enter__(self) -> RayCluster:
        ray = _connect(self.address)
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if self.gpus is None:
                self.gpus = 1 if any(node.get("GPU") for node in nodes) else 0
            self.device = torch.device("cuda" if self.gpus else "cpu")
            self.slots = sum(slots(node, self.cpus, self.gpus) for node in nodes)
            wanted = f"--cpus-per-task {self.cpus} and --gpus-per-task {self.gpus:g}"
            require(self.slots > 0, f"no node of the cluster has room for {wanted}")
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        _ray().shutdown()

    def launch(self, plan: Callable[[], list[Task]], store: Store) -> RayPool:
        """The workers of `scheduler.compute`."""
        return RayPool(self, plan, store)


def slots(node: dict[str, float], cpus: int, gpus: float) -> int:
    """How many tasks fit on a node at once, by its resources "CPU" and "GPU"."""
    count = int(node.get("CPU", 0) // cpus)
    if not gpus:
        return count
    devices = node.get("GPU", 0)
    return min(count, int(devices // gpus if gpus > 1 else devices * int(1 / gpus + 1e-9)))


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise FmlibError("--launcher ray needs Ray: pip install 'fmlib[ray]'") from error
    return ray


def _connect(address: str) -> ModuleType:
    """Connect to the cluster, whose head must answer; its logs stay in its own files."""
    ray = _ray()
    place = "on this machine" if address == "auto" else f"at {address}"
    mend = "start its head with 'ray start --head', and run fmlib on a machine of the cluster"
    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, OverflowError, RuntimeError, ValueError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise FmlibError(f"no Ray cluster answers {place} ({reason}): {mend}") from error
    return ray


def _require_answer(address: str) -> None:
    """Let another process connect first: where anything but a cluster listens, Ray hangs or ends its process."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), PATIENCE).close()
    try:
        command = [sys.executable, "-c", "import ray, sys; ray.init(address=sys.argv[1])", address]
        subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"silence for {PATIENCE} s") from error
    except subprocess.CalledProcessError as error:
        raise ConnectionError((error.stderr.strip().splitlines() or [""])[-1]) from error


@dataclass(frozen=True)
class _Job:
    """What every node must know to compute the tasks of a plan."""

    plan: bytes  # pickled
    probe: Path  # a file in the root of the store
    device: str
    threads: int
    reduced_precision: frozenset[str]


class RayPool:
    """Tasks on a connected cluster.

    Args:
        cluster: within its `with` block.
        plan: see `scheduler.compute`.
        store: in a folder that every node sees at the same path.
    """

    def __init__(self, cluster: RayCluster, plan: Callable[[], list[Task]], store: Store) -> None:
        self.ray, self.note = _ray(), store.note
        self.running: dict[Any, Task] = {}
        self.died: Counter[str] = Counter()  # by key
        root = store.root.absolute()
        root.mkdir(parents=True, exist_ok=True)
        self.probe = root / f".probe-{uuid.uuid4().hex}"
        self.probe.touch()
        precision = frozenset(BFLOAT16)
        self.job = _Job(pickle.dumps(plan), self.probe, cluster.device.type, cluster.cpus, precision)
        remote = self.ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0)
        self.remote = remote(_compute)

    def start(self, task: Task) -> None:
        """Let a node compute a task whose inputs are stored."""
        self.running[self.remote.remote(self.job, task.key, task.name)] = task

    def wait(self, seconds: float | None = None) -> list[tuple[Task, FmlibError | bool]]:
        """Wait until a task ends, at most so many seconds; one whose node has died is begun again. See `Pool`."""
        ended = []
        ready, _ = self.ray.wait(list(self.running), timeout=INTERVAL if seconds is None else seconds)
        for reference in ready:
            task = self.running.pop(reference)
            result = self._result(reference, task)
            if result is None:
                self.start(task)
            else:
                ended.append((task, result))
        return ended

    def stop(self) -> None:
        """End all tasks, by an interrupt at first, which lets them remove their drafts."""
        self.probe.unlink(missing_ok=True)
        left = list(self.running)
        for force in (False, True):
            if left:
                with suppress(self.ray.exceptions.RayError):
                    for reference in left:
                        self.ray.cancel(reference, force=force)
                    _, left = self.ray.wait(left, num_returns=len(left), timeout=GRACE)

    def _result(self, reference: Any, task: Task) -> FmlibError | bool | None:
        """The error of a task or whether its artifact is stored; None if its node died and it should begin again."""
        errors = self.ray.exceptions
        try:
            result, lines = self.ray.get(reference)
        except (errors.NodeDiedError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            self.died[task.key] += 1
            if self.died[task.key] < ATTEMPTS:
                self.note(f"the node that computed {task.name} died: computing it again")
                return None
            mend = "run again to go on, with more --cpus-per-task if nodes are short of memory"
            return _caused(f"{ATTEMPTS} nodes or processes died that computed {task.name}: {mend}", error)
        except errors.RayError as error:
            print(error, file=sys.stderr)  # with the traceback of the node
            return _caused(f"{task.name} failed on a node: its traceback is above", error)
        for line in lines:
            self.note(line)
        return result


def _caused(message: str, cause: Exception) -> FmlibError:
    error = FmlibError(message)
    error.__cause__ = cause
    return error


def _compute(job: _Job, key: str, name: str) -> tuple[FmlibError | bool, list[str]]:
    """Compute a task on a node: its error, or whether its artifact is stored; and lines to note."""
    lines: list[str] = []
    try:
        store, tasks = _opened(job)
        require(key in tasks, f"it plans other tasks than this machine, without {name}: {SAME}")
    except FmlibError as error:
        return FmlibError(f"node {socket.gethostname()}: {error}"), lines
    store.note = lines.append
    return attempt(tasks[key], store), lines


@cache
def _opened(job: _Job) -> tuple[Store, dict[str, Task]]:
    """The store and, by key, the tasks of a plan: once in each worker process of a node."""
    root = job.probe.parent
    require(job.probe.exists(), f"it does not see the store {root} of this run: {SAME}")
    tqdm.set_lock(threading.RLock())  # the default lock is a semaphore, which a worker that is killed leaves behind
    torch.set_num_threads(job.threads)
    BFLOAT16.update(job.reduced_precision)
    tasks = {task.key: task for task in with_inputs(pickle.loads(job.plan)())}
    return Store(root, pick_device(job.device)), tasks
