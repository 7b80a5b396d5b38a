"""Networks and their dataset masks: on images, on synthetic data, and with a second architecture."""

from __future__ import annotations

import math
from functools import partial
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
from fmlib.pipeline.experiment import Experiment, put_published
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.shared.setup import Setup

#: Networks of fewer bytes than this are published with the results.
SMALL = 40_000_000


def _restore_networks(setup: Setup, store: Store, results: Results) -> list[str]:
    """The published networks that have weights there. Histories come back with six significant digits."""
    return [
        name
        for network in _networks(setup)
        for name in put_published(
            store, "networks", results, setup.network(*network), partial(_published_network, results, *network)
        )
    ]


def _restore_masks(setup: Setup, store: Store, results: Results) -> list[str]:
    """The published dataset masks and accuracies of the published networks that are in the store."""
    put = partial(put_published, store, "dataset-masks", results)
    names = []
    for fit in _fits(setup):
        names += put(setup.mask(*fit), partial(_published_mask, results, *fit))
    for network in _networks(setup):
        names += put(setup.evaluation(*network), partial(_published_accuracy, results, *network))
    return names


def _published_network(results: Results, regime: str, repetition: int) -> Artifact | None:
    """The artifact of `Setup.network`, if its weights are published."""
    file, query = f"network_{regime}.safetensors", "regime == @regime and repetition == @repetition"
    if repetition or file not in results.manifest["files"]:
        return None
    history = results.table("training").query(query).drop(columns=["regime", "repetition", "epoch"])
    facts = {}
    if "rounding.csv" in results.manifest["files"]:
        rounding = results.table("rounding").query(query).drop(columns=["regime", "repetition"])
        facts["rounding"] = rounding.iloc[0].to_dict()
    arrays = {str(name): values.to_numpy() for name, values in history.items()}
    return Artifact(arrays, load_weights(results.content(file)), facts)


