"""The tasks that measure with image masks: table 2 and its controls, attacks, separability of the classes."""

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
from fmlib.studies.shared.tasks import all_masks, open_masks, pairs


def _table_tasks(setup: Setup) -> list[Task]:
    return [make(setup) for make in (tables, attacks, adaptive)]


def _table_files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {f"{task.kind}.npz": arrays_to_bytes(store.get(task).arrays) for task in _table_tasks(setup)}


#: Radii of the l-infinity attacks besides the training attack's, pixel units.
RADII = (2 / 255, 4 / 255, 8 / 255)


def _passed(signal: Tensor, half: Tensor) -> Tensor:
    """Share of the energy of `signal` (K, C, H, W) that filters (K, H, Wh) let through: (K,)."""
    energy = torch.fft.rfft2(signal).abs().square().mean(1) * column_weights(signal.shape[-1], signal.device)
    return (energy * half**2).sum((1, 2)) / energy.sum((1, 2))


def tables(setup: Setup) -> Task:
    """Table 2: for each M_{N,x}, whether networks name the class of x, M(x), M(x_A) and the complement's image.

    Arrays (K,) bool: `x`, `xA`, `masked`, `masked_adversarial`, `complement`, both again with the binarised mask, each
    by N; `second.*` and `other.*` by networks to which no mask was fitted: the second architecture, and N of another
    seed where there is one. Arrays (K,) float: `similarity`, the correlation of M(x) with x over pixels (0 if M(x) is
    flat); `attack_inside` and `attack_matched`, the share of the attack's energy at the mask's frequencies and at a
    radially matched set; `attack_passed` and `image_passed`, the shares of the attack's and the image's energy that M
    passes.
    """
    observers = {"": (setup, 0), "second.": (setup.second, 0)}
    if setup.profile.repetitions > 1:
        observers["other."] = (setup, 1)
    networks = [one.network("N", repetition) for one, repetition in observers.values()]
    centre = setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, *rest = inputs
        paired, *parts = rest[len(networks) :]
        masks, pixels, half, targets = open_masks(setup, dataset, parts)
        attacked = torch.from_numpy(paired.arrays["xA"][masks["image"]]).to(setup.device)
        support = binarize(half)
        lookalike = controls.matched_control(support.bool(), generator(setup.seed, "table 2", setup.device)).float()
        shown = {
            "x": pixels,
            "xA": attacked,
            "masked": apply_mask(pixels, half, centre),
            "masked_adversarial": apply_mask(attacked, half, centre),
            "masked_binarised": apply_mask(pixels, support, centre),
            "masked_adversarial_binarised": apply_mask(attacked, support, centre),
            "complement": apply_mask(pixels, complement(half), centre),
        }
        hits: dict[str, Tensor] = {}
        for (prefix, (one, _)), network in zip(observers.items(), rest, strict=False):
            model = one.open_network(network)
            for name in shown if prefix == "" else ("x", "masked", "complement"):
                hits[prefix + name] = predictions(model, shown[name]) == targets
        hits["attack_inside"] = _passed(attacked - pixels, support)
        hits["attack_matched"] = _passed(attacked - pixels, lookalike)
        hits["attack_passed"], hits["image_passed"] = _passed(attacked - pixels, half), _passed(pixels - centre, half)
        stacked = torch.stack((pixels.flatten(1), shown["masked"].flatten(1)), 1)  # (K, 2, pixels)
        hits["similarity"] = torch.stack([torch.corrcoef(pair)[0, 1] for pair in stacked]).nan_to_num()
        return Artifact({name: value.cpu().numpy() for name, value in hits.items()})

    inputs = (setup.dataset, *networks, pairs(setup), *all_masks(setup, "N.x"))
    return Task("tables", f"image masks at work ({setup.profile.name})", {"seed": setup.seed}, compute, inputs)


