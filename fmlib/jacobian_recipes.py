"""The recipe of Jacobian frequency regularisation: networks with a frequency bias, and what becomes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fmlib.corruptions import CORRUPTIONS
from fmlib.jacobian_claims import packed
from fmlib.jacobian_lab import (
    BANDS,
    DEVIATIONS,
    SEVERITIES,
    corrupted,
    corruption_spectra,
    jacobian,
    networks,
    robust,
)
from fmlib.lab import Lab
from fmlib.recipe import Recipe, csv
from fmlib.spectra import full_plane, low_share, mean_radius
from fmlib.store import Job, Store, arrays_to_bytes

SHAPES = {"corruptions": (len(CORRUPTIONS), len(SEVERITIES)), "bands": (BANDS, len(DEVIATIONS))}


def _jobs(lab: Lab) -> list[Job]:
    found = [
        job
        for regime, count in networks(lab).items()
        for number in range(count)
        for job in (jacobian(lab, regime, number), corrupted(lab, regime, number), lab.evaluation(regime, number))
    ]
    return [*found, *(robust(lab, regime) for regime in networks(lab)), corruption_spectra(lab)]


def _files(lab: Lab, store: Store) -> dict[str, bytes]:
    rows: list[dict[str, Any]] = []
    jacobians: dict[str, np.ndarray] = {}
    hits: dict[str, np.ndarray] = {}
    changed: dict[str, np.ndarray] = {}
    for regime, count in networks(lab).items():
        numbers = range(count)
        spectra = [store.get(jacobian(lab, regime, number)) for number in numbers]
        judged = [store.get(lab.evaluation(regime, number)).arrays for number in numbers]
        amplitudes = np.stack([one.arrays["amplitude"] for one in spectra])
        jacobians[f"amplitude.{regime}"] = _half_precision(amplitudes / amplitudes.mean((1, 2), keepdims=True))
        jacobians[f"shares.{regime}"] = np.stack([one.arrays["shares"] for one in spectra])
        jacobians[f"low.{regime}"] = _half_precision(np.stack([one.arrays["low"] for one in spectra]))
        for what in judged[0]:
            hits |= packed(f"{what}.{regime}", np.stack([one[what] for one in judged]))
        found = [store.get(corrupted(lab, regime, number)).arrays for number in numbers]
        changed[f"clean.{regime}"] = np.stack([one["clean"] for one in found])
        for kind, shape in SHAPES.items():
            whole = (changed[f"clean.{regime}"].shape[1], *shape)
            parts = [np.unpackbits(one[kind], count=np.prod(whole)).reshape(whole) for one in found]
            changed |= packed(f"{kind}.{regime}", np.stack(parts))
        for number in numbers:
            mask = full_plane(
                torch.from_numpy(store.get(lab.mask(regime, number)).arrays["half"]), lab.profile.data.size
            )
            rows.append(
                {"network": regime, "repetition": number}
                | {name: 100 * right.mean() for name, right in judged[number].items()}
                | {
                    "jacobian_low_share": float(np.nanmean(spectra[number].arrays["low"])),
                    "statistic": spectra[number].facts["statistic"],
                    "mask_low_share": float(low_share(mask)),
                    "mask_mean_radius": float(mean_radius(mask)),
                }
            )
    tried = {
        f"{trial}.{regime}": right
        for regime in networks(lab)
        for trial, right in store.get(robust(lab, regime)).arrays.items()
    }
    return {
        "biased_networks.csv": csv(rows),
        "jacobians.npz": arrays_to_bytes(jacobians),
        "biased_evaluation.npz": arrays_to_bytes(hits),
        "corruptions.csv": csv(_spectra(lab, store)),
        "corruptions.npz": arrays_to_bytes(changed),
        "robustness.npz": arrays_to_bytes(tried),
    }


def _spectra(lab: Lab, store: Store) -> list[dict[str, Any]]:
    """A row for each corruption and severity: where in the spectrum it acts."""
    arrays = store.get(corruption_spectra(lab)).arrays
    return [
        {"corruption": name, "severity": severity}
        | {column: array[place, severity - 1] for column, array in arrays.items()}
        for place, name in enumerate(CORRUPTIONS)
        for severity in SEVERITIES
    ]


def _half_precision(values: np.ndarray) -> np.ndarray:
    """Numbers of which four digits are enough."""
    return values.astype(np.float16)


RECIPES = (
    Recipe("jacobian-bias", "networks with a frequency bias: Jacobians, corruptions, attacks, masks", _jobs, _files),
)
