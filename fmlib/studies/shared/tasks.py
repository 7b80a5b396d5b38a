"""Tasks on single images that several studies share: adversarial pairs, one mask per image, one mask per class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core.config import MinimalMaskSpec, spec_dict
from fmlib.core.data import Split
from fmlib.core.device import Checkpoint, full_precision
from fmlib.core.errors import require
from fmlib.core.evaluation import attack_all, evaluate, predictions
from fmlib.core.masks import Masks, clipped_exp_square, learn_masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.spectra import apply_mask, l1_share
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Artifact, Store, Task
from fmlib.studies.shared.setup import Setup

#: Kind of image mask -> the network's regime, and the image: x, or x_A, the training attack on N applied to x.
KINDS = {"N.x": ("N", "x"), "A.x": ("A", "x"), "A.xA": ("A", "xA"), "N.xA": ("N", "xA")}

#: Steps assumed in the cost of an image mask. Measured means are 810 to 1,330 at 64 px, by kind, and 1,080 at 128 px.
TYPICAL_STEPS = 1200


def pairs(setup: Setup) -> Task:
    """Every validation image x with x_A, the training attack on N; and what N and A predict for both.

    Arrays: `xA` (N, C, H, W), `prediction.<kind>` (N,) for each of `KINDS` whose network the profile trains.
    """
    attack = setup.profile.train.attack
    regimes = setup.standard_and_adversarial

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, *trained = inputs
        images = setup.open_dataset(dataset).validation
        networks = dict(zip(regimes, map(setup.open_network, trained), strict=True))
        attacked = attack_all(networks["N"], images, attack, seed=setup.seed, purpose="pairs")
        arrays = {"xA": attacked.cpu().numpy()}
        for name, (regime, image) in KINDS.items():
            if regime in networks:
                pixels = images.pixels() if image == "x" else attacked
                arrays[f"prediction.{name}"] = predictions(networks[regime], pixels).cpu().numpy()
        return Artifact(arrays)

    inputs = (setup.dataset, *map(setup.network, regimes))
    cost = attack.steps * setup.counts["validation"]
    described = {"attack": spec_dict(attack), "seed": setup.seed}
    return Task("pairs", f"adversarial pairs ({setup.profile.name})", described, compute, inputs, cost=cost)


def kinds(setup: Setup) -> tuple[str, ...]:
    """The kinds of image masks of the profile: without A only M_{N,x}, because the others are compared with A's."""
    return tuple(KINDS) if "A" in setup.profile.regimes else ("N.x",)


def eligible(pairs: Artifact, labels: np.ndarray) -> np.ndarray:
    """Whether N classifies x correctly and x_A incorrectly: (N,) bool (Karantzas et al., 2022, section 3.2)."""
    return (pairs.arrays["prediction.N.x"] == labels) & (pairs.arrays["prediction.N.xA"] != labels)


def by_turns(labels: np.ndarray) -> np.ndarray:
    """Indices of images (N,): the first of each class, then the second of each class, and so on."""
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.lexsort((labels, rank))


def candidates(setup: Setup, labels: np.ndarray) -> np.ndarray:
    """Indices of the validation images considered: the first of each class, then the second of each class, and so on.

    `Profile.n_image_masks` limits their number; a larger limit only adds images at the end.
    """
    return by_turns(labels)[: setup.profile.n_image_masks or None]


def chunks(setup: Setup) -> range:
    """Indices of the chunks of image masks."""
    return range(math.ceil((setup.profile.n_image_masks or setup.counts["validation"]) / setup.profile.chunk_size))


