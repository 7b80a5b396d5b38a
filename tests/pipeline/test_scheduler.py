"""Tasks side by side: the same artifacts as one after another, each once, and no process left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
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
from fmlib.pipeline.store import Artifact, Store, Task

CPU = torch.device("cpu")


def added(number, inputs, saved):
    return Artifact({"sum": np.array(number + sum(int(item.arrays["sum"]) for item in inputs))})


def toy(number, *inputs, work=added):
    return Task("toy", f"task {number}", {"number": number}, partial(work, number), inputs)


def ladder():
    """Four tasks, of which the second and third need the first, and the fourth both."""
    first = toy(1)
    middle = toy(2, first), toy(3, first)
    return [toy(4, *middle)]


def meeting(folder):
    """Two tasks that both wait for the other to have begun."""

    def meet(number, inputs, saved):
        (folder / str(number)).touch()
        deadline = time.monotonic() + 60
        while len(list(folder.iterdir())) < 2:
            assert time.monotonic() < deadline, "the other never began"
            time.sleep(0.01)
        return Artifact({"threads": np.array(torch.get_num_threads()), "reduced": np.array(sorted(BFLOAT16))})

    return [toy(1, work=meet), toy(2, work=meet)]


def failing(folder, fail):
    """A task that fails by `fail()` when the other is at its endless work."""

    def fails(number, inputs, saved):
        while not (folder / "pid").exists():
            time.sleep(0.01)
        fail()

    def endless(number, inputs, saved):
        tqdm(disable=True)  # as every long task
        write_pid(folder)
        time.sleep(600)

    return [toy(1, work=endless), toy(2, work=fails)]


def write_pid(folder):
    (folder / "draft").write_text(str(os.getpid()))
    (folder / "draft").rename(folder / "pid")


def error():
    raise FmlibError("a mistake that can be mended")


def fault():
    raise ZeroDivisionError("of the programmer")


def death():
    os.kill(os.getpid(), signal.SIGKILL)


def gone(folder):
    """Whether the process that wrote its number into `folder` ends within ten seconds."""
    pid, deadline = int((folder / "pid").read_text()), time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_side_by_side_and_one_after_another_give_the_same_files(tmp_path):
    said = {1: [], 2: []}
    for workers, lines in said.items():
        store = Store(tmp_path / str(workers), CPU, say=lines.append)
        scheduler.compute(ladder, store, workers)
        assert int(store.get(ladder()[0]).arrays["sum"]) == 4 + (2 + 1) + (3 + 1)
        assert lines == [f"computing task {number}" for number in (1, 2, 3, 4)]
        scheduler.compute(ladder, store, workers)
        assert len(lines) == 4  # what is there is not computed again
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert not multiprocessing.active_children()


def test_what_is_there_asks_for_nothing(tmp_path):
    store, (last,) = Store(tmp_path, CPU), ladder()
    assert [task.name for task in scheduler.missing([last], store).values()] == ["task 1", "task 2", "task 3", "task 4"]
    store.put(last.inputs[0], Artifact({"sum": np.array(3)}))
    assert [task.name for task in scheduler.missing([last], store).values()] == ["task 1", "task 3", "task 4"]
    store.put(last, Artifact({"sum": np.array(11)}))
    assert not scheduler.missing([last, last.inputs[0]], store)


def test_two_workers_work_at_once_and_share_threads_and_precision(tmp_path, monkeypatch):
    (tmp_path / "met").mkdir()
    plan = partial(meeting, tmp_path / "met")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr("fmlib.runtime.BFLOAT16", {"cpu", "cuda"})
    store = Store(tmp_path / "store", CPU)
    scheduler.compute(plan, store, 2)
    for task in plan():
        assert int(store.get(task).arrays["threads"]) == 3
        assert list(store.get(task).arrays["reduced"]) == ["cpu", "cuda"]


@pytest.mark.parametrize(
    ("fail", "message"), [(error, "can be mended"), (death, "task 2 died.*--workers 1"), (fault, "task 2 died")]
)
def test_a_failure_ends_the_others(tmp_path, capfd, fail, message):
    with pytest.raises(FmlibError, match=message):
        scheduler.compute(partial(failing, tmp_path, fail), Store(tmp_path / "store", CPU), 2)
    assert gone(tmp_path)
    assert ("ZeroDivisionError: of the programmer" in capfd.readouterr().err) == (fail is fault)


ORPHANED = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_parallel as at
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    at.parallel.compute(partial(at.failing, folder, at.endlessly), at.Store(folder / "store", at.CPU), 2)
"""


def endlessly():
    time.sleep(600)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_run(tmp_path, ending):
    script = tmp_path / "script.py"
    script.write_text(ORPHANED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(ending)
    _, errors = process.communicate(timeout=30)
    assert gone(tmp_path)
    if ending == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the run's own, none of a worker
        assert "Warning" not in errors


def test_no_workers():
    with pytest.raises(FmlibError, match="at least one worker"):
        scheduler.compute(ladder, Store(Path("nowhere"), CPU), 0)


def test_two_processes_on_a_processor_of_several_cores_and_one_elsewhere(monkeypatch):
    for threads, workers in ((1, 1), (2, 2), (16, 2)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert scheduler.default_workers(CPU) == workers
        assert scheduler.default_workers(torch.device("cuda")) == 1
