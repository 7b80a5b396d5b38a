"""The benchmark: its reference learns the engine's masks, its counts are right, its file is complete."""

import json

import pytest
import torch
from torch import nn

from fmlib.cli import main
from fmlib.core.config import ImageMaskSpec, MaskSpec
from fmlib.core.evaluation import predictions
from fmlib.core.masks import learn_masks
from fmlib.studies.what_it_costs import analysis, benchmark, figures
from fmlib.studies.what_it_costs.benchmark import Case, final_objective, operations, serial_mask

SPEC = ImageMaskSpec(lr=0.05, epochs=120, patience=5, share_tol=1e-4, loss_tol=1e-3)


@pytest.fixture
def problem(trained, planted):
    images = planted.validation.pixels(slice(12))
    return trained, images, predictions(trained, images)


@pytest.fixture
def alone(problem):
    """Each image's mask by the reference."""
    model, images, targets = problem
    return [serial_mask(model, images[n : n + 1], targets[n : n + 1], SPEC, 0.5) for n in range(12)]


@pytest.fixture
def learned(problem):
    model, images, targets = problem
    return learn_masks(model, images, targets, torch.arange(12), SPEC, seed=0, centre=0.5, progress=False)


def test_masks_of_images_do_not_know_of_bfloat16(problem, learned, request):
    """Rounding would move the cost at every step, and their stop rule would not fire."""
    model, images, targets = problem
    request.getfixturevalue("bfloat16_on_cpu")
    again = learn_masks(model, images, targets, torch.arange(12), SPEC, seed=0, centre=0.5, progress=False)
    assert torch.equal(again.half, learned.half)
    assert again.epochs.tolist() == learned.epochs.tolist()


def test_dataset_masks_in_bfloat16_reach_the_objective_of_full_precision(trained, planted, request):
    """Within 3%, as on a GPU; and it is not the same mask, or nothing would have been tested."""
    images, labels = planted.validation.pixels(slice(60)), planted.validation.labels[:60]
    spec, one = MaskSpec(lr=0.02, batch=20, epochs=30, beta2=0.99), torch.zeros_like(labels)

    def learn():
        return learn_masks(trained, images, labels, one, spec, seed=0, centre=0.5, progress=False).half

    full = learn()
    request.getfixturevalue("bfloat16_on_cpu")
    reduced = learn()
    assert not torch.equal(reduced, full)
    ours, theirs = (
        final_objective(trained, images, labels, half.expand(60, -1, -1), spec, 0.5).mean() for half in (reduced, full)
    )
    assert abs(ours - theirs).item() < 0.03 * theirs.item()


def test_reference_and_engine_learn_the_same_masks(alone, learned):
    """Written apart: the same steps, the same masks, the same verdict of the stop rule."""
    assert learned.epochs.min().item() < learned.epochs.max().item()
    assert torch.cat([one.epochs for one in alone]).tolist() == learned.epochs.tolist()
    assert torch.cat([one.converged for one in alone]).tolist() == learned.converged.tolist()
    torch.testing.assert_close(torch.cat([one.half for one in alone]), learned.half, atol=1e-4, rtol=0)


def test_objectives_agree_within_a_percent(problem, alone, learned):
    model, images, targets = problem
    halves = torch.cat([one.half for one in alone])
    ours, theirs = (final_objective(model, images, targets, half, SPEC, 0.5) for half in (learned.half, halves))
    assert ((ours - theirs).abs() / theirs).max().item() < 0.01
    whole = final_objective(model, images, targets, torch.ones_like(halves), SPEC, 0.5)
    torch.testing.assert_close(whole, torch.full((12,), 1 + SPEC.penalty))  # nothing filtered, all of the penalty
    assert (ours < whole).all()


def test_operations_are_those_of_the_convolutions():
    """Multiplications and additions of three convolutions and a linear layer, forward and to their inputs."""
    forward = 9 * 16 * 32**2 + 9 * 16 * 32 * 16**2 + 9 * 32 * 64 * 8**2 + 64 * 5
    assert operations(benchmark.CASES["quick-32"]) == 2 * 2 * forward


def test_the_bill_counts_shared_jobs_once():
    bill = benchmark.bill(None)
    assert list(bill) == ["quick"]  # the others need photographs
    assert bill["quick"]["harmonics"] == 0
    assert bill["quick"]["tables"] < bill["quick"]["image-masks"]  # which hold most of what tables needs


@pytest.fixture
def tiny(monkeypatch):
    """Cases of a second."""
    monkeypatch.setattr(benchmark, "CASES", {"quick-32": Case(16, "tiny_vgg", 4, ImageMaskSpec(epochs=5))})
    monkeypatch.setattr(benchmark, "COUNTS", (2, 4))
    monkeypatch.setattr(benchmark, "BATCHES", (1, 2))
    monkeypatch.setattr(benchmark, "RESOLUTIONS", (16,))
    monkeypatch.setattr(benchmark, "REGIMES", ("N",))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_command_writes_a_complete_file(tmp_path, capsys):
    assert main(["bench", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert "times the serial reference" in capsys.readouterr().out
    found = json.loads((tmp_path / "cpu.json").read_text())
    wanted = {"case", "images", "serial_steps_per_s", "engine_steps_per_s", "ratio", "objective_gap", "peak_mib"}
    assert wanted | {"ceiling_share"} <= set(found["rows"][0])
    assert found["rows"][0]["ratio"] > 0
    assert found["rows"][0]["serial_spread"][0] <= found["rows"][0]["serial_steps_per_s"]
    assert [row["images"] for row in found["scaling"]["images"]] == [2, 4]
    assert {"device", "torch", "fmlib", "seed", "date", "training", "bill"} <= set(found)
    assert list(analysis.cases(found).index) == ["quick-32"]
    assert "all (hours here)" in analysis.bill(found).index
    assert len(figures.figure_engine(found).axes) == 1
    assert len(figures.figure_scaling(found).axes) == 3


def test_an_unknown_case_is_refused(tmp_path, capsys):
    assert main(["bench", "--device", "cpu", "--case", "huge", "--output", str(tmp_path)]) == 2
    assert "quick-32" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Rounded(nn.Module):
    """A network that computes in bfloat16 whatever it is told."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(images).float()


def test_in_bfloat16_the_stop_rule_of_image_masks_would_often_not_fire(trained, planted):
    """Why they are learned in full precision, whatever networks run in elsewhere."""
    images = planted.validation.pixels(slice(40))
    targets, spec = predictions(trained, images), ImageMaskSpec(lr=0.05, epochs=600, patience=30)
    full, rounded = (
        learn_masks(model, images, targets, torch.arange(40), spec, seed=0, centre=0.5, progress=False)
        for model in (trained, Rounded(trained))
    )
    assert full.converged.all()
    assert rounded.converged.float().mean().item() < 0.75
