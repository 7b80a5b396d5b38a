"""The experiment of Fourier heat maps: errors of networks when one frequency is added to their images."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmlib.core.evaluation import evaluate
from fmlib.core.heat_maps import errors
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.shared.noise import STRENGTH
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import first_images

#: The networks compared, and their full names.
NETWORKS = {"N": "standard", "A": "adversarially trained", "N+": "JaFR low", "N-": "JaFR high"}


def heat(setup: Setup, regime: str) -> Task:
    """Whether each of the first validation images, equally many per class, is misclassified under each frequency.

    Arrays: `errors`, packed bits, and `shape` of the bool array (N, H, W // 2 + 1); `clean` (N,) bool, whether each
    image is misclassified without an added frequency.
    """
    count, norm = setup.profile.n_heat_maps, STRENGTH * setup.profile.data.size

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        dataset, network = inputs
        images, model = first_images(setup, dataset, count), setup.open_network(network)
        wrong = errors(model, images, norm, seed=setup.seed).numpy()  # (N, H, W // 2 + 1)
        _, correct = evaluate(model, images.batches(256))
        return Artifact({"errors": np.packbits(wrong), "shape": np.array(wrong.shape), "clean": ~correct.cpu().numpy()})

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


EXPERIMENTS = (
    Experiment(
        "heat-maps",
        "errors under each Fourier basis vector",
        _tasks,
        _files,
        images=lambda setup: setup.profile.n_heat_maps,
    ),
)
