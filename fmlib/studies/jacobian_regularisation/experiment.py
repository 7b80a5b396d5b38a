"""The experiment of Jacobian frequency regularisation: networks with a frequency bias, and what becomes of them."""

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

#: What is packed of a task of corruptions -> the shape of each image's part.
SHAPES = {"corruptions": (len(CORRUPTIONS), len(SEVERITIES)), "bands": (BANDS, len(DEVIATIONS))}


def _each(setup: Setup) -> list[tuple[str, int]]:
    return [(regime, number) for regime, count in networks(setup).items() for number in range(count)]


def _tasks(setup: Setup) -> list[Task]:
    return [
        *(task(setup, *one) for one in _each(setup) for task in (jacobian, corrupted)),
        *(setup.evaluation(*one) for one in _each(setup)),
        *(robust(setup, *one) for one in _each(setup)),
        corruption_spectra(setup),
    ]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {
        "biased_networks.csv": csv([_described(setup, store, *one) for one in _each(setup)]),
        "jacobians.npz": arrays_to_bytes(_jacobians(setup, store)),
        "biased_evaluation.npz": arrays_to_bytes(_evaluations(setup, store)),
        "corruptions.csv": csv(_spectra(setup, store)),
        "corruptions.npz": arrays_to_bytes(_corruptions(setup, store)),
        "robustness.npz": arrays_to_bytes(_robustness(setup, store)),
    }


def _described(setup: Setup, store: Store, regime: str, number: int) -> dict[str, Any]:
    """A network's accuracies in percent, where its Jacobian and its dataset mask lie, and the mean amplitude of F."""
    hits, found = store.get(setup.evaluation(regime, number)).arrays, store.get(jacobian(setup, regime, number))
    half = torch.from_numpy(store.get(setup.mask(regime, number)).arrays["half"])
    mask = full_plane(half, setup.profile.data.size)
    row: dict[str, Any] = {"network": regime, "repetition": number}
    row |= {name: 100 * float(right.mean()) for name, right in hits.items()}
    row |= {"jacobian_low_share": float(np.nanmean(found.arrays["low"])), "statistic": found.facts["statistic"]}
    row["amplitude"] = float(found.arrays["amplitude"].mean())
    return row | {"mask_low_share": float(low_share(mask)), "mask_mean_radius": float(mean_radius(mask))}


def _jacobians(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """Of each regime: amplitudes over their mean (repetitions, H, W // 2 + 1), shares (repetitions, rings), low shares
    (repetitions, N).
    """
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(jacobian(setup, regime, number)).arrays for number in range(count)]
        amplitude, shares, low = (np.stack([one[name] for one in parts]) for name in ("amplitude", "shares", "low"))
        amplitude = amplitude / amplitude.mean((1, 2), keepdims=True)
        arrays |= {f"amplitude.{regime}": amplitude.astype(np.float16), f"shares.{regime}": shares}
        arrays[f"low.{regime}"] = low.astype(np.float16)
    return arrays


def _evaluations(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """Of each regime, packed: right unmasked, behind the mask, under the attack: (repetitions, N) each."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(setup.evaluation(regime, number)).arrays for number in range(count)]
        for what in parts[0]:
            arrays |= packed(f"{what}.{regime}", np.stack([one[what] for one in parts]))
    return arrays


def _spectra(setup: Setup, store: Store) -> list[dict[str, Any]]:
    """A row for each corruption and severity: where in the spectrum it acts."""
    arrays = store.get(corruption_spectra(setup)).arrays
    return [
        {"corruption": name, "severity": severity} | {column: array[place] for column, array in arrays.items()}
        for row, name in enumerate(CORRUPTIONS)
        for severity, place in ((severity, (row, severity - 1)) for severity in SEVERITIES)
    ]


def _corruptions(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """Of each regime: right on clean images, (repetitions, N); packed, on others, with kinds and strengths as well."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(corrupted(setup, regime, number)).arrays for number in range(count)]
        clean = arrays[f"clean.{regime}"] = np.stack([one["clean"] for one in parts])
        for kind, shape in SHAPES.items():
            whole = (clean.shape[1], *shape)
            bits = [np.unpackbits(one[kind], count=int(np.prod(whole))).reshape(whole) for one in parts]
            arrays |= packed(f"{kind}.{regime}", np.stack(bits))
    return arrays


def _robustness(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """`<attack>.<regime>`: right on each of the first images, and still so when attacked, (repetitions, N)."""
    arrays: dict[str, np.ndarray] = {}
    for regime, count in networks(setup).items():
        parts = [store.get(robust(setup, regime, number)).arrays for number in range(count)]
        arrays |= {f"{name}.{regime}": np.stack([one[name] for one in parts]) for name in parts[0]}
    return arrays


EXPERIMENTS = (
    Experiment(
        "jacobian-bias", "networks with a frequency bias: Jacobians, corruptions, attacks, masks", _tasks, _files
    ),
)
