"""The comparison of solvers: the same images and measure for all, chunks that resume, rows, ratios, and its page."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import drawn, legend

from fmlib.cli import main
from fmlib.core.config import ImageMaskSpec, MinimalMaskSpec
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import predictions
from fmlib.core.masks import learn_masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.studies.what_it_costs import analysis, figures, solvers
from fmlib.studies.what_it_costs.benchmark import mask_quality
from fmlib.studies.what_it_costs.solvers import Case, Log, Problem, solve

SPEC = ImageMaskSpec(lr=0.05, epochs=40, patience=5, share_tol=1e-4, loss_tol=1e-3)
CPU = torch.device("cpu")


@pytest.fixture
def problem(trained, synthetic):
    images = synthetic.validation.pixels(slice(6))
    return Problem(trained, images, predictions(trained, images), 0.5)


@pytest.fixture
def cases(problem, monkeypatch):
    """Two toy cases: all solvers on 6 images in chunks of 4, and the minimal masks only."""
    found = {
        "laptop-64-N": Case(lambda count, *place: problem.part(slice(count)), 6, 4, SPEC, profiled=True),
        "imagenet-160": Case(lambda count, *place: problem.part(slice(count)), 3, 4, SPEC, ("slp-40", "slp-60")),
    }
    monkeypatch.setattr(solvers, "CASES", found)
    monkeypatch.setattr(solvers, "PROFILED_STEPS", 2)
    monkeypatch.setattr(solvers, "REPEATS", 2)
    return found


@pytest.fixture
def compared(cases, tmp_path):
    return solvers.measure([], CPU, None, tmp_path / "log.json", lambda line: None)


def chunk(seconds, excess, passes=(10, 20)):
    """A finished chunk of two images."""
    same = {"l1_share": [0.1, 0.3], "nonzero_share": [0.2, 0.4], "kept": [True, False]}
    return {"seconds": seconds, "passes": list(passes), "excess": list(excess)} | same


def test_solvers_are_the_functions_of_the_library(problem):
    model, images, targets = problem.model, problem.images, problem.targets
    found = {solver: solve(solver, problem, SPEC) for solver in solvers.SOLVERS}
    learned = learn_masks(model, images, targets, torch.arange(6), SPEC, seed=0, centre=0.5, progress=False)
    assert torch.equal(found["adam"].half, learned.half)
    assert found["adam"].epochs.tolist() == found["authors"].epochs.tolist()
    torch.testing.assert_close(found["authors"].half, found["adam"].half, atol=1e-4, rtol=0)
    minimal = minimal_masks(model, images, targets, MinimalMaskSpec(steps=40), centre=0.5, progress=False)
    assert torch.equal(found["slp-40"].half, minimal.half)
    assert found["slp-40"].epochs.tolist() == [40] * 6
    assert found["slp-120"].epochs.tolist() == [40] * 6  # no more than the schedule has


def test_minimal_masks_take_penalty_and_clip_of_the_schedule(problem):
    spec = replace(SPEC, penalty=0.5, clip=1.0)
    wanted = MinimalMaskSpec(penalty=0.5, clip=1.0, steps=40)
    minimal = minimal_masks(problem.model, problem.images, problem.targets, wanted, centre=0.5, progress=False)
    assert torch.equal(solve("slp-40", problem, spec).half, minimal.half)


def test_a_row_averages_over_images_and_takes_the_median_over_chunks():
    found = solvers.row("c", "s", [chunk(2.0, (1.0, 3.0)), chunk(4.0, (5.0, 7.0)), chunk(20.0, (9.0, 11.0))])
    assert found["images"] == 6
    assert found["chunks"] == 3
    assert found["seconds"] == 2.0
    assert found["seconds_range"] == [1.0, 10.0]
    assert found["excess"] == 6.0
    assert found["excess_quartiles"] == [3.5, 6.0, 8.5]
    assert found["passes"] == 15
    assert found["passes_range"] == [10, 20]
    assert found["kept"] == 0.5


def test_a_ratio_is_paired_by_chunk_and_by_image():
    reference = [chunk(10.0, (1.0, 1.0)), chunk(30.0, (2.0, 2.0)), chunk(20.0, (1.0, 1.0))]
    fast = [chunk(1.0, (0.5, 0.5)), chunk(2.0, (1.0, 1.0)), chunk(4.0, (2.0, 0.5))]
    found = solvers.ratio("c", "s", fast, reference)
    assert found["speed"] == 10.0
    assert found["speed_range"] == [5.0, 15.0]
    assert found["excess"] == pytest.approx(5.5 / 8)
    assert found["excess_interval"][0] < 5.5 / 8 < found["excess_interval"][1]
    assert found["lower"] == pytest.approx(5 / 6)


def test_every_case_and_solver_has_its_row(compared, problem):
    assert [(row["case"], row["solver"], row["images"], row["chunks"]) for row in compared["rows"]] == [
        *[("laptop-64-N", solver, 6, 2) for solver in solvers.SOLVERS],
        *[("imagenet-160", solver, 3, 1) for solver in ("slp-40", "slp-60")],
    ]
    assert [(entry["case"], entry["solver"]) for entry in compared["ratios"]] == [
        ("laptop-64-N", solver) for solver in solvers.SOLVERS[1:]
    ]
    assert {"device", "torch", "fmlib", "date", "seed", "threads"} <= set(compared)
    half = solve("adam", problem, SPEC).half
    quality = mask_quality(problem.model, problem.images, problem.targets, half, SPEC, 0.5)
    row = compared["rows"][1]  # solved in chunks, evaluated in the same way
    assert row["excess"] == pytest.approx(quality["excess"].mean().item(), rel=1e-4)
    assert row["kept"] == quality["kept"].double().mean().item()


def test_the_parts_of_a_step_add_up(compared):
    (found,) = compared["profile"]
    assert (found["case"], found["images"], found["size"]) == ("laptop-64-N", 4, 16)
    parts = sum(found[name] for name in ("network", "fft", "knapsack", "rest"))
    assert parts == pytest.approx(found["total"])
    assert 0 < found["convolutions"] < found["network"]
    assert found["outside_convolutions"] > found["outside_network"]


def test_a_killed_comparison_goes_on(cases, tmp_path, monkeypatch):
    path, solved = tmp_path / "log.json", []
    timed = solvers._timed

    def counted(solver, problem, spec):
        solved.append(solver)
        if len(solved) == 7:
            raise KeyboardInterrupt
        return timed(solver, problem, spec)

    monkeypatch.setattr(solvers, "_timed", counted)
    with pytest.raises(KeyboardInterrupt):
        solvers.measure(["laptop-64-N"], CPU, None, path, lambda line: None)
    first = json.loads(path.read_text())["entries"]
    assert list(first) == ["laptop-64-N, images 1 to 4"]
    found = solvers.measure(["laptop-64-N"], CPU, None, path, lambda line: None)
    assert len(solved) == 7 + 5  # the interrupted chunk is solved again by every solver, the finished one by none
    assert not path.exists()
    seconds = first["laptop-64-N, images 1 to 4"]["authors"]["seconds"] / 4
    assert seconds in found["rows"][0]["seconds_range"]


def test_a_log_of_other_code_is_started_anew(tmp_path):
    path = tmp_path / "log.json"
    assert Log(path, "old").get("a", lambda: 1) == 1
    assert Log(path, "old").get("a", lambda: 2) == 1
    assert Log(path, "new").get("a", lambda: 2) == 2


def test_fewer_images_can_be_asked_for(cases, tmp_path):
    found = solvers.measure(["imagenet-160"], CPU, None, tmp_path / "log.json", lambda line: None, images=2)
    assert [row["images"] for row in found["rows"]] == [2, 2]


@pytest.mark.parametrize(
    ("wanted", "images", "says"), [(["laptop"], None, "laptop-64-N, imagenet-160"), ([], 0, "--images")]
)
def test_what_cannot_be_compared(cases, tmp_path, wanted, images, says):
    with pytest.raises(FmlibError, match=says):
        solvers.measure(wanted, CPU, None, tmp_path / "log.json", print, images=images)


def test_photographs_are_asked_for(tmp_path):
    with pytest.raises(FmlibError, match="--data-root"):
        solvers.measure(["laptop-64-N"], CPU, None, tmp_path / "log.json", print)


@pytest.mark.usefixtures("cases")
def test_the_command_writes_what_the_chapter_reads(tmp_path, capsys):
    words = ["bench", "--solvers", "--device", "cpu", "--images", "2", "--store", str(tmp_path / "store")]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert "laptop-64-N: slp-60" in capsys.readouterr().out
    found = json.loads((tmp_path / "solvers.json").read_text())
    assert {row["images"] for row in found["rows"]} == {2}
    assert not list((tmp_path / "store").rglob("*.json"))
    assert main(["bench", "--images", "2", "--device", "cpu", "--output", str(tmp_path)]) == 2
    assert "--solvers" in capsys.readouterr().err


def test_the_table_has_a_row_for_each_network_and_solver(compared):
    table = analysis.solvers_table(compared)
    assert len(table) == 7
    row = table.loc[("standard network (N), 64 px", "minimal masks, 60 steps")]
    assert row["images"] == 6
    assert row["passes"] == "40"
    assert "to" in row["speed-up"]
    assert table.loc[("standard network (N), 64 px", "authors' schedule, one image at a time")]["speed-up"] == "\u2013"


def test_minimal_masks_are_compared_with_the_reference(compared):
    table = analysis.minimal_table(compared)
    row = table.loc[("standard network (N), 64 px", "60 steps")]
    assert row["speed-up"] == analysis.solver_numbers(compared)["speed.laptop-64-N.slp-60"]
    assert row["predictions kept"].endswith("%")
    assert set(table.index.get_level_values(1)) == {"40 steps", "60 steps", "120 steps"}


def test_every_number_of_the_prose_is_text(compared):
    numbers = analysis.solver_numbers(compared)
    assert all(isinstance(text, str) for text in numbers.values())
    assert numbers["images.laptop-64-N"] == "6"
    assert {"speed.laptop-64-N.slp-60", "excess.laptop-64-N.slp-60", "lower.laptop-64-N.slp-60"} <= set(numbers)
    assert numbers["network.16"].endswith("%")


def test_the_figure_shows_every_row(compared):
    picture = drawn(figures.figure_solvers(compared))
    for axes in picture.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        points = [line for line in axes.lines if line.get_marker() != "None"]
        assert [line.get_ydata()[0] for line in points] == [row["excess"] for row in compared["rows"]]
    assert "standard network (N), 64 px" in legend(picture)
    assert "minimal masks, 60 steps" in legend(picture)
