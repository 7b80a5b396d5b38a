"""Several workers compute the same artifacts as one, each artifact once, and no process outlives the run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError
from fmlib.pipeline import scheduler
from fmlib.pipeline.disk.locks import locked
from fmlib.pipeline.progress import Progress
from fmlib.pipeline.store import Artifact, SavedCheckpoint, Store, Task

CPU = torch.device("cpu")


def add_inputs(number, inputs, checkpoint):
    return Artifact({"sum": np.array(number + sum(int(item.arrays["sum"]) for item in inputs))})


def toy(number, *inputs, work=add_inputs):
    return Task("toy", f"task {number}", {"number": number}, partial(work, number), inputs)


def diamond():
    """Four tasks, of which the second and third need the first, and the fourth both."""
    first = toy(1)
    middle = toy(2, first), toy(3, first)
    return [toy(4, *middle)]


def count_threads(number, inputs, checkpoint):
    return Artifact({"threads": np.array(torch.get_num_threads())})


def chain():
    """Two tasks, of which the second needs the first."""
    return [toy(2, toy(1, work=count_threads), work=count_threads)]


def meeting(folder):
    """Two tasks, each of which waits until the other has begun."""

    def meet(number, inputs, checkpoint):
        (folder / str(number)).touch()
        deadline = time.monotonic() + 300
        while len(list(folder.iterdir())) < 2:
            assert time.monotonic() < deadline, "the other never began"
            time.sleep(0.01)
        return Artifact({"threads": np.array(torch.get_num_threads()), "reduced_precision": np.array(sorted(BFLOAT16))})

    return [toy(1, work=meet), toy(2, work=meet)]


def failing(folder, fail):
    """An endless task, and one that calls `fail` once the first has begun."""

    def fails(number, inputs, checkpoint):
        while not (folder / "pid").exists():
            time.sleep(0.01)
        if multiprocessing.parent_process():
            sys.stderr = (folder / "stderr").open("w")  # a worker's own is that of the first test that used workers
        fail()

    def endless(number, inputs, checkpoint):
        tqdm(disable=True)  # as every long task
        write_pid(folder)
        time.sleep(600)

    return [toy(1, work=endless), toy(2, work=fails)]


def write_pid(folder):
    (folder / "draft").write_text(str(os.getpid()))
    (folder / "draft").rename(folder / "pid")


def raise_error():
    raise FmlibError("an error that the user can correct")


def raise_bug():
    raise ZeroDivisionError("of the programmer")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep():
    time.sleep(600)


def fill_disk():
    raise OSError(28, "No space left on device", "/a/file")


def has_ended(folder):
    """Whether the process that wrote its number into `folder` ends within a minute."""
    pid, deadline = int((folder / "pid").read_text()), time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


class Events(Progress):
    """Keeps what it is told, as words."""

    def __init__(self):
        self.words = []

    def planned(self, tasks, workers):
        self.words.append(f"planned {len(tasks)} for {workers}")

    def started(self, task, resumed):
        self.words.append(f"{'resumed' if resumed else 'started'} {task.name}")

    def finished(self, task):
        self.words.append(f"finished {task.name}")

    def failed(self, task):
        self.words.append(f"failed {task.name}")

    def shared(self, task):
        self.words.append(f"shared {task.name}")


def test_one_worker_and_two_write_the_same_files(tmp_path):
    from conftest import files  # not above: every worker imports this module, and conftest is slow to import

    for workers in (1, 2):
        lines = []
        store = Store(tmp_path / str(workers), CPU, say=lines.append)
        scheduler.compute(diamond, store, workers)
        assert int(store.get(diamond()[0]).arrays["sum"]) == 4 + (2 + 1) + (3 + 1)
        assert lines == [f"computing task {number}" for number in (1, 2, 3, 4)]
        scheduler.compute(diamond, store, workers)
        assert len(lines) == 4  # what is there is not computed again
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert not multiprocessing.active_children()


def test_inputs_of_stored_artifacts_are_not_computed(tmp_path):
    store, (last,) = Store(tmp_path, CPU), diamond()
    assert [task.name for task in scheduler.missing([last], store).values()] == ["task 1", "task 2", "task 3", "task 4"]
    store.put(last.inputs[0], Artifact({"sum": np.array(3)}))
    assert [task.name for task in scheduler.missing([last], store).values()] == ["task 1", "task 3", "task 4"]
    store.put(last, Artifact({"sum": np.array(11)}))
    assert not scheduler.missing([last, last.inputs[0]], store)


def test_two_workers_work_at_once_and_share_threads_and_precision(tmp_path, monkeypatch):
    (tmp_path / "met").mkdir()
    plan = partial(meeting, tmp_path / "met")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr("fmlib.pipeline.scheduler.BFLOAT16", {"cpu", "cuda"})
    store = Store(tmp_path / "store", CPU)
    scheduler.compute(plan, store, 2)
    for task in plan():
        assert int(store.get(task).arrays["threads"]) == 3
        assert list(store.get(task).arrays["reduced_precision"]) == ["cpu", "cuda"]


def test_a_task_alone_has_all_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    store = Store(tmp_path, CPU)
    scheduler.compute(chain, store, 2)
    assert int(store.get(chain()[0]).arrays["threads"]) == 6


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (raise_error, "the user can correct"),
        (die, "task 2 died.*--workers 1"),
        (raise_bug, "task 2 died"),
        (fill_disk, r"^cannot compute task 2 \(.*No space left on device.*\): make room on the disk, then run again$"),
    ],
)
def test_a_failure_ends_all_workers(tmp_path, fail, message):
    events = Events()
    with pytest.raises(FmlibError, match=message):
        scheduler.compute(partial(failing, tmp_path, fail), Store(tmp_path / "store", CPU), 2, events)
    assert events.words == ["planned 2 for 2", "started task 1", "started task 2", "failed task 2"]
    assert has_ended(tmp_path)
    assert ("ZeroDivisionError: of the programmer" in (tmp_path / "stderr").read_text()) == (fail is raise_bug)


ORPHANED = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_scheduler as at
from fmlib.pipeline import processes
if __name__ == "__main__":
    processes.PRELOADED[:] = ["fmlib.pipeline.store"]  # the tasks need no more
    folder = Path(sys.argv[2])
    at.scheduler.compute(partial(at.failing, folder, at.sleep), at.Store(folder / "store", at.CPU), 2)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_run(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(ORPHANED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(ending)
    _, errors = process.communicate(timeout=300)
    assert has_ended(tmp_path)
    if ending == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the run's own, none of a worker
        assert "Warning" not in errors


#: Every worker interrupts itself while it imports this script, which is before it has begun to work.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
if __name__ == "__mp_main__":
    os.kill(os.getpid(), signal.SIGINT)
sys.path.insert(0, sys.argv[1])
import test_scheduler as at
from fmlib.pipeline import processes
if __name__ == "__main__":
    processes.PRELOADED[:] = ["fmlib.pipeline.store"]  # the tasks need no more
    at.scheduler.compute(at.diamond, at.Store(Path(sys.argv[2]), at.CPU), 2)
"""


