"""The claims on adversarial images: table 2, figures 6 and 7, and what an attack touches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fmlib.claim import CONTROL, PAPER, Claim, Measure, at_least, at_most, near, positive
from fmlib.intervals import Measured, average, paired, spread, wilson
from fmlib.results import Results
from fmlib.spectra import binarize, correlation, full_plane, radial_energy

CHAPTER = "adversarial_tables"

#: Figure 7 is read at these of its 64 bands of radius: the lowest sixteenth, and the middle quarter.
LOWEST, MIDDLE = slice(0, 4), slice(24, 40)


def _kept(what: str) -> Measure:
    """Percent of the images with masks that a network classifies rightly, a column of `tables`."""
    return lambda results: wilson(results.arrays("tables")[what])


def more_energy(
    results: Results, kind: str, binary: bool = False, energy: Callable[[torch.Tensor], torch.Tensor] = radial_energy
) -> np.ndarray:
    """Whether each image's mask of `kind` has more energy than M_{N,x} in each of 64 bands (figure 7): (K, 64).

    binary: of both masks binarised; energy: spectra.radial_energy or angular_energy. A tie is not more.
    """
    arrays = results.arrays("image_masks")
    energies = []
    for name in (kind, "N.x"):
        half = torch.from_numpy(arrays[name].astype(np.float32))
        energies.append(energy(full_plane(binarize(half) if binary else half, 2 * (half.shape[-1] - 1))))
    return (energies[0] > energies[1]).numpy()


def _bands(kind: str, binary: bool, bands: slice) -> Measure:
    """Percent of images where a mask of `kind` exceeds M_{N,x} in a band, averaged over bands."""
    return lambda results: average(100 * more_energy(results, kind, binary)[:, bands].mean(1))


def _low_shift(results: Results) -> Measured:
    """Energy share below a third of the corner radius, M_{A,x_A} minus M_{N,x}, the same images paired."""
    table = results.table("image_masks")
    columns = [table[table["kind"] == kind]["low_share"].to_numpy() for kind in ("A.xA", "N.x")]
    return average(columns[0] - columns[1])


def _attack_enrichment(results: Results) -> Measured:
    """Attack energy at a mask's frequencies over that at radially matched ones, each a mean over images."""
    arrays = results.arrays("tables")
    inside, matched = arrays["attack_inside"].astype(float), arrays["attack_matched"].astype(float)
    draws = np.random.default_rng(0).integers(0, len(inside), (1000, len(inside)))
    low, high = np.quantile(inside[draws].mean(1) / matched[draws].mean(1), (0.025, 0.975)).tolist()
    return Measured(float(inside.mean() / matched.mean()), low, high, len(inside))


def _attack_outside(results: Results) -> Measured:
    return average(100 * (1 - results.arrays("tables")["attack_inside"]))


def _attack_structure(results: Results) -> Measured:
    """Correlations over frequencies of the other families' mean spectra with that of the training attack."""
    arrays = {name: torch.from_numpy(array) for name, array in results.arrays("attacks").items() if "spectrum" in name}
    first, *others = arrays  # the training attack comes first
    families = [name for name in others if "PGD" not in name]
    return spread(np.array([float(correlation(arrays[first], arrays[name])) for name in families]))


def _borrowed(regime: str) -> Measure:
    """N behind A's dataset mask, attacked through it, minus a bare network of that regime under the same attack."""
    return lambda results: paired(
        results.arrays("adaptive")["aware.A"], results.arrays("evaluation")[f"attacked.{regime}"][0]
    )


def _table_claim(identity: str, statement: str, printed: float, what: str, close: float, far: float) -> Claim:
    """An accuracy of table 2."""
    return near(identity, f"{PAPER}, Table 2", CHAPTER, statement, _kept(what), printed, close, far)


