"""Frequency maps as tasks: who enters, what is recorded, how maps are prepared and compared, and what is published."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, small

from fmlib.core.config import FrequencyMapSpec
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import predictions
from fmlib.core.masks import learn_masks
from fmlib.core.spectra import apply_mask, full_plane, low_share, radial_energy
from fmlib.pipeline.store import Artifact
from fmlib.studies.frequency_maps import experiment, tasks
from fmlib.studies.frequency_maps.similarity import directed, standardised
from fmlib.studies.frequency_maps.tasks import ATTACKS, KINDS, SHUFFLES, compare, comparisons, prepared, title
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import candidates


@pytest.fixture(scope="module")
def setup():
    spec = FrequencyMapSpec(penalty=0.01, lr=0.1, epochs=24, least=21)
    return Setup(replace(small(), n_maps=30, frequency_map=spec), 0, CPU, progress=False)


@pytest.fixture(scope="module")
def model(setup, store):
    return setup.open_network(store.get(setup.network("N")))


@pytest.fixture(scope="module")
def images(setup, store):
    return setup.open_dataset(store.get(setup.dataset)).validation


@pytest.fixture(scope="module")
def attacked(setup, store):
    return store.get(tasks.attacked(setup, "N")).arrays


# ---------------------------------------------------------------------------------------------------- single images


def test_the_first_candidates_are_attacked_in_every_way(setup, images, model, attacked):
    labels = images.labels.numpy()
    assert attacked["image"].tolist() == candidates(setup, labels)[:30].tolist()
    assert attacked["label"].tolist() == labels[attacked["image"]].tolist()
    clean = images.pixels(torch.from_numpy(attacked["image"]))
    assert attacked["prediction"].tolist() == predictions(model, clean).tolist()
    for family in ATTACKS:
        moved = torch.from_numpy(attacked[f"pixels.{family}"])
        assert moved.shape == clean.shape
        assert attacked[f"prediction.{family}"].tolist() == predictions(model, moved).tolist()
        assert attacked[f"distance.{family}"] == pytest.approx((moved - clean).abs().flatten(1).amax(1).numpy())
    assert attacked["distance.PGD"].max() <= setup.profile.train.attack.epsilon + 1e-6
    assert not np.allclose(attacked["pixels.PGD"], attacked["pixels.FAB"])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_of_images_that_are_right_and_once_attacked_wrong(setup, store, images, model, attacked, kind):
    found = store.get(tasks.maps(setup, "N", kind)).arrays
    right = attacked["prediction"] == attacked["label"]
    if kind == "essential":
        pixels = images.pixels(torch.from_numpy(attacked["image"]))
        targets = attacked["label"]
    else:
        pixels, targets = torch.from_numpy(attacked[f"pixels.{kind}"]), attacked[f"prediction.{kind}"]
        right &= targets != attacked["label"]
    assert 0 < right.sum() < 30
    assert found["image"].tolist() == attacked["image"][right].tolist()
    assert found["target"].tolist() == targets[right].tolist()
    half = torch.from_numpy(found["half"])
    assert half.shape == (right.sum(), 1, 16, 9)
    filtered = predictions(model, apply_mask(pixels[right], half)).numpy()  # about black
    assert found["kept"].tolist() == (filtered == found["target"]).tolist()
    assert found["l1_share"] == pytest.approx(full_plane(half, 16).mean((1, 2, 3)).numpy(), abs=1e-6)
    assert (found["steps"] <= 24).all()


def test_a_map_is_that_of_its_image_alone(setup, store, images, model):
    found = store.get(tasks.maps(setup, "N", "essential")).arrays
    pixels = images.pixels(torch.from_numpy(found["image"][:1]))
    target = torch.from_numpy(found["target"][:1])
    spec = setup.profile.frequency_map
    alone = learn_masks(model, pixels, target, torch.tensor([0]), spec, seed=setup.seed, progress=False)
    torch.testing.assert_close(torch.from_numpy(found["half"][:1]), alone.half, atol=2e-3, rtol=0)


def test_an_attack_that_misleads_nobody_has_no_maps(setup, store, attacked):
    none = attacked | {"prediction.PGD": attacked["label"]}
    task = tasks.maps(setup, "N", "PGD")
    inputs = [store.get(setup.dataset), store.get(setup.network("N")), Artifact(none)]
    found = task.compute(inputs, None).arrays
    assert found["half"].shape == (0, 1, 16, 9)
    assert all(len(array) == 0 for array in found.values())


def test_every_image_is_shown_behind_the_maps_that_are_kept(setup, store, images, model, attacked):
    learned = store.get(tasks.maps(setup, "N", "essential"))
    few = Artifact(learned.arrays | {"kept": np.arange(len(learned.arrays["image"])) % 2 == 1})
    inputs = [store.get(setup.dataset), store.get(setup.network("N")), Artifact(attacked), few]
    found = tasks.image_transfer(setup, "N").compute(inputs, None).arrays
    assert found["image"].tolist() == learned.arrays["image"][1::2].tolist()
    assert found["target"].tolist() == learned.arrays["target"][1::2].tolist()
    for name, other in (("label", "label"), ("number", "image"), ("clean", "prediction")):
        assert found[name].tolist() == attacked[other].tolist()
    pixels = images.pixels(torch.from_numpy(attacked["image"]))
    half = torch.from_numpy(learned.arrays["half"][3, 0])
    assert found["filtered"].shape == (len(found["image"]), 30)
    assert found["filtered"][1].tolist() == predictions(model, apply_mask(pixels, half)).tolist()


# --------------------------------------------------------------------------------------------------------- classes


def test_class_maps_are_learned_from_other_images_than_those_attacked(setup, store, images, attacked, monkeypatch):
    seen = {}

    def record(model, pixels, labels, index, spec, **options):
        seen.update(pixels=pixels, labels=labels, index=index, spec=spec)
        return learn_masks(model, pixels, labels, index, replace(spec, epochs=1), **options)

    monkeypatch.setattr(tasks, "learn_masks", record)
    inputs = [store.get(setup.dataset), store.get(setup.network("N"))]
    found = tasks.class_maps(setup).compute(inputs, None)
    others = candidates(setup, images.labels.numpy())[30:60]
    assert not set(others.tolist()) & set(attacked["image"].tolist())
    assert torch.equal(seen["pixels"], images.pixels(torch.from_numpy(others)))
    assert seen["labels"].tolist() == seen["index"].tolist() == images.labels[others].tolist()
    assert seen["spec"].batch == 30
    assert found.arrays["half"].shape == (5, 1, 16, 9)


def test_crossed_names_every_image_behind_every_class_map(setup, store, images, model, attacked):
    found = store.get(tasks.class_transfer(setup)).arrays
    halves = torch.from_numpy(store.get(tasks.class_maps(setup)).arrays["half"])
    clean = images.pixels(torch.from_numpy(attacked["image"]))
    for name, pixels in (("clean", clean), ("FAB", torch.from_numpy(attacked["pixels.FAB"]))):
        assert found[name].tolist() == predictions(model, pixels).tolist()
        assert found[f"filtered.{name}"].shape == (30, 5)
        filtered = predictions(model, apply_mask(pixels, halves[3, 0]))
        assert found[f"filtered.{name}"][:, 3].tolist() == filtered.tolist()
    assert found["label"].tolist() == attacked["label"].tolist()


# ---------------------------------------------------------------------------------------------------- how alike


def test_large_maps_are_pooled_to_blocks_and_small_ones_are_not():
    half = torch.zeros(12, 1, 64, 33)
    half[:6, 0, 3, 5] = 1  # rows 2 and 3, columns 4 and 5: one block right of DC's column
    half[6:, 0, -3, 0] = 1  # row -3, which is in the block of rows -4 and -3
    rows = prepared(half)
    assert rows.shape == (12, 32 * 16)
    first, second = rows[0].reshape(32, 16), rows[6].reshape(32, 16)
    assert np.argwhere(first > 0.1).tolist() == [[16 + 1, 2]]
    assert np.argwhere(second > 0.1).tolist() == [[16 - 2, 0]]
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(12))
    small_half = torch.rand(12, 2, 16, 9, generator=torch.Generator().manual_seed(0))
    small_rows = np.fft.fftshift(full_plane(small_half, 16).numpy(), axes=(2, 3))[..., 8:].reshape(12, -1)
    assert prepared(small_half) == pytest.approx(directed(standardised(small_rows)))


def normal(seed, count, width):
    return directed(standardised(np.random.default_rng(seed).normal(size=(count, width))))


def test_a_set_is_like_itself_and_no_shuffling_is():
    vectors, groups = normal(0, 24, 6), np.arange(24) % 3
    found = compare(vectors, vectors, groups, seed=0)
    assert found["cosine"] == pytest.approx(1)
    assert found["distance"] == pytest.approx(1)
    assert found["svcca"] == pytest.approx(1)
    for way in ("all", "class"):
        assert found[f"p.{way}"] == pytest.approx(1 / (1 + SHUFFLES))
        for measure in ("cosine", "distance", "dimension"):
            assert found[f"{measure}.{way}"].shape == (SHUFFLES,)
            assert found[f"{measure}.{way}"].max() < found[measure]


def test_what_classes_have_in_common_is_not_undone_by_shuffling_within_them():
    groups = np.arange(30) % 3
    means = 3 * np.random.default_rng(1).normal(size=(3, 8))
    first, second = (directed(standardised(normal(seed, 30, 8) + means[groups])) for seed in (2, 3))
    found = compare(first, second, groups, seed=0)
    assert found["cosine"] > found["cosine.all"].max() + 0.3
    assert found["cosine.class"].min() < found["cosine"] < found["cosine.class"].max()
    assert found["cosines"][:, 1].mean() > found["cosines"][:, 2].mean() + 0.5


def test_cosines_are_with_the_own_map_those_of_the_class_and_the_others():
    first = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    second = np.array([[0.6, 0.8], [0, 1], [0.8, 0.6], [1, 0]])
    found = tasks._cosines(first, second, np.array([0, 0, 0, 1]))
    assert found[:3].tolist() == [[0.6, 0.4, 1.0], [1.0, pytest.approx(0.7), 0.0], [0.8, 0.3, 1.0]]
    assert found[3, [0, 2]].tolist() == [0, pytest.approx(2.4 / 3)]
    assert np.isnan(found[3, 1])


def test_every_attack_is_compared_for_both_networks_and_attacks_among_themselves():
    pairs = [(title(one), title(other)) for one, other in comparisons()]
    assert len(pairs) == len(set(pairs)) == 13
    assert {("N essential", "N FAB"), ("A essential", "A PGD"), ("A PGD", "A DeepFool")} <= set(pairs)
    assert pairs[-1] == ("N essential", "A essential")


def made(count, seed, image=None, kept=None):
    """An artifact of maps at 16 px, each of them another."""
    half = np.random.default_rng(seed).random((count, 1, 16, 9)).astype(np.float32)
    arrays = {"image": np.arange(count) if image is None else image, "half": half, "target": np.arange(count) % 5}
    arrays["kept"] = np.ones(count, bool) if kept is None else kept
    arrays |= {name: np.ones(count) for name in ("converged", "steps", "loss", "l1_share")}
    return Artifact(arrays)


@pytest.fixture
def several():
    """Maps of 20 images for each group; N's PGD maps are of images 4 to 23, in another order and but half are kept."""
    groups = {title((regime, kind)): made(20, n) for n, (regime, kind) in enumerate(map_groups())}
    groups["N PGD"] = made(20, 50, image=np.arange(4, 24)[::-1].copy(), kept=np.arange(20) % 2 == 0)
    return groups


