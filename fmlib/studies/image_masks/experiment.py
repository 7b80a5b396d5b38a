"""The experiments on image masks: their tasks and published files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core import controls
from fmlib.core.device import generator
from fmlib.core.evaluation import predictions
from fmlib.core.spectra import apply_mask, complement, correlation, full_plane, low_share
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import KINDS, again, all_masks, class_masks, eligible, joined, open_masks, pairs

#: Images of each class that figures 5 and 6 draw.
SHOWN = 4


def _image_tasks(setup: Setup) -> list[Task]:
    masks = [task for kind in KINDS for task in all_masks(setup, kind)]
    return [pairs(setup), *masks, *again(setup), class_masks(setup)]


def _image_files(setup: Setup, store: Store) -> dict[str, bytes]:
    files, learned = files_of_image_masks(setup, store, KINDS)
    per_class, second = store.get(class_masks(setup)), joined([store.get(task) for task in again(setup)])
    return files | {
        "image_stability.csv": csv(_stability(learned["N.x"], second, setup)),
        "class_masks.npz": arrays_to_bytes({"half": per_class.arrays["half"]}),
    }


def files_of_image_masks(
    setup: Setup, store: Store, kinds: Iterable[str]
) -> tuple[dict[str, bytes], dict[str, dict[str, np.ndarray]]]:
    """The files of image masks of these kinds, "N.x" among them, and of their images; and what was learned."""
    learned = {kind: joined([store.get(task) for task in all_masks(setup, kind)]) for kind in kinds}
    dataset, paired = store.get(setup.dataset), store.get(pairs(setup))
    labels = dataset.arrays["validation_labels"]
    first = learned["N.x"]
    planes = {kind: _half_precision(one["half"]) for kind, one in learned.items()}
    outcome = {name: array for name, array in paired.arrays.items() if name != "xA"}
    files = {
        "image_masks.npz": arrays_to_bytes(planes | {"image": first["image"], "label": labels[first["image"]]}),
        "image_masks.csv": csv([row for kind, one in learned.items() for row in _described(kind, one)]),
        "pairs.npz": arrays_to_bytes(outcome | {"labels": labels, "eligible": eligible(paired, labels)}),
        "samples.npz": arrays_to_bytes(_samples(setup, dataset, paired, learned)),
    }
    return files, learned


def _half_precision(half: np.ndarray) -> np.ndarray:
    """Masks as float16, every entry that is non-zero kept so."""
    least = np.float16(6e-8)  # the smallest float16 above zero
    return np.where(half > 0, np.maximum(half.astype(np.float16), least), np.float16(0))


def _described(kind: str, learned: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each mask: how its fit ended and what it looks like."""
    half = torch.from_numpy(learned["half"])
    full = full_plane(half, 2 * (half.shape[-1] - 1))
    columns = {name: learned[name] for name in ("image", "target", "steps", "converged", "kept", "clipped")}
    columns |= {name: learned[name] for name in ("invariance", "l1_share", "objective")}
    columns |= {"nonzero_share": (full >= 1e-8).float().mean((1, 2)).numpy(), "low_share": low_share(full).numpy()}
    return [{"kind": kind} | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _stability(first: dict[str, np.ndarray], second: dict[str, np.ndarray], setup: Setup) -> list[dict[str, Any]]:
    """For each image with masks of two networks N: how alike they are, and how alike masks of different images are.

    `same_class` and `other_class` correlate its mask of the first network with the second network's mask of the next
    image (around the circle) of its own and of another class; nan if there is none.
    """
    width = setup.profile.data.size
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
    setup: Setup, dataset: Artifact, paired: Artifact, learned: dict[str, dict[str, np.ndarray]]
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
    absent = torch.tensor([len(found) == 0 for found in members])
    filled = {name: value.reshape(len(names), SHOWN, width, width) for name, value in shown.items()}
    blank = {name: value.masked_fill(absent[:, None, None, None], torch.nan) for name, value in filled.items()}
    return {"classes": np.array(names)} | {name: value.numpy().astype(np.float16) for name, value in blank.items()}


#: Shares of a mask's own frequencies that are kept or removed, the strongest first.
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

#: What stands for the mask's own frequencies as a control: anywhere, or as many at each radius.
SETS = {
    "own": ("own", lambda sets, rng: sets),
    "random": ("scattered", controls.random_control),
    "matched": ("matched", controls.matched_control),
}


def necessity(setup: Setup) -> Task:
    """Whether N keeps its class when the strongest of a mask's frequencies, or a control, are all that stays or goes.

    Arrays `keep.<set>` and `remove.<set>`, sets as in SETS: (fractions, K) bool.
    """
    centre = setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        _, pixels, half, targets = open_masks(setup, inputs[0], inputs[2:])
        model = setup.open_network(inputs[1])
        found: dict[str, list[np.ndarray]] = {f"{way}.{name}": [] for way in ("keep", "remove") for name in SETS}
        for fraction in FRACTIONS:
            own = controls.top_k(half, fraction)
            for name, (purpose, choose) in SETS.items():
                rng = generator(setup.seed, f"necessity {purpose} {fraction}", setup.device)
                sets = choose(own, rng).float()
                for way, mask in (("keep", sets), ("remove", 1 - sets)):
                    right = predictions(model, apply_mask(pixels, mask, centre)) == targets
                    found[f"{way}.{name}"].append(right.cpu().numpy())
        return Artifact({name: np.stack(rows) for name, rows in found.items()})

    inputs = (setup.dataset, setup.network("N"), *all_masks(setup, "N.x"))
    described = {"fractions": FRACTIONS, "seed": setup.seed}
    return Task("necessity", f"frequencies kept or removed ({setup.profile.name})", described, compute, inputs)


def _necessity_tasks(setup: Setup) -> list[Task]:
    return [necessity(setup)]


def _necessity_files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {"necessity.npz": arrays_to_bytes(store.get(necessity(setup)).arrays)}


EXPERIMENTS = (
    Experiment("image-masks", "one mask per image and per class (Figs. 5 and 6)", _image_tasks, _image_files),
    Experiment("necessity", "a mask's frequencies against matched controls", _necessity_tasks, _necessity_files),
)