def image_masks(setup: Setup, kind: str, chunk: int, repetition: int = 0) -> Task:
    """One mask per eligible image in a chunk of the candidates, fitted to the network's own prediction.

    Arrays of K masks: `half` (K, H, W // 2 + 1); `image`, indices of the validation images; `target`, the predictions;
    `steps` and `converged`; `clipped`, the share of steps with a clipped loss; and what `_evaluate_masks` returns.

    Args:
        kind: one of `KINDS`.
        repetition: of the network that is masked; the networks of repetition 0 decide which images are eligible.
    """
    regime, image = KINDS[kind]
    spec = setup.profile.image_mask

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, paired = inputs
        images, model = setup.open_dataset(dataset).validation, setup.open_network(network)
        labels = images.labels.cpu().numpy()
        considered = candidates(setup, labels)[first:last]
        chosen = considered[eligible(paired, labels)[considered]]
        index = torch.from_numpy(chosen).to(setup.device)
        pixels = images.pixels(index)
        if image == "xA":
            pixels = torch.from_numpy(paired.arrays["xA"]).to(setup.device)[index]
        arrays = {"image": chosen, "half": np.zeros((0, *setup.half_size), dtype=np.float32)}
        if len(chosen):
            targets = predictions(model, pixels)
            learned = fit_image_masks(setup, model, pixels, targets, checkpoint)
            arrays |= {"half": learned.half, "converged": learned.converged, "steps": learned.epochs, "target": targets}
            arrays["clipped"] = learned.history["clipped"].mean(0)
            arrays |= _evaluate_masks(setup, model, pixels, targets, learned.half)
        return Artifact({name: torch.as_tensor(value).cpu().numpy() for name, value in arrays.items()})

    first, last = window(setup, chunk)
    described = {"mask": spec_dict(spec), "kind": kind, "images": [first, last]}
    method, steps = (
        ("minimal", spec.steps) if isinstance(spec, MinimalMaskSpec) else ("image", min(spec.epochs, TYPICAL_STEPS))
    )
    name = f"{method} masks {kind} ({setup.profile.name}, seed {setup.seed + repetition}, chunk {chunk + 1})"
    cost = float(steps * (last - first))
    inputs = (setup.dataset, setup.network(regime, repetition), pairs(setup))
    return Task("image_masks", name, described, compute, inputs, cost=cost)


def fit_image_masks(
    setup: Setup, model: nn.Module, pixels: Tensor, targets: Tensor, checkpoint: Checkpoint | None
) -> Masks:
    """One mask per image by the profile's solver, in the order of `pixels` (K, C, H, W)."""
    spec, centre = setup.profile.image_mask, setup.profile.network.mean
    if isinstance(spec, MinimalMaskSpec):
        return minimal_masks(
            model, pixels, targets, spec, centre=centre, checkpoint=checkpoint, progress=setup.progress
        )
    index = torch.arange(len(pixels), device=pixels.device)
    return learn_masks(
        model,
        pixels,
        targets,
        index,
        spec,
        seed=setup.seed,
        centre=centre,
        checkpoint=checkpoint,
        progress=setup.progress,
    )


def window(setup: Setup, chunk: int) -> list[int]:
    """The first candidate of a chunk and the one after its last; only the last chunk depends on the profile's limit."""
    size, total = setup.profile.chunk_size, setup.profile.n_image_masks or setup.counts["validation"]
    return [chunk * size, min((chunk + 1) * size, total)]


def _evaluate_masks(setup: Setup, model: nn.Module, pixels: Tensor, targets: Tensor, half: Tensor) -> dict[str, Tensor]:
    """Invariance cost, L1 share and objective of learned masks, and whether each mask keeps the prediction: (K,)."""
    spec, centre = setup.profile.image_mask, setup.profile.network.mean
    filtered = apply_mask(pixels, half, centre)
    with full_precision():
        before, _ = evaluate(model, zip(pixels.split(256), targets.split(256), strict=True))
        after, kept = evaluate(model, zip(filtered.split(256), targets.split(256), strict=True))
    invariance, share = clipped_exp_square(after - before, spec.clip), l1_share(half, pixels.shape[-1])
    objective = invariance + spec.penalty * share
    return {"invariance": invariance, "l1_share": share, "objective": objective, "kept": kept}


