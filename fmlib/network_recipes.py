"""The recipes of networks, dataset masks and planted frequencies: their jobs, and the files they publish."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_weights
from torch import Tensor

from fmlib import harmonics
from fmlib.config import PlantedSpec
from fmlib.data import planted_tones, sample_photograph, tone_mask
from fmlib.lab import Lab
from fmlib.recipe import Recipe, csv
from fmlib.spectra import apply_mask, correlation, full_plane, half_plane, l1_share, low_share, mean_radius
from fmlib.store import Artifact, Job, Store, arrays_to_bytes

#: Networks of fewer weights than this are published with the results.
SMALL = 1_000_000


def _each(lab: Lab) -> list[tuple[str, int]]:
    return [(regime, number) for number in range(lab.profile.repetitions) for regime in lab.profile.regimes]


def _network_jobs(lab: Lab) -> list[Job]:
    return [lab.network(regime, number) for regime, number in _each(lab)]


def files_of_networks(lab: Lab, store: Store) -> dict[str, bytes]:
    """Every epoch of every network; and the weights of the first N and A, where they are few."""
    rows, files = [], {}
    for regime, number in _each(lab):
        artifact = store.get(lab.network(regime, number))
        for epoch, values in enumerate(zip(*artifact.arrays.values(), strict=True), 1):
            rows.append(
                {"regime": regime, "repetition": number, "epoch": epoch}
                | dict(zip(artifact.arrays, values, strict=True))
            )
        if number == 0 and regime in "NA" and sum(w.numel() for w in artifact.weights.values()) < SMALL:
            files[f"network_{regime}.safetensors"] = save_weights(artifact.weights)
    return files | {"training.csv": csv(rows)}


_VARIANTS = ("order", "single", "half")


def _mask_jobs(lab: Lab) -> list[Job]:
    jobs = [job for regime, number in _each(lab) for job in (lab.mask(regime, number), lab.evaluation(regime, number))]
    return [*jobs, *(lab.mask("N", variant=variant) for variant in _VARIANTS), lab.held_out()]


def _mask_files(lab: Lab, store: Store) -> dict[str, bytes]:
    files, masks = files_of_dataset_masks(lab, store, _VARIANTS)
    return files | {
        "stability.csv": csv(_stability(lab, masks)),
        "held_out.npz": arrays_to_bytes(store.get(lab.held_out()).arrays),
        "scheme.npz": arrays_to_bytes(_scheme(lab, masks["N", 0, "plain"])),
    }


def files_of_dataset_masks(
    lab: Lab, store: Store, variants: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[tuple[str, int, str], Tensor]]:
    """The files of dataset masks, N's also in these variants; and the masks over the full plane."""
    rows, history, masks = [], [], {}
    hits: dict[str, np.ndarray] = {}
    fits = [(r, n, "plain") for r, n in _each(lab)] + [("N", 0, variant) for variant in variants]
    for regime, number, variant in fits:
        artifact = store.get(lab.mask(regime, number, variant))
        masks[regime, number, variant] = full_plane(torch.from_numpy(artifact.arrays["half"]), lab.profile.data.size)
        label = {"regime": regime, "repetition": number, "variant": variant}
        rows.append(label | _describe(lab, artifact, variant))
        for epoch in range(len(artifact.arrays["l1_share"])):
            values = {
                name: float(artifact.arrays[name][epoch]) for name in ("invariance", "l1_share", "kept", "guarded")
            }
            history.append(label | {"epoch": epoch + 1} | values)
    for regime in lab.profile.regimes:
        found = [store.get(lab.evaluation(regime, n)).arrays for n in range(lab.profile.repetitions)]
        hits |= {f"{what}.{regime}": np.stack([one[what] for one in found]) for what in found[0]}
    stacked = {
        regime: torch.stack([masks[regime, n, "plain"] for n in range(lab.profile.repetitions)]).numpy()
        for regime in lab.profile.regimes
    }
    stacked |= {f"N.{variant}": masks["N", 0, variant].numpy() for variant in variants}
    files = {
        "masks.csv": csv(rows),
        "mask_history.csv": csv(history),
        "dataset_masks.npz": arrays_to_bytes(stacked),
        "evaluation.npz": arrays_to_bytes(hits),
    }
    return files, masks


