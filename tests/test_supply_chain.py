"""Installed versions are compared with the pinned ones, the page names every pinned package, the bill is CycloneDX."""

import re
from importlib import metadata

from ci import supply_chain
from fmlib.publishing.build import BOOK


def test_another_version_and_a_package_that_is_not_pinned_are_noticed():
    pins = {"numpy": "2.4.6", "torch": "2.15.0"}
    assert supply_chain.differences(pins, pins | {"pip": "1.0", "nvidia-nccl-cu13": "2.3"}) == []
    assert supply_chain.differences(pins, {"numpy": "2.4.5", "left-pad": "1.0"}) == [
        "numpy 2.4.5 is installed, 2.4.6 is pinned",
        "left-pad 1.0 is installed, nothing is pinned",
    ]


def test_every_pinned_package_is_on_the_page_of_licences():
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\d\S*) \| (.+) \|$", (BOOK / "licences.md").read_text(), re.MULTILINE)
    assert {name: version for name, version, _ in rows} == supply_chain.pinned(), (
        "run 'python ci/supply_chain.py licences'"
    )
    assert all(licence for _, _, licence in rows)


def test_licences_are_read_from_expressions_classifiers_or_texts():
    assert supply_chain.licence(metadata.distribution("numpy")).startswith("BSD-3-Clause")
    assert supply_chain.licence(metadata.distribution("matplotlib")) != "not declared"


def test_the_bill_lists_each_package_with_its_version_and_licence():
    bill = supply_chain.bill({"numpy": metadata.distribution("numpy")})
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    (component,) = bill["components"]
    assert component["purl"] == f"pkg:pypi/numpy@{metadata.version('numpy')}"
    assert component["licenses"][0]["license"]["name"]
