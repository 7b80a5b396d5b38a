"""The experiment of frequency maps: its tasks, and the files it publishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fmlib.core.errors import require
from fmlib.core.spectra import full_plane, low_share, radial_energy
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.frequency_maps.similarity import MIN_POINTS
from fmlib.studies.frequency_maps.tasks import (
    KINDS,
    REGIMES,
    attacked,
    class_maps,
    class_transfer,
    comparisons,
    image_transfer,
    maps,
    set_name,
    similarity,
)
from fmlib.studies.shared.setup import Setup

#: Measures of similarity, as tasks.compare names them.
MEASURES = ("dimension", "distance", "svcca", "cosine")


def _tasks(setup: Setup) -> list[Task]:
    learned = [maps(setup, regime, kind) for regime in REGIMES for kind in KINDS]
    of_each = [task for regime in REGIMES for task in (attacked(setup, regime), image_transfer(setup, regime))]
    return [*of_each, *learned, class_maps(setup), class_transfer(setup), similarity(setup)]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    dataset, similarities = store.get(setup.dataset), store.get(similarity(setup)).arrays
    learned = {set_name((regime, kind)): store.get(maps(setup, regime, kind)) for regime in REGIMES for kind in KINDS}
    predicted = {
        f"{name}.{regime}": array
        for regime in REGIMES
        for name, array in store.get(attacked(setup, regime)).arrays.items()
        if "pixels" not in name
    }
    of_images = {
        f"{name}.{regime}": array.astype(np.uint8 if name == "filtered" else array.dtype)
        for regime in REGIMES
        for name, array in store.get(image_transfer(setup, regime)).arrays.items()
    }
    half, classes = store.get(class_maps(setup)).arrays["half"], [str(name) for name in dataset.facts["classes"]]
    of_classes = {"half": half.astype(np.float16), "classes": np.array(classes)}
    rows = [row for group, artifact in learned.items() for row in _map_rows(group, artifact, dataset)]
    return {
        "frequency_maps.csv": csv(rows),
        "frequency_maps.npz": arrays_to_bytes(predicted | _means(learned) | _examples(setup, dataset, learned)),
        "map_similarity.csv": csv(_similarity_rows(similarities)),
        "map_cosines.npz": arrays_to_bytes({name: array for name, array in similarities.items() if "cosines" in name}),
        "image_transfer.npz": arrays_to_bytes(of_images),
        "class_transfer.npz": arrays_to_bytes(of_classes | store.get(class_transfer(setup)).arrays),
    }


def _map_rows(group: str, artifact: Artifact, dataset: Artifact) -> list[dict[str, Any]]:
    """One row per map: how its fit ended and its shares, which are means over channels."""
    arrays = artifact.arrays
    regime, kind = group.split()
    names = ("image", "target", "kept", "converged", "steps", "loss", "l1_share")
    columns = {name: arrays[name] for name in names}
    columns["low_share"] = low_share(_full(arrays["half"])).mean(1).numpy()
    columns["label"] = dataset.arrays["validation_labels"][arrays["image"]]
    start = {"network": regime, "kind": kind}
    return [start | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _full(half: np.ndarray) -> torch.Tensor:
    """Full planes of half planes."""
    return full_plane(torch.from_numpy(half), 2 * (half.shape[-1] - 1))


def _means(learned: dict[str, Artifact]) -> dict[str, np.ndarray]:
    """`mean.<group>` (H, W) and `radial.<group>` (64,), the mean map and the mean radial energy of each group.

    Both are means over channels and the images whose map keeps its prediction, 0 if there are none. The radial energy
    is computed for each map and then averaged.
    """
    arrays = {}
    for group, artifact in learned.items():
        full = _full(artifact.arrays["half"][artifact.arrays["kept"]])
        count = max(full.shape[0] * full.shape[1], 1)
        arrays[f"mean.{group}"] = (full.sum((0, 1)) / count).numpy()
        arrays[f"radial.{group}"] = (radial_energy(full).sum((0, 1)) / count).numpy()
    return arrays


def _examples(setup: Setup, dataset: Artifact, learned: dict[str, Artifact]) -> dict[str, np.ndarray]:
    """One example per class: the first image for which N's maps of all kinds keep their prediction, and these maps.

    `example` (classes,), its index, -1 if there is none; `x` (classes, H, W) and `<kind>` (classes, H, W), means over
    channels, nan if there is none.
    """
    labels, size = dataset.arrays["validation_labels"], setup.profile.data.size
    arrays = {kind: learned[set_name(("N", kind))].arrays for kind in KINDS}
    common = set.intersection(*(set(found["image"][found["kept"]].tolist()) for found in arrays.values()))
    firsts = [
        min((image for image in common if labels[image] == label), default=-1)
        for label in range(len(dataset.facts["classes"]))
    ]
    blank = np.full((size, size), np.nan)

    def plane(kind: str, image: int) -> np.ndarray:
        if image < 0:
            return blank
        if kind == "x":
            return dataset.arrays["validation_images"][image].mean(0) / 255
        index = int(np.flatnonzero(arrays[kind]["image"] == image)[0])
        return _full(arrays[kind]["half"][index]).mean(0).numpy()

    planes = {kind: np.stack([plane(kind, image) for image in firsts]).astype(np.float16) for kind in ("x", *KINDS)}
    return planes | {"example": np.array(firsts)}


def _similarity_rows(similarities: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per comparison, measure and way of shuffling; comparisons with too few images have none.

    `value` is of the true pairing; `mean`, `sd`, `low` and `high` (the central 95%) of the shuffled ones; `p` is the
    share of pairings, the true one included, that are at least as similar.
    """
    rows = []
    for first, second in comparisons():
        prefix = f"{set_name(first)}|{set_name(second)}|"
        for measure in MEASURES if f"{prefix}cosine" in similarities else ():
            value = float(similarities[prefix + measure])
            for way in ("all", "class"):
                shuffled = similarities[f"{prefix}{measure}.{way}"]
                low, high = np.quantile(shuffled, (0.025, 0.975)).tolist()
                p = (1 + int((shuffled >= value).sum())) / (1 + len(shuffled))
                rows.append(
                    {
                        "first": set_name(first),
                        "second": set_name(second),
                        "images": len(similarities[f"{prefix}images"]),
                        "measure": measure,
                        "shuffled": way,
                        "value": value,
                        "mean": float(shuffled.mean()),
                        "sd": float(shuffled.std(ddof=1)),
                        "low": low,
                        "high": high,
                        "p": float(similarities[f"{prefix}p.{way}"]) if measure == "dimension" else p,
                    }
                )
    require(bool(rows), f"no two sets of maps have {MIN_POINTS} images in common: use a stronger attack or more images")
    return rows


EXPERIMENTS = (
    Experiment(
        "frequency-maps",
        "essential and adversarial frequency maps",
        _tasks,
        _files,
        images=lambda setup: setup.profile.n_maps,
    ),
)
