"""The recipe of Fourier heat maps: errors of networks when one frequency is added to their images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmlib.data import Split
from fmlib.heat_claims import NETWORKS
from fmlib.heatmaps import errors
from fmlib.image_lab import candidates
from fmlib.lab import Lab
from fmlib.models import evaluate
from fmlib.recipe import Recipe
from fmlib.store import Artifact, Job, Store, arrays_to_bytes

#: Root mean square of what is added to a pixel: Yin et al.'s norm of 4 for 3 x 32 x 32 numbers in [0, 1].
STRENGTH = 4 / (3 * 32 * 32) ** 0.5


def heat(lab: Lab, regime: str) -> Job:
    """Whether each of the first validation images, as many of each class, is misclassified under each frequency."""
    count, norm = lab.profile.heat_images, STRENGTH * lab.profile.data.size

    def compute(inputs: list[Artifact], saved: Any) -> Artifact:
        whole = lab.open_dataset(inputs[0]).validation
        chosen = candidates(lab, whole.labels.cpu().numpy())[:count]
        images = Split(whole.images[chosen], whole.labels[chosen])
        model = lab.open_network(inputs[1])
        found = errors(model, images, norm, seed=lab.seed).numpy()  # (N, H, W // 2 + 1)
        right = evaluate(model, images.batches(256))[1]
        return Artifact({"errors": np.packbits(found), "shape": np.array(found.shape), "clean": ~right.cpu().numpy()})

    height, width = lab.half_size
    described = {"images": count, "norm": norm, "seed": lab.seed}
    name = f"heat map of {regime} ({lab.title}, seed {lab.seed})"
    inputs = (lab.dataset, lab.network(regime))
    return Job("heat", name, described, compute, inputs, passes=count * height * width / 3)  # forward only


def _jobs(lab: Lab) -> list[Job]:
    return [job for regime in NETWORKS for job in (heat(lab, regime), lab.mask(regime))]


def _files(lab: Lab, store: Store) -> dict[str, bytes]:
    arrays: dict[str, np.ndarray] = {}
    for regime in NETWORKS:
        arrays |= {f"{name}.{regime}": array for name, array in store.get(heat(lab, regime)).arrays.items()}
        arrays[f"mask.{regime}"] = store.get(lab.mask(regime)).arrays["half"]
    return {"heat_maps.npz": arrays_to_bytes(arrays)}


RECIPES = (Recipe("heat-maps", "errors under each Fourier basis vector, beside dataset masks", _jobs, _files),)
