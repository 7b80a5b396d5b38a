"""The jobs on single images: adversarial pairs, the masks of one image each, and the masks of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.attacks import perturb
from fmlib.config import AttackSpec, require
from fmlib.data import Split
from fmlib.lab import Lab
from fmlib.masks import guarded_exp_square, learn_masks
from fmlib.models import evaluate
from fmlib.runtime import full_precision
from fmlib.spectra import apply_mask, l1_share
from fmlib.store import Artifact, Job

#: Kind of image mask -> the network's regime and the image: x, or x_A, made from x against N by the training attack.
KINDS = {"N.x": ("N", "x"), "A.x": ("A", "x"), "A.xA": ("A", "xA"), "N.xA": ("N", "xA")}

#: Steps counted for an image mask: on average it took 810 to 1,330 at profile laptop, by kind, and 1,080 at paper.
USUAL_STEPS = 1200


def pairs(lab: Lab) -> Job:
    """Every validation image attacked against N, and what N and A make of both; N alone where no A is trained."""
    attack = lab.profile.train.attack
    regimes = lab.plain_and_adversarial

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images = lab.open_dataset(inputs[0]).validation
        networks = dict(zip(regimes, map(lab.open_network, inputs[1:]), strict=True))
        attacked = attack_all(networks["N"], images, attack, seed=lab.seed, purpose="pairs")
        arrays = {"xA": attacked.cpu().numpy()}
        for name, (regime, image) in KINDS.items():
            if regime in networks:
                pixels = images.pixels() if image == "x" else attacked
                arrays[f"prediction.{name}"] = predictions(networks[regime], pixels).cpu().numpy()
        return Artifact(arrays)

    inputs = (lab.dataset, *map(lab.network, regimes))
    passes = attack.steps * lab.counts["validation"]
    described = {"attack": asdict(attack), "seed": lab.seed}
    return Job("pairs", f"adversarial pairs ({lab.profile.name})", described, compute, inputs, passes=passes)


def attack_all(
    model: torch.nn.Module, images: Split, spec: AttackSpec, *, seed: int, purpose: str, family: str = "PGD"
) -> Tensor:
    """A split's images under one attack: (N, C, H, W), in batches with a random start each."""
    return torch.cat(
        [
            perturb(model, pixels, labels, spec, seed=seed, purpose=f"{purpose} {number}", family=family)
            for number, (pixels, labels) in enumerate(images.batches(256))
        ]
    )


