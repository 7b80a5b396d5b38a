"""The jobs on the frequency bias of networks: their Jacobians, and what they make of corrupted and attacked images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.config import AttackSpec, Profile
from fmlib.corruptions import CORRUPTIONS, band_noise, corrupt, frequencies
from fmlib.data import Split
from fmlib.image_lab import attack_all, candidates, predictions
from fmlib.jacobian import input_gradients, jafr_statistic, radial_shares
from fmlib.lab import Lab
from fmlib.runtime import generator
from fmlib.spectra import corner_radius, full_plane, low_share, mean_amplitude
from fmlib.store import Artifact, Job

SEVERITIES = range(1, 6)

#: Noise in bands: how many of equal width from DC to the corner, and root mean squares of a pixel's change.
BANDS, DEVIATIONS = 6, (0.05, 0.1)


def networks(lab: Lab) -> dict[str, int]:
    """Regime -> how many networks of it are compared."""
    return dict.fromkeys(lab.profile.repeated, lab.profile.bias_repetitions) | dict.fromkeys(lab.profile.biased, 1)


def first_images(lab: Lab, dataset: Artifact, count: int) -> Split:
    """The first `count` of the validation images considered, as many of each class."""
    whole = lab.open_dataset(dataset).validation
    chosen = candidates(lab, whole.labels.cpu().numpy())[:count]
    return Split(whole.images[chosen], whole.labels[chosen])


def jacobian(lab: Lab, regime: str, repetition: int) -> Job:
    """The spectrum of a network's Jacobian on the validation images.

    amplitude: F, see fmlib.jacobian, (H, W // 2 + 1); shares: the images' mean power by radius, (rings,);
    low: each image's share of energy below a third of the corner radius, (N,), nan where its gradient vanishes.
    """

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images, model = lab.open_dataset(inputs[0]).validation, lab.open_network(inputs[1])
        gradients = torch.cat([input_gradients(model, *batch) for batch in images.batches(256)])
        amplitude = mean_amplitude(gradients)
        arrays = {"amplitude": amplitude, "low": low_shares(gradients)}
        felt = gradients[~arrays["low"].isnan()]
        arrays["shares"] = radial_shares(felt / felt.abs().amax((1, 2, 3), keepdim=True)).mean(0)
        facts = {"statistic": float(jafr_statistic(amplitude))}
        return Artifact({name: array.cpu().numpy() for name, array in arrays.items()}, facts=facts)

    name = f"Jacobian of {regime} ({lab.title}, seed {lab.seed + repetition})"
    inputs = (lab.dataset, lab.network(regime, repetition))
    return Job("jacobian", name, {}, compute, inputs, passes=lab.counts["validation"])


def low_shares(gradients: Tensor) -> Tensor:
    """Each gradient's share of energy at radii below a third of the corner's: (B, C, H, W) -> (B,), nan for nought."""
    largest = gradients.abs().amax((1, 2, 3), keepdim=True)
    power = torch.fft.rfft2(gradients / largest.clamp_min(1e-30)).abs().square().sum(1)  # (B, H, W // 2 + 1)
    found = low_share(full_plane(power.sqrt(), gradients.shape[-1]))
    return found.masked_fill(largest.flatten() < 1e-30, torch.nan)


def corrupted_images(pixels: Tensor, seed: int) -> Iterator[Tensor]:
    """Pixels (B, C, H, W) under each corruption at each severity, in order of name as in CORRUPTIONS."""
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            yield corrupt(pixels, name, severity, generator(seed, f"{name} {severity}", pixels.device))


def noisy_images(pixels: Tensor, seed: int) -> Iterator[Tensor]:
    """Pixels (B, C, H, W) with noise in each band at each deviation, clamped to [0, 1]: see BANDS, DEVIATIONS."""
    height, width = pixels.shape[-2:]
    edges = np.linspace(0, corner_radius(height, width) + 1e-3, BANDS + 1)  # the corner itself is in
    for band in range(BANDS):
        for deviation in DEVIATIONS:
            draws = generator(seed, f"band {band} {deviation}", pixels.device)
            norm = deviation * pixels[0].numel() ** 0.5
            yield (pixels + band_noise(pixels, edges[band], edges[band + 1], norm, draws)).clamp(0, 1)


def corrupted(lab: Lab, regime: str, repetition: int) -> Job:
    """Whether a network is right on the first images, under each corruption and under noise in each band.

    clean: (N,); corruptions: packed bits of (N, 14, 5), kinds by severities; bands: packed bits of (N, 6, 2), bands by
    deviations. The images are the same for every network.
    """

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images, model = first_images(lab, inputs[0], lab.profile.corrupted), lab.open_network(inputs[1])

        def right(pixels: Tensor) -> np.ndarray:
            return (predictions(model, pixels) == images.labels).cpu().numpy()

        found = {"clean": right(images.pixels())}
        for name, changed in (("corruptions", corrupted_images), ("bands", noisy_images)):
            found[name] = np.packbits(np.stack([right(pixels) for pixels in changed(images.pixels(), lab.seed)], 1))
        return Artifact(found)

    described = {"images": lab.profile.corrupted, "bands": BANDS, "deviations": DEVIATIONS, "seed": lab.seed}
    name = f"corruptions of {regime} ({lab.title}, seed {lab.seed + repetition})"
    kinds = 1 + len(CORRUPTIONS) * len(SEVERITIES) + BANDS * len(DEVIATIONS)
    inputs = (lab.dataset, lab.network(regime, repetition))
    return Job("corrupted", name, described, compute, inputs, passes=kinds * lab.profile.corrupted / 3)  # forward only


def corruption_spectra(lab: Lab) -> Job:
    """Where each corruption acts: mean_radius, low_share and statistic, (14, 5) each; see corruptions.frequencies."""

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        pixels = first_images(lab, inputs[0], lab.profile.corrupted).pixels()
        found = [frequencies(pixels, changed)[1:] for changed in corrupted_images(pixels, lab.seed)]
        facts = np.array(found).reshape(len(CORRUPTIONS), len(SEVERITIES), 3)
        return Artifact(dict(zip(("mean_radius", "low_share", "statistic"), np.moveaxis(facts, -1, 0), strict=True)))

    described = {"images": lab.profile.corrupted, "seed": lab.seed}
    return Job("corruption_spectra", f"spectra of corruptions ({lab.title})", described, compute, (lab.dataset,))


def trials(profile: Profile) -> dict[str, tuple[str, AttackSpec]]:
    """What a network is tried by: name -> family and spec of the attack; "PGD half" has half the radius."""
    spec = profile.evaluation
    half = replace(spec, epsilon=spec.epsilon / 2, step=spec.step / 2)
    return {
        "PGD half": ("PGD", half),
        "PGD": ("PGD", spec),
        "AutoAttack": ("AutoAttack", spec),
        "Square": ("Square", spec),
    }


def robust(lab: Lab, regime: str, repetition: int = 0) -> Job:
    """Whether a network is right on each of the first images, and stays right under each of the `trials`: (N,) each."""

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        images, model = first_images(lab, inputs[0], lab.profile.tried), lab.open_network(inputs[1])
        found = {"clean": predictions(model, images.pixels()) == images.labels}
        for name, (family, spec) in trials(lab.profile).items():
            attacked = attack_all(model, images, spec, seed=lab.seed, purpose=f"robust {name}", family=family)
            found[name] = found["clean"] & (predictions(model, attacked) == images.labels)
        return Artifact({name: right.cpu().numpy() for name, right in found.items()})

    spec = lab.profile.evaluation
    rounds = 2 * spec.steps * spec.restarts + 9 * spec.steps + 2 * spec.queries / 3  # if every image withstands
    described = {"attack": asdict(spec), "images": lab.profile.tried, "seed": lab.seed}
    inputs = (lab.dataset, lab.network(regime, repetition))
    name = f"robustness of {regime} ({lab.title}, seed {lab.seed + repetition})"
    return Job("robust", name, described, compute, inputs, passes=rounds * lab.profile.tried)
