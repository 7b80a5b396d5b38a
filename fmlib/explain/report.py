"""What a report measures on a model: masks, their controls, Jacobian spectrum, heat map and attack.

Every number has its 95% interval over the images, what it is compared with, and a sentence on how to read it. Labels
are the model's own predictions, so that shares of predictions kept start at 100%.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib import __version__
from fmlib.core.controls import matched_control
from fmlib.core.device import frozen, generator
from fmlib.core.errors import require
from fmlib.core.intervals import Measured, average, exact, wilson
from fmlib.core.spectra import apply_mask, corner_radius, full_plane, low_share, radial_energy, radius
from fmlib.explain.classifier import ATTACK, NOISE, Classifier
from fmlib.explain.explanation import Explanation
from fmlib.explain.fourier_mask import FourierMask

#: Rings and sectors of the curves.
BANDS = 16
#: Radii of the heat map as fractions of the Nyquist frequency, directions per radius, and its largest number of images.
RADII, DIRECTIONS, HEAT_IMAGES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0), 4, 32
#: Steps of the mask of all images.
SHARED_STEPS = 60
SEED = 0


@dataclass
class Row:
    """One number of a report."""

    name: str
    value: Measured
    unit: str
    control: Measured | None
    against: str  # what the control is
    reading: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value._asdict(),
            "control": self.control._asdict() if self.control else None,
            "against": self.against,
            "reading": self.reading,
        }


@dataclass
class Report:
    """What `measure` found.

    Attributes:
        rows: the numbers.
        curves: name -> (bands, 3): mean over the images, low and high; that of the heat map has one band per radius.
        images: masks of each image.
        dataset: one mask for all images.
        heat: share of predictions changed by noise of each frequency of `frequencies`, (F,).
        frequencies: (F, 2), cycles per image; `DIRECTIONS` for each radius.
        radii: of the heat map, as fractions of the Nyquist frequency.
        seconds: how long the measurement took.
    """

    rows: list[Row]
    curves: dict[str, np.ndarray]
    images: Explanation
    dataset: Explanation
    heat: np.ndarray
    frequencies: np.ndarray
    radii: list[float]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the masks."""
        return {
            "fmlib": __version__,
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "images_sha256": _hash(self.images.images),
            "seconds": self.seconds,
            "about": self.images.about,
            "n": len(self.images.images),
            "size": list(self.images.images.shape[-2:]),
            "rows": [row.as_dict() for row in self.rows],
            "curves": {name: np.asarray(curve).tolist() for name, curve in self.curves.items()},
            "radii": self.radii,
            "heat": [
                {"frequency": pair.tolist(), "share": float(share)}
                for pair, share in zip(self.frequencies, self.heat, strict=True)
            ],
        }


def measure(door: FourierMask, images: Tensor, *, say: Callable[[str], None] = lambda line: None) -> Report:
    """Measure a model on images.

    Args:
        door: the model, its solver and its options; its `max_seconds` bounds the masks of the images, and again the
            mask of all images.
        images: (N, C, H, W) in the declared range, at least 2.
        say: called with a line of progress before each part.

    Raises:
        FmlibError: the model or the images fail the check.
    """
    require(len(images) >= 2, f"a report needs at least 2 images for its intervals, not {len(images)}")
    start = time.perf_counter()
    classifier = door.classifier
    pixels, labels = classifier.pixels(images)
    say(f"masks of {len(pixels)} images")
    found = door.fit(images, labels)
    say("one mask for all images")
    shared = FourierMask(
        classifier, penalty=0.2, steps=SHARED_STEPS, max_seconds=door.max_seconds, progress=door.progress
    )
    dataset = shared.fit(images, labels, shared="all")
    with frozen(classifier):
        say("controls")
        rows = [*_size(found), *_sufficiency(classifier, found), *_shared(classifier, dataset)]
        curves = _mask_curves(found, dataset)
        say("Jacobian spectrum")
        rows += _jacobian(found, classifier.jacobian_spectrum(images, labels), curves)
        say("heat map")
        radii, frequencies, heat = _heat_map(classifier, images, found, rows, curves)
        say("attack")
        rows += _attack(classifier, classifier.attack(images, labels, seed=SEED), found, curves)
    return Report(rows, curves, found, dataset, heat, frequencies, radii, time.perf_counter() - start)


def _size(found: Explanation) -> list[Row]:
    """How many frequencies the image masks hold, and how low they are."""
    height, width = found.images.shape[-2:]
    full = _one_plane(found.masks.full())
    low = low_share(full)
    uniform = float(100 * low_share(torch.ones(height, width)))
    share = percent(found.nonzero_share)
    return [
        Row(
            "Frequencies in the image masks",
            share,
            "% of all",
            None,
            "",
            "The smaller, the fewer frequencies suffice for the loss of an image. Other small sets may suffice too.",
        ),
        Row(
            "Energy of the image masks below a third of the largest frequency",
            percent(low),
            "%",
            exact(uniform, 1),
            "a mask that keeps all frequencies",
            "Above the control, the model relies on low frequencies; below it, on high ones.",
        ),
    ]