def predictions(model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """The class that a network gives to each image: (B, C, H, W) -> (B,)."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in pixels.split(256)])


def eligible(pairs: Artifact, labels: np.ndarray) -> np.ndarray:
    """Whether N is right on x and wrong on x_A: (N,) bool (the paper, section 3.2)."""
    return (pairs.arrays["prediction.N.x"] == labels) & (pairs.arrays["prediction.N.xA"] != labels)


def candidates(lab: Lab, labels: np.ndarray) -> np.ndarray:
    """Numbers of the validation images considered: the first of each class, the second of each class, and so on.

    The profile's `images` bounds them; those of a larger bound begin with those of a smaller one.
    """
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    order = np.lexsort((labels, rank))
    return order[: lab.profile.images or None]


def chunks(lab: Lab) -> range:
    """Numbers of the chunks of image masks."""
    return range(math.ceil((lab.profile.images or lab.counts["validation"]) / lab.profile.chunk))


def image_masks(lab: Lab, kind: str, chunk: int, repetition: int = 0) -> Job:
    """The masks of the eligible images in a chunk of the candidates; target: the network's prediction.

    Which images are eligible is decided by the first networks; `repetition` chooses the network that is masked.
    """
    regime, image = KINDS[kind]
    spec, centre = lab.profile.image_mask, lab.profile.network.mean

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images, model = lab.open_dataset(inputs[0]).validation, lab.open_network(inputs[1])
        labels = images.labels.cpu().numpy()
        considered = candidates(lab, labels)[first:last]
        chosen = considered[eligible(inputs[2], labels)[considered]]
        index = torch.from_numpy(chosen).to(lab.device)
        pixels = images.pixels(index)
        if image == "xA":
            pixels = torch.from_numpy(inputs[2].arrays["xA"]).to(lab.device)[index]
        found = {"image": chosen, "half": np.zeros((0, *lab.half_size), dtype=np.float32)}
        if len(chosen):
            targets = predictions(model, pixels)
            order = torch.arange(len(chosen), device=lab.device)
            learned = learn_masks(
                model,
                pixels,
                targets,
                order,
                spec,
                seed=lab.seed,
                centre=centre,
                checkpoint=saved,
                progress=lab.progress,
            )
            found |= {"half": learned.half, "converged": learned.converged, "steps": learned.epochs, "target": targets}
            found["guarded"] = learned.history["guarded"].mean(0)
            found |= _judge(lab, model, pixels, targets, learned.half)
        return Artifact({name: torch.as_tensor(value).cpu().numpy() for name, value in found.items()})

    first, last = _window(lab, chunk)
    described = {"mask": asdict(spec), "kind": kind, "images": [first, last]}
    name = f"image masks {kind} ({lab.profile.name}, seed {lab.seed + repetition}, chunk {chunk + 1})"
    passes = float(min(spec.epochs, USUAL_STEPS) * (last - first))
    inputs = (lab.dataset, lab.network(regime, repetition), pairs(lab))
    return Job("image_masks", name, described, compute, inputs, passes=passes)


def _window(lab: Lab, chunk: int) -> list[int]:
    """The candidates of a chunk, first and last: the same whatever the profile's bound, but for its last chunk."""
    size, total = lab.profile.chunk, lab.profile.images or lab.counts["validation"]
    return [chunk * size, min((chunk + 1) * size, total)]


def _judge(lab: Lab, model: torch.nn.Module, pixels: Tensor, targets: Tensor, half: Tensor) -> dict[str, Tensor]:
    """Of each learned mask: invariance cost, L1 share, objective, and whether M(x) keeps the prediction."""
    spec, centre = lab.profile.image_mask, lab.profile.network.mean
    filtered = apply_mask(pixels, half, centre)
    with full_precision():
        before, _ = evaluate(model, zip(pixels.split(256), targets.split(256), strict=True))
        after, kept = evaluate(model, zip(filtered.split(256), targets.split(256), strict=True))
    invariance, share = guarded_exp_square(after - before, spec.guard), l1_share(half, pixels.shape[-1])
    objective = invariance + spec.penalty * share
    return {"invariance": invariance, "l1_share": share, "objective": objective, "kept": kept}


def all_masks(lab: Lab, kind: str) -> tuple[Job, ...]:
    """Every chunk of one kind."""
    return tuple(image_masks(lab, kind, chunk) for chunk in chunks(lab))


def again(lab: Lab) -> tuple[Job, ...]:
    """Chunks of M_{N,x} for the same images and another network N, about a fifth of them."""
    return tuple(image_masks(lab, "N.x", chunk, 1) for chunk in range(math.ceil(len(chunks(lab)) / 5)))


def joined(parts: Sequence[Artifact]) -> dict[str, np.ndarray]:
    """The arrays of several chunks as one: half (K, H, Wh), image (K,), target (K,) and so on; empty ones left out."""
    filled = [part.arrays for part in parts if len(part.arrays["image"])]
    require(bool(filled), "no image is right before the attack and wrong after it: attack more, or take more images")
    return {name: np.concatenate([one[name] for one in filled]) for name in filled[0]}


def class_masks(lab: Lab) -> Job:
    """One mask for the validation images of each class, of N, learned as dataset masks are."""
    spec = lab.profile.mask

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images, model = lab.open_dataset(inputs[0]).validation, lab.open_network(inputs[1])
        learned = learn_masks(
            model,
            images.pixels(),
            images.labels,
            images.labels,
            spec,
            seed=lab.seed,
            centre=lab.profile.network.mean,
            checkpoint=saved,
            progress=lab.progress,
        )
        last = {name: rows[-1].cpu().numpy() for name, rows in learned.history.items()}
        return Artifact(last | {"half": learned.half.cpu().numpy()}, facts={"classes": inputs[0].facts["classes"]})

    passes = spec.epochs * lab.counts["validation"]
    described = {"mask": asdict(spec), "seed": lab.seed}
    inputs = (lab.dataset, lab.network("N"))
    return Job("class_masks", f"class masks of N ({lab.title})", described, compute, inputs, passes=passes)
