"""The claims on image masks: tables 2 and 3, figures 5 to 8, and the controls that the paper lacks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fmlib.claim import PAPER, Claim, Measure
from fmlib.intervals import Measured, average, paired, spread, wilson
from fmlib.results import Results
from fmlib.spectra import binarize, correlation, full_plane, low_share, radial_energy

#: Figure 7 is read at these of its 64 bands of radius: the lowest sixteenth, and the middle quarter.
LOWEST, MIDDLE = slice(0, 4), slice(24, 40)


# ------------------------------------------------------------------------------------ measurements from results


def _kept(what: str) -> Measure:
    """Percent of the images with masks that a network classifies rightly, a column of `tables`."""
    return lambda results: wilson(results.arrays("tables")[what])


def _difference(first: str, second: str, file: str = "tables", row: int | None = None) -> Measure:
    """Difference of two such percentages on the same images; row: of a stacked array."""

    def measure(results: Results) -> Measured:
        arrays = results.arrays(file)
        return paired(*(arrays[name] if row is None else arrays[name][row] for name in (first, second)))

    return measure


def _of_masks(column: str, kind: str = "N.x") -> Measure:
    """Mean of a column of the table of image masks."""

    def measure(results: Results) -> Measured:
        table = results.table("image_masks")
        return average(table[table["kind"] == kind][column].to_numpy(float))

    return measure


def _converged_kept(results: Results) -> Measured:
    """Percent of the masks reported as converged, of all kinds, behind which the prediction is kept."""
    table = results.table("image_masks")
    return wilson(table[table["converged"]]["kept"].to_numpy(bool))


def _converged(results: Results) -> Measured:
    return wilson(results.table("image_masks")["converged"].to_numpy(bool))


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


def _split(column: int) -> Measure:
    """Mean over the repeated splits, with the range that holds 95% of them."""

    def measure(results: Results) -> Measured:
        values = results.arrays("separability")["splits"][:, column]
        low, high = np.quantile(values, (0.025, 0.975)).tolist()
        return Measured(float(values.mean()), low, high, len(values))

    return measure


def _p_value(results: Results) -> Measured:
    arrays = results.arrays("separability")
    p = float(arrays["p"])
    return Measured(p, p, p, len(arrays["permuted"]))


def _neighbours(name: str) -> Measure:
    return lambda results: wilson(results.arrays("separability")[f"neighbours.{name}"])


def _stable(column: str) -> Measure:
    return lambda results: average(results.table("image_stability")[column].to_numpy())


def _own_image(results: Results) -> Measured:
    table = results.table("image_stability")
    return average((table["same_image"] - table["same_class"]).to_numpy())


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


def _second_gap(results: Results) -> Measured:
    """Accuracy of the second architecture minus the first's, N, on the validation images."""
    first = results.arrays("evaluation")["standard.N"][0]
    return paired(results.arrays("second_architecture")["standard.N"], first)


def _second_correlation(results: Results) -> Measured:
    """The two architectures' dataset masks of N."""
    first = torch.from_numpy(results.arrays("dataset_masks")["N"][0])
    second = torch.from_numpy(results.arrays("second_architecture")["mask.N"])
    return average(np.array([float(correlation(second, first))]))


def _second_low_shift(results: Results) -> Measured:
    """Energy share below a third of the corner radius, A's mask minus N's, both of the second architecture."""
    arrays = results.arrays("second_architecture")
    shares = [float(low_share(torch.from_numpy(arrays[f"mask.{regime}"]))) for regime in "AN"]
    return average(np.array([shares[0] - shares[1]]))


# ------------------------------------------------------------------------------------------------ the claims


def _table_claim(identity: str, statement: str, published: float, what: str, near: float, far: float) -> Claim:
    """An accuracy of table 2."""
    return Claim(
        id=identity,
        source=f"{PAPER}, Table 2",
        statement=statement,
        published=published,
        unit="%",
        chapter="adversarial_tables",
        measure=_kept(what),
        reproduced=lambda m: abs(m.value - published) <= near,
        partly=lambda m: abs(m.value - published) <= far,
        tolerance=f"within {near:g} points (partly: {far:g})",
    )


def _at_least(
    identity: str,
    source: str,
    chapter: str,
    statement: str,
    measure: Measure,
    near: float,
    far: float,
    unit: str = "%",
    published: float | None = None,
    needs: str = "photographs",
) -> Claim:
    """A number that should be large."""
    return Claim(
        id=identity,
        source=source,
        statement=statement,
        published=published,
        unit=unit,
        chapter=chapter,
        measure=measure,
        reproduced=lambda m: m.value >= near,
        partly=lambda m: m.value >= far,
        tolerance=f"at least {near:g} (partly: {far:g})",
        needs=needs,
    )


