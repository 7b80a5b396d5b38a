"""The claims on heat maps: which frequencies are low, how errors are weighed, and what the pairing says."""

import numpy as np
import pytest

from fmlib.core.spectra import corner_radius, full_plane, radius
from fmlib.studies.fourier_heat_maps import analysis

SIZE = 16
LOW = (radius(SIZE, SIZE) < corner_radius(SIZE, SIZE) / 3).numpy()  # (16, 16)


class Made:
    """Results that hold heat maps and masks made here."""

    def __init__(self, **errors: np.ndarray) -> None:
        mask = LOW[:, : SIZE // 2 + 1].astype(np.float32)
        self.found = {"heat_maps": {f"mask.{name}": mask for name in errors}}
        for regime, array in errors.items():
            self.found["heat_maps"] |= {
                f"errors.{regime}": np.packbits(array),
                f"shape.{regime}": np.array(array.shape),
            }

    def arrays(self, name):
        return self.found[name]


def half(plane, count=6):
    """The same errors for each of `count` images, (count, 16, 9)."""
    return np.repeat(plane[None, :, : SIZE // 2 + 1], count, 0)


@pytest.fixture
def opposite():
    """N and N- err at high frequencies only, A and N+ at low ones only."""
    return Made(**{"N": half(~LOW), "A": half(LOW), "N+": half(LOW), "N-": half(~LOW)})


def test_errors_are_read_as_they_were_written(opposite):
    found = analysis.heat_errors(opposite, "N")
    assert found.shape == (6, 16, 9)
    assert (full_plane(found[0].float(), SIZE).numpy() == ~LOW).all()


def test_thirds_weigh_each_frequency_of_the_plane_once():
    corner = np.zeros((SIZE, SIZE), bool)
    corner[SIZE // 2, SIZE // 2 - 1] = corner[SIZE // 2, SIZE // 2 + 1] = True  # an interior column and its mirror
    found = analysis.third_errors(Made(N=half(corner)), "N", low=False)
    assert found == pytest.approx(np.full(6, 2 / (~LOW).sum()))
    assert (analysis.third_errors(Made(N=half(corner)), "N", low=True) == 0).all()


def test_claims_tell_the_direction(opposite):
    judged = {claim.id: claim.measure(opposite)[:3] for claim in analysis.CLAIMS}
    assert judged.pop("H.A.agreement")[0] == judged.pop("H.N+.agreement")[0] == pytest.approx(1)
    assert judged.pop("H.N.agreement")[0] == judged.pop("H.N-.agreement")[0] == pytest.approx(-1)
    assert judged.pop("H.N-.low") == judged.pop("H.N-.high") == (0, 0, 0)
    assert set(judged) == {"H.A.high", "H.A.low", "H.N+.high", "H.N+.low"}
    assert set(judged.values()) == {(100, 100, 100)}


def test_a_network_is_compared_with_n():
    made = Made(**{"N": half(LOW), "A": half(~LOW), "N+": half(~LOW), "N-": half(~LOW)})
    judged = {claim.id: claim.measure(made).value for claim in analysis.CLAIMS if "agreement" not in claim.id}
    assert judged == {
        "H.A.high": -100, "H.A.low": -100, "H.N+.high": -100, "H.N+.low": -100, "H.N-.low": 100, "H.N-.high": 100
    }  # fmt: skip
