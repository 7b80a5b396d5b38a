"""Analysis of uniqueness: agreement of masks, the necessary core, transfer to other networks, the optimality gap."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from fmlib.core.intervals import Measured, average, paired, ratio_of_means
from fmlib.core.masks import Stability
from fmlib.core.spectra import l1_share
from fmlib.pipeline.results import NotComputed, Results

#: Claim about masks by the authors' schedule -> the same claim about minimal masks.
COUNTERPARTS = {
    "F5.nonzero_share": "M.nonzero_share",
    "F5.likeness": "M.similarity",
    "F6.low_shift": "M.low_shift",
    "T2.masked_adversarial": "M.masked_adversarial",
    "T2.complement": "M.complement",
    "T2.attack_outside": "M.attack_outside",
    "F7.lowest_bands": "M.lowest_bands",
    "F7.middle_bands": "M.middle_bands",
    "T3.train": "M.train",
    "T3.test": "M.test",
    "F8.masks": "M.embedding",
    "S.seed_correlation": "M.seed_correlation",
    "S.own_image": "M.own_image",
    "C.own_vs_random": "M.own_vs_random",
    "C.necessity": "M.necessity",
    "C.other_network.masked": "M.other_network.masked",
}


def _found(results: Results, name: str) -> Stability:
    """Minimal masks of a network from all its starts."""
    half = torch.from_numpy(results.arrays("restarts")[name].astype(np.float32))
    return Stability(half, 2 * (half.shape[-1] - 1))


def restart_correlations(results: Results, name: str) -> np.ndarray:
    """Mean correlation of an image's masks over all pairs of starts: (K,)."""
    return _found(results, name).correlation.numpy()


def network_correlations(results: Results, name: str) -> np.ndarray:
    """Correlation of N's mask of each image with that of another network of the study, both from M = 1: (K,)."""
    ours, theirs = (_found(results, one) for one in ("N", name))
    return Stability(torch.stack((ours.half[0], theirs.half[0])), ours.width).correlation.numpy()


def restart_agreement(results: Results, name: str) -> Measured:
    """Mean over images of `restart_correlations`."""
    return average(restart_correlations(results, name))


def better_determined(results: Results) -> Measured:
    """Agreement between A's restarts minus that between N's, paired by image."""
    return average(restart_correlations(results, "A") - restart_correlations(results, "N"))


def below_floor(results: Results) -> Measured:
    """Agreement between N's restarts minus that between two seeds, paired by image."""
    return average(restart_correlations(results, "N") - network_correlations(results, "seed"))


def below_seeds(results: Results) -> Measured:
    """Agreement between two seeds minus that between two architectures, paired by image."""
    return average(network_correlations(results, "seed") - network_correlations(results, "architecture"))


def core_shares(results: Results, name: str) -> np.ndarray:
    """For each image, the size of the core relative to the mean size of its masks, in frequencies of the full plane."""
    found = _found(results, name)
    sizes = l1_share((found.half > 0).float(), found.width).mean(0)
    return (l1_share(found.core.float(), found.width) / sizes).numpy()


def core_share(results: Results, name: str) -> Measured:
    """Mean over images of `core_shares`, in percent."""
    return average(100 * core_shares(results, name))


def removal_difference(results: Results, first: str, second: str, larger: bool = False) -> Measured:
    """Difference of two rates of `removal.npz` on the same images, in points.

    Args:
        larger: whether only images count that have at least as many optional frequencies as core ones.
    """
    arrays = results.arrays("removal")
    chosen = arrays["larger"] if larger else slice(None)
    if larger and not arrays["larger"].any():
        raise NotComputed("no image has as many optional frequencies as core ones")
    return paired(arrays[first][chosen], arrays[second][chosen])


def optimality_gap(results: Results, name: str) -> Measured:
    """The solver's mean excess relative to the mean of the lowest over all subsets."""
    arrays = results.arrays("optimality")
    return ratio_of_means(*(arrays[f"{name}.{kind}"].astype(float) for kind in ("solver", "subset")))


def agreement(results: Results) -> dict[str, np.ndarray]:
    """Label -> correlation between masks of each image, (K,): between starts, and between networks."""
    return {
        "standard (N), between starts": restart_correlations(results, "N"),
        "adversarially trained (A), between starts": restart_correlations(results, "A"),
        "N and a network of another seed": network_correlations(results, "seed"),
        "N and a network of another architecture": network_correlations(results, "architecture"),
    }


def agreement_table(results: Results) -> pd.DataFrame:
    """Mean, median and quartiles over images of the `agreement` of masks."""
    rows = {
        label: {
            "mean": f"{values.mean():.3f}",
            "median": f"{np.median(values):.3f}",
            "quartiles": " to ".join(f"{quartile:.3f}" for quartile in np.quantile(values, (0.25, 0.75))),
            "images": len(values),
        }
        for label, values in agreement(results).items()
    }
    return pd.DataFrame(rows).T
