"""The experiment of frequency maps: what its files describe, average and select."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import map_artifact

from fmlib.core.errors import FmlibError
from fmlib.core.spectra import full_plane, low_share, radial_energy
from fmlib.pipeline.store import Artifact
from fmlib.studies.frequency_maps import experiment
from fmlib.studies.frequency_maps.tasks import KINDS


def test_mean_maps_are_of_the_maps_that_are_kept(map_sets):
    map_sets["A PGD"].arrays["kept"][:] = False
    found = experiment._means(map_sets)
    one = map_sets["N PGD"].arrays
    full = full_plane(torch.from_numpy(one["half"][one["kept"]]), 16)
    assert found["mean.N PGD"] == pytest.approx(full.mean((0, 1)).numpy(), rel=1e-5)
    assert found["radial.N PGD"] == pytest.approx(radial_energy(full).mean((0, 1)).numpy(), rel=1e-5)
    assert found["mean.A PGD"].shape == (16, 16)
    assert not found["mean.A PGD"].any()
    assert not found["radial.A PGD"].any()


def test_the_example_of_a_class_is_the_first_whose_maps_are_all_kept(map_setup, map_sets):
    labels = np.arange(100) % 5
    pixels = np.random.default_rng(0).integers(0, 256, (100, 1, 16, 16), dtype=np.uint8)
    dataset = Artifact({"validation_labels": labels, "validation_images": pixels}, facts={"classes": list("abcde")})
    found = experiment._examples(map_setup, dataset, map_sets)
    one = map_sets["N PGD"].arrays
    common = sorted(set(one["image"][one["kept"]].tolist()) & set(range(20)))
    expected = [min((n for n in common if n % 5 == label), default=-1) for label in range(5)]
    assert found["example"].tolist() == expected
    label = next(n for n in range(5) if expected[n] >= 0)
    image = expected[label]
    assert found["x"][label] == pytest.approx(pixels[image, 0] / 255, abs=1e-3)
    half = one["half"][one["image"].tolist().index(image)]
    assert found["PGD"][label] == pytest.approx(full_plane(torch.from_numpy(half), 16)[0].numpy(), abs=1e-3)
    map_sets["N FAB"].arrays["kept"] = labels[:20] != label
    found = experiment._examples(map_setup, dataset, map_sets)
    assert found["example"][label] == -1
    assert np.isnan(found["x"][label]).all()
    assert np.isnan(found["essential"][label]).all()


def test_a_row_names_the_network_the_kind_and_the_image():
    dataset = Artifact({"validation_labels": np.arange(100) % 5})
    one = map_artifact(4, 0, image=np.array([7, 8, 9, 10]))
    rows = experiment._map_rows("A FAB", one, dataset)
    assert [(row["network"], row["kind"], row["image"], row["label"]) for row in rows] == [
        ("A", "FAB", 7, 2), ("A", "FAB", 8, 3), ("A", "FAB", 9, 4), ("A", "FAB", 10, 0)
    ]  # fmt: skip
    shares = low_share(full_plane(torch.from_numpy(one.arrays["half"]), 16))[:, 0]
    assert [row["low_share"] for row in rows] == pytest.approx(shares.tolist())


def test_too_few_images_for_any_comparison_raise():
    with pytest.raises(FmlibError, match="10 images in common"):
        experiment._similarity_rows({"N essential|N FAB|images": np.arange(3)})


def test_similarity_rows_have_the_shuffled_mean_deviation_range_and_p():
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


def test_the_experiment_publishes_the_files_that_the_chapter_reads(map_setup, store):
    (frequency_maps,) = experiment.EXPERIMENTS
    for task in frequency_maps.tasks(map_setup):
        store.get(task)
    files = frequency_maps.export(map_setup, store)
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
