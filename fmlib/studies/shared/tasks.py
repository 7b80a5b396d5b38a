"""The tasks on single images: adversarial pairs, the masks of one image each, and the masks of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core.config import spec_dict
from fmlib.core.data import Split
from fmlib.core.device import full_precision
from fmlib.core.errors import require
from fmlib.core.evaluation import attack_all, evaluate, predictions
from fmlib.core.masks import clipped_exp_square, learn_masks
from fmlib.core.spectra import apply_mask, l1_share
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.shared.setup import Setup

#: Kind of image mask -> the network's regime and the image: x, or x_A, made from x against N by the training attack.
KINDS = {"N.x": ("N", "x"), "A.x": ("A", "x"), "A.xA": ("A", "xA"), "N.xA": ("N", "xA")}

#: Steps counted for an image mask: on average it took 810 to 1,330 at profile laptop, by kind, and 1,080 at paper.
USUAL_STEPS = 1200


def pairs(setup: Setup) -> Task:
    """Every validation image attacked against N, and what N and A make of both; N alone where no A is trained."""
    attack = setup.profile.train.attack
    regimes = setup.plain_and_adversarial

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        images = setup.open_dataset(inputs[0]).validation
        networks = dict(zip(regimes, map(setup.open_network, inputs[1:]), strict=True))
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


def eligible(pairs: Artifact, labels: np.ndarray) -> np.ndarray:
    """Whether N is right on x and wrong on x_A: (N,) bool (the paper, section 3.2)."""
    return (pairs.arrays["prediction.N.x"] == labels) & (pairs.arrays["prediction.N.xA"] != labels)


def candidates(setup: Setup, labels: np.ndarray) -> np.ndarray:
    """Numbers of the validation images considered: the first of each class, the second of each class, and so on.

    The profile's `images` bounds them; those of a larger bound begin with those of a smaller one.
    """
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    order = np.lexsort((labels, rank))
    return order[: setup.profile.images or None]


def chunks(setup: Setup) -> range:
    """Numbers of the chunks of image masks."""
    return range(math.ceil((setup.profile.images or setup.counts["validation"]) / setup.profile.chunk))


def image_masks(setup: Setup, kind: str, chunk: int, repetition: int = 0) -> Task:
    """The masks of the eligible images in a chunk of the candidates; target: the network's prediction.

    Which images are eligible is decided by the first networks; `repetition` chooses the network that is masked.
    """
    regime, image = KINDS[kind]
    spec, centre = setup.profile.image_mask, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        images, model = setup.open_dataset(inputs[0]).validation, setup.open_network(inputs[1])
        labels = images.labels.cpu().numpy()
        considered = candidates(setup, labels)[first:last]
        chosen = considered[eligible(inputs[2], labels)[considered]]
        index = torch.from_numpy(chosen).to(setup.device)
        pixels = images.pixels(index)
        if image == "xA":
            pixels = torch.from_numpy(inputs[2].arrays["xA"]).to(setup.device)[index]
        found = {"image": chosen, "half": np.zeros((0, *setup.half_size), dtype=np.float32)}
        if len(chosen):
            targets = predictions(model, pixels)
            order = torch.arange(len(chosen), device=setup.device)
            learned = learn_masks(
                model,
                pixels,
                targets,
                order,
                spec,
                seed=setup.seed,
                centre=centre,
                checkpoint=checkpoint,
                progress=setup.progress,
            )
            found |= {"half": learned.half, "converged": learned.converged, "steps": learned.epochs, "target": targets}
            found["clipped"] = learned.history["clipped"].mean(0)
            found |= _judge(setup, model, pixels, targets, learned.half)
        return Artifact({name: torch.as_tensor(value).cpu().numpy() for name, value in found.items()})

    first, last = _window(setup, chunk)
    described = {"mask": spec_dict(spec), "kind": kind, "images": [first, last]}
    name = f"image masks {kind} ({setup.profile.name}, seed {setup.seed + repetition}, chunk {chunk + 1})"
    cost = float(min(spec.epochs, USUAL_STEPS) * (last - first))
    inputs = (setup.dataset, setup.network(regime, repetition), pairs(setup))
    return Task("image_masks", name, described, compute, inputs, cost=cost)


def _window(setup: Setup, chunk: int) -> list[int]:
    """The candidates of a chunk, first and last: the same whatever the profile's bound, but for its last chunk."""
    size, total = setup.profile.chunk, setup.profile.images or setup.counts["validation"]
    return [chunk * size, min((chunk + 1) * size, total)]


