"""Tasks on frequency maps: attacked images, the maps of single images and of classes, and the similarity of maps.

Maps are essential (of clean pixels, towards the label) or adversarial (of pixels attacked by one of ATTACKS, towards
the wrong class): see core.frequency_maps. Source: Basile, Karantzas et al. (2023), arXiv 2305.15203.
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
from fmlib.core.errors import FmlibError, require
from fmlib.core.evaluation import attack_all, predictions
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.masks import learn_masks
from fmlib.core.spectra import apply_mask, full_plane, l1_share
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.frequency_maps.similarity import (
    MIN_POINTS,
    corrected_distance_correlation,
    dimension_correlation,
    pairings,
    standardised,
    svcca_with,
    unit_rows,
)
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import candidates

#: The attacks compared: that of adversarial training, and two that minimise the l2 and the l-infinity distance.
ATTACKS = ("PGD", "DeepFool", "FAB")

#: Kinds of map of an image.
KINDS = ("essential", *ATTACKS)

#: Networks: standard training and adversarial training.
REGIMES = ("N", "A")

#: Side of the plane of a map when maps are compared; larger ones are max-pooled to it, as in the authors' code.
SIDE = 32

#: Shuffled pairings that a similarity is compared with.
SHUFFLES = 100

#: The gray level around which a map filters: black, as in the authors' code.
CENTRE = 0.0


def attacked(setup: Setup, regime: str) -> Task:
    """The images considered, under each of ATTACKS, and the network's predictions.

    Arrays: `image` (K,), indices of validation images; `label` (K,); `prediction` (K,) of the clean images; for each
    attack `pixels.<attack>` (K, C, H, W), `prediction.<attack>` (K,) and `distance.<attack>` (K,), the l-infinity
    distance in pixel units.
    """
    spec, count = setup.profile.train.attack, setup.profile.n_maps

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        validation, model = setup.open_dataset(dataset).validation, setup.open_network(network)
        chosen = candidates(setup, validation.labels.cpu().numpy())[:count]
        images = Split(validation.images[chosen], validation.labels[chosen])
        tensors = {"label": images.labels, "prediction": predictions(model, images.pixels())}
        for family in ATTACKS:
            pixels = attack_all(model, images, spec, seed=setup.seed, purpose=f"map {family}", family=family)
            tensors[f"pixels.{family}"], tensors[f"prediction.{family}"] = pixels, predictions(model, pixels)
            tensors[f"distance.{family}"] = (pixels - images.pixels()).abs().amax((1, 2, 3))
        return Artifact({"image": chosen} | {name: tensor.cpu().numpy() for name, tensor in tensors.items()})

    described = {"attacks": ATTACKS, "attack": spec_dict(spec), "images": count, "seed": setup.seed}
    name = f"attacked images for maps of {regime} ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network(regime))
    return Task("map_attacks", name, described, compute, inputs, cost=200.0 * count)


def maps(setup: Setup, regime: str, kind: str) -> Task:
    """The maps of one kind, learned in one batch.

    Essential maps are of the images that the network classifies correctly, adversarial maps of those among them that it
    misclassifies under the attack.

    Arrays: `image` (K,), `target` (K,), `half` (K, C, H, W // 2 + 1), `l1_share` (K,), `loss` (K,), the cross-entropy
    with the map applied, `kept` (K,), whether the prediction with the map applied is the target, `converged` (K,) and
    `steps` (K,).
    """
    spec = setup.profile.frequency_map

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, attacked_images = inputs
        arrays, model = attacked_images.arrays, setup.open_network(network)
        chosen = arrays["prediction"] == arrays["label"]
        if kind == "essential":
            images = setup.open_dataset(dataset).validation
            pixels = images.pixels(torch.from_numpy(arrays["image"][chosen]).to(setup.device))
            targets = arrays["label"][chosen]
        else:
            chosen &= arrays[f"prediction.{kind}"] != arrays["label"]
            pixels = torch.from_numpy(arrays[f"pixels.{kind}"][chosen]).to(setup.device)
            targets = arrays[f"prediction.{kind}"][chosen]
        found = {"image": arrays["image"][chosen], "target": targets}
        size = (len(targets), setup.profile.network.channels, *setup.half_size)
        found["half"] = np.zeros(size, dtype=np.float32)
        for name, dtype in (("l1_share", "f4"), ("loss", "f4"), ("kept", "?"), ("converged", "?"), ("steps", "i8")):
            found[name] = np.zeros(len(targets), dtype=dtype)
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
    """One essential map of N per class, learned from images that are not attacked.

    These are the candidates that follow the attacked ones, whether classified correctly or not, in one batch.
    """
    count = setup.profile.n_maps
    spec = replace(setup.profile.frequency_map, batch=count, epochs=setup.profile.frequency_map.epochs // 2)

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        validation, model = setup.open_dataset(dataset).validation, setup.open_network(network)
        following = candidates(setup, validation.labels.cpu().numpy())[count : 2 * count]
        chosen = torch.from_numpy(following).to(setup.device)
        labels = validation.labels[chosen]
        learned = learn_masks(
            model,
            validation.pixels(chosen),
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
        return Artifact(last | {"half": learned.half.cpu().numpy()}, facts={"classes": dataset.facts["classes"]})

    described = {"map": spec_dict(spec), "seed": setup.seed}
    name = f"class maps of N ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network("N"))
    return Task("class_frequency_maps", name, described, compute, inputs, cost=float(spec.epochs * count))


def class_transfer(setup: Setup) -> Task:
    """N's prediction for each image, clean and attacked, with the map of each class applied.

    Arrays: `label` (K,); `clean` (K,), the prediction without a map, and `filtered.clean` (K, classes), those with the
    maps applied; for each attack `<attack>` (K,) and `filtered.<attack>` (K, classes).
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, attacked_images, learned = inputs
        arrays, model = attacked_images.arrays, setup.open_network(network)
        images = setup.open_dataset(dataset).validation
        pixels = {"clean": images.pixels(torch.from_numpy(arrays["image"]).to(setup.device))}
        pixels |= {family: torch.from_numpy(arrays[f"pixels.{family}"]).to(setup.device) for family in ATTACKS}
        halves = torch.from_numpy(learned.arrays["half"]).to(setup.device)  # (classes, C, H, Wh)
        found = {"label": arrays["label"]}
        for name, batch in pixels.items():
            found[name] = predictions(model, batch).cpu().numpy()
            filtered = [
                predictions(model, apply_mask(batch, half.expand(len(batch), -1, -1, -1), CENTRE)) for half in halves
            ]
            found[f"filtered.{name}"] = torch.stack(filtered, 1).cpu().numpy()
        return Artifact(found)

    inputs = (setup.dataset, setup.network("N"), attacked(setup, "N"), class_maps(setup))
    return Task("class_transfer", f"transfer of class maps ({setup.title}, seed {setup.seed})", {}, compute, inputs)


def image_transfer(setup: Setup, regime: str) -> Task:
    """A network's prediction for each image considered, with the essential map of each image applied.

    Arrays: `image` (K,) and `target` (K,) of the maps that keep their prediction; `number` (N,), the indices of the
    images considered, `label` (N,) and `clean` (N,), the prediction without a map; `filtered` (K, N).
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, attacked_images, learned = inputs
        arrays, model, kept = attacked_images.arrays, setup.open_network(network), learned.arrays["kept"]
        images = setup.open_dataset(dataset).validation
        pixels = images.pixels(torch.from_numpy(arrays["image"]).to(setup.device))
        halves = torch.from_numpy(learned.arrays["half"][kept]).to(setup.device)
        filtered = np.zeros((len(halves), len(pixels)), dtype=np.int64)
        for index, half in enumerate(halves):
            repeated = half.expand(len(pixels), -1, -1, -1)
            filtered[index] = predictions(model, apply_mask(pixels, repeated, CENTRE)).cpu().numpy()
        found = {name: learned.arrays[name][kept] for name in ("image", "target")}
        found |= {"label": arrays["label"], "number": arrays["image"], "clean": arrays["prediction"]}
        return Artifact(found | {"filtered": filtered})

    inputs = (setup.dataset, setup.network(regime), attacked(setup, regime), maps(setup, regime, "essential"))
    name = f"transfer of essential maps of {regime} ({setup.title}, seed {setup.seed})"
    return Task("image_transfer", name, {}, compute, inputs)


def pooled(full: Tensor, factor: int) -> Tensor:
    """The maximum over each block of `factor` x `factor` frequencies, of the plane with DC at its centre.

    The plane is shifted first, as Basile et al. store their maps, so that a block holds neighbouring frequencies. If
    `factor` divides H / 2 and W / 2, as their 7 divides 112, the unshifted plane has the same blocks in another order.

    Args:
        full: full masks (..., H, W), DC at (0, 0).
        factor: side of a block, frequencies; it must divide H and W.

    Returns:
        Pooled masks (..., H // factor, W // factor), with DC in the middle.

    Raises:
        FmlibError: `factor` does not divide H and W.
    """
    height, width = full.shape[-2:]
    require(
        factor >= 1 and height % factor == 0 and width % factor == 0,
        f"blocks of {factor} do not tile a mask of {height} x {width}: choose a factor that divides both",
    )
    centred = torch.fft.fftshift(full, dim=(-2, -1))
    return centred.unflatten(-2, (-1, factor)).unflatten(-1, (-1, factor)).amax((-3, -1))


def prepare_maps(half: Tensor) -> np.ndarray:
    """Maps (K, C, H, W // 2 + 1) as rows to compare, (K, C * rows * columns): see `similarity`.

    The centred full plane is max-pooled to SIDE; a smaller one stays as it is. The half from DC's column on is used: it
    holds every frequency or its mirror image, except for the column of the Nyquist frequency.
    """
    width = 2 * (half.shape[-1] - 1)
    plane = pooled(full_plane(half, width), max(width // SIDE, 1))
    rows = plane[..., plane.shape[-1] // 2 :].flatten(1)
    return unit_rows(standardised(rows.cpu().numpy()))


def comparisons() -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """The pairs of sets that are compared, (regime, kind) each; two maps of the same image form a pair."""
    pairs = [((regime, "essential"), (regime, family)) for regime in REGIMES for family in ATTACKS]
    for regime in REGIMES:
        pairs += [((regime, first), (regime, second)) for first, second in itertools.combinations(ATTACKS, 2)]
    return [*pairs, (("N", "essential"), ("A", "essential"))]


def set_name(group: tuple[str, str]) -> str:
    """The name of a set of maps, such as "N essential"."""
    return " ".join(group)


def compare(first: np.ndarray, second: np.ndarray, groups: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Similarity of two prepared sets of maps by four measures, and of two kinds of shuffled pairings.

    Args:
        first: (n, p), as `prepare_maps` returns.
        second: (n, p), of the same images.
        groups: (n,), the classes of the images.
        seed: of the shuffled pairings.

    Returns:
        For each measure m of `cosine`, `svcca`, `distance` and `dimension` the value `<m>` (), and `<m>.all` and
        `<m>.class` (SHUFFLES,) with the rows of `first` shuffled, among all or within `groups`; `p.all` and `p.class`
        () of the dimensions, as the authors define it; and `cosines` (n, 3): of each image's own pair, and the mean
        with the other images of its group (nan if there are none) and with those of other groups.
    """
    measures = {
        "cosine": lambda ours: float((ours * second).sum(1).mean()),
        "svcca": svcca_with(second),
        "distance": lambda ours: corrected_distance_correlation(ours, second),
    }
    result = {name: np.array(measure(first)) for name, measure in measures.items()}
    for way, within in (("all", None), ("class", groups)):
        orders = pairings(len(groups), seed=seed, shuffles=SHUFFLES, groups=within)
        for name, measure in measures.items():
            result[f"{name}.{way}"] = np.array([measure(first[order]) for order in orders])
        dimension = dimension_correlation(first, second, seed=seed, shuffles=SHUFFLES, groups=within)
        result |= {"dimension": np.array(dimension.value), f"dimension.{way}": dimension.shuffled}
        result[f"p.{way}"] = np.array(dimension.p)
    return result | {"cosines": _cosines(first, second, groups)}


def _cosines(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The array `cosines` of `compare`. Rows have length 1, or 0 where a map is the mean map."""
    table, same = first @ second.T, groups[:, None] == groups
    np.fill_diagonal(same, False)

    def mean(chosen: np.ndarray) -> np.ndarray:
        counts = chosen.sum(1)
        return np.where(counts > 0, (table * chosen).sum(1) / np.maximum(counts, 1), np.nan)

    return np.stack((np.diag(table), mean(same), mean(groups[:, None] != groups)), 1)


def similarity(setup: Setup) -> Task:
    """All of `comparisons`: the arrays of `compare`, named "<first set>|<second set>|<array>".

    Compared are the maps of the images for which both maps keep their prediction, `images` (n,). Sets with fewer than
    MIN_POINTS of them, or with fewer distinct ones, have no measures.
    """
    groups = [(regime, kind) for regime in REGIMES for kind in KINDS]

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, *learned = inputs
        maps_of = {group: artifact.arrays for group, artifact in zip(groups, learned, strict=True)}
        labels = dataset.arrays["validation_labels"]
        found: dict[str, np.ndarray] = {}
        for pair in comparisons():
            common = np.intersect1d(*(maps_of[group]["image"][maps_of[group]["kept"]] for group in pair))
            arrays = {"images": common}
            if len(common) >= MIN_POINTS:
                halves = [maps_of[group]["half"][np.isin(maps_of[group]["image"], common)] for group in pair]
                first, second = (prepare_maps(torch.from_numpy(half)) for half in halves)
                with suppress(FmlibError):  # too few distinct maps
                    arrays |= compare(first, second, labels[common], seed=setup.seed)
            prefix = "|".join(map(set_name, pair))
            found |= {f"{prefix}|{name}": array for name, array in arrays.items()}
        return Artifact(found)

    described = {"side": SIDE, "shuffles": SHUFFLES, "seed": setup.seed}
    inputs = (setup.dataset, *(maps(setup, *group) for group in groups))
    return Task("map_similarity", f"similarity of maps ({setup.title}, seed {setup.seed})", described, compute, inputs)