def map_groups():
    return [(regime, kind) for regime in ("N", "A") for kind in KINDS]


def test_only_images_of_which_both_maps_are_kept_are_compared(setup, several):
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    ordered = several["N PGD"].arrays
    for name in ("image", "kept", "half"):  # as the tasks have them: in the order of the candidates
        ordered[name] = ordered[name][::-1]
    found = tasks.similarity(setup).compute([dataset, *several.values()], None).arrays
    both = found["N essential|N FAB|images"]
    assert both.tolist() == list(range(20))
    ours, theirs = (prepared(torch.from_numpy(several[group].arrays["half"])) for group in ("N essential", "N FAB"))
    assert found["N essential|N FAB|cosine"] == pytest.approx((ours * theirs).sum(1).mean())
    few = found["N essential|N PGD|images"]
    kept = set(ordered["image"][ordered["kept"]].tolist()) & set(range(20))
    assert set(few.tolist()) == kept
    assert len(few) < tasks.LEAST
    assert "N essential|N PGD|cosine" not in found


def test_sets_without_different_maps_have_no_measures(setup, several):
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    several["A essential"].arrays["half"][:] = 0
    found = tasks.similarity(setup).compute([dataset, *several.values()], None).arrays
    assert len(found["A essential|A FAB|images"]) == 20
    assert "A essential|A FAB|cosine" not in found
    assert "A DeepFool|A FAB|cosine" in found


