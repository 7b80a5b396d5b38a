"""The store: keys, one computation per artifact, damage is noticed, and a killed run leaves an artifact or none."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scripts
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fmlib.core.errors import FmlibError
from fmlib.pipeline.disk.files import write_bytes
from fmlib.pipeline.store import (
    Artifact,
    SavedCheckpoint,
    Store,
    Task,
    arrays_from_bytes,
    arrays_to_bytes,
    with_inputs,
)

CPU = torch.device("cpu")


def compute_ones(inputs, checkpoint) -> Artifact:
    return Artifact({"ones": np.ones(3)})


def task(spec=None, **changes) -> Task:
    options = {"kind": "masks", "name": "a mask", "compute": compute_ones} | changes
    return Task(spec={"seed": 0} if spec is None else spec, **options)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store", CPU)


class Counting:
    """A compute that counts its calls and can fail."""

    def __init__(self, artifact: Artifact | None = None, error: Exception | None = None) -> None:
        self.calls, self.artifact, self.error = [], artifact or Artifact({"ones": np.ones(3)}), error

    def __call__(self, inputs, checkpoint) -> Artifact:
        self.calls.append(inputs)
        if self.error:
            raise self.error
        return self.artifact


# -------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "networks"},
        {"version": 2},
        {"spec": {"seed": 1}},
        {"spec": {"seed": 0, "more": None}},
        {"inputs": (task(name="input"),)},
    ],
    ids=["kind", "version", "seed", "spec", "inputs"],
)
def test_key_follows_what_the_result_depends_on(change):
    assert replace(task(), **change).key != task().key


@pytest.mark.parametrize("change", [{"name": "another"}, {"cost": 7.0}, {"compute": print}], ids="".join)
def test_key_ignores_name_cost_and_compute(change):
    assert replace(task(), **change).key == task().key


def test_key_follows_the_inputs_own_inputs_and_their_order():
    def chain(seed):
        return task(inputs=(task(inputs=(task({"seed": seed}),)),))

    assert chain(1).key != chain(2).key
    first, second = task({"seed": 1}), task({"seed": 2})
    assert task(inputs=(first, second)).key != task(inputs=(second, first)).key


def test_key_ignores_the_order_of_the_spec():
    assert task({"a": 1, "b": [2, 3]}).key == task({"b": [2, 3], "a": 1}).key


def test_inputs_come_first_each_once():
    data = task({"x": "data"})
    network = task({"x": "network"}, inputs=(data,))
    mask = task({"x": "mask"}, inputs=(network, data))
    last = task({"x": "last"}, inputs=(mask, network, replace(data, name="data by another name")))
    assert [item.spec["x"] for item in with_inputs([mask, last])] == ["data", "network", "mask", "last"]
    assert [item.spec["x"] for item in with_inputs([last], skip=lambda item: item is network)] == [
        "data",
        "mask",
        "last",
    ]


# ------------------------------------------------------------------------------------------------ get and read


def test_get_computes_once_and_then_reads(store):
    compute = Counting()
    wanted = task(compute=compute)
    assert not store.has(wanted)
    first = store.get(wanted)
    assert store.has(wanted)
    second = Store(store.root, CPU).get(wanted)
    assert len(compute.calls) == 1
    assert first.arrays["ones"].tolist() == second.arrays["ones"].tolist() == [1, 1, 1]


def test_denormal_numbers_are_zero_while_a_task_computes(store):
    def halved():
        return float(torch.tensor([2.0**-126]) * 0.5)

    seen = []
    store.get(task(compute=lambda inputs, checkpoint: seen.append(halved()) or compute_ones(inputs, checkpoint)))
    supported = torch.set_flush_denormal(False)
    assert seen == [0.0 if supported else halved()]
    assert halved() == 2.0**-127


def test_inputs_are_computed_first_and_handed_over_in_order(store):
    inputs = [task({"n": n}, compute=Counting(Artifact({"n": np.array(n)}))) for n in (1, 2)]
    compute = Counting()
    wanted = task(compute=compute, inputs=tuple(inputs))
    store.get(wanted)
    assert [int(artifact.arrays["n"]) for artifact in compute.calls[0]] == [1, 2]
    store.get(wanted)
    store.get(inputs[0])
    assert [len(item.compute.calls) for item in (wanted, *inputs)] == [1, 1, 1]


def test_inputs_of_a_finished_artifact_are_not_computed_again(store):
    needed = task({"n": 1}, compute=Counting())
    wanted = task(inputs=(needed,))
    store.get(wanted)
    for file in store.path(needed).iterdir():
        file.unlink()
    store.path(needed).rmdir()
    store.get(wanted)
    assert len(needed.compute.calls) == 1


def test_store_says_what_it_computes_and_nothing_when_it_reads(tmp_path):
    lines = []
    store = Store(tmp_path, CPU, lines.append)
    store.get(task())
    store.get(task())
    assert len(lines) == 1
    assert "a mask" in lines[0]


named = st.text("abcdefgh_0", min_size=1, max_size=5)
numbers = arrays_of.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    arrays_of.array_shapes(min_dims=0, max_dims=3),
)


@given(st.dictionaries(named, numbers, max_size=3))
def test_arrays_round_trip_with_shape_and_type(arrays):
    content = arrays_to_bytes(arrays)
    found = arrays_from_bytes(content)
    assert content == arrays_to_bytes(arrays)  # the same arrays are the same bytes
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_artifacts_round_trip_whole(store):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    weights = network.to(memory_format=torch.channels_last).state_dict()
    facts = {"accuracy": 0.1 + 0.2, "history": [1, 2.5, None], "name": "\u03bb", "nested": {"ok": True}}
    wanted = task(compute=Counting(Artifact({"a": np.arange(6.0).reshape(2, 3)}, weights, facts)))
    store.get(wanted)
    found = store.get(wanted)
    assert found.arrays["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.facts == facts
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[name], value) for name, value in weights.items())
    assert all(found.weights[name].dtype == value.dtype for name, value in weights.items())


@pytest.mark.parametrize("fact", [np.float32(0.5), Path("x"), torch.tensor(1.0)], ids=lambda v: type(v).__name__)
def test_a_fact_that_is_not_json_does_not_change_in_silence(store, fact):
    """What is read must equal what was computed; otherwise the first run and the second give different answers."""
    wanted = task(compute=Counting(Artifact({}, facts={"fact": fact})))
    try:
        first = store.get(wanted)
    except (FmlibError, TypeError):
        assert not store.has(wanted)
    else:
        assert store.get(wanted).facts == first.facts


def test_spec_json_says_what_it_was_made_from(store):
    needed = task({"n": 1})
    wanted = task({"seed": 3, "mask": {"lr": 0.1}}, inputs=(needed,), version=4)
    store.get(wanted)
    record = json.loads((store.path(wanted) / "spec.json").read_text())
    assert record["spec"] == wanted.spec
    assert record["inputs"] == [needed.key]
    assert (record["kind"], record["name"], record["version"]) == ("masks", "a mask", 4)


def test_only_the_artifact_remains(store):
    def compute(inputs, checkpoint):
        checkpoint.save({"epoch": 1})
        return Artifact({"x": np.zeros(1)}, {"w": torch.zeros(1)})

    wanted = task(compute=compute)
    store.get(wanted)
    files = {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
    assert files == {f"masks/{wanted.key}/{name}" for name in ("arrays.npz", "spec.json", "weights.safetensors")}


# ------------------------------------------------------------------------------------------------------ damage


@pytest.fixture
def stored(store):
    """A stored artifact with arrays and weights: the store, its task, its folder."""
    wanted = task(compute=Counting(Artifact({"a": np.arange(50.0)}, {"w": torch.arange(4.0)}, {"f": 1})))
    store.get(wanted)
    return store, wanted, store.path(wanted)


@pytest.mark.parametrize("name", ["arrays.npz", "weights.safetensors"])
@pytest.mark.parametrize("how", ["one bit", "cut short", "empty", "longer", "absent"])
def test_damaged_files_are_found_and_named(stored, name, how):
    store, wanted, folder = stored
    content = bytearray((folder / name).read_bytes())
    if how == "one bit":
        content[len(content) // 2] ^= 1
    content = {"cut short": content[:-1], "empty": b"", "longer": content + b"\0"}.get(how, content)
    (folder / name).write_bytes(content)
    if how == "absent":
        (folder / name).unlink()
    with pytest.raises(FmlibError, match=f"a mask is damaged.*delete {folder} and run again"):
        store.get(wanted)
    assert len(wanted.compute.calls) == 1


def test_spec_json_cut_short_anywhere_is_found_and_named(stored):
    store, wanted, folder = stored
    content = (folder / "spec.json").read_bytes()
    for length in range(len(content.rstrip())):
        (folder / "spec.json").write_bytes(content[:length])
        with pytest.raises(FmlibError, match="a mask is damaged"):
            store.get(wanted)


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b"3", b'{"sha256": {}}', b'{"sha256": 1}', b"\xff\xfe"])
def test_spec_json_of_another_form_is_found_and_named(stored, content):
    store, wanted, folder = stored
    (folder / "spec.json").write_bytes(content)
    with pytest.raises(FmlibError, match="a mask is damaged"):
        store.get(wanted)


def test_a_folder_without_spec_json_is_computed_again(stored):
    store, wanted, folder = stored
    (folder / "spec.json").unlink()
    assert store.get(wanted).facts == {"f": 1}
    assert len(wanted.compute.calls) == 2
    assert Store(store.root, CPU).get(wanted).arrays["a"].tolist() == list(range(50))


def test_deleting_the_folder_mends_it(stored):
    store, wanted, folder = stored
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    store.get(wanted)
    assert len(wanted.compute.calls) == 2
    assert store.has(wanted)


# ---------------------------------------------------------------------------------------------- interruptions


def test_a_compute_that_raises_leaves_no_artifact(store):
    wanted = task(compute=Counting(error=FmlibError("the loss is not finite")))
    with pytest.raises(FmlibError, match="not finite"):
        store.get(wanted)
    assert not store.has(wanted)
    assert not store.path(wanted).exists()
    again = replace(wanted, compute=compute_ones)
    assert store.get(again).arrays["ones"].tolist() == [1, 1, 1]


def test_an_input_that_raises_stops_what_needs_it(store):
    compute = Counting()
    wanted = task(compute=compute, inputs=(task({"n": 1}, compute=Counting(error=KeyError("x"))),))
    with pytest.raises(KeyError):
        store.get(wanted)
    assert compute.calls == []
    assert not store.has(wanted)


def test_a_saved_state_is_loaded_by_the_next_run_of_the_same_task_only(store):
    def stops(inputs, checkpoint):
        checkpoint.save({"epoch": 3, "mask": torch.arange(3.0)})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(task(compute=stops))
    seen = {}

    def looks(name):
        def compute(inputs, checkpoint):
            seen[name] = checkpoint.load()
            return Artifact({})

        return compute

    store.get(task({"seed": 1}, compute=looks("other")))
    store.get(task(compute=looks("same")))
    assert seen["other"] is None
    assert seen["same"]["epoch"] == 3
    assert seen["same"]["mask"].tolist() == [0, 1, 2]
    store.get(task(version=2, compute=looks("finished")))
    assert seen["finished"] is None


def test_saved_state_is_due_once_an_interval(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fmlib.pipeline.store.time.monotonic", lambda: now[0])
    saved = SavedCheckpoint(tmp_path / "x.part", CPU, interval=20)
    due = []
    for now[0] in (100.0, 119.9, 120.0, 150.0):
        due.append(saved.due())
    assert due == [False, False, True, True]
    saved.save({})
    assert not saved.due()
    now[0] = 170.0
    assert saved.due()


def test_saves_take_at_most_a_twentieth_of_the_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fmlib.pipeline.store.time.monotonic", lambda: now[0])
    saved = SavedCheckpoint(tmp_path / "x.part", CPU, interval=20)

    def slow(*args):
        now[0] += 8

    monkeypatch.setattr("fmlib.pipeline.store.torch.save", slow)
    saved.save({})  # ends at 108
    due = []
    for now[0] in (150.0, 267.9, 268.0):
        due.append(saved.due())
    assert due == [False, False, True]


def test_saved_state_is_none_before_the_first_save(tmp_path):
    assert SavedCheckpoint(tmp_path / "x.part", CPU).load() is None


def test_any_flipped_byte_of_a_saved_state_is_noticed(tmp_path):
    said: list[str] = []
    saved = SavedCheckpoint(tmp_path / "x.part", CPU, note=said.append)
    saved.save({"mask": torch.arange(3.0)})
    whole = saved.path.read_bytes()
    for position in range(0, len(whole), 3):
        saved.path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        assert saved.load() is None
    assert set(said) == {f"the saved state {saved.path} is damaged: starting again"}


def test_a_state_of_an_earlier_version_is_loaded(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.part")
    assert SavedCheckpoint(tmp_path / "x.part", CPU).load() == {"epoch": 3}


def test_a_state_stays_if_memory_is_short(tmp_path, monkeypatch):
    def short(*_, **__):
        raise MemoryError

    saved = SavedCheckpoint(tmp_path / "x.part", CPU)
    saved.save({"epoch": 3})
    monkeypatch.setattr(torch, "load", short)
    with pytest.raises(MemoryError):
        saved.load()
    monkeypatch.undo()
    assert saved.load() == {"epoch": 3}


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_full_disk_leaves_no_artifact_and_no_draft(store, monkeypatch, call, number):
    function, calls = getattr(os, call), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(28, "No space left on device")
        return function(*arguments)

    wanted = task(compute=Counting(Artifact({"a": np.arange(50.0)}, {"w": torch.arange(4.0)})))
    monkeypatch.setattr(os, call, full)
    if call == "fsync" and number == 4:  # three files
        assert store.get(wanted)
        return
    with pytest.raises(FmlibError, match=r"cannot write .*\(No space left on device\): make room on the disk"):
        store.get(wanted)
    assert list((store.root / "masks").iterdir()) == []
    monkeypatch.undo()
    assert store.get(wanted).arrays["a"].size == 50


def test_an_artifact_of_another_task_is_not_taken(store):
    store.get(task({"seed": 1}))
    store.path(task({"seed": 1})).rename(store.path(task()))
    with pytest.raises(FmlibError, match=r"a mask is damaged \(it is the artifact of another task\)"):
        store.get(task())


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.booleans())
def test_damaged_state_is_dropped(tmp_path_factory, position, cut):
    path = tmp_path_factory.mktemp("state") / "x.part"
    saved = SavedCheckpoint(path, CPU)
    saved.save({"mask": torch.arange(3.0)})
    content = path.read_bytes()
    position %= len(content)
    path.write_bytes(content[:position] if cut else b"\0" * 8 + content[8 : position + 8])
    assert saved.load() is None
    assert not path.exists()
    saved.save({"epoch": 1})
    assert saved.load() == {"epoch": 1}


def test_state_that_would_run_code_is_dropped(tmp_path):
    path = tmp_path / "x.part"
    torch.save({"path": Path("x")}, path)  # an arbitrary object: loading it means running its class
    assert SavedCheckpoint(path, CPU).load() is None
    assert not path.exists()


def test_write_bytes_replaces_whole_files(tmp_path):
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"first, and longer")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_write_bytes_leaves_the_old_file_when_the_disk_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FmlibError, match=r"cannot write .*file \(No space left on device\): make room on the disk"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- kill -9

#: Learns a mask from scratch in forked children. Child n kills itself at its n-th call of fsync or rename, until one
#: lives to the end; every killed child's store is then given to a child that may finish.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import torch._dynamo  # optimisers need it: imported before the children are forked
from fmlib.core import mask_optimizer
from fmlib.core.config import MaskSpec
from fmlib.core.masks import learn_masks
from fmlib.pipeline.store import Artifact, Task, Store

torch.set_num_threads(1)
mask_optimizer.CHECK_EVERY = 1  # a state may be saved after every step
root = Path(sys.argv[1])


class Linear(torch.nn.Module):
    def forward(self, images):
        flat = images.flatten(1) - 0.5
        return torch.stack((flat[:, ::2].sum(1), flat[:, 1::2].sum(1)), 1)


def compute(inputs, checkpoint):
    checkpoint.interval = 0
    images = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    model = Linear()
    spec = MaskSpec(lr=0.1, epochs=4, batch=2)
    index = torch.tensor([0, 0, 0, 1, 1, 1])
    found = learn_masks(model, images, index, index, spec, seed=0, checkpoint=checkpoint, progress=False)
    return Artifact({"half": found.half.numpy()}, {"weight": torch.ones(2)}, {"epochs": found.epochs.tolist()})


task = Task("masks", "a mask", {"seed": 0}, compute)


def child(place, fatal):
    calls = 0

    def deadly(function):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args)
        return call

    pid = os.fork()
    if pid == 0:
        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        lines = []
        Store(root / place, torch.device("cpu"), lines.append).get(task)
        print(place, "done", *lines, flush=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, status
    return False


fatal = 1
while child(f"{fatal}", fatal):
    store = Store(root / f"{fatal}", torch.device("cpu"))
    print(fatal, "whole" if store.has(task) else "torn" if store.path(task).exists() else "absent", flush=True)
    assert not child(f"{fatal}", 0)
    fatal += 1
print(fatal, "calls", flush=True)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The stores of runs killed at every write and then finished, and the script's account of them."""
    root = tmp_path_factory.mktemp("killed")
    result = scripts.run(KILLED, str(root))
    assert result.returncode == 0, result.stderr
    return root, [line.split(" ", 2) for line in result.stdout.splitlines()]


