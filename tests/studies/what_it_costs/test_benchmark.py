"""The benchmark: its serial reference learns the same masks, its counts are correct, its file is complete."""

import json

import pytest
import torch
from torch import nn

from fmlib.cli import main
from fmlib.core.config import ImageMaskSpec, MaskSpec
from fmlib.core.evaluation import predictions
from fmlib.core.masks import learn_masks
from fmlib.studies import registry
from fmlib.studies.what_it_costs import analysis, benchmark, figures
from fmlib.studies.what_it_costs.benchmark import Case, final_objective, operations, serial_mask

SPEC = ImageMaskSpec(lr=0.05, epochs=120, patience=5, share_tol=1e-4, loss_tol=1e-3)


@pytest.fixture
def problem(trained, synthetic):
    images = synthetic.validation.pixels(slice(12))
    return trained, images, predictions(trained, images)


@pytest.fixture
def serial(problem):
    """Each image's mask by the serial reference."""
    model, images, targets = problem
    return [serial_mask(model, images[n : n + 1], targets[n : n + 1], SPEC, 0.5) for n in range(12)]


@pytest.fixture
def learned(problem):
    model, images, targets = problem
    return learn_masks(model, images, targets, torch.arange(12), SPEC, seed=0, centre=0.5, progress=False)


def test_image_masks_are_learned_in_full_precision(problem, learned, request):
    """In bfloat16 rounding would change the cost at every step, and the stop rule would not fire."""
    model, images, targets = problem
    request.getfixturevalue("bfloat16_on_cpu")
    again = learn_masks(model, images, targets, torch.arange(12), SPEC, seed=0, centre=0.5, progress=False)
    assert torch.equal(again.half, learned.half)
    assert again.epochs.tolist() == learned.epochs.tolist()


def test_dataset_masks_in_bfloat16_reach_the_objective_of_full_precision(trained, synthetic, request):
    """Within 3%, as on a GPU; the masks differ, so bfloat16 was in use."""
    images, labels = synthetic.validation.pixels(slice(60)), synthetic.validation.labels[:60]
    spec, index = MaskSpec(lr=0.02, batch=20, epochs=30, beta2=0.99), torch.zeros_like(labels)

    def learn():
        return learn_masks(trained, images, labels, index, spec, seed=0, centre=0.5, progress=False).half

    full = learn()
    request.getfixturevalue("bfloat16_on_cpu")
    reduced = learn()
    assert not torch.equal(reduced, full)
    ours, theirs = (
        final_objective(trained, images, labels, half.expand(60, -1, -1), spec, 0.5).mean() for half in (reduced, full)
    )
    assert abs(ours - theirs).item() < 0.03 * theirs.item()


def test_serial_and_batched_learning_give_the_same_masks(serial, learned):
    """Two implementations: the same steps, the same masks, the same result of the stop rule."""
    assert learned.epochs.min().item() < learned.epochs.max().item()
    assert torch.cat([one.epochs for one in serial]).tolist() == learned.epochs.tolist()
    assert torch.cat([one.converged for one in serial]).tolist() == learned.converged.tolist()
    torch.testing.assert_close(torch.cat([one.half for one in serial]), learned.half, atol=1e-4, rtol=0)


def test_objectives_agree_within_a_percent(problem, serial, learned):
    model, images, targets = problem
    halves = torch.cat([one.half for one in serial])
    ours, theirs = (final_objective(model, images, targets, half, SPEC, 0.5) for half in (learned.half, halves))
    assert ((ours - theirs).abs() / theirs).max().item() < 0.01
    whole = final_objective(model, images, targets, torch.ones_like(halves), SPEC, 0.5)
    torch.testing.assert_close(whole, torch.full((12,), 1 + SPEC.penalty))  # nothing removed, the whole penalty
    assert (ours < whole).all()


def test_operations_are_those_of_the_convolutions():
    """Multiplications and additions of three convolutions and a linear layer, forward and backward to their inputs."""
    forward = 9 * 16 * 32**2 + 9 * 16 * 32 * 16**2 + 9 * 32 * 64 * 8**2 + 64 * 5
    assert operations(benchmark.CASES["quick-32"]) == 2 * 2 * forward


def test_costs_count_shared_tasks_once(tmp_path):
    costs = benchmark.experiment_costs(tmp_path, registry.experiments())
    assert list(costs) == ["quick"]  # the other profiles need images that are not there
    assert costs["quick"]["harmonics"] == 0
    assert costs["quick"]["tables"] < costs["quick"]["image-masks"]  # which includes most of the tasks of the tables


@pytest.fixture
def tiny(monkeypatch):
    """Cases that take a second."""
    monkeypatch.setattr(benchmark, "CASES", {"quick-32": Case(16, "tiny_vgg", 4, ImageMaskSpec(epochs=5))})
    monkeypatch.setattr(benchmark, "COUNTS", (2, 4))
    monkeypatch.setattr(benchmark, "BATCHES", (1, 2))
    monkeypatch.setattr(benchmark, "RESOLUTIONS", (16,))
    monkeypatch.setattr(benchmark, "REGIMES", ("N",))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_command_writes_a_complete_file(tmp_path, capsys):
    assert main(["bench", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert "times as fast as the serial reference" in capsys.readouterr().out
    found = json.loads((tmp_path / "cpu.json").read_text())
    wanted = {"case", "images", "serial_steps_per_s", "batched_steps_per_s", "ratio", "objective_gap", "peak_mib"}
    assert wanted | {"ceiling_share"} <= set(found["rows"][0])
    assert found["rows"][0]["ratio"] > 0
    assert found["rows"][0]["serial_range"][0] <= found["rows"][0]["serial_steps_per_s"]
    assert [row["images"] for row in found["scaling"]["images"]] == [2, 4]
    assert {"device", "torch", "fmlib", "seed", "date", "training", "cost"} <= set(found)
    assert list(analysis.cases_table(found).index) == ["quick-32"]
    assert "total (hours on this device)" in analysis.cost_table(found).index
    assert len(figures.figure_speed(found).axes) == 1
    assert len(figures.figure_scaling(found).axes) == 3


def test_an_unknown_case_is_refused(tmp_path, capsys):
    assert main(["bench", "--device", "cpu", "--case", "huge", "--output", str(tmp_path)]) == 2
    assert "quick-32" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Rounded(nn.Module):
    """A network that always computes in bfloat16."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(images).float()


def test_in_bfloat16_the_stop_rule_of_image_masks_would_often_not_fire(trained, synthetic):
    """The reason why they are learned in full precision, on every device."""
    images = synthetic.validation.pixels(slice(40))
    targets, spec = predictions(trained, images), ImageMaskSpec(lr=0.05, epochs=600, patience=30)
    full, rounded = (
        learn_masks(model, images, targets, torch.arange(40), spec, seed=0, centre=0.5, progress=False)
        for model in (trained, Rounded(trained))
    )
    assert full.converged.all()
    assert rounded.converged.float().mean().item() < 0.75