# ------------------------------------------------------------------------------------------------ what is published


def test_mean_maps_are_of_those_that_are_kept(several):
    several["A PGD"].arrays["kept"][:] = False
    found = experiment._means(several)
    one = several["N PGD"].arrays
    full = full_plane(torch.from_numpy(one["half"][one["kept"]]), 16)
    assert found["mean.N PGD"] == pytest.approx(full.mean((0, 1)).numpy(), rel=1e-5)
    assert found["radial.N PGD"] == pytest.approx(radial_energy(full).mean((0, 1)).numpy(), rel=1e-5)
    assert found["mean.A PGD"].shape == (16, 16)
    assert not found["mean.A PGD"].any()
    assert not found["radial.A PGD"].any()


def test_the_example_of_a_class_is_the_first_of_which_all_maps_are_kept(setup, several):
    labels = np.arange(100) % 5
    pixels = np.random.default_rng(0).integers(0, 256, (100, 1, 16, 16), dtype=np.uint8)
    dataset = Artifact({"validation_labels": labels, "validation_images": pixels}, facts={"classes": list("abcde")})
    found = experiment._examples(setup, dataset, several)
    one = several["N PGD"].arrays
    common = sorted(set(one["image"][one["kept"]].tolist()) & set(range(20)))
    expected = [min((n for n in common if n % 5 == label), default=-1) for label in range(5)]
    assert found["example"].tolist() == expected
    label = next(n for n in range(5) if expected[n] >= 0)
    image = expected[label]
    assert found["x"][label] == pytest.approx(pixels[image, 0] / 255, abs=1e-3)
    half = one["half"][one["image"].tolist().index(image)]
    assert found["PGD"][label] == pytest.approx(full_plane(torch.from_numpy(half), 16)[0].numpy(), abs=1e-3)
    several["N FAB"].arrays["kept"] = labels[:20] != label
    found = experiment._examples(setup, dataset, several)
    assert found["example"][label] == -1
    assert np.isnan(found["x"][label]).all()
    assert np.isnan(found["essential"][label]).all()