def _describe(lab: Lab, artifact: Artifact, variant: str) -> dict[str, Any]:
    """What a dataset mask looks like, and how its fit ended."""
    half = torch.from_numpy(artifact.arrays["half"])
    full = full_plane(half, lab.profile.data.size)
    spec = lab.profile.single_mask if variant == "single" else lab.profile.mask
    images = math.ceil(lab.counts["validation"] / (2 if variant == "half" else 1))
    return {
        "l1_share": float(l1_share(half, lab.profile.data.size)),
        "low_share": float(low_share(full)),
        "mean_radius": float(mean_radius(full)),
        "invariance": float(artifact.arrays["invariance"][-1]),
        "guarded": float(artifact.arrays["guarded"][-1]),
        "steps": artifact.facts["epochs"] * math.ceil(images / spec.batch),
        "last_change": float(abs(np.diff(artifact.arrays["l1_share"], prepend=1.0)[-1])),
    } | artifact.facts


def _stability(lab: Lab, masks: dict[tuple[str, int, str], Tensor]) -> list[dict[str, Any]]:
    """Correlations of masks that should agree: other order, one image a step, half the images, another network."""
    rows = []
    for variant in _VARIANTS:
        value = float(correlation(masks["N", 0, "plain"], masks["N", 0, variant]))
        rows.append({"pair": variant, "regime": "N", "correlation": value})
    for regime in lab.profile.regimes:
        for number in range(1, lab.profile.repetitions):
            value = float(correlation(masks[regime, 0, "plain"], masks[regime, number, "plain"]))
            rows.append({"pair": "network", "regime": regime, "correlation": value})
    return rows


def _scheme(lab: Lab, mask: Tensor) -> dict[str, np.ndarray]:
    """A photograph at the profile's size, and what the mask lets through."""
    image = sample_photograph("china", lab.profile.data.size).float() / 255
    filtered = apply_mask(image[None], half_plane(mask), lab.profile.network.mean)[0]
    return {"image": image[0].numpy(), "filtered": filtered[0].numpy(), "mask": mask.numpy()}


def _planted_jobs(lab: Lab) -> list[Job]:
    labs = [lab.planted(number) for number in range(lab.profile.planted_repetitions)]
    return [*(one.evaluation("N") for one in labs), labs[0].mask("A")]


def _planted_files(lab: Lab, store: Store) -> dict[str, bytes]:
    rows, files = [], {}
    for number in range(lab.profile.planted_repetitions):
        one = lab.planted(number)
        spec = one.profile.data
        assert isinstance(spec, PlantedSpec)
        full = full_plane(torch.from_numpy(store.get(one.mask("N")).arrays["half"]), spec.size)
        tones, distractors = planted_tones(spec, one.seed)
        truth, decoys, kept = tone_mask(tones, spec.size), tone_mask(distractors, spec.size), full > 0.5
        found = store.get(one.evaluation("N")).arrays
        rows.append(
            {
                "repetition": number,
                "precision": float((truth * kept).sum() / kept.sum().clamp_min(1)),
                "recall": float((truth * kept).sum() / truth.sum()),
                "distractors_kept": int((decoys * kept).sum()),
                "largest_elsewhere": float((full * (1 - truth)).max()),
                "standard": float(found["standard"].mean()),
                "masked": float(found["masked"].mean()),
            }
        )
        if number == 0:
            images = one.open_dataset(store.get(one.dataset)).validation.images[: spec.classes, 0]  # one a class
            arrays = {"mask": full, "tones": truth, "distractors": decoys, "images": images.cpu()}
            arrays["mask.A"] = full_plane(torch.from_numpy(store.get(one.mask("A")).arrays["half"]), spec.size)
            files["planted.npz"] = arrays_to_bytes({name: array.numpy() for name, array in arrays.items()})
            for regime in "NA":
                files[f"planted_network_{regime}.safetensors"] = save_weights(store.get(one.network(regime)).weights)
    return files | {"planted.csv": csv(rows)}


def _harmonic_jobs(lab: Lab) -> list[Job]:
    return []


def _harmonic_files(lab: Lab, store: Store) -> dict[str, bytes]:
    return {
        "harmonics.csv": csv(harmonics.table()),
        "intermodulation.csv": csv(harmonics.intermodulation_table()),
        "translation.csv": csv(harmonics.translation_damping()),
        "waveforms.npz": arrays_to_bytes(harmonics.waveforms()),
    }


RECIPES = (
    Recipe("harmonics", "harmonics and intermodulation of activations (F1)", _harmonic_jobs, _harmonic_files),
    Recipe("planted", "masks where the informative frequencies are known", _planted_jobs, _planted_files),
    Recipe("networks", "networks of the five training regimes", _network_jobs, files_of_networks),
    Recipe("dataset-masks", "one mask a network (F2, T1, F3, F4)", _mask_jobs, _mask_files),
)
