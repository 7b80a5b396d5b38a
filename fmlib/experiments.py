"""Named recipes: which artifacts each needs at a profile, and which tables and arrays it publishes.

The only place where computing meets the store. A `Lab` is one profile at one seed; its methods name the jobs.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_weights
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torchvision.transforms import functional

from fmlib import __version__, claims, harmonics
from fmlib.config import PROFILES, PlantedSpec, Profile, fingerprint, require
from fmlib.data import Dataset, Split, load, planted_tones, source_fingerprint, tone_mask
from fmlib.masks import learn_masks
from fmlib.models import build
from fmlib.results import Results
from fmlib.spectra import apply_mask, correlation, full_plane, half_plane, l1_share, low_share, mean_radius
from fmlib.store import Artifact, Job, Store, arrays_to_bytes, write_bytes
from fmlib.training import correctness, train

#: Networks of fewer weights than this are published with the results.
SMALL = 1_000_000


@dataclass(frozen=True)
class Lab:
    """One profile at one seed on one device; its methods describe artifacts, the store makes them."""

    profile: Profile
    seed: int
    device: torch.device
    root: Path | None = None  # of the photographs
    progress: bool = True

    @cached_property
    def dataset(self) -> Job:
        """The images and labels, uint8."""
        spec: dict[str, Any] = asdict(self.profile.data) | {"files": source_fingerprint(self.profile.data, self.root)}
        if isinstance(self.profile.data, PlantedSpec):
            spec["seed"] = self.seed

        def compute(inputs: list[Artifact], saved: Any) -> Artifact:
            made = load(self.profile.data, self.root, self.seed)
            arrays = {
                f"{name}_{part}": getattr(split, part).numpy()
                for name, split in (("train", made.train), ("validation", made.validation))
                for part in ("images", "labels")
            }
            return Artifact(arrays, facts={"classes": made.classes})

        return Job("dataset", f"data of profile {self.profile.name}", spec, compute)

    def open_dataset(self, artifact: Artifact) -> Dataset:
        """The stored data set, on the device."""

        def split(name: str) -> Split:
            arrays = artifact.arrays
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            return Split(torch.from_numpy(images), torch.from_numpy(labels)).to(self.device)

        return Dataset(split("train"), split("validation"), artifact.facts["classes"])

    def open_network(self, artifact: Artifact) -> nn.Module:
        """The stored network, on the device, in eval mode."""
        model = build(self.profile.network, 0)
        model.load_state_dict(artifact.weights)
        return model.to(self.device).eval()

    def behind(self, mask: Artifact) -> Callable[[Tensor], Tensor]:
        """Pixels -> pixels filtered by a stored dataset mask."""
        half = torch.from_numpy(mask.arrays["half"]).to(self.device)
        return lambda pixels: apply_mask(pixels, half, self.profile.network.mean)

    def network(self, regime: str, repetition: int = 0) -> Job:
        """A trained network."""
        spec, seed = self.profile.training(regime), self.seed + repetition

        def compute(inputs: list[Artifact], saved: Any) -> Artifact:
            data = self.open_dataset(inputs[0])
            model = build(self.profile.network, seed).to(self.device)
            history = train(
                model, data.train, data.validation, spec, seed=seed, checkpoint=saved, progress=self.progress
            )
            arrays = {name: np.array([row[name] for row in history]) for name in history[0]}
            return Artifact(arrays, weights=model.state_dict())

        described = {"network": asdict(self.profile.network), "training": asdict(spec), "seed": seed}
        cost = 1 + spec.attack.steps if regime == "A" else 1
        images = self.profile.data.train if isinstance(self.profile.data, PlantedSpec) else 4710
        name = f"network {regime} ({self.profile.name}, repetition {repetition})"
        return Job("network", name, described, compute, (self.dataset,), passes=cost * spec.epochs * images)

    def mask(self, regime: str, repetition: int = 0, variant: str = "plain") -> Job:
        """The dataset mask of a network, fitted on the validation images.

        Variants: "order" draws the images in another order, "single" takes one image a step as the authors do,
        "half" fits on the even-numbered images only.
        """
        seed = self.seed + repetition + (1000 if variant == "order" else 0)
        spec = self.profile.single_mask if variant == "single" else self.profile.mask

        def compute(inputs: list[Artifact], saved: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            chosen = slice(None, None, 2 if variant == "half" else 1)
            pixels, labels = images.pixels(chosen), images.labels[chosen]
            learned = learn_masks(
                self.open_network(inputs[1]),
                pixels,
                labels,
                torch.zeros_like(labels),
                spec,
                seed=seed,
                centre=self.profile.network.mean,
                checkpoint=saved,
                progress=self.progress,
            )
            arrays = {name: rows[:, 0].cpu().numpy() for name, rows in learned.history.items()}
            return Artifact(
                arrays | {"half": learned.half[0].cpu().numpy()},
                facts={"converged": bool(learned.converged[0]), "epochs": int(learned.epochs[0])},
            )

        described = {"mask": asdict(spec), "seed": seed, "half": variant == "half"}
        images = self.profile.data.validation if isinstance(self.profile.data, PlantedSpec) else 1934
        name = f"mask of {regime} ({self.profile.name}, repetition {repetition}, {variant})"
        inputs = (self.dataset, self.network(regime, repetition))
        passes = spec.epochs * images / (2 if variant == "half" else 1)
        return Job("mask", name, described, compute, inputs, passes=passes)

    def evaluation(self, regime: str, repetition: int = 0) -> Job:
        """Per validation image: right as it stands, right behind the dataset mask, right under the attack."""
        attack = self.profile.train.attack

        def compute(inputs: list[Artifact], saved: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            model = self.open_network(inputs[1])
            return Artifact(
                {
                    "standard": correctness(model, images).numpy(),
                    "masked": correctness(model, images, self.behind(inputs[2])).numpy(),
                    "attacked": correctness(model, images, attack=attack, seed=self.seed + repetition).numpy(),
                }
            )

        described = {"attack": asdict(attack), "seed": self.seed + repetition}
        inputs = (self.dataset, self.network(regime, repetition), self.mask(regime, repetition))
        name = f"accuracy of {regime} ({self.profile.name}, repetition {repetition})"
        images = self.profile.data.validation if isinstance(self.profile.data, PlantedSpec) else 1934
        return Job("evaluation", name, described, compute, inputs, passes=(attack.steps + 1) * images)

    def held_out(self) -> Job:
        """Whether N is right on the odd images: unmasked, behind the mask fitted on all, and on the even half."""

        def compute(inputs: list[Artifact], saved: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            odd = Split(images.images[1::2], images.labels[1::2])
            model = self.open_network(inputs[1])
            found = {"standard": correctness(model, odd).numpy()}
            for name, mask in (("all", inputs[2]), ("half", inputs[3])):
                found[name] = correctness(model, odd, self.behind(mask)).numpy()
            return Artifact(found)

        inputs = (self.dataset, self.network("N"), self.mask("N"), self.mask("N", variant="half"))
        return Job("held_out", f"held-out half ({self.profile.name})", {}, compute, inputs)

    def planted(self, repetition: int) -> Lab:
        """The laboratory of the planted-frequency test: profile quick's data and network, its own seed."""
        return replace(self, profile=PROFILES["quick"], seed=self.seed + repetition)


