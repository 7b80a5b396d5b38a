"""The tasks of Table 2, adaptive attacks and other attacks: what they measure, and what is published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small

from fmlib.core.spectra import apply_mask
from fmlib.studies.adversarial_tables.experiment import EXPERIMENTS, adaptive, attack_specs, attacks, tables
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import all_masks, join_chunks, pairs


@pytest.fixture(scope="module")
def setup():
    return Setup(replace(small(), chunk_size=40), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def learned(setup, store):
    return join_chunks([store.get(task) for task in all_masks(setup, "N.x")])


def test_table_two_by_hand(setup, store, learned):
    correct, paired = store.get(tables(setup)).arrays, store.get(pairs(setup))
    assert correct["x"].all()
    assert not correct["xA"].any()
    assert (correct["masked"] == learned["kept"]).all()
    model = setup.open_network(store.get(setup.network("N")))
    support = torch.from_numpy((learned["half"] >= 1e-8).astype(np.float32))
    attacked = torch.from_numpy(paired.arrays["xA"][learned["image"]])
    with torch.no_grad():
        predicted = model(apply_mask(attacked, support, setup.profile.network.mean)).argmax(1).numpy()
    assert (correct["masked_adversarial_binarised"] == (predicted == learned["target"])).all()
    assert ((correct["attack_inside"] >= 0) & (correct["attack_inside"] <= 1 + 1e-6)).all()
    assert ((correct["similarity"] >= -1) & (correct["similarity"] <= 1)).all()


def test_table_two_of_one_seed_lacks_the_network_of_another(setup, store):
    single = store.get(tables(Setup(replace(setup.profile, regimes=("N",), repetitions=1), 0, CPU))).arrays
    whole = store.get(tables(setup)).arrays
    assert set(whole) - set(single) == {f"other.{name}" for name in ("x", "masked", "complement")}
    for name, array in single.items():
        assert np.array_equal(array, whole[name])


def test_an_adaptive_attack_is_at_least_as_strong(setup, store, learned):
    """Through N's own mask and A's; without an attack, accuracy is that of the evaluation."""
    arrays = store.get(adaptive(setup)).arrays
    assert np.array_equal(arrays["clean.N"], store.get(setup.evaluation("N")).arrays["masked"])
    for regime in "NA":
        clean, unaware, aware = (arrays[f"{name}.{regime}"] for name in ("clean", "unaware", "aware"))
        assert clean.mean() >= unaware.mean() >= aware.mean()
        assert len(aware) == setup.counts["validation"]
    unaware = store.get(tables(setup)).arrays["masked_adversarial"]
    assert len(arrays["image"]) == len(learned["image"])
    assert arrays["image"].mean() <= unaware.mean()


def test_attacks_begin_with_the_training_attack(setup):
    name, (family, radius) = next(iter(attack_specs(setup).items()))
    assert (family, radius) == ("PGD", setup.profile.train.attack.epsilon)
    assert "DeepFool" in attack_specs(setup)
    assert name == "PGD 38/255"


def test_every_attack_is_measured_and_published_as_computed(setup, store, learned):
    experiment, _ = EXPERIMENTS
    for task in experiment.tasks(setup):
        store.get(task)
    files = experiment.export(setup, store)
    assert set(files) == {"tables.npz", "attacks.npz", "adaptive.npz"}
    arrays, count = store.get(attacks(setup)).arrays, setup.counts["validation"]
    for name in attack_specs(setup):
        assert arrays[f"N.{name}"].shape == arrays[f"A.{name}"].shape == arrays[f"distance.{name}"].shape == (count,)
        assert arrays[f"masked.{name}"].shape == learned["image"].shape
        assert arrays[f"spectrum.{name}"].shape == setup.half_size
        assert arrays[f"spectrum.{name}"].min() >= 0
    radius = setup.profile.train.attack.epsilon * setup.profile.data.size
    assert 0 < arrays["distance.PGD 38/255"].max() <= radius * (1 + 1e-5)
