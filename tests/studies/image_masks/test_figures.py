"""Figures 5 to 8, the controls' and the architectures': every one draws, and shows the numbers that it was given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from test_map_claims import Made

from fmlib.core.spectra import angular_energy, radial_energy, radius
from fmlib.pipeline.plotting import BLUE, GRAY, VERMILION, Picture
from fmlib.studies.adversarial_tables import figures
from fmlib.studies.class_separability import figures
from fmlib.studies.dataset_masks import analysis, figures
from fmlib.studies.harmonic_distortion.harmonics import translation_damping
from fmlib.studies.image_masks import analysis, figures

SIDE, SHOWN = 8, 3
NAMES = ["tench", "chain saw", "church"]
KINDS = ("x", "xA", "masked", "masked_adversarial", "complement_image", "mask", "complement")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(picture: Picture) -> Picture:
    """The picture, once a notebook could show it."""
    assert isinstance(picture, Picture)
    assert picture._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    return picture


def shown(axes) -> np.ndarray:
    """The plane that an axes shows."""
    return np.asarray(axes.get_images()[0].get_array())


def middle(plane: np.ndarray) -> np.ndarray:
    """The plane with DC in the middle, by index arithmetic."""
    order = (np.arange(SIDE) - SIDE // 2) % SIDE
    return plane[order[:, None], order[None, :]]


def symmetric(seed: int) -> np.ndarray:
    """A full mask with M(-f) = M(f)."""
    plane, opposite = rng(seed).random((SIDE, SIDE)).astype(np.float32), -np.arange(SIDE) % SIDE
    return (plane + plane[opposite[:, None], opposite[None, :]]) / 2


def counted(axes, colour: str) -> float:
    """The summed height of a histogram's bars of one colour."""
    return sum(one.get_height() for one in axes.patches if to_hex(one.get_facecolor()) == colour.lower())


def legend(drawing) -> list[str]:
    """The words of the legend of an axes or of a whole picture."""
    found = drawing.legends[0] if isinstance(drawing, Picture) else drawing.get_legend()
    return [text.get_text() for text in found.get_texts()]


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    pictures = {kind: rng(n).random((3, SHOWN, SIDE, SIDE)).astype(np.float16) for n, kind in enumerate(KINDS)}
    return pictures | {"classes": np.array(NAMES)}


