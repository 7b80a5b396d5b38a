"""The claims on Jacobian frequency regularisation: Chan et al.'s, and controls on masking and on dataset masks."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import spearmanr

from fmlib.claim import CONTROL, Claim, Measure, at_least, at_most, positive
from fmlib.intervals import Measured, Z, average, envelope, paired, spread
from fmlib.results import Results

CHAPTER = "jacobian_regularisation"
CHAN = "Chan et al. (2022), abstract"
KRISHNAMACHARI = "Krishnamachari et al. (2022)"


def bits(arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A packed array of bool as it was: `name` holds its bits, `name.shape` its shape."""
    shape = arrays[f"{name}.shape"]
    return np.unpackbits(arrays[name], count=shape.prod()).reshape(shape).astype(bool)


def packed(name: str, found: np.ndarray) -> dict[str, np.ndarray]:
    """What `bits` reads."""
    return {name: np.packbits(found), f"{name}.shape": np.array(found.shape)}


def right(results: Results, kind: str, regime: str) -> np.ndarray:
    """Whether each network is right on each changed image: (repetitions, N, kinds, strengths), as percent.

    kind: "corruptions" (14 kinds, 5 severities) or "bands" (6 bands of radius, 2 strengths).
    """
    return 100.0 * bits(results.arrays("corruptions"), f"{kind}.{regime}")


def gains(results: Results, kind: str, regime: str, base: str = "N") -> np.ndarray:
    """Points by which a regime's networks are right more often than those of `base` from the same seeds.

    (repetitions, N, kinds), the mean over strengths; see `right`.
    """
    own = right(results, kind, regime)
    return (own - right(results, kind, base)[: len(own)]).mean(-1)


def radii(results: Results) -> np.ndarray:
    """Mean radius of each corruption's energy, the mean over severities: (14,), as a fraction of the corner radius."""
    table = results.table("corruptions")
    return table.groupby("corruption", sort=False)["mean_radius"].mean().to_numpy()


