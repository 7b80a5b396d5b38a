"""The claims on harmonics, networks and dataset masks: figures 1 to 4 and table 1."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fmlib.core.intervals import Measured, average, exact, min_max, paired, pooled_range, wilson
from fmlib.core.spectra import correlation, low_share, ring_means
from fmlib.pipeline.results import NotComputed, Results


def _hits(results: Results, what: str, regime: str) -> list[np.ndarray]:
    """Per repetition, whether each validation image is classified rightly: rows (images,)."""
    return list(results.arrays("evaluation")[f"{what}.{regime}"])


def accuracy(results: Results, what: str, regime: str) -> Measured:
    return pooled_range([wilson(hits) for hits in _hits(results, what, regime)])


def masking_gap(results: Results, regime: str) -> Measured:
    masked, standard = _hits(results, "masked", regime), _hits(results, "standard", regime)
    return pooled_range([paired(m, s) for m, s in zip(masked, standard, strict=True)])


def held_out_gap(results: Results) -> Measured:
    """On the odd images: behind the mask fitted on the even ones, minus unmasked."""
    hits = results.arrays("held_out")
    return paired(hits["half"], hits["standard"])


def mask_contrast(results: Results, column: str, regime: str) -> Measured:
    """A column of the masks' table, one regime's minus N's, networks of the same seed paired."""
    table = results.table("masks")
    table = table[table["variant"] == "plain"].set_index(["regime", "repetition"])[column]
    if regime not in table.index:
        raise NotComputed(f"no network of regime {regime} was trained")
    return min_max((table.loc[regime] - table.loc["N"]).to_numpy())


def repetition_range(results: Results, table: str, column: str) -> Measured:
    return min_max(results.table(table)[column].to_numpy(dtype=float))


def stability_correlation(results: Results, pair: str) -> Measured:
    table = results.table("stability")
    return min_max(table[table["pair"] == pair]["correlation"].to_numpy())


def sinc_error(results: Results) -> Measured:
    """Largest distance of the averaged filter's amplitude from the sinc."""
    rows = results.table("translation")
    return exact(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))


def _resnet_arrays(results: Results, network: str) -> dict[str, np.ndarray]:
    """What is published of one ResNet, such as "A" or "N1", among that of others: `<what>.<network>`."""
    return results.arrays("second_architecture")


def _resnet_mask(results: Results, network: str) -> Tensor:
    return torch.from_numpy(_resnet_arrays(results, network)[f"mask.{network}"])


def resnet_accuracy_difference(results: Results) -> Measured:
    """Accuracy of the plain ResNet minus the plain VGG's, on the validation images."""
    return paired(_resnet_arrays(results, "N")["standard.N"], results.arrays("evaluation")["standard.N"][0])


def resnet_robust_accuracy(results: Results) -> Measured:
    """How often A is right under the training attack."""
    return wilson(_resnet_arrays(results, "A")["attacked.A"])


def resnet_masking_gap(results: Results, regime: str) -> Measured:
    """Accuracy behind its own dataset mask, minus unmasked."""
    hits = _resnet_arrays(results, regime)
    return paired(hits[f"masked.{regime}"], hits[f"standard.{regime}"])


def architecture_correlation(results: Results) -> Measured:
    """The two architectures' dataset masks of N."""
    first = torch.from_numpy(results.arrays("dataset_masks")["N"][0])
    return average(np.array([float(correlation(_resnet_mask(results, "N"), first))]))


def resnet_seed_correlation(results: Results) -> Measured:
    """The dataset masks of the two plain ResNets."""
    return average(np.array([float(correlation(_resnet_mask(results, "N1"), _resnet_mask(results, "N")))]))


def resnet_low_shift(results: Results, network: str) -> Measured:
    """Energy share below a third of the corner radius, the network's mask minus N's."""
    shares = [float(low_share(_resnet_mask(results, one))) for one in (network, "N")]
    return average(np.array([shares[0] - shares[1]]))


def compare_sizes(small: np.ndarray, large: np.ndarray) -> dict[str, str]:
    """How two masks (h, h) and (H, H), DC at (0, 0), H a multiple of h, compare, ready for prose.

    `correlation` over the frequencies that both have; `within`, the share of the larger one's energy at these; how far
    their means on rings are apart on average, `by_cycles` at the same cycles per image and `by_share` at the same share
    of the highest frequency.
    """
    first, last = len(large) // 2 - len(small) // 2, len(large) // 2 + len(small) // 2
    common = np.fft.ifftshift(np.fft.fftshift(large)[first:last, first:last])
    alike = float(correlation(torch.from_numpy(common), torch.from_numpy(small)))
    fine, coarse = (ring_means(torch.from_numpy(mask)).numpy() for mask in (large, small))
    apart = {"by_cycles": fine[: len(coarse)] - coarse, "by_share": fine[:: len(large) // len(small)] - coarse}
    found = {name: f"{np.abs(difference).mean():.2f}" for name, difference in apart.items()}
    return found | {"correlation": f"{alike:.2f}", "within": f"{(common**2).sum() / (large**2).sum():.0%}"}


def accuracies(results: Results) -> pd.DataFrame:
    """Percent right on the validation set: a row for each regime and repetition; columns standard, masked, attacked."""
    hits = results.arrays("evaluation")
    regimes = list(dict.fromkeys(name.split(".")[1] for name in hits))
    columns = {
        kind: [100 * one.mean() for regime in regimes for one in hits[f"{kind}.{regime}"]]
        for kind in ("standard", "masked", "attacked")
    }
    repetitions = range(len(hits[f"standard.{regimes[0]}"]))
    return pd.DataFrame(
        columns, index=pd.MultiIndex.from_product([regimes, repetitions], names=["regime", "repetition"])
    )