def _judge(setup: Setup, model: torch.nn.Module, pixels: Tensor, targets: Tensor, half: Tensor) -> dict[str, Tensor]:
    """Of each learned mask: invariance cost, L1 share, objective, and whether M(x) keeps the prediction."""
    spec, centre = setup.profile.image_mask, setup.profile.network.mean
    filtered = apply_mask(pixels, half, centre)
    with full_precision():
        before, _ = evaluate(model, zip(pixels.split(256), targets.split(256), strict=True))
        after, kept = evaluate(model, zip(filtered.split(256), targets.split(256), strict=True))
    invariance, share = clipped_exp_square(after - before, spec.clip), l1_share(half, pixels.shape[-1])
    objective = invariance + spec.penalty * share
    return {"invariance": invariance, "l1_share": share, "objective": objective, "kept": kept}


def all_masks(setup: Setup, kind: str) -> tuple[Task, ...]:
    """Every chunk of one kind."""
    return tuple(image_masks(setup, kind, chunk) for chunk in chunks(setup))


def again(setup: Setup) -> tuple[Task, ...]:
    """Chunks of M_{N,x} for the same images and another network N, about a fifth of them."""
    return tuple(image_masks(setup, "N.x", chunk, 1) for chunk in range(math.ceil(len(chunks(setup)) / 5)))


def joined(parts: Sequence[Artifact]) -> dict[str, np.ndarray]:
    """The arrays of several chunks as one: half (K, H, Wh), image (K,), target (K,) and so on; empty ones left out."""
    filled = [part.arrays for part in parts if len(part.arrays["image"])]
    require(bool(filled), "no image is right before the attack and wrong after it: attack more, or take more images")
    return {name: np.concatenate([one[name] for one in filled]) for name in filled[0]}


def class_masks(setup: Setup) -> Task:
    """One mask for the validation images of each class, of N, learned as dataset masks are."""
    spec = setup.profile.mask

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        images, model = setup.open_dataset(inputs[0]).validation, setup.open_network(inputs[1])
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
        return Artifact(last | {"half": learned.half.cpu().numpy()}, facts={"classes": inputs[0].facts["classes"]})

    cost = spec.epochs * setup.counts["validation"]
    described = {"mask": spec_dict(spec), "seed": setup.seed}
    inputs = (setup.dataset, setup.network("N"))
    return Task("class_masks", f"class masks of N ({setup.title})", described, compute, inputs, cost=cost)


def open_masks(
    setup: Setup, dataset: Artifact, parts: list[Artifact]
) -> tuple[dict[str, np.ndarray], Tensor, Tensor, Tensor]:
    """All masks of one kind; their images' pixels; the masks and their targets, as tensors on the device."""
    masks = joined(parts)
    index = torch.from_numpy(masks["image"]).to(setup.device)
    pixels = setup.open_dataset(dataset).validation.pixels(index)
    half, targets = (torch.from_numpy(masks[name]).to(setup.device) for name in ("half", "target"))
    return masks, pixels, half, targets


def first_images(setup: Setup, dataset: Artifact, count: int) -> Split:
    """The first `count` of the validation images considered, as many of each class."""
    whole = setup.open_dataset(dataset).validation
    chosen = candidates(setup, whole.labels.cpu().numpy())[:count]
    return Split(whole.images[chosen], whole.labels[chosen])
