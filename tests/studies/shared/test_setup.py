"""The tasks that every study shares: what their keys depend on, and what they compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small
from torch import nn

from fmlib.core.config import NetworkSpec
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask
from fmlib.pipeline.store import Artifact
from fmlib.studies.shared.profiles import profile
from fmlib.studies.shared.setup import Setup, load_dataset


@pytest.fixture(scope="module")
def setup():
    return Setup(replace(small(), regimes=("N",)), 0, CPU, progress=False)


def test_synthetic_data_need_no_folder(synthetic, synthetic_spec):
    assert torch.equal(load_dataset(synthetic_spec).train.images, synthetic.train.images)


def test_keys_depend_on_all_that_a_result_depends_on_and_on_nothing_else():
    setup = Setup(profile("quick"), 0, CPU)
    elsewhere = Setup(profile("quick"), 0, torch.device("meta"), progress=False)
    assert setup.mask("N").key == elsewhere.mask("N").key
    others = [Setup(profile("quick"), 1, CPU).mask("N"), setup.mask("A"), setup.mask("N", 1)]
    others += [setup.mask("N", variant=variant) for variant in ("order", "half", "single")]
    assert len({task.key for task in (setup.mask("N"), *others)}) == 7


def test_the_second_architecture_shares_the_data_but_not_the_networks(setup):
    assert setup.second.network("N").key != setup.network("N").key
    assert setup.second.dataset.key == setup.dataset.key


def test_standard_and_adversarial_are_those_that_the_profile_trains(setup):
    assert setup.standard_and_adversarial == ("N",)
    assert Setup(small(), 0, CPU).standard_and_adversarial == ("N", "A")


def test_the_stored_data_set_is_the_one_made_by_its_spec(setup, store):
    stored, made = setup.open_dataset(store.get(setup.dataset)), load_dataset(setup.profile.data)
    assert torch.equal(stored.train.images, made.train.images)
    assert torch.equal(stored.validation.labels, made.validation.labels)
    assert stored.classes == made.classes
    assert setup.counts == {"train": len(stored.train), "validation": len(stored.validation)}


def test_evaluation_is_that_of_the_stored_network_and_mask(setup, store):
    data = setup.open_dataset(store.get(setup.dataset)).validation
    network, mask = store.get(setup.network("N")), store.get(setup.mask("N"))
    assert mask.arrays["half"].shape == setup.half_size
    assert all(len(rows) == setup.profile.train.epochs for rows in network.arrays.values())
    model, half = setup.open_network(network), torch.from_numpy(mask.arrays["half"])
    assert torch.equal(setup.filtered(mask)(data.pixels()), apply_mask(data.pixels(), half, setup.profile.network.mean))
    correct = store.get(setup.evaluation("N")).arrays
    with torch.no_grad():
        unmasked, masked = (model(pixels).argmax(1) for pixels in (data.pixels(), setup.filtered(mask)(data.pixels())))
    assert np.array_equal(correct["standard"], unmasked == data.labels)
    assert np.array_equal(correct["masked"], masked == data.labels)
    assert correct["attacked"].mean() < correct["standard"].mean()


@pytest.mark.parametrize("name", ["resnet18", "tiny_vgg"])
def test_an_opened_network_is_the_stored_one_in_eval_mode(name):
    """With statistics as training leaves them, where batch norm is folded into convolutions."""
    setup = Setup(replace(small(), network=NetworkSpec(name)), 0, CPU)
    stored, rng = build(setup.profile.network, 3), torch.Generator().manual_seed(0)
    for norm in (module for module in stored.modules() if isinstance(module, nn.BatchNorm2d)):
        for values in (norm.running_mean, norm.weight.data, norm.bias.data):
            values.normal_(generator=rng)
        norm.running_var.uniform_(0.5, 2, generator=rng)
    opened = setup.open_network(Artifact({}, weights=stored.state_dict()))
    folded = [module for module in opened.modules() if isinstance(module, nn.Identity)]
    assert not opened.training
    assert len(folded) == {"resnet18": 3, "tiny_vgg": 1}[name]  # tiny_vgg has one of its own
    images = torch.rand((2, 1, 32, 32), generator=rng)
    with torch.no_grad():
        torch.testing.assert_close(opened(images), stored.eval()(images), rtol=1e-4, atol=1e-5)


def test_held_out_masks_are_fitted_on_all_images_and_on_the_even_ones(setup, store):
    correct, whole = store.get(setup.held_out()).arrays, store.get(setup.evaluation("N")).arrays
    assert np.array_equal(correct["standard"], whole["standard"][1::2])
    assert np.array_equal(correct["all"], whole["masked"][1::2])
    data = setup.open_dataset(store.get(setup.dataset)).validation
    pixels = setup.filtered(store.get(setup.mask("N", variant="half")))(data.pixels()[1::2])
    with torch.no_grad():
        predicted = setup.open_network(store.get(setup.network("N")))(pixels).argmax(1)
    assert np.array_equal(correct["half"], predicted == data.labels[1::2])
