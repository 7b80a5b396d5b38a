"""The claims on heat maps: which frequencies are low, how errors are weighed, and what the pairing says."""

import numpy as np
import pytest

from fmlib import heat_claims
from fmlib.spectra import corner_radius, full_plane, radius

SIZE = 16
LOW = (radius(SIZE, SIZE) < corner_radius(SIZE, SIZE) / 3).numpy()  # (16, 16)


class Made:
    """Results that hold heat maps and masks made here."""

    def __init__(self, **errors: np.ndarray) -> None:
        self.found = {"heat_maps": {}, "dataset_masks": {name: LOW[None].astype(np.float32) for name in errors}}
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
    """N errs at high frequencies only, A at low ones only."""
    return Made(N=half(~LOW), A=half(LOW))


def test_errors_are_read_as_they_were_written(opposite):
    found = heat_claims.heat_errors(opposite, "N")
    assert found.shape == (6, 16, 9)
    assert (full_plane(found[0].float(), SIZE).numpy() == ~LOW).all()


def test_thirds_weigh_each_frequency_of_the_plane_once():
    corner = np.zeros((SIZE, SIZE), bool)
    corner[SIZE // 2, SIZE // 2 - 1] = corner[SIZE // 2, SIZE // 2 + 1] = True  # an interior column and its mirror
    found = heat_claims.third_errors(Made(N=half(corner)), "N", low=False)
    assert found == pytest.approx(np.full(6, 2 / (~LOW).sum()))
    assert (heat_claims.third_errors(Made(N=half(corner)), "N", low=True) == 0).all()


def test_claims_tell_the_direction(opposite):
    judged = {claim.id: claim.measure(opposite) for claim in heat_claims.CLAIMS}
    assert judged["H.A.high"][:3] == judged["H.A.low"][:3] == (100, 100, 100)
    assert judged["H.A.agreement"].value == pytest.approx(1)
    assert judged["H.N.agreement"].value == pytest.approx(-1)
    swapped = Made(A=half(~LOW), N=half(LOW))
    assert [claim.measure(swapped).value for claim in heat_claims.CLAIMS[:2]] == [-100, -100]