def test_a_killed_run_leaves_no_artifact_or_a_whole_one(killed):
    _, lines = killed
    left = [word for _, word, *_ in lines if word in ("whole", "torn", "absent")]
    assert len(left) >= 12  # 3 saved states and 3 files, each synced and renamed, and the folder's own rename
    assert set(left) == {"absent"}  # every kill came before the last rename


def test_the_next_run_resumes_where_a_state_was_saved(killed):
    _, lines = killed
    said = {place: rest[0] for place, word, *rest in lines if word == "done"}
    assert said["1"] == said["2"] == "computing a mask"  # killed before the first state was in place
    assert said["3"] == "resuming a mask"


def test_the_next_run_completes_with_identical_bytes(killed):
    root, lines = killed
    last = int(next(place for place, word, *_ in lines if word == "calls"))
    whole = next((root / f"{last}" / "masks").glob("*/spec.json")).parent  # the run that was never killed
    wanted = {file.name: file.read_bytes() for file in whole.iterdir()}
    assert set(wanted) == {"arrays.npz", "spec.json", "weights.safetensors"}
    for place in range(1, last):
        folder = root / f"{place}" / "masks" / whole.name
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == wanted


def test_nothing_else_is_left_after_the_next_run(killed):
    root, lines = killed
    last = int(next(place for place, word, *_ in lines if word == "calls"))
    for place in range(1, last):
        left = [path.name for path in (root / f"{place}" / "masks").iterdir()]
        assert len(left) == 1, (place, left)


def test_an_artifact_of_the_first_names_is_read_under_the_present_ones(tmp_path):
    """Kinds and arrays were renamed: what was stored before must be found, and read as if stored today."""
    store, renamed = Store(tmp_path, CPU), task(kind="class_transfer")
    first = {"guarded": np.zeros(1), "keep.scattered": np.ones(2), "behind.PGD": np.arange(3), "half": np.ones(1)}
    assert renamed.key == task(kind="maps_crossed").key
    store.put(task(kind="maps_crossed"), Artifact(first))
    assert store.has(renamed)
    assert set(store.get(renamed).arrays) == {"clipped", "keep.random", "filtered.PGD", "half"}


def test_ctrl_c_in_the_middle_of_a_zip_file_is_an_interrupt(monkeypatch):
    def interrupted(*_, **__):
        try:
            raise KeyboardInterrupt
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        arrays_to_bytes({"a": np.zeros(1)})