def test_workers_ignore_ctrl_c_even_while_they_start(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    result = subprocess.run(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert Store(tmp_path / "store", CPU).has(diamond()[0])


def test_this_process_still_hears_ctrl_c_after_it_has_started_workers(tmp_path):
    scheduler.compute(diamond, Store(tmp_path, CPU), 2)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_observer_hears_of_every_task(tmp_path):
    store, events = Store(tmp_path, CPU), Events()
    second = diamond()[0].inputs[0]
    SavedCheckpoint(store.path(second).with_name(f"{second.key}.part"), CPU).save({})
    scheduler.compute(diamond, store, 1, events)
    assert events.words == ["planned 4 for 1"] + [
        f"{event} task {number}"
        for number in (1, 2, 3, 4)
        for event in ("resumed" if number == 2 else "started", "finished")
    ]
    events.words.clear()
    scheduler.compute(diamond, store, 1, events)
    assert events.words == ["planned 0 for 1"]


def test_an_observer_hears_of_every_task_of_several_workers(tmp_path):
    events = Events()
    scheduler.compute(diamond, Store(tmp_path, CPU), 2, events)
    assert events.words[:5] == [
        "planned 4 for 2",
        "started task 1",
        "finished task 1",
        "started task 2",
        "started task 3",
    ]
    assert sorted(events.words[5:7]) == ["finished task 2", "finished task 3"]
    assert events.words[7:] == ["started task 4", "finished task 4"]


@pytest.mark.parametrize("fail", [raise_error, raise_bug])
def test_an_observer_hears_of_a_failure(tmp_path, fail):
    (tmp_path / "pid").touch()
    events, store = Events(), Store(tmp_path / "store", CPU)
    with pytest.raises((FmlibError, ZeroDivisionError)):
        scheduler.compute(lambda: failing(tmp_path, fail)[1:], store, 1, events)
    assert events.words == ["planned 1 for 1", "started task 2", "failed task 2"]


def test_no_workers():
    with pytest.raises(FmlibError, match="at least one worker"):
        scheduler.compute(diamond, Store(Path("nowhere"), CPU), 0)


def test_two_workers_on_a_processor_of_several_cores_and_one_elsewhere(monkeypatch):
    for threads, workers in ((1, 1), (2, 2), (16, 2)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert scheduler.default_workers(CPU) == workers
        assert scheduler.default_workers(torch.device("cuda")) == 1


def another_run(store, task, artifact):
    """A run that holds the lock of a task until it is waited for, and may then store the artifact: a thread's work."""
    holding, waited = threading.Event(), threading.Event()

    def hold():
        with locked(store.path(task).with_name(f"{task.key}.lock")):
            holding.set()
            waited.wait(300)
            if artifact:
                store._write(task, artifact)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(300)
    return thread, waited


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("ends", ["stored", "killed"])
def test_a_task_that_another_run_computes_is_left_to_it(tmp_path, workers, ends):
    """This run computes what else is ready, says that it waits, and reads the artifact or takes the task over."""
    said, events = [], Events()
    task = diamond()[0].inputs[0]
    artifact = Artifact({"sum": np.array(3)}) if ends == "stored" else None
    thread, waited = another_run(Store(tmp_path, CPU), task, artifact)

    def note(line):
        said.append(line)
        waited.set()

    scheduler.compute(diamond, store := Store(tmp_path, CPU, said.append, note), workers, events)
    thread.join()
    own = ["computing task 2"] if ends == "killed" else []
    expected = ["computing task 1", "computing task 3", "another run computes task 2: waiting for it"]
    assert said == [*expected, *own, "computing task 4"]
    assert ("shared task 2" in events.words) == (ends == "stored")
    assert int(store.get(diamond()[0]).arrays["sum"]) == 11
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".lock", ".part", ".tmp"))]


