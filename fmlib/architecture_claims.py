"""The claims on another architecture: a ResNet beside the VGG, and at the paper's scale augmented ones too."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmlib.claim import NAMES, PAPER, Claim, Measure, at_least, unchanged
from fmlib.intervals import Measured, average, paired, wilson
from fmlib.results import Results
from fmlib.spectra import correlation, low_share

CHAPTER, SOURCE = "dataset_masks", f"{PAPER}, section 2.2"


def _found(results: Results, regime: str) -> dict[str, np.ndarray]:
    """What is published of the ResNet of one regime, among that of others: `<what>.<regime>`."""
    return results.arrays("second_architecture" if regime in "NA" else "second_augmented")


def _mask(results: Results, regime: str) -> Tensor:
    return torch.from_numpy(_found(results, regime)[f"mask.{regime}"])


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


def _low_shift(regime: str) -> Measure:
    """Energy share below a third of the corner radius, the regime's mask minus N's."""

    def measure(results: Results) -> Measured:
        shares = [float(low_share(_mask(results, one))) for one in (regime, "N")]
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
#: up to .05, of either sign, so a single pair has to differ by more.
AUGMENTED: list[Claim] = [
    *(_gap_claim(regime) for regime in "ST"),
    _low_shift_claim(
        "V.S.low_shift", "S", "Scale augmentation moves a ResNet's mask towards low frequencies.", least=0.05
    ),
    _low_shift_claim(
        "V.T.low_shift", "T", "Translation augmentation damps the high frequencies of a ResNet's mask.", least=0.05
    ),
]
