"""The claims on harmonics, networks and dataset masks: figures 1 to 4 and table 1."""

from __future__ import annotations

import numpy as np

from fmlib.claim import NAMES, PAPER, Claim, Measure, at_least, at_most, unchanged
from fmlib.intervals import Measured, envelope, paired, spread, wilson
from fmlib.results import Results


def _hits(results: Results, what: str, regime: str) -> list[np.ndarray]:
    """Per repetition, whether each validation image is classified rightly: rows (images,)."""
    return list(results.arrays("evaluation")[f"{what}.{regime}"])


def _rate(what: str, regime: str) -> Measure:
    return lambda results: envelope([wilson(hits) for hits in _hits(results, what, regime)])


def _gap(regime: str) -> Measure:
    def measure(results: Results) -> Measured:
        masked, standard = _hits(results, "masked", regime), _hits(results, "standard", regime)
        return envelope([paired(m, s) for m, s in zip(masked, standard, strict=True)])

    return measure


def _held_out_gap(results: Results) -> Measured:
    """On the odd images: behind the mask fitted on the even ones, minus unmasked."""
    hits = results.arrays("held_out")
    return paired(hits["half"], hits["standard"])


def _contrast(column: str, regime: str) -> Measure:
    """A column of the masks' table, one regime's minus N's, networks of the same seed paired."""

    def measure(results: Results) -> Measured:
        table = results.table("masks")
        table = table[table["variant"] == "plain"].set_index(["regime", "repetition"])[column]
        return spread((table.loc[regime] - table.loc["N"]).to_numpy())

    return measure


def _column(table: str, column: str) -> Measure:
    return lambda results: spread(results.table(table)[column].to_numpy(dtype=float))


def _correlation(pair: str) -> Measure:
    def measure(results: Results) -> Measured:
        table = results.table("stability")
        return spread(table[table["pair"] == pair]["correlation"].to_numpy())

    return measure


def _exactly(value: float, n: int) -> Measured:
    """A number without sampling error."""
    return Measured(value, value, value, n)


FIGURE_1 = ("softplus", "tanh", "relu", "hardtanh")


def _distortion(results: Results) -> Measured:
    """Power above the first harmonic, in percent of all but the mean's; the least of figure 1's activations."""
    table = results.table("harmonics").pivot(index="harmonic", columns="activation", values="measured") ** 2
    shares = 100 * table.loc[2:, list(FIGURE_1)].sum() / table.loc[1:, list(FIGURE_1)].sum()
    return _exactly(float(shares.min()), len(FIGURE_1))


def _series_error(results: Results) -> Measured:
    """Largest distance of a measured coefficient from its Fourier series."""
    errors = results.table("harmonics")["error"].dropna()
    return _exactly(float(errors.max()), len(errors))


def _sinc_error(results: Results) -> Measured:
    """Largest distance of the averaged filter's amplitude from the sinc."""
    rows = results.table("translation")
    return _exactly(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))


def _square_error(results: Results) -> Measured:
    """Largest distance of a product of two squared tones from its exact amplitude."""
    rows = results.table("intermodulation").dropna(subset=["exact"])
    return _exactly(float((rows["measured"] - rows["exact"]).abs().max()), len(rows))


# ------------------------------------------------------------------------------------------------ the claims

_T1 = {"N": (89.56, 89.20), "A": (79.62, 78.97), "S": (86.62, 86.72), "T": (85.86, 85.35), "R": (68.47, 68.17)}


def _accuracy_claim(regime: str, what: str, published: float) -> Claim:
    mode = "behind its dataset mask" if what == "masked" else "as it stands"
    return Claim(
        id=f"T1.{regime}.{what}",
        source=f"{PAPER}, Table 1",
        statement=f"The {NAMES[regime]} network {mode} classifies {published}% of the validation images.",
        published=published,
        unit="%",
        chapter="dataset_masks",
        measure=_rate(what, regime),
        reproduced=lambda m: abs(m.value - published) <= 3,
        partly=lambda m: abs(m.value - published) <= 6,
        tolerance="within 3 points (partly: 6), judged only with the paper's network and resolution",
        needs="paper",
    )


_SHIFTS = {
    "low_shift": ("low_share", "share of energy", "share of energy below a third of the radius"),
    "size_shift": ("l1_share", "share of the all-ones mask", "L1 share"),
}


def _shift_claim(identity: str, where: str, statement: str, sign: int) -> Claim:
    """A mask differs from the plain network's in a column of the table of masks, upwards (sign 1) or downwards (-1)."""
    _, regime, kind = identity.split(".")
    column, unit, words = _SHIFTS[kind]
    return Claim(
        id=identity,
        source=f"{PAPER}, {where}",
        statement=statement,
        published=None,
        unit=unit,
        chapter="dataset_masks",
        measure=_contrast(column, regime),
        reproduced=lambda m: min(sign * m.low, sign * m.high) > 0,
        partly=lambda m: sign * m.value > 0,
        tolerance=f"{regime}'s {words} is {'above' if sign > 0 else 'below'} N's every time (partly: on average)",
    )