def _at_most(
    identity: str,
    source: str,
    chapter: str,
    statement: str,
    measure: Measure,
    near: float,
    far: float,
    unit: str = "%",
    published: float | None = None,
) -> Claim:
    """A number that should be small."""
    return Claim(
        id=identity,
        source=source,
        statement=statement,
        published=published,
        unit=unit,
        chapter=chapter,
        measure=measure,
        reproduced=lambda m: m.value <= near,
        partly=lambda m: m.value <= far,
        tolerance=f"at most {near:g} (partly: {far:g})",
    )


def _positive(identity: str, source: str, chapter: str, statement: str, measure: Measure, unit: str) -> Claim:
    """A difference that should be above nought."""
    return Claim(
        id=identity,
        source=source,
        statement=statement,
        published=None,
        unit=unit,
        chapter=chapter,
        measure=measure,
        reproduced=lambda m: m.low > 0,
        partly=lambda m: m.value > 0,
        tolerance="above nought with its whole interval (partly: on average)",
    )


def _split_claim(identity: str, statement: str, published: float, column: int) -> Claim:
    """A percentage of table 3."""
    return Claim(
        id=identity,
        source=f"{PAPER}, Table 3",
        statement=statement,
        published=published,
        unit="%",
        chapter="class_separability",
        measure=_split(column),
        reproduced=lambda m: abs(m.value - published) <= 10,
        partly=lambda m: abs(m.value - published) <= 25,
        tolerance="within 10 points (partly: 25)",
    )


_IMAGE, _TABLES, _CLASSES = "image_masks", "adversarial_tables", "class_separability"
_CONTROL = "control that the paper lacks"

