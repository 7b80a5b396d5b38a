"""Five instruments that measure which frequencies a network uses, on the same networks and images.

Each gives a profile, one number of at least 0 for each octave of frequency:

mask         mean of the network's dataset mask
jacobian     mean power of the loss's gradient with respect to the pixels
heat         mean rise of the error rate when one frequency is added (Yin et al., 2019)
noise        sensitivity to noise in the octave, by critical-band masking (Subramanian et al., 2023)
hybrid       rise of the share of images classified as the one whose low frequencies they have, when the octave is
             counted as low (hybrid images: Li et al., 2023)

The first three are stored as they are. The other two follow from whether each image is classified correctly, which is
stored: see `analysis`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core.config import ImageSpec, spec_dict
from fmlib.core.data import Split
from fmlib.core.device import generator
from fmlib.core.evaluation import predictions
from fmlib.core.heat_maps import errors
from fmlib.core.jacobian import input_gradients
from fmlib.core.spectra import apply_mask, full_plane, radius
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, packed
from fmlib.studies.shared.noise import STRENGTH, band_noise
from fmlib.studies.shared.sequential import ITERATIONS, STEPS, sequential_mask
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import first_images

#: Instrument -> its name on the page.
INSTRUMENTS = {
    "mask": "dataset mask",
    "jacobian": "Jacobian spectrum",
    "heat": "heat map",
    "noise": "critical band",
    "hybrid": "hybrid images",
}

#: Standard deviations of the noise in one octave, pixels in [0, 1].
DEVIATIONS = tuple(0.005 * 2**step for step in range(9))

#: Frequencies per octave, drawn at random, of the heat map.
FREQUENCIES = 12

#: Steps of the dataset mask without photographs.
FEW_STEPS = 6


def networks(setup: Setup) -> list[tuple[str, int]]:
    """Regime and repetition of the networks: N and A from every seed, all others once."""
    profile = setup.profile
    kinds = dict.fromkeys((*profile.regimes, *profile.regularised, *profile.regularised_once))
    return [(kind, seed) for kind in kinds for seed in range(profile.repetitions if kind in ("N", "A") else 1)]


def octaves(size: int) -> list[tuple[float, float]]:
    """The octaves about 1, 2, 4, ... cycles per image, from low to high; the last one reaches the corner."""
    count = int(math.log2(size / 2)) + 1
    edges = [2 ** (step - 0.5) for step in range(count)] + [math.inf]
    return list(pairwise(edges))


def members(size: int) -> Tensor:
    """Which frequencies each octave holds: (octaves, size, size) bool. None holds DC."""
    distance = radius(size, size)
    return torch.stack([(distance >= low) & (distance < high) for low, high in octaves(size)])


def octave_means(plane: Tensor) -> np.ndarray:
    """Mean over each octave of a plane (H, W), DC at (0, 0): (octaves,)."""
    inside = members(plane.shape[-1]).to(plane)
    return ((inside * plane).sum((1, 2)) / inside.sum((1, 2))).cpu().numpy()


def gradient_power(model: nn.Module, images: Split) -> Tensor:
    """Mean over images and channels of |FFT|^2 of the loss's gradient: (H, W)."""
    gradients = [input_gradients(model, pixels, labels) for pixels, labels in images.batches(256)]
    return torch.fft.fft2(torch.cat(gradients)).abs().square().mean((0, 1))