def test_image_masks_stand_beside_their_class_with_dc_in_the_middle(samples):
    whole = np.stack([symmetric(seed) for seed in range(3)])
    picture = drawn(figures.figure_image_masks({"half": whole[..., : SIDE // 2 + 1]}, samples))
    grid = np.array(picture.axes[: 3 * (1 + SHOWN)]).reshape(3, 1 + SHOWN)
    assert len(picture.axes) == grid.size + 1  # and the colour bar
    assert [one.get_title() for one in grid[0]] == ["whole class"] + SHOWN * ["one image"]
    assert [one.get_ylabel() for one in grid[:, 0]] == ["tench", "chain\nsaw", "church"]
    for row, of_class, of_images in zip(grid, whole, samples["mask"], strict=True):
        np.testing.assert_array_equal(shown(row[0]), middle(of_class))
        for one, mask in zip(row[1:], of_images, strict=True):
            np.testing.assert_array_equal(shown(one), middle(mask))


def test_filtered_images_stand_below_one_another(samples):
    picture = drawn(figures.figure_filtered(samples, NAMES))
    grid = np.array(picture.axes).reshape(3, 3)
    assert [one.get_title() for one in grid[0]] == NAMES
    assert [one.get_ylabel()[0] for one in grid[:, 0]] == ["A", "B", "C"]
    for axes, kind in zip(grid, ("x", "complement_image", "masked"), strict=True):
        for one, images in zip(axes, samples[kind], strict=True):
            np.testing.assert_array_equal(shown(one), images[0])
            assert one.get_images()[0].get_clim() == (0, 1)  # one gray scale


def test_pairs_show_another_image_than_the_filtered_ones_in_the_papers_order(samples):
    picture = drawn(figures.figure_pairs(samples, NAMES))
    grid = np.array(picture.axes).reshape(3, 7)
    assert [one.get_title()[0] for one in grid[0]] == list("ABCDEFG")
    order = ("x", "xA", "mask", "masked", "masked_adversarial", "complement", "complement_image")
    for axes, kind in zip(grid.T, order, strict=True):
        for one, planes in zip(axes, samples[kind], strict=True):
            expected = middle(planes[1]) if kind in ("mask", "complement") else planes[1]
            np.testing.assert_array_equal(shown(one), expected)


def test_fits_count_the_masks_of_the_plain_network_that_converged_and_that_did_not():
    table = pd.DataFrame(
        {
            "kind": 30 * ["N.x"] + 20 * ["A.x"],
            "steps": rng().integers(50, 500, 50),
            "nonzero_share": rng(1).random(50),
            "converged": np.arange(50) % 3 > 0,
        }
    )
    picture = drawn(figures.figure_fits(table))
    assert len(picture.axes) == 2
    for axes in picture.axes:
        assert (counted(axes, BLUE), counted(axes, VERMILION)) == (20, 10)
    places = [bar.get_x() for bar in picture.axes[1].patches]
    assert max(places) > 50  # percent, not shares
    assert legend(picture.axes[1]) == ["converged", "not converged"]


def test_necessity_draws_percent_kept_against_percent_of_the_frequencies():
    fractions = (0.25, 0.5, 1.0)
    names = [f"{way}.{which}" for way in ("keep", "remove") for which in ("own", "matched", "scattered")]
    curves = {name: rng(n).random((3, 40)) < 0.2 * (n + 1) / 2 for n, name in enumerate(names)}
    picture = drawn(figures.figure_necessity(curves, fractions))
    assert [axes.get_title() for axes in picture.axes] == ["only these stay", "these go"]
    lines = [line for axes in picture.axes for line in axes.lines]
    for line, name in zip(lines, names, strict=True):
        np.testing.assert_allclose(line.get_xdata(), [25, 50, 100])
        np.testing.assert_allclose(line.get_ydata(), 100 * curves[name].mean(1))
    assert legend(picture) == [line.get_label() for line in picture.axes[0].lines]
    assert [words.split()[-1] for words in legend(picture)] == ["first", "radius", "anywhere"]


def test_agreement_counts_every_image_but_those_without_a_partner():
    table = pd.DataFrame({kind: rng(n).random(30) for n, kind in enumerate(("same_image", "same_class"))})
    table["other_class"] = np.where(np.arange(30) < 12, np.nan, 0.505)
    picture = drawn(figures.figure_agreement(table))
    outlines = [patch.get_xy() for patch in picture.axes[0].patches]
    # an outline goes up and down once a bin, so every second height belongs to a bin
    assert [int(outline[1:-1:2, 1].sum()) for outline in outlines] == [30, 30, 18]
    assert outlines[2][outlines[2][:, 1] == 18, 0] == pytest.approx([0.5, 0.52])
    assert legend(picture.axes[0]) == ["same image", "same class", "other class"]


def test_exceeds_draws_each_reading_by_radius_and_by_direction():
    shares = {
        name: {energy: 100 * rng(n + m).random(64) for m, energy in enumerate(("radial", "angular"))}
        for n, name in enumerate(("one", "two", "three"))
    }
    picture = drawn(figures.figure_exceeds(shares))
    for axes, energy, end in zip(picture.axes, ("radial", "angular"), (1, 360), strict=True):
        assert set(axes.lines[0].get_ydata()) == {50}
        for curve, one in zip(axes.patches, shares.values(), strict=True):
            np.testing.assert_array_equal(curve.get_data().values, one[energy])
            np.testing.assert_allclose(curve.get_data().edges, end * np.arange(65) / 64)
    assert legend(picture.axes[0]) == ["one", "two", "three"]


def test_attacks_share_one_logarithmic_scale():
    planes = {name: symmetric(n) + 0.01 for n, name in enumerate(("PGD 4/255", "FGSM", "CW"))}
    planes["FGSM"] *= 5
    picture = drawn(figures.figure_attacks({name: one[:, : SIDE // 2 + 1] for name, one in planes.items()}))
    *axes, _ = picture.axes  # the last is the colour bar
    assert [one.get_title() for one in axes] == list(planes)
    for one, plane in zip(axes, planes.values(), strict=True):
        np.testing.assert_array_equal(shown(one), middle(plane))
        assert one.get_images()[0].get_clim() == pytest.approx((planes["FGSM"].max() / 1e3, planes["FGSM"].max()))


def test_splits_show_every_split_and_every_shuffling():
    splits, permuted = 100 * rng().random((20, 4)), 100 * rng(1).random(99)
    picture = drawn(figures.figure_splits(splits, permuted, 87.5, 20.0))
    left, right = picture.axes
    for place, values in enumerate(splits.T):
        np.testing.assert_array_equal(left.lines[place].get_ydata(), values)
        assert np.round(left.lines[place].get_xdata()).tolist() == 20 * [place]
    assert [label.get_text().replace("\n", " ") for label in left.get_xticklabels()] == [
        "true, training",
        "true, held out",
        "shuffled, training",
        "shuffled, held out",
    ]
    assert left.lines[4].get_ydata() == [20, 20]
    assert [line.get_xdata()[0] for line in right.lines] == [87.5, 20]
    assert sum(bar.get_height() for bar in right.patches) == 99


def test_maps_draw_each_point_once_and_rim_those_held_out():
    arrays = {}
    for seed, kind in enumerate(("outputs", "shuffled", "masks")):
        arrays[f"points.{kind}"] = rng(seed).standard_normal((30, 2))
        arrays[f"held.{kind}"] = np.arange(30) % 6 == seed
        arrays[f"labels.{kind}"] = rng(seed + 9).integers(0, 3, 30)
    picture = drawn(figures.figure_maps(arrays, NAMES))
    assert len(picture.axes) == 3
    for axes, kind in zip(picture.axes, ("outputs", "shuffled", "masks"), strict=True):
        points, held, labels = (arrays[f"{what}.{kind}"] for what in ("points", "held", "labels"))
        seen = np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections])
        assert sorted(map(tuple, seen)) == sorted(map(tuple, points))
        for label, name in enumerate(NAMES):
            faint, rimmed = axes.collections[2 * label : 2 * label + 2]
            assert rimmed.get_label() == name
            np.testing.assert_array_equal(faint.get_offsets(), points[~held & (labels == label)])
            np.testing.assert_array_equal(rimmed.get_offsets(), points[held & (labels == label)])
            assert rimmed.get_linewidth()[0] > faint.get_linewidth()[0] == 0
    assert legend(picture) == NAMES


def test_translation_puts_the_measured_points_on_the_sinc():
    table = pd.DataFrame(translation_damping(highest=6, shifts=512))
    picture = drawn(figures.figure_translation(table))
    (axes,) = picture.axes
    curve, points = axes.lines
    np.testing.assert_array_equal(points.get_xdata(), np.arange(7))
    np.testing.assert_array_equal(points.get_ydata(), table["measured"])
    on_curve = np.interp(points.get_xdata(), curve.get_xdata(), curve.get_ydata())
    np.testing.assert_allclose(on_curve, table["measured"], atol=0.01)


def test_energies_are_paired_by_repetition_and_other_plain_networks_are_their_measure():
    """Blue: each mask minus the plain one of its repetition, and their mean; gray: plain ones minus the first."""
    draw = rng(1)
    masks = {"N": draw.random((3, SIDE, SIDE)), "A": draw.random((2, SIDE, SIDE)), "S": draw.random((1, SIDE, SIDE))}
    picture = drawn(figures.figure_energies(masks))
    assert [one.get_title(loc="left") for one in picture.axes[::2]] == [
        f"{name} \N{MINUS SIGN} N  ({words})" for name, words in (("A", "adversarial"), ("S", "scales"))
    ]
    for energy, column in ((radial_energy, picture.axes[::2]), (angular_energy, picture.axes[1::2])):
        found = {name: energy(torch.from_numpy(planes)).numpy() for name, planes in masks.items()}
        for name, axes in zip("AS", column, strict=True):
            change = found[name] - found["N"][: len(masks[name])]
            gray = [line.get_ydata() for line in axes.lines if line.get_color() == GRAY][1:]  # the first is zero
            blue = [line.get_ydata() for line in axes.lines if line.get_color() == BLUE]
            np.testing.assert_allclose(gray, found["N"][1:] - found["N"][0])
            np.testing.assert_allclose(blue, [*change, change.mean(0)])
    drawn(figures.figure_energies({name: planes[:1] for name, planes in masks.items()}))  # no other plain network


def test_architectures_show_both_networks_masks_and_what_the_attack_changes():
    draw = rng(0)
    masks = {name: {regime: draw.random((SIDE, SIDE)) for regime in "NA"} for name in ("VGG", "ResNet")}
    for count in (1, 2):
        chosen = dict(list(masks.items())[:count])
        picture = drawn(figures.figure_architectures(chosen))
        assert len(picture.axes) == 3 * count + 2  # and two colour bars
        grid = np.array(picture.axes[: 3 * count]).reshape(count, 3)
        assert [one.get_ylabel() for one in grid[:, 0]] == list(chosen)
        for axes, row in zip(grid, chosen.values(), strict=True):
            for one, plane in zip(axes, (row["N"], row["A"], row["A"] - row["N"]), strict=True):
                np.testing.assert_array_equal(shown(one), middle(plane))
            assert axes[2].get_images()[0].get_clim() == (-1, 1)


def test_scales_show_all_masks_and_where_the_smallest_ones_frequencies_end():
    """Masks that are 1 up to a radius: so are the means on rings, and what both have in common is the same."""
    small, large = ((radius(side, side) <= 3).double().numpy() for side in (SIDE, 4 * SIDE))
    masks = {"small": small, "large": large, "another": large}
    *planes, rings, _ = drawn(figures.figure_scales(masks)).axes
    assert [axes.get_title() for axes in planes] == list(masks)
    np.testing.assert_array_equal(shown(planes[0]), middle(small))
    assert not planes[0].patches
    for axes in planes[1:]:
        (square,) = axes.patches
        inside = shown(axes)[12:20, 12:20]  # rows and columns -4 to 3 about DC
        np.testing.assert_array_equal(inside, middle(small))
        assert square.get_bbox().bounds == (11.5, 11.5, SIDE, SIDE)
    for line, side in zip(rings.lines, (SIDE, 4 * SIDE, 4 * SIDE), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.arange(side // 2 + 1) / (side // 2))
        np.testing.assert_array_equal(line.get_ydata()[:3], 1)
    assert rings.lines[1].get_ydata()[5:].max() == 0


def test_masks_of_two_sizes_are_compared_by_frequency_and_by_share_of_the_highest():
    """A disc of the same cycles in a larger plane agrees by frequency, one of the same share by rings."""
    small, same, stretched = (
        (radius(side, side) <= reach).double().numpy() for side, reach in ((SIDE, 3), (4 * SIDE, 3), (4 * SIDE, 12))
    )
    found = analysis.compare_sizes(small, same)
    assert (found["correlation"], found["within"], found["by_cycles"]) == ("1.00", "100%", "0.00")
    assert float(found["by_share"]) > 0.3
    same[0, 10] = same[0, -10] = 1  # beyond the smaller one's frequencies
    assert analysis.compare_sizes(small, same)["within"] == f"{29 / 31:.0%}"
    found = analysis.compare_sizes(small, stretched)
    assert float(found["by_share"]) < 0.1 < float(found["by_cycles"])
    assert float(found["correlation"]) < 0.7


def test_specks_are_the_entries_that_two_steps_of_adam_could_make():
    """At a rate of .05 an entry of .01 is one, of .2 is none, and zero is no entry."""
    half = np.array([[[0, 0.01], [1, 0.2]], [[0, 0.005], [0, 0.01]]], dtype=np.float16)
    found = analysis.near_zero(Made(image_masks={"N.x": half}))
    assert found["share"] == "67%"  # a third and all
    assert found["interval"] == "1% to 132%"
    assert found["below"] == "0.1"
    assert found["energy"] == "2 \N{MULTIPLICATION SIGN} 10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT FOUR}"
