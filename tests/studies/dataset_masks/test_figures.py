"""Figures of dataset masks: every one can be drawn, and shows the numbers that it was given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import dc_centred, drawn, legend, shown, symmetric_mask

from fmlib.core.spectra import angular_energy, apply_mask, half_plane, radial_energy, radius
from fmlib.pipeline.plotting import BLUE, GRAY
from fmlib.studies.dataset_masks import figures
from fmlib.studies.harmonic_distortion.harmonics import translation_damping

SIDE = 8
MINUS = "\N{MINUS SIGN}"


def planes(names: str, repetitions: int = 2) -> dict[str, np.ndarray]:
    """Regime -> random masks (repetitions, SIDE, SIDE)."""
    rng = np.random.default_rng(0)
    return {name: rng.random((repetitions, SIDE, SIDE)) for name in names}


def test_scheme_shows_image_mask_and_filtered_image():
    rng = np.random.default_rng(0)
    arrays = {name: rng.random((SIDE, SIDE)) for name in ("image", "filtered", "mask")}
    image, spectrum, mask, masked, filtered = drawn(figures.figure_scheme(arrays)).axes
    np.testing.assert_array_equal(shown(image), arrays["image"])
    np.testing.assert_array_equal(shown(mask), dc_centred(arrays["mask"]))
    np.testing.assert_allclose(shown(masked), shown(spectrum) * shown(mask))
    np.testing.assert_array_equal(shown(filtered), arrays["filtered"])


def test_masks_are_shown_above_their_differences_from_the_standard_network():
    masks = planes("NAS")
    picture = drawn(figures.figure_masks(masks))
    grid = np.array(picture.axes[:6]).reshape(2, 3)
    assert [axes.get_title() for axes in grid[0]] == ["standard\n(N)", "adversarially\ntrained (A)", "scale\n(S)"]
    assert [axes.get_title() for axes in grid[1]] == ["", f"A {MINUS} N", f"S {MINUS} N"]
    for column, name in enumerate("NAS"):
        np.testing.assert_array_equal(shown(grid[0, column]), dc_centred(masks[name][0]))
        if name != "N":
            np.testing.assert_array_equal(shown(grid[1, column]), dc_centred(masks[name][0] - masks["N"][0]))


def test_energies_are_paired_by_repetition_and_gray_shows_seed_to_seed_variation():
    """Blue: the mean of each mask minus that of N of its repetition, with its range; gray: other N minus the first."""
    rng = np.random.default_rng(1)
    masks = {name: rng.random((count, SIDE, SIDE)) for name, count in (("N", 3), ("A", 2), ("S", 1))}
    picture = drawn(figures.figure_energies(masks))
    assert [axes.get_title(loc="left") for axes in picture.axes[::2]] == [
        f"{name} {MINUS} standard (N)" for name in ("adversarially trained (A)", "scale (S)")
    ]
    for energy, column in ((radial_energy, picture.axes[::2]), (angular_energy, picture.axes[1::2])):
        energies = {name: energy(torch.from_numpy(stack)).numpy() for name, stack in masks.items()}
        for name, axes in zip("AS", column, strict=True):
            change = energies[name] - energies["N"][: len(masks[name])]
            gray = [line.get_ydata() for line in axes.lines if line.get_color() == GRAY][1:]  # the first is zero
            blue = [line.get_ydata() for line in axes.lines if line.get_color() == BLUE]
            np.testing.assert_allclose(gray, energies["N"][1:] - energies["N"][0])
            np.testing.assert_allclose(blue, [change.mean(0)])
            ends = [segment[:, 1] for bars in axes.collections for segment in bars.get_segments()]
            wanted = np.stack((change.min(0), change.max(0)), axis=1)[1::4]
            np.testing.assert_allclose(np.reshape(ends, (-1, 2)), wanted if len(change) > 1 else np.empty((0, 2)))
    drawn(figures.figure_energies({name: stack[:1] for name, stack in masks.items()}))  # no other network N


def test_sizes_show_all_masks_and_the_frequencies_of_the_smallest():
    """Masks that are 1 up to a radius: so are the means on rings, and the common frequencies are the same."""
    small, large = ((radius(side, side) <= 3).double().numpy() for side in (SIDE, 4 * SIDE))
    masks = {"small": small, "large": large, "another": large}
    *grid, rings, _ = drawn(figures.figure_scales(masks)).axes
    assert [axes.get_title() for axes in grid] == list(masks)
    np.testing.assert_array_equal(shown(grid[0]), dc_centred(small))
    assert not grid[0].patches
    for axes in grid[1:]:
        (square,) = axes.patches
        inside = shown(axes)[12:20, 12:20]  # rows and columns -4 to 3 about DC
        np.testing.assert_array_equal(inside, dc_centred(small))
        assert square.get_bbox().bounds == (11.5, 11.5, SIDE, SIDE)
    for line, side in zip(rings.lines, (SIDE, 4 * SIDE, 4 * SIDE), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.arange(side // 2 + 1) / (side // 2))
        np.testing.assert_array_equal(line.get_ydata()[:3], 1)
    assert rings.lines[1].get_ydata()[5:].max() == 0


def test_history_draws_every_fit_of_the_first_standard_network():
    rng, variants = np.random.default_rng(0), ("plain", "order", "half", "single")
    fits = [*(("N", 0, variant) for variant in variants), ("N", 1, "plain"), ("A", 0, "plain")]
    rows = [
        {"regime": regime, "repetition": repetition, "variant": variant, "epoch": epoch, "l1_share": rng.random()}
        for regime, repetition, variant in fits
        for epoch in (1, 2, 3)
    ]
    history = pd.DataFrame(rows).assign(invariance=1.5)
    left, right = drawn(figures.figure_history(history)).axes
    for axes, column, offset in ((left, "l1_share", 0), (right, "invariance", 1)):
        assert len(axes.lines) == 4
        for line, variant in zip(axes.lines, variants, strict=True):
            wanted = history[history["variant"].eq(variant) & history["regime"].eq("N") & history["repetition"].eq(0)]
            np.testing.assert_array_equal(line.get_ydata(), wanted[column] - offset)
    assert legend(left) == ["minibatches", "other order", "half the images", "batch size 1"]


def test_stability_shows_each_mask_with_its_correlation():
    masks = planes("N")
    masks |= {f"N.{variant}": masks["N"][0] / number for number, variant in enumerate(("order", "half", "single"), 2)}
    correlations = {"order": 0.9, "half": 0.8, "single": 0.7, "network": 0.6}
    rows = [{"pair": pair, "regime": "N", "correlation": value} for pair, value in correlations.items()]
    stability = pd.DataFrame([*rows, {"pair": "network", "regime": "A", "correlation": 0.1}])
    picture = drawn(figures.figure_stability(masks, stability))
    expected = (masks["N"][0], masks["N.order"], masks["N.half"], masks["N.single"], masks["N"][1])
    for axes, plane in zip(picture.axes, expected, strict=True):
        np.testing.assert_array_equal(shown(axes), dc_centred(plane))
    labels = [axes.get_xlabel() for axes in picture.axes]
    assert labels == ["reference", "r = 0.90", "r = 0.80", "r = 0.70", "r = 0.60"]


def test_synthetic_marks_class_tones_and_distractors():
    tones, distractors = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    tones[1, 2], distractors[3, 0] = 1, 1
    images = np.arange(2 * SIDE * SIDE, dtype=np.uint8).reshape(2, SIDE, SIDE)
    arrays = {"images": images, "tones": tones, "distractors": distractors, "mask": symmetric_mask(0, SIDE)}
    image, marks, mask, _ = drawn(figures.figure_synthetic(arrays)).axes
    np.testing.assert_array_equal(shown(image), images[0])
    places = [(line.get_xdata().item(), line.get_ydata().item()) for line in marks.lines]
    assert places == [(6, 5), (4, 7)]  # column and row, DC at (4, 4)
    np.testing.assert_array_equal(shown(mask), dc_centred(arrays["mask"]))


def test_accuracies_are_bars_of_each_network_and_kind():
    index = pd.MultiIndex.from_product([list("NA"), range(2)], names=["regime", "repetition"])
    accuracy = pd.DataFrame({"standard": [79, 81, 70, 70], "masked": [78, 80, 69, 69], "attacked": 5.0}, index=index)
    (axes,) = drawn(figures.figure_attack(accuracy)).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers if hasattr(bars, "patches")]
    assert heights == [[80, 70], [79, 69], [5, 5]]
    assert [text.get_text() for text in axes.texts] == ["80.0", "70.0", "79.0", "69.0", "5.0", "5.0"]
    ends = [segment[:, 1].tolist() for bars in axes.collections for segment in bars.get_segments()]
    assert ends == [[79, 81], [70, 70], [78, 80], [69, 69], [5, 5], [5, 5]]
    assert legend(axes) == ["unmasked", "dataset mask applied", "under PGD"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["standard\n(N)", "adversarially\ntrained (A)"]


def test_translation_puts_the_measured_points_on_the_sinc():
    table = pd.DataFrame(translation_damping(highest=6, shifts=512))
    picture = drawn(figures.figure_translation(table))
    (axes,) = picture.axes
    curve, points = axes.lines
    np.testing.assert_array_equal(points.get_xdata(), np.arange(7))
    np.testing.assert_array_equal(points.get_ydata(), table["measured"])
    on_curve = np.interp(points.get_xdata(), curve.get_xdata(), curve.get_ydata())
    np.testing.assert_allclose(on_curve, table["measured"], atol=0.01)


@pytest.mark.parametrize("count", [1, 2])
def test_architectures_show_both_networks_masks_and_their_difference(count):
    rng = np.random.default_rng(0)
    masks = {name: {regime: rng.random((SIDE, SIDE)) for regime in "NA"} for name in ("VGG", "ResNet")[:count]}
    picture = drawn(figures.figure_architectures(masks))
    assert len(picture.axes) == 3 * count + 2  # and two colour bars
    grid = np.array(picture.axes[: 3 * count]).reshape(count, 3)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == list(masks)
    for row, of_regime in zip(grid, masks.values(), strict=True):
        for axes, plane in zip(row, (of_regime["N"], of_regime["A"], of_regime["A"] - of_regime["N"]), strict=True):
            np.testing.assert_array_equal(shown(axes), dc_centred(plane))
        assert row[2].get_images()[0].get_clim() == (-1, 1)


def test_home_shows_masks_filtered_images_and_both_accuracies():
    masks = {name: np.stack([symmetric_mask(seed, SIDE)]) for seed, name in enumerate("NA")}
    image = np.random.default_rng(2).random((SIDE, SIDE)).astype(np.float32)
    runs = pd.MultiIndex.from_product([["N", "A"], [0, 1]], names=["regime", "repetition"])
    accuracy = pd.DataFrame({"standard": [83.0, 85.0, 74.0, 74.0], "masked": [80.0, 84.0, 73.0, 72.0]}, runs)
    picture = drawn(figures.figure_home(masks, image, accuracy))
    grid = np.array(picture.axes[:6]).reshape(2, 3)
    for (mask, filtered, bars), name in zip(grid, "NA", strict=True):
        np.testing.assert_array_equal(shown(mask), dc_centred(masks[name][0]))
        expected = apply_mask(
            torch.from_numpy(image)[None, None], half_plane(torch.from_numpy(masks[name][0])), float(image.mean())
        )
        np.testing.assert_allclose(shown(filtered), expected[0, 0], rtol=1e-6)
        own = accuracy.loc[name][["masked", "standard"]]
        assert [bar.get_width() for bar in bars.patches] == own.mean().tolist()
        (ranges,) = bars.collections
        drawn_ranges = [segment[:, 0].tolist() for segment in ranges.get_segments()]
        assert drawn_ranges == [[low, high] for low, high in zip(own.min(), own.max(), strict=True)]