def _sufficiency(classifier: Classifier, found: Explanation) -> list[Row]:
    """Predictions kept by the masks' frequencies alone and without them, against random sets of the same radii."""
    sets = found.half > 0
    flat = sets if sets.ndim == 3 else sets.flatten(0, 1)
    drawn = matched_control(flat.cpu(), generator(SEED, "report controls"), found.masks.width)
    control = drawn.view_as(sets).to(sets.device)

    def kept(mask: Tensor) -> Measured:
        filtered = apply_mask(found.images, mask.to(found.images.dtype), found.centre)
        return wilson((classifier.predict(filtered) == found.labels).cpu().numpy())

    same = "as many random frequencies at the same radii"
    return [
        Row(
            "Predictions kept with the mask applied",
            wilson(found.kept.cpu().numpy()),
            "%",
            kept(control),
            same,
            "By construction near 100%: compare with the control, which shows how special these frequencies are.",
        ),
        Row(
            "Predictions kept by the mask's frequencies at full strength",
            kept(sets),
            "%",
            kept(control),
            same,
            "What the frequencies do as a set, without their weights.",
        ),
        Row(
            "Predictions kept by the complement",
            wilson(found.kept_complement.cpu().numpy()),
            "%",
            kept(~control),
            f"{same} removed",
            "Far below the control, the model needs these frequencies; near it, others can replace them.",
        ),
    ]


def _shared(classifier: Classifier, dataset: Explanation) -> list[Row]:
    """Predictions kept by the mask of all images, against its weights shuffled within rings."""
    shuffled = shuffled_in_rings(dataset.masks.half[0], dataset.masks.width, generator(SEED, "report rings"))
    filtered = apply_mask(dataset.images, shuffled, dataset.centre)
    control = wilson((classifier.predict(filtered) == dataset.labels).cpu().numpy())
    return [
        Row(
            "Predictions kept with one mask for all images",
            wilson(dataset.kept.cpu().numpy()),
            "%",
            control,
            "its weights shuffled within rings of equal radius",
            f"This mask has the mean {float(dataset.share[0]):.3f}. Near the control, only radius matters and not "
            "direction.",
        )
    ]


def shuffled_in_rings(half: Tensor, width: int, rng: torch.Generator) -> Tensor:
    """A half mask (H, W // 2 + 1) whose entries are shuffled within rings one cycle per image wide."""
    ring = radius(half.shape[0], width)[:, : half.shape[1]].round().flatten()
    order = ring.argsort(stable=True)
    random = (ring + 0.99 * torch.rand(ring.shape, generator=rng)).argsort()
    shuffled = torch.empty_like(half.flatten())
    shuffled[order.to(half.device)] = half.flatten()[random.to(half.device)]
    return shuffled.view_as(half)


def _mask_curves(found: Explanation, dataset: Explanation) -> dict[str, np.ndarray]:
    """Radial and angular energy of the masks, and the amplitude of the images."""
    spectrum = torch.fft.fft2(found.images - found.centre).abs().mean(1)
    parts = {
        "mask radial": _one_plane(found.masks.full()),
        "dataset radial": dataset.masks.full(),
        "images radial": spectrum,
    }
    curves = {name: _curve(radial_energy(full, BANDS)) for name, full in parts.items()}
    angular = {
        "mask angular": found.angular_energy(BANDS),
        "dataset angular": dataset.angular_energy(BANDS),
    }
    return curves | {name: _curve(energy.flatten(0, -2)) for name, energy in angular.items()}


def _jacobian(found: Explanation, amplitude: Tensor, curves: dict[str, np.ndarray]) -> list[Row]:
    """The spectrum of the input gradients (N, H, W), against that of the images."""
    natural = torch.fft.fft2(found.images - found.images.mean((2, 3), True)).abs().mean(1)
    curves["Jacobian radial"] = _curve(radial_energy(amplitude, BANDS))
    low, reference = (percent(low_share(plane)) for plane in (amplitude, natural))
    return [
        Row(
            "Energy of the input gradients below a third of the largest frequency",
            low,
            "%",
            reference,
            "the same of the images",
            "Where the loss is most sensitive. Gradients show what changes the loss, not what images contain.",
        )
    ]