def added_error(model: nn.Module, images: Split, seed: int) -> np.ndarray:
    """Mean rise of the error rate over frequencies of each octave, each added alone: (octaves,), at least 0."""
    size = images.images.shape[-1]
    clean = float((predictions(model, images.pixels()) != images.labels).float().mean())
    found = []
    for number, inside in enumerate(members(size)[:, :, : size // 2 + 1]):
        listed = torch.nonzero(inside)
        chosen = listed[torch.randperm(len(listed), generator=generator(seed, f"octave {number}"))[:FREQUENCIES]]
        found.append(errors(model, images, STRENGTH * size, seed=seed, frequencies=chosen).float().mean() - clean)
    return np.maximum(np.array(found), 0)


def in_noise(model: nn.Module, images: Split, seed: int) -> Tensor:
    """Whether each image is classified correctly in noise: (octaves, deviations, N) bool. Pixels are not clamped."""
    pixels = images.pixels()
    rows = []
    for number, (low, high) in enumerate(octaves(pixels.shape[-1])):
        noise = band_noise(pixels, low, high, pixels[0].numel() ** 0.5, generator(seed, f"noise {number}"))
        noisy = (predictions(model, pixels + deviation * noise) == images.labels for deviation in DEVIATIONS)
        rows.append(torch.stack(list(noisy)))
    return torch.stack(rows).cpu()


def hybrids(images: Split, centre: float) -> Iterator[Tensor]:
    """Low frequencies of each image and the high ones of the one before it, (N, C, H, W).

    The first has only DC of the former; in each further one, one octave more counts as low. Pixels are not clamped.
    """
    pixels = images.pixels()
    size, others = pixels.shape[-1], pixels.roll(1, 0)
    low = torch.zeros(size, size // 2 + 1, device=pixels.device)
    low[0, 0] = 1
    for inside in [torch.zeros(size, size, dtype=torch.bool), *members(size)]:
        low = torch.maximum(low, inside[:, : size // 2 + 1].to(low))
        yield apply_mask(pixels, low, centre) + apply_mask(others, 1 - low, centre) - centre


def in_hybrids(model: nn.Module, images: Split, centre: float) -> tuple[Tensor, Tensor]:
    """Whether hybrids are classified as the image of their low frequencies, and as that of the high ones.

    Returns:
        Two arrays (octaves + 1, pairs) bool, over the pairs of different classes.
    """
    other = images.labels.roll(1)
    pairs = images.labels != other
    predicted = torch.stack([predictions(model, mixed)[pairs] for mixed in hybrids(images, centre)])
    return (predicted == images.labels[pairs]).cpu(), (predicted == other[pairs]).cpu()


def instruments(setup: Setup, regime: str, repetition: int) -> Task:
    """All instruments on one network: all but the mask see the first validation images, equally many per class.

    Arrays: `mask`, `jacobian` and `heat`, (octaves,); packed bits of `clean` (N,), `noise` (octaves, deviations, N),
    `low` and `high` (octaves + 1, pairs).
    """
    profile = setup.profile
    centre, count = profile.network.mean, profile.n_corrupted
    steps = STEPS if isinstance(profile.data, ImageSpec) else FEW_STEPS

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        model, images = setup.open_network(network), first_images(setup, dataset, count)
        whole, options = setup.open_dataset(dataset).validation, {"seed": setup.seed, "steps": steps}
        half = sequential_mask(model, whole.pixels(), whole.labels, profile.mask, centre=centre, **options)
        mask = full_plane(half, profile.data.size)
        arrays = {"mask": octave_means(mask), "jacobian": octave_means(gradient_power(model, images))}
        arrays["heat"] = added_error(model, images, setup.seed)
        arrays |= packed("clean", (predictions(model, images.pixels()) == images.labels).cpu().numpy())
        arrays |= packed("noise", in_noise(model, images, setup.seed).numpy())
        for name, chosen in zip(("low", "high"), in_hybrids(model, images, centre), strict=True):
            arrays |= packed(name, chosen.numpy())
        return Artifact(arrays)

    described = {"images": count, "mask": spec_dict(profile.mask), "steps": [steps, ITERATIONS], "seed": setup.seed}
    described |= {"deviations": DEVIATIONS, "frequencies": FREQUENCIES, "strength": STRENGTH}
    name = f"instruments on {regime} ({setup.title}, seed {setup.seed + repetition})"
    bands = len(octaves(profile.data.size))
    cost = steps * 256 + count * bands * (FREQUENCIES + len(DEVIATIONS)) / 3  # most of these only forward
    return Task("instruments", name, described, compute, (setup.dataset, setup.network(regime, repetition)), cost=cost)


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    arrays: dict[str, Any] = {"classes": np.array(len(store.get(setup.dataset).facts["classes"]))}
    for regime, repetition in networks(setup):
        found = store.get(instruments(setup, regime, repetition)).arrays
        arrays |= {f"{regime}.{repetition}/{name}": array for name, array in found.items()}
    return {"instruments.npz": arrays_to_bytes(arrays)}


EXPERIMENTS = (
    Experiment(
        "instruments",
        "five instruments that measure which frequencies a network uses",
        lambda setup: [instruments(setup, *network) for network in networks(setup)],
        _files,
        images=lambda setup: setup.profile.n_corrupted,
        precision="float32",
    ),
)
