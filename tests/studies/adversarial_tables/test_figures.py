"""Figures of adversarial images: every one can be drawn, and shows the numbers that it was given."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import dc_centred, drawn, legend, shown, symmetric_mask

from fmlib.studies.adversarial_tables import figures

SIDE = 8
NAMES = ["tench", "chain saw", "church"]
KINDS = ("x", "xA", "mask", "masked", "masked_adversarial", "complement", "complement_image")


def test_pairs_show_the_second_image_of_each_class_in_the_papers_order():
    samples = {
        kind: np.random.default_rng(seed).random((3, 3, SIDE, SIDE)).astype(np.float16)
        for seed, kind in enumerate(KINDS)
    }
    picture = drawn(figures.figure_pairs(samples, NAMES))
    grid = np.array(picture.axes).reshape(3, 7)
    assert [axes.get_title()[0] for axes in grid[0]] == list("ABCDEFG")
    for column, kind in zip(grid.T, KINDS, strict=True):
        for axes, planes in zip(column, samples[kind], strict=True):
            expected = dc_centred(planes[1]) if kind in ("mask", "complement") else planes[1]
            np.testing.assert_array_equal(shown(axes), expected)


def test_exceedance_is_drawn_by_radius_and_by_direction():
    shares = {
        name: {energy: 100 * np.random.default_rng(n + m).random(64) for m, energy in enumerate(("radial", "angular"))}
        for n, name in enumerate(("one", "two", "three"))
    }
    picture = drawn(figures.figure_exceedance(shares))
    for axes, energy, end in zip(picture.axes, ("radial", "angular"), (1, 360), strict=True):
        assert set(axes.lines[0].get_ydata()) == {50}
        for curve, share in zip(axes.patches, shares.values(), strict=True):
            np.testing.assert_array_equal(curve.get_data().values, share[energy])
            np.testing.assert_allclose(curve.get_data().edges, end * np.arange(65) / 64)
    assert legend(picture.axes[0]) == ["one", "two", "three"]


def test_attacks_share_one_logarithmic_scale():
    planes = {name: symmetric_mask(seed, SIDE) + 0.01 for seed, name in enumerate(("PGD 4/255", "FGSM", "CW"))}
    planes["FGSM"] *= 5
    picture = drawn(figures.figure_attacks({name: plane[:, : SIDE // 2 + 1] for name, plane in planes.items()}))
    *grid, _ = picture.axes  # the last is the colour bar
    assert [axes.get_title() for axes in grid] == list(planes)
    for axes, plane in zip(grid, planes.values(), strict=True):
        np.testing.assert_array_equal(shown(axes), dc_centred(plane))
        assert axes.get_images()[0].get_clim() == pytest.approx((planes["FGSM"].max() / 1e3, planes["FGSM"].max()))
