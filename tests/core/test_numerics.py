"""How far results may differ between machines: other threads, other batch sizes, and memory that stays flat.

Sums of floating-point numbers depend on their order, which depends on threads and batch sizes. The tolerances are those
that `book/trust.md` states.
"""

import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fmlib.core.config import MaskSpec, MinimalMaskSpec
from fmlib.core.evaluation import evaluate
from fmlib.core.masks import learn_masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.models import build
from fmlib.core.spectra import correlation
from fmlib.core.training import train

#: Learns masks of as many 16-px images as its argument says, and prints the peak of the process's memory, MiB.
MEMORY = """
import resource, sys, torch
from fmlib.core.config import MinimalMaskSpec, NetworkSpec
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.models import build

model = build(NetworkSpec("tiny_vgg", classes=3, mean=0.5, std=0.14), seed=0).eval()
images = torch.rand(int(sys.argv[1]), 1, 16, 16, generator=torch.Generator().manual_seed(0))
minimal_masks(model, images, model(images).argmax(1), MinimalMaskSpec(steps=1), batch_size=10, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.fixture
def threads():
    """Sets the number of threads, until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_training_on_one_and_on_two_threads_ends_alike(threads, synthetic, tiny_network, quick_training):
    spec, losses = replace(quick_training, epochs=2), []
    for count in (1, 2):
        threads(count)
        model = build(tiny_network, seed=0)
        train(model, synthetic.train, synthetic.validation, spec, seed=0, progress=False)
        loss, correct = evaluate(model, [(synthetic.validation.pixels(), synthetic.validation.labels)])
        losses.append((loss.mean().item(), correct.float().mean().item()))
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.05, abs=0.01)
    assert losses[1][1] == pytest.approx(losses[0][1], abs=0.02)


def test_a_dataset_mask_on_one_and_on_two_threads_is_the_same(threads, trained, synthetic):
    found = []
    for count in (1, 2):
        threads(count)
        images, labels = synthetic.validation.pixels(), synthetic.validation.labels
        index = torch.zeros(len(images), dtype=torch.long)
        spec = MaskSpec(lr=0.05, batch=32, epochs=8)
        found.append(learn_masks(trained, images, labels, index, spec, seed=0, centre=0.5, progress=False).full()[0])
    assert float(correlation(*found)) > 0.99
    assert found[1].mean().item() == pytest.approx(found[0].mean().item(), abs=0.01)


def test_minimal_masks_on_one_and_on_two_threads_are_equally_good(threads, trained, synthetic):
    images = synthetic.validation.pixels(slice(24))
    targets = trained(images).argmax(1)
    spec, excesses = MinimalMaskSpec(steps=20), []
    for count in (1, 2):
        threads(count)
        history = minimal_masks(trained, images, targets, spec, centre=0.5, progress=False).history
        excess = history["invariance"] - 1 + spec.penalty * history["l1_share"]  # (steps, images)
        excesses.append(excess.amin(0).mean().item())
    assert excesses[1] == pytest.approx(excesses[0], rel=0.25)


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="no measure of memory")
def test_a_thousand_masks_need_no_more_memory_than_ten():
    peaks = [
        float(subprocess.run([sys.executable, "-c", MEMORY, count], capture_output=True, check=True, text=True).stdout)
        for count in ("10", "1000")
    ]
    assert peaks[1] - peaks[0] < 50
