"""Measures on networks and dataset masks: table 1, figures 3 and 4, synthetic data, a second architecture."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmlib.core.intervals import Measured, average, exact, min_max, paired, pooled_range, wilson
from fmlib.core.spectra import angular_energy, correlation, low_share, radial_energy, ring_means
from fmlib.pipeline.results import NotComputed, Results


def _correct(results: Results, what: str, regime: str) -> list[np.ndarray]:
    """Correctness per repetition: (N,) bool each; what: "standard", "masked" or "attacked"."""
    return list(results.arrays("evaluation")[f"{what}.{regime}"])


def accuracy(results: Results, what: str, regime: str) -> Measured:
    """Validation accuracy over repetitions, in percent.

    Args:
        what: "standard" (unmasked), "masked" (with its dataset mask applied) or "attacked" (under the training attack).
        regime: such as "N".
    """
    return pooled_range([wilson(correct) for correct in _correct(results, what, regime)])


def masking_gap(results: Results, regime: str) -> Measured:
    """Accuracy with the dataset mask applied, minus unmasked, over repetitions, in points."""
    masked, standard = _correct(results, "masked", regime), _correct(results, "standard", regime)
    return pooled_range([paired(m, s) for m, s in zip(masked, standard, strict=True)])


def held_out_gap(results: Results) -> Measured:
    """Accuracy of N on the odd-numbered images with the mask fitted on the even ones, minus unmasked, in points."""
    correct = results.arrays("held_out")
    return paired(correct["half"], correct["standard"])


def mask_contrast(results: Results, column: str, regime: str) -> Measured:
    """Difference of a column of `masks.csv`, regime minus N, paired by seed."""
    table = results.table("masks")
    table = table[table["variant"] == "plain"].set_index(["regime", "repetition"])[column]
    if regime not in table.index:
        raise NotComputed(f"masks.csv has no network of regime {regime}: it was not computed")
    return min_max((table.loc[regime] - table.loc["N"]).to_numpy())


def repetition_range(results: Results, table: str, column: str) -> Measured:
    """Mean and range of a column of a published table, whose rows are repetitions."""
    return min_max(results.table(table)[column].to_numpy(dtype=float))


def stability_correlation(results: Results, pair: str) -> Measured:
    """Correlation of masks that should agree; pair: "order", "single", "half" or "network"."""
    table = results.table("stability")
    return min_max(table[table["pair"] == pair]["correlation"].to_numpy())


def sinc_error(results: Results) -> Measured:
    """Largest error of the averaged filter's relative amplitude against the sinc."""
    rows = results.table("translation")
    return exact(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))


def _resnet_mask(results: Results, network: str) -> Tensor:
    """The dataset mask of one ResNet, such as "A" or "N1": (H, W)."""
    return torch.from_numpy(results.arrays("second_architecture")[f"mask.{network}"])


def resnet_accuracy_difference(results: Results) -> Measured:
    """Validation accuracy of the standard ResNet minus that of the standard VGG, in points."""
    resnet = results.arrays("second_architecture")["standard.N"]
    return paired(resnet, results.arrays("evaluation")["standard.N"][0])


def resnet_robust_accuracy(results: Results) -> Measured:
    """Accuracy of the adversarially trained ResNet under the training attack, in percent."""
    return wilson(results.arrays("second_architecture")["attacked.A"])


def resnet_masking_gap(results: Results, regime: str) -> Measured:
    """Accuracy of a ResNet with its own dataset mask applied, minus unmasked, in points."""
    correct = results.arrays("second_architecture")
    return paired(correct[f"masked.{regime}"], correct[f"standard.{regime}"])


def architecture_correlation(results: Results) -> Measured:
    """Correlation of the dataset masks of the standard ResNet and the standard VGG."""
    first = torch.from_numpy(results.arrays("dataset_masks")["N"][0])
    return average(np.array([float(correlation(_resnet_mask(results, "N"), first))]))


def resnet_seed_correlation(results: Results) -> Measured:
    """Correlation of the dataset masks of two standard ResNets with different seeds."""
    return average(np.array([float(correlation(_resnet_mask(results, "N1"), _resnet_mask(results, "N")))]))


def resnet_low_shift(results: Results, network: str) -> Measured:
    """Share of mask energy below a third of the corner radius, the network's mask minus that of N."""
    shares = [float(low_share(_resnet_mask(results, one))) for one in (network, "N")]
    return average(np.array([shares[0] - shares[1]]))


