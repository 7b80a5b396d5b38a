"""The experiment on Jacobian frequency regularisation: networks with a frequency bias, and their properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fmlib.core.spectra import full_plane, low_share, mean_radius
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Store, Task, arrays_to_bytes, csv, packed
from fmlib.studies.jacobian_regularisation.corruptions import CORRUPTIONS
from fmlib.studies.jacobian_regularisation.tasks import (
    BANDS,
    DEVIATIONS,
    SEVERITIES,
    corrupted,
    corruption_spectra,
    jacobian,
    networks,
    robust,
)
from fmlib.studies.shared.setup import Setup

#: Packed array of a `corrupted` task -> its shape for one image.
SHAPES = {"corruptions": (len(CORRUPTIONS), len(SEVERITIES)), "bands": (BANDS, len(DEVIATIONS))}


def _each(setup: Setup) -> list[tuple[str, int]]:
    """Regime and repetition of every network."""
    return [(regime, repetition) for regime, count in networks(setup).items() for repetition in range(count)]


def _tasks(setup: Setup) -> list[Task]:
    return [
        *(task(setup, *network) for network in _each(setup) for task in (jacobian, corrupted)),
        *(setup.evaluation(*network) for network in _each(setup)),
        *(robust(setup, *network) for network in _each(setup)),
        corruption_spectra(setup),
    ]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {
        "biased_networks.csv": csv([_network_row(setup, store, *network) for network in _each(setup)]),
        "jacobians.npz": arrays_to_bytes(_jacobians(setup, store)),
        "biased_evaluation.npz": arrays_to_bytes(_evaluations(setup, store)),
        "corruptions.csv": csv(_spectra(setup, store)),
        "corruptions.npz": arrays_to_bytes(_corruptions(setup, store)),
        "robustness.npz": arrays_to_bytes(_robustness(setup, store)),
    }


def _network_row(setup: Setup, store: Store, regime: str, repetition: int) -> dict[str, Any]:
    """A network's accuracies in percent, low shares of its Jacobian and its dataset mask, and mean amplitude of F."""
    evaluation = store.get(setup.evaluation(regime, repetition)).arrays
    spectrum = store.get(jacobian(setup, regime, repetition))
    half = torch.from_numpy(store.get(setup.mask(regime, repetition)).arrays["half"])
    mask = full_plane(half, setup.profile.data.size)
    row: dict[str, Any] = {"network": regime, "repetition": repetition}
    row |= {name: 100 * float(correct.mean()) for name, correct in evaluation.items()}
    row["jacobian_low_share"] = float(np.nanmean(spectrum.arrays["low"]))
    row["statistic"] = spectrum.facts["statistic"]
    row["amplitude"] = float(spectrum.arrays["amplitude"].mean())
    return row | {"mask_low_share": float(low_share(mask)), "mask_mean_radius": float(mean_radius(mask))}


def _jacobians(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """For each regime: amplitudes over their mean (repetitions, H, W // 2 + 1), shares (repetitions, rings), low
    shares (repetitions, N).
    """
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(jacobian(setup, regime, repetition)).arrays for repetition in range(count)]
        amplitude, shares, low = (np.stack([part[name] for part in parts]) for name in ("amplitude", "shares", "low"))
        amplitude = amplitude / amplitude.mean((1, 2), keepdims=True)
        arrays |= {f"amplitude.{regime}": amplitude.astype(np.float16), f"shares.{regime}": shares}
        arrays[f"low.{regime}"] = low.astype(np.float16)
    return arrays


def _evaluations(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """For each regime, packed: correct unmasked, with the mask applied, under the attack; (repetitions, N) each."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(setup.evaluation(regime, repetition)).arrays for repetition in range(count)]
        for kind in parts[0]:
            arrays |= packed(f"{kind}.{regime}", np.stack([part[kind] for part in parts]))
    return arrays


def _spectra(setup: Setup, store: Store) -> list[dict[str, Any]]:
    """One row per corruption and severity: where in the spectrum it acts."""
    arrays = store.get(corruption_spectra(setup)).arrays
    return [
        {"corruption": name, "severity": severity}
        | {column: array[row, severity - 1] for column, array in arrays.items()}
        for row, name in enumerate(CORRUPTIONS)
        for severity in SEVERITIES
    ]


def _corruptions(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """For each regime: correct on clean images, (repetitions, N); packed, on changed ones: see `SHAPES`."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(corrupted(setup, regime, repetition)).arrays for repetition in range(count)]
        clean = arrays[f"clean.{regime}"] = np.stack([part["clean"] for part in parts])
        for kind, shape in SHAPES.items():
            whole = (clean.shape[1], *shape)
            correct = [np.unpackbits(part[kind], count=int(np.prod(whole))).reshape(whole) for part in parts]
            arrays |= packed(f"{kind}.{regime}", np.stack(correct))
    return arrays


def _robustness(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """`<attack>.<regime>`: correct on each of the first images, clean and under each attack, (repetitions, N)."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(robust(setup, regime, repetition)).arrays for repetition in range(count)]
        arrays |= {f"{name}.{regime}": np.stack([part[name] for part in parts]) for name in parts[0]}
    return arrays


EXPERIMENTS = (
    Experiment(
        "jacobian-bias", "networks with a frequency bias: Jacobians, corruptions, attacks, masks", _tasks, _files
    ),
)
