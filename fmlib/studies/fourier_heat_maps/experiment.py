"""The experiment of Fourier heat maps: errors of networks when one frequency is added to their images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmlib.core.data import Split
from fmlib.core.evaluation import evaluate
from fmlib.core.heat_maps import errors
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import candidates

#: Root mean square of what is added to a pixel: Yin et al.'s norm of 4 for 3 x 32 x 32 numbers in [0, 1].
STRENGTH = 4 / (3 * 32 * 32) ** 0.5


def heat(setup: Setup, regime: str) -> Task:
    """Whether each of the first validation images, as many of each class, is misclassified under each frequency."""
    count, norm = setup.profile.n_heat_maps, STRENGTH * setup.profile.data.size

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        whole = setup.open_dataset(inputs[0]).validation
        chosen = candidates(setup, whole.labels.cpu().numpy())[:count]
        images = Split(whole.images[chosen], whole.labels[chosen])
        model = setup.open_network(inputs[1])
        found = errors(model, images, norm, seed=setup.seed).numpy()  # (N, H, W // 2 + 1)
        right = evaluate(model, images.batches(256))[1]
        return Artifact({"errors": np.packbits(found), "shape": np.array(found.shape), "clean": ~right.cpu().numpy()})

    height, width = setup.half_size
    described = {"images": count, "norm": norm, "seed": setup.seed}
    name = f"heat map of {regime} ({setup.title}, seed {setup.seed})"
    inputs = (setup.dataset, setup.network(regime))
    return Task("heat", name, described, compute, inputs, cost=count * height * width / 3)  # forward only


def _tasks(setup: Setup) -> list[Task]:
    return [task for regime in NETWORKS for task in (heat(setup, regime), setup.mask(regime))]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    arrays: dict[str, np.ndarray] = {}
    for regime in NETWORKS:
        arrays |= {f"{name}.{regime}": array for name, array in store.get(heat(setup, regime)).arrays.items()}
        arrays[f"mask.{regime}"] = store.get(setup.mask(regime)).arrays["half"]
    return {"heat_maps.npz": arrays_to_bytes(arrays)}


NETWORKS = {"N": "plain", "A": "adversarially trained", "N+": "low-biased", "N-": "high-biased"}


EXPERIMENTS = (Experiment("heat-maps", "errors under each Fourier basis vector", _tasks, _files),)