def test_a_map_is_described_by_network_kind_and_image():
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    one = made(4, 0, image=np.array([7, 8, 9, 10]))
    rows = experiment._described("A FAB", one, dataset)
    assert [(row["network"], row["kind"], row["image"], row["label"]) for row in rows] == [
        ("A", "FAB", 7, 2), ("A", "FAB", 8, 3), ("A", "FAB", 9, 4), ("A", "FAB", 10, 0)
    ]  # fmt: skip
    shares = low_share(full_plane(torch.from_numpy(one.arrays["half"]), 16))[:, 0]
    assert [row["low_share"] for row in rows] == pytest.approx(shares.tolist())


def test_too_few_images_for_any_comparison_are_said_so():
    with pytest.raises(FmlibError, match="10 images in common"):
        experiment._similarity_rows({"N essential|N FAB|images": np.arange(3)})


def test_likenesses_hold_the_shuffled_mean_spread_and_p():
    shuffled = np.arange(100) / 100
    arrays = {"images": np.arange(7), "p.all": np.array(0.2), "p.class": np.array(0.3)}
    for measure in experiment.MEASURES:
        arrays |= {measure: np.array(0.95), f"{measure}.all": shuffled, f"{measure}.class": shuffled + 1}
    rows = pd.DataFrame(
        experiment._similarity_rows({f"N essential|N FAB|{name}": array for name, array in arrays.items()})
    )
    assert set(rows["first"]) == {"N essential"}
    assert set(rows["second"]) == {"N FAB"}
    assert set(rows["images"]) == {7}
    among = rows[rows["shuffled"] == "all"].set_index("measure")
    within = rows[rows["shuffled"] == "class"].set_index("measure")
    assert among["mean"].tolist() == pytest.approx([0.495] * 4)
    assert among["sd"].tolist() == pytest.approx([shuffled.std(ddof=1)] * 4)
    assert among.loc["cosine", ["low", "high"]].tolist() == pytest.approx([0.02475, 0.96525])
    assert among["p"].to_dict() == pytest.approx(
        {"dimension": 0.2, "distance": 6 / 101, "svcca": 6 / 101, "cosine": 6 / 101}
    )
    assert within["p"].to_dict() == pytest.approx({"dimension": 0.3, "distance": 1, "svcca": 1, "cosine": 1})


def test_the_recipe_publishes_what_the_chapter_reads(setup, store):
    (experiment,) = experiment.RECIPES
    for task in experiment.tasks(setup):
        store.get(task)
    files = experiment.export(setup, store)
    assert set(files) == {
        "frequency_maps.csv", "frequency_maps.npz", "map_similarity.csv", "map_cosines.npz", "class_transfer.npz",
        "image_transfer.npz",
    }  # fmt: skip
    table = pd.read_csv(io.BytesIO(files["frequency_maps.csv"]))
    assert set(table["kind"]) <= set(KINDS)
    assert set(table["network"]) == {"N", "A"}
    with np.load(io.BytesIO(files["frequency_maps.npz"])) as arrays:
        assert not any("pixels" in name for name in arrays)
        assert arrays["prediction.FAB.A"].shape == (30,)
