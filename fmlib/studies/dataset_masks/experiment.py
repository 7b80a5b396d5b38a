"""The experiments of networks, dataset masks and planted frequencies: their tasks, and the files they publish."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from fmlib.core.config import SyntheticSpec
from fmlib.core.data import sample_image
from fmlib.core.spectra import apply_mask, correlation, full_plane, half_plane, l1_share, low_share, mean_radius
from fmlib.core.synthetic import synthetic_tones, tone_mask
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.shared.setup import Setup


def restore_networks(setup: Setup, store: Store, results: Results) -> list[str]:
    """Put the published networks that `store` lacks into it, as if they had been trained here; returns their names.

    A network counts as published if its weights are, and its key (all that it depends on) is the same.
    """
    names = []
    for regime in setup.profile.regimes:
        task, file = setup.network(regime), f"network_{regime}.safetensors"
        if (
            file not in results.manifest["files"]
            or task.key not in results.manifest["experiments"]["networks"]["tasks"]
        ):
            continue
        if not store.has(task):
            history = results.table("training").query("regime == @regime and repetition == 0")
            columns = history.drop(columns=["regime", "repetition", "epoch"])
            arrays = {str(name): values.to_numpy() for name, values in columns.items()}
            store.put(task, Artifact(arrays, load_weights(results.content(file))))
            names.append(task.name)
    return names


#: Networks of fewer weights than this are published with the results.
SMALL = 1_000_000


def _each(setup: Setup) -> list[tuple[str, int]]:
    return [(regime, number) for number in range(setup.profile.repetitions) for regime in setup.profile.regimes]


def _network_tasks(setup: Setup) -> list[Task]:
    return [setup.network(regime, number) for regime, number in _each(setup)]


def files_of_networks(setup: Setup, store: Store) -> dict[str, bytes]:
    """Every epoch of every network; and the weights of the first N and A, where they are few."""
    rows, files = [], {}
    for regime, number in _each(setup):
        artifact = store.get(setup.network(regime, number))
        for epoch, values in enumerate(zip(*artifact.arrays.values(), strict=True), 1):
            rows.append(
                {"regime": regime, "repetition": number, "epoch": epoch}
                | dict(zip(artifact.arrays, values, strict=True))
            )
        if number == 0 and regime in "NA" and sum(w.numel() for w in artifact.weights.values()) < SMALL:
            files[f"network_{regime}.safetensors"] = save_weights(artifact.weights)
    return files | {"training.csv": csv(rows)}


_VARIANTS = ("order", "single", "half")


def _mask_tasks(setup: Setup) -> list[Task]:
    tasks = [
        task
        for regime, number in _each(setup)
        for task in (setup.mask(regime, number), setup.evaluation(regime, number))
    ]
    return [*tasks, *(setup.mask("N", variant=variant) for variant in _VARIANTS), setup.held_out()]


def _mask_files(setup: Setup, store: Store) -> dict[str, bytes]:
    files, masks = files_of_dataset_masks(setup, store, _VARIANTS)
    return files | {
        "stability.csv": csv(_stability(setup, masks)),
        "held_out.npz": arrays_to_bytes(store.get(setup.held_out()).arrays),
        "scheme.npz": arrays_to_bytes(_scheme(setup, masks["N", 0, "plain"])),
    }


def files_of_dataset_masks(
    setup: Setup, store: Store, variants: tuple[str, ...]
) -> tuple[dict[str, bytes], dict[tuple[str, int, str], Tensor]]:
    """The files of dataset masks, N's also in these variants; and the masks over the full plane."""
    rows, history, masks = [], [], {}
    hits: dict[str, np.ndarray] = {}
    fits = [(r, n, "plain") for r, n in _each(setup)] + [("N", 0, variant) for variant in variants]
    for regime, number, variant in fits:
        artifact = store.get(setup.mask(regime, number, variant))
        masks[regime, number, variant] = full_plane(torch.from_numpy(artifact.arrays["half"]), setup.profile.data.size)
        label = {"regime": regime, "repetition": number, "variant": variant}
        rows.append(label | _describe(setup, artifact, variant))
        for epoch in range(len(artifact.arrays["l1_share"])):
            values = {
                name: float(artifact.arrays[name][epoch]) for name in ("invariance", "l1_share", "kept", "clipped")
            }
            history.append(label | {"epoch": epoch + 1} | values)
    for regime in setup.profile.regimes:
        found = [store.get(setup.evaluation(regime, n)).arrays for n in range(setup.profile.repetitions)]
        hits |= {f"{what}.{regime}": np.stack([one[what] for one in found]) for what in found[0]}
    stacked = {
        regime: torch.stack([masks[regime, n, "plain"] for n in range(setup.profile.repetitions)]).numpy()
        for regime in setup.profile.regimes
    }
    stacked |= {f"N.{variant}": masks["N", 0, variant].numpy() for variant in variants}
    files = {
        "masks.csv": csv(rows),
        "mask_history.csv": csv(history),
        "dataset_masks.npz": arrays_to_bytes(stacked),
        "evaluation.npz": arrays_to_bytes(hits),
    }
    return files, masks


