"""Experiments: what is published, what a folder keeps, and an interrupted run that ends as an uninterrupted one."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripts
import torch
from conftest import CPU, files, small

from fmlib import __version__
from fmlib.core.errors import FmlibError
from fmlib.core.intervals import Measured
from fmlib.pipeline.claims import Claim, Rule, rate
from fmlib.pipeline.experiment import Experiment, evaluate_claims, publish, results_key
from fmlib.pipeline.results import NotComputed, Results
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies import registry
from fmlib.studies.shared.setup import Setup


def toy(name, values, inputs=()):
    """A task whose artifact holds these values."""
    spec = {"values": list(values), "seed": len(values)}
    return Task("toy", name, spec, lambda artifacts, checkpoint: Artifact({"values": np.array(values)}), inputs)


SHARED = toy("shared", [1, 0])
FIRST, SECOND = toy("first", [1, 1, 0], (SHARED,)), toy("second", [0.5, 0.7], (SHARED,))


def exporter(file, task):
    def export(setup, store):
        values = store.get(task).arrays["values"]
        if file.endswith(".npz"):
            return {file: arrays_to_bytes({"correct": values > 0.5})}
        return {file: csv([{"value": value} for value in values])}

    return export


ONE = Experiment("one", "shares", lambda setup: [FIRST], exporter("one.npz", FIRST), images=lambda setup: 3)
TWO = Experiment("two", "values", lambda setup: [SECOND], exporter("two.csv", SECOND))


def _both(results):
    images = results.arrays("one")["correct"]
    value = float(results.table("two")["value"].mean())
    return Measured(value, value, value, images.size)


def claim(identity, measure, **arguments):
    return Claim(
        id=identity, source="paper", statement="It is large.", unit="%", n="images", chapter="toy", figure="f",
        timing="before", rule=Rule(at_least=10), measure=measure, arguments=arguments, requires="any data",
    )  # fmt: skip


CLAIMS = [claim("one", rate, file="one", array="correct"), claim("both", _both)]


@pytest.fixture
def setup():
    return Setup(small(), 0, CPU, progress=False)


@pytest.fixture
def store(tmp_path):
    """A store that holds every toy artifact."""
    made = Store(tmp_path / "store", CPU)
    for task in (FIRST, SECOND):
        made.get(task)
    return made


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results" / "quick"


def verdicts(results):
    return {row["id"]: row["verdict"] for row in results.claims()}


def test_a_tree_holds_every_input_once_and_first():
    both = Experiment("both", "", lambda setup: [FIRST, SECOND, FIRST], exporter("one.npz", FIRST))
    assert [task.name for task in both.tree(None)] == ["shared", "first", "second"]


def test_a_publication_is_complete_and_repeatable(setup, store, folder, tmp_path):
    results = publish([ONE, TWO], setup, store, folder, CLAIMS)
    assert set(files(folder)) == {"one.npz", "two.csv", "claims.json", "manifest.json"}
    assert set(results.manifest["files"]) == set(files(folder)) - {"manifest.json"}
    assert results.arrays("one")["correct"].tolist() == [True, True, False]
    assert results.table("two")["value"].tolist() == [0.5, 0.7]
    assert results.claims() == [claim.evaluate(results) for claim in CLAIMS]
    publish([ONE, TWO], setup, store, tmp_path / "again", CLAIMS)
    assert files(tmp_path / "again") == files(folder)
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    assert files(tmp_path / "again") == files(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["quick"]


def test_a_network_that_was_trained_again_is_told_from_the_first(setup, store, folder):
    """Its key is the same, its weights are not: masks of one network and of the other are not compared."""
    network = Task("network", "network N", {}, lambda inputs, checkpoint: Artifact({}))
    first, second = (
        Experiment(name, "", lambda setup, task=task: [task], exporter(f"{name}.csv", task))
        for name, task in (("first", toy("a", [1], (network,))), ("second", toy("b", [2], (network,))))
    )
    for experiment, value in ((first, 1.0), (second, 1.0), (second, 2.0)):
        store.put(network, Artifact({}, weights={"weight": torch.tensor([value])}))
        store.get(experiment.tasks(setup)[0])
        results = publish([experiment], setup, store, folder, [])
        used = results.manifest["experiments"][experiment.name]["networks"]
        assert used == {"network N": store.weights_checksum(network)}
        if value == 1 and experiment is second:
            results.require_same_networks("first", "second")
    with pytest.raises(NotComputed, match="network N was trained again between first and second"):
        results.require_same_networks("first", "second")


def test_the_manifest_says_how_each_experiment_was_computed(setup, store, folder):
    fixed = replace(TWO, precision="float32")
    manifest = publish([ONE, fixed], setup, store, folder, CLAIMS).manifest
    assert {name: manifest[name] for name in ("profile", "data", "seed")} == {
        "profile": "quick",
        "data": "planted",
        "seed": 0,
    }
    expected = {"device": "cpu", "torch": torch.__version__, "fmlib": __version__, "precision": "float32"}
    assert manifest["experiments"] == {
        "one": expected | {"seeds": [2, 3], "images": 3, "tasks": [SHARED.key, FIRST.key], "files": ["one.npz"]},
        "two": expected | {"seeds": [2], "tasks": [SHARED.key, SECOND.key], "files": ["two.csv"]},
    }
    assert manifest["key"] == results_key(manifest["experiments"])


@pytest.mark.usefixtures("bfloat16_on_cpu")
def test_the_manifest_says_where_networks_run_in_bfloat16(setup, store, folder):
    manifest = publish([ONE, replace(TWO, precision="float32")], setup, store, folder, CLAIMS).manifest
    assert {name: record["precision"] for name, record in manifest["experiments"].items()} == {
        "one": "bfloat16",
        "two": "float32",
    }


def test_the_key_of_results_depends_on_their_tasks_and_not_on_their_grouping():
    def key(**groups):
        return results_key({name: {"tasks": keys} for name, keys in groups.items()})

    assert key(one=["a", "b"], two=["b", "c"]) == key(all=["c", "b", "a"])
    assert key(one=["a", "b"]) != key(one=["a"])


def test_what_is_missing_reads_not_computed(setup, store, folder):
    assert verdicts(publish([ONE], setup, store, folder, CLAIMS)) == {"one": "reproduced", "both": "not computed"}


def test_publishing_one_experiment_keeps_the_others(setup, store, folder):
    publish([ONE], setup, store, folder, CLAIMS)
    first = files(folder)
    both = publish([TWO], setup, store, folder, CLAIMS)
    assert list(both.manifest["experiments"]) == ["one", "two"]
    assert files(folder)["one.npz"] == first["one.npz"]
    assert verdicts(both)["both"] != "not computed"
    whole = files(folder)
    for experiment in (ONE, TWO):
        publish([experiment], setup, store, folder, CLAIMS)
        assert files(folder) == whole


def test_a_partial_record_is_kept_until_its_experiment_is_published(setup, store, folder):
    results = publish([ONE, TWO], setup, store, folder, CLAIMS)
    results.manifest["experiments"]["one"]["partial"] = "two of three images"
    evaluate_claims(results, CLAIMS)
    assert publish([TWO], setup, store, folder, CLAIMS).manifest["experiments"]["one"]["partial"]
    assert "partial" not in publish([ONE], setup, store, folder, CLAIMS).manifest["experiments"]["one"]


def test_files_that_an_experiment_no_longer_exports_go(setup, store, folder):
    publish([replace(ONE, export=exporter("old.npz", FIRST)), TWO], setup, store, folder, CLAIMS)
    assert set(publish([ONE], setup, store, folder, CLAIMS).manifest["files"]) == {"one.npz", "two.csv", "claims.json"}
    assert not (folder / "old.npz").exists()


def test_archived_files_stay_when_their_experiment_is_published_again(setup, store, folder):
    """They are of computations that cannot be repeated."""
    results = publish([replace(ONE, export=exporter("old.npz", FIRST)), TWO], setup, store, folder, CLAIMS)
    results.manifest["experiments"]["one"]["archived"] = ["old.npz"]
    evaluate_claims(results, CLAIMS)
    before = results.content("old.npz")
    for experiment in (ONE, TWO, ONE):
        again = publish([experiment], setup, store, folder, CLAIMS)
        assert again.manifest["experiments"]["one"]["files"] == ["old.npz", "one.npz"]
        assert again.content("old.npz") == before
    with pytest.raises(FmlibError, match=r"old\.npz, which is archived"):
        publish([replace(ONE, export=exporter("old.npz", FIRST))], setup, store, folder, CLAIMS)


def failing(error):
    def export(setup, store):
        raise error

    return export


def _raises(results):
    raise FmlibError("cannot be measured")


@pytest.mark.parametrize("held", [[], [ONE], [ONE, TWO]], ids=["nothing", "one", "both"])
@pytest.mark.parametrize(
    ("experiment", "claims", "error"),
    [
        (replace(TWO, export=failing(FmlibError("no"))), CLAIMS, FmlibError),
        (replace(TWO, export=failing(RuntimeError("no"))), CLAIMS, RuntimeError),
        (replace(TWO, export=failing(KeyboardInterrupt())), CLAIMS, KeyboardInterrupt),
        (TWO, [*CLAIMS, claim("broken", _raises)], FmlibError),
        (TWO, [*CLAIMS, claim("wrong", lambda results: 1 / 0)], ZeroDivisionError),
        (replace(TWO, export=exporter("one.npz", SECOND), name="three"), CLAIMS, FmlibError),
        (replace(TWO, tasks=lambda setup: [toy("new", [4])]), CLAIMS, FmlibError),
    ],
    ids=["error", "crash", "stopped", "claim", "measure", "same file", "missing artifact"],
)
def test_a_publication_that_fails_leaves_the_folder_as_it_was(setup, store, folder, held, experiment, claims, error):
    if held:
        publish(held, setup, store, folder, CLAIMS)
    chosen = [ONE, experiment]
    before = files(folder.parent)
    with pytest.raises(error):
        publish(chosen, setup, store, folder, claims)
    assert files(folder.parent) == before
    assert sorted(folder.parent.glob("*")) == ([folder] if held else [])


def test_a_killed_publication_is_put_right_by_the_next(setup, store, folder, monkeypatch):
    """It is killed after it has moved the former folder away, or anywhere before."""
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    before, place = files(folder), folder.with_name(".publishing-quick")
    place.mkdir()
    folder.rename(place / "old")
    assert publish([TWO], setup, store, folder, CLAIMS).manifest["experiments"].keys() == {"one", "two"}
    assert files(folder) == before
    (place / "new").mkdir(parents=True)
    (place / "new" / "one.npz").write_bytes(b"half")
    publish([TWO], setup, store, folder, CLAIMS)
    assert files(folder.parent) == {f"quick/{name}": content for name, content in before.items()}
    assert [path.name for path in folder.parent.iterdir()] == ["quick"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_that_cannot_be_moved_stays(setup, store, folder, monkeypatch, number):
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    before, rename, calls = files(folder.parent), Path.rename, []

    def refuse(self, target):
        calls.append(target)
        if len(calls) == number:
            raise OSError(30, "Read-only file system")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(FmlibError, match=r"cannot write .*quick \(Read-only file system\)"):
        publish([ONE], setup, store, folder, CLAIMS)
    assert files(folder.parent) == before


def test_a_folder_whose_manifest_is_missing_is_not_published_into(setup, store, folder):
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    (folder / "manifest.json").unlink()
    with pytest.raises(FmlibError, match=r"manifest.json is missing: restore it, or delete the folder"):
        publish([TWO], setup, store, folder, CLAIMS)


def test_inputs_that_only_stored_artifacts_read_need_not_be_there(setup, store, folder):
    """As 'fmlib run' does not compute them."""
    wanted = files(publish([ONE, TWO], setup, store, folder, CLAIMS).folder)
    shutil.rmtree(store.path(SHARED))
    assert files(publish([ONE, TWO], setup, store, folder, CLAIMS).folder) == wanted


def test_missing_artifacts_are_named(setup, folder, tmp_path):
    with pytest.raises(FmlibError, match="3 artifacts are missing, such as shared, first, second: run 'fmlib run'"):
        publish([replace(ONE, tasks=lambda setup: [FIRST, SECOND])], setup, Store(tmp_path, CPU), folder, CLAIMS)


def test_a_folder_of_another_profile_or_seed_is_refused(setup, store, folder):
    publish([ONE], setup, store, folder, CLAIMS)
    before = files(folder)
    for other in (replace(setup, seed=1), replace(setup, profile=replace(setup.profile, name="laptop"))):
        with pytest.raises(FmlibError, match="holds profile quick, seed 0: choose another folder"):
            publish([TWO], other, store, folder, CLAIMS)
    assert files(folder) == before


def test_experiments_that_used_a_replaced_artifact_are_published_too_or_not_at_all(setup, store, folder):
    """A network is trained anew: tables of the old one must not stay beside it."""
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    new = toy("first", [1, 0, 0], (toy("shared", [0, 1]),))
    store.get(new)
    changed = replace(ONE, tasks=lambda setup: [new], export=exporter("one.npz", new))
    before = files(folder)
    with pytest.raises(FmlibError, match="holds two from artifacts that are replaced now: publish two as well"):
        publish([changed], setup, store, folder, CLAIMS)
    assert files(folder) == before
    other = toy("second", [0.5, 0.7], (toy("shared", [0, 1]),))
    store.get(other)
    publish([changed, replace(TWO, tasks=lambda setup: [other])], setup, store, folder, CLAIMS)


def test_artifacts_that_only_the_new_publication_uses_replace_nothing(setup, store, folder):
    """More networks are added, or one that nothing else reads is trained anew."""
    publish([ONE, TWO], setup, store, folder, CLAIMS)
    new = toy("first", [1, 0, 0], (SHARED,))
    store.get(new)
    changed = replace(ONE, tasks=lambda setup: [new, FIRST], export=exporter("one.npz", new))
    assert publish([changed], setup, store, folder, CLAIMS).arrays("one")["correct"].tolist() == [True, False, False]
    alone = replace(ONE, tasks=lambda setup: [new], export=exporter("one.npz", new))
    publish([alone], setup, store, folder, CLAIMS)


def test_a_damaged_folder_is_not_published_into(setup, store, folder):
    publish([ONE], setup, store, folder, CLAIMS)
    (folder / "one.npz").write_bytes(b"cut")
    with pytest.raises(FmlibError, match=r"one.npz does not match its checksum"):
        publish([TWO], setup, store, folder, CLAIMS)
    publish([ONE, TWO], setup, store, folder, CLAIMS)


def test_claims_can_be_evaluated_again(setup, store, folder):
    results = publish([ONE, TWO], setup, store, folder, CLAIMS)
    before = files(folder)
    (folder / "claims.json").write_text("[]")
    with pytest.raises(FmlibError, match=r"claims.json does not match its checksum"):
        results.claims()
    evaluate_claims(results, CLAIMS)
    assert files(folder) == before
    evaluate_claims(Results.open(folder), CLAIMS[:1])
    assert list(verdicts(Results.open(folder))) == ["one"]


@pytest.mark.slow
def test_experiments_from_training_to_claims(tmp_path):
    """Networks and their masks: computed, published and evaluated; what was not computed is said to be so."""
    setup, store = Setup(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU)
    chosen = registry.experiments(["networks", "dataset-masks"])
    registry.run(chosen, setup, store, workers=1)
    claims = registry.all_claims()
    first = publish(chosen, setup, store, tmp_path / "first", claims)
    publish(chosen, setup, store, tmp_path / "second", claims)
    assert files(tmp_path / "first") == files(tmp_path / "second")
    rows = first.claims()
    assert len(rows) == len({row["id"] for row in rows}) == len(claims)
    for row in rows:
        if row["verdict"] == "not computed":
            assert row["value"] is None
        elif row["value"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    computed = {row["chapter"] for row in rows if row["verdict"] != "not computed" and row["value"] is not None}
    assert computed == {"dataset_masks"}
    masks = first.arrays("dataset_masks")
    assert masks["A"].shape == (2, 16, 16)
    assert 0 <= masks["A"].min() <= masks["A"].max() <= 1
    with pytest.raises(NotComputed):
        first.arrays("image_masks")


INTERRUPTED = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fmlib.pipeline.store import SavedCheckpoint, Store
from fmlib.studies.shared.setup import Setup
from conftest import CPU, small
torch.set_num_threads(1)
kind, saves, save = sys.argv[3], [], SavedCheckpoint.save

def save_and_die(self, state):
    save(self, state)
    saves.append(self.path.parent.name)
    if kind in saves:
        os.kill(os.getpid(), signal.SIGKILL)

SavedCheckpoint.due, SavedCheckpoint.save = lambda self: True, save_and_die  # save whenever the loop asks
setup = Setup(small(epochs=4, mask_epochs=24), 0, CPU, progress=False)
Store(Path(sys.argv[2]), CPU, say=lambda line: print(line, flush=True)).get(setup.mask("N"))
"""


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_identical_artifacts(tmp_path):
    """A run that is killed at the first saved state of the network, then at that of the mask."""

    def run(store, killed_in):
        done = scripts.run(INTERRUPTED, str(Path(__file__).parents[1]), str(tmp_path / store), killed_in)
        assert done.returncode == (-signal.SIGKILL if killed_in else 0), done.stderr
        return done.stdout

    assert "resuming" not in run("whole", "")
    for kind in ("network", "mask"):
        run("interrupted", kind)
        assert list((tmp_path / "interrupted" / kind).glob("*.part"))
    assert "resuming" in run("interrupted", "")
    assert files(tmp_path / "interrupted") == files(tmp_path / "whole")
