"""Every network that a profile trains has a full name, a marker and a colour."""

import pytest

from fmlib.studies.shared.names import BIASES, MARKERS, full_name
from fmlib.studies.shared.profiles import PROFILES


@pytest.mark.parametrize(
    "name",
    sorted({"N-"}.union(*((*one.regimes, *one.regularised, *one.regularised_once) for one in PROFILES.values()))),
)
def test_every_network_has_a_full_name_a_marker_and_a_colour(name):
    assert name[1:] in BIASES
    assert name[0] in MARKERS
    assert full_name(name).endswith(f"({name})".replace("-", "\N{MINUS SIGN}"))
    assert len(set(BIASES.values())) == len({colour for _, colour in BIASES.values()}) == len(BIASES)
    assert full_name("N") == "standard (N)"
    assert full_name("A+") == "adversarially trained, JaFR low (A+)"
    assert full_name("N-") == "standard, JaFR high (N\N{MINUS SIGN})"
