"""Experiments on dataset masks: what is published agrees with the artifacts, and networks can be restored from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small
from safetensors.torch import load as load_weights

from fmlib.core.spectra import correlation, full_plane, half_plane
from fmlib.pipeline.experiment import publish
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.shared import compact
from fmlib.studies.shared.profiles import profile
from fmlib.studies.shared.setup import Setup

NAMES = ["networks", "dataset-masks"]


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup(small(), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def published(setup, store, tmp_path_factory) -> Results:
    experiments = registry.experiments(["networks", "dataset-masks", "architectures"])
    registry.run(experiments, setup, store, workers=1)
    return publish(experiments, setup, store, tmp_path_factory.mktemp("published") / "quick", [])


@pytest.fixture(scope="module")
def published_synthetic(common, tmp_path_factory) -> Results:
    setup, experiments = Setup(profile("quick"), 0, CPU, progress=False), registry.experiments(["synthetic"])
    registry.run(experiments, setup, common, workers=1)
    return publish(experiments, setup, common, tmp_path_factory.mktemp("published") / "quick", [])


def test_training_history_has_every_epoch_of_every_network(published, setup, store):
    table = published.table("training")
    assert len(table) == 2 * 5 * setup.profile.train.epochs
    rows = table.query("regime == 'A' and repetition == 1")
    history = store.get(setup.network("A", 1)).arrays
    assert rows["epoch"].tolist() == [1, 2]
    np.testing.assert_allclose(rows["validation_loss"], history["validation_loss"], rtol=1e-5)


def test_published_weights_are_those_of_the_first_network_of_each_regime(published, setup, store):
    names = {name for name in published.manifest["files"] if name.startswith("network_")}
    assert names == {f"network_{regime}.safetensors" for regime in setup.profile.regimes}
    weights = load_weights(published.content("network_A.safetensors"))
    assert all(torch.equal(weights[name], value) for name, value in store.get(setup.network("A")).weights.items())


def test_published_masks_are_full_planes_of_the_artifacts(published, setup, store):
    masks = published.arrays("dataset_masks")
    assert set(masks) == {*setup.profile.regimes, *(f"N.{variant}" for variant in setup.profile.variants)}
    assert masks["A"].shape == (2, 16, 16)
    for regime, repetition in (("N", 0), ("A", 1)):
        half = store.get(setup.mask(regime, repetition)).arrays["half"]
        np.testing.assert_array_equal(half_plane(torch.from_numpy(masks[regime][repetition])), half)
    assert 0 <= masks["A"].min() <= masks["A"].max() <= 1


def test_rows_of_masks_agree_with_their_histories(published, setup):
    table, history = published.table("masks"), published.table("mask_history")
    fits = ["regime", "repetition", "variant"]
    last = history.groupby(fits).last()
    assert len(table) == len(last) == 10 + len(setup.profile.variants)
    for name in ("l1_share", "invariance", "clipped"):
        np.testing.assert_allclose(table.set_index(fits)[name].sort_index(), last[name].sort_index(), rtol=1e-4)
    steps = table.query("repetition == 0 and regime == 'N'").set_index("variant")["steps"]
    assert steps.to_dict() == {"plain": 4 * 2, "order": 4 * 2, "single": 1 * 100, "half": 4 * 1}


def test_evaluation_and_held_out_are_those_of_the_artifacts(published, setup, store):
    evaluation, held_out = published.arrays("evaluation"), published.arrays("held_out")
    for name, correct in store.get(setup.evaluation("S", 1)).arrays.items():
        np.testing.assert_array_equal(evaluation[f"{name}.S"][1], correct)
    assert list(held_out) == ["standard", "all", "half"]
    np.testing.assert_array_equal(held_out["standard"], evaluation["standard.N"][0][1::2])
    np.testing.assert_array_equal(held_out["all"], evaluation["masked.N"][0][1::2])


def test_stability_correlates_the_published_masks(published, setup):
    table = published.table("stability").set_index(["pair", "regime"])["correlation"]
    masks = published.arrays("dataset_masks")
    assert len(table) == len(setup.profile.variants) + 5
    first = torch.from_numpy(masks["N"][0])
    others = {pair: masks[f"N.{pair}"] for pair in setup.profile.variants} | {"network": masks["N"][1]}
    for pair, other in others.items():
        assert table[pair, "N"] == pytest.approx(float(correlation(first, torch.from_numpy(other))), rel=1e-4)


def test_second_architecture_is_published_by_network(published, setup, store):
    arrays = published.arrays("second_architecture")
    assert set(arrays) == {f"{name}.{regime}" for name in ("mask", "standard", "masked", "attacked") for regime in "NA"}
    np.testing.assert_array_equal(arrays["masked.A"], store.get(setup.second.evaluation("A")).arrays["masked"])


def test_what_is_published_is_restored_instead_of_computed(published, setup, store, tmp_path):
    (masks,) = registry.experiments(["dataset-masks"])
    fresh, first = Store(tmp_path / "store", CPU), [setup.network(regime) for regime in setup.profile.regimes]
    restored = registry.restore(NAMES, setup, fresh, published)
    of_first = [task for task in masks.tasks(setup) if {one.key for one in task.inputs} & {one.key for one in first}]
    fitted = [task.name for task in of_first if task.kind in ("mask", "evaluation")]
    assert sorted(restored) == sorted([task.name for task in first] + fitted)
    for task in first:
        ours, theirs = fresh.get(task), store.get(task)
        assert all(torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items())
        assert list(ours.arrays) == list(theirs.arrays)
        np.testing.assert_allclose(ours.arrays["validation_loss"], theirs.arrays["validation_loss"], rtol=1e-5)
    for name, values in store.get(setup.evaluation("A")).arrays.items():
        np.testing.assert_array_equal(fresh.get(setup.evaluation("A")).arrays[name], values)
    for variant in ("plain", "half"):
        ours, theirs = (each.get(setup.mask("N", variant=variant)) for each in (fresh, store))
        np.testing.assert_array_equal(ours.arrays["half"], theirs.arrays["half"])
        assert ours.facts.items() >= theirs.facts.items()
    assert registry.restore(NAMES, setup, fresh, published) == []
    other = Setup(small(epochs=3), 0, CPU, progress=False)
    assert registry.restore(NAMES, other, fresh, published) == []  # other networks


def test_what_was_restored_is_published_unchanged(published, setup, store, tmp_path):
    chosen = registry.experiments(["dataset-masks"])
    fresh = Store(tmp_path / "store", CPU)
    for task in (setup.dataset, setup.held_out(), *(setup.network(regime, 1) for regime in setup.profile.regimes)):
        fresh.put(task, store.get(task))
    assert setup.mask("R", 1).name in registry.restore(NAMES, setup, fresh, published)
    again = publish(chosen, setup, fresh, tmp_path / "quick", [])
    for file in again.manifest["experiments"]["dataset-masks"]["files"]:
        assert again.content(file) == published.content(file), file


def test_masks_of_the_published_networks_are_not_restored_for_others(published, setup, store, tmp_path):
    fresh, task, ours = Store(tmp_path / "store", CPU), setup.network("N"), store.get(setup.network("N"))
    other = {name: weight + 1e-3 if weight.is_floating_point() else weight for name, weight in ours.weights.items()}
    fresh.put(task, replace(ours, weights=other))  # the same key, as when it was trained on another machine
    assert registry.restore(["dataset-masks"], setup, fresh, published) == []
    fresh.put(task, ours)
    restored = registry.restore(["dataset-masks"], setup, fresh, published)
    assert setup.mask("N").name in restored
    assert setup.mask("A").name not in restored  # the store lacks its network


def test_networks_kept_as_products_are_published_and_restored(store, tmp_path, monkeypatch):
    monkeypatch.setattr(compact, "LARGE", 100)
    products = Setup(replace(small(), update_rank=3).only(["N"]), 0, CPU, progress=False)
    assert products.network("N").key != Setup(small(), 0, CPU).network("N").key
    assert products.second.network("N").key == Setup(small(), 0, CPU).second.network("N").key
    registry.run(registry.experiments(["networks"]), products, store, workers=1)
    results = publish(registry.experiments(["networks"]), products, store, tmp_path / "quick", [])
    fresh = Store(tmp_path / "store", CPU)
    assert registry.restore(NAMES, products, fresh, results) == [products.network("N").name]
    ours, theirs = fresh.get(products.network("N")), store.get(products.network("N"))
    assert "initial_seed" in ours.weights
    assert all(torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items())
    assert ours.facts["rounding"] == pytest.approx(theirs.facts["rounding"], rel=1e-5)
    assert theirs.facts["rounding"]["images"] == 100
    assert fresh.weights_checksum(products.network("N")) == store.weights_checksum(products.network("N"))


@pytest.mark.slow
def test_synthetic_files_compare_masks_with_the_known_frequencies(published_synthetic, common):
    setup = Setup(profile("quick"), 0, CPU).synthetic(0)
    arrays, row = published_synthetic.arrays("synthetic"), published_synthetic.table("synthetic").iloc[0]
    for name, regime in (("mask", "N"), ("mask.A", "A")):
        half = torch.from_numpy(common.get(setup.mask(regime)).arrays["half"])
        np.testing.assert_array_equal(arrays[name], full_plane(half, setup.profile.data.size))
        weights = load_weights(published_synthetic.content(f"synthetic_network_{regime}.safetensors"))
        stored = common.get(setup.network(regime)).weights
        assert all(torch.equal(weights[name], weight) for name, weight in stored.items())
    kept = arrays["mask"] > 0.5
    assert row["recall"] == pytest.approx(kept[arrays["tones"] == 1].mean(), rel=1e-5)
    assert row["distractors_kept"] == kept[arrays["distractors"] == 1].sum()
    assert row["largest_elsewhere"] == pytest.approx(arrays["mask"][arrays["tones"] == 0].max(), rel=1e-5)
    assert len(arrays["images"]) == setup.profile.data.classes


@pytest.mark.slow
def test_known_tones_are_found_and_distractors_dropped(published_synthetic):
    rows = published_synthetic.table("synthetic")
    assert len(rows) == profile("quick").synthetic_repetitions
    assert (rows["precision"] >= 0.99).all()
    assert (rows["recall"] >= 0.8).all()
    assert (rows["distractors_kept"] == 0).all()
    assert ((rows["standard"] - rows["masked"]).abs() <= 0.01).all()
    assert (rows["standard"] > 0.9).all()