# ------------------------------------------------------------------------------------------------- recipes


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
    width = lab.profile.data.size
    rows, history, masks = [], [], {}
    hits: dict[str, np.ndarray] = {}
    fits = [(r, n, "plain") for r, n in _each(lab)] + [("N", 0, variant) for variant in _VARIANTS]
    for regime, number, variant in fits:
        artifact = store.get(lab.mask(regime, number, variant))
        half = torch.from_numpy(artifact.arrays["half"])
        full = full_plane(half, width)
        masks[regime, number, variant] = full
        label = {"regime": regime, "repetition": number, "variant": variant}
        settled = artifact.arrays["l1_share"]
        last = {name: float(artifact.arrays[name][-1]) for name in ("invariance", "guarded")}
        spec = lab.profile.single_mask if variant == "single" else lab.profile.mask
        images = store.get(lab.evaluation("N")).arrays["standard"].size // (2 if variant == "half" else 1)
        last["steps"] = artifact.facts["epochs"] * math.ceil(images / spec.batch)
        last["last_change"] = float(abs(np.diff(settled, prepend=1.0)[-1]))
        shape = {
            "l1_share": float(l1_share(half, width)),
            "low_share": float(low_share(full)),
            "mean_radius": float(mean_radius(full)),
        }
        rows.append(label | shape | last | artifact.facts)
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