def adaptive(setup: Setup) -> Task:
    """Whether N withstands the training attack behind masks that the attack knows: it goes through them.

    Array `image` (K,) bool: N behind each image's own M_{N,x}. Arrays (N,) bool of the validation images, N behind its
    own dataset mask and behind A's: `clean.<regime>`, not attacked; `unaware.<regime>`, attacked through N alone;
    `aware.<regime>`, attacked through the mask as well (Tramer et al., 2020).
    """
    spec, centre = setup.profile.train.attack, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, model = inputs[0], setup.open_network(inputs[1])
        images = setup.open_dataset(dataset).validation
        found: dict[str, Tensor] = {}
        for regime, mask in zip("NA", inputs[2:4], strict=True):
            masked = Masked(model, torch.from_numpy(mask.arrays["half"]).to(setup.device), centre)
            found[f"clean.{regime}"] = correctness(masked, images)
            found[f"unaware.{regime}"] = correctness(model, images, setup.filtered(mask), spec, seed=setup.seed)
            found[f"aware.{regime}"] = correctness(masked, images, attack=spec, seed=setup.seed)
        _, pixels, half, targets = open_masks(setup, dataset, inputs[4:])
        own = []
        for number, part in enumerate(torch.arange(len(pixels), device=setup.device).split(256)):
            masked = Masked(model, half[part], centre)
            attacked = perturb(masked, pixels[part], targets[part], spec, seed=setup.seed, purpose=f"adaptive {number}")
            own.append(predictions(masked, attacked) == targets[part])
        found["image"] = torch.cat(own)
        return Artifact({name: hits.cpu().numpy() for name, hits in found.items()})

    inputs = (setup.dataset, setup.network("N"), setup.mask("N"), setup.mask("A"), *all_masks(setup, "N.x"))
    described = {"attack": spec_dict(spec), "seed": setup.seed}
    cost = 4.0 * spec.steps * setup.counts["validation"]
    return Task("adaptive", f"attacks through masks ({setup.profile.name})", described, compute, inputs, cost=cost)


def attack_specs(setup: Setup) -> dict[str, tuple[str, float]]:
    """Name -> family and radius (nan where the family knows none) of each attack that is compared."""
    own = setup.profile.train.attack.epsilon
    radii = {f"{family} {255 * radius:.2g}/255": (family, radius) for family in ("PGD",) for radius in (own, *RADII)}
    return radii | {"FGSM": ("FGSM", own)} | {family: (family, float("nan")) for family in ("DeepFool", "CW")}


def attacks(setup: Setup) -> Task:
    """Attacks of several families and radii against N: who is fooled, by what spectrum, and what M_{N,x} undoes.

    For each name of `attack_specs`: `N.<name>` and `A.<name>`, whether N and A are right on the attacked validation
    images (N,); `masked.<name>`, whether N is right on M_{N,x} of them (K,); `spectrum.<name>`, the attack's mean
    power, each image's scaled to sum 1 over the whole plane, as a half plane (H, Wh); `distance.<name>`, l2 norms (N,).
    """
    spec, centre = setup.profile.train.attack, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        images = setup.open_dataset(inputs[0]).validation
        networks = {"N": setup.open_network(inputs[1]), "A": setup.open_network(inputs[2])}
        masks, _, half, targets = open_masks(setup, inputs[0], inputs[3:])
        index, weights = torch.from_numpy(masks["image"]), column_weights(setup.profile.data.size, setup.device)
        found: dict[str, np.ndarray] = {}
        for name, (family, radius) in attack_specs(setup).items():
            scale = 1.0 if np.isnan(radius) else radius / spec.epsilon
            scaled = replace(spec, epsilon=scale * spec.epsilon, step=scale * spec.step)
            attacked = attack_all(networks["N"], images, scaled, seed=setup.seed, purpose=name, family=family)
            change = attacked - images.pixels()
            power = torch.fft.rfft2(change).abs().square().mean(1)  # (N, H, Wh)
            total = (power * weights).sum((1, 2), keepdim=True)
            changed = total[:, 0, 0] > 0
            for regime, model in networks.items():
                found[f"{regime}.{name}"] = (predictions(model, attacked) == images.labels).cpu().numpy()
            filtered = apply_mask(attacked[index.to(setup.device)], half, centre)
            found[f"masked.{name}"] = (predictions(networks["N"], filtered) == targets).cpu().numpy()
            found[f"spectrum.{name}"] = (power[changed] / total[changed]).mean(0).cpu().numpy()
            found[f"distance.{name}"] = change.flatten(1).norm(dim=1).cpu().numpy()
        return Artifact(found)

    inputs = (setup.dataset, setup.network("N"), setup.network("A"), *all_masks(setup, "N.x"))
    described = {"attacks": attack_specs(setup), "attack": spec_dict(spec), "seed": setup.seed}
    cost = 80.0 * setup.counts["validation"]
    return Task("attacks", f"attacks compared ({setup.profile.name})", described, compute, inputs, cost=cost)


EXPERIMENTS = (Experiment("tables", "image masks and attacks (Table 2, Fig. 7)", _table_tasks, _table_files),)