def _heat_map(
    classifier: Classifier, images: Tensor, found: Explanation, rows: list[Row], curves: dict[str, np.ndarray]
) -> tuple[list[float], np.ndarray, np.ndarray]:
    """Predictions changed by noise of single frequencies, against white noise; adds to `rows` and `curves`."""
    count = min(len(images), HEAT_IMAGES)
    pixels, labels = found.images[:count], found.labels[:count]
    radii, frequencies = heat_frequencies(*pixels.shape[-2:])
    changed = classifier.heat_map(images[:count], labels, frequencies=frequencies, seed=SEED).float()  # (N, F)
    rings = changed.view(count, len(radii), DIRECTIONS).mean(2)  # (N, radii)
    curves["heat radial"] = _curve(rings)
    noise = NOISE * torch.randn(pixels.shape, generator=generator(SEED, "white noise")).to(pixels)
    white = classifier.predict((pixels + noise).clamp(0, 1)) != labels
    worst = int(rings.mean(0).argmax())
    rows.append(
        Row(
            "Predictions changed by noise of one frequency at the worst radius",
            percent(rings[:, worst]),
            "%",
            wilson(white.cpu().numpy()),
            "white noise of the same norm",
            f"Noise of root mean square {NOISE:g} per pixel, at {radii[worst]:g} of the Nyquist frequency, which is "
            f"the worst of {len(radii)} radii: a choice that favours it over the control.",
        )
    )
    return radii, frequencies.numpy(), changed.mean(0).numpy()


def heat_frequencies(height: int, width: int) -> tuple[list[float], Tensor]:
    """The radii of the heat map that are at least one cycle per image, and `DIRECTIONS` frequencies of each.

    Returns:
        Fractions of the Nyquist frequency, and (F, 2) pairs of cycles per image in the half plane.
    """
    radii = [part for part in RADII if part * min(height, width) / 2 >= 1] or [RADII[-1]]
    pairs = []
    for part in radii:
        for angle in (torch.arange(DIRECTIONS) * math.pi / DIRECTIONS).tolist():
            down, across = round(part * height / 2 * math.sin(angle)), round(part * width / 2 * math.cos(angle))
            pairs.append((down % height, across) if across >= 0 else (-down % height, -across))
    return radii, torch.tensor(pairs)


def _attack(classifier: Classifier, attacked: Tensor, found: Explanation, curves: dict[str, np.ndarray]) -> list[Row]:
    """Predictions kept under PGD, against random signs, and the spectrum of the perturbation."""
    pixels, labels = found.images, found.labels
    rng = generator(SEED, "random signs")
    signs = (2 * torch.randint(0, 2, pixels.shape, generator=rng) - 1).to(pixels)
    random = (pixels + ATTACK.epsilon * signs).clamp(0, 1)
    spectra = [torch.fft.fft2(changed - pixels).abs().mean(1) for changed in (attacked, random)]
    curves["attack radial"] = _curve(radial_energy(spectra[0], BANDS))
    kept = [wilson((classifier.predict(changed) == labels).cpu().numpy()) for changed in (attacked, random)]
    low = [percent(low_share(spectrum)) for spectrum in spectra]
    size = f"{255 * ATTACK.epsilon:.0f}/255"
    return [
        Row(
            f"Predictions kept under PGD of radius {size}",
            kept[0],
            "%",
            kept[1],
            "random signs of the same size",
            f"Robustness to an attack of {ATTACK.steps} steps from one start: stronger attacks may find more.",
        ),
        Row(
            "Energy of the PGD perturbation below a third of the largest frequency",
            low[0],
            "%",
            low[1],
            "random signs",
            "Where the attack acts.",
        ),
    ]


def percent(shares: Tensor) -> Measured:
    """Mean of shares (N,) in percent with its normal 95% interval, cut to what a share can be."""
    value, low, high, n = average(100 * shares.cpu().double().numpy())
    return Measured(value, max(low, 0.0), min(high, 100.0), n)


def _hash(images: Tensor) -> str:
    """SHA-256 of images (N, C, H, W) in steps of 1/255, to see whether reports have the same."""
    return hashlib.sha256((255 * images).round().byte().cpu().contiguous().numpy().tobytes()).hexdigest()


def _one_plane(full: Tensor) -> Tensor:
    """Masks (K, H, W); those with channels are averaged over them."""
    return full if full.ndim == 3 else full.mean(1)


def _curve(energy: Tensor) -> np.ndarray:
    """Mean over images with its 95% interval: (N, bands) -> (bands, 3)."""
    values = energy.detach().cpu().double().numpy()
    return np.array([average(column)[:3] for column in values.T])


def nyquist(size: tuple[int, int]) -> float:
    """Radius of the Nyquist frequency as a fraction of the corner radius."""
    return min(size) / 2 / corner_radius(*size)


def full_masks(found: Explanation) -> np.ndarray:
    """Masks over the full plane, (K, H, W)."""
    return _one_plane(full_plane(found.masks.half, found.masks.width)).float().cpu().numpy()
