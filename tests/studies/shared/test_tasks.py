"""Image masks as tasks: who enters, in which chunk, what is recorded, and that chunks and kills change nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CPU, small

from fmlib.core.errors import FmlibError
from fmlib.core.spectra import apply_mask, full_plane, l1_share
from fmlib.pipeline import experiment
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Artifact, Store
from fmlib.studies import registry
from fmlib.studies.adversarial_tables.experiment import adaptive, attack_specs, tables
from fmlib.studies.dataset_masks import experiment
from fmlib.studies.image_masks.experiment import FRACTIONS, necessity
from fmlib.studies.registry import EXPERIMENTS
from fmlib.studies.shared import tasks
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import KINDS, all_masks, candidates, eligible, image_masks, joined, pairs


@pytest.fixture(scope="module")
def setup():
    return Setup(replace(small(), chunk=40), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def labels(setup, store):
    return store.get(setup.dataset).arrays["validation_labels"]


@pytest.fixture(scope="module")
def paired(setup, store):
    return store.get(pairs(setup))


@pytest.fixture(scope="module")
def learned(setup, store):
    return joined([store.get(task) for task in all_masks(setup, "N.x")])


def test_candidates_take_turns_among_the_classes(setup):
    labels = np.array([2, 0, 0, 1, 2, 2, 1, 0])
    order = candidates(setup, labels)
    assert sorted(order) == list(range(8))
    assert labels[order].tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    fewer = Setup(replace(setup.profile, images=3), 0, CPU)
    assert candidates(fewer, labels).tolist() == order[:3].tolist()


def test_a_larger_bound_keeps_the_chunks_of_a_smaller_one(setup):
    fewer = Setup(replace(setup.profile, images=80), 0, CPU)
    ours, theirs = ([task.key for task in all_masks(one, "N.x")] for one in (setup, fewer))
    assert (len(ours), len(theirs)) == (3, 2)
    assert ours[:2] == theirs


def test_eligible_are_right_before_and_wrong_after(paired, labels):
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


def test_pairs_of_n_alone_lack_what_a_makes_of_them(setup, store, paired):
    found = store.get(pairs(Setup(replace(setup.profile, regimes=("N",)), 0, CPU))).arrays
    assert list(found) == ["xA", "prediction.N.x", "prediction.N.xA"]
    for name, array in found.items():
        assert np.array_equal(array, paired.arrays[name])


def test_every_eligible_image_has_one_mask(learned, paired, labels):
    assert sorted(learned["image"]) == np.flatnonzero(eligible(paired, labels)).tolist()


def test_what_is_recorded_follows_from_the_mask(setup, store, learned):
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
    one = Setup(replace(setup.profile, chunk=100), 0, CPU, progress=False)
    whole = joined([store.get(task) for task in all_masks(one, "N.x")])
    assert whole["image"].tolist() == learned["image"].tolist()
    assert np.abs(whole["half"] - learned["half"]).max() < 1e-4
    assert (whole["steps"] == learned["steps"]).all()


def test_masks_of_attacked_images_keep_what_the_network_says_of_those(setup, store, paired):
    found = joined([store.get(task) for task in all_masks(setup, "N.xA")])
    assert (found["target"] == paired.arrays["prediction.N.xA"][found["image"]]).all()


def test_a_chunk_without_an_eligible_image_is_empty(setup, store, paired):
    nobody = Artifact(paired.arrays | {"prediction.N.xA": paired.arrays["prediction.N.x"]})
    inputs = [store.get(setup.dataset), store.get(setup.network("N")), nobody]
    made = image_masks(setup, "N.x", 0).compute(inputs, None)
    assert made.arrays["half"].shape == (0, 16, 9)
    with pytest.raises(FmlibError, match="no image is right before the attack"):
        joined([made])


def test_table_two_by_hand(setup, store, learned, paired):
    hits = store.get(tables(setup)).arrays
    assert hits["x"].all()
    assert not hits["xA"].any()
    assert (hits["masked"] == learned["kept"]).all()
    model = setup.open_network(store.get(setup.network("N")))
    support = torch.from_numpy((learned["half"] >= 1e-8).astype(np.float32))
    attacked = torch.from_numpy(paired.arrays["xA"][learned["image"]])
    with torch.no_grad():
        filtered = model(apply_mask(attacked, support, setup.profile.network.mean)).argmax(1).numpy()
    assert (hits["masked_adversarial_binarised"] == (filtered == learned["target"])).all()
    assert ((hits["attack_inside"] >= 0) & (hits["attack_inside"] <= 1 + 1e-6)).all()
    assert ((hits["similarity"] >= -1) & (hits["similarity"] <= 1)).all()


def test_table_two_of_one_seed_lacks_what_n_of_another_sees(setup, store):
    found = store.get(tables(Setup(replace(setup.profile, regimes=("N",), repetitions=1), 0, CPU))).arrays
    whole = store.get(tables(setup)).arrays
    assert set(whole) - set(found) == {f"other.{what}" for what in ("x", "masked", "complement")}
    for name, array in found.items():
        assert np.array_equal(array, whole[name])


def test_all_of_a_masks_frequencies_are_its_binarised_mask(setup, store):
    kept, hits = store.get(necessity(setup)).arrays, store.get(tables(setup)).arrays
    assert kept["keep.own"].shape == (len(FRACTIONS), len(hits["x"]))
    assert (kept["keep.own"][-1] == hits["masked_binarised"]).all()
    assert (kept["remove.own"][-1] == hits["complement"]).all()


def test_an_attack_that_knows_the_mask_is_at_least_as_strong(setup, store, learned):
    """Through N's own mask and A's; and what is not attacked is what the evaluation found."""
    found = store.get(adaptive(setup)).arrays
    assert np.array_equal(found["clean.N"], store.get(setup.evaluation("N")).arrays["masked"])
    for regime in "NA":
        assert found[f"clean.{regime}"].mean() >= found[f"unaware.{regime}"].mean() >= found[f"aware.{regime}"].mean()
        assert len(found[f"aware.{regime}"]) == setup.counts["validation"]
    unaware = store.get(tables(setup)).arrays["masked_adversarial"]
    assert len(found["image"]) == len(learned["image"])
    assert found["image"].mean() <= unaware.mean()


def test_attacks_begin_with_the_training_attack(setup):
    name, (family, radius) = next(iter(attack_specs(setup).items()))
    assert (family, radius) == ("PGD", setup.profile.train.attack.epsilon)
    assert "DeepFool" in attack_specs(setup)
    assert name == "PGD 38/255"


def test_the_second_architecture_is_another_job(setup):
    assert setup.second.network("N").key != setup.network("N").key
    assert setup.second.dataset.key == setup.dataset.key


def test_class_masks_are_one_for_each_class(setup, store):
    found = store.get(tasks.class_masks(setup)).arrays["half"]
    assert found.shape == (5, 16, 9)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.fixture(scope="module")
def published(setup, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "quick"
    experiment.run(registry.experiments([]), setup, store)
    return experiment.publish(registry.experiments([]), setup, store, folder)


@pytest.mark.slow
def test_published_masks_are_the_learned_ones(published, learned):
    half = published.arrays("image_masks")["N.x"].astype(np.float32)
    assert np.abs(half - learned["half"]).max() < 1e-3
    assert ((half >= 1e-8) == (learned["half"] >= 1e-8)).all()
    table = published.table("image_masks")
    assert set(table["kind"]) == set(KINDS)
    full = full_plane(torch.from_numpy(half), 16).numpy()
    shares = table[table["kind"] == "N.x"]["nonzero_share"].to_numpy()
    assert np.allclose(shares, (full > 0).mean((1, 2)), atol=1e-5)


@pytest.mark.slow
def test_publishing_one_recipe_keeps_the_others(published, setup, store):
    before = {name: published.content(name) for name in published.manifest["files"]}
    again = experiment.publish(registry.experiments(["tables"]), setup, store, published.folder)
    assert {name: again.content(name) for name in again.manifest["files"]} == before
    other = Setup(replace(setup.profile, second_network=setup.profile.network), 0, CPU, progress=False)
    with pytest.raises(FmlibError, match="holds other results of tables: publish tables as well"):
        experiment.publish(registry.experiments(["networks"]), other, store, published.folder)


@pytest.mark.slow
def test_published_networks_can_be_taken_instead_of_trained(published, setup, store, tmp_path):
    fresh = Store(tmp_path, CPU)
    names = experiment.restore_networks(setup, fresh, Results.open(published.folder))
    assert len(names) == 2
    for regime in "NA":
        task = setup.network(regime)
        ours, theirs = fresh.get(task), store.get(task)
        assert all(torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items())
        assert np.allclose(ours.arrays["validation_loss"], theirs.arrays["validation_loss"], rtol=1e-5)
    assert experiment.restore_networks(setup, fresh, published) == []
    assert EXPERIMENTS["networks"].tasks(setup)[2].key not in {path.name for path in (tmp_path / "network").iterdir()}
