"""The experiment of adversarial images: Table 2 and its controls, adaptive attacks, and other attacks than PGD."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core import controls
from fmlib.core.attacks import perturb
from fmlib.core.config import spec_dict
from fmlib.core.device import generator
from fmlib.core.evaluation import attack_all, correctness, predictions
from fmlib.core.models import Masked
from fmlib.core.spectra import apply_mask, binarize, column_weights, complement
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import all_masks, open_masks, pairs, with_minimal_masks

#: Radii of the l-infinity attacks in addition to that of the training attack, pixel units.
RADII = (2 / 255, 4 / 255, 8 / 255)


def _tasks(setup: Setup) -> list[Task]:
    with_a = (attacks, adaptive) if "A" in setup.profile.regimes else ()
    return [make(setup) for make in (tables, *with_a)]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {f"{task.kind}.npz": arrays_to_bytes(store.get(task).arrays) for task in _tasks(setup)}


def _passed_share(signal: Tensor, half: Tensor) -> Tensor:
    """Share of the energy of `signal` (K, C, H, W) that the filters (K, H, Wh) pass: (K,)."""
    energy = torch.fft.rfft2(signal).abs().square().mean(1) * column_weights(signal.shape[-1], signal.device)
    return (energy * half**2).sum((1, 2)) / energy.sum((1, 2))


def tables(setup: Setup) -> Task:
    """Table 2: whether networks classify x, x_A, M(x), M(x_A) and the complement's image correctly, for each M_{N,x}.

    Arrays (K,) bool, all of N: `x`, `xA`, `masked`, `masked_adversarial`, `complement`, and the two masked ones again
    with the binarised mask. `second.*` and `other.*` are of networks to which no mask was fitted: the second
    architecture and N of another seed, where the profile has them.

    Arrays (K,) float: `similarity`, the correlation of M(x) with x over pixels (0 if M(x) is constant);
    `attack_inside` and `attack_matched`, the share of the attack's energy at the mask's frequencies and at a radially
    matched set; `attack_passed` and `image_passed`, the shares of the attack's and the image's energy that M passes.
    """
    observers = {"": (setup, 0)}
    if ("N", 0) in setup.profile.second_networks:
        observers["second."] = (setup.second, 0)
    if setup.profile.repetitions > 1:
        observers["other."] = (setup, 1)
    network_tasks = [one.network("N", repetition) for one, repetition in observers.values()]
    centre = setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, *rest = inputs
        networks, (adversarial_pairs, *mask_parts) = rest[: len(network_tasks)], rest[len(network_tasks) :]
        masks, pixels, half, targets = open_masks(setup, dataset, mask_parts)
        attacked = torch.from_numpy(adversarial_pairs.arrays["xA"][masks["image"]]).to(setup.device)
        support = binarize(half)
        matched = controls.matched_control(support.bool(), generator(setup.seed, "table 2", setup.device)).float()
        images = {
            "x": pixels,
            "xA": attacked,
            "masked": apply_mask(pixels, half, centre),
            "masked_adversarial": apply_mask(attacked, half, centre),
            "masked_binarised": apply_mask(pixels, support, centre),
            "masked_adversarial_binarised": apply_mask(attacked, support, centre),
            "complement": apply_mask(pixels, complement(half), centre),
        }
        arrays: dict[str, Tensor] = {}
        for (prefix, (owner, _)), network in zip(observers.items(), networks, strict=True):
            model = owner.open_network(network)
            for name in images if prefix == "" else ("x", "masked", "complement"):
                arrays[prefix + name] = predictions(model, images[name]) == targets
        change = attacked - pixels
        arrays["attack_inside"], arrays["attack_matched"] = (
            _passed_share(change, support),
            _passed_share(change, matched),
        )
        arrays["attack_passed"], arrays["image_passed"] = (
            _passed_share(change, half),
            _passed_share(pixels - centre, half),
        )
        stacked = torch.stack((pixels.flatten(1), images["masked"].flatten(1)), 1)  # (K, 2, pixels)
        arrays["similarity"] = torch.stack([torch.corrcoef(pair)[0, 1] for pair in stacked]).nan_to_num()
        return Artifact({name: value.cpu().numpy() for name, value in arrays.items()})

    inputs = (setup.dataset, *network_tasks, pairs(setup), *all_masks(setup, "N.x"))
    return Task("tables", f"measurements of Table 2 ({setup.profile.name})", {"seed": setup.seed}, compute, inputs)


def adaptive(setup: Setup) -> Task:
    """N's robustness with a mask applied, against the training attack through the network alone or the mask as well.

    Array `image` (K,) bool: whether N with each image's own M_{N,x} is correct under an attack through that mask.
    Arrays (N,) bool of the validation images, for N with its own dataset mask and with A's: `clean.<regime>`, without
    an attack; `unaware.<regime>`, attacked through N alone; `aware.<regime>`, attacked through the mask as well, an
    adaptive attack (Tramer et al., 2020).
    """
    spec, centre = setup.profile.train.attack, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, own_mask, robust_mask, *mask_parts = inputs
        model, images = setup.open_network(network), setup.open_dataset(dataset).validation
        arrays: dict[str, Tensor] = {}
        for regime, mask in {"N": own_mask, "A": robust_mask}.items():
            masked = Masked(model, torch.from_numpy(mask.arrays["half"]).to(setup.device), centre)
            arrays[f"clean.{regime}"] = correctness(masked, images)
            arrays[f"unaware.{regime}"] = correctness(model, images, setup.filtered(mask), spec, seed=setup.seed)
            arrays[f"aware.{regime}"] = correctness(masked, images, attack=spec, seed=setup.seed)
        _, pixels, half, targets = open_masks(setup, dataset, mask_parts)
        correct = []
        for number, part in enumerate(torch.arange(len(pixels), device=setup.device).split(256)):
            masked = Masked(model, half[part], centre)
            attacked = perturb(masked, pixels[part], targets[part], spec, seed=setup.seed, purpose=f"adaptive {number}")
            correct.append(predictions(masked, attacked) == targets[part])
        arrays["image"] = torch.cat(correct)
        return Artifact({name: value.cpu().numpy() for name, value in arrays.items()})

    inputs = (setup.dataset, setup.network("N"), setup.mask("N"), setup.mask("A"), *all_masks(setup, "N.x"))
    described = {"attack": spec_dict(spec), "seed": setup.seed}
    cost = 4.0 * spec.steps * setup.counts["validation"]
    return Task("adaptive", f"adaptive attacks ({setup.profile.name})", described, compute, inputs, cost=cost)


def attack_specs(setup: Setup) -> dict[str, tuple[str, float]]:
    """Name of each attack that is compared -> its family and radius (nan for a family without a radius)."""
    own = setup.profile.train.attack.epsilon
    pgd = {f"PGD {255 * radius:.2g}/255": ("PGD", radius) for radius in (own, *RADII)}
    return pgd | {"FGSM": ("FGSM", own)} | {family: (family, float("nan")) for family in ("DeepFool", "CW")}


def attacks(setup: Setup) -> Task:
    """Attacks of several families and radii against N: accuracy, mean spectrum, and accuracy with M_{N,x} applied.

    For each name of `attack_specs`: `N.<name>` and `A.<name>`, whether N and A classify the attacked validation images
    correctly (N,); `masked.<name>`, whether N does with M_{N,x} applied to them (K,); `spectrum.<name>`, the attack's
    mean power, each image's scaled to sum 1 over the full plane, as a half plane (H, Wh); `distance.<name>`, l2 norms
    (N,).
    """
    spec, centre = setup.profile.train.attack, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, standard, robust, *mask_parts = inputs
        images = setup.open_dataset(dataset).validation
        models = {"N": setup.open_network(standard), "A": setup.open_network(robust)}
        masks, _, half, targets = open_masks(setup, dataset, mask_parts)
        index, weights = torch.from_numpy(masks["image"]), column_weights(setup.profile.data.size, setup.device)
        arrays: dict[str, np.ndarray] = {}
        for name, (family, radius) in attack_specs(setup).items():
            scale = 1.0 if np.isnan(radius) else radius / spec.epsilon
            scaled = replace(spec, epsilon=scale * spec.epsilon, step=scale * spec.step)
            attacked = attack_all(models["N"], images, scaled, seed=setup.seed, purpose=name, family=family)
            change = attacked - images.pixels()
            power = torch.fft.rfft2(change).abs().square().mean(1)  # (N, H, Wh)
            total = (power * weights).sum((1, 2), keepdim=True)
            changed = total[:, 0, 0] > 0
            for regime, model in models.items():
                arrays[f"{regime}.{name}"] = (predictions(model, attacked) == images.labels).cpu().numpy()
            filtered = apply_mask(attacked[index.to(setup.device)], half, centre)
            arrays[f"masked.{name}"] = (predictions(models["N"], filtered) == targets).cpu().numpy()
            arrays[f"spectrum.{name}"] = (power[changed] / total[changed]).mean(0).cpu().numpy()
            arrays[f"distance.{name}"] = change.flatten(1).norm(dim=1).cpu().numpy()
        return Artifact(arrays)

    inputs = (setup.dataset, setup.network("N"), setup.network("A"), *all_masks(setup, "N.x"))
    described = {"attacks": attack_specs(setup), "attack": spec_dict(spec), "seed": setup.seed}
    cost = 80.0 * setup.counts["validation"]
    return Task("attacks", f"comparison of attacks ({setup.profile.name})", described, compute, inputs, cost=cost)


EXPERIMENTS = (
    Experiment(
        "tables",
        "image masks and attacks (Table 2, Fig. 7)",
        _tasks,
        _files,
        images=lambda setup: setup.counts["validation"],
    ),
    with_minimal_masks(
        Experiment(
            "tables",
            "image masks and attacks (Table 2)",
            lambda setup: [tables(setup)],
            lambda setup, store: {"tables.npz": arrays_to_bytes(store.get(tables(setup)).arrays)},
        )
    ),
)