CLAIMS: list[Claim] = [
    positive(
        "F6.low_shift",
        f"{PAPER}, section 4",
        CHAPTER,
        "Image by image, the adversarially trained network's masks have more energy at low frequencies.",
        _low_shift,
        unit="share of energy",
    ),
    _table_claim("T2.x", "The images that enter are all classified rightly.", 100.0, "x", 0, 1),
    _table_claim("T2.adversarial", "Attacked, they are all classified wrongly.", 0.0, "xA", 0, 1),
    _table_claim("T2.masked", "Behind their own masks they are classified rightly again.", 100.0, "masked", 1, 5),
    _table_claim(
        "T2.masked_adversarial",
        "Behind the masks of the original images 58.83% of the attacked ones are classified rightly.",
        58.83,
        "masked_adversarial",
        10,
        25,
    ),
    _table_claim(
        "T2.masked_adversarial.binarised",
        "The same figure with binary masks, which the authors' published code uses by a side effect.",
        58.83,
        "masked_adversarial_binarised",
        10,
        25,
    ),
    _table_claim(
        "T2.complement",
        "Behind the complements, without their essential frequencies, 54.4% of the images are classified rightly.",
        54.4,
        "complement",
        10,
        25,
    ),
    at_least(
        "T2.attack_outside",
        f"{PAPER}, section 3.2",
        CHAPTER,
        "The attack mostly relies on frequencies that are not in the mask of the original image.",
        _attack_outside,
        near=75,
        far=50,
        unit="% of the attack's energy",
    ),
    Claim(
        id="T2.attack_enrichment",
        source=CONTROL,
        statement="The attack avoids the mask's frequencies, compared with random ones at the same radii.",
        published=None,
        unit="times",
        chapter=CHAPTER,
        measure=_attack_enrichment,
        reproduced=lambda m: m.high < 1,
        partly=lambda m: m.value < 1,
        tolerance="less energy than at matched frequencies, with its whole interval (partly: on average)",
    ),
    at_least(
        "C.adaptive.image",
        CONTROL,
        CHAPTER,
        "Behind the mask of an image, N withstands an attack that knows the mask.",
        lambda results: wilson(results.arrays("adaptive")["image"]),
        near=50,
        far=25,
    ),
    positive(
        "C.adaptive.borrowed",
        CONTROL,
        CHAPTER,
        "Behind A's dataset mask, N withstands an attack that knows the mask better than it does without one.",
        _borrowed("N"),
        unit="points",
    ),
    Claim(
        id="C.adaptive.as_A",
        source=CONTROL,
        statement="Behind A's dataset mask, N withstands an attack that knows the mask as well as A withstands one.",
        published=None,
        unit="points",
        chapter=CHAPTER,
        measure=_borrowed("A"),
        reproduced=lambda m: m.value >= -10,
        partly=lambda m: m.value >= -25,
        tolerance="at most 10 points behind A (partly: 25)",
    ),
    at_least(
        "F7.lowest_bands",
        f"{PAPER}, Figure 7",
        CHAPTER,
        "At the lowest radii A's mask of x_A has more energy than N's mask of x for more than 90% of the images.",
        _bands("A.xA", False, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    at_least(
        "F7.lowest_bands.binarised",
        f"{PAPER}, Figure 7",
        CHAPTER,
        "The same with binary masks, which the authors' published code uses by a side effect.",
        _bands("A.xA", True, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    at_least(
        "F7.lowest_bands.clean",
        f"{PAPER}, Figure 7",
        CHAPTER,
        "The same with A's masks of the clean images, which the authors' published code compares.",
        _bands("A.x", False, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    at_most(
        "F7.middle_bands",
        f"{PAPER}, Figure 7",
        CHAPTER,
        "At middle radii A's mask of x_A has more energy than N's mask of x for less than 10% of the images.",
        _bands("A.xA", False, MIDDLE),
        near=20,
        far=50,
        published=10.0,
    ),
    at_least(
        "S.attack_structure",
        f"{PAPER}, section 3",
        CHAPTER,
        "Attacks of different families have the same frequency structure.",
        _attack_structure,
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
]
