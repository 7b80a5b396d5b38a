"""The upkeep of a store: what is listed, verified and removed, and what never is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fmlib.cli import main
from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk import upkeep
from fmlib.pipeline.disk.locks import locked
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task
from fmlib.studies import registry


def toy(number: int, *inputs: Task) -> Task:
    def compute(found, checkpoint):
        return Artifact({"n": np.full(100, number)}, {"w": torch.ones(number)}, {"number": number})

    return Task("toy", f"task {number}", {"number": number}, compute, inputs)


ONE, TWO, THREE = toy(1), toy(2), toy(3, toy(1))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store", torch.device("cpu"))
    for task in (ONE, TWO, THREE):
        made.get(task)
    return made


@pytest.fixture
def fmlib(store, capsys):
    """Run `fmlib store WORDS`; returns exit code, and lines of output and errors."""

    def call(*words):
        code = main(["store", *words, "--store", str(store.root)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def unsign(folder: Path) -> None:
    """Make an artifact one that was stored before records had a checksum."""
    record = json.loads((folder / "spec.json").read_text())
    del record["checksum"]
    (folder / "spec.json").write_text(json.dumps(record, indent=1) + "\n")


def old(path: Path, days: float = 2) -> Path:
    """Let a path seem as old as that."""
    then = time.time() - days * upkeep.DAY
    os.utime(path, (then, then))
    return path


def test_the_list_has_a_line_for_each(fmlib):
    code, out, errors = fmlib("list")
    assert (code, errors) == (0, [])
    assert [line.split()[:3] for line in out[:-1]] == [["toy", "task", str(number)] for number in (1, 2, 3)]
    assert out[-1].startswith("3 artifacts, 0.0")


def test_a_store_that_does_not_exist(tmp_path, capsys):
    for command in ("list", "verify", "gc", "prune"):
        words = ["--profile", "quick"] if command == "prune" else []
        assert main(["store", command, *words, "--store", str(tmp_path / "nowhere")]) == 2
        assert "nowhere" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_verify_names_each_damaged_artifact(fmlib, store):
    assert fmlib("verify") == (0, ["3 of 3 artifacts are whole"], [])
    (store.path(ONE) / "arrays.npz").write_bytes(b"cut")
    (store.path(TWO) / "weights.safetensors").unlink()
    content = (store.path(THREE) / "spec.json").read_bytes()
    (store.path(THREE) / "spec.json").write_bytes(content.replace(b'"number": 3', b'"number": 8'))
    code, out, errors = fmlib("verify")
    assert (code, out) == (2, ["0 of 3 artifacts are whole"])
    assert [line.split(" is damaged (")[0] for line in errors] == [
        f"fmlib: the stored task {number}" for number in (1, 2, 3)
    ]
    assert all("delete" in line and "run again" in line for line in errors)


def test_artifacts_of_earlier_versions_are_read_but_unverified(fmlib, store):
    unsign(store.path(ONE))
    assert store.get(ONE).facts == {"number": 1}
    code, out, errors = fmlib("verify")
    assert (code, errors) == (0, [])
    assert out == ["3 of 3 artifacts are whole; the records of 1 are unverified, as an earlier version stored them"]
    (store.path(ONE) / "arrays.npz").write_bytes(b"cut")
    assert fmlib("verify")[0] == 2


def test_a_record_whose_checksum_has_lost_its_name_is_damaged(store):
    path = store.path(ONE) / "spec.json"
    path.write_bytes(path.read_bytes().replace(b'"checksum"', b'"chxcksum"'))
    with pytest.raises(FmlibError, match="task 1 is damaged"):
        store.get(ONE)


def test_an_artifact_in_the_place_of_another_is_damaged(store):
    for file in store.path(ONE).iterdir():
        file.unlink()
    store.path(ONE).rmdir()
    store.path(TWO).rename(store.path(ONE))
    with pytest.raises(FmlibError, match=r"task 1 is damaged .*another task"):
        store.get(ONE)


def leave(store, days):
    """Leftovers of killed runs, and files that no store names so."""
    folder = store.root / "toy"
    names = ["a" * 16 + ".part", "b" * 16 + ".part.writing", "c" * 16 + ".lock", f"{TWO.key}.part"]
    paths = [folder / name for name in names]
    for path in paths:
        path.write_bytes(b"x")
    (folder / ("d" * 16 + ".tmp")).mkdir(exist_ok=True)
    (folder / ("d" * 16 + ".tmp") / "arrays.npz").write_bytes(b"x")
    paths.append(folder / ("d" * 16 + ".tmp"))
    others = [folder / "notes.tmp", store.root / "x.lock", folder / ("e" * 16 + ".txt"), folder / ("f" * 17 + ".tmp")]
    for path in others:
        path.write_bytes(b"x")
    for path in (*paths, *others):
        old(path, days)
    return paths, others


def test_gc_removes_old_leftovers_and_nothing_else(fmlib, store):
    paths, others = leave(store, days=2)
    code, out, errors = fmlib("gc", "--dry-run")
    assert (code, out, errors) == (0, [f"would remove {path}" for path in sorted(paths)], [])
    assert all(path.exists() for path in paths)
    assert fmlib("gc") == (0, [f"removed {path}" for path in sorted(paths)], [])
    assert not any(path.exists() for path in paths)
    assert all(path.exists() for path in others)
    assert fmlib("gc") == (0, ["nothing is left over"], [])
    assert fmlib("verify")[0] == 0


def test_gc_keeps_what_is_young_or_in_use(fmlib, store):
    leave(store, days=0.5)
    assert fmlib("gc") == (0, ["nothing is left over"], [])
    paths, _ = leave(store, days=2)
    with locked(paths[0].with_suffix(".lock")):
        old(paths[0].with_suffix(".lock"))
        assert f"removed {paths[0]}" not in fmlib("gc")[1]
    assert paths[0].exists()
    assert not paths[1].exists()


def test_gc_keeps_all_if_the_clock_was_set_back(fmlib, store):
    leave(store, days=-300)
    assert fmlib("gc") == (0, ["nothing is left over"], [])


@pytest.fixture
def needed(monkeypatch):
    """Experiments that need the first and the third task at "quick", and the second as well at "laptop"."""

    def tasks(setup):
        return [THREE, *([TWO] if setup.profile.name == "laptop" else [])]

    known = {"one": Experiment("one", "", tasks, lambda setup, store: {})}
    monkeypatch.setattr(registry, "all_experiments", lambda: known)


def test_prune_lists_first_and_removes_with_yes(fmlib, store, needed):
    code, out, errors = fmlib("prune", "--profile", "quick")
    assert (code, errors) == (0, [])
    assert [line.split()[:3] for line in out[:-1]] == [["toy", "task", "2"]]
    assert out[-1].startswith("1 artifacts that nothing needs, 0.0")
    assert out[-1].endswith(": remove them with --yes")
    assert store.has(TWO)
    assert fmlib("prune", "--profile", "quick", "--yes")[1][-1].startswith("removed 1 of 1 artifacts")
    assert not store.has(TWO)
    assert store.has(ONE)
    assert store.has(THREE)
    assert len(list((store.root / "toy").iterdir())) == 2


def test_prune_keeps_what_any_of_the_profiles_needs(fmlib, store, needed):
    assert fmlib("prune", "--yes") == (0, ["every artifact is needed"], [])
    assert fmlib("prune", "--profile", "quick", "--profile", "laptop") == (0, ["every artifact is needed"], [])
    assert fmlib("prune", "--profile", "huge", "--yes")[0] == 2
    assert store.has(TWO)


def test_prune_removes_nothing_if_a_profile_cannot_be_planned(fmlib, store, monkeypatch):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    code, _, errors = fmlib("prune", "--yes")
    assert code == 2
    assert "--data-root" in errors[0]
    assert all(store.has(task) for task in (ONE, TWO, THREE))


def test_prune_leaves_what_is_computed_at_present(fmlib, store, needed):
    with locked(store.root / "toy" / f"{TWO.key}.lock"):
        assert fmlib("prune", "--profile", "quick", "--yes")[1][-1].startswith("removed 0 of 1")
    assert store.has(TWO)


def test_an_artifact_that_is_half_removed_is_computed_again(store, monkeypatch):
    monkeypatch.setattr(upkeep.shutil, "rmtree", lambda *_, **__: None)  # killed after the rename
    list(upkeep.remove([store.path(ONE)]))
    monkeypatch.undo()
    assert not store.has(ONE)
    assert store.get(ONE).facts == {"number": 1}
    assert len(list((store.root / "toy").iterdir())) == 3
