"""The experiment of class separability: linear classifiers and UMAP on the image masks of the standard network."""

from __future__ import annotations

from typing import Any

import numpy as np

from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes
from fmlib.studies.class_separability.separability import (
    balanced,
    embed_masks,
    embed_outputs,
    neighbour_vote,
    permutation_test,
    repeated_splits,
)
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import all_masks, join_chunks, with_minimal_masks


def _tasks(setup: Setup) -> list[Task]:
    return [separability(setup)]


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {"separability.npz": arrays_to_bytes(store.get(separability(setup)).arrays)}


def separability(setup: Setup) -> Task:
    """Table 3 and Figure 8: linear classifiers on M_{N,x} over repeated splits, and UMAP embeddings.

    Arrays: `splits` (20, 4) as `repeated_splits`; `permuted` (99,), `score` and `p` as `permutation_test`; for each of
    the embeddings "outputs", "shuffled" and "masks" `points.*` (K', 2), `held.*`, `labels.*` and `neighbours.*`.
    """
    splits, permutations = 20, 99

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        masks = join_chunks(inputs)
        chosen = balanced(masks["target"])
        from scipy.sparse import csr_matrix

        features = csr_matrix(masks["half"][chosen].reshape(len(chosen), -1))
        labels = masks["target"][chosen]
        shuffled = np.random.default_rng(setup.seed).permutation(labels)
        score, permuted, p = permutation_test(features, labels, permutations, setup.seed)
        arrays = {"splits": repeated_splits(features, labels, splits, setup.seed)}
        arrays |= {"score": np.array(score), "permuted": permuted, "p": np.array(p)}
        for name, targets, embed in (
            ("outputs", labels, embed_outputs),
            ("shuffled", shuffled, embed_outputs),
            ("masks", labels, embed_masks),
        ):
            embedding = embed(features, targets, setup.seed)
            arrays |= {f"points.{name}": embedding.points, f"held.{name}": embedding.held, f"labels.{name}": targets}
            arrays[f"neighbours.{name}"] = neighbour_vote(embedding, targets)
        return Artifact(arrays)

    described = {"splits": splits, "rounds": permutations, "seed": setup.seed}
    name = f"class separability ({setup.profile.name})"
    return Task("separability", name, described, compute, all_masks(setup, "N.x"))


_SEPARABILITY = Experiment("separability", "linear separability of the classes (Table 3, Fig. 8)", _tasks, _files)

EXPERIMENTS = (_SEPARABILITY, with_minimal_masks(_SEPARABILITY))
