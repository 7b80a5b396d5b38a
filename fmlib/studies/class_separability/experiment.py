"""TODO"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.class_separability import separability
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import all_masks, joined


def _separability_tasks(setup: Setup) -> list[Task]:
    return [separability_of_classes(setup)]


def _separability_files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {"separability.npz": arrays_to_bytes(store.get(separability_of_classes(setup)).arrays)}


def separability_of_classes(setup: Setup) -> Task:
    """Table 3 and figure 8: linear classifiers on M_{N,x}, over repeated splits, and maps of their outputs.

    Arrays: `splits` (20, 4) as separability.repeated_splits; `permuted` (99,), `score` and `p` as
    separability.permutation; of each map `points.<map>` (K', 2), `held.<map>`, `labels.<map>` and
    `neighbours.<map>`, maps being outputs, shuffled and masks.
    """
    splits, rounds = 20, 99

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        masks = joined(inputs)
        chosen = separability.balanced(masks["target"])
        features = csr_matrix(masks["half"][chosen].reshape(len(chosen), -1))
        labels = masks["target"][chosen]
        shuffled = np.random.default_rng(setup.seed).permutation(labels)
        score, permuted, p = separability.permutation(features, labels, rounds, setup.seed)
        found = {"splits": separability.repeated_splits(features, labels, splits, setup.seed)}
        found |= {"score": np.array(score), "permuted": permuted, "p": np.array(p)}
        for name, targets, draw in (
            ("outputs", labels, separability.umap_of_outputs),
            ("shuffled", shuffled, separability.umap_of_outputs),
            ("masks", labels, separability.umap_of_masks),
        ):
            made = draw(features, targets, setup.seed)
            found |= {f"points.{name}": made.points, f"held.{name}": made.held, f"labels.{name}": targets}
            found[f"neighbours.{name}"] = separability.neighbours(made, targets)
        return Artifact(found)

    described = {"splits": splits, "rounds": rounds, "seed": setup.seed}
    name = f"separability of classes ({setup.profile.name})"
    return Task("separability", name, described, compute, all_masks(setup, "N.x"))


EXPERIMENTS = (
    Experiment(
        "separability", "linear separability of the classes (Table 3, Fig. 8)", _separability_tasks, _separability_files
    ),
)
