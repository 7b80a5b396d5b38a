"""The jobs that measure with image masks: table 2 and its controls, attacks, separability of the classes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from fmlib import controls, separability
from fmlib.attacks import perturb
from fmlib.image_lab import all_masks, attack_all, joined, pairs, predictions
from fmlib.lab import Lab
from fmlib.models import Masked
from fmlib.runtime import generator
from fmlib.spectra import apply_mask, binarize, column_weights, complement
from fmlib.store import Artifact, Job
from fmlib.training import correctness

#: Shares of a mask's own frequencies that are kept or removed, the strongest first.
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
#: What stands for the mask's own frequencies as a control: anywhere, or as many at each radius.
SETS = {"own": lambda sets, draws: sets, "scattered": controls.scattered, "matched": controls.matched}
#: Radii of the l-infinity attacks besides the training attack's, pixel units.
RADII = (2 / 255, 4 / 255, 8 / 255)


def _opened(lab: Lab, dataset: Artifact, parts: list[Artifact]) -> tuple[dict[str, np.ndarray], Tensor, Tensor, Tensor]:
    """All masks of one kind; their images' pixels; the masks and their targets, as tensors on the device."""
    masks = joined(parts)
    index = torch.from_numpy(masks["image"]).to(lab.device)
    pixels = lab.open_dataset(dataset).validation.pixels(index)
    half, targets = (torch.from_numpy(masks[name]).to(lab.device) for name in ("half", "target"))
    return masks, pixels, half, targets


def _passed(signal: Tensor, half: Tensor) -> Tensor:
    """Share of the energy of `signal` (K, C, H, W) that filters (K, H, Wh) let through: (K,)."""
    energy = torch.fft.rfft2(signal).abs().square().mean(1) * column_weights(signal.shape[-1], signal.device)
    return (energy * half**2).sum((1, 2)) / energy.sum((1, 2))


def tables(lab: Lab) -> Job:
    """Table 2: for each M_{N,x}, whether networks name the class of x, M(x), M(x_A) and the complement's image.

    Arrays (K,) bool: `x`, `xA`, `masked`, `masked_adversarial`, `complement`, both again with the binarised mask, each
    by N; `second.*` and `other.*` by networks to which no mask was fitted: the second architecture, and N of another
    seed where there is one. Arrays (K,) float: `likeness`, the correlation of M(x) with x over pixels (0 if M(x) is
    flat); `attack_inside` and `attack_matched`, the share of the attack's energy at the mask's frequencies and at a
    radially matched set; `attack_passed` and `image_passed`, the shares of the attack's and the image's energy that M
    passes.
    """
    observers = {"": (lab, 0), "second.": (lab.second, 0)}
    if lab.profile.repetitions > 1:
        observers["other."] = (lab, 1)
    networks = [one.network("N", repetition) for one, repetition in observers.values()]
    centre = lab.profile.network.mean

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        dataset, *rest = inputs
        paired, *parts = rest[len(networks) :]
        masks, pixels, half, targets = _opened(lab, dataset, parts)
        attacked = torch.from_numpy(paired.arrays["xA"][masks["image"]]).to(lab.device)
        support = binarize(half)
        lookalike = controls.matched(support.bool(), generator(lab.seed, "table 2", lab.device)).float()
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
        hits["likeness"] = torch.stack([torch.corrcoef(pair)[0, 1] for pair in stacked]).nan_to_num()
        return Artifact({name: value.cpu().numpy() for name, value in hits.items()})

    inputs = (lab.dataset, *networks, pairs(lab), *all_masks(lab, "N.x"))
    return Job("tables", f"image masks at work ({lab.profile.name})", {"seed": lab.seed}, compute, inputs)


