"""Adversarial pairs, image masks and class masks as tasks: which images, in which chunk, and what is recorded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small

from fmlib.core.errors import FmlibError
from fmlib.core.spectra import apply_mask, l1_share
from fmlib.pipeline.store import Artifact
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import (
    all_masks,
    candidates,
    class_masks,
    eligible,
    first_images,
    image_masks,
    join_chunks,
    open_masks,
    pairs,
    second_seed_masks,
)


@pytest.fixture(scope="module")
def setup():
    return Setup(replace(small(), chunk_size=40), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def labels(setup, store):
    return store.get(setup.dataset).arrays["validation_labels"]


@pytest.fixture(scope="module")
def paired(setup, store):
    return store.get(pairs(setup))


@pytest.fixture(scope="module")
def learned(setup, store):
    return join_chunks([store.get(task) for task in all_masks(setup, "N.x")])


def test_candidates_alternate_between_the_classes(setup):
    labels = np.array([2, 0, 0, 1, 2, 2, 1, 0])
    order = candidates(setup, labels)
    assert sorted(order) == list(range(8))
    assert labels[order].tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    fewer = Setup(replace(setup.profile, n_image_masks=3), 0, CPU)
    assert candidates(fewer, labels).tolist() == order[:3].tolist()


def test_first_images_are_the_first_candidates(setup, store, labels):
    found = first_images(setup, store.get(setup.dataset), 7)
    chosen = candidates(setup, labels)[:7]
    assert found.labels.tolist() == labels[chosen].tolist()
    assert torch.equal(found.images, setup.open_dataset(store.get(setup.dataset)).validation.images[chosen])


def test_a_larger_limit_keeps_the_chunks_of_a_smaller_one(setup):
    fewer = Setup(replace(setup.profile, n_image_masks=80), 0, CPU)
    ours, theirs = ([task.key for task in all_masks(one, "N.x")] for one in (setup, fewer))
    assert (len(ours), len(theirs)) == (3, 2)
    assert ours[:2] == theirs


def test_masks_of_a_second_seed_share_dataset_and_pairs_but_not_the_network(setup):
    (second,), first = second_seed_masks(setup), image_masks(setup, "N.x", 0)
    assert [task.key for task in second.inputs] == [
        setup.dataset.key,
        setup.network("N", 1).key,
        pairs(setup).key,
    ]
    assert second.spec == first.spec


def test_eligible_images_are_correct_before_and_incorrect_after_the_attack(paired, labels):
    chosen = eligible(paired, labels)
    assert 0 < chosen.sum() < len(labels)
    assert (paired.arrays["prediction.N.x"][chosen] == labels[chosen]).all()
    assert (paired.arrays["prediction.N.xA"][chosen] != labels[chosen]).all()
    rest = ~chosen & (paired.arrays["prediction.N.x"] == labels)
    assert (paired.arrays["prediction.N.xA"][rest] == labels[rest]).all()


def test_attacked_images_stay_in_the_ball(setup, store, paired):
    images = setup.open_dataset(store.get(setup.dataset)).validation.pixels().numpy()
    distance = np.abs(paired.arrays["xA"] - images).max()
    assert 0 < distance <= setup.profile.train.attack.epsilon + 1e-6


def test_pairs_of_n_alone_lack_the_predictions_of_a(setup, store, paired):
    found = store.get(pairs(Setup(replace(setup.profile, regimes=("N",)), 0, CPU))).arrays
    assert list(found) == ["xA", "prediction.N.x", "prediction.N.xA"]
    for name, array in found.items():
        assert np.array_equal(array, paired.arrays[name])


def test_every_eligible_image_has_one_mask(learned, paired, labels):
    assert sorted(learned["image"]) == np.flatnonzero(eligible(paired, labels)).tolist()


def test_recorded_measures_follow_from_the_mask(setup, store, learned):
    """Prediction, L1 share and objective computed again from the stored masks."""
    images = setup.open_dataset(store.get(setup.dataset)).validation.pixels(torch.from_numpy(learned["image"]))
    model, half = setup.open_network(store.get(setup.network("N"))), torch.from_numpy(learned["half"])
    with torch.no_grad():
        before = model(images)
        after = model(apply_mask(images, half, setup.profile.network.mean))
    assert (before.argmax(1).numpy() == learned["target"]).all()
    assert ((after.argmax(1) == before.argmax(1)).numpy() == learned["kept"]).all()
    torch.testing.assert_close(l1_share(half, 16), torch.from_numpy(learned["l1_share"]))
    penalty = setup.profile.image_mask.penalty
    assert np.allclose(learned["objective"], learned["invariance"] + penalty * learned["l1_share"], rtol=1e-6)


def test_chunks_do_not_change_a_mask(setup, store, learned):
    single = Setup(replace(setup.profile, chunk_size=100), 0, CPU, progress=False)
    whole = join_chunks([store.get(task) for task in all_masks(single, "N.x")])
    assert whole["image"].tolist() == learned["image"].tolist()
    assert np.abs(whole["half"] - learned["half"]).max() < 1e-4
    assert (whole["steps"] == learned["steps"]).all()


def test_masks_of_attacked_images_keep_the_predictions_for_these(setup, store, paired):
    found = join_chunks([store.get(task) for task in all_masks(setup, "N.xA")])
    assert (found["target"] == paired.arrays["prediction.N.xA"][found["image"]]).all()


def test_open_masks_gives_each_mask_its_image_and_target(setup, store, learned):
    parts = [store.get(task) for task in all_masks(setup, "N.x")]
    masks, pixels, half, targets = open_masks(setup, store.get(setup.dataset), parts)
    images = setup.open_dataset(store.get(setup.dataset)).validation.pixels()
    assert torch.equal(pixels, images[torch.from_numpy(learned["image"])])
    assert np.array_equal(half.numpy(), masks["half"])
    assert np.array_equal(half.numpy(), learned["half"])
    assert targets.tolist() == learned["target"].tolist()


def test_a_chunk_without_an_eligible_image_is_empty(setup, store, paired):
    unchanged = Artifact(paired.arrays | {"prediction.N.xA": paired.arrays["prediction.N.x"]})
    inputs = [store.get(setup.dataset), store.get(setup.network("N")), unchanged]
    made = image_masks(setup, "N.x", 0).compute(inputs, None)
    assert made.arrays["half"].shape == (0, 16, 9)
    with pytest.raises(FmlibError, match="no image is classified correctly before the attack and incorrectly after it"):
        join_chunks([made])


def test_there_is_one_mask_per_class(setup, store):
    found = store.get(class_masks(setup)).arrays["half"]
    assert found.shape == (5, 16, 9)
    assert 0 <= found.min() <= found.max() <= 1
