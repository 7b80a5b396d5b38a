"""The command, the files of methods, the leaderboard, the experiment's small version, and the rules of the claims."""

import json
import re

import pytest
import torch
from conftest import CPU, FakeResults, drawn, small

from fmlib.cli import main
from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.files import read_signed
from fmlib.pipeline.experiment import publish
from fmlib.pipeline.results import PUBLISHED
from fmlib.studies import registry
from fmlib.studies.freqbench import analysis, figures, measure
from fmlib.studies.freqbench.tasks.problems import TASKS
from fmlib.studies.shared.setup import Setup

MINE = """
import torch

TITLE, SOURCE, BUDGET = "energy of mine", "nowhere", 3

def explain(model, images, target, budget):
    for _ in range(budget):
        model(images)
    return torch.fft.fft2(images).abs().sum(1)

def short(model, images, target, budget):
    return torch.zeros(len(images), 3, 3)

def broken(model, images, target, budget):
    raise ValueError("no")

def endless(model, images, target, budget):
    return torch.full((len(images), *images.shape[-2:]), float("inf"))
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def quick(common, tmp_path_factory):
    """The small version, published."""
    setup, chosen = Setup(small(), 0, CPU, progress=False), registry.experiments(["freqbench"])
    registry.run(chosen, setup, common, workers=1)
    return publish(chosen, setup, common, tmp_path_factory.mktemp("freqbench") / "quick", registry.all_claims())


def test_a_method_of_ones_own_is_measured_and_enters_the_leaderboard(mine, tmp_path, capsys, quick, monkeypatch):
    words = [
        "freqbench",
        "--method",
        f"{mine}:explain",
        "--task",
        "plain",
        "--images",
        "4",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*words, "--store", str(tmp_path / "store"), "--quiet"]) == 0
    assert "mine on plain: insertion minus deletion" in capsys.readouterr().out
    record = read_signed((tmp_path / "o" / "mine.json").read_bytes())
    assert (record["method"], record["title"], record["own"]) == ("mine", "energy of mine", True)
    assert {"source", "version", "device", "threads", "date", "torch", "fmlib"} <= record.keys()
    task = record["tasks"]["plain"]
    assert task["passes"] == task["budget"] == 3
    assert task["gradients"] == 0
    score = task["scores"]["insertion"]
    assert score["low"] <= score["value"] <= score["high"]
    assert score["n"] == 4
    assert task["seconds"] > 0
    monkeypatch.setenv(analysis.FURTHER, str(tmp_path / "o"))
    table = analysis.leaderboard(analysis.records(quick))
    assert "energy of mine (own method)" in table.index
    assert table.loc["energy of mine (own method)", "tasks"] == 1
    assert "energy of mine" in analysis.leaderboard_html(table)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "absent.py:explain"], "no file absent.py"),
        (["--method", "unknown"], "unknown method 'unknown': choose from sequential"),
        (["--method", "{mine}:nothing"], "has no function nothing"),
        (["--method", "{mine}:short"], r"must return scores \(2, 32, 32\), not \(2, 3, 3\)"),
        (["--method", "{mine}:endless"], "not finite"),
        (["--method", "{mine}:broken"], "method mine-broken failed: ValueError: no"),
        (["--method", "random", "--task", "tea"], "unknown task 'tea': choose from plain"),
        (["--method", "random", "--images", "1"], "--images must be at least 2"),
        (["--method", "random", "--budget", "-1"], "--budget must be 0 or more"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, message, mine, tmp_path, capsys):
    words = [word.format(mine=mine) for word in words]
    common = [] if "--task" in words else ["--task", "plain"]
    common += [] if "--images" in words else ["--images", "2"]
    assert main(["freqbench", *words, *common, "--out", str(tmp_path / "out"), "--store", str(tmp_path / "s")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_run_is_refused(tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_of_this_name")
    with pytest.raises(FmlibError, match=r"bad\.py cannot be run: ModuleNotFoundError"):
        measure.own_method(f"{tmp_path / 'bad.py'}:explain")
    (tmp_path / "random.py").write_text("def explain(*_): ...")
    with pytest.raises(FmlibError, match="name of a built-in method"):
        measure.own_method(f"{tmp_path / 'random.py'}:explain")


def test_the_small_version_has_every_method_on_all_tones(quick):
    records = analysis.records(quick)
    assert [one["method"] for one in records] == list(measure.METHODS)
    assert len(measure.METHODS) >= 9
    assert len(TASKS) >= 6
    assert all(list(one["tasks"]) == analysis.TONES for one in records)
    by_name = {one["method"]: one["tasks"]["plain"] for one in records}
    assert by_name["gradient"]["passes"] == 1
    assert by_name["low-pass"]["scores"]["matched"]["value"] == pytest.approx(0, abs=0.3)
    assert by_name["sequential"]["scores"]["insertion"]["value"] > by_name["random"]["scores"]["insertion"]["value"]


def test_claims_on_tones_are_measured_and_the_others_wait_for_photographs(quick):
    rows = {row["id"]: row for row in quick.claims() if row["chapter"] == "freqbench"}
    assert len(rows) >= 12
    assert rows["F.precision.sequential"]["value"] is not None
    assert rows["F.best_insertion"]["verdict"] == "not computed"


def test_figures_and_tables_are_drawn(quick):
    records = analysis.records(quick)
    assert len(drawn(figures.figure_scores(records, analysis.TONES, {"precision": "p", "recall": "r"})).axes) == 2
    drawn(figures.figure_passes({"plain": analysis.sweep(quick, "plain")}))
    table = analysis.task_table(records, "insertion", analysis.TONES)
    assert table.shape == (len(records), 4)


def test_the_leaderboard_can_be_read_without_javascript(quick):
    text = analysis.leaderboard_html(analysis.leaderboard(analysis.records(quick)))
    rows, script = text.split("<script>")
    assert rows.count("<tr>") == 1 + len(measure.METHODS)
    assert "nan" not in re.sub(r'data-value="[^"]*"', "", rows)
    assert "http" not in script


def test_measures_have_known_values():
    arrays = {
        f"{task}/{method}/{score}": value * torch.ones(4).numpy()
        for task in ("N", "plain")
        for method, value in (("sequential", 0.5), ("authors", 0.25))
        for score in ("insertion", "deletion", "fewest")
    }
    results = FakeResults(freqbench=arrays)
    assert analysis.mean_score(results, ["N"], "sequential", "insertion", 100).value == 50
    assert analysis.difference(results, ["N", "plain"], "sequential", "authors", "insertion")[:] == (
        0.25,
        0.25,
        0.25,
        8,
    )
    assert analysis.fewest_ratio(results, ["N"], "authors", "sequential").value == pytest.approx(0.5)
    assert analysis.between_tasks(results, "authors", "insertion", ["N"], ["plain"]).value == 0


FILES = sorted((PUBLISHED / "freqbench").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_files_are_whole_and_complete(path):
    record = read_signed(path.read_bytes())
    assert record["method"] == path.stem
    for task in record["tasks"].values():
        assert {"passes", "seconds", "budget", "images", "threads"} <= task.keys()
        assert all(set(score) == {"value", "low", "high", "n"} for score in task["scores"].values())
    assert json.dumps(record)
