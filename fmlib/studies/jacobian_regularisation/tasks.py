"""Tasks on networks with a frequency bias: their Jacobians, and their accuracy on corrupted and attacked images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core.config import AttackSpec, spec_dict
from fmlib.core.device import generator
from fmlib.core.evaluation import attack_all, predictions
from fmlib.core.jacobian import input_gradients, jafr_statistic, radial_shares
from fmlib.core.spectra import corner_radius, full_plane, low_share, mean_amplitude
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.jacobian_regularisation.corruptions import CORRUPTIONS, corrupt, frequencies
from fmlib.studies.shared.noise import band_noise
from fmlib.studies.shared.profiles import Profile
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import first_images

SEVERITIES = range(1, 6)

#: Noise in frequency bands: the number of bands of equal width from DC to the corner, and the root mean squares of a
#: pixel's change.
BANDS, DEVIATIONS = 6, (0.05, 0.1)


def networks(setup: Setup) -> dict[str, int]:
    """Regime -> the number of its networks that are compared."""
    return dict.fromkeys(setup.profile.regularised, setup.profile.bias_repetitions) | dict.fromkeys(
        setup.profile.regularised_once, 1
    )


def jacobian(setup: Setup, regime: str, repetition: int) -> Task:
    """The spectrum of a network's Jacobian on the validation images.

    amplitude: F, see `fmlib.core.jacobian`, (H, W // 2 + 1); shares: mean power of the images by radius, (rings,);
    low: each image's share of energy below a third of the corner radius, (N,), nan where its gradient vanishes.
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        images, model = setup.open_dataset(dataset).validation, setup.open_network(network)
        gradients = torch.cat([input_gradients(model, *batch) for batch in images.batches(256)])
        amplitude = mean_amplitude(gradients)
        arrays = {"amplitude": amplitude, "low": low_shares(gradients)}
        nonzero = gradients[~arrays["low"].isnan()]
        arrays["shares"] = radial_shares(nonzero / nonzero.abs().amax((1, 2, 3), keepdim=True)).mean(0)
        facts = {"statistic": float(jafr_statistic(amplitude))}
        return Artifact({name: array.cpu().numpy() for name, array in arrays.items()}, facts=facts)

    name = f"Jacobian of {regime} ({setup.title}, seed {setup.seed + repetition})"
    inputs = (setup.dataset, setup.network(regime, repetition))
    return Task("jacobian", name, {}, compute, inputs, cost=setup.counts["validation"])


def low_shares(gradients: Tensor) -> Tensor:
    """Each gradient's share of energy below a third of the corner radius: (B, C, H, W) -> (B,), nan for zero."""
    largest = gradients.abs().amax((1, 2, 3), keepdim=True)
    power = torch.fft.rfft2(gradients / largest.clamp_min(1e-30)).abs().square().sum(1)  # (B, H, W // 2 + 1)
    shares = low_share(full_plane(power.sqrt(), gradients.shape[-1]))
    return shares.masked_fill(largest.flatten() < 1e-30, torch.nan)


def corrupted_images(pixels: Tensor, seed: int) -> Iterator[Tensor]:
    """Pixels (B, C, H, W) under each corruption at each severity, in the order of CORRUPTIONS."""
    for name in CORRUPTIONS:
        for severity in SEVERITIES:
            yield corrupt(pixels, name, severity, generator(seed, f"{name} {severity}", pixels.device))


def noisy_images(pixels: Tensor, seed: int) -> Iterator[Tensor]:
    """Pixels (B, C, H, W) with noise in each band at each deviation, clamped to [0, 1]: see BANDS, DEVIATIONS."""
    height, width = pixels.shape[-2:]
    edges = np.linspace(0, corner_radius(height, width) + 1e-3, BANDS + 1)  # includes the corner itself
    for band in range(BANDS):
        for deviation in DEVIATIONS:
            rng = generator(seed, f"band {band} {deviation}", pixels.device)
            norm = deviation * pixels[0].numel() ** 0.5
            yield (pixels + band_noise(pixels, edges[band], edges[band + 1], norm, rng)).clamp(0, 1)


def corrupted(setup: Setup, regime: str, repetition: int) -> Task:
    """Whether a network classifies the first images correctly, under each corruption and under noise in each band.

    clean: (N,); corruptions: packed bits of (N, 14, 5), corruptions by severities; bands: packed bits of (N, 6, 2),
    bands by deviations. Every network sees the same images.
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        images, model = first_images(setup, dataset, setup.profile.n_corrupted), setup.open_network(network)

        def correct(pixels: Tensor) -> np.ndarray:
            return (predictions(model, pixels) == images.labels).cpu().numpy()

        arrays = {"clean": correct(images.pixels())}
        for name, changed in (("corruptions", corrupted_images), ("bands", noisy_images)):
            arrays[name] = np.packbits(
                np.stack([correct(pixels) for pixels in changed(images.pixels(), setup.seed)], 1)
            )
        return Artifact(arrays)

    described = {"images": setup.profile.n_corrupted, "bands": BANDS, "deviations": DEVIATIONS, "seed": setup.seed}
    name = f"corruptions of {regime} ({setup.title}, seed {setup.seed + repetition})"
    versions = 1 + len(CORRUPTIONS) * len(SEVERITIES) + BANDS * len(DEVIATIONS)
    inputs = (setup.dataset, setup.network(regime, repetition))
    cost = versions * setup.profile.n_corrupted / 3  # forward only
    return Task("corrupted", name, described, compute, inputs, cost=cost)


def corruption_spectra(setup: Setup) -> Task:
    """Where each corruption acts: mean_radius, low_share and statistic, (14, 5) each; see `corruptions.frequencies`."""

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        (dataset,) = inputs
        pixels = first_images(setup, dataset, setup.profile.n_corrupted).pixels()
        rows = [frequencies(pixels, changed)[1:] for changed in corrupted_images(pixels, setup.seed)]
        table = np.array(rows).reshape(len(CORRUPTIONS), len(SEVERITIES), 3)
        return Artifact(dict(zip(("mean_radius", "low_share", "statistic"), np.moveaxis(table, -1, 0), strict=True)))

    described = {"images": setup.profile.n_corrupted, "seed": setup.seed}
    return Task("corruption_spectra", f"spectra of corruptions ({setup.title})", described, compute, (setup.dataset,))


def attacks(profile: Profile) -> dict[str, tuple[str, AttackSpec]]:
    """The attacks on each network: name -> family and spec; "PGD half" has half the radius."""
    spec = profile.evaluation
    half = replace(spec, epsilon=spec.epsilon / 2, step=spec.step / 2)
    return {
        "PGD half": ("PGD", half),
        "PGD": ("PGD", spec),
        "AutoAttack": ("AutoAttack", spec),
        "Square": ("Square", spec),
    }


def robust(setup: Setup, regime: str, repetition: int = 0) -> Task:
    """Whether each of the first images is classified correctly, clean and under each of the `attacks`: (N,) each.

    An image counts as correct under an attack only if it is also correct without it.
    """

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        images, model = first_images(setup, dataset, setup.profile.n_robust), setup.open_network(network)
        correct = {"clean": predictions(model, images.pixels()) == images.labels}
        for name, (family, spec) in attacks(setup.profile).items():
            attacked = attack_all(model, images, spec, seed=setup.seed, purpose=f"robust {name}", family=family)
            correct[name] = correct["clean"] & (predictions(model, attacked) == images.labels)
        return Artifact({name: array.cpu().numpy() for name, array in correct.items()})

    spec = setup.profile.evaluation
    rounds = 2 * spec.steps * spec.restarts + 9 * spec.steps + 2 * spec.queries / 3  # if every image stays correct
    described = {"attack": spec_dict(spec), "images": setup.profile.n_robust, "seed": setup.seed}
    inputs = (setup.dataset, setup.network(regime, repetition))
    name = f"robustness of {regime} ({setup.title}, seed {setup.seed + repetition})"
    return Task("robust", name, described, compute, inputs, cost=rounds * setup.profile.n_robust)
