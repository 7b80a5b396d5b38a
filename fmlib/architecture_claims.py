"""The claims on another architecture: a ResNet beside the VGG, and more ResNets at the paper's scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmlib.claim import CONTROL, NAMES, PAPER, Claim, Measure, at_least, unchanged
from fmlib.intervals import Measured, average, paired, wilson
from fmlib.results import Results
from fmlib.spectra import correlation, low_share

CHAPTER, SOURCE = "dataset_masks", f"{PAPER}, section 2.2"


def _found(results: Results, network: str) -> dict[str, np.ndarray]:
    """What is published of one ResNet, such as "A" or "N1", among that of others: `<what>.<network>`."""
    return results.arrays("second_architecture" if network in "NA" else "second_more")


def _mask(results: Results, network: str) -> Tensor:
    return torch.from_numpy(_found(results, network)[f"mask.{network}"])


def _accuracy(results: Results) -> Measured:
    """Accuracy of the plain ResNet minus the plain VGG's, on the validation images."""
    return paired(_found(results, "N")["standard.N"], results.arrays("evaluation")["standard.N"][0])


def _withstood(results: Results) -> Measured:
    """How often A is right under the training attack."""
    return wilson(_found(results, "A")["attacked.A"])


def _gap(regime: str) -> Measure:
    """Accuracy behind its own dataset mask, minus as it stands."""

    def measure(results: Results) -> Measured:
        hits = _found(results, regime)
        return paired(hits[f"masked.{regime}"], hits[f"standard.{regime}"])

    return measure


def _correlation(results: Results) -> Measured:
    """The two architectures' dataset masks of N."""
    first = torch.from_numpy(results.arrays("dataset_masks")["N"][0])
    return average(np.array([float(correlation(_mask(results, "N"), first))]))


def _seed_correlation(results: Results) -> Measured:
    """The dataset masks of the two plain ResNets."""
    return average(np.array([float(correlation(_mask(results, "N1"), _mask(results, "N")))]))


def _low_shift(network: str) -> Measure:
    """Energy share below a third of the corner radius, the network's mask minus N's."""

    def measure(results: Results) -> Measured:
        shares = [float(low_share(_mask(results, one))) for one in (network, "N")]
        return average(np.array([shares[0] - shares[1]]))

    return measure


# ------------------------------------------------------------------------------------------------ the claims


def _gap_claim(regime: str) -> Claim:
    statement = f"Its dataset mask leaves the accuracy of the {NAMES[regime]} ResNet unchanged."
    return unchanged(f"V.{regime}.gap", SOURCE, CHAPTER, statement, _gap(regime))


def _low_shift_claim(identity: str, regime: str, statement: str, least: float) -> Claim:
    """The energy of a mask lies lower than that of N's; one pair of networks."""
    return Claim(
        id=identity,
        source=SOURCE,
        statement=statement,
        published=None,
        unit="share of energy",
        chapter=CHAPTER,
        measure=_low_shift(regime),
        reproduced=lambda m: m.value >= least,
        partly=lambda m: m.value > 0,
        tolerance=f"at least {f'{least:g}'[1:]} more of the mask's energy below a third of the radius (partly: more)",
    )


CLAIMS: list[Claim] = [
    Claim(
        id="V.accuracy",
        source=SOURCE,
        statement="A ResNet reaches an accuracy comparable to the VGG's.",
        published=None,
        unit="points",
        chapter=CHAPTER,
        measure=_accuracy,
        reproduced=lambda m: abs(m.value) <= 5,
        partly=lambda m: abs(m.value) <= 10,
        tolerance="within 5 points (partly: 10)",
    ),
    *(_gap_claim(regime) for regime in "NA"),
    at_least(
        "V.A.robust",
        "condition of the comparison",
        CHAPTER,
        "Adversarial training makes a ResNet withstand its training attack.",
        _withstood,
        near=40,
        far=30,
    ),
    at_least(
        "V.correlation",
        SOURCE,
        CHAPTER,
        "The dataset masks of a ResNet and a VGG, both plainly trained, are alike.",
        _correlation,
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    _low_shift_claim(
        "V.low_shift",
        "A",
        "Adversarial training moves a ResNet's mask to low frequencies as it does a VGG's.",
        least=0.1,
    ),
]

#: Of ResNets that are trained at the paper's scale only. The share of energy of S at profile laptop differs from N's by
#: up to .05, of either sign, so a single pair has to differ by more, and another N by less.
MORE: list[Claim] = [
    _gap_claim("S"),
    _low_shift_claim(
        "V.S.low_shift", "S", "Scale augmentation moves a ResNet's mask towards low frequencies.", least=0.05
    ),
    Claim(
        id="V.N1.low_shift",
        source=CONTROL,
        statement="Two plain ResNets trained alike have as much of their masks' energy at low frequencies.",
        published=None,
        unit="share of energy",
        chapter=CHAPTER,
        measure=_low_shift("N1"),
        reproduced=lambda m: abs(m.value) <= 0.05,
        partly=lambda m: abs(m.value) <= 0.1,
        tolerance="at most .05 of it either way (partly: .1)",
    ),
    at_least(
        "V.N1.correlation",
        f"{PAPER}, section 2.1",
        CHAPTER,
        "The masks of two plain ResNets trained alike from different seeds agree.",
        _seed_correlation,
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
]