def _describe(setup: Setup, artifact: Artifact, variant: str) -> dict[str, Any]:
    """What a dataset mask looks like, and how its fit ended."""
    half = torch.from_numpy(artifact.arrays["half"])
    full = full_plane(half, setup.profile.data.size)
    spec = setup.profile.single_mask if variant == "single" else setup.profile.mask
    images = math.ceil(setup.counts["validation"] / (2 if variant == "half" else 1))
    return {
        "l1_share": float(l1_share(half, setup.profile.data.size)),
        "low_share": float(low_share(full)),
        "mean_radius": float(mean_radius(full)),
        "invariance": float(artifact.arrays["invariance"][-1]),
        "clipped": float(artifact.arrays["clipped"][-1]),
        "steps": artifact.facts["epochs"] * math.ceil(images / spec.batch),
        "last_change": float(abs(np.diff(artifact.arrays["l1_share"], prepend=1.0)[-1])),
    } | artifact.facts


def _stability(setup: Setup, masks: dict[tuple[str, int, str], Tensor]) -> list[dict[str, Any]]:
    """Correlations of masks that should agree: other order, one image a step, half the images, another network."""
    rows = []
    for variant in _VARIANTS:
        value = float(correlation(masks["N", 0, "plain"], masks["N", 0, variant]))
        rows.append({"pair": variant, "regime": "N", "correlation": value})
    for regime in setup.profile.regimes:
        for number in range(1, setup.profile.repetitions):
            value = float(correlation(masks[regime, 0, "plain"], masks[regime, number, "plain"]))
            rows.append({"pair": "network", "regime": regime, "correlation": value})
    return rows


def _scheme(setup: Setup, mask: Tensor) -> dict[str, np.ndarray]:
    """A photograph at the profile's size, and what the mask lets through."""
    image = sample_image("china", setup.profile.data.size).float() / 255
    filtered = apply_mask(image[None], half_plane(mask), setup.profile.network.mean)[0]
    return {"image": image[0].numpy(), "filtered": filtered[0].numpy(), "mask": mask.numpy()}


def _synthetic_tasks(setup: Setup) -> list[Task]:
    setups = [setup.synthetic(number) for number in range(setup.profile.synthetic_repetitions)]
    return [*(one.evaluation("N") for one in setups), setups[0].mask("A")]


def _synthetic_files(setup: Setup, store: Store) -> dict[str, bytes]:
    rows, files = [], {}
    for number in range(setup.profile.synthetic_repetitions):
        one = setup.synthetic(number)
        spec = one.profile.data
        assert isinstance(spec, SyntheticSpec)
        full = full_plane(torch.from_numpy(store.get(one.mask("N")).arrays["half"]), spec.size)
        tones, distractors = synthetic_tones(spec, one.seed)
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
            files["synthetic.npz"] = arrays_to_bytes({name: array.numpy() for name, array in arrays.items()})
            for regime in "NA":
                files[f"synthetic_network_{regime}.safetensors"] = save_weights(store.get(one.network(regime)).weights)
    return files | {"synthetic.csv": csv(rows)}


def _architecture_tasks(setup: Setup) -> list[Task]:
    return [setup.second.evaluation(*network) for network in setup.profile.second_networks]


def _architecture_files(setup: Setup, store: Store) -> dict[str, bytes]:
    """Masks and correctness of the second architecture's networks, named by regime and later repetitions: "N", "N1"."""
    arrays = {}
    for regime, repetition in setup.profile.second_networks:
        name = f"{regime}{repetition or ''}"
        half = torch.from_numpy(store.get(setup.second.mask(regime, repetition)).arrays["half"])
        arrays[f"mask.{name}"] = full_plane(half, setup.profile.data.size).numpy()
        evaluated = store.get(setup.second.evaluation(regime, repetition)).arrays
        arrays |= {f"{what}.{name}": correct for what, correct in evaluated.items()}
    return {"second_architecture.npz": arrays_to_bytes(arrays)}


EXPERIMENTS = (
    Experiment("synthetic", "masks where the informative frequencies are known", _synthetic_tasks, _synthetic_files),
    Experiment("networks", "networks of the five training regimes", _network_tasks, files_of_networks),
    Experiment("dataset-masks", "one mask per network (Figs. 2 to 4, Table 1)", _mask_tasks, _mask_files),
    Experiment("architectures", "another architecture beside the VGG", _architecture_tasks, _architecture_files),
)
