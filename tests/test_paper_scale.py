"""The paper's own scale in turns, rehearsed at toy size: what is finished is published, the next turn goes on."""

import signal
import sys

import pytest
from conftest import CPU, small

from ci import paper_scale
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.shared.profiles import profile
from fmlib.studies.shared.setup import Setup


def test_the_stages_hold_every_experiment_and_each_only_adds():
    known: set[str] = set()
    for setup, chosen in paper_scale.stages(Setup(profile("quick"), 0, CPU)):
        keys = {task.key for experiment in chosen for task in experiment.tree(setup)}
        assert keys - known
        known |= keys
    whole = Setup(profile("quick"), 0, CPU)
    assert known >= {task.key for experiment in registry.experiments() for task in experiment.tree(whole)}


def test_a_turn_publishes_what_is_finished_and_the_next_goes_on(monkeypatch, tmp_path):
    stages = [*paper_scale.STAGES[:2], (["minimal-tables"], ["N", "S"])]
    monkeypatch.setattr(paper_scale, "STAGES", stages)
    said = []

    def say(line):
        said.append(line)
        if line.startswith("computing network S") and said.count(line) == 1:
            signal.raise_signal(signal.SIGALRM)

    setup, store = Setup(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU, say=say)
    results = tmp_path / "quick"
    assert not paper_scale.turn(setup, store, results, minutes=60)
    assert set(Results.open(results).arrays("evaluation")) == {"standard.N", "masked.N", "attacked.N"}
    assert Results.open(results).manifest["experiments"].keys() == {"dataset-masks"}

    assert paper_scale.turn(setup, store, results, minutes=60)
    assert {"standard.N", "standard.S"} < set(Results.open(results).arrays("evaluation"))
    assert Results.open(results).manifest["experiments"].keys() == {"dataset-masks", "minimal-tables"}
    assert sum(line.startswith("computing network N") for line in said) == 1


def test_the_clock_interrupts():
    with pytest.raises(KeyboardInterrupt), paper_scale.interrupted_after(minutes=1e-4):
        signal.pause()


@pytest.mark.parametrize("words", ["--profile huge", "--minutes -1", "--minutes nan", "--seeds 0", "--device tpu"])
def test_the_command_says_in_one_line_what_is_wrong(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paper_scale.py", *words.split()])
    assert paper_scale.main() == 1
    error = capsys.readouterr().err
    assert words.split()[1] in error
    assert error.count("\n") == 1
