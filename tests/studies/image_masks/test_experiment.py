"""Experiments on image masks: what is published agrees with the learned masks, and controls with Table 2."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small

from fmlib.core.device import generator
from fmlib.core.errors import FmlibError
from fmlib.core.spectra import correlation, full_plane
from fmlib.pipeline.experiment import publish
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.adversarial_tables.experiment import tables
from fmlib.studies.image_masks.experiment import EXPERIMENTS, FRACTIONS, SETS, SHOWN, necessity, random_control
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import KINDS, all_masks, class_masks, eligible, join_chunks, pairs, second_seed_masks


@pytest.fixture(scope="module")
def setup():
    return Setup(replace(small(), chunk_size=40), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def learned(setup, store):
    return join_chunks([store.get(task) for task in all_masks(setup, "N.x")])


@pytest.fixture(scope="module")
def published(setup, store, tmp_path_factory):
    registry.run(EXPERIMENTS, setup, store, workers=1)
    return publish(EXPERIMENTS, setup, store, tmp_path_factory.mktemp("published") / "quick", [])


def test_all_of_a_masks_frequencies_are_its_binarised_mask(setup, store):
    kept, correct = store.get(necessity(setup)).arrays, store.get(tables(setup)).arrays
    assert set(kept) == {f"{way}.{name}" for way in ("keep", "remove") for name in SETS}
    assert kept["keep.own"].shape == (len(FRACTIONS), len(correct["x"]))
    assert (kept["keep.own"][-1] == correct["masked_binarised"]).all()
    assert (kept["remove.own"][-1] == correct["complement"]).all()


def test_published_masks_are_the_learned_ones(published, learned):
    half = published.arrays("image_masks")["N.x"]
    np.testing.assert_array_equal(half, learned["half"])
    table = published.table("image_masks")
    assert set(table["kind"]) == set(KINDS)
    full = full_plane(torch.from_numpy(half), 16).numpy()
    shares = table[table["kind"] == "N.x"]["nonzero_share"].to_numpy()
    assert np.allclose(shares, (full > 0).mean((1, 2)), atol=1e-5)


@pytest.fixture
def fresh(setup, store, tmp_path):
    """A store that holds the networks and nothing else."""
    fresh = Store(tmp_path, CPU)
    for regime in ("N", "A"):
        fresh.put(setup.network(regime), store.get(setup.network(regime)))
    return fresh


def test_published_masks_are_restored_in_chunks(published, setup, store, fresh, tmp_path):
    names = ["image-masks", "minimal-image-masks"]
    tasks = [task for one in (setup, setup.minimal) for kind in KINDS for task in all_masks(one, kind)]
    assert len(tasks) > 2 * len(KINDS)  # several chunks
    assert registry.restore(names, setup, Store(tmp_path / "empty", CPU), published) == []  # without their networks
    assert registry.restore(names, setup, fresh, published) == [task.name for task in tasks]
    for task in tasks:
        ours, theirs = fresh.get(task).arrays, store.get(task).arrays
        assert set(ours) == set(theirs)
        for name, values in theirs.items():
            exact = name in ("image", "half", "target", "steps", "converged", "kept")
            np.testing.assert_allclose(ours[name], values, rtol=0 if exact else 1e-5)
    assert registry.restore(names, setup, fresh, published) == []


def test_only_what_is_published_whole_can_be_restored(setup, store, published):
    with pytest.raises(FmlibError, match="cannot use published results of 'tables': choose from networks"):
        registry.restore(["networks", "tables"], setup, store, published)


def test_published_pairs_tell_which_images_have_masks(published, setup, store):
    arrays = published.arrays("pairs")
    assert np.array_equal(arrays["eligible"], eligible(store.get(pairs(setup)), arrays["labels"]))
    image = published.arrays("image_masks")["image"]
    assert np.flatnonzero(arrays["eligible"]).tolist() == sorted(image)
    assert (published.arrays("image_masks")["label"] == arrays["labels"][image]).all()


def test_stability_correlates_the_masks_of_two_seeds(published, setup, store, learned):
    table = published.table("image_stability")
    second = join_chunks([store.get(task) for task in second_seed_masks(setup)])
    assert table["image"].tolist() == second["image"].tolist()
    first = learned["half"][learned["image"] == second["image"][0]]
    ours, theirs = (full_plane(torch.from_numpy(half), 16)[0] for half in (first, second["half"]))
    assert table["same_image"][0] == pytest.approx(float(correlation(ours, theirs)), rel=1e-4)


def test_samples_show_the_first_masks_of_each_class(published, setup, store, learned):
    samples = published.arrays("samples")
    classes = len(samples["classes"])
    assert {name: array.shape for name, array in samples.items() if name != "classes"} == dict.fromkeys(
        ("x", "xA", "masked", "masked_adversarial", "complement_image", "mask", "complement"), (classes, SHOWN, 16, 16)
    )
    images = store.get(setup.dataset).arrays["validation_images"]
    for label in range(classes):
        members = np.flatnonzero(learned["target"] == label)
        if not len(members):
            assert np.isnan(samples["mask"][label]).all()
            continue
        mask = full_plane(torch.from_numpy(learned["half"][members[0]]), 16).numpy()
        np.testing.assert_array_equal(samples["mask"][label, 0], mask.astype(np.float16))
        np.testing.assert_array_equal(samples["complement"][label, 0], mask < 1e-8)
        image = images[learned["image"][members[0]]].mean(0) / 255
        np.testing.assert_allclose(samples["x"][label, 0], image, atol=1e-3)


def test_class_masks_and_curves_are_published_as_computed(published, setup, store):
    np.testing.assert_array_equal(published.arrays("class_masks")["half"], store.get(class_masks(setup)).arrays["half"])
    for name, rows in store.get(necessity(setup)).arrays.items():
        np.testing.assert_array_equal(published.arrays("necessity")[name], rows)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_random_controls_have_the_size_of_each_set_and_follow_the_generator(share):
    sets = torch.rand(3, 16, 9, generator=generator(0, "given")) < share
    rng = generator(0, "sets")
    first, second = random_control(sets, rng), random_control(sets, rng)
    assert torch.equal(first.flatten(1).sum(1), sets.flatten(1).sum(1))
    assert torch.equal(first, random_control(sets, generator(0, "sets")))
    assert torch.equal(first, second) == (share in (0, 1))


def test_random_controls_select_every_entry_equally_often():
    sets = torch.zeros(4000, 4, 3, dtype=torch.bool)
    sets[:, 0, :] = True  # three of twelve
    often = random_control(sets, generator(0, "often")).float().mean(0)
    assert (often - 1 / 4).abs().max().item() < 5 * math.sqrt(1 / 4 * 3 / 4 / 4000)
