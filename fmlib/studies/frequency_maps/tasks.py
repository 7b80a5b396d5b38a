"""The tasks on frequency maps: attacked images, the maps of single images and of classes, and how alike maps are.

The maps are essential (of clean pixels, towards the label) or adversarial (of pixels attacked by one of ATTACKS,
towards the wrong class): see frequency_maps. Source: Basile, Karantzas et al. (2023), arXiv 2305.15203.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core.config import spec_dict
from fmlib.core.data import Split
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import attack_all, predictions
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.masks import learn_masks
from fmlib.core.spectra import apply_mask, full_plane, l1_share, pooled
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.frequency_maps.similarity import (
    LEAST,
    corrected_distance_correlation,
    dimension_correlation,
    directed,
    pairings,
    standardised,
    svcca,
)
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import candidates

#: The attacks whose frequencies are looked for: that of adversarial training, and two of least distance, l2 and
#: l-infinity.
ATTACKS = ("PGD", "DeepFool", "FAB")

#: Kinds of map of an image.
KINDS = ("essential", *ATTACKS)

#: Networks: plain, and adversarially trained.
REGIMES = ("N", "A")

#: Side of the plane of a map when maps are compared; larger ones are max-pooled to it, as the authors pool theirs.
SIDE = 32

#: Shuffled pairings that a similarity is set against.
SHUFFLES = 100

#: The gray level about which a map acts: black, as the authors have it.
CENTRE = 0.0


def attacked(setup: Setup, regime: str) -> Task:
    """The images considered, each attacked in every way of ATTACKS, and what the network makes of them.

    Arrays: `image` (K,) numbers of validation images, `label` (K,), `prediction` (K,) of the clean ones; for each
    attack `pixels.<attack>` (K, C, H, W), `prediction.<attack>` (K,), `distance.<attack>` (K,) l-infinity, pixel units.
    """
    spec, count = setup.profile.train.attack, setup.profile.n_maps

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        whole, model = setup.open_dataset(inputs[0]).validation, setup.open_network(inputs[1])
        chosen = candidates(setup, whole.labels.cpu().numpy())[:count]
        images = Split(whole.images[chosen], whole.labels[chosen])
        found = {"label": images.labels, "prediction": predictions(model, images.pixels())}
        for family in ATTACKS:
            moved = attack_all(model, images, spec, seed=setup.seed, purpose=f"map {family}", family=family)
            found[f"pixels.{family}"], found[f"prediction.{family}"] = moved, predictions(model, moved)
            found[f"distance.{family}"] = (moved - images.pixels()).abs().amax((1, 2, 3))
        return Artifact({"image": chosen} | {name: value.cpu().numpy() for name, value in found.items()})

    described = {"attacks": ATTACKS, "attack": spec_dict(spec), "images": count, "seed": setup.seed}
    name = f"images attacked for maps of {regime} ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network(regime))
    return Task("map_attacks", name, described, compute, inputs, cost=200.0 * count)


def maps(setup: Setup, regime: str, kind: str) -> Task:
    """The maps of one kind, in one batch, of the images that the network gets right and, for an attack, wrong after it.

    Arrays: `image` (K,), `target` (K,), `half` (K, C, H, W // 2 + 1), `l1_share` (K,), `loss` (K,) the cross-entropy
    behind the map, `kept` (K,) whether the prediction behind it is the target, `converged` (K,), `steps` (K,).
    """
    spec = setup.profile.frequency_map

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        paired, model = inputs[2].arrays, setup.open_network(inputs[1])
        chosen = paired["prediction"] == paired["label"]
        if kind == "essential":
            images = setup.open_dataset(inputs[0]).validation
            pixels = images.pixels(torch.from_numpy(paired["image"][chosen]).to(setup.device))
            targets = paired["label"][chosen]
        else:
            chosen &= paired[f"prediction.{kind}"] != paired["label"]
            pixels = torch.from_numpy(paired[f"pixels.{kind}"][chosen]).to(setup.device)
            targets = paired[f"prediction.{kind}"][chosen]
        found = {"image": paired["image"][chosen], "target": targets}
        size = (len(targets), setup.profile.network.channels, *setup.half_size)
        found["half"] = np.zeros(size, dtype=np.float32)
        for name, sort in (("l1_share", "f4"), ("loss", "f4"), ("kept", "?"), ("converged", "?"), ("steps", "i8")):
            found[name] = np.zeros(len(targets), dtype=sort)
        if len(targets):
            goals = torch.from_numpy(targets).to(setup.device)
            order = torch.arange(len(goals), device=setup.device)
            learned = learn_masks(
                model,
                pixels,
                goals,
                order,
                spec,
                seed=setup.seed,
                objective=FrequencyMaps,
                centre=CENTRE,
                checkpoint=checkpoint,
                progress=setup.progress,
            )
            found |= {"half": learned.half, "converged": learned.converged, "steps": learned.epochs}
            found["loss"] = learned.history["invariance"][-1]
            found["l1_share"] = l1_share(learned.half, pixels.shape[-1]).mean(1)
            found["kept"] = predictions(model, apply_mask(pixels, learned.half, CENTRE)) == goals
        return Artifact({name: torch.as_tensor(value).cpu().numpy() for name, value in found.items()})

    described = {"map": spec_dict(spec), "kind": kind}
    name = f"{kind} maps of {regime} ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network(regime), attacked(setup, regime))
    cost = 0.8 * spec.epochs * setup.profile.n_maps
    return Task("frequency_maps", name, described, compute, inputs, cost=cost)


def class_maps(setup: Setup) -> Task:
    """An essential map of N for each class, learned from other images than those that are attacked.

    They are the validation images that come next, rightly classified or not; a step takes all of them.
    """
    count = setup.profile.n_maps
    spec = replace(setup.profile.frequency_map, batch=count, epochs=setup.profile.frequency_map.epochs // 2)

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        whole, model = setup.open_dataset(inputs[0]).validation, setup.open_network(inputs[1])
        others = torch.from_numpy(candidates(setup, whole.labels.cpu().numpy())[count : 2 * count]).to(setup.device)
        labels = whole.labels[others]
        learned = learn_masks(
            model,
            whole.pixels(others),
            labels,
            labels,
            spec,
            seed=setup.seed,
            objective=FrequencyMaps,
            centre=CENTRE,
            checkpoint=checkpoint,
            progress=setup.progress,
        )
        last = {name: rows[-1].cpu().numpy() for name, rows in learned.history.items()}
        return Artifact(last | {"half": learned.half.cpu().numpy()}, facts={"classes": inputs[0].facts["classes"]})

    described = {"map": spec_dict(spec), "seed": setup.seed}
    name = f"class maps of N ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network("N"))
    return Task("class_frequency_maps", name, described, compute, inputs, cost=float(spec.epochs * count))


def class_transfer(setup: Setup) -> Task:
    """The class that N gives to each image, clean and attacked, behind the map of each class.

    Arrays: `label` (K,); `clean` (K,) and `behind.clean` (K, classes); for each attack `<attack>` (K,) and
    `behind.<attack>` (K, classes).
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        paired, model = inputs[2].arrays, setup.open_network(inputs[1])
        images = setup.open_dataset(inputs[0]).validation
        shown = {"clean": images.pixels(torch.from_numpy(paired["image"]).to(setup.device))}
        shown |= {family: torch.from_numpy(paired[f"pixels.{family}"]).to(setup.device) for family in ATTACKS}
        halves = torch.from_numpy(inputs[3].arrays["half"]).to(setup.device)  # (classes, C, H, Wh)
        found = {"label": paired["label"]}
        for name, pixels in shown.items():
            found[name] = predictions(model, pixels).cpu().numpy()
            filtered = [
                predictions(model, apply_mask(pixels, half.expand(len(pixels), -1, -1, -1), CENTRE)) for half in halves
            ]
            found[f"filtered.{name}"] = torch.stack(filtered, 1).cpu().numpy()
        return Artifact(found)

    inputs = (setup.dataset, setup.network("N"), attacked(setup, "N"), class_maps(setup))
    return Task("class_transfer", f"images behind class maps ({setup.title}, seed {setup.seed})", {}, compute, inputs)


def image_transfer(setup: Setup, regime: str) -> Task:
    """The class that a network gives to each image considered, behind the essential map of each image that has one.

    Arrays: `image` (K,) and `target` (K,) of the maps that keep their prediction; `label` (N,) and `number` (N,) of all
    the images considered, `clean` (N,) the class without a map, `behind` (K, N).
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        paired, learned, model = inputs[2].arrays, inputs[3].arrays, setup.open_network(inputs[1])
        images = setup.open_dataset(inputs[0]).validation
        pixels = images.pixels(torch.from_numpy(paired["image"]).to(setup.device))
        halves = torch.from_numpy(learned["half"][learned["kept"]]).to(setup.device)
        filtered = np.zeros((len(halves), len(pixels)), dtype=np.int64)
        for number, half in enumerate(halves):
            whole = half.expand(len(pixels), -1, -1, -1)
            filtered[number] = predictions(model, apply_mask(pixels, whole, CENTRE)).cpu().numpy()
        found = {name: learned[name][learned["kept"]] for name in ("image", "target")}
        found |= {"label": paired["label"], "number": paired["image"], "clean": paired["prediction"]}
        return Artifact(found | {"filtered": filtered})

    inputs = (setup.dataset, setup.network(regime), attacked(setup, regime), maps(setup, regime, "essential"))
    name = f"images behind others' maps of {regime} ({setup.title}, seed {setup.seed})"
    return Task("image_transfer", name, {}, compute, inputs)


def prepared(half: Tensor) -> np.ndarray:
    """Maps (K, C, H, W // 2 + 1) as rows to compare: (K, C * rows * columns), see similarity.

    The full plane, centred, is max-pooled to SIDE; a smaller one stays as it is. Of its blocks those from DC's column
    on are taken: they hold every frequency once, or with its mirror image, but for the column of the Nyquist frequency.
    """
    width = 2 * (half.shape[-1] - 1)
    plane = pooled(full_plane(half, width), max(width // SIDE, 1))
    rows = plane[..., plane.shape[-1] // 2 :].flatten(1)
    return directed(standardised(rows.cpu().numpy()))


def comparisons() -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """The two sets of maps of each comparison, (regime, kind) each; their maps of the same image are paired."""
    found = [((regime, "essential"), (regime, family)) for regime in REGIMES for family in ATTACKS]
    for regime in REGIMES:
        found += [((regime, one), (regime, other)) for one, other in itertools.combinations(ATTACKS, 2)]
    return [*found, (("N", "essential"), ("A", "essential"))]


def title(group: tuple[str, str]) -> str:
    """A set of maps in words, such as "N essential"."""
    return " ".join(group)


def compare(first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """How alike two prepared sets of maps (n, p) are, by four measures, against two kinds of shuffled pairings.

    Returns for each measure m of `cosine`, `svcca`, `distance` and `dimension` the value `<m>` (), and `<m>.all` and
    `<m>.class` (SHUFFLES,) with the rows of `first` shuffled, all or within their `groups` (n,); `p.all` and `p.class`
    () of the dimensions, as the authors define it; and `cosines` (n, 3): of each image's own pair, and the mean with
    the other images of its group (nan if it is alone) and of the other groups.
    """
    measures = {
        "cosine": lambda one, other: float((one * other).sum(1).mean()),
        "svcca": svcca,
        "distance": corrected_distance_correlation,
    }
    found = {name: np.array(measure(first, second)) for name, measure in measures.items()}
    for way, within in (("all", None), ("class", groups)):
        orders = pairings(len(groups), seed=seed, shuffles=SHUFFLES, groups=within)
        for name, measure in measures.items():
            found[f"{name}.{way}"] = np.array([measure(first[order], second) for order in orders])
        dimension = dimension_correlation(first, second, seed=seed, shuffles=SHUFFLES, groups=within)
        found |= {"dimension": np.array(dimension.value), f"dimension.{way}": dimension.shuffled}
        found[f"p.{way}"] = np.array(dimension.p)
    return found | {"cosines": _cosines(first, second, groups)}


def _cosines(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The column `cosines` of `alike`. Rows have length 1, or 0 where a map is the mean map."""
    table, same = first @ second.T, groups[:, None] == groups
    np.fill_diagonal(same, False)

    def mean(chosen: np.ndarray) -> np.ndarray:
        counts = chosen.sum(1)
        return np.where(counts > 0, (table * chosen).sum(1) / np.maximum(counts, 1), np.nan)

    return np.stack((np.diag(table), mean(same), mean(groups[:, None] != groups)), 1)


def similarity(setup: Setup) -> Task:
    """Every comparison of `comparisons`: the arrays of `alike`, each name behind the titles of its two sets and bars.

    Compared are the maps of the images of which both maps keep their prediction, `images` (n,). Sets of fewer than
    LEAST, or of fewer that differ, have no measures.
    """
    groups = [(regime, kind) for regime in REGIMES for kind in KINDS]

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        opened = {group: one.arrays for group, one in zip(groups, inputs[1:], strict=True)}
        labels = inputs[0].arrays["validation_labels"]
        found: dict[str, np.ndarray] = {}
        for first, second in comparisons():
            kept = [opened[group]["image"][opened[group]["kept"]] for group in (first, second)]
            both = np.intersect1d(*kept)
            arrays = {"images": both}
            if len(both) >= LEAST:
                rows = [opened[group]["half"][np.isin(opened[group]["image"], both)] for group in (first, second)]
                ours, theirs = (prepared(torch.from_numpy(half)) for half in rows)
                with suppress(FmlibError):  # too few maps that differ
                    arrays |= compare(ours, theirs, labels[both], seed=setup.seed)
            found |= {f"{title(first)}|{title(second)}|{name}": array for name, array in arrays.items()}
        return Artifact(found)

    described = {"side": SIDE, "shuffles": SHUFFLES, "seed": setup.seed}
    inputs = (setup.dataset, *(maps(setup, *group) for group in groups))
    return Task("map_similarity", f"how alike maps are ({setup.title}, seed {setup.seed})", described, compute, inputs)