CLAIMS: list[Claim] = [
    _at_most(
        "F5.nonzero_share",
        f"{PAPER}, Figure 5",
        _IMAGE,
        "Image masks are very sparse.",
        _of_masks("nonzero_share"),
        near=0.1,
        far=0.25,
        unit="share of frequencies",
    ),
    _at_least(
        "F5.converged_kept",
        f"{PAPER}, section 3.2",
        _IMAGE,
        "Behind a converged image mask the network's prediction is unchanged.",
        _converged_kept,
        near=99,
        far=95,
        published=100.0,
    ),
    _at_least(
        "F5.converged",
        "condition of the comparison",
        _IMAGE,
        "Image masks meet the authors' stop rule within the steps allowed.",
        _converged,
        near=95,
        far=80,
    ),
    _at_most(
        "F5.unrecognisable",
        f"{PAPER}, section 3.2",
        _IMAGE,
        "Images behind their masks cannot be recognised (by a network of another architecture, in place of an eye).",
        _kept("second.masked"),
        near=40,
        far=60,
    ),
    _at_most(
        "F5.likeness",
        f"{PAPER}, section 3.2",
        _IMAGE,
        "Images behind their masks do not look like themselves (correlation of their pixels).",
        lambda results: average(results.arrays("tables")["likeness"]),
        near=0.5,
        far=0.7,
        unit="correlation",
    ),
    Claim(
        id="F5.complement_recognisable",
        source=f"{PAPER}, section 3.2",
        statement="Images behind the complement can still be recognised (by a network of another architecture).",
        published=None,
        unit="points",
        chapter=_IMAGE,
        measure=_difference("second.complement", "second.x"),
        reproduced=lambda m: m.value >= -10,
        partly=lambda m: m.value >= -25,
        tolerance="it loses at most 10 points of its accuracy on the same images (partly: 25)",
    ),
    _at_least(
        "S.seed_correlation",
        f"{PAPER}, section 2.1",
        _IMAGE,
        "The masks of one image, of two networks trained alike from different seeds, agree.",
        _stable("same_image"),
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    _positive(
        "S.own_image",
        _CONTROL,
        _IMAGE,
        "Across networks, masks of the same image agree more than masks of different images of its class.",
        _own_image,
        unit="correlation",
    ),
    _positive(
        "C.own_vs_random",
        _CONTROL,
        _IMAGE,
        "A mask's frequencies keep the prediction more often than as many random ones at the same radii.",
        _difference("keep.own", "keep.matched", "necessity", -1),
        unit="points",
    ),
    _positive(
        "C.necessity",
        _CONTROL,
        _IMAGE,
        "Removing a mask's frequencies costs more predictions than removing as many random ones at the same radii.",
        _difference("remove.matched", "remove.own", "necessity", -1),
        unit="points",
    ),
    _positive(
        "C.radius",
        _CONTROL,
        _IMAGE,
        "Random frequencies at the mask's radii keep the prediction more often than as many anywhere.",
        _difference("keep.matched", "keep.scattered", "necessity", -1),
        unit="points",
    ),
    _positive(
        "F6.low_shift",
        f"{PAPER}, section 4",
        _TABLES,
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
    _at_least(
        "T2.attack_outside",
        f"{PAPER}, section 3.2",
        _TABLES,
        "The attack mostly relies on frequencies that are not in the mask of the original image.",
        _attack_outside,
        near=75,
        far=50,
        unit="% of the attack's energy",
    ),
    Claim(
        id="T2.attack_enrichment",
        source=_CONTROL,
        statement="The attack avoids the mask's frequencies, compared with random ones at the same radii.",
        published=None,
        unit="times",
        chapter=_TABLES,
        measure=_attack_enrichment,
        reproduced=lambda m: m.high < 1,
        partly=lambda m: m.value < 1,
        tolerance="less energy than at matched frequencies, with its whole interval (partly: on average)",
    ),
    _at_least(
        "F7.lowest_bands",
        f"{PAPER}, Figure 7",
        _TABLES,
        "At the lowest radii A's mask of x_A has more energy than N's mask of x for more than 90% of the images.",
        _bands("A.xA", False, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    _at_least(
        "F7.lowest_bands.binarised",
        f"{PAPER}, Figure 7",
        _TABLES,
        "The same with binary masks, which the authors' published code uses by a side effect.",
        _bands("A.xA", True, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    _at_least(
        "F7.lowest_bands.clean",
        f"{PAPER}, Figure 7",
        _TABLES,
        "The same with A's masks of the clean images, which the authors' published code compares.",
        _bands("A.x", False, LOWEST),
        near=80,
        far=50,
        published=90.0,
    ),
    _at_most(
        "F7.middle_bands",
        f"{PAPER}, Figure 7",
        _TABLES,
        "At middle radii A's mask of x_A has more energy than N's mask of x for less than 10% of the images.",
        _bands("A.xA", False, MIDDLE),
        near=20,
        far=50,
        published=10.0,
    ),
    _at_least(
        "S.attack_structure",
        f"{PAPER}, section 3",
        _TABLES,
        "Attacks of different families have the same frequency structure.",
        _attack_structure,
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    _split_claim("T3.train", "A linear classifier tells the classes of the image masks it was trained on.", 93.22, 0),
    _split_claim("T3.test", "A linear classifier tells the classes of image masks that it has not seen.", 83.87, 1),
    _split_claim(
        "T3.shuffled_train", "With shuffled labels a linear classifier cannot even learn its training masks.", 19.50, 2
    ),
    _split_claim(
        "T3.shuffled_test", "Trained on shuffled labels a linear classifier is at chance on unseen masks.", 16.42, 3
    ),
    Claim(
        id="T3.p_value",
        source=_CONTROL,
        statement="No shuffling of the labels is separated as well as the true ones.",
        published=None,
        unit="p",
        chapter=_CLASSES,
        measure=_p_value,
        reproduced=lambda m: m.value <= 0.01,
        partly=lambda m: m.value <= 0.05,
        tolerance="p at most .01, the least that 99 shufflings can show (partly: .05)",
    ),
    _at_least(
        "F8.outputs",
        f"{PAPER}, Figure 8",
        _CLASSES,
        "Mapped by UMAP, the classifier's outputs form clusters that hold for unseen masks.",
        _neighbours("outputs"),
        near=60,
        far=40,
    ),
    _at_most(
        "F8.shuffled",
        f"{PAPER}, Figure 8",
        _CLASSES,
        "With shuffled labels there are no such clusters.",
        _neighbours("shuffled"),
        near=30,
        far=40,
    ),
    _at_least(
        "F8.masks",
        f"{PAPER}, section 3.2",
        _CLASSES,
        "Mapped by UMAP without any label, the masks themselves cluster by class.",
        _neighbours("masks"),
        near=60,
        far=40,
    ),
    Claim(
        id="V.accuracy",
        source=f"{PAPER}, section 2.2",
        statement="A ResNet reaches an accuracy comparable to the VGG's.",
        published=None,
        unit="points",
        chapter="dataset_masks",
        measure=_second_gap,
        reproduced=lambda m: abs(m.value) <= 5,
        partly=lambda m: abs(m.value) <= 10,
        tolerance="within 5 points (partly: 10)",
    ),
    _at_least(
        "V.correlation",
        f"{PAPER}, section 2.2",
        "dataset_masks",
        "The dataset masks of a ResNet and a VGG, both plainly trained, are alike.",
        _second_correlation,
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    Claim(
        id="V.low_shift",
        source=f"{PAPER}, section 2.2",
        statement="Adversarial training moves a ResNet's mask to low frequencies as it does a VGG's.",
        published=None,
        unit="share of energy",
        chapter="dataset_masks",
        measure=_second_low_shift,
        reproduced=lambda m: m.value >= 0.1,
        partly=lambda m: m.value > 0,
        tolerance="at least .1 more of the mask's energy below a third of the radius (partly: more)",
    ),
]
