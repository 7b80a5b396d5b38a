"""Named recipes: which of a lab's jobs each needs, and which tables and arrays it publishes."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_weights
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import functional

from fmlib import __version__, claims, harmonics
from fmlib.config import PlantedSpec, fingerprint, require
from fmlib.data import planted_tones, tone_mask
from fmlib.lab import Lab
from fmlib.results import Results
from fmlib.spectra import apply_mask, correlation, full_plane, half_plane, l1_share, low_share, mean_radius
from fmlib.store import Artifact, Job, Store, arrays_to_bytes, write_bytes

#: Networks of fewer weights than this are published with the results.
SMALL = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """A named piece of the book: its jobs, and the files it publishes from their artifacts."""

    name: str
    about: str
    jobs: Callable[[Lab], list[Job]]
    export: Callable[[Lab, Store], dict[str, bytes]]

    def tree(self, lab: Lab) -> list[Job]:
        """Every job of the recipe and all they need, needs first, each once."""
        found: dict[str, Job] = {}
        for job in (needed for item in self.jobs(lab) for needed in item.tree()):
            found.setdefault(job.key, job)
        return list(found.values())


def _each(lab: Lab) -> list[tuple[str, int]]:
    return [(regime, number) for number in range(lab.profile.repetitions) for regime in lab.profile.regimes]


def _csv(rows: list[dict[str, Any]]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()


def _network_jobs(lab: Lab) -> list[Job]:
    return [lab.network(regime, number) for regime, number in _each(lab)]


def _network_files(lab: Lab, store: Store) -> dict[str, bytes]:
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
    return files | {"training.csv": _csv(rows)}


_VARIANTS = ("order", "single", "half")


def _mask_jobs(lab: Lab) -> list[Job]:
    jobs = [job for regime, number in _each(lab) for job in (lab.mask(regime, number), lab.evaluation(regime, number))]
    return [*jobs, *(lab.mask("N", variant=variant) for variant in _VARIANTS), lab.held_out()]


def _mask_files(lab: Lab, store: Store) -> dict[str, bytes]:
    rows, history, masks = [], [], {}
    hits: dict[str, np.ndarray] = {}
    fits = [(r, n, "plain") for r, n in _each(lab)] + [("N", 0, variant) for variant in _VARIANTS]
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
    stacked |= {f"N.{variant}": masks["N", 0, variant].numpy() for variant in _VARIANTS}
    return {
        "masks.csv": _csv(rows),
        "mask_history.csv": _csv(history),
        "stability.csv": _csv(_stability(lab, masks)),
        "dataset_masks.npz": arrays_to_bytes(stacked),
        "evaluation.npz": arrays_to_bytes(hits),
        "held_out.npz": arrays_to_bytes(store.get(lab.held_out()).arrays),
        "scheme.npz": arrays_to_bytes(_scheme(lab, masks["N", 0, "plain"])),
    }


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
    """A photograph that ships with scikit-learn, gray and at the profile's size, and what the mask lets through."""
    photograph = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)  # (3, H, W)
    size = [lab.profile.data.size]
    gray = functional.rgb_to_grayscale(photograph)
    image = functional.center_crop(functional.resize(gray, size, antialias=True), size).float() / 255
    filtered = apply_mask(image[None], half_plane(mask), lab.profile.network.mean)[0]
    return {"image": image[0].numpy(), "filtered": filtered[0].numpy(), "mask": mask.numpy()}


def _planted_jobs(lab: Lab) -> list[Job]:
    labs = [lab.planted(number) for number in range(lab.profile.planted_repetitions)]
    return [one.evaluation("N") for one in labs]


def _planted_files(lab: Lab, store: Store) -> dict[str, bytes]:
    rows, arrays = [], {}
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
            image = one.open_dataset(store.get(one.dataset)).validation.pixels(slice(1))[0, 0]
            arrays = {"mask": full, "tones": truth, "distractors": decoys, "image": image.cpu()}
    return {
        "planted.csv": _csv(rows),
        "planted.npz": arrays_to_bytes({name: array.numpy() for name, array in arrays.items()}),
    }


def _harmonic_jobs(lab: Lab) -> list[Job]:
    return []


def _harmonic_files(lab: Lab, store: Store) -> dict[str, bytes]:
    return {
        "harmonics.csv": _csv(harmonics.table()),
        "intermodulation.csv": _csv(harmonics.intermodulation_table()),
        "waveforms.npz": arrays_to_bytes(harmonics.waveforms()),
    }


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("harmonics", "harmonics and intermodulation of activations (F1)", _harmonic_jobs, _harmonic_files),
        Recipe("planted", "masks where the informative frequencies are known", _planted_jobs, _planted_files),
        Recipe("networks", "networks of the five training regimes", _network_jobs, _network_files),
        Recipe("dataset-masks", "one mask a network (F2, T1, F3, F4)", _mask_jobs, _mask_files),
    )
}


def recipes(names: list[str]) -> list[Recipe]:
    """The recipes of these names; none or "all" is every one. Unknown names raise `FmlibError`."""
    for name in names:
        require(name in RECIPES or name == "all", f"unknown recipe {name!r}: choose from {', '.join(RECIPES)} or all")
    return [RECIPES[name] for name in RECIPES if name in names or "all" in names or not names]


def run(chosen: list[Recipe], lab: Lab, store: Store) -> None:
    """Compute whatever the recipes lack."""
    for recipe in chosen:
        for job in recipe.jobs(lab):
            store.get(job)


def publish(lab: Lab, store: Store, folder: Path) -> Results:
    """Write every recipe's files, the claims and the manifest to `folder`, all at once.

    Raises `FmlibError` if an artifact has not been computed.
    """
    absent = [job.name for recipe in RECIPES.values() for job in recipe.tree(lab) if not store.has(job)]
    require(not absent, f"{len(absent)} artifacts are missing ({', '.join(absent[:3])} ...): run 'fmlib run all' first")
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    files = {name: content for recipe in RECIPES.values() for name, content in recipe.export(lab, store).items()}
    manifest: dict[str, Any] = {
        "profile": lab.profile.name,
        "seed": lab.seed,
        "device": lab.device.type,
        "fmlib": __version__,
        "torch": torch.__version__,
        "key": fingerprint([job.key for recipe in RECIPES.values() for job in recipe.tree(lab)]),
        "recipes": {recipe.name: [job.key for job in recipe.tree(lab)] for recipe in RECIPES.values()},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }
    for name, content in files.items():
        write_bytes(draft / name, content)
    rows = claims.ledger(Results(draft, manifest))
    ledger = (json.dumps(rows, indent=1) + "\n").encode()
    write_bytes(draft / "claims.json", ledger)
    manifest["files"]["claims.json"] = hashlib.sha256(ledger).hexdigest()
    write_bytes(draft / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return Results.open(folder)
