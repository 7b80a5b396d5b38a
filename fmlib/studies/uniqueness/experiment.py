"""How unique minimal masks are: restarts, other networks, what is necessary, and the distance to the true minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core import controls
from fmlib.core.config import spec_dict
from fmlib.core.device import generator
from fmlib.core.evaluation import predictions
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.spectra import apply_mask
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import candidates, eligible, pairs
from fmlib.studies.uniqueness.subsets import best_subsets, excess, ring_sectors

#: Name of a network in this study -> whether it has the second architecture, its regime, and its repetition.
NETWORKS = {"N": (False, "N", 0), "A": (False, "A", 0), "seed": (False, "N", 1), "architecture": (True, "N", 0)}
#: The networks whose masks are found from several starts.
RESTARTED = ("N", "A")


def _owner(setup: Setup, name: str) -> Setup:
    return setup.second if NETWORKS[name][0] else setup


def _network(setup: Setup, name: str) -> Task:
    _, regime, repetition = NETWORKS[name]
    return _owner(setup, name).network(regime, repetition)


def _chosen(setup: Setup, dataset: Artifact, paired: Artifact, count: int) -> tuple[np.ndarray, Tensor]:
    """The first `count` eligible candidates: their indices (K,) and their pixels (K, C, H, W)."""
    images = setup.open_dataset(dataset).validation
    labels = images.labels.cpu().numpy()
    considered = candidates(setup, labels)
    index = considered[eligible(paired, labels)[considered]][:count]
    return index, images.pixels(torch.from_numpy(index).to(setup.device))


def restarts(setup: Setup, name: str) -> Task:
    """Minimal masks of the same images, of one network of `NETWORKS`, from one or several starts.

    Arrays: `half` (starts, K, H, W // 2 + 1), the first start from M = 1; `kept` (starts, K) bool; `target` (K,), the
    network's predictions; `image` (K,), indices of the validation images.
    """
    starts = [None, *range(setup.profile.n_restarts)] if name in RESTARTED else [None]
    spec, centre = setup.profile.minimal_mask, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, paired = inputs
        model = _owner(setup, name).open_network(network)
        index, pixels = _chosen(setup, dataset, paired, setup.profile.n_unique)
        targets = predictions(model, pixels)
        found = [
            minimal_masks(model, pixels, targets, spec, seed=seed, centre=centre, progress=setup.progress).half
            for seed in starts
        ]
        kept = [predictions(model, apply_mask(pixels, half, centre)) == targets for half in found]
        arrays = {"half": torch.stack(found), "kept": torch.stack(kept), "target": targets}
        return Artifact({name: value.cpu().numpy() for name, value in arrays.items()} | {"image": index})

    described = {"mask": spec_dict(spec), "images": setup.profile.n_unique, "starts": len(starts)}
    cost = float(spec.steps * setup.profile.n_unique * len(starts))
    title = f"minimal masks from {len(starts)} starts, {name} ({setup.profile.name})"
    inputs = (setup.dataset, _network(setup, name), pairs(setup))
    return Task("restarts", title, described, compute, inputs, cost=cost)


def core_sets(half: Tensor) -> dict[str, Tensor]:
    """Sets of frequencies of masks from several starts (S, K, H, Wh): each (K, H, Wh) bool.

    Returns:
        `core`: in the masks of all starts; `optional`: in some but not in all; `own`: in the mask of the first start.
    """
    support = half > 0
    everywhere, anywhere = support.all(0), support.any(0)
    return {"core": everywhere, "optional": anywhere & ~everywhere, "own": support[0]}


def removal(setup: Setup) -> Task:
    """What N predicts when the necessary core is removed or kept, and what other networks read in N's minimal masks.

    Arrays (K,) bool, whether N's prediction is kept: `remove.core`; `remove.optional`, as many random frequencies that
    are in some masks only; `remove.matched`, as many random ones at the core's radii; `keep.core`; `keep.own`, the
    first mask's frequencies. `larger` (K,): whether there are at least as many optional frequencies as in the core.
    For the networks "seed" and "architecture": `<name>.own`, whether they predict N's class from M(x);
    `<name>.matched`, the same with the mask's values at random frequencies of the same radii; `<name>.x`, unmasked.
    """
    centre = setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, paired, found, *trained = inputs
        models = dict(zip(("N", "seed", "architecture"), trained, strict=True))
        networks = {name: _owner(setup, name).open_network(artifact) for name, artifact in models.items()}
        _, pixels = _chosen(setup, dataset, paired, setup.profile.n_unique)
        half, targets = (torch.from_numpy(found.arrays[name]).to(setup.device) for name in ("half", "target"))
        sets, rng = core_sets(half), generator(setup.seed, "removal", setup.device)
        drawn = _subset(sets["optional"], sets["core"].flatten(1).sum(1), rng)
        removed = {"core": sets["core"], "optional": drawn, "matched": controls.matched_control(sets["core"], rng)}
        kept = {
            f"remove.{name}": _kept(networks["N"], pixels, ~chosen, targets, centre) for name, chosen in removed.items()
        }
        kept |= {f"keep.{name}": _kept(networks["N"], pixels, sets[name], targets, centre) for name in ("core", "own")}
        kept["larger"] = sets["optional"].flatten(1).sum(1) >= sets["core"].flatten(1).sum(1)
        shuffled = _moved(half[0], controls.matched_control(sets["own"], rng), rng)
        for name in ("seed", "architecture"):
            for kind, mask in (("own", half[0]), ("matched", shuffled), ("x", torch.ones_like(shuffled))):
                kept[f"{name}.{kind}"] = _kept(networks[name], pixels, mask, targets, centre)
        return Artifact({name: value.cpu().numpy() for name, value in kept.items()})

    described = {"images": setup.profile.n_unique, "seed": setup.seed}
    networks = [_network(setup, name) for name in ("N", "seed", "architecture")]
    inputs = (setup.dataset, pairs(setup), restarts(setup, "N"), *networks)
    return Task("removal", f"core and transfer ({setup.profile.name})", described, compute, inputs)


def _kept(model: nn.Module, pixels: Tensor, mask: Tensor, targets: Tensor, centre: float) -> Tensor:
    """Whether the model predicts the targets with the masks (K, H, Wh), real or bool, applied: (K,)."""
    return predictions(model, apply_mask(pixels, mask.to(pixels.dtype), centre)) == targets


def _subset(sets: Tensor, sizes: Tensor, rng: torch.Generator) -> Tensor:
    """Random subsets of (K, H, Wh) bool with at most `sizes` (K,) entries."""
    scores = torch.rand(sets.flatten(1).shape, generator=rng, device=sets.device) * sets.flatten(1)
    rank = scores.argsort(1, descending=True).argsort(1)
    return (rank < sizes[:, None]).view_as(sets) & sets


def _moved(half: Tensor, sets: Tensor, rng: torch.Generator) -> Tensor:
    """The non-zero values of each mask (K, H, Wh) at random places of a set of as many entries."""
    scores = torch.rand(half.flatten(1).shape, generator=rng, device=half.device)
    places = (scores * sets.flatten(1)).argsort(1, descending=True)
    values = half.flatten(1).sort(1, descending=True).values
    return torch.zeros_like(values).scatter(1, places, values).view_as(half)


def optimality(setup: Setup, name: str) -> Task:
    """The solver's answer against the true minimum over all subsets of 16 bands, for N or A.

    Arrays (K,): `solver`, the excess of the minimal mask whose entries are shared within bands; `subset`, the lowest
    excess of all 65,536 subsets; `evaluated`, how many of them had to be evaluated.
    """
    spec, centre = setup.profile.minimal_mask, setup.profile.network.mean

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network, paired = inputs
        model = setup.open_network(network)
        _, pixels = _chosen(setup, dataset, paired, setup.profile.n_gap)
        targets, bands = predictions(model, pixels), ring_sectors(*pixels.shape[-2:])
        found = minimal_masks(model, pixels, targets, spec, centre=centre, bands=bands, progress=setup.progress)
        solver = excess(model, pixels, targets, found.half, spec, centre)
        subset, evaluated = best_subsets(model, pixels, targets, bands, spec, centre)
        return Artifact({"solver": solver.cpu().numpy(), "subset": subset.numpy(), "evaluated": evaluated.numpy()})

    described = {"mask": spec_dict(spec), "images": setup.profile.n_gap}
    inputs = (setup.dataset, _network(setup, name), pairs(setup))
    cost = 2000.0 * setup.profile.n_gap
    return Task("optimality", f"optimality gap, {name} ({setup.profile.name})", described, compute, inputs, cost=cost)


def _tasks(setup: Setup) -> list[Task]:
    return [
        *(restarts(setup, name) for name in NETWORKS),
        removal(setup),
        *(optimality(setup, name) for name in RESTARTED),
    ]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    found = {name: store.get(restarts(setup, name)).arrays for name in NETWORKS}
    planes = {name: arrays["half"].astype(np.float16) for name, arrays in found.items()}
    kept = {f"kept.{name}": arrays["kept"] for name, arrays in found.items()}
    gaps = {
        f"{name}.{array}": values
        for name in RESTARTED
        for array, values in store.get(optimality(setup, name)).arrays.items()
    }
    return {
        "restarts.npz": arrays_to_bytes(planes | kept | {"image": found["N"]["image"]}),
        "removal.npz": arrays_to_bytes(store.get(removal(setup)).arrays),
        "optimality.npz": arrays_to_bytes(gaps),
    }


EXPERIMENTS = (
    Experiment(
        "uniqueness",
        "how unique minimal masks are",
        _tasks,
        _files,
        images=lambda setup: setup.profile.n_unique,
        precision="float32",
    ),
)
