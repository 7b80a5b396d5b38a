"""Figures of image masks: every one can be drawn, and shows the numbers that it was given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import dc_centred, drawn, legend, shown, symmetric_mask
from matplotlib.colors import to_hex

from fmlib.pipeline.plotting import BLUE, VERMILION
from fmlib.studies.image_masks import figures

SIDE, SHOWN = 8, 3
NAMES = ["tench", "chain saw", "church"]
KINDS = ("x", "masked", "complement_image", "mask")


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    planes = {
        kind: np.random.default_rng(seed).random((3, SHOWN, SIDE, SIDE)).astype(np.float16)
        for seed, kind in enumerate(KINDS)
    }
    return planes | {"classes": np.array(NAMES)}


def bar_sum(axes, colour: str) -> float:
    """The summed height of a histogram's bars of one colour."""
    return sum(bar.get_height() for bar in axes.patches if to_hex(bar.get_facecolor()) == colour.lower())


def test_images_are_shown_beside_their_masks_and_that_of_their_class_with_dc_in_the_middle(samples):
    whole = np.stack([symmetric_mask(seed, SIDE) for seed in range(3)])
    picture = drawn(figures.figure_image_masks({"half": whole[..., : SIDE // 2 + 1]}, samples))
    grid = np.array(picture.axes[: 3 * (1 + 2 * SHOWN)]).reshape(3, 1 + 2 * SHOWN)
    assert len(picture.axes) == grid.size + 1  # and the colour bar
    assert [axes.get_title() for axes in grid[0]] == ["class mask", *SHOWN * ["image (8 px)", "its mask"]]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["tench", "chain\nsaw", "church"]
    for row, of_class, images, masks in zip(grid, whole, samples["x"], samples["mask"], strict=True):
        np.testing.assert_array_equal(shown(row[0]), dc_centred(of_class))
        for axes, image in zip(row[1::2], images, strict=True):
            np.testing.assert_array_equal(shown(axes), image)
        for axes, mask in zip(row[2::2], masks, strict=True):
            np.testing.assert_array_equal(shown(axes), dc_centred(mask))


def test_filtered_images_are_shown_below_one_another_on_one_gray_scale(samples):
    picture = drawn(figures.figure_filtered(samples, NAMES))
    grid = np.array(picture.axes).reshape(3, 3)
    assert [axes.get_title() for axes in grid[0]] == NAMES
    assert [axes.get_ylabel()[0] for axes in grid[:, 0]] == ["A", "B", "C"]
    for row, kind in zip(grid, ("x", "complement_image", "masked"), strict=True):
        for axes, images in zip(row, samples[kind], strict=True):
            np.testing.assert_array_equal(shown(axes), images[0])
            assert axes.get_images()[0].get_clim() == (0, 1)


def test_fits_count_converged_and_other_masks_of_the_standard_network():
    table = pd.DataFrame(
        {
            "kind": 30 * ["N.x"] + 20 * ["A.x"],
            "steps": np.random.default_rng(0).integers(50, 500, 50),
            "nonzero_share": np.random.default_rng(1).random(50),
            "converged": np.arange(50) % 3 > 0,
        }
    )
    picture = drawn(figures.figure_fits(table))
    assert len(picture.axes) == 2
    for axes in picture.axes:
        assert (bar_sum(axes, BLUE), bar_sum(axes, VERMILION)) == (20, 10)
    places = [bar.get_x() for bar in picture.axes[1].patches]
    assert max(places) > 50  # percent, not shares
    assert legend(picture.axes[1]) == ["converged", "not converged"]


def test_necessity_draws_percent_kept_against_percent_of_the_frequencies():
    fractions = (0.25, 0.5, 1.0)
    names = [f"{way}.{name}" for way in ("keep", "remove") for name in ("own", "matched", "random")]
    curves = {
        name: np.random.default_rng(seed).random((3, 40)) < 0.2 * (seed + 1) / 2 for seed, name in enumerate(names)
    }
    picture = drawn(figures.figure_necessity(curves, fractions))
    assert [axes.get_title() for axes in picture.axes] == [
        "only these pass, at full strength",
        "these removed, all others pass",
    ]
    lines = [line for axes in picture.axes for line in axes.lines]
    for line, name in zip(lines, names, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [25, 50, 100])
        np.testing.assert_allclose(line.get_ydata(), 100 * curves[name].mean(1))
    assert legend(picture) == [line.get_label() for line in picture.axes[0].lines]
    assert [label.split()[-1] for label in legend(picture)] == ["first", "radius", "anywhere"]


def test_agreement_counts_every_image_except_those_without_a_partner():
    table = pd.DataFrame(
        {kind: np.random.default_rng(seed).random(30) for seed, kind in enumerate(("same_image", "same_class"))}
    )
    table["other_class"] = np.where(np.arange(30) < 12, np.nan, 0.505)
    picture = drawn(figures.figure_agreement(table))
    lines = picture.axes[0].lines
    assert [len(line.get_xdata()) - 1 for line in lines] == [30, 30, 18]  # each begins at a share of zero
    for line, column in zip(lines, table, strict=True):
        np.testing.assert_allclose(line.get_xdata()[1:], np.sort(table[column].dropna()))
        assert line.get_ydata()[-1] == pytest.approx(1)
    assert [label.split(" (")[0] for label in legend(picture.axes[0])] == ["same image", "same class", "other class"]
    assert legend(picture.axes[0])[2] == "other class (mean 0.505)"
