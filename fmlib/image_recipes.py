"""The recipes of image masks, what is measured with them, and the second architecture: jobs and published files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib import image_measures as measures
from fmlib.image_lab import KINDS, again, all_masks, class_masks, eligible, joined, pairs
from fmlib.lab import Lab
from fmlib.recipe import Recipe, csv
from fmlib.spectra import apply_mask, complement, correlation, full_plane, low_share
from fmlib.store import Artifact, Job, Store, arrays_to_bytes

#: Images of each class that figures 5 and 6 draw.
SHOWN = 4


def _image_jobs(lab: Lab) -> list[Job]:
    masks = [job for kind in KINDS for job in all_masks(lab, kind)]
    return [pairs(lab), *masks, *again(lab), class_masks(lab)]


def _image_files(lab: Lab, store: Store) -> dict[str, bytes]:
    files, learned = files_of_image_masks(lab, store, KINDS)
    per_class, second = store.get(class_masks(lab)), joined([store.get(job) for job in again(lab)])
    return files | {
        "image_stability.csv": csv(_stability(learned["N.x"], second, lab)),
        "class_masks.npz": arrays_to_bytes({"half": per_class.arrays["half"]}),
    }


def files_of_image_masks(
    lab: Lab, store: Store, kinds: Iterable[str]
) -> tuple[dict[str, bytes], dict[str, dict[str, np.ndarray]]]:
    """The files of image masks of these kinds, "N.x" among them, and of their images; and what was learned."""
    learned = {kind: joined([store.get(job) for job in all_masks(lab, kind)]) for kind in kinds}
    dataset, paired = store.get(lab.dataset), store.get(pairs(lab))
    labels = dataset.arrays["validation_labels"]
    first = learned["N.x"]
    planes = {kind: _half_precision(one["half"]) for kind, one in learned.items()}
    outcome = {name: array for name, array in paired.arrays.items() if name != "xA"}
    files = {
        "image_masks.npz": arrays_to_bytes(planes | {"image": first["image"], "label": labels[first["image"]]}),
        "image_masks.csv": csv([row for kind, one in learned.items() for row in _described(kind, one)]),
        "pairs.npz": arrays_to_bytes(outcome | {"labels": labels, "eligible": eligible(paired, labels)}),
        "samples.npz": arrays_to_bytes(_samples(lab, dataset, paired, learned)),
    }
    return files, learned


def _half_precision(half: np.ndarray) -> np.ndarray:
    """Masks as float16, every entry that is not nought kept so."""
    least = np.float16(6e-8)  # the smallest float16 above nought
    return np.where(half > 0, np.maximum(half.astype(np.float16), least), np.float16(0))


def _described(kind: str, learned: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each mask: how its fit ended and what it looks like."""
    half = torch.from_numpy(learned["half"])
    full = full_plane(half, 2 * (half.shape[-1] - 1))
    columns = {name: learned[name] for name in ("image", "target", "steps", "converged", "kept", "guarded")}
    columns |= {name: learned[name] for name in ("invariance", "l1_share", "objective")}
    columns |= {"nonzero_share": (full >= 1e-8).float().mean((1, 2)).numpy(), "low_share": low_share(full).numpy()}
    return [{"kind": kind} | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _stability(first: dict[str, np.ndarray], second: dict[str, np.ndarray], lab: Lab) -> list[dict[str, Any]]:
    """For each image with masks of two networks N: how alike they are, and how alike masks of different images are.

    `same_class` and `other_class` correlate its mask of the first network with the second network's mask of the next
    image (around the circle) of its own and of another class; nan if there is none.
    """
    width = lab.profile.data.size
    ours = full_plane(torch.from_numpy(first["half"][np.isin(first["image"], second["image"])]), width)
    theirs, target = full_plane(torch.from_numpy(second["half"]), width), first["target"]
    target = target[np.isin(first["image"], second["image"])]

    def next_one(number: int, same: bool) -> Tensor | None:
        turned = np.roll(np.arange(len(target)), -number - 1)[:-1]
        found = turned[(target[turned] == target[number]) == same]
        return theirs[found[0]] if len(found) else None

    rows = []
    for number in range(len(target)):
        row: dict[str, Any] = {"image": second["image"][number]}
        for name, other in (
            ("same_image", theirs[number]),
            ("same_class", next_one(number, True)),
            ("other_class", next_one(number, False)),
        ):
            row[name] = float("nan") if other is None else float(correlation(ours[number], other))
        rows.append(row)
    return rows


def _samples(
    lab: Lab, dataset: Artifact, paired: Artifact, learned: dict[str, dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The first images of each class that have masks, with what figures 5 and 6 show: all (classes, SHOWN, H, W).

    And "classes", their names. Classes of which none is eligible are nan, and drawn blank.
    """
    first = learned["N.x"]
    names = [str(name) for name in dataset.facts["classes"]]
    members = [np.flatnonzero(first["target"] == label) for label in range(len(names))]
    places = np.stack([np.resize(found, SHOWN) for found in members])
    index = first["image"][places.ravel()]
    pixels = torch.from_numpy(dataset.arrays["validation_images"][index]).float().mean(1, keepdim=True) / 255
    attacked = torch.from_numpy(paired.arrays["xA"][index]).mean(1, keepdim=True)
    half = torch.from_numpy(first["half"][places.ravel()])
    rest, centre, width = complement(half), lab.profile.network.mean, lab.profile.data.size
    shown = {
        "x": pixels,
        "xA": attacked,
        "masked": apply_mask(pixels, half, centre),
        "masked_adversarial": apply_mask(attacked, half, centre),
        "complement_image": apply_mask(pixels, rest, centre),
        "mask": full_plane(half, width)[:, None],
        "complement": full_plane(rest, width)[:, None],
    }
    absent = torch.tensor([len(found) == 0 for found in members])
    filled = {name: value.reshape(len(names), SHOWN, width, width) for name, value in shown.items()}
    blank = {name: value.masked_fill(absent[:, None, None, None], torch.nan) for name, value in filled.items()}
    return {"classes": np.array(names)} | {name: value.numpy().astype(np.float16) for name, value in blank.items()}


def _table_jobs(lab: Lab) -> list[Job]:
    return [make(lab) for make in (measures.tables, measures.necessity, measures.attacks, measures.adaptive)]


def _table_files(lab: Lab, store: Store) -> dict[str, bytes]:
    return {f"{job.kind}.npz": arrays_to_bytes(store.get(job).arrays) for job in _table_jobs(lab)}


def _separability_jobs(lab: Lab) -> list[Job]:
    return [measures.separability_of_classes(lab)]


def _separability_files(lab: Lab, store: Store) -> dict[str, bytes]:
    return {"separability.npz": arrays_to_bytes(store.get(measures.separability_of_classes(lab)).arrays)}


def architecture_jobs(lab: Lab) -> list[Job]:
    """N and A of the second architecture, their masks, and what they classify."""
    return [lab.second.evaluation(regime) for regime in lab.plain_and_adversarial]


def files_of_architectures(lab: Lab, store: Store) -> dict[str, bytes]:
    """The file of the second architecture's N and A."""
    first = [(regime, 0) for regime in lab.plain_and_adversarial]
    return {"second_architecture.npz": second_architecture(lab, store, first)}


def second_architecture(lab: Lab, store: Store, networks: Iterable[tuple[str, int]]) -> bytes:
    """Arrays of networks (regime, repetition) of the second architecture: their masks, and what they classify.

    Each is called by its regime, with the repetition behind it where that is not the first: "N", "N1".
    """
    arrays = {}
    for regime, number in networks:
        name = f"{regime}{number or ''}"
        half = torch.from_numpy(store.get(lab.second.mask(regime, number)).arrays["half"])
        arrays[f"mask.{name}"] = full_plane(half, lab.profile.data.size).numpy()
        hits = store.get(lab.second.evaluation(regime, number)).arrays
        arrays |= {f"{what}.{name}": found for what, found in hits.items()}
    return arrays_to_bytes(arrays)


RECIPES = (
    Recipe("image-masks", "a mask of each image and of each class (F5, F6)", _image_jobs, _image_files),
    Recipe("tables", "image masks and attacks (T2, F7), controls", _table_jobs, _table_files),
    Recipe("separability", "linear separability of the classes (T3, F8)", _separability_jobs, _separability_files),
    Recipe("architectures", "another architecture beside the VGG", architecture_jobs, files_of_architectures),
)
