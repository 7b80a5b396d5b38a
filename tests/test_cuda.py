"""On a CUDA device: masks, attacks, controls and training, which the other tests check on the CPU."""

import copy

import pytest
import torch

from fmlib.core import controls
from fmlib.core.attacks import FAMILIES, perturb
from fmlib.core.config import EvaluationSpec, ImageMaskSpec
from fmlib.core.device import generator
from fmlib.core.evaluation import predictions
from fmlib.core.masks import learn_masks
from fmlib.core.training import train
from fmlib.studies.what_it_costs.benchmark import mask_quality

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_masks_are_as_good_as_on_the_cpu(trained, synthetic):
    """Mean excess within 3%, mean L1 share within 0.001, and the same predictions kept."""
    spec, quality = ImageMaskSpec(lr=0.05, epochs=80), {}
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(trained).to(device)
        images = synthetic.validation.pixels(slice(16)).to(device)
        targets = predictions(model, images)
        learned = learn_masks(
            model, images, targets, torch.arange(16, device=device), spec, seed=0, centre=0.5, progress=False
        )
        quality[device] = mask_quality(model, images, targets, learned.half, spec, 0.5)
    cpu, cuda = ({name: values.double().mean().item() for name, values in quality[kind].items()} for kind in quality)
    assert cuda["excess"] == pytest.approx(cpu["excess"], rel=0.03)
    assert cuda["l1_share"] == pytest.approx(cpu["l1_share"], abs=1e-3)
    assert quality["cuda"]["kept"].tolist() == quality["cpu"]["kept"].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_attacks_run_on_the_device(trained, synthetic, family):
    images, labels = synthetic.validation.pixels(slice(8)).cuda(), synthetic.validation.labels[:8].cuda()
    spec = EvaluationSpec(0.1, 0.05, 3, restarts=2, queries=50)
    attacked = perturb(trained.cuda(), images, labels, spec, seed=0, purpose="x", family=family)
    assert attacked.device.type == "cuda"
    assert attacked.min().item() >= 0
    assert attacked.max().item() <= 1


def test_matched_controls_run_on_the_device():
    sets = torch.rand(4, 16, 9, device="cuda") < 0.2
    matched = controls.matched_control(sets, generator(0, "sets", "cuda"))
    assert matched.flatten(1).sum(1).tolist() == sets.flatten(1).sum(1).tolist()


def test_training_runs_on_the_device(trained, synthetic, quick_training):
    device = torch.device("cuda")
    history = train(
        trained.cuda(),
        synthetic.train.to(device),
        synthetic.validation.to(device),
        quick_training,
        seed=0,
        progress=False,
    )
    assert history[-1]["validation_accuracy"] > 0.5
