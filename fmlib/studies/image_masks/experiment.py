"""One mask per image and per class (Figs. 5 and 6), and a mask's frequencies against random controls."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core import controls
from fmlib.core.config import MinimalMaskSpec
from fmlib.core.device import generator
from fmlib.core.evaluation import predictions
from fmlib.core.spectra import apply_mask, complement, correlation, full_plane, low_share
from fmlib.pipeline.experiment import Experiment, put_published
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import (
    all_masks,
    candidates,
    chunks,
    class_masks,
    eligible,
    image_masks,
    join_chunks,
    kinds,
    open_masks,
    pairs,
    second_seed_masks,
    window,
    with_minimal_masks,
)

#: Images per class in figures 5 and 6.
SHOWN = 4

#: Shares of a mask's own frequencies that are kept or removed, strongest first.
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def random_control(sets: Tensor, rng: torch.Generator) -> Tensor:
    """Random sets of the same sizes, anywhere in the half plane: (B, H, W // 2 + 1) bool -> the same shape."""
    flat = sets.flatten(1)
    scores = torch.rand(flat.shape, generator=rng, device=flat.device, dtype=torch.float64)
    return (scores.argsort(1).argsort(1) < flat.sum(1, keepdim=True)).view_as(sets)


#: Set of frequencies -> its name in the seed of its random draws, and how it is chosen: the mask's own frequencies, or
#: equally many random ones, anywhere or matched by radius.
SETS = {
    "own": ("own", lambda sets, rng: sets),
    "random": ("scattered", random_control),
    "matched": ("matched", controls.matched_control),
}


def _mask_tasks(setup: Setup) -> list[Task]:
    masks = [task for kind in kinds(setup) for task in all_masks(setup, kind)]
    return [pairs(setup), *masks, *second_seed_masks(setup)]


def _mask_files(setup: Setup, store: Store) -> dict[str, bytes]:
    """Masks of every kind and their similarity between networks, by the solver of the setup's profile."""
    masks = {kind: join_chunks([store.get(task) for task in all_masks(setup, kind)]) for kind in kinds(setup)}
    second_seed = [store.get(task) for task in second_seed_masks(setup)]
    labels, image = store.get(setup.dataset).arrays["validation_labels"], masks["N.x"]["image"]
    planes = {kind: arrays["half"] for kind, arrays in masks.items()}
    files = {
        "image_masks.npz": arrays_to_bytes(planes | {"image": image, "label": labels[image]}),
        "image_masks.csv": csv([row for kind, arrays in masks.items() for row in _mask_rows(kind, arrays)]),
    }
    if second_seed:
        files["image_stability.csv"] = csv(_stability(masks["N.x"], join_chunks(second_seed), setup))
    return files


def _image_tasks(setup: Setup) -> list[Task]:
    return [*_mask_tasks(setup), class_masks(setup)]


def _image_files(setup: Setup, store: Store) -> dict[str, bytes]:
    dataset, paired = store.get(setup.dataset), store.get(pairs(setup))
    masks = join_chunks([store.get(task) for task in all_masks(setup, "N.x")])
    labels = dataset.arrays["validation_labels"]
    predicted = {name: array for name, array in paired.arrays.items() if name != "xA"}
    return _mask_files(setup, store) | {
        "pairs.npz": arrays_to_bytes(predicted | {"labels": labels, "eligible": eligible(paired, labels)}),
        "samples.npz": arrays_to_bytes(_samples(setup, dataset, paired, masks)),
        "class_masks.npz": arrays_to_bytes({"half": store.get(class_masks(setup)).arrays["half"]}),
    }


def _restore_masks(setup: Setup, store: Store, results: Results) -> list[str]:
    """The published masks of the solver of the setup's profile, in chunks; not those of a second seed's network."""
    minimal = isinstance(setup.profile.image_mask, MinimalMaskSpec)
    record, prefix = ("minimal-image-masks", "minimal_") if minimal else ("image-masks", "")
    published = results.manifest["experiments"].get(record, {"tasks": []})["tasks"]
    if not any(task.key in published for kind in kinds(setup) for task in all_masks(setup, kind)):
        return []
    store.try_compute(setup.dataset)
    considered = candidates(setup, store.get(setup.dataset).arrays["validation_labels"])
    names = []
    for kind, chunk in itertools.product(kinds(setup), chunks(setup)):
        first, last = window(setup, chunk)
        read = partial(_published_masks, results, prefix, kind, considered[first:last])
        names += put_published(store, record, results, image_masks(setup, kind, chunk), read)
    return names


def _published_masks(results: Results, prefix: str, kind: str, considered: np.ndarray) -> Artifact:
    """The artifact of `image_masks` for these images."""
    masks = results.arrays(f"{prefix}image_masks")
    chosen = np.isin(masks["image"], considered)
    rows = results.table(f"{prefix}image_masks").query("kind == @kind")[chosen]
    arrays = {"image": masks["image"][chosen], "half": masks[kind][chosen]}
    if chosen.any():
        columns = ("converged", "steps", "target", "clipped", "invariance", "l1_share", "objective", "kept")
        arrays |= {name: rows[name].to_numpy() for name in columns}
    return Artifact(arrays)


def _mask_rows(kind: str, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row per mask: how its fit ended, and its shape."""
    half = torch.from_numpy(arrays["half"])
    full = full_plane(half, 2 * (half.shape[-1] - 1))
    columns = {name: arrays[name] for name in ("image", "target", "steps", "converged", "kept", "clipped")}
    columns |= {name: arrays[name] for name in ("invariance", "l1_share", "objective")}
    columns |= {"nonzero_share": (full >= 1e-8).float().mean((1, 2)).numpy(), "low_share": low_share(full).numpy()}
    return [{"kind": kind} | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _stability(first: dict[str, np.ndarray], second: dict[str, np.ndarray], setup: Setup) -> list[dict[str, Any]]:
    """One row per image with masks of two networks N: the correlation of both, and those of different images' masks.

    `same_class` and `other_class` correlate the first network's mask of the image with the second network's mask of the
    next image, cyclically, of its own and of another class; nan if there is none.
    """
    width = setup.profile.data.size
    shared = np.isin(first["image"], second["image"])
    ours, target = full_plane(torch.from_numpy(first["half"][shared]), width), first["target"][shared]
    theirs = full_plane(torch.from_numpy(second["half"]), width)

    def next_mask(index: int, same_class: bool) -> Tensor | None:
        following = np.roll(np.arange(len(target)), -index - 1)[:-1]
        following = following[(target[following] == target[index]) == same_class]
        return theirs[following[0]] if len(following) else None

    rows = []
    for index, image in enumerate(second["image"]):
        row: dict[str, Any] = {"image": image}
        for name, other in (
            ("same_image", theirs[index]),
            ("same_class", next_mask(index, True)),
            ("other_class", next_mask(index, False)),
        ):
            row[name] = float("nan") if other is None else float(correlation(ours[index], other))
        rows.append(row)
    return rows


def _samples(setup: Setup, dataset: Artifact, paired: Artifact, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first images of each class that have masks, as figures 5 and 6 show them: planes (classes, SHOWN, H, W).

    `classes` holds the names. Classes without an eligible image are nan, and drawn blank.
    """
    names = [str(name) for name in dataset.facts["classes"]]
    members = [np.flatnonzero(masks["target"] == label) for label in range(len(names))]
    places = np.stack([np.resize(of_class, SHOWN) for of_class in members])
    index = masks["image"][places.ravel()]
    pixels = torch.from_numpy(dataset.arrays["validation_images"][index]).float().mean(1, keepdim=True) / 255
    attacked = torch.from_numpy(paired.arrays["xA"][index]).mean(1, keepdim=True)
    half = torch.from_numpy(masks["half"][places.ravel()])
    rest, centre, width = complement(half), setup.profile.network.mean, setup.profile.data.size
    shown = {
        "x": pixels,
        "xA": attacked,
        "masked": apply_mask(pixels, half, centre),
        "masked_adversarial": apply_mask(attacked, half, centre),
        "complement_image": apply_mask(pixels, rest, centre),
        "mask": full_plane(half, width)[:, None],
        "complement": full_plane(rest, width)[:, None],
    }
    absent = torch.tensor([len(of_class) == 0 for of_class in members])
    filled = {name: value.reshape(len(names), SHOWN, width, width) for name, value in shown.items()}
    blank = {name: value.masked_fill(absent[:, None, None, None], torch.nan) for name, value in filled.items()}
    return {"classes": np.array(names)} | {name: value.numpy().astype(np.float16) for name, value in blank.items()}


def necessity(setup: Setup) -> Task:
    """Whether N keeps its prediction when only a mask's strongest frequencies, or a control, are kept or removed.

    Arrays `keep.<set>` and `remove.<set>`, sets as in `SETS`: (fractions, K) bool for K masks.
    """
    centre = setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, *parts = inputs
        _, pixels, half, targets = open_masks(setup, dataset, parts)
        model = setup.open_network(network)
        kept: dict[str, list[np.ndarray]] = {f"{way}.{name}": [] for way in ("keep", "remove") for name in SETS}
        for fraction in FRACTIONS:
            own = controls.top_k(half, fraction)
            for name, (purpose, choose) in SETS.items():
                rng = generator(setup.seed, f"necessity {purpose} {fraction}", setup.device)
                sets = choose(own, rng).float()
                for way, mask in (("keep", sets), ("remove", 1 - sets)):
                    same = predictions(model, apply_mask(pixels, mask, centre)) == targets
                    kept[f"{way}.{name}"].append(same.cpu().numpy())
        return Artifact({name: np.stack(rows) for name, rows in kept.items()})

    inputs = (setup.dataset, setup.network("N"), *all_masks(setup, "N.x"))
    described = {"fractions": FRACTIONS, "seed": setup.seed}
    return Task("necessity", f"frequencies kept or removed ({setup.profile.name})", described, compute, inputs)


def _necessity_tasks(setup: Setup) -> list[Task]:
    return [necessity(setup)]


def _necessity_files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {"necessity.npz": arrays_to_bytes(store.get(necessity(setup)).arrays)}


EXPERIMENTS = (
    Experiment(
        "image-masks",
        "one mask per image and per class (Figs. 5 and 6)",
        _image_tasks,
        _image_files,
        images=lambda setup: setup.profile.n_image_masks or setup.counts["validation"],
        precision="float32",
        restore=_restore_masks,
    ),
    Experiment("necessity", "a mask's frequencies against matched controls", _necessity_tasks, _necessity_files),
    with_minimal_masks(
        Experiment(
            "image-masks",
            "one mask per image (Fig. 5)",
            lambda setup: [*_mask_tasks(setup), necessity(setup)],
            lambda setup, store: _mask_files(setup, store) | _necessity_files(setup, store),
            images=lambda setup: setup.profile.n_image_masks or setup.counts["validation"],
            precision="float32",
            restore=_restore_masks,
        )
    ),
)
