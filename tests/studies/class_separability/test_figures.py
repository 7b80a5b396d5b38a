"""Figures of class separability: every one can be drawn, and shows the numbers that it was given."""

from __future__ import annotations

import numpy as np
from conftest import drawn, legend

from fmlib.studies.class_separability import figures

NAMES = ["tench", "chain saw", "church"]


def test_splits_show_every_split_and_every_permutation():
    splits, permuted = 100 * np.random.default_rng(0).random((20, 4)), 100 * np.random.default_rng(1).random(99)
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


def test_embeddings_draw_each_point_once_and_outline_those_held_out():
    arrays, kinds = {}, ("outputs", "shuffled", "masks")
    for seed, kind in enumerate(kinds):
        arrays[f"points.{kind}"] = np.random.default_rng(seed).standard_normal((30, 2))
        arrays[f"held.{kind}"] = np.arange(30) % 6 == seed
        arrays[f"labels.{kind}"] = np.random.default_rng(seed + 9).integers(0, 3, 30)
    picture = drawn(figures.figure_embeddings(arrays, NAMES))
    assert len(picture.axes) == 3
    for axes, kind in zip(picture.axes, kinds, strict=True):
        points, held, labels = (arrays[f"{what}.{kind}"] for what in ("points", "held", "labels"))
        seen = np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections])
        assert sorted(map(tuple, seen)) == sorted(map(tuple, points))
        for label, name in enumerate(NAMES):
            faint, outlined = axes.collections[2 * label : 2 * label + 2]
            assert outlined.get_label() == name
            np.testing.assert_array_equal(faint.get_offsets(), points[~held & (labels == label)])
            np.testing.assert_array_equal(outlined.get_offsets(), points[held & (labels == label)])
            assert outlined.get_linewidth()[0] > faint.get_linewidth()[0] == 0
    assert legend(picture) == NAMES
