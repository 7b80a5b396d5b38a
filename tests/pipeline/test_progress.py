"""Progress: the estimate of the time left follows the cost of tasks, and the bars say what each worker does."""

from __future__ import annotations

import io
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.pipeline.progress import ProgressBars, TimeLeft, duration
from fmlib.pipeline.store import Task


def task(name: str, cost: float = 0.0) -> Task:
    return Task("toy", name, {"name": name}, print, cost=cost)


# ---------------------------------------------------------------------------------------------------- time left


def test_the_first_estimate_is_the_expected_duration():
    assert TimeLeft({"a": 10, "b": 30}, 1, 0.5).seconds(now=0) == pytest.approx(20)
    assert TimeLeft({"a": 20, "b": 20}, 2, 0.5).seconds(now=0) == pytest.approx(20)  # two workers share the device


def test_the_estimate_falls_while_a_task_runs_but_not_below_what_the_others_need():
    left = TimeLeft({"a": 10, "b": 30}, 1, 1.0)
    left.start("a", now=100)
    assert left.seconds(now=104) == pytest.approx(36)
    assert left.seconds(now=999) == pytest.approx(30)


def test_measured_durations_replace_the_expected_one():
    left = TimeLeft(dict.fromkeys("abcdefghij", 10.0), 1, 1.0)
    now = 0.0
    for name in "abcde":
        left.start(name, now)
        now += 40  # four times as long as expected
        assert left.finish(name, now) == 40
    assert left.seconds(now) == pytest.approx(50 * (10 + 200) / (10 + 50))  # the expectation counts as a tenth


def test_the_longest_running_task_bounds_the_estimate():
    left = TimeLeft({"long": 100, "short": 2}, 2, 0.5)
    left.start("long", now=0)
    assert left.seconds(now=0) == pytest.approx(100)  # one worker alone, on half of the device


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=6), st.integers(1, 4), st.floats(0, 1e3), st.floats(0, 1e6))
def test_an_estimate_is_never_negative_and_ends_at_zero(costs, workers, rate, step):
    left = TimeLeft({str(index): cost for index, cost in enumerate(costs)}, workers, rate)
    now = 0.0
    for index in range(len(costs)):
        left.start(str(index), now)
        now += step
        assert left.seconds(now) >= 0
        left.finish(str(index), now)
    assert left.seconds(now) == 0


# --------------------------------------------------------------------------------------------------------- bars


@pytest.fixture
def shown(monkeypatch):
    """Bars on a terminal of 60 columns, the time on their clock, and a function that returns what was newly drawn."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    now, file = [0.0], io.StringIO()
    bars = ProgressBars(file, lambda: 1.0, clock=lambda: now[0])

    def drawn():
        text = file.getvalue()
        file.seek(0)
        file.truncate()
        return text

    with bars:
        yield bars, now, drawn


def test_bars_show_tasks_workers_and_the_time_left(shown):
    bars, now, drawn = shown
    first, second, third = task("first", 100), task("second", 100), task("third", 200)
    bars.planned([first, second, third], workers=2)
    assert "0 of 3 tasks, about 7 min left" in drawn()
    bars.started(first, resumed=False)
    bars.started(second, resumed=True)
    now[0] = 30
    bars.finished(first)
    text = drawn()
    assert "computing first (0 s)" in text
    assert "resuming second (30 s)" in text
    assert "computed first in 30 s" in text
    assert re.search(r"25%.*1 of 3 tasks, about", text)
    bars.started(third, resumed=False)
    bars.finished(second)
    now[0] = 60
    bars.finished(third)
    assert re.search(r"100%.*3 of 3 tasks, done", drawn())


def test_no_line_is_wider_than_the_terminal(shown):
    bars, _, drawn = shown
    long = task("x" * 100)
    bars.planned([long], workers=1)
    bars.started(long, resumed=False)
    lines = [line for line in re.split(r"[\r\n]|\x1b\[A", drawn()) if "computing" in line]
    assert lines
    assert max(map(len, lines)) < 60


def test_tasks_without_cost_are_counted(shown):
    bars, _, drawn = shown
    tasks = [task("a"), task("b")]
    bars.planned(tasks, workers=1)
    for each in tasks:
        bars.started(each, resumed=False)
        bars.finished(each)
    assert re.search(r"100%.*2 of 2 tasks, done", drawn())


def test_a_failed_task_leaves_its_line(shown):
    bars, _, drawn = shown
    bars.planned([task("a", 1), task("b", 1)], workers=1)
    bars.started(task("a", 1), resumed=False)
    drawn()
    bars.failed(task("a", 1))
    assert "computing a" not in drawn()


def test_tasks_of_another_run_are_counted(shown):
    bars, _, drawn = shown
    first, second = task("first", 10), task("second", 10)
    bars.planned([first, second], workers=1)
    bars.started(first, resumed=False)
    bars.postponed(first)
    bars.started(second, resumed=False)
    bars.finished(second)
    bars.shared(first)
    text = drawn()
    assert "another run has computed first" in text
    assert "2 of 2 tasks, done" in text


def test_nothing_to_compute_draws_and_measures_nothing():
    file = io.StringIO()
    with ProgressBars(file, lambda: pytest.fail("measured for nothing")) as bars:
        bars.planned([], workers=2)
    assert not file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"), (6000, "1.7 h"), (36000, "10.0 h")],
)
def test_durations_have_the_unit_that_people_use(seconds, text):
    assert duration(seconds) == text
