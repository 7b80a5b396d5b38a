"""Results: reading published files, and noticing every damage to them."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.errors import FmlibError
from fmlib.pipeline import results as module
from fmlib.pipeline.disk.files import signed_json
from fmlib.pipeline.results import PUBLISHED, NotComputed, Results, manifest_text


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


FILES = {
    "masks.csv": b"regime,l1_share\nN,0.25\nA,0.5\n",
    "evaluation.npz": npz(correct=np.array([True, False])),
    "claims.json": json.dumps([{"id": "T1.N.gap", "value": 1.0}, {"id": "T1.A.gap", "value": None}]).encode(),
}


@pytest.fixture
def folder(tmp_path):
    """A folder of results."""
    manifest = {"profile": "quick", "data": "planted", "seed": 0, "key": "0123456789abcdef", "experiments": {}}
    manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "manifest.json").write_text(manifest_text(manifest))
    return tmp_path


def test_everything_is_read(folder):
    results = Results.open(folder)
    assert results.profile == "quick"
    assert results.table("masks")["l1_share"].tolist() == [0.25, 0.5]
    assert results.arrays("evaluation")["correct"].tolist() == [True, False]
    assert [row["id"] for row in results.claims()] == ["T1.N.gap", "T1.A.gap"]
    assert results.claim("T1.N.gap")["value"] == 1


def test_what_is_not_there_was_not_computed(folder):
    results = Results.open(folder)
    with pytest.raises(NotComputed, match=r"holds no stability.csv"):
        results.table("stability")
    with pytest.raises(NotComputed, match=r"holds no tables.npz"):
        results.arrays("tables")
    with pytest.raises(NotComputed, match=r"evaluation.npz has no array 'masked'"):
        results.arrays("evaluation")["masked"]


def test_an_unknown_claim_is_an_error(folder):
    with pytest.raises(FmlibError, match="no claim 'T9'"):
        Results.open(folder).claim("T9")


def test_a_folder_without_results_says_what_to_do(tmp_path):
    with pytest.raises(FmlibError, match=r"no results in .* run 'fmlib run all' and 'fmlib publish' first"):
        Results.open(tmp_path)


@pytest.mark.parametrize("name", list(FILES))
def test_a_missing_file_is_damage_and_not_taken_for_uncomputed(folder, name):
    (folder / name).unlink()
    with pytest.raises(FmlibError, match=f"{name} is missing") as caught:
        Results.open(folder).content(name)
    assert not isinstance(caught.value, NotComputed)


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\n", lambda content: b""])
def test_a_file_that_was_cut_or_extended_is_noticed(folder, name, change):
    (folder / name).write_bytes(change(FILES[name]))
    with pytest.raises(FmlibError, match=f"{name} does not match its checksum"):
        Results.open(folder).content(name)


@pytest.mark.parametrize("name", list(FILES))
def test_any_flipped_byte_of_a_file_is_noticed(folder, name):
    results, rng = Results.open(folder), np.random.default_rng(0)
    for position in range(len(FILES[name])):
        damaged = bytearray(FILES[name])
        damaged[position] ^= int(rng.integers(1, 256))
        (folder / name).write_bytes(damaged)
        with pytest.raises(FmlibError, match="does not match its checksum"):
            results.content(name)


def test_claims_are_checked_when_they_are_read(folder):
    (folder / "claims.json").write_bytes(FILES["claims.json"].replace(b"1.0", b"2.0"))
    results = Results.open(folder)
    for read in (results.claims, lambda: results.claim("T1.N.gap")):
        with pytest.raises(FmlibError, match=r"claims.json does not match its checksum"):
            read()


@pytest.mark.parametrize("flip", [0x01, 0x0A ^ 0x0D, 0x0A ^ 0x20, 0x80])
def test_any_flipped_byte_of_the_manifest_is_noticed(folder, flip):
    """Among others the flips between space, line feed and carriage return, which JSON reads as the same."""
    path = folder / "manifest.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(FmlibError, match=r"manifest.json does not match its checksum"):
            Results.open(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '"sha256"', "{}", '{"profile": "qui', '{"profile": "quick", "files": {}}', '{"sha256": ""}']
)
def test_a_manifest_that_is_none_is_damaged(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(FmlibError, match=r"manifest.json does not match its checksum"):
        Results.open(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), JSON, max_size=4))
def test_a_manifest_keeps_its_content_and_order(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("results")
    (folder / "manifest.json").write_text(manifest_text(manifest))
    read = Results.open(folder).manifest
    assert read == manifest
    assert list(read) == list(manifest)


PUBLISHED_FILES = [path for path in sorted(PUBLISHED.glob("*/*")) if (path.parent / "manifest.json").exists()]


@pytest.mark.parametrize("path", PUBLISHED_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_flipped_byte_of_what_is_published_is_noticed(path, tmp_path):
    shutil.copy(path.parent / "manifest.json", tmp_path)
    whole, rng = path.read_bytes(), np.random.default_rng(len(path.name))
    for position in rng.integers(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        (tmp_path / path.name).write_bytes(damaged)
        with pytest.raises(FmlibError, match="does not match its checksum"):
            Results.open(tmp_path).content(path.name)


def test_observers_are_told_of_every_file_but_the_manifest(folder, monkeypatch):
    read = []
    monkeypatch.setattr(module, "observers", [read.append])
    results = Results.open(folder)
    results.table("masks")
    results.claim("T1.N.gap")
    assert [path.name for path in read] == ["masks.csv", "claims.json"]


def test_only_a_checkout_is_written_to(monkeypatch, tmp_path):
    assert module.checkout() == PUBLISHED
    monkeypatch.setattr(module, "PUBLISHED", tmp_path / "published")
    with pytest.raises(FmlibError, match="needs a checkout"):
        module.checkout()


def test_benchmarks_are_read_by_device(monkeypatch, tmp_path):
    (tmp_path / "bench").mkdir()
    for name in ("cpu", "faults"):
        (tmp_path / "bench" / f"{name}.json").write_text(signed_json({"device": name}))
    monkeypatch.setattr(module, "PUBLISHED", tmp_path)
    assert module.benchmarks() == ["cpu"]
    assert module.benchmark("cpu") == {"device": "cpu"}
    assert module.benchmark("faults") == {"device": "faults"}
    with pytest.raises(module.NotComputed, match="fmlib bench --solvers"):
        module.benchmark("solvers")


@pytest.mark.parametrize("flip", [0x01, 0x0A ^ 0x0D, 0x80])
def test_any_flipped_byte_of_a_benchmark_is_noticed(monkeypatch, tmp_path, flip):
    path, whole = tmp_path / "bench" / "cpu.json", signed_json({"device": "cpu", "rows": [{"n": 1.5}]}).encode()
    path.parent.mkdir()
    monkeypatch.setattr(module, "PUBLISHED", tmp_path)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
        with pytest.raises(FmlibError, match=r"cpu.json does not match its checksum .*'fmlib bench'"):
            module.benchmark("cpu")


def test_all_files_are_verified_at_once(folder):
    results = Results.open(folder)
    results.verify()
    (folder / "claims.json").write_bytes(FILES["claims.json"][:-1])
    results.verify(skip=["claims.json"])
    with pytest.raises(FmlibError, match=r"claims.json does not match its checksum"):
        results.verify()
