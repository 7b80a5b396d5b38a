"""The figures of Fourier heat maps show the values that they are given, with full network names."""

import numpy as np
from conftest import dc_centred, drawn, shown

from fmlib.core.intervals import Measured
from fmlib.studies.fourier_heat_maps import figures

SIDE = 8


def test_each_row_shows_a_heat_map_its_mask_and_one_point_per_frequency():
    rng = np.random.default_rng(0)
    heat = {regime: 100 * rng.random((SIDE, SIDE)) for regime in ("N", "N-")}
    masks = {regime: rng.random((SIDE, SIDE)) for regime in heat}
    picture = drawn(figures.figure_heat(heat, masks))
    grid = np.array(picture.axes[:6]).reshape(2, 3)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["standard\n(N)", "JaFR high\n(N\N{MINUS SIGN})"]
    for (regime, plane), row in zip(heat.items(), grid, strict=True):
        for axes, expected in zip(row, (plane, masks[regime]), strict=False):
            np.testing.assert_array_equal(shown(axes), dc_centred(expected))
        points = np.asarray(row[2].collections[0].get_offsets())
        np.testing.assert_allclose(points, np.stack((masks[regime].ravel(), plane.ravel()), 1))
    assert grid[0, 0].get_images()[0].get_clim() == grid[1, 0].get_images()[0].get_clim()


def test_each_network_has_its_error_rate_in_every_ring():
    rings = {regime: [Measured(10.0 * k, 10.0 * k - 5, 10.0 * k + 5, 200) for k in (1, 2)] for regime in ("N", "N-")}
    axes = drawn(figures.figure_rings(rings)).axes[0]
    lines = {line.get_label(): line for line in axes.lines if line.get_marker() != "None"}
    assert set(lines) == {"standard (N)", "JaFR high (N\N{MINUS SIGN})"}
    np.testing.assert_allclose(lines["standard (N)"].get_xydata(), [[0.25, 10], [0.75, 20]])
    assert {tuple(band.get_paths()[0].get_extents().intervaly) for band in axes.collections} == {(5, 25)}