def necessity(lab: Lab) -> Job:
    """Whether N keeps its class when the strongest of a mask's frequencies, or a control, are all that stays or goes.

    Arrays `keep.<set>` and `remove.<set>`, sets as in SETS: (fractions, K) bool.
    """
    centre = lab.profile.network.mean

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        _, pixels, half, targets = _opened(lab, inputs[0], inputs[2:])
        model = lab.open_network(inputs[1])
        found: dict[str, list[np.ndarray]] = {f"{way}.{name}": [] for way in ("keep", "remove") for name in SETS}
        for fraction in FRACTIONS:
            own = controls.strongest(half, fraction)
            for name, choose in SETS.items():
                sets = choose(own, generator(lab.seed, f"necessity {name} {fraction}", lab.device)).float()
                for way, mask in (("keep", sets), ("remove", 1 - sets)):
                    right = predictions(model, apply_mask(pixels, mask, centre)) == targets
                    found[f"{way}.{name}"].append(right.cpu().numpy())
        return Artifact({name: np.stack(rows) for name, rows in found.items()})

    inputs = (lab.dataset, lab.network("N"), *all_masks(lab, "N.x"))
    described = {"fractions": FRACTIONS, "seed": lab.seed}
    return Job("necessity", f"frequencies kept or removed ({lab.profile.name})", described, compute, inputs)


def adaptive(lab: Lab) -> Job:
    """Whether N withstands the training attack behind masks that the attack knows: it goes through them.

    Array `image` (K,) bool: N behind each image's own M_{N,x}. Arrays (N,) bool of the validation images, N behind its
    own dataset mask and behind A's: `clean.<regime>`, not attacked; `unaware.<regime>`, attacked through N alone;
    `aware.<regime>`, attacked through the mask as well (Tramer et al., 2020).
    """
    spec, centre = lab.profile.train.attack, lab.profile.network.mean

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        dataset, model = inputs[0], lab.open_network(inputs[1])
        images = lab.open_dataset(dataset).validation
        found: dict[str, Tensor] = {}
        for regime, mask in zip("NA", inputs[2:4], strict=True):
            masked = Masked(model, torch.from_numpy(mask.arrays["half"]).to(lab.device), centre)
            found[f"clean.{regime}"] = correctness(masked, images)
            found[f"unaware.{regime}"] = correctness(model, images, lab.behind(mask), spec, seed=lab.seed)
            found[f"aware.{regime}"] = correctness(masked, images, attack=spec, seed=lab.seed)
        _, pixels, half, targets = _opened(lab, dataset, inputs[4:])
        own = []
        for number, part in enumerate(torch.arange(len(pixels), device=lab.device).split(256)):
            masked = Masked(model, half[part], centre)
            attacked = perturb(masked, pixels[part], targets[part], spec, seed=lab.seed, purpose=f"adaptive {number}")
            own.append(predictions(masked, attacked) == targets[part])
        found["image"] = torch.cat(own)
        return Artifact({name: hits.cpu().numpy() for name, hits in found.items()})

    inputs = (lab.dataset, lab.network("N"), lab.mask("N"), lab.mask("A"), *all_masks(lab, "N.x"))
    described = {"attack": asdict(spec), "seed": lab.seed}
    passes = 4.0 * spec.steps * lab.counts["validation"]
    return Job("adaptive", f"attacks through masks ({lab.profile.name})", described, compute, inputs, passes=passes)


def attack_specs(lab: Lab) -> dict[str, tuple[str, float]]:
    """Name -> family and radius (nan where the family knows none) of each attack that is compared."""
    own = lab.profile.train.attack.epsilon
    radii = {f"{family} {255 * radius:.2g}/255": (family, radius) for family in ("PGD",) for radius in (own, *RADII)}
    return radii | {"FGSM": ("FGSM", own)} | {family: (family, float("nan")) for family in ("DeepFool", "CW")}


