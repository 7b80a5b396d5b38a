"""The claims on single images and their masks: figure 5, stability, necessity and sufficiency."""

from __future__ import annotations

from fmlib.claim import CONTROL, PAPER, Claim, Measure, at_least, at_most, positive
from fmlib.intervals import Measured, average, paired, wilson
from fmlib.results import Results

CHAPTER = "image_masks"


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


def _stable(column: str) -> Measure:
    return lambda results: average(results.table("image_stability")[column].to_numpy())


def _own_image(results: Results) -> Measured:
    table = results.table("image_stability")
    return average((table["same_image"] - table["same_class"]).to_numpy())


CLAIMS: list[Claim] = [
    at_most(
        "F5.nonzero_share",
        f"{PAPER}, Figure 5",
        CHAPTER,
        "Image masks are very sparse.",
        _of_masks("nonzero_share"),
        near=0.1,
        far=0.25,
        unit="share of frequencies",
    ),
    at_least(
        "F5.converged_kept",
        f"{PAPER}, section 3.2",
        CHAPTER,
        "Behind a converged image mask the network's prediction is unchanged.",
        _converged_kept,
        near=99,
        far=95,
        published=100.0,
    ),
    at_least(
        "F5.converged",
        "condition of the comparison",
        CHAPTER,
        "Image masks meet the authors' stop rule within the steps allowed.",
        _converged,
        near=95,
        far=80,
    ),
    at_most(
        "F5.unrecognisable",
        f"{PAPER}, section 3.2",
        CHAPTER,
        "Images behind their masks cannot be recognised (by a network of another architecture, in place of an eye).",
        lambda results: wilson(results.arrays("tables")["second.masked"]),
        near=40,
        far=60,
    ),
    at_most(
        "F5.likeness",
        f"{PAPER}, section 3.2",
        CHAPTER,
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
        chapter=CHAPTER,
        measure=_difference("second.complement", "second.x"),
        reproduced=lambda m: m.value >= -10,
        partly=lambda m: m.value >= -25,
        tolerance="it loses at most 10 points of its accuracy on the same images (partly: 25)",
    ),
    at_least(
        "S.seed_correlation",
        f"{PAPER}, section 2.1",
        CHAPTER,
        "The masks of one image, of two networks trained alike from different seeds, agree.",
        _stable("same_image"),
        near=0.8,
        far=0.5,
        unit="correlation",
    ),
    positive(
        "S.own_image",
        CONTROL,
        CHAPTER,
        "Across networks, masks of the same image agree more than masks of different images of its class.",
        _own_image,
        unit="correlation",
    ),
    positive(
        "C.own_vs_random",
        CONTROL,
        CHAPTER,
        "A mask's frequencies keep the prediction more often than as many random ones at the same radii.",
        _difference("keep.own", "keep.matched", "necessity", -1),
        unit="points",
    ),
    positive(
        "C.necessity",
        CONTROL,
        CHAPTER,
        "Removing a mask's frequencies costs more predictions than removing as many random ones at the same radii.",
        _difference("remove.matched", "remove.own", "necessity", -1),
        unit="points",
    ),
    positive(
        "C.radius",
        CONTROL,
        CHAPTER,
        "Random frequencies at the mask's radii keep the prediction more often than as many anywhere.",
        _difference("keep.matched", "keep.scattered", "necessity", -1),
        unit="points",
    ),
]
