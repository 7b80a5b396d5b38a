"""The figure of Fourier heat maps shows the planes that it is given, with full network names."""

import numpy as np
from conftest import dc_centred, drawn, shown

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