def test_get_waits_for_another_run_too(tmp_path):
    said, task = [], toy(1)
    thread, waited = another_run(Store(tmp_path, CPU), task, Artifact({"sum": np.array(1)}))

    def note(line):
        said.append(line)
        waited.set()

    assert int(Store(tmp_path, CPU, said.append, note).get(task).arrays["sum"]) == 1
    thread.join()
    assert said == ["another run computes task 1: waiting for it"]


def resuming(number, inputs, checkpoint):
    assert checkpoint.load() is None
    return Artifact({"sum": np.array(number)})


def damaged_state():
    return [toy(1, work=resuming)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_state_is_said_to_be_so(tmp_path, workers):
    said, path = [], tmp_path / "toy" / f"{toy(1).key}.part"
    SavedCheckpoint(path, CPU).save({"epoch": 1})
    path.write_bytes(path.read_bytes()[:-1])
    scheduler.compute(damaged_state, Store(tmp_path, CPU, said.append), workers)
    assert said == ["resuming task 1", f"the saved state {path} is damaged: starting again"]


@pytest.mark.parametrize("left", [".part", ".part.writing", ".lock", ".tmp"])
def test_leftovers_beside_stored_artifacts_go(tmp_path, left):
    """A run was killed after it had stored the artifact, and before it had removed the rest."""
    store, task = Store(tmp_path, CPU), toy(1)
    store.get(task)
    path = store.path(task).with_name(task.key + left)
    path.mkdir() if left == ".tmp" else path.write_bytes(b"x")
    scheduler.compute(lambda: [task], store)
    assert list((tmp_path / "toy").iterdir()) == [store.path(task)]