def compare_sizes(small: np.ndarray, large: np.ndarray) -> dict[str, str]:
    """Compare the dataset masks of two image sizes, ready for prose.

    Args:
        small, large: masks (h, h) and (H, H), DC at (0, 0), H a multiple of h.

    Returns:
        `correlation`: over the frequencies that both have; `within`: the share of the larger mask's energy at these;
        mean absolute difference of their means on rings, `by_cycles` at the same cycles per image and `by_share` at the
        same share of the highest frequency.
    """
    first, last = len(large) // 2 - len(small) // 2, len(large) // 2 + len(small) // 2
    common = np.fft.ifftshift(np.fft.fftshift(large)[first:last, first:last])
    similarity = float(correlation(torch.from_numpy(common), torch.from_numpy(small)))
    fine, coarse = (ring_means(torch.from_numpy(mask)).numpy() for mask in (large, small))
    differences = {"by_cycles": fine[: len(coarse)] - coarse, "by_share": fine[:: len(large) // len(small)] - coarse}
    texts = {name: f"{np.abs(difference).mean():.2f}" for name, difference in differences.items()}
    return texts | {"correlation": f"{similarity:.2f}", "within": f"{(common**2).sum() / (large**2).sum():.0%}"}


def accuracies(results: Results) -> pd.DataFrame:
    """Validation accuracy in percent: one row per regime and repetition; columns standard, masked, attacked."""
    correct = results.arrays("evaluation")
    regimes = list(dict.fromkeys(name.split(".")[1] for name in correct))
    columns = {
        kind: [100 * run.mean() for regime in regimes for run in correct[f"{kind}.{regime}"]]
        for kind in ("standard", "masked", "attacked")
    }
    repetitions = range(len(correct[f"standard.{regimes[0]}"]))
    return pd.DataFrame(
        columns, index=pd.MultiIndex.from_product([regimes, repetitions], names=["regime", "repetition"])
    )


def mask_shapes(results: Results) -> pd.DataFrame:
    """Size and shape of the dataset masks, one row per regime: mean over repetitions, with the range in parentheses.

    `saturated` is the share of a mask's entries below 0.05 or above 0.95, `anisotropy` the standard deviation of its
    angular energy over the mean.
    """
    table = results.table("masks")
    table = table[table["variant"] == "plain"].copy()
    stacks = results.arrays("dataset_masks")
    planes = [
        stacks[regime][repetition] for regime, repetition in zip(table["regime"], table["repetition"], strict=True)
    ]
    angular = [angular_energy(torch.from_numpy(plane)).numpy() for plane in planes]
    table["saturated"] = [((plane < 0.05) | (plane > 0.95)).mean() for plane in planes]
    table["anisotropy"] = [energy.std() / energy.mean() for energy in angular]
    names = ["l1_share", "low_share", "mean_radius", "saturated", "anisotropy"]
    return table.groupby("regime", sort=False)[names].agg(
        lambda values: f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"
    )


def similarity_to_standard(results: Results) -> pd.DataFrame:
    """Correlation of the masks of each regime with those of the standard networks N: mean (range) over pairs.

    One row per regime; columns "another seed" and "same seed". A pair of two networks N is counted once.
    """
    arrays = results.arrays("dataset_masks")
    stacks = {name: torch.from_numpy(stack) for name, stack in arrays.items() if "." not in name}
    rows: dict[str, dict[str, str]] = {}
    for regime, stack in stacks.items():
        values: dict[str, list[float]] = {"another seed": [], "same seed": []}
        for i, standard in enumerate(stacks["N"]):
            for j, mask in enumerate(stack):
                if regime != "N" or i < j:
                    values["same seed" if i == j else "another seed"].append(float(correlation(standard, mask)))
        rows[regime] = {
            column: f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})" if found else "\N{EN DASH}"
            for column, found in values.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


#: Claims that are computed at the paper's scale -> labels of their rows.
AT_SCALE = {
    "T1.N.standard": "standard (N): accuracy, unmasked",
    "T1.N.masked": "N: accuracy, mask applied",
    "T1.N.gap": "N: change when the mask is applied",
    "N.robust": "N: accuracy under PGD",
    "T1.S.standard": "scale (S): accuracy, unmasked",
    "T1.S.masked": "S: accuracy, mask applied",
    "T1.S.gap": "S: change when the mask is applied",
    "T1.T.standard": "translation (T): accuracy, unmasked",
    "T1.T.masked": "T: accuracy, mask applied",
    "T1.T.gap": "T: change when the mask is applied",
    "F4.S.low_shift": "S minus N: low share",
    "F4.T.low_shift": "T minus N: low share",
}

#: The claims about ResNets -> their labels.
RESNET_AT_SCALE = {
    "V.accuracy": "ResNet minus VGG, N: accuracy",
    "V.N.gap": "N: change when the mask is applied",
    "V.A.gap": "A: change when the mask is applied",
    "V.S.gap": "S: change when the mask is applied",
    "V.A.robust": "A: accuracy under PGD",
    "V.correlation": "ResNet and VGG, N: correlation of masks",
    "V.low_shift": "A minus N: low share",
    "V.S.low_shift": "S minus N: low share",
    "V.N1.low_shift": "another N minus N: low share",
    "V.N1.correlation": "two N: correlation of masks",
}


def resnet_table(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row per ResNet: accuracies, and its mask beside that of N.

    Args:
        arrays: `second_architecture.npz`: `mask.<name>` (H, W); `standard.<name>`, `masked.<name>` and
            `attacked.<name>`, whether each image is classified correctly, where they were evaluated.

    Returns:
        Formatted values. "turns at" is the radius, as a fraction of the corner radius, of the first band with no more
        energy than N's mask has, and "deepest" the smallest difference of a band.
    """
    names = {"N": "standard (N)", "N1": "standard, another seed", "A": "adversarially trained (A)", "S": "scale (S)"}
    kinds = {"accuracy (%)": "standard", "mask applied (%)": "masked", "under PGD (%)": "attacked"}
    planes = {name: torch.from_numpy(arrays[f"mask.{name}"]) for name in names}
    base, rows = radial_energy(planes["N"]), {}
    for name, plane in planes.items():
        change = radial_energy(plane) - base
        turn = int((change > 0).int().argmin()) / len(change)
        rates = {title: arrays.get(f"{kind}.{name}") for title, kind in kinds.items()}
        rows[names[name]] = {
            title: "n/a" if rate is None else f"{100 * rate.mean():.1f}" for title, rate in rates.items()
        } | {
            "L1 share": f"{float(plane.mean()):.3f}",
            "low share": f"{float(low_share(plane)):.3f}",
            "r with N": "n/a" if name == "N" else f"{float(correlation(plane, planes['N'])):.3f}",
            "turns at": f"{turn:.2f}" if name in "AS" else "n/a",
            "deepest": "n/a" if name == "N" else f"{float(change.min()):.3f}",
        }
    return pd.DataFrame(rows).T


def trainings(results: Results) -> list[dict[str, np.ndarray]]:
    """N after earlier trainings of it with the same seed, if any are published, in their order.

    Returns:
        Of each training: `mask.N` (H, W); `standard.N`, `masked.N` and `attacked.N`, whether each image is classified
        correctly. The last one is N, whose mask and accuracies are shown elsewhere.
    """
    evaluated = results.arrays("evaluation")
    last = {f"{kind}.N": evaluated[f"{kind}.N"][0] for kind in ("standard", "masked", "attacked")}
    last["mask.N"] = results.arrays("dataset_masks")["N"][0]
    with suppress(NotComputed):
        earlier = results.arrays("earlier_trainings")  # each array with a first axis of trainings
        return [{name: earlier[name][place] for name in last} for place in range(len(earlier["mask.N"]))] + [last]
    return [last]


def trainings_table(results: Results) -> pd.DataFrame:
    """The `trainings` of N side by side: accuracies and masks.

    Returns:
        Formatted values. "r" is the correlation of a training's mask with that of the last one.
    """
    trained = trainings(results)
    last = trained[-1]
    rows = {}
    for number, arrays in enumerate(trained, 1):
        plane = torch.from_numpy(arrays["mask.N"])
        rows[f"training {number}"] = {
            "accuracy (%)": f"{100 * arrays['standard.N'].mean():.1f}",
            "mask applied (%)": f"{100 * arrays['masked.N'].mean():.1f}",
            "under PGD (%)": f"{100 * arrays['attacked.N'].mean():.1f}",
            "L1 share": f"{float(plane.mean()):.3f}",
            "low share": f"{float(low_share(plane)):.3f}",
            "r": "n/a" if arrays is last else f"{float(correlation(plane, torch.from_numpy(last['mask.N']))):.3f}",
        }
    return pd.DataFrame(rows).T