def all_masks(setup: Setup, kind: str) -> tuple[Task, ...]:
    """The tasks of all chunks of one kind."""
    return tuple(image_masks(setup, kind, chunk) for chunk in chunks(setup))


def second_seed_masks(setup: Setup) -> tuple[Task, ...]:
    """Masks M_{N,x} of another seed's network N, if there is one, for the first fifth of the chunks."""
    count = math.ceil(len(chunks(setup)) / 5) if setup.profile.repetitions > 1 else 0
    return tuple(image_masks(setup, "N.x", chunk, 1) for chunk in range(count))


def join_chunks(parts: Sequence[Artifact]) -> dict[str, np.ndarray]:
    """The arrays of `image_masks` over several chunks, concatenated; empty chunks are left out.

    Raises:
        FmlibError: all chunks are empty.
    """
    filled = [part.arrays for part in parts if len(part.arrays["image"])]
    require(
        bool(filled),
        "no image is classified correctly before the attack and incorrectly after it: "
        "raise the attack's epsilon, or n_image_masks of the profile",
    )
    return {name: np.concatenate([arrays[name] for arrays in filled]) for name in filled[0]}


def class_masks(setup: Setup) -> Task:
    """One mask of N per class, fitted to its validation images like a dataset mask: `half` (classes, H, W // 2 + 1)."""
    spec = setup.profile.mask

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        images, model = setup.open_dataset(dataset).validation, setup.open_network(network)
        learned = learn_masks(
            model,
            images.pixels(),
            images.labels,
            images.labels,
            spec,
            seed=setup.seed,
            centre=setup.profile.network.mean,
            checkpoint=checkpoint,
            progress=setup.progress,
        )
        last = {name: rows[-1].cpu().numpy() for name, rows in learned.history.items()}
        return Artifact(last | {"half": learned.half.cpu().numpy()}, facts={"classes": dataset.facts["classes"]})

    cost = spec.epochs * setup.counts["validation"]
    described = {"mask": spec_dict(spec), "seed": setup.seed}
    inputs = (setup.dataset, setup.network("N"))
    return Task("class_masks", f"class masks of N ({setup.title})", described, compute, inputs, cost=cost)


def open_masks(
    setup: Setup, dataset: Artifact, parts: list[Artifact]
) -> tuple[dict[str, np.ndarray], Tensor, Tensor, Tensor]:
    """All image masks of one kind, as stored and on the device.

    Returns:
        The arrays of `join_chunks`; the pixels x of their images (K, C, H, W); the masks (K, H, W // 2 + 1); their
        targets (K,).
    """
    masks = join_chunks(parts)
    index = torch.from_numpy(masks["image"]).to(setup.device)
    pixels = setup.open_dataset(dataset).validation.pixels(index)
    half, targets = (torch.from_numpy(masks[name]).to(setup.device) for name in ("half", "target"))
    return masks, pixels, half, targets


def first_images(setup: Setup, dataset: Artifact, count: int) -> Split:
    """The first `count` candidates among the validation images: equally many per class, plus or minus one."""
    whole = setup.open_dataset(dataset).validation
    chosen = candidates(setup, whole.labels.cpu().numpy())[:count]
    return Split(whole.images[chosen], whole.labels[chosen])


def with_minimal_masks(experiment: Experiment) -> Experiment:
    """The same experiment with minimal masks; it and its files are named so."""

    def tasks(setup: Setup) -> list[Task]:
        return experiment.tasks(setup.minimal)

    def export(setup: Setup, store: Store) -> dict[str, bytes]:
        exported = experiment.export(setup.minimal, store)
        return {f"minimal_{name}": content for name, content in exported.items()}

    def restore(setup: Setup, store: Store, results: Results) -> list[str]:
        assert experiment.restore is not None
        return experiment.restore(setup.minimal, store, results)

    name, about = f"minimal-{experiment.name}", f"{experiment.about}, with minimal masks"
    again = restore if experiment.restore else None
    return replace(experiment, name=name, about=about, tasks=tasks, export=export, restore=again)
