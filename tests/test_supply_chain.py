"""Installed versions are compared with the pinned ones, the page names every pinned package, the bill is CycloneDX."""

import io
import json
import re
from importlib import metadata
from types import SimpleNamespace

import pytest

from ci import supply_chain
from fmlib.publishing.build import BOOK, ROOT


def test_another_version_and_a_package_that_is_not_pinned_are_noticed():
    pins = {"numpy": "2.4.6", "torch": "2.15.0"}
    assert supply_chain.differences(pins, pins | {"pip": "1.0"}) == []
    assert supply_chain.differences(pins, {"numpy": "2.4.5", "left-pad": "1.0"}) == [
        "numpy 2.4.5 is installed, 2.4.6 is pinned",
        "left-pad 1.0 is installed, nothing is pinned",
    ]


def test_every_pinned_version_has_hashes():
    text = (ROOT / "ci" / "constraints.txt").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    assert len(entries) == len(supply_chain.pinned()) > 150
    shape = r"\S+==\S+( ; platform_system == \"Linux\")?( \\\n    --hash=sha256:[0-9a-f]{64})+"
    assert [entry for entry in entries if not re.fullmatch(shape, entry)] == []


def test_a_lock_has_the_files_that_some_machine_installs(monkeypatch):
    names = [
        "left_pad-1.0.tar.gz", "left_pad-1.0-py3-none-any.whl", "left_pad-1.0-cp312-cp312-macosx_11_0_arm64.whl",
        "left_pad-1.0-cp38-cp38-win32.whl", "left_pad-1.0.1.tar.gz", "left_pad-2.0-py3-none-any.whl",
    ]  # fmt: skip
    listed = [{"filename": name, "hashes": {"sha256": f"{number:064x}"}} for number, name in enumerate(names)]
    answer = io.BytesIO(json.dumps({"files": listed}).encode())
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: answer)
    text = supply_chain.lock({"left-pad": SimpleNamespace(version="1.0")}, "https://index.example")
    assert [int(one, 16) for one in re.findall(r"sha256:(\w+)", text)] == [0, 1, 2]


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


@pytest.mark.parametrize("index", ["file:///nowhere", "http://127.0.0.1:9", "no address"])
def test_an_address_that_is_no_index_is_one_line(index):
    with pytest.raises(SystemExit, match="is no page of a package index") as caught:
        supply_chain.lock(supply_chain.installed(), index)
    assert "\n" not in str(caught.value)
