"""Tasks on frequency maps: which images are selected, what is recorded, and how maps are prepared and compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import predictions
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.masks import learn_masks
from fmlib.core.spectra import apply_mask, full_plane, radius
from fmlib.pipeline.store import Artifact
from fmlib.studies.frequency_maps import tasks
from fmlib.studies.frequency_maps.similarity import standardised, unit_rows
from fmlib.studies.frequency_maps.tasks import (
    ATTACKS,
    KINDS,
    SHUFFLES,
    compare,
    comparisons,
    prepare_maps,
    set_name,
)
from fmlib.studies.shared.tasks import candidates


@pytest.fixture(scope="module")
def model(map_setup, store):
    return map_setup.open_network(store.get(map_setup.network("N")))


@pytest.fixture(scope="module")
def images(map_setup, store):
    return map_setup.open_dataset(store.get(map_setup.dataset)).validation


@pytest.fixture(scope="module")
def attacked(map_setup, store):
    return store.get(tasks.attacked(map_setup, "N")).arrays


# ---------------------------------------------------------------------------------------------------- single images


def test_the_first_candidates_are_attacked_by_every_attack(map_setup, images, model, attacked):
    labels = images.labels.numpy()
    assert attacked["image"].tolist() == candidates(map_setup, labels)[:30].tolist()
    assert attacked["label"].tolist() == labels[attacked["image"]].tolist()
    clean = images.pixels(torch.from_numpy(attacked["image"]))
    assert attacked["prediction"].tolist() == predictions(model, clean).tolist()
    for family in ATTACKS:
        pixels = torch.from_numpy(attacked[f"pixels.{family}"])
        assert pixels.shape == clean.shape
        assert attacked[f"prediction.{family}"].tolist() == predictions(model, pixels).tolist()
        assert attacked[f"distance.{family}"] == pytest.approx((pixels - clean).abs().flatten(1).amax(1).numpy())
    assert attacked["distance.PGD"].max() <= map_setup.profile.train.attack.epsilon + 1e-6
    assert not np.allclose(attacked["pixels.PGD"], attacked["pixels.FAB"])


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_of_images_classified_correctly_and_misclassified_under_the_attack(
    map_setup, store, images, model, attacked, kind
):
    found = store.get(tasks.maps(map_setup, "N", kind)).arrays
    correct = attacked["prediction"] == attacked["label"]
    if kind == "essential":
        pixels = images.pixels(torch.from_numpy(attacked["image"]))
        targets = attacked["label"]
    else:
        pixels, targets = torch.from_numpy(attacked[f"pixels.{kind}"]), attacked[f"prediction.{kind}"]
        correct &= targets != attacked["label"]
    assert 0 < correct.sum() < 30
    assert found["image"].tolist() == attacked["image"][correct].tolist()
    assert found["target"].tolist() == targets[correct].tolist()
    half = torch.from_numpy(found["half"])
    assert half.shape == (correct.sum(), 1, 16, 9)
    filtered = predictions(model, apply_mask(pixels[correct], half)).numpy()  # around black
    assert found["kept"].tolist() == (filtered == found["target"]).tolist()
    assert found["l1_share"] == pytest.approx(full_plane(half, 16).mean((1, 2, 3)).numpy(), abs=1e-6)
    assert (found["steps"] <= 24).all()


def test_a_map_is_the_same_as_if_learned_for_its_image_alone(map_setup, store, images, model):
    found = store.get(tasks.maps(map_setup, "N", "essential")).arrays
    pixels = images.pixels(torch.from_numpy(found["image"][:1]))
    target = torch.from_numpy(found["target"][:1])
    spec = map_setup.profile.frequency_map
    options = {"seed": map_setup.seed, "objective": FrequencyMaps, "progress": False}
    alone = learn_masks(model, pixels, target, torch.tensor([0]), spec, **options)
    torch.testing.assert_close(torch.from_numpy(found["half"][:1]), alone.half, atol=2e-3, rtol=0)


def test_an_attack_that_fools_no_image_has_no_maps(map_setup, store, attacked):
    none = attacked | {"prediction.PGD": attacked["label"]}
    task = tasks.maps(map_setup, "N", "PGD")
    inputs = [store.get(map_setup.dataset), store.get(map_setup.network("N")), Artifact(none)]
    found = task.compute(inputs, None).arrays
    assert found["half"].shape == (0, 1, 16, 9)
    assert all(len(array) == 0 for array in found.values())


def test_maps_that_are_kept_are_applied_to_every_image(map_setup, store, images, model, attacked):
    learned = store.get(tasks.maps(map_setup, "N", "essential"))
    few = Artifact(learned.arrays | {"kept": np.arange(len(learned.arrays["image"])) % 2 == 1})
    inputs = [store.get(map_setup.dataset), store.get(map_setup.network("N")), Artifact(attacked), few]
    found = tasks.image_transfer(map_setup, "N").compute(inputs, None).arrays
    assert found["image"].tolist() == learned.arrays["image"][1::2].tolist()
    assert found["target"].tolist() == learned.arrays["target"][1::2].tolist()
    for name, other in (("label", "label"), ("number", "image"), ("clean", "prediction")):
        assert found[name].tolist() == attacked[other].tolist()
    pixels = images.pixels(torch.from_numpy(attacked["image"]))
    half = torch.from_numpy(learned.arrays["half"][3, 0])
    assert found["filtered"].shape == (len(found["image"]), 30)
    assert found["filtered"][1].tolist() == predictions(model, apply_mask(pixels, half)).tolist()


# --------------------------------------------------------------------------------------------------------- classes


def test_class_maps_are_learned_from_images_that_are_not_attacked(map_setup, store, images, attacked, monkeypatch):
    seen = {}

    def record(model, pixels, labels, index, spec, **options):
        seen.update(pixels=pixels, labels=labels, index=index, spec=spec)
        return learn_masks(model, pixels, labels, index, replace(spec, epochs=1), **options)

    monkeypatch.setattr(tasks, "learn_masks", record)
    inputs = [store.get(map_setup.dataset), store.get(map_setup.network("N"))]
    found = tasks.class_maps(map_setup).compute(inputs, None)
    others = candidates(map_setup, images.labels.numpy())[30:60]
    assert not set(others.tolist()) & set(attacked["image"].tolist())
    assert torch.equal(seen["pixels"], images.pixels(torch.from_numpy(others)))
    assert seen["labels"].tolist() == seen["index"].tolist() == images.labels[others].tolist()
    assert seen["spec"].batch == 30
    assert found.arrays["half"].shape == (5, 1, 16, 9)


def test_every_class_map_is_applied_to_every_image(map_setup, store, images, model, attacked):
    found = store.get(tasks.class_transfer(map_setup)).arrays
    halves = torch.from_numpy(store.get(tasks.class_maps(map_setup)).arrays["half"])
    clean = images.pixels(torch.from_numpy(attacked["image"]))
    for name, pixels in (("clean", clean), ("FAB", torch.from_numpy(attacked["pixels.FAB"]))):
        assert found[name].tolist() == predictions(model, pixels).tolist()
        assert found[f"filtered.{name}"].shape == (30, 5)
        filtered = predictions(model, apply_mask(pixels, halves[3, 0]))
        assert found[f"filtered.{name}"][:, 3].tolist() == filtered.tolist()
    assert found["label"].tolist() == attacked["label"].tolist()


# ---------------------------------------------------------------------------------------------------- similarity


def test_large_maps_are_pooled_and_small_ones_are_not():
    half = torch.zeros(12, 1, 64, 33)
    half[:6, 0, 3, 5] = 1  # rows 2 and 3, columns 4 and 5: one block to the right of DC's column
    half[6:, 0, -3, 0] = 1  # row -3, which is in the block of rows -4 and -3
    rows = prepare_maps(half)
    assert rows.shape == (12, 32 * 16)
    first, second = rows[0].reshape(32, 16), rows[6].reshape(32, 16)
    assert np.argwhere(first > 0.1).tolist() == [[16 + 1, 2]]
    assert np.argwhere(second > 0.1).tolist() == [[16 - 2, 0]]
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(12))
    small_half = torch.rand(12, 2, 16, 9, generator=torch.Generator().manual_seed(0))
    small_rows = np.fft.fftshift(full_plane(small_half, 16).numpy(), axes=(2, 3))[..., 8:].reshape(12, -1)
    assert prepare_maps(small_half) == pytest.approx(unit_rows(standardised(small_rows)))


def normal(seed, count, width):
    return unit_rows(standardised(np.random.default_rng(seed).normal(size=(count, width))))


def test_a_set_is_more_similar_to_itself_than_every_shuffled_pairing():
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


def test_shuffling_within_classes_keeps_the_similarity_due_to_classes():
    groups = np.arange(30) % 3
    means = 3 * np.random.default_rng(1).normal(size=(3, 8))
    first, second = (unit_rows(standardised(normal(seed, 30, 8) + means[groups])) for seed in (2, 3))
    found = compare(first, second, groups, seed=0)
    assert found["cosine"] > found["cosine.all"].max() + 0.3
    assert found["cosine.class"].min() < found["cosine"] < found["cosine.class"].max()
    assert found["cosines"][:, 1].mean() > found["cosines"][:, 2].mean() + 0.5


def test_cosines_are_with_the_own_map_with_its_class_and_with_other_classes():
    first = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    second = np.array([[0.6, 0.8], [0, 1], [0.8, 0.6], [1, 0]])
    found = tasks._cosines(first, second, np.array([0, 0, 0, 1]))
    assert found[:3].tolist() == [[0.6, 0.4, 1.0], [1.0, pytest.approx(0.7), 0.0], [0.8, 0.3, 1.0]]
    assert found[3, [0, 2]].tolist() == [0, pytest.approx(2.4 / 3)]
    assert np.isnan(found[3, 1])


def test_comparisons_are_of_every_attack_for_both_networks_and_of_attacks_with_one_another():
    pairs = [(set_name(one), set_name(other)) for one, other in comparisons()]
    assert len(pairs) == len(set(pairs)) == 13
    assert {("N essential", "N FAB"), ("A essential", "A PGD"), ("A PGD", "A DeepFool")} <= set(pairs)
    assert pairs[-1] == ("N essential", "A essential")


def test_only_images_whose_maps_are_both_kept_are_compared(map_setup, map_sets):
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    ordered = map_sets["N PGD"].arrays
    for name in ("image", "kept", "half"):  # the tasks keep the order of the candidates
        ordered[name] = ordered[name][::-1]
    found = tasks.similarity(map_setup).compute([dataset, *map_sets.values()], None).arrays
    both = found["N essential|N FAB|images"]
    assert both.tolist() == list(range(20))
    ours, theirs = (
        prepare_maps(torch.from_numpy(map_sets[group].arrays["half"])) for group in ("N essential", "N FAB")
    )
    assert found["N essential|N FAB|cosine"] == pytest.approx((ours * theirs).sum(1).mean())
    few = found["N essential|N PGD|images"]
    kept = set(ordered["image"][ordered["kept"]].tolist()) & set(range(20))
    assert set(few.tolist()) == kept
    assert len(few) < tasks.MIN_POINTS
    assert "N essential|N PGD|cosine" not in found


def test_sets_without_distinct_maps_have_no_measures(map_setup, map_sets):
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    map_sets["A essential"].arrays["half"][:] = 0
    found = tasks.similarity(map_setup).compute([dataset, *map_sets.values()], None).arrays
    assert len(found["A essential|A FAB|images"]) == 20
    assert "A essential|A FAB|cosine" not in found
    assert "A DeepFool|A FAB|cosine" in found


# -------------------------------------------------------------------------------------------------- pooling


def random_plane(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
def test_each_pooled_entry_is_the_largest_of_its_block_of_the_centred_plane(rows, columns, factor, seed):
    full = random_plane(seed, 2, 3, rows * factor, columns * factor)
    found, centred = tasks.pooled(full, factor), torch.fft.fftshift(full, dim=(-2, -1))
    assert found.shape == (2, 3, rows, columns)
    for row in range(rows):
        for column in range(columns):
            block = centred[..., row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            assert torch.equal(found[..., row, column], block.amax((-2, -1)))


def test_pooled_planes_have_dc_and_its_neighbours_in_the_middle():
    """In the unshifted plane the lowest frequencies are in the four corners; in the shifted one they share a block."""
    full = (radius(12, 12) <= 1).to(torch.float64)
    assert tasks.pooled(full, 4).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert tasks.pooled(full, 1).tolist() == torch.fft.fftshift(full).tolist()


def test_at_the_authors_size_the_blocks_equal_those_of_the_unshifted_plane():
    full = random_plane(0, 224, 224)
    unshifted = torch.nn.functional.max_pool2d(full[None], 7)[0]
    assert torch.equal(tasks.pooled(full, 7), torch.fft.fftshift(unshifted))


@pytest.mark.parametrize("factor", [0, 3, 16])
def test_blocks_that_do_not_tile_the_plane_are_refused(factor):
    with pytest.raises(FmlibError, match=f"blocks of {factor} do not tile a mask of 8 x 8"):
        tasks.pooled(torch.ones(8, 8), factor)