CLAIMS: list[Claim] = [
    Claim(
        id="F1.distortion",
        source=f"{PAPER}, Figure 1",
        statement="Softplus, tanh, ReLU and hardtanh all add harmonics to a sine.",
        published=None,
        unit="% of power",
        chapter="harmonic_distortion",
        measure=_distortion,
        reproduced=lambda m: m.value > 1e-3,
        partly=lambda m: m.value > 1e-9,
        tolerance="each puts more than .001% of its power above the first harmonic (partly: more than round-off)",
        needs="anything",
    ),
    Claim(
        id="F1.square",
        source=f"{PAPER}, section 2.1",
        statement="A square turns two tones into their sum, difference and doubles, with the printed amplitudes.",
        published=0.0,
        unit="amplitude",
        chapter="harmonic_distortion",
        measure=_square_error,
        reproduced=lambda m: m.value < 1e-9,
        partly=lambda m: m.value < 1e-3,
        tolerance="every product within 1e-9 of its amplitude (partly: 1e-3)",
        needs="anything",
    ),
    Claim(
        id="F1.series",
        source="test of the measurement",
        statement="Measured harmonics agree with the exact Fourier series of every activation that has one.",
        published=None,
        unit="amplitude",
        chapter="harmonic_distortion",
        measure=_series_error,
        reproduced=lambda m: m.value < 1e-6,
        partly=lambda m: m.value < 1e-3,
        tolerance="every coefficient up to the 8th within 1e-6 (partly: 1e-3)",
        needs="anything",
    ),
    *(_accuracy_claim(regime, "standard", _T1[regime][0]) for regime in _T1),
    *(_accuracy_claim(regime, "masked", _T1[regime][1]) for regime in _T1),
    *(
        unchanged(
            f"T1.{regime}.gap",
            f"{PAPER}, Table 1",
            "dataset_masks",
            f"Its dataset mask leaves the accuracy of the {NAMES[regime]} network unchanged.",
            _gap(regime),
            round(masked - standard, 2),
        )
        for regime, (standard, masked) in _T1.items()
    ),
    unchanged(
        "T1.N.held_out_gap",
        "test of the method",
        "dataset_masks",
        "The plain network keeps its accuracy on images that its mask was not fitted on.",
        _held_out_gap,
    ),
    at_most(
        "N.robust",
        "condition of the comparison",
        "dataset_masks",
        "The training attack breaks the plainly trained network.",
        _rate("attacked", "N"),
        near=20,
        far=40,
    ),
    at_least(
        "A.robust",
        "condition of the comparison",
        "dataset_masks",
        "Adversarial training makes the network withstand its training attack.",
        _rate("attacked", "A"),
        near=40,
        far=30,
    ),
    _shift_claim(
        "F4.A.low_shift",
        "Figure 4",
        "Adversarial training moves the mask's energy below a third of the corner radius.",
        sign=1,
    ),
    _shift_claim(
        "F3.A.size_shift",
        "Figure 3",
        "The mask of the adversarially trained network is smaller than that of the plain one.",
        sign=-1,
    ),
    _shift_claim(
        "F3.R.size_shift",
        "Figure 3",
        "The mask of the rotation-augmented network is wider than that of the plain one.",
        sign=1,
    ),
    _shift_claim(
        "F4.S.low_shift",
        "Figure 4",
        "Scale augmentation moves the mask's energy towards low frequencies.",
        sign=1,
    ),
    _shift_claim(
        "F4.T.low_shift",
        "section 3",
        "Translation augmentation damps high frequencies, as the argument for one layer suggests.",
        sign=1,
    ),
    Claim(
        id="F4.sinc",
        source=f"{PAPER}, section 3",
        statement="A filter averaged over translations loses high frequencies as a sinc (one layer, one dimension).",
        published=0.0,
        unit="amplitude",
        chapter="dataset_masks",
        measure=_sinc_error,
        reproduced=lambda m: m.value < 1e-4,
        partly=lambda m: m.value < 1e-2,
        tolerance="every amplitude up to 16 cycles within 1e-4 of the sinc (partly: 1e-2)",
        needs="anything",
    ),
    _shift_claim(
        "F4.R.low_shift",
        "Figure 4",
        "Rotation augmentation moves the mask's energy towards high frequencies.",
        sign=-1,
    ),
    at_least(
        "S.order_correlation",
        f"{PAPER}, section 2.1",
        "dataset_masks",
        "Two fits of the same network's mask, with the images in different orders, agree.",
        _correlation("order"),
        near=0.95,
        far=0.8,
        unit="correlation",
        needs="anything",
    ),
    at_least(
        "S.network_correlation",
        f"{PAPER}, section 2.1",
        "dataset_masks",
        "The masks of two networks trained alike from different seeds agree.",
        _correlation("network"),
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    Claim(
        id="P.planted.precision",
        source="test of the method",
        statement="Where the informative frequencies are known, the mask keeps nothing else.",
        published=None,
        unit="share",
        chapter="dataset_masks",
        measure=_column("planted", "precision"),
        reproduced=lambda m: m.low >= 0.99,
        partly=lambda m: m.low >= 0.9,
        tolerance="at least .99 in every repetition (partly: .90)",
        needs="anything",
    ),
    Claim(
        id="P.planted.recall",
        source="test of the method",
        statement="Where the informative frequencies are known, the mask keeps them.",
        published=None,
        unit="share",
        chapter="dataset_masks",
        measure=_column("planted", "recall"),
        reproduced=lambda m: m.low >= 0.8,
        partly=lambda m: m.low >= 0.6,
        tolerance="at least .80 in every repetition (partly: .60)",
        needs="anything",
    ),
]