def attacks(lab: Lab) -> Job:
    """Attacks of several families and radii against N: who is fooled, by what spectrum, and what M_{N,x} undoes.

    For each name of `attack_specs`: `N.<name>` and `A.<name>`, whether N and A are right on the attacked validation
    images (N,); `masked.<name>`, whether N is right on M_{N,x} of them (K,); `spectrum.<name>`, the attack's mean
    power, each image's scaled to sum 1 over the whole plane, as a half plane (H, Wh); `distance.<name>`, l2 norms (N,).
    """
    spec, centre = lab.profile.train.attack, lab.profile.network.mean

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images = lab.open_dataset(inputs[0]).validation
        networks = {"N": lab.open_network(inputs[1]), "A": lab.open_network(inputs[2])}
        masks, _, half, targets = _opened(lab, inputs[0], inputs[3:])
        index, weights = torch.from_numpy(masks["image"]), column_weights(lab.profile.data.size, lab.device)
        found: dict[str, np.ndarray] = {}
        for name, (family, radius) in attack_specs(lab).items():
            scale = 1.0 if np.isnan(radius) else radius / spec.epsilon
            scaled = replace(spec, epsilon=scale * spec.epsilon, step=scale * spec.step)
            attacked = attack_all(networks["N"], images, scaled, seed=lab.seed, purpose=name, family=family)
            change = attacked - images.pixels()
            power = torch.fft.rfft2(change).abs().square().mean(1)  # (N, H, Wh)
            total = (power * weights).sum((1, 2), keepdim=True)
            changed = total[:, 0, 0] > 0
            for regime, model in networks.items():
                found[f"{regime}.{name}"] = (predictions(model, attacked) == images.labels).cpu().numpy()
            filtered = apply_mask(attacked[index.to(lab.device)], half, centre)
            found[f"masked.{name}"] = (predictions(networks["N"], filtered) == targets).cpu().numpy()
            found[f"spectrum.{name}"] = (power[changed] / total[changed]).mean(0).cpu().numpy()
            found[f"distance.{name}"] = change.flatten(1).norm(dim=1).cpu().numpy()
        return Artifact(found)

    inputs = (lab.dataset, lab.network("N"), lab.network("A"), *all_masks(lab, "N.x"))
    described = {"attacks": attack_specs(lab), "attack": asdict(spec), "seed": lab.seed}
    passes = 80.0 * lab.counts["validation"]
    return Job("attacks", f"attacks compared ({lab.profile.name})", described, compute, inputs, passes=passes)


def separability_of_classes(lab: Lab) -> Job:
    """Table 3 and figure 8: linear classifiers on M_{N,x}, over repeated splits, and maps of their outputs.

    Arrays: `splits` (20, 4) as separability.repeated_splits; `permuted` (99,), `score` and `p` as
    separability.permutation; of each map `points.<map>` (K', 2), `held.<map>`, `labels.<map>` and
    `neighbours.<map>`, maps being outputs, shuffled and masks.
    """
    splits, rounds = 20, 99

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        masks = joined(inputs)
        chosen = separability.balanced(masks["target"])
        features = csr_matrix(masks["half"][chosen].reshape(len(chosen), -1))
        labels = masks["target"][chosen]
        shuffled = np.random.default_rng(lab.seed).permutation(labels)
        score, permuted, p = separability.permutation(features, labels, rounds, lab.seed)
        found = {"splits": separability.repeated_splits(features, labels, splits, lab.seed)}
        found |= {"score": np.array(score), "permuted": permuted, "p": np.array(p)}
        for name, targets, draw in (
            ("outputs", labels, separability.umap_of_outputs),
            ("shuffled", shuffled, separability.umap_of_outputs),
            ("masks", labels, separability.umap_of_masks),
        ):
            made = draw(features, targets, lab.seed)
            found |= {f"points.{name}": made.points, f"held.{name}": made.held, f"labels.{name}": targets}
            found[f"neighbours.{name}"] = separability.neighbours(made, targets)
        return Artifact(found)

    described = {"splits": splits, "rounds": rounds, "seed": lab.seed}
    name = f"separability of classes ({lab.profile.name})"
    return Job("separability", name, described, compute, all_masks(lab, "N.x"))