def halves(results: Results, kind: str, regime: str, base: str = "N") -> tuple[np.ndarray, np.ndarray]:
    """Mean gains on the kinds of lower and on those of higher frequencies: (repetitions, N) each; see `gains`.

    The median parts them, of the mean radius of corruptions, or of the bands' number.
    """
    found = gains(results, kind, regime, base)
    place = radii(results) if kind == "corruptions" else np.arange(found.shape[-1])
    middle = np.median(place)
    return found[..., place < middle].mean(-1), found[..., place > middle].mean(-1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Measured:
    """Spearman's correlation of two samples (n,), n > 3, with its 95% interval; equal values correlate with nothing.

    Source of the interval: Bonett and Wright (2000).
    """
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    value = 0.0 if constant else float(np.clip(spearmanr(first, second).statistic, -1, 1))
    if abs(value) > 1 - 1e-9:
        return Measured(round(value), round(value), round(value), len(first))
    error = Z * math.sqrt((1 + value**2 / 2) / (len(first) - 3))
    centre = math.atanh(value)
    return Measured(value, math.tanh(centre - error), math.tanh(centre + error), len(first))


def _jacobian(more: str, less: str) -> Measure:
    """Difference of two regimes' low shares of the Jacobian, paired over images and seeds."""

    def measure(results: Results) -> Measured:
        arrays = results.arrays("jacobians")
        pairs = zip(arrays[f"low.{more}"].astype(float), arrays[f"low.{less}"].astype(float), strict=False)
        return envelope([average(first - second) for first, second in pairs])

    return measure


def _accuracy(regime: str) -> Measure:
    """Accuracy on the validation images, a regime's minus N's, paired over images and seeds."""

    def measure(results: Results) -> Measured:
        arrays = results.arrays("biased_evaluation")
        first, second = (bits(arrays, f"standard.{name}") for name in (regime, "N"))
        return envelope([paired(own, plain) for own, plain in zip(first, second, strict=True)])

    return measure


def _corruptions(regime: str, high: bool, sign: int) -> Measure:
    """Mean gain over N (sign -1: loss) on the half of the corruptions of higher or of lower mean radius."""

    def measure(results: Results) -> Measured:
        return envelope([average(sign * one) for one in halves(results, "corruptions", regime)[high]])

    return measure


def _order(regime: str, sign: int) -> Measure:
    """Rank correlation of the corruptions' mean radius with the gain over N (sign -1: loss), over repetitions' mean."""

    def measure(results: Results) -> Measured:
        return rank_correlation(radii(results), sign * gains(results, "corruptions", regime).mean((0, 1)))

    return measure


def _bands(regime: str, sign: int) -> Measure:
    """Gain over N under noise in the upper half of the bands minus that in the lower half (sign -1: the reverse)."""

    def measure(results: Results) -> Measured:
        low, high = halves(results, "bands", regime)
        return envelope([average(sign * one) for one in high - low])

    return measure


def _attack(first: str, second: str) -> Measure:
    """Difference of two regimes' accuracies under AutoAttack, paired over images and seeds."""

    def measure(results: Results) -> Measured:
        arrays = results.arrays("robustness")
        pairs = zip(*(arrays[f"AutoAttack.{name}"] for name in (first, second)), strict=False)
        return envelope([paired(*pair) for pair in pairs])

    return measure


def _masking(attack: str) -> Measure:
    """By how many points an attack fools more images than PGD with restarts; of the networks, the one where it is most.

    Both attacks have the same radius.
    """

    def measure(results: Results) -> Measured:
        arrays = results.arrays("robustness")
        names = [name.removeprefix("PGD.") for name in arrays if name.startswith("PGD.")]
        pairs = (zip(arrays[f"PGD.{name}"], arrays[f"{attack}.{name}"], strict=True) for name in names)
        return max(paired(*pair) for one in pairs for pair in one)

    return measure


def _contrast(column: str, regime: str, sign: int) -> Measure:
    """A column of the networks' table, a regime's minus N's (sign -1: the reverse), paired over seeds."""

    def measure(results: Results) -> Measured:
        table = results.table("biased_networks").set_index(["network", "repetition"])[column]
        return spread(sign * (table.loc[regime] - table.loc["N"]).to_numpy())

    return measure


def together(results: Results) -> Measured:
    """Rank correlation, over kinds of networks, of the low shares of Jacobian and dataset mask."""
    table = results.table("biased_networks").groupby("network", sort=False)
    columns = table[["jacobian_low_share", "mask_low_share"]].mean().to_numpy()
    return rank_correlation(columns[:, 0], columns[:, 1])


SHARE, POINTS = "share of energy", "points"

CLAIMS: list[Claim] = [
    positive(
        "J.jacobian.N+",
        CHAN,
        CHAPTER,
        "JaFR's bias to low frequencies raises the share of the Jacobian's energy that lies there.",
        _jacobian("N+", "N"),
        SHARE,
    ),
    positive(
        "J.jacobian.N-",
        CHAN,
        CHAPTER,
        "JaFR's bias to high frequencies lowers the share of the Jacobian's energy at low ones.",
        _jacobian("N", "N-"),
        SHARE,
    ),
    positive(
        "J.jacobian.N_low",
        KRISHNAMACHARI,
        CHAPTER,
        "Regularising the Fourier sensitivity instead, against high frequencies, raises that share as well.",
        _jacobian("N_low", "N"),
        SHARE,
    ),
    positive(
        "J.jacobian.N_small",
        CONTROL,
        CHAPTER,
        "A Jacobian that is only made smaller moves to low frequencies, though nothing asks for it.",
        _jacobian("N_small", "N"),
        SHARE,
    ),
    *(
        positive(
            f"J.statistic.{regime}",
            CONTROL,
            CHAPTER,
            f"The statistic S of the Jacobian {word} on validation images, as training asks of it.",
            _contrast("statistic", regime, sign),
            "S",
        )
        for regime, word, sign in (("N+", "rises", 1), ("N-", "falls", -1))
    ),
    *(
        at_least(
            f"J.accuracy.{regime}",
            CONTROL,
            CHAPTER,
            f"A bias to {name} frequencies costs no more than 2 points of accuracy on clean images.",
            _accuracy(regime),
            near=-2,
            far=-5,
            unit=POINTS,
        )
        for regime, name in {"N+": "low", "N-": "high"}.items()
    ),
    positive(
        "J.corruption.N+.gain",
        CHAN,
        CHAPTER,
        "A bias to low frequencies helps against high-frequency corruptions.",
        _corruptions("N+", high=True, sign=1),
        POINTS,
    ),
    positive(
        "J.corruption.N+.cost",
        CHAN,
        CHAPTER,
        "A bias to low frequencies hurts under low-frequency corruptions.",
        _corruptions("N+", high=False, sign=-1),
        POINTS,
    ),
    positive(
        "J.corruption.N-.gain",
        CHAN,
        CHAPTER,
        "A bias to high frequencies helps against low-frequency corruptions.",
        _corruptions("N-", high=False, sign=1),
        POINTS,
    ),
    positive(
        "J.corruption.N-.cost",
        CHAN,
        CHAPTER,
        "A bias to high frequencies hurts under high-frequency corruptions.",
        _corruptions("N-", high=True, sign=-1),
        POINTS,
    ),
    *(
        positive(
            f"J.corruption.N_low.{what}",
            CONTROL,
            CHAPTER,
            f"A penalty on the Fourier sensitivity at high radii {effect} corruptions.",
            _corruptions("N_low", high, sign),
            POINTS,
        )
        for what, effect, high, sign in (
            ("gain", "helps against high-frequency", True, 1),
            ("cost", "hurts under low-frequency", False, -1),
        )
    ),
    positive(
        "J.order.N+",
        CONTROL,
        CHAPTER,
        "The higher the frequencies that a corruption changes, the more a bias to low ones gains.",
        _order("N+", sign=1),
        "rank correlation",
    ),
    positive(
        "J.order.N-",
        CONTROL,
        CHAPTER,
        "The higher the frequencies that a corruption changes, the more a bias to high ones loses.",
        _order("N-", sign=-1),
        "rank correlation",
    ),
    positive(
        "J.bands.N+",
        CONTROL,
        CHAPTER,
        "A bias to low frequencies gains more under noise of high frequencies alone than under noise of low ones.",
        _bands("N+", sign=1),
        POINTS,
    ),
    positive(
        "J.bands.N-",
        CONTROL,
        CHAPTER,
        "A bias to high frequencies gains more under noise of low frequencies alone than under noise of high ones.",
        _bands("N-", sign=-1),
        POINTS,
    ),
    positive(
        "J.bands.N_low",
        CONTROL,
        CHAPTER,
        "The penalty at high radii gains more under noise of high frequencies alone than under noise of low ones.",
        _bands("N_low", sign=1),
        POINTS,
    ),
    positive(
        "J.attack.F+",
        CHAN,
        CHAPTER,
        "A bias to low frequencies helps a network trained by FGSM, a weak attack, to withstand AutoAttack.",
        _attack("F+", "F"),
        POINTS,
    ),
    positive(
        "J.attack.N+",
        CONTROL,
        CHAPTER,
        "A bias to low frequencies alone, without adversarial training, makes a network withstand AutoAttack better.",
        _attack("N+", "N"),
        POINTS,
    ),
    positive(
        "J.attack.N_low",
        CONTROL,
        CHAPTER,
        "The penalty at high radii, without adversarial training, makes a network withstand AutoAttack better.",
        _attack("N_low", "N"),
        POINTS,
    ),
    at_most(
        "J.attack.N_high",
        CONTROL,
        CHAPTER,
        "The penalty at low radii, which bends the Jacobian the other way, does not help against AutoAttack.",
        _attack("N_high", "N"),
        near=2,
        far=5,
        unit=POINTS,
    ),
    positive(
        "J.attack.N_small",
        CONTROL,
        CHAPTER,
        "A penalty on the Jacobian's size alone makes a network withstand AutoAttack better.",
        _attack("N_small", "N"),
        POINTS,
    ),
    positive(
        "J.attack.place",
        CONTROL,
        CHAPTER,
        "Of two Jacobians about as small, the one bent to low frequencies withstands AutoAttack better.",
        _attack("N_low", "N_small"),
        POINTS,
    ),
    *(
        at_most(
            f"J.masking.{attack}",
            CONTROL,
            CHAPTER,
            f"{attack} fools hardly more images than PGD with restarts does, of any of the networks: {reason}.",
            _masking(attack),
            near=near,
            far=far,
            unit=POINTS,
        )
        for attack, reason, near, far in (
            ("Square", "it has no gradients to be misled by", 0, 2),
            ("AutoAttack", "a gain under PGD is no artefact of its steps", 3, 6),
        )
    ),
    positive(
        "J.bridge.N+",
        CONTROL,
        CHAPTER,
        "The dataset mask moves with the Jacobian: a bias to low frequencies moves its energy to low ones.",
        _contrast("mask_low_share", "N+", sign=1),
        SHARE,
    ),
    positive(
        "J.bridge.N-",
        CONTROL,
        CHAPTER,
        "The dataset mask moves with the Jacobian: a bias to high frequencies moves its energy to high ones.",
        _contrast("mask_low_share", "N-", sign=-1),
        SHARE,
    ),
    positive(
        "J.bridge.order",
        CONTROL,
        CHAPTER,
        "Networks whose Jacobian lies at lower frequencies have masks that lie at lower ones, over all kinds.",
        together,
        "rank correlation",
    ),
]