def _published_mask(results: Results, regime: str, repetition: int, variant: str) -> Artifact:
    """The artifact of `Setup.mask`; its facts are the whole row of `masks.csv`."""
    label, planes = ["regime", "repetition", "variant"], results.arrays("dataset_masks")
    query = "regime == @regime and repetition == @repetition and variant == @variant"
    plane = planes[regime][repetition] if variant == "plain" else planes[f"{regime}.{variant}"]
    history = results.table("mask_history").query(query).drop(columns=[*label, "epoch"])
    (facts,) = results.table("masks").query(query).drop(columns=label).to_dict("records")
    arrays = {str(name): values.to_numpy() for name, values in history.items()}
    return Artifact(arrays | {"half": plane[:, : plane.shape[-1] // 2 + 1]}, facts=facts)


def _published_accuracy(results: Results, regime: str, repetition: int) -> Artifact:
    """The artifact of `Setup.evaluation`."""
    correct = results.arrays("evaluation")
    return Artifact({name: correct[f"{name}.{regime}"][repetition] for name in ("standard", "masked", "attacked")})


def _networks(setup: Setup) -> list[tuple[str, int]]:
    """Regime and repetition of every network."""
    return [(regime, repetition) for repetition in range(setup.profile.repetitions) for regime in setup.profile.regimes]


def _fits(setup: Setup) -> list[tuple[str, int, str]]:
    """Regime, repetition and variant of every dataset mask."""
    fits = [(regime, repetition, "plain") for regime, repetition in _networks(setup)]
    return fits + [("N", 0, variant) for variant in setup.profile.variants]


def _network_tasks(setup: Setup) -> list[Task]:
    return [setup.network(regime, repetition) for regime, repetition in _networks(setup)]


def _network_files(setup: Setup, store: Store) -> dict[str, bytes]:
    """The training history of every network, how it was rounded, and the weights of the first of a regime, if small."""
    rows, rounding, files = [], [], {}
    for regime, repetition in _networks(setup):
        artifact = store.get(setup.network(regime, repetition))
        for epoch, values in enumerate(zip(*artifact.arrays.values(), strict=True), 1):
            label = {"regime": regime, "repetition": repetition, "epoch": epoch}
            rows.append(label | dict(zip(artifact.arrays, values, strict=True)))
        if "rounding" in artifact.facts:
            rounding.append({"regime": regime, "repetition": repetition} | artifact.facts["rounding"])
        if repetition == 0 and sum(w.nbytes for w in artifact.weights.values()) < SMALL:
            files[f"network_{regime}.safetensors"] = save_weights(artifact.weights)
    if rounding:
        files["rounding.csv"] = csv(rounding)
    return files | {"training.csv": csv(rows)}


def _mask_tasks(setup: Setup) -> list[Task]:
    tasks = [setup.mask(*fit) for fit in _fits(setup)] + [setup.evaluation(*network) for network in _networks(setup)]
    return tasks + [setup.held_out()] * ("half" in setup.profile.variants)


def _mask_files(setup: Setup, store: Store) -> dict[str, bytes]:
    rows, history, masks = [], [], {}
    for regime, repetition, variant in _fits(setup):
        artifact = store.get(setup.mask(regime, repetition, variant))
        plane = full_plane(torch.from_numpy(artifact.arrays["half"]), setup.profile.data.size)
        masks[regime, repetition, variant] = plane
        label = {"regime": regime, "repetition": repetition, "variant": variant}
        rows.append(label | _describe(setup, artifact, variant))
        columns = {name: artifact.arrays[name] for name in ("invariance", "l1_share", "kept", "clipped")}
        for epoch, values in enumerate(zip(*columns.values(), strict=True), 1):
            history.append(label | {"epoch": epoch} | dict(zip(columns, map(float, values), strict=True)))
    files = {
        "masks.csv": csv(rows),
        "mask_history.csv": csv(history),
        "dataset_masks.npz": arrays_to_bytes(_stacked(setup, masks)),
        "evaluation.npz": arrays_to_bytes(_correctness(setup, store)),
        "scheme.npz": arrays_to_bytes(_scheme(setup, masks["N", 0, "plain"])),
    }
    if agreement := _stability(setup, masks):
        files["stability.csv"] = csv(agreement)
    if "half" in setup.profile.variants:
        files["held_out.npz"] = arrays_to_bytes(store.get(setup.held_out()).arrays)
    return files


def _stacked(setup: Setup, masks: dict[tuple[str, int, str], Tensor]) -> dict[str, np.ndarray]:
    """The masks over the full plane: `<regime>` (repetitions, H, W), and `N.<variant>` (H, W)."""
    stacked = {
        regime: torch.stack([masks[regime, number, "plain"] for number in range(setup.profile.repetitions)]).numpy()
        for regime in setup.profile.regimes
    }
    return stacked | {f"N.{variant}": masks["N", 0, variant].numpy() for variant in setup.profile.variants}


def _correctness(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """The arrays of `Setup.evaluation`, stacked: `<name>.<regime>` (repetitions, N) bool."""
    arrays: dict[str, np.ndarray] = {}
    for regime in setup.profile.regimes:
        runs = [store.get(setup.evaluation(regime, number)).arrays for number in range(setup.profile.repetitions)]
        arrays |= {f"{name}.{regime}": np.stack([run[name] for run in runs]) for name in runs[0]}
    return arrays


def _describe(setup: Setup, artifact: Artifact, variant: str) -> dict[str, Any]:
    """A row of `masks.csv`: size and frequencies of a dataset mask, and how its fit ended."""
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
    """Correlations of masks that should agree: other order, batch size 1, half the images, another seed's network."""
    rows = []
    for variant in setup.profile.variants:
        value = float(correlation(masks["N", 0, "plain"], masks["N", 0, variant]))
        rows.append({"pair": variant, "regime": "N", "correlation": value})
    for regime in setup.profile.regimes:
        for repetition in range(1, setup.profile.repetitions):
            value = float(correlation(masks[regime, 0, "plain"], masks[regime, repetition, "plain"]))
            rows.append({"pair": "network", "regime": regime, "correlation": value})
    return rows


def _scheme(setup: Setup, mask: Tensor) -> dict[str, np.ndarray]:
    """A sample image at the profile's size, unmasked and with the mask applied: planes (H, W)."""
    image = sample_image("china", setup.profile.data.size).float() / 255
    filtered = apply_mask(image[None], half_plane(mask), setup.profile.network.mean)[0]
    return {"image": image[0].numpy(), "filtered": filtered[0].numpy(), "mask": mask.numpy()}


def _synthetic_setups(setup: Setup) -> list[Setup]:
    return [setup.synthetic(repetition) for repetition in range(setup.profile.synthetic_repetitions)]


def _synthetic_tasks(setup: Setup) -> list[Task]:
    setups = _synthetic_setups(setup)
    return [*(one.evaluation("N") for one in setups), setups[0].mask("A")]


def _synthetic_files(setup: Setup, store: Store) -> dict[str, bytes]:
    setups = _synthetic_setups(setup)
    rows = [{"repetition": repetition} | _recovery(one, store) for repetition, one in enumerate(setups)]
    first = setups[0]
    networks = {regime: store.get(first.network(regime)).weights for regime in "NA"}
    return {
        "synthetic.csv": csv(rows),
        "synthetic.npz": arrays_to_bytes(_synthetic_arrays(first, store)),
        **{f"synthetic_network_{regime}.safetensors": save_weights(weights) for regime, weights in networks.items()},
    }


def _synthetic_planes(setup: Setup, store: Store) -> tuple[Tensor, Tensor, Tensor]:
    """N's mask, the frequencies of the class tones and those of the distractors: full planes (H, W)."""
    spec = setup.profile.data
    assert isinstance(spec, SyntheticSpec)
    full = full_plane(torch.from_numpy(store.get(setup.mask("N")).arrays["half"]), spec.size)
    tones, distractors = synthetic_tones(spec, setup.seed)
    return full, tone_mask(tones, spec.size), tone_mask(distractors, spec.size)


def _recovery(setup: Setup, store: Store) -> dict[str, float]:
    """A row of `synthetic.csv`: how well N's mask, above 0.5, agrees with the class tones; and accuracies."""
    full, tones, distractors = _synthetic_planes(setup, store)
    kept, correct = full > 0.5, store.get(setup.evaluation("N")).arrays
    return {
        "precision": float((tones * kept).sum() / kept.sum().clamp_min(1)),
        "recall": float((tones * kept).sum() / tones.sum()),
        "distractors_kept": int((distractors * kept).sum()),
        "largest_elsewhere": float((full * (1 - tones)).max()),
        "standard": float(correct["standard"].mean()),
        "masked": float(correct["masked"].mean()),
    }


def _synthetic_arrays(setup: Setup, store: Store) -> dict[str, np.ndarray]:
    """Masks of N and A, class tones and distractors: (H, W); and one image per class: (classes, H, W) uint8."""
    spec = setup.profile.data
    assert isinstance(spec, SyntheticSpec)
    full, tones, distractors = _synthetic_planes(setup, store)
    images = setup.open_dataset(store.get(setup.dataset)).validation.images[: spec.classes, 0]  # one per class
    arrays = {"mask": full, "tones": tones, "distractors": distractors, "images": images.cpu()}
    arrays["mask.A"] = full_plane(torch.from_numpy(store.get(setup.mask("A")).arrays["half"]), spec.size)
    return {name: array.numpy() for name, array in arrays.items()}


def _architecture_tasks(setup: Setup) -> list[Task]:
    return [setup.second.evaluation(*network) for network in setup.profile.second_networks]


def _architecture_files(setup: Setup, store: Store) -> dict[str, bytes]:
    """Masks and correctness of the second architecture: `mask.<network>` (H, W), `<name>.<network>` (N,) bool.

    Networks are named by regime and, after the first, repetition: "N", "N1".
    """
    arrays = {}
    for regime, repetition in setup.profile.second_networks:
        name = f"{regime}{repetition or ''}"
        half = torch.from_numpy(store.get(setup.second.mask(regime, repetition)).arrays["half"])
        arrays[f"mask.{name}"] = full_plane(half, setup.profile.data.size).numpy()
        evaluated = store.get(setup.second.evaluation(regime, repetition)).arrays
        arrays |= {f"{column}.{name}": correct for column, correct in evaluated.items()}
    return {"second_architecture.npz": arrays_to_bytes(arrays)}


def _validation_images(setup: Setup) -> int:
    return setup.counts["validation"]


EXPERIMENTS = (
    Experiment("synthetic", "masks on data with known informative frequencies", _synthetic_tasks, _synthetic_files),
    Experiment(
        "networks",
        "networks of the five training regimes",
        _network_tasks,
        _network_files,
        images=lambda setup: setup.counts["train"],
        restore=_restore_networks,
    ),
    Experiment(
        "dataset-masks",
        "one mask per network (Figs. 2 to 4, Table 1)",
        _mask_tasks,
        _mask_files,
        images=_validation_images,
        restore=_restore_masks,
    ),
    Experiment(
        "architectures",
        "dataset masks of a second architecture",
        _architecture_tasks,
        _architecture_files,
        images=_validation_images,
    ),
)
