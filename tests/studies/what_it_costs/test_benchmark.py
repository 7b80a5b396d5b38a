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
from fmlib.studies.what_it_costs.benchmark import Case, excess_gap, mask_quality, operations, serial_mask

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


def test_dataset_masks_in_bfloat16_reach_the_excess_of_full_precision(trained, synthetic, request):
    """Within 1%, with the same L1 share and predictions; the masks differ, so bfloat16 was in use."""
    images, labels = synthetic.validation.pixels(slice(60)), synthetic.validation.labels[:60]
    spec, index = MaskSpec(lr=0.02, batch=20, epochs=30, beta2=0.99), torch.zeros_like(labels)

    def learn():
        return learn_masks(trained, images, labels, index, spec, seed=0, centre=0.5, progress=False).half

    full = learn()
    request.getfixturevalue("bfloat16_on_cpu")
    reduced = learn()
    assert not torch.equal(reduced, full)
    ours, theirs = (
        mask_quality(trained, images, labels, half.expand(60, -1, -1), spec, 0.5) for half in (reduced, full)
    )
    means, reference = (
        {name: values.double().mean().item() for name, values in quality.items()} for quality in (ours, theirs)
    )
    assert means["excess"] == pytest.approx(reference["excess"], rel=0.01)
    assert means["l1_share"] == pytest.approx(reference["l1_share"], abs=1e-3)
    assert means["kept"] == reference["kept"]


def test_serial_and_batched_learning_give_the_same_masks(serial, learned):
    """Two implementations: the same steps, the same masks, the same result of the stop rule."""
    assert learned.epochs.min().item() < learned.epochs.max().item()
    assert torch.cat([one.epochs for one in serial]).tolist() == learned.epochs.tolist()
    assert torch.cat([one.converged for one in serial]).tolist() == learned.converged.tolist()
    torch.testing.assert_close(torch.cat([one.half for one in serial]), learned.half, atol=1e-4, rtol=0)


def test_serial_and_batched_masks_are_equally_good(problem, serial, learned):
    """Every image's excess within 1% of the reference's, at the same L1 share, and the same predictions kept."""
    model, images, targets = problem
    halves = torch.cat([one.half for one in serial])
    ours, theirs = (mask_quality(model, images, targets, half, SPEC, 0.5) for half in (learned.half, halves))
    assert excess_gap(ours["excess"], theirs["excess"]).max().item() < 0.01
    torch.testing.assert_close(ours["l1_share"], theirs["l1_share"], atol=1e-5, rtol=0)
    assert ours["kept"].tolist() == theirs["kept"].tolist()


def test_the_excess_of_an_all_ones_mask_is_the_penalty(problem, learned):
    """It removes nothing; the learned masks are better."""
    model, images, targets = problem
    whole = mask_quality(model, images, targets, torch.ones(12, 16, 9), SPEC, 0.5)
    torch.testing.assert_close(whole["excess"], torch.full((12,), SPEC.penalty).double())
    assert whole["l1_share"].tolist() == whole["nonzero_share"].tolist() == [1.0] * 12
    assert whole["kept"].all()
    assert (mask_quality(model, images, targets, learned.half, SPEC, 0.5)["excess"] < whole["excess"]).all()


def test_the_quality_of_a_mask_does_not_depend_on_the_batch(problem, learned, snapshot):
    model, images, targets = problem
    before = snapshot(model)
    found = mask_quality(model, images, targets, learned.half, SPEC, 0.5)
    for index in range(12):
        one = slice(index, index + 1)
        alone = mask_quality(model, images[one], targets[one], learned.half[one], SPEC, 0.5)
        assert {name: values[index].item() for name, values in found.items()} == {n: v.item() for n, v in alone.items()}
    assert snapshot(model) == before


def test_shares_are_of_the_full_plane(problem):
    """A column of DC stands for one column of 16, an interior one for two."""
    model, images, targets = problem
    half = torch.zeros(12, 16, 9)
    half[:, :, 0], half[:, :, 1] = 0.5, 1e-9
    found = mask_quality(model, images, targets, half, SPEC, 0.5)
    assert found["nonzero_share"].tolist() == [1 / 16] * 12
    assert found["l1_share"][0].item() == pytest.approx(1 / 32)


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
    """Cases that take a second, and no image data set, whose profiles would need cases of their own."""
    monkeypatch.delenv("FMLIB_DATA", raising=False)
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
    wanted = {"case", "images", "serial_steps_per_s", "batched_steps_per_s", "ratio", "excess_gap", "peak_mib"}
    assert wanted | {"ceiling_share", "quality"} <= set(found["rows"][0])
    assert found["rows"][0]["ratio"] > 0
    assert found["rows"][0]["serial_range"][0] <= found["rows"][0]["serial_steps_per_s"]
    assert [row["images"] for row in found["scaling"]["images"]] == [2, 4]
    assert {"device", "torch", "fmlib", "seed", "date", "training", "cost"} <= set(found)
    assert list(analysis.cases_table(found).index) == ["quick-32"]
    quality = analysis.quality_table(found)
    assert list(quality.index) == [("quick-32", "serial"), ("quick-32", "batched")]
    assert quality["L1 share"].notna().all()
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
