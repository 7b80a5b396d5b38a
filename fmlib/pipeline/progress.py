"""What is computed and what is left: the events that the scheduler reports, and the bars that show them."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from tqdm import tqdm

from fmlib.pipeline.store import Task

#: The estimate before any task has finished counts as this share of the whole cost against what is then measured.
PRIOR_SHARE = 0.1


class Progress:
    """An observer of a computation. This one ignores all events; override those that matter."""

    def planned(self, tasks: Sequence[Task], workers: int) -> None:
        """These tasks are to be computed, by so many workers."""

    def started(self, task: Task, resumed: bool) -> None:
        """A worker begins a task, or resumes it."""

    def finished(self, task: Task) -> None:
        """The task's artifact is in the store."""

    def failed(self, task: Task) -> None:
        """The task raised an error, or its worker died; nothing more is computed."""

    def postponed(self, task: Task) -> None:
        """The task was begun, but another run computes it."""

    def shared(self, task: Task) -> None:
        """The artifact is in the store before the task was begun: another run has computed it."""


class TimeLeft:
    """An estimate of the time that a computation still takes, from the cost of its tasks.

    Args:
        costs: key -> cost of every task.
        workers: how many tasks are computed at once.
        seconds_per_cost: expected duration of one unit of cost if all workers share it.
    """

    def __init__(self, costs: dict[str, float], workers: int, seconds_per_cost: float) -> None:
        self.costs, self.workers = costs, workers
        weight = PRIOR_SHARE * sum(costs.values())
        self.measured_cost, self.measured_seconds = weight, weight * seconds_per_cost * workers
        self.began: dict[str, float] = {}  # of the tasks that run

    def start(self, key: str, now: float) -> None:
        """A task begins at the time `now`, in seconds."""
        self.began[key] = now

    def leave(self, key: str) -> None:
        """A task that has begun is computed elsewhere."""
        del self.began[key]

    def drop(self, key: str) -> None:
        """A task that has not begun was computed elsewhere."""
        del self.costs[key]

    def finish(self, key: str, now: float) -> float:
        """A task ends at the time `now`; returns how many seconds it took."""
        seconds = now - self.began.pop(key)
        cost = self.costs.pop(key)
        if cost:
            self.measured_cost += cost
            self.measured_seconds += seconds
        return seconds

    def seconds(self, now: float) -> float:
        """How many seconds the tasks that have not finished still take."""
        if not self.measured_cost:
            return 0.0
        rate = self.measured_seconds / self.measured_cost
        left = {key: rate * cost for key, cost in self.costs.items()}
        for key, began in self.began.items():
            left[key] = max(0.0, left[key] - (now - began))
        return max([sum(left.values()) / self.workers, *(left[key] for key in self.began)])


class ProgressBars(Progress):
    """An overall bar with the time left and, below it, a line for what each worker is doing.

    Finished tasks are listed above the bar. Use it in a `with` block, whose end restores the terminal.

    Args:
        file: the terminal.
        measure_cost: returns the expected duration of one unit of cost, in seconds; called if there is work to do.
        clock: returns the time in seconds.
    """

    def __init__(
        self, file: TextIO, measure_cost: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.file, self.measure_cost, self.clock = file, measure_cost, clock
        self.lock, self.ended = threading.RLock(), threading.Event()
        self.count = self.done = 0
        self.time_left = TimeLeft({}, 1, 0.0)
        self.bar: tqdm | None = None
        self.lines: list[tqdm] = []  # one per worker
        self.names: list[tuple[str, str] | None] = []  # per worker: the key of its task, and what the line says of it

    def __enter__(self) -> ProgressBars:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        with self.lock:
            for line in reversed(self.lines):
                line.close()
            if self.bar is not None:
                self.bar.close()

    def planned(self, tasks: Sequence[Task], workers: int) -> None:
        """Draw the bar, unless there is nothing to compute."""
        if not tasks:
            return
        workers = min(workers, len(tasks))
        self.count = len(tasks)
        self.time_left = TimeLeft({task.key: task.cost for task in tasks}, workers, self.measure_cost())
        total = sum(task.cost for task in tasks) or 1.0
        layout = "{percentage:3.0f}%|{bar:30}| {desc}"
        self.bar = tqdm(total=total, bar_format=layout, position=0, file=self.file)
        self.lines = [
            tqdm(total=0, bar_format="{desc}", position=1 + worker, leave=False, file=self.file)
            for worker in range(workers)
        ]
        self.names = [None] * workers
        self._draw()
        threading.Thread(target=self._redraw, daemon=True).start()

    def started(self, task: Task, resumed: bool) -> None:
        """Show the task on the line of a worker."""
        with self.lock:
            worker = self.names.index(None)
            self.names[worker] = task.key, f"{'resuming' if resumed else 'computing'} {task.name}"
            self.time_left.start(task.key, self.clock())
            self._draw()

    def finished(self, task: Task) -> None:
        """List the task with its duration above the bar."""
        with self.lock:
            seconds = self.time_left.finish(task.key, self.clock())
            self._clear(task)
            self._advance(task, f"computed {task.name} in {duration(seconds)}")

    def failed(self, task: Task) -> None:
        """Clear the line of the task's worker."""
        with self.lock:
            self._clear(task)
            self._draw()

    def postponed(self, task: Task) -> None:
        """Clear the line of the task's worker."""
        with self.lock:
            self.time_left.leave(task.key)
            self._clear(task)
            self._draw()

    def shared(self, task: Task) -> None:
        """List the task above the bar."""
        with self.lock:
            self.time_left.drop(task.key)
            self._advance(task, f"another run has computed {task.name}")

    def _advance(self, task: Task, line: str) -> None:
        assert self.bar is not None
        self.done += 1
        self.bar.update(task.cost if self.done < self.count else self.bar.total - self.bar.n)
        tqdm.write(line, file=self.file)
        self._draw()

    def _clear(self, task: Task) -> None:
        self.names = [None if name and name[0] == task.key else name for name in self.names]

    def _draw(self) -> None:
        assert self.bar is not None
        now, width = self.clock(), shutil.get_terminal_size().columns - 1
        left = f"about {duration(self.time_left.seconds(now))} left" if self.done < self.count else "done"
        self.bar.set_description_str(f"{self.done} of {self.count} tasks, {left}")
        for line, name in zip(self.lines, self.names, strict=True):
            text = f"  {name[1]} ({duration(now - self.time_left.began[name[0]])})" if name else ""
            line.set_description_str(text[:width])

    def _redraw(self) -> None:
        """Once a second, while tasks run."""
        while not self.ended.wait(1):
            with self.lock:
                if not self.ended.is_set():
                    self._draw()


def duration(seconds: float) -> str:
    """A duration for people: "95 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
