"""The experiment of frequency maps: its tasks, and the files it publishes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fmlib.core.errors import require
from fmlib.core.spectra import full_plane, low_share, radial_energy
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.frequency_maps.similarity import LEAST
from fmlib.studies.frequency_maps.tasks import (
    KINDS,
    REGIMES,
    attacked,
    class_maps,
    class_transfer,
    comparisons,
    image_transfer,
    maps,
    similarity,
    title,
)
from fmlib.studies.shared.setup import Setup

#: Measures of similarity, as map_lab.alike names them.
MEASURES = ("dimension", "distance", "svcca", "cosine")


def _tasks(setup: Setup) -> list[Task]:
    learned = [maps(setup, regime, kind) for regime in REGIMES for kind in KINDS]
    of_each = [task for regime in REGIMES for task in (attacked(setup, regime), image_transfer(setup, regime))]
    return [*of_each, *learned, class_maps(setup), class_transfer(setup), similarity(setup)]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    dataset, alike = store.get(setup.dataset), store.get(similarity(setup)).arrays
    learned = {title((regime, kind)): store.get(maps(setup, regime, kind)) for regime in REGIMES for kind in KINDS}
    outcome = {
        f"{what}.{regime}": array
        for regime in REGIMES
        for what, array in store.get(attacked(setup, regime)).arrays.items()
        if "pixels" not in what
    }
    per_class, names = store.get(class_maps(setup)), np.array([str(name) for name in dataset.facts["classes"]])
    crossing = {"half": per_class.arrays["half"].astype(np.float16), "classes": names}
    return {
        "frequency_maps.csv": csv([row for group, one in learned.items() for row in _described(group, one, dataset)]),
        "frequency_maps.npz": arrays_to_bytes(outcome | _means(learned) | _examples(setup, dataset, learned)),
        "map_similarity.csv": csv(_similarity_rows(alike)),
        "map_cosines.npz": arrays_to_bytes({name: array for name, array in alike.items() if "cosines" in name}),
        "image_transfer.npz": arrays_to_bytes(
            {
                f"{what}.{regime}": array.astype(np.uint8 if what == "filtered" else array.dtype)
                for regime in REGIMES
                for what, array in store.get(image_transfer(setup, regime)).arrays.items()
            }
        ),
        "class_transfer.npz": arrays_to_bytes(crossing | store.get(class_transfer(setup)).arrays),
    }


def _described(group: str, artifact: Artifact, dataset: Artifact) -> list[dict[str, Any]]:
    """A row for each map: how its fit ended and what it looks like; shares are means over channels."""
    arrays = artifact.arrays
    regime, kind = group.split()
    names = ("image", "target", "kept", "converged", "steps", "loss", "l1_share")
    columns = {name: arrays[name] for name in names}
    columns["low_share"] = low_share(_full(arrays["half"])).mean(1).numpy()
    columns["label"] = dataset.arrays["validation_labels"][arrays["image"]]
    start = {"network": regime, "kind": kind}
    return [start | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _full(half: np.ndarray) -> torch.Tensor:
    """Half planes as full ones."""
    return full_plane(torch.from_numpy(half), 2 * (half.shape[-1] - 1))


def _means(learned: dict[str, Artifact]) -> dict[str, np.ndarray]:
    """Of the maps of each group that keep their prediction: `mean.<group>` (H, W) and `radial.<group>` (64,) energy.

    Both are means over images and channels, 0 if there is no map; the radial energy is that of each map first.
    """
    found = {}
    for group, one in learned.items():
        full = _full(one.arrays["half"][one.arrays["kept"]])
        count = max(full.shape[0] * full.shape[1], 1)
        found[f"mean.{group}"] = (full.sum((0, 1)) / count).numpy()
        found[f"radial.{group}"] = (radial_energy(full).sum((0, 1)) / count).numpy()
    return found


def _examples(setup: Setup, dataset: Artifact, learned: dict[str, Artifact]) -> dict[str, np.ndarray]:
    """Of each class the first image of which N's maps of all kinds keep their prediction, and these maps.

    `example` (classes,) its number, -1 if there is none; `x` (classes, H, W); `<kind>` (classes, H, W), means over
    channels; nan, drawn blank, if there is none.
    """
    labels, size = dataset.arrays["validation_labels"], setup.profile.data.size
    arrays = {kind: learned[title(("N", kind))].arrays for kind in KINDS}
    common = set.intersection(*(set(one["image"][one["kept"]].tolist()) for one in arrays.values()))
    firsts = [
        min((image for image in common if labels[image] == label), default=-1)
        for label in range(len(dataset.facts["classes"]))
    ]
    blank = np.full((size, size), np.nan)

    def row(kind: str, image: int) -> np.ndarray:
        if image < 0:
            return blank
        if kind == "x":
            return dataset.arrays["validation_images"][image].mean(0) / 255
        place = int(np.flatnonzero(arrays[kind]["image"] == image)[0])
        return _full(arrays[kind]["half"][place]).mean(0).numpy()

    shown = {kind: np.stack([row(kind, image) for image in firsts]).astype(np.float16) for kind in ("x", *KINDS)}
    return shown | {"example": np.array(firsts)}


def _similarity_rows(alike: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each comparison, measure and way of shuffling; those of too few images have none.

    `value` of the pairs as they are; `mean`, `sd`, `low` and `high` (95% of them) of the shuffled pairings; `p`, the
    share of pairings, the given one among them, that are as much alike.
    """
    rows = []
    for first, second in comparisons():
        prefix = f"{title(first)}|{title(second)}|"
        for measure in MEASURES if f"{prefix}cosine" in alike else ():
            value = float(alike[prefix + measure])
            for way in ("all", "class"):
                shuffled = alike[f"{prefix}{measure}.{way}"]
                low, high = np.quantile(shuffled, (0.025, 0.975)).tolist()
                p = (1 + int((shuffled >= value).sum())) / (1 + len(shuffled))
                rows.append(
                    {
                        "first": title(first),
                        "second": title(second),
                        "images": len(alike[f"{prefix}images"]),
                        "measure": measure,
                        "shuffled": way,
                        "value": value,
                        "mean": float(shuffled.mean()),
                        "sd": float(shuffled.std(ddof=1)),
                        "low": low,
                        "high": high,
                        "p": float(alike[f"{prefix}p.{way}"]) if measure == "dimension" else p,
                    }
                )
    require(bool(rows), f"no two kinds of maps have {LEAST} images in common: attack more, or take more images")
    return rows


EXPERIMENTS = (Experiment("frequency-maps", "essential and adversarial frequency maps", _tasks, _files),)
